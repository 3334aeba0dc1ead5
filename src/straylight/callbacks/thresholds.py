"""Which events to flag: thresholds from the calibration half of validation, and what they do on test rows."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from straylight.callbacks.scored import Scores, TestScores, gather, kinds_of, scored_by, weights_of
from straylight.errors import StraylightError
from straylight.folder import RunFolder
from straylight.metrics.conformal import held_nominal
from straylight.metrics.rules import Cuts, rules, settable
from straylight.rows.batch import Batch, Scored

log = logging.getLogger(__name__)


class Thresholds(TestScores):
    """Sets thresholds on the calibration half of validation before the first test row is scored, then applies them.

    Rules: `quantile` of nominal scores, target `fpr`, accept `rate`, `fdr` (conformal p-values of the test rows, by
    Benjamini and Hochberg) and, if asked for, best `f1`; see `straylight.metrics.rules`. The record says of each what
    false-positive rate was expected, in which band, and what was observed. `FOLDER/calibration.parquet` holds the
    scores, with which `Run` judges new events.

    Args:
        folder: the run's folder; `None` keeps the calibration scores nowhere.
        quantile: of nominal scores; `null` leaves the rule out.
        fprs: target false-positive rates.
        input_hz, accept_hz: how many events arrive a second, after the selection that the sample has passed, and how
            many of them may be kept; both or neither.
        fdr: false-discovery rate; `null` leaves the rule out.
        f1: whether to choose a threshold by the labels of validation, where it holds anomalies.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        quantile: float | None = 0.95,
        fprs: Sequence[float] = (1e-2,),
        input_hz: float | None = None,
        accept_hz: float | None = None,
        fdr: float | None = 0.1,
        f1: bool = False,
    ) -> None:
        super().__init__()
        try:
            self.rules = rules(quantile, fprs, input_hz, accept_hz, fdr, f1)
        except ValueError as error:
            raise ValueError(f"callbacks.thresholds.{error}") from error
        self.folder = None if folder is None else RunFolder(folder)
        self.cuts: Cuts | None = None
        self.found: list[dict[str, Any]] = []

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"thresholds": self.found}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says which thresholds can be set, while there is time to ask for others."""
        serve = getattr(getattr(trainer, "datamodule", None), "calibration_dataloader", None)
        if not trainer.is_global_zero or serve is None or not self.rules:
            return
        events = getattr(serve(), "events", None)
        nominal = np.zeros(0, bool) if events is None else held_nominal(events.y)
        rows = float(nominal.sum())
        if rows and events.weight.stride(0) != 0:
            weight = events.weight.double().numpy()[nominal]
            rows = weight.sum() ** 2 / (weight**2).sum()
        said, complete = settable(self.rules, rows)
        if complete:
            log.info(said)
        else:
            log.warning(f"{said} data.smallest_fpr has more rows validate.")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.cuts, self.found = None, []
        scores, weight = _calibrating(trainer, pl_module)
        if not held_nominal(scores.y).any():
            if trainer.is_global_zero:
                log.warning(
                    "No thresholds are set: there are no nominal calibration rows. They are half of the validation "
                    "rows, which data.val_fraction sets, and which data.protocol=unsupervised does without."
                )
            return
        try:
            self.cuts = Cuts(self.rules, scores.score, scores.y, weight)
        except ValueError as error:
            raise StraylightError(f"{type(pl_module).__name__} sets no threshold: {error}.") from error
        self.found = self.cuts.entries
        if trainer.is_global_zero and self.folder is not None:
            columns = {"index": scores.index, "score": scores.score, "y": scores.y}
            columns |= {} if weight is None else {"weight": weight}
            self.folder.write_columns(self.folder.calibration, columns)

    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        if self.cuts is None:
            return
        weight = weights_of(trainer, scores.index)
        try:
            self.found = self.cuts.applied(scores.score, scores.y, kinds_of(trainer), weight)
        except ValueError as error:
            raise StraylightError(f"{type(module).__name__} applies no threshold: {error}.") from error


def _calibrating(trainer: pl.Trainer, module: pl.LightningModule) -> tuple[Scores, NDArray[Any] | None]:
    """The scores of the calibration rows of all ranks, and their weights; `None` where they are all the same."""
    serve = getattr(getattr(trainer, "datamodule", None), "calibration_dataloader", None)
    loader: Iterable[Batch] = [] if serve is None else serve()
    weights: list[Scored] = []

    def watched() -> Iterator[Batch]:
        for batch in loader:
            weights.append(Scored(batch.index, batch.weight, batch.y))
            yield batch

    device = module.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # some loaders draw a seed
        parts = scored_by(trainer, module, watched())
    if not parts:
        none = np.empty(0, np.int64)
        return Scores(none, np.empty(0, np.float32), none), None
    weight = gather(weights).score
    return gather(parts), None if (weight == weight[0]).all() else weight
