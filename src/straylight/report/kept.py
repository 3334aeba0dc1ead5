"""What a run kept that its figures of scores are drawn from: no detector and no events are needed for them.

Shapes: `N` rows of the test split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from straylight.documents import read_json
from straylight.folder import RunFolder
from straylight.metrics.judge import Judge
from straylight.report.details import asked

WEIGHT = "event_weight"  # the column of weights in a table of scores, where they are not all one
CALIBRATION = frozenset({"index", "score", "y", "weight", "fold"})  # columns of calibration scores
Columns = Mapping[str, NDArray[Any]]
Losses = Mapping[str, Sequence[tuple[float, float]]]


class PValues(NamedTuple):
    """Conformal p-values of the test events, `(N,)`, and the number of nominal calibration events behind them."""

    p: NDArray[np.float64]
    n: int


class Kept:
    """The scores of the test split, and what was measured of them.

    Attributes:
        scores: `(N,)`, larger is stranger.
        y: `(N,)`, -1 unknown, 0 nominal, 1..K the kind of anomaly.
        kinds: names of the labels.
        weight: `(N,)` event weights; None is one each.
        measured: what the record says.
        losses: by name, pairs of epoch and value.
        calibration: the columns of the scores that thresholds were set on; None if there are none.
    """

    def __init__(
        self,
        scores: NDArray[Any],
        y: NDArray[Any],
        kinds: Sequence[str] = (),
        *,
        weight: NDArray[Any] | None = None,
        measured: Mapping[str, Any] | None = None,
        losses: Losses | None = None,
        calibration: Columns | None = None,
    ) -> None:
        self.scores, self.y, self.weight = scores, y, weight
        self.kinds = tuple(kinds)
        self.measured, self.losses, self.calibration = measured or {}, losses or {}, calibration

    @classmethod
    def of(cls, folder: str | Path | RunFolder, measured: Mapping[str, Any]) -> Kept:
        """From the folder of a finished run, and its record.

        Raises:
            ConfigError: if its scores are damaged, or of another run.
        """
        place = RunFolder(folder)
        columns = place.columns(place.scores, lambda name: name in ("score", "y", WEIGHT))
        kinds = read_json(place.shape).get("kinds", ()) if place.shape.is_file() else ()
        weight, losses = columns.get(WEIGHT), measured.get("losses") or {}
        held = calibration_of(place)
        found: Any = {"weight": weight, "measured": measured, "losses": losses, "calibration": held}
        return cls(columns["score"], columns["y"], kinds, **found)

    @cached_property
    def p_values(self) -> PValues | None:
        """Conformal p-values of the test events; None of a run without calibration events of their own."""
        if self.calibration is None or "fold" in self.calibration:
            return None
        judge = Judge("", [], self.calibration)
        if not len(judge.calibrating[0]) or np.isnan(self.scores).any():
            return None
        return PValues(judge.p_values(self.scores), len(judge.calibrating[0]))

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Of ranking metrics, by name."""
        found = self.measured.get("intervals", {})
        return {name.removeprefix("test/"): interval for name, interval in found.items()}

    @property
    def rules(self) -> dict[str, Mapping[str, Any]]:
        """What is known of each threshold, by its rule."""
        return {asked(entry): entry for entry in self.measured.get("thresholds", [])}

    @property
    def thresholds(self) -> dict[str, float]:
        """Scores above which a rule flags, by the rule, for those that have one."""
        return {name: entry["value"] for name, entry in self.rules.items() if entry.get("value") is not None}

    @property
    def accepted_hz(self) -> list[float]:
        """The rates that may be kept, as thresholds were asked for."""
        return [entry["accept_hz"] for entry in self.rules.values() if "accept_hz" in entry]

    @property
    def input_hz(self) -> float | None:
        """How many events arrive a second, where a threshold was asked for by a rate."""
        asked = (entry["asked"] for entry in self.rules.values())
        return next((known["input_hz"] for known in asked if "input_hz" in known), None)

    @property
    def first_threshold(self) -> tuple[str, float] | None:
        """The first of them, its rule and the score."""
        return next(iter(self.thresholds.items()), None)

    @property
    def bump(self) -> Mapping[str, Any]:
        """What was looked for in the spectrum of a resonance; empty where the data have none."""
        return self.measured.get("bump") or {}


def calibration_of(place: RunFolder) -> Columns | None:
    """The scores that the thresholds of a run were set on; None if it kept none.

    Raises:
        ConfigError: if they are damaged, or of another run.
    """
    return place.columns(place.calibration, CALIBRATION.__contains__) if place.calibration.is_file() else None


def finite(losses: Losses, most: int = 200) -> dict[str, list[tuple[float, float]]]:
    """Losses as a record has them: the finite ones, evenly thinned to so many of each, the last included.

    Example:
        >>> finite({"train/loss": [(1, 3.0), (2, float("nan")), (3, 1.0)]})
        {'train/loss': [(1, 3.0), (3, 1.0)]}
    """
    found = {}
    for name, pairs in losses.items():
        known = [(epoch, value) for epoch, value in pairs if np.isfinite(value)]
        keep = np.unique(np.linspace(0, len(known) - 1, min(most, len(known))).round().astype(int)).tolist()
        if keep:
            found[name] = [known[i] for i in keep]
    return found
