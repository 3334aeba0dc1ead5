"""What every threshold on the score would flag: the numbers behind a slider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from straylight.metrics.ranks import Column
from straylight.report.figures.style import present
from straylight.report.kept import Kept

PLACES = 400  # of the slider
POINTS = 72  # of an inch, in which a drawing is measured
LEAST = 1e-6  # of the scores that the smallest place flags


class Kind(NamedTuple):
    """A kind of event: label and name, how many there are and how many are flagged at each place; weights add up."""

    label: int
    name: str
    total: float
    flagged: list[float]


class Dial(NamedTuple):
    """What is flagged, that is scores above a threshold, at each place of a slider.

    Attributes:
        thresholds: ascending, those of the run's rules among them.
        kinds: those that there are, nominal first.
        rules: the place of each rule of the run, by its name.
    """

    thresholds: list[float]
    kinds: list[Kind]
    rules: dict[str, int]


def dial(run: Kept) -> Dial | None:
    """Places of a slider through all scores of a run, closer to each other where fewer events lie above.

    None of a run without scores that are numbers.

    Example:
        >>> found = dial(Kept(np.array([0.1, 0.2, 0.3, 2.0]), np.array([0, 0, 0, 1]), ("nominal", "far")))
        >>> found.thresholds[-1], [(kind.name, kind.total, kind.flagged[0]) for kind in found.kinds]
        (2.0, [('nominal', 3.0, 2), ('far', 1.0, 1)])
    """
    weight = np.ones(len(run.scores)) if run.weight is None else np.asarray(run.weight, np.float64)
    there = np.isfinite(run.scores) & (weight > 0)
    scores, labels, weight = run.scores[there].astype(np.float64), run.y[there], weight[there]
    if not len(scores):
        return None
    ordered = np.sort(scores)
    shares = np.concatenate([np.linspace(0, 0.9, PLACES // 4), 1 - np.geomspace(0.1, LEAST, PLACES - PLACES // 4)])
    places = np.unique((shares * (len(ordered) - 1)).round().astype(int))
    own = {name: value for name, value in run.thresholds.items() if np.isfinite(value)}
    thresholds = np.unique(np.concatenate([ordered[places], list(own.values())]))
    kinds = []
    for label, drawn in present(labels, run.kinds):
        column = Column(drawn.name, scores[labels == label], weight[labels == label])
        flagged = column.above(np.searchsorted(column.values, thresholds, "right"))
        kinds.append(Kind(label, drawn.name, float(column.total), flagged.tolist()))
    return Dial(thresholds.tolist(), kinds, {name: int(np.searchsorted(thresholds, at)) for name, at in own.items()})


class Mark(NamedTuple):
    """A panel of a figure in which a threshold stands: its upper and lower end, and where each threshold lies."""

    top: float
    bottom: float
    across: list[float]


def marks(figure: Figure, thresholds: Sequence[float]) -> list[Mark]:
    """Where thresholds lie in the panels of a figure that was drawn as SVG, whose horizontal axes are scores."""
    width, height = (inches * POINTS for inches in figure.get_size_inches())
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
    """All of it, for the page's script; names stand in the page."""
    return {
        "thresholds": found.thresholds,
        "kinds": [{"label": kind.label, "total": kind.total, "flagged": kind.flagged} for kind in found.kinds],
        "lines": [mark._asdict() for mark in lines],
        "strangest": list(strangest),
    }
