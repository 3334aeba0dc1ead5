"""What every threshold on the score would flag: the numbers behind a slider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from straylight.report.figures.style import look, present
from straylight.report.kept import Kept

PLACES = 400  # of the slider
LEAST = 1e-6  # of the scores that the smallest place flags


class Dial(NamedTuple):
    """What is flagged, that is scores above a threshold, at each place of a slider.

    Attributes:
        thresholds: ascending, those of the run's rules among them.
        kinds: of each, its name, how many events there are, and how many are flagged at each place; weights add up.
        labels: of the kinds: -1 unknown, 0 nominal, 1..K anomalous.
        rules: the place of each rule of the run, by its name.
    """

    thresholds: list[float]
    kinds: list[tuple[str, float, list[float]]]
    labels: list[int]
    rules: dict[str, int]


def dial(run: Kept) -> Dial | None:
    """Places of a slider through all scores of a run, closer to each other where fewer events lie above.

    None of a run without scores that are numbers.

    Example:
        >>> found = dial(Kept(np.array([0.1, 0.2, 0.3, 2.0]), np.array([0, 0, 0, 1]), ("nominal", "far")))
        >>> found.thresholds[-1], [(name, total, flagged[0]) for name, total, flagged in found.kinds]
        (2.0, [('nominal', 3.0, 2.0), ('far', 1.0, 1.0)])
    """
    there = np.isfinite(run.scores)
    scores, labels = run.scores[there].astype(np.float64), run.y[there]
    if not len(scores):
        return None
    weight = np.ones(len(scores)) if run.weight is None else np.asarray(run.weight, np.float64)[there]
    ordered = np.sort(scores)
    shares = np.concatenate([np.linspace(0, 0.9, PLACES // 4), 1 - np.geomspace(0.1, LEAST, PLACES - PLACES // 4)])
    places = np.unique((shares * (len(ordered) - 1)).round().astype(int))
    own = {name: value for name, value in run.thresholds.items() if np.isfinite(value)}
    thresholds = np.unique(np.concatenate([ordered[places], list(own.values())]))
    kinds, seen = [], []
    for label, _ in present(labels, run.kinds):
        chosen = labels == label
        seen.append(label)
        counted = _above(scores[chosen], weight[chosen], thresholds)
        kinds.append((look(label, run.kinds).name, float(weight[chosen].sum()), counted.tolist()))
    found = {name: int(np.searchsorted(thresholds, value)) for name, value in own.items()}
    return Dial(thresholds.tolist(), kinds, seen, found)


def _above(scores: NDArray[np.float64], weight: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weight of the scores above each of these."""
    order = np.argsort(scores, kind="stable")
    sums = np.append(np.cumsum(weight[order][::-1])[::-1], 0.0)
    return sums[np.searchsorted(scores[order], at, "right")]


class Mark(NamedTuple):
    """A panel of a figure in which a threshold stands: its upper and lower end, and where each threshold lies."""

    top: float
    bottom: float
    across: list[float]


def marks(figure: Any, size: Sequence[float], thresholds: Sequence[float]) -> list[Mark]:
    """Where thresholds lie in the panels of a figure that was drawn, whose horizontal axes are scores.

    Args:
        size: width and height of the drawing, in its own units.
    """
    width, height = size
    found = []
    for panel in figure.axes:
        if not panel.get_visible():
            continue
        left, bottom, across, up = panel.get_position().bounds
        points = np.column_stack([thresholds, np.full(len(thresholds), panel.get_ylim()[0])])
        inside = panel.transAxes.inverted().transform(panel.transData.transform(points))[:, 0]
        places = (left + across * np.clip(inside, 0, 1)) * width
        found.append(Mark((1 - bottom - up) * height, (1 - bottom) * height, np.round(places, 2).tolist()))
    return found


def as_data(found: Dial, lines: Sequence[Mark], strangest: Sequence[float]) -> Mapping[str, Any]:
    """All of it, for the page's script."""
    return {
        "thresholds": found.thresholds,
        "kinds": [
            {"label": label, "total": total, "flagged": flagged}
            for label, (_, total, flagged) in zip(found.labels, found.kinds, strict=True)
        ],
        "lines": [mark._asdict() for mark in lines],
        "strangest": [float(score) for score in strangest],
    }
