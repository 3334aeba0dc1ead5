"""The results file of the LHC trigger tutorial: what went in, what came out, and the scores."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from straylight.atomic import replacing
from straylight.callbacks.scored import Scores, TestScores, names_of, split_of
from straylight.folder import run_of
from straylight.rows.origin import plain, written

log = logging.getLogger(__name__)
ROWS = 16384  # written at a time


class ResultsHDF5(TestScores):
    """Writes `results.h5` after the test: events, their reconstructions and their scores, nominal and anomalous apart.

    `BKG_input` and `SIG_input`, `(N, *shape)`; `BKG_predicted` and `SIG_predicted`, the same, from detectors that
    reconstruct; `BKG_scores`, `SIG_scores`, `BKG_index`, `SIG_index`, `(N,)`. Anomalies stand kind after kind:
    `SIG_kind` holds each one's name, and `kinds/NAME/input`, `predicted`, `scores` show one kind without a copy. Rows
    whose labels nobody knows are `DATA_*` instead.

    What names the rows, as in `scores.parquet`, stands in the groups `BKG_rows`, `SIG_rows` and `DATA_rows`, `(N,)`
    each: numbers as they are, if none is missing or NaN can stand for it, and all else as text, times as ISO 8601.

    References:
        E. Govorkova et al., LHC physics dataset for unsupervised New Physics detection at 40 MHz, Sci. Data 9 (2022)
        118, arXiv:2107.02157

    Args:
        path: the file to write.
        scaled: whether events are as the network sees them, so that their squared difference is the loss, and not in
            the data's own units.
    """

    def __init__(self, path: str | Path, scaled: bool = False) -> None:
        super().__init__()
        self.path, self.scaled = Path(path), scaled

    @torch.no_grad()
    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        if not trainer.is_global_zero:
            return
        import h5py

        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        with replacing(self.path) as aside, h5py.File(aside, "w") as file:
            file.attrs["detector"] = type(module).__name__
            file.attrs["data"] = data.title
            file.attrs["scaled"] = self.scaled
            if run := run_of(self.path):
                file.attrs["run"] = run
            order = np.lexsort((scores.index, scores.y))
            for prefix, chosen in (("DATA", scores.y < 0), ("BKG", scores.y == 0), ("SIG", scores.y > 0)):
                if (places := order[chosen[order]]).size:
                    self._write(file, prefix, places, scores, trainer, module)
            self._kinds(file, scores.y[order][scores.y[order] > 0], data.kinds)

    def _write(
        self, file: Any, prefix: str, places: NDArray[np.intp], scores: Scores, trainer: pl.Trainer, module: Any
    ) -> None:
        index = scores.index[places]
        file[f"{prefix}_index"], file[f"{prefix}_scores"] = index, scores.score[places]
        for name, column in names_of(split_of(trainer.datamodule, "test"), index).items():  # type: ignore[attr-defined]
            _keep(file.require_group(f"{prefix}_rows"), name.replace("/", "_"), column)
        shape = (len(index), *(module.shape if self.scaled else module.event_shape))
        reconstructs = hasattr(module, "reconstruct")
        if not reconstructs:
            log.info(f"{type(module).__name__} does not reconstruct: {self.path.name} holds events and scores alone.")
        inputs = file.create_dataset(f"{prefix}_input", shape, "float32")
        predicted = file.create_dataset(f"{prefix}_predicted", shape, "float32") if reconstructs else None
        events = trainer.datamodule.splits.test.x  # type: ignore[attr-defined]
        for start in range(0, len(index), ROWS):
            rows = slice(start, start + ROWS)
            x = events.index_select(0, torch.from_numpy(index[rows]))
            network = module.scaling(x.to(module.device))
            inputs[rows] = (network if self.scaled else x).cpu().numpy()
            if predicted is not None:
                with trainer.precision_plugin.forward_context():
                    out = module.reconstruct(network)
                predicted[rows] = (out if self.scaled else module.scaling.inverse(out)).float().cpu().numpy()

    @staticmethod
    def _kinds(file: Any, y: NDArray[np.int64], kinds: tuple[str, ...]) -> None:
        """Names of the anomalies, which stand kind after kind, and a view of each kind."""
        import h5py

        if not len(y):
            return
        names = [kinds[k] if k < len(kinds) else str(k) for k in y.tolist()]
        file.create_dataset("SIG_kind", data=names, dtype=h5py.string_dtype())
        for k in np.unique(y).tolist():
            first, last = np.searchsorted(y, k, "left"), np.searchsorted(y, k, "right")
            group = file.create_group(f"kinds/{names[first].replace('/', '_')}")
            for what in ("input", "predicted", "scores"):
                if (whole := file.get(f"SIG_{what}")) is not None:
                    view = h5py.VirtualLayout((last - first, *whole.shape[1:]), whole.dtype)
                    view[:] = h5py.VirtualSource(".", whole.name, whole.shape)[first:last]
                    group.create_virtual_dataset(what, view)


def _keep(group: Any, name: str, column: Any) -> None:
    """A column of Arrow's as HDF5 has it."""
    import h5py
    import pyarrow.types as types

    number = types.is_integer(column.type) or types.is_floating(column.type) or types.is_boolean(column.type)
    if number and not (column.null_count and not types.is_floating(column.type)):
        group[name] = plain(column)
        return
    values = ["" if value is None else written(value) for value in column.to_pylist()]
    group.create_dataset(name, data=values, dtype=h5py.string_dtype())
