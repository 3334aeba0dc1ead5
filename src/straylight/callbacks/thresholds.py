"""Which events to flag: thresholds from the calibration half of validation, and what they do on test rows."""

import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from straylight.atomic import replacing
from straylight.callbacks.folds import refitted
from straylight.callbacks.scored import Scores, TestScores, gather, kinds_of, names_of, scored_by, split_of, weights_of
from straylight.detectors import FittedDetector
from straylight.errors import StraylightError
from straylight.folder import RunFolder
from straylight.metrics.conformal import held_nominal
from straylight.metrics.crossed import CrossCuts
from straylight.metrics.rules import Cuts, rules, settable
from straylight.rows.batch import HIDDEN, Batch, Events, Scored

log = logging.getLogger(__name__)
NOTHING = (
    "No thresholds are set: there are no nominal calibration rows. They are half of the validation rows, which "
    "data.val_fraction sets, and which data.protocol=unsupervised and dte do without."
)


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
            many of them may be kept, a threshold for each of several; both or neither.
        fdr: false-discovery rate; `null` leaves the rule out.
        f1: whether to choose a threshold by the labels of validation, where it holds anomalies.
        cross: folds of the training rows, two or more, to calibrate on these instead: the detector, one that is fitted,
            is fitted again without each, see `straylight.metrics.crossed`. For where few rows are left to calibrate.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        quantile: float | None = 0.95,
        fprs: Sequence[float] = (1e-2,),
        input_hz: float | None = None,
        accept_hz: float | Sequence[float] | None = None,
        fdr: float | None = 0.1,
        f1: bool = False,
        cross: int | None = None,
    ) -> None:
        super().__init__()
        if cross is not None and cross < 2:
            raise ValueError(f"callbacks.thresholds.cross must be two folds or more, or null, not {cross}")
        try:
            self.rules = rules(quantile, fprs, input_hz, accept_hz, fdr, f1)
        except ValueError as error:
            raise ValueError(f"callbacks.thresholds.{error}") from error
        self.folder = None if folder is None else RunFolder(folder)
        self.cross = cross
        self.cuts: Cuts | CrossCuts | None = None
        self._told = False
        self._by_fold: list[NDArray[np.float32]] = []  # scores of the test rows
        self.found: list[dict[str, Any]] = []
        self.calibration: dict[str, Any] | None = None  # the columns of the scores that they are set on

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"thresholds": self.found}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says which thresholds can be set, while there is time to ask for others."""
        data = getattr(trainer, "datamodule", None)
        serve = getattr(data, "calibration_dataloader", None)
        if self.cross is not None:
            self._check_cross(trainer, pl_module)
        if not trainer.is_global_zero or serve is None or not self.rules:
            return
        if self.cross is not None:
            log.info(settable(self.rules, len(split_of(data, "train")), "training")[0])
            return
        if not (rows := _effective(_calibrated(trainer))):
            log.warning(NOTHING)
            self._told = True
            return
        said, complete = settable(self.rules, rows)
        if complete:
            log.info(said)
        else:
            more = ", callbacks.thresholds.cross has training rows calibrate" * isinstance(pl_module, FittedDetector)
            log.warning(f"{said} data.smallest_fpr has more rows validate{more}.")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.cuts, self.found, self.calibration = None, [], None
        if self.cross is not None:
            self._calibrate_across(trainer, pl_module, self.cross)
            return
        scores, weight = _calibrating(trainer, pl_module)
        if not held_nominal(scores.y).any():
            if trainer.is_global_zero and not self._told:
                log.warning(NOTHING)
            return
        try:
            self.cuts = Cuts(self.rules, scores.score, scores.y, weight)
        except ValueError as error:
            raise StraylightError(f"{type(pl_module).__name__} sets no threshold: {error}.") from error
        self.found = self.cuts.entries
        self.calibration = {"index": scores.index, "score": scores.score, "y": scores.y}
        self.calibration |= {} if weight is None else {"weight": weight}
        if trainer.is_global_zero and self.folder is not None:
            names = names_of(_calibrated(trainer), scores.index)
            self.folder.write_columns(self.folder.calibration, self.calibration | names)

    # calibration on training rows

    def _check_cross(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """See that there is something to fit again, before it is fitted once."""
        if not isinstance(module, FittedDetector):
            raise StraylightError(
                f"callbacks.thresholds.cross fits a detector again for each fold, and {type(module).__name__} is "
                "not fitted in one pass: leave it out, and set data.smallest_fpr if more rows are to calibrate."
            )
        if trainer.world_size > 1:
            raise StraylightError("callbacks.thresholds.cross is for one process: set trainer.devices=1.")
        train = split_of(getattr(trainer, "datamodule", None), "train")
        if train is None or len(train) < 2 * (self.cross or 2):
            raise StraylightError(
                f"callbacks.thresholds.cross={self.cross} takes two training rows or more for each fold, which a data "
                "module serves."
            )

    def _calibrate_across(self, trainer: pl.Trainer, module: Any, folds: int) -> None:
        self._check_cross(trainer, module)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        rows: list[NDArray[Any]] = []
        scores: list[NDArray[Any]] = []
        states: dict[str, Any] = {}
        self._by_fold = []
        for fold in refitted(trainer, module, folds, data.seed):
            rows.append(fold.rows)
            states |= {f"{len(scores)}.{name}": value for name, value in fold.detector.state_dict().items()}
            scores.append(fold.scores)
            self._by_fold.append(gather(scored_by(trainer, fold.detector, data.test_dataloader())).score)
        try:
            self.cuts = CrossCuts(self.rules, scores)
        except ValueError as error:
            raise StraylightError(f"{type(module).__name__} sets no threshold: {error}.") from error
        self.found = self.cuts.entries
        if self.folder is not None:
            number = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
            index, score = np.concatenate(rows), np.concatenate(scores)
            columns = {"index": index, "score": score, "y": np.full(len(index), HIDDEN), "fold": number}
            columns |= names_of(data.splits.train, index)
            self.folder.write_columns(self.folder.calibration, columns)
            buffer = io.BytesIO()  # torch's own writer ends the process where the disk is full
            torch.save({"state_dict": states, "run": self.folder.run}, buffer)
            with replacing(self.folder.folds) as aside:
                aside.write_bytes(buffer.getbuffer())

    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        if self.cuts is None:
            return
        weight = weights_of(trainer, scores.index)
        try:
            if isinstance(self.cuts, CrossCuts):
                self.found = self.cuts.applied(self._by_fold, scores.y, kinds_of(trainer), weight)
            else:
                self.found = self.cuts.applied(scores.score, scores.y, kinds_of(trainer), weight)
        except ValueError as error:
            raise StraylightError(f"{type(module).__name__} applies no threshold: {error}.") from error


def _calibrated(trainer: pl.Trainer) -> Events | None:
    """The rows that calibrate."""
    serve = getattr(getattr(trainer, "datamodule", None), "calibration_dataloader", None)
    return None if serve is None else getattr(serve(), "events", None)


def _effective(events: Events | None) -> float:
    """How many nominal rows calibrate; with weights, as many of equal weight as know as much."""
    if events is None or not (nominal := held_nominal(events.y)).any():
        return 0.0
    weight = events.weight.double().numpy()[nominal]
    return float(weight.sum() ** 2 / max((weight**2).sum(), np.finfo(float).tiny))


def _calibrating(trainer: pl.Trainer, module: pl.LightningModule) -> tuple[Scores, NDArray[Any] | None]:
    """The scores of the calibration rows of all ranks, and their weights; `None` where they are all the same.

    Rows that the detector has no score of its own for, as forward folds leave them, are left out.
    """
    serve = getattr(getattr(trainer, "datamodule", None), "calibration_dataloader", None)
    loader: Iterable[Batch] = [] if serve is None else serve()
    weights: list[Scored] = []
    unscored: list[Scored] = []

    def watched() -> Iterator[Batch]:
        for batch in loader:
            weights.append(Scored(batch.index, batch.weight, batch.y))
            if callable(asked := getattr(module, "unscored", None)):
                unscored.append(Scored(batch.index, asked(batch.x), batch.y))
            yield batch

    device = module.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # some loaders draw a seed
        parts = scored_by(trainer, module, watched())
    if not parts:
        none = np.empty(0, np.int64)
        return Scores(none, np.empty(0, np.float32), none), None
    scores, weight = gather(parts), gather(weights).score
    if unscored and (without := gather(unscored).score).any():
        log.warning(f"{without.sum():,} calibration rows set no threshold: no model has left them out of its training.")
        index, score, y = (column[~without] for column in scores[:3])
        scores, weight = Scores(index, score, y), weight[~without]
    return scores, None if (weight == weight[:1]).all() else weight
