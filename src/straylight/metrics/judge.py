"""What a run says of new scores: p-values by its calibration rows, and which rows to flag by a threshold.

`N` events.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from straylight.errors import ConfigError
from straylight.metrics.conformal import ROUNDING, Calibration, benjamini_hochberg, held_nominal, needed
from straylight.metrics.crossed import CrossCalibration
from straylight.metrics.thresholds import fpr_of_quantile

UNSET = "it was trained without callbacks.thresholds or without validation rows (data.val_fraction) to set one on."
ASKED = ("fpr", "quantile", "fdr", "score")  # what may be asked for beside the thresholds that a run has set


class Cut(NamedTuple):
    """Which events are flagged: by their score, by their p-value, or by all p-values together.

    Attributes:
        name: what it was asked for as.
        above: flagged is a score above this one.
        p: flagged is a p-value of at most this.
        fdr: flagged is what Benjamini and Hochberg flag at this rate.
        expected_fpr: the mean false-positive rate that is expected of it, if one is.
    """

    name: str
    above: float | None = None
    p: float | None = None
    fdr: float | None = None
    expected_fpr: float | None = None

    @property
    def alone(self) -> bool:
        """Whether an event is flagged whatever the others are."""
        return self.fdr is None

    def flags(self, scores: NDArray[Any], p: NDArray[np.float64] | None) -> NDArray[np.bool_]:
        """Of events with these scores, `(N,)`, and p-values, `(N,)`, where it goes by those; NaN is not flagged."""
        if self.above is not None:
            return np.asarray(scores > np.float64(self.above))
        assert p is not None
        if self.p is not None:
            return np.asarray(p <= self.p * ROUNDING)
        assert self.fdr is not None
        flagged, there = np.zeros(len(p), dtype=bool), ~np.isnan(p)
        flagged[there] = benjamini_hochberg(p[there], self.fdr)
        return flagged


class Judge:
    """The thresholds and the calibration scores of a run.

    Args:
        name: of the run, for errors.
        entries: what its record says of each threshold.
        columns: its calibration scores, as kept; `None` if there are none.

    Example:
        >>> columns = {"score": np.arange(1.0, 100), "y": np.zeros(99, int)}
        >>> judge = Judge("mine", [], columns)
        >>> judge.cut("fpr=0.05").above, judge.p_values(np.array([0.0, 99.5])).tolist()
        (95.0, [1.0, 0.01])
    """

    def __init__(self, name: str, entries: Sequence[Mapping[str, Any]], columns: Mapping[str, Any] | None) -> None:
        self.name, self.entries, self._columns = name, list(entries), columns

    @cached_property
    def calibration(self) -> Calibration:
        """The scores that new ones are held against; of a run that calibrated across folds there is none such.

        Raises:
            ConfigError: if there are none.
        """
        return Calibration(*self.calibrating)

    @property
    def calibrating(self) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """The calibration scores of nominal rows, `(n,)`, and their weights, if they have any.

        Raises:
            ConfigError: if there are none.
        """
        if self._columns is None:
            raise ConfigError(f"{self.name} holds no calibration scores (calibration.parquet): {UNSET}")
        columns = self._columns
        nominal = held_nominal(columns["y"])
        return columns["score"][nominal], columns["weight"][nominal] if "weight" in columns else None

    @property
    def calibrated(self) -> bool:
        """Whether there are p-values."""
        return self._columns is not None

    @property
    def folds(self) -> list[NDArray[Any]]:
        """The calibration scores of each fold, if it calibrated across folds."""
        if self._columns is None or "fold" not in self._columns:
            return []
        fold = self._columns["fold"]
        return [self._columns["score"][fold == number] for number in np.unique(fold)]

    def p_values(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        """Conformal p-values, `(N,)`; with folds, of scores of the detector of each fold, `(K, N)`.

        Raises:
            ConfigError: if there are no calibration scores.
            ValueError: if a score is NaN.
        """
        if folds := self.folds:
            return CrossCalibration(folds).p_values(list(scores))
        return self.calibration.p_values(scores)

    @property
    def thresholds(self) -> dict[str, float]:
        """Those that were set on calibration rows, by their names; see `Run.thresholds`."""
        found = {}
        for entry in self.entries:
            there = entry["rule"] != "f1" or entry["value"] is not None
            if entry["rule"] != "fdr" and "folds" not in entry and there:
                found[self.called(entry)] = float("inf") if entry["value"] is None else float(entry["value"])
        return found

    def cut(self, rule: str) -> Cut:
        """What a threshold comes to: one of the run's, or `fpr=0.001`, `quantile=0.9`, `fdr=0.05`, `score=3.5`.

        Raises:
            ConfigError: if there is no such threshold, or too few calibration rows to set it on.
        """
        entry = next((entry for entry in self.entries if self.called(entry) == rule), None)
        if entry is None or (entry["rule"] == "f1" and entry["value"] is None):
            return self._asked(rule)
        said, fpr = entry.get("remark"), entry.get("expected_fpr")
        if entry["rule"] == "fdr":
            rate = entry["asked"]["fdr"]
            if (rows := entry.get("calibration")) is not None:
                self._check(rule, rate, rows)
            return Cut(rule, fdr=rate)
        if "folds" in entry and entry.get("fpr"):
            if not entry["expected_fpr"]:
                raise self._nothing(rule, said)
            return Cut(rule, p=entry["fpr"], expected_fpr=fpr)
        if entry["value"] is None:
            raise self._nothing(rule, said)
        return Cut(rule, above=float(entry["value"]), expected_fpr=fpr)

    def called(self, entry: Mapping[str, Any]) -> str:
        """What a threshold is called: several at a target FPR, or an accepted rate, have their numbers."""
        several = sum(one["rule"] == "rate" for one in self.entries) > 1
        if entry["rule"] == "rate" and several:
            return f"rate={entry['asked']['accept_hz']:g}"
        return f"fpr={entry['asked']['fpr']:g}" if entry["rule"] == "fpr" else str(entry["rule"])

    def _asked(self, rule: str) -> Cut:
        """One that the run did not set itself."""
        word, _, number = rule.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if word not in ASKED or math.isnan(value):
            raise self._unknown(rule)
        if word == "score":
            return Cut(rule, above=value)
        if not 0 < value < 1:
            raise ConfigError(f"a threshold {word} must lie between 0 and 1, not at {number}.")
        if not self.calibrated:
            raise self._unknown(rule)
        if word == "fdr":
            self._check(rule, value, self._rows)
            return Cut(rule, fdr=value)
        fpr = fpr_of_quantile(value) if word == "quantile" else value
        if self.folds:
            self._check(rule, fpr, self._rows)
            return Cut(rule, p=fpr)
        found = self.calibration.at_fpr(fpr)
        if found.value == math.inf:
            self._check(rule, fpr, found.n)
            raise self._nothing(rule, None)
        return Cut(rule, above=float(found.value), expected_fpr=found.expected_fpr)

    @property
    def _rows(self) -> float:
        return sum(map(len, self.folds)) if self.folds else self.calibration.n

    def _check(self, rule: str, rate: float, rows: float) -> None:
        if rows < needed(rate):
            said = f"It takes {needed(rate):,} nominal calibration rows or more, and there are {rows:,.0f}."
            raise self._nothing(rule, said)

    def _nothing(self, rule: str, said: str | None) -> ConfigError:
        why = said or "Nothing lies above it."
        return ConfigError(f"{self.name} could set no threshold {rule!r}, so that nothing can be flagged. {why}")

    def _unknown(self, rule: str) -> ConfigError:
        known = [self.called(entry) for entry in self.entries if entry["rule"] != "f1" or entry["value"] is not None]
        if known:
            return ConfigError(
                f"{self.name} has no threshold {rule!r}, but {', '.join(known)}; fpr=, quantile=, fdr= and score= with "
                "a number are set when they are asked for."
            )
        return ConfigError(f"{self.name} has no threshold {rule!r}, and no other: {UNSET}")
