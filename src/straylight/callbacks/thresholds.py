"""Which events to flag: thresholds from the calibration half of validation, and what they do on test rows."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from straylight.batch import Batch, Scored
from straylight.callbacks.scored import Scores, TestScores, gather, scored_by, weights_of
from straylight.errors import StraylightError
from straylight.metrics.conformal import Calibration, Threshold, benjamini_hochberg, needed
from straylight.metrics.decisions import decisions
from straylight.metrics.thresholds import best_f1, fpr_of_quantile, fpr_of_rate

log = logging.getLogger(__name__)


class Thresholds(TestScores):
    """Sets thresholds on the calibration half of validation before the first test row is scored, then applies them.

    Rules: `quantile` of nominal scores, target `fpr`, accept `rate`, `fdr` (conformal p-values of the test rows, by
    Benjamini and Hochberg) and, if asked for, best `f1`. See `straylight.metrics.conformal`,
    `straylight.metrics.thresholds` and `straylight.metrics.decisions`. The record says of each what false-positive
    rate was expected, in which band, and what was observed; `FOLDER/calibration.parquet` holds the scores.

    Args:
        folder: the run's folder.
        quantile: of nominal scores; `null` leaves the rule out.
        fprs: target false-positive rates.
        input_hz, accept_hz: how many events arrive a second, after the selection that the sample has passed, and how
            many of them may be kept; both or neither.
        fdr: false-discovery rate; `null` leaves the rule out.
        f1: whether to choose a threshold by the labels of validation, where it holds anomalies.
    """

    def __init__(
        self,
        folder: str | Path,
        quantile: float | None = 0.95,
        fprs: Sequence[float] = (1e-2,),
        input_hz: float | None = None,
        accept_hz: float | None = None,
        fdr: float | None = 0.1,
        f1: bool = False,
    ) -> None:
        super().__init__()
        rates = {"quantile": [quantile], "fdr": [fdr], "fprs": fprs}
        for name, values in rates.items():
            if wrong := [value for value in values if value is not None and not 0 < value < 1]:
                raise ValueError(f"callbacks.thresholds.{name} must lie between 0 and 1, not {wrong[0]}")
        if (input_hz is None) != (accept_hz is None):
            raise ValueError("callbacks.thresholds.input_hz and accept_hz go together: give both or neither")
        # what is asked for at a false-positive rate: the rule, how it was asked for, the rate
        self._rates: list[tuple[str, dict[str, float], float]] = []
        if quantile is not None:
            self._rates.append(("quantile", {"quantile": quantile}, fpr_of_quantile(quantile)))
        self._rates += [("fpr", {"fpr": fpr}, fpr) for fpr in fprs]
        if input_hz is not None and accept_hz is not None:
            try:
                fpr = fpr_of_rate(accept_hz, input_hz)
            except ValueError as error:
                raise ValueError(f"callbacks.thresholds.accept_hz, input_hz: {error}") from error
            self._rates.append(("rate", {"accept_hz": accept_hz, "input_hz": input_hz}, fpr))
        self.folder, self.fdr, self.f1 = Path(folder), fdr, f1
        self.calibration: Calibration | None = None
        self.found: list[dict[str, Any]] = []
        self._set: list[Threshold | None] = []  # beside `found`; None for a rule that expects no rate

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"thresholds": self.found}

    # before the test

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.calibration, self.found, self._set = None, [], []
        scores, weight = self._calibrating(trainer, pl_module)
        labelled = bool((scores.y >= 0).any())
        nominal = scores.y == 0 if labelled else np.ones(len(scores.y), dtype=bool)
        if not nominal.any():
            if trainer.is_global_zero:
                log.warning(
                    "No thresholds are set: there are no calibration rows. They are half of the validation rows, which "
                    "data.val_fraction sets, and which data.protocol=unsupervised does without."
                )
            return
        try:
            self.calibration = Calibration(scores.score[nominal], None if weight is None else weight[nominal])
            self._set_all(scores, weight, "" if labelled else _UNLABELLED)
        except ValueError as error:
            raise StraylightError(f"{type(pl_module).__name__} sets no threshold: {error}.") from error
        if trainer.is_global_zero:
            self._write(scores, weight)

    def _calibrating(self, trainer: pl.Trainer, module: pl.LightningModule) -> tuple[Scores, NDArray[Any] | None]:
        """The scores of the calibration rows of all ranks, and their weights; `None` where they are all the same."""
        serve = getattr(getattr(trainer, "datamodule", None), "calibration_dataloader", None)
        loader: Iterable[Batch] = [] if serve is None else serve()
        weights: list[Scored] = []

        def watched(batches: Iterable[Batch]) -> Iterator[Batch]:
            for batch in batches:
                weights.append(Scored(batch.index, batch.weight, batch.y))
                yield batch

        device = module.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # some loaders draw a seed
            parts = scored_by(trainer, module, watched(loader))
        if not parts:
            none = np.empty(0, np.int64)
            return Scores(none, np.empty(0, np.float32), none), None
        weight = gather(weights).score
        return gather(parts), None if (weight == weight[0]).all() else weight

    def _set_all(self, scores: Scores, weight: NDArray[Any] | None, remark: str) -> None:
        assert self.calibration is not None
        for rule, asked, fpr in self._rates:
            threshold = self.calibration.at_fpr(fpr)
            entry = self._entry(rule, asked, threshold.value, *_remarks(threshold, fpr), remark)
            entry["expected_fpr"] = threshold.expected_fpr
            if rule == "rate":
                entry |= {"accept_hz": asked["accept_hz"], "expected_hz": threshold.expected_fpr * asked["input_hz"]}
            self._add(entry, threshold)
        if self.fdr is not None:
            self._add(self._entry("fdr", {"fdr": self.fdr}, None, _JOINTLY, remark))
        if self.f1:
            chosen = scores.y > 0
            if chosen.any() and not chosen.all():
                best = best_f1(scores.score, scores.y, weight)
                said = (
                    f"chosen by the labels of validation, {chosen.sum():,} of which are anomalous (F1 {best.f1:.4f})."
                )
                self._add(self._entry("f1", {}, best.value, said))
            else:
                self._add(self._entry("f1", {}, None, "not set: the calibration rows hold no labelled anomaly."))

    def _add(self, entry: dict[str, Any], threshold: Threshold | None = None) -> None:
        self.found.append(entry)
        self._set.append(threshold)

    def _entry(self, rule: str, asked: dict[str, float], value: float | None, *remarks: str) -> dict[str, Any]:
        assert self.calibration is not None
        entry: dict[str, Any] = {"rule": rule, "asked": asked, "value": _plain(value)}
        entry["calibration"] = self.calibration.rows
        if self.calibration.weighted:
            entry["calibration_effective"] = float(self.calibration.n)
        entry["remark"] = " ".join(filter(None, remarks)) or None
        return entry

    def _write(self, scores: Scores, weight: NDArray[Any] | None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"index": scores.index, "score": scores.score, "y": scores.y}
        if weight is not None:
            columns["weight"] = weight
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".calibration.{os.getpid()}.parquet"
        pq.write_table(pa.table(columns), temporary, compression="zstd")
        temporary.replace(self.folder / "calibration.parquet")

    # after the test

    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        if not self.found:
            return
        if nans := int(np.isnan(scores.score).sum()):
            raise StraylightError(
                f"{type(module).__name__} can flag none of its test rows: {nans} of {len(scores.score)} scores are NaN."
            )
        weight = weights_of(trainer, scores.index)
        kinds = tuple(getattr(getattr(trainer, "datamodule", None), "kinds", ()))
        for entry, threshold in zip(self.found, self._set, strict=True):
            if (flagged := self._flagged(entry, scores.score)) is None:
                continue
            entry |= decisions(flagged, scores.y, kinds, weight)
            nominal = entry.pop("nominal", 0)
            if threshold is not None and nominal:
                low, high = entry["band"] = list(threshold.band(nominal))
                entry["in_band"] = low - 1e-12 <= entry["observed_fpr"] <= high + 1e-12
            if entry["rule"] == "rate" and entry.get("observed_fpr") is not None:
                entry["observed_hz"] = entry["observed_fpr"] * entry["asked"]["input_hz"]

    def _flagged(self, entry: dict[str, Any], scores: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        assert self.calibration is not None
        if entry["rule"] == "fdr":
            return benjamini_hochberg(self.calibration.p_values(scores), entry["asked"]["fdr"])
        if entry["rule"] == "f1" and entry["value"] is None:
            return None
        value = np.float64(math.inf if entry["value"] is None else entry["value"])
        return np.asarray(scores > value)


_UNLABELLED = (
    "The calibration rows have no labels: all of them count as nominal, and anomalies among them raise the threshold."
)
_JOINTLY = "Which rows are flagged depends on all test rows together, so that there is no threshold beforehand."


def _remarks(threshold: Threshold, fpr: float) -> Iterator[str]:
    """What the numbers of a threshold do not say."""
    if not threshold.k:
        yield (
            f"Nothing may be flagged at an FPR of {fpr:.6g}: it takes {needed(fpr):,} nominal calibration rows or "
            f"more, and there are {threshold.n:,.0f}{' (effective)' if threshold.approximate else ''}."
        )
    elif threshold.value == math.inf:
        yield f"Nothing is flagged: {threshold.k:,.0f} or more calibration scores are infinite."
    elif threshold.tied:
        yield "Calibration scores are tied with the threshold: the FPR is at most the expected one."
    if threshold.approximate:
        yield "Calibration rows have weights: what is expected is approximate."


def _plain(value: float | None) -> float | None:
    """A number that JSON has: null where nothing is above it, and below every finite score where all but -inf are."""
    if value is None or value == math.inf:
        return None
    return max(value, -sys.float_info.max)
