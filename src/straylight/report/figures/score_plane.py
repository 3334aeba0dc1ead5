"""The score over the plane of two of many features: where in it is an event strange, beside where there are events."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures.axes import logarithmic
from straylight.report.figures.plane import FEW, by_kind, limits, scale_of, shades
from straylight.report.figures.span import span
from straylight.report.figures.style import Names, beside, named, panels, shown

Array = NDArray[np.float64]
HEXAGONS = 40  # across
STRANGEST = 0.01  # of all events, that two features are chosen by
FEWEST = 50  # of them
COMPARED = 20_000  # of all, that they are compared with


def differing(x: ArrayLike, scores: ArrayLike) -> tuple[int, int]:
    """The two features that part the strangest hundredth of the events most from all, by Kolmogorov and Smirnov's D.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(5000, 4))
        >>> differing(x, np.abs(x[:, 3]) + np.abs(x[:, 1] - 1))
        (1, 3)
    """
    table, s = np.asarray(x), np.asarray(scores)
    most = min(len(s), max(FEWEST, round(STRANGEST * len(s))))
    strangest = np.argpartition(s, len(s) - most)[len(s) - most :]
    every = np.sort(table[:: -(-len(table) // COMPARED)], axis=0)
    distances = []
    for column, all_of_it in zip(np.sort(table[strangest], axis=0).T, every.T, strict=True):
        steps = np.arange(1, most + 1) / most
        upto, below = (np.searchsorted(all_of_it, column, side) / len(every) for side in ("right", "left"))
        distances.append(max(np.abs(steps - upto).max(), np.abs(below - (steps - 1 / most)).max()))
    first, second = np.sort(np.argsort(distances, kind="stable")[-2:])
    return int(first), int(second)


def score_plane(
    x: ArrayLike,
    scores: ArrayLike,
    y: ArrayLike,
    names: Names = (),
    features: Sequence[int] | None = None,
    kinds: Names = (),
) -> Figure:
    """The mean score in hexagons of the plane of two features, and how many events each holds.

    Colours follow the axis of `straylight.report.figures.span`. Of each kind of anomaly at most 300 events are shown
    over the density. Hexagons hold every event within the axes, which hold every kind's 0.1 to 99.9 % quantiles.

    Args:
        x: `(N, D)`, of two features or more.
        names: of the features.
        features: the two that are shown; without them those of `differing`.

    Raises:
        ValueError: if the shapes do not fit, a score is NaN, or there are fewer than two features.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(500, 4))
        >>> figure = score_plane(x, (x[:, [1, 3]] ** 2).sum(1), np.zeros(500, int), ("a", "b", "c", "d"))
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel(), [axis.get_title() for axis in figure.axes[:2]]
        ('b', 'd', ['mean score', 'events'])
    """
    table, labels, s = np.asarray(x), np.asarray(y, np.int64), np.asarray(scores, np.float64)
    if table.ndim != 2 or table.shape[1] < 2 or labels.shape != table.shape[:1] or s.shape != labels.shape:
        raise ValueError(
            "a plane of features needs events of shape (N, D) with two features or more, N scores and N labels, not "
            f"{table.shape}, {s.shape} and {labels.shape}"
        )
    axis_of = span(s, labels)
    pair = differing(table, s) if features is None else (features[0], features[1])
    points = np.asarray(table[:, list(pair)], np.float64)
    figure, (left, right) = panels(1, 2, width=4.4)
    limits(left, points, labels)
    ends = (*left.get_xlim(), *left.get_ylim())
    within = (points[:, 0] >= ends[0]) & (points[:, 0] <= ends[1])
    within &= (points[:, 1] >= ends[2]) & (points[:, 1] <= ends[3])
    cells = {"gridsize": HEXAGONS, "extent": ends, "mincnt": 1, "lw": 0.1}
    across, up = points[within].T
    mean = left.hexbin(across, up, axis_of.clip(s[within]), cmap="viridis", norm=shades(axis_of), **cells)
    many = right.hexbin(across, up, cmap="Greys", **cells)
    most = float(np.max(many.get_array()))
    many.set_norm(LogNorm(0.5, max(2.0, most)))  # one event is seen
    strange = np.flatnonzero(labels > 0)
    strange = strange[shown(labels[strange], FEW)]
    by_kind(right, points[strange], labels[strange], kinds, size=5)
    for axis, title in ((left, "mean score"), (right, "events")):
        axis.set(xlabel=named(names, pair[0]), title=title, xlim=ends[:2], ylim=ends[2:])
    left.set_ylabel(named(names, pair[1]))
    scale_of(figure, mean, left, axis_of, "mean anomaly score")
    bar = figure.colorbar(many, ax=right, location="right", label="events in a hexagon")
    logarithmic(bar.ax.yaxis)
    return beside(figure, right)
