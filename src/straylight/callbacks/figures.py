"""Pictures of a run, drawn once, after the test."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from straylight.callbacks.scored import Scores, TestScores, weights_of

log = logging.getLogger(__name__)

LOSSES = ("train/loss", "val/loss")


class Material:
    """What there is to draw from: the scores of the test split, its events, the detector, and what others measured.

    Attributes:
        scores: `(N,)`, larger is stranger.
        y: `(N,)`, -1 unknown, 0 nominal, 1..K the kind of anomaly.
        kinds: names of the labels.
        weight: `(N,)` event weights; None is one each.
        measured: what the other callbacks add to the record.
        losses: by name, pairs of epoch and value.
    """

    def __init__(
        self,
        scores: Scores,
        kinds: Sequence[str],
        weight: NDArray[Any] | None,
        module: Any,
        data: Any,
        measured: Mapping[str, Any],
        losses: Mapping[str, list[tuple[int, float]]],
    ) -> None:
        self.scores, self.y, self.kinds, self.weight = scores.score, scores.y, tuple(kinds), weight
        self.module, self.data, self.measured, self.losses = module, data, measured, losses
        self._index = scores.index

    def events(self, places: NDArray[np.intp]) -> torch.Tensor:
        """Test events in the data's own units, by their place among the scores, `(M, *shape)`, on the CPU."""
        return self.data.splits.test.x.index_select(0, torch.from_numpy(self._index[places]))

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Of ranking metrics, by name."""
        found = self.measured.get("intervals") or {}
        return {name.removeprefix("test/"): interval for name, interval in found.items()}

    @property
    def thresholds(self) -> dict[str, float]:
        """Scores above which a rule flags, by the rule."""
        found = {}
        for entry in self.measured.get("thresholds") or []:
            if entry.get("value") is not None:
                asked = " ".join(f"{value:g}" for value in entry["asked"].values())
                found[f"{entry['rule']} {asked}".strip()] = entry["value"]
        return found


Drawing = Callable[[Material], Any]


class Figures(TestScores):
    """Draws what applies to the run, into `FOLDER` as PNG and to TensorBoard, on the first rank.

    A figure that fails is reported, and the run goes on.

    Args:
        folder: of the pictures.
        drawings: by name, what draws each figure; None is returned where it does not apply.
        dpi: dots per inch of the pictures.
    """

    def __init__(self, folder: str | Path, drawings: Mapping[str, Drawing] | None = None, dpi: int = 120) -> None:
        super().__init__()
        self.folder, self.dpi = Path(folder), dpi
        self.drawings = drawings
        self.drawn: list[str] = []
        self.losses: dict[str, list[tuple[int, float]]] = {}
        self._scores: Scores | None = None

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"figures": self.drawn}

    # losses: the module logs those of an epoch after the callbacks' own end of it

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note(trainer, trainer.current_epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note(trainer, trainer.current_epoch)

    def _note(self, trainer: pl.Trainer, epoch: int) -> None:
        for name, value in trainer.callback_metrics.items():
            if epoch and name.startswith(("train/", "val/")):
                self.losses.setdefault(name, []).append((epoch, float(value)))

    # the test

    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        self._scores = scores

    @torch.inference_mode()
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._scores is not None and trainer.is_global_zero:
            self.drawn = list(self._draw(trainer, pl_module, self._scores))
        self._scores = None
        trainer.strategy.barrier()

    def _draw(self, trainer: pl.Trainer, module: Any, scores: Scores) -> Iterator[str]:
        data = getattr(trainer, "datamodule", None)
        measured: dict[str, Any] = {}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if callback is not self and callable(own := getattr(callback, "result", None)):
                measured |= own()
        kinds = getattr(data, "kinds", ())
        material = Material(scores, kinds, weights_of(trainer, scores.index), module, data, measured, self.losses)
        for name, draw in (self.drawings or {}).items():
            try:
                figure = draw(material)
                if figure is None:
                    continue
                picture = io.BytesIO()
                figure.savefig(picture, format="png", dpi=self.dpi)
                self._keep(trainer, name, picture.getvalue(), figure.get_size_inches() * self.dpi)
            except Exception as error:  # a picture never fails a run
                log.warning(f"The figure {name} was not drawn: {type(error).__name__}: {' '.join(str(error).split())}")
                continue
            yield name

    def _keep(self, trainer: pl.Trainer, name: str, png: bytes, size: NDArray[np.float64]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{name}.png"
        temporary.write_bytes(png)
        temporary.replace(self.folder / f"{name}.png")
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.TensorBoardLogger):
                from tensorboard.compat.proto.summary_pb2 import Summary

                width, height = (round(x) for x in size)
                image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
                summary = Summary(value=[Summary.Value(tag=f"figures/{name}", image=image)])
                logger.experiment._get_file_writer().add_summary(summary, trainer.global_step)
