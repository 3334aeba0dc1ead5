"""How every figure looks: colours, markers, sizes, legends, and which events of many a scatter shows.

Colours are Okabe and Ito's, and Tol's wine, told apart by colour-blind readers; dashes and markers tell them apart in
grey print.

References:
    M. Okabe, K. Ito, Color universal design: how to make figures and presentations that are friendly to colorblind
    people, 2002, https://jfly.uni-koeln.de/color/
    P. Tol, Colour schemes, SRON/EPS/TN/09-002, 2021
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

# nine of one and eight of the other make 72 looks
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255", "#F0E442")
MARKERS = "sD^vP*Xh"
NOMINAL = "#777777"
UNKNOWN = "#BBBBBB"
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
ROW = 0.21  # inches, of a line of a legend
MOST = 3000  # points of each kind in a scatter


class Look(NamedTuple):
    """How a kind of event, or a detector, is drawn wherever it is drawn."""

    name: str
    colour: str
    marker: str
    dash: Any


def look(label: int, kinds: Sequence[str] = ()) -> Look:
    """The look of a kind by its label: -1 unknown, 0 nominal, 1..K anomalous; by label, so the same in every figure.

    Example:
        >>> look(0, ("nominal", "far")).name, look(1, ("nominal", "far")).name, look(3, ("nominal", "far")).name
        ('nominal', 'far', '3')
    """
    if label < 0:
        return Look("unknown", UNKNOWN, "o", "-")
    if label == 0:
        return Look(kinds[0] if kinds else "nominal", NOMINAL, "o", "-")
    name = kinds[label] if label < len(kinds) else str(label)
    return _numbered(label - 1, name, DASHES[(label - 1) % len(DASHES)])


def present(y: ArrayLike, kinds: Sequence[str] = ()) -> list[tuple[int, Look]]:
    """The labels that occur, ascending, each with its look.

    Example:
        >>> [(label, drawn.name) for label, drawn in present([0, 2, 0])]
        [(0, 'nominal'), (2, '2')]
    """
    labels = np.asarray(y)
    if not labels.size:
        return []
    least = int(labels.min())
    found = np.flatnonzero(np.bincount(labels.astype(np.int64) - least)) + least  # faster than sorting
    return [(label, look(label, kinds)) for label in found.tolist()]


def series(number: int, name: str) -> Look:
    """The look of the i-th of several detectors or other series, from 0."""
    return _numbered(number, name, DASHES[number % len(DASHES)])


def _numbered(number: int, name: str, dash: Any) -> Look:
    return Look(name, COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], dash)


def canvas(rows: int = 1, columns: int = 1, *, width: float = 4.6, height: float = 3.6, legend: bool = True) -> Figure:
    """An empty figure for so many panels, each `width` x `height` inches, with room for a legend beside them."""
    return Figure(figsize=(width * columns + (2.0 if legend else 0.0), height * rows), layout="constrained")


def beside(figure: Figure, *axes: Axes, titles: Sequence[str | None] = (None,)) -> None:
    """One legend of all named in these panels, to the right, where it covers nothing; none where nothing has a name.

    Panels follow each other in it, each under its title. The figure is made as tall as that takes.
    """
    rows: list[tuple[Any, str]] = []
    for axis, title in zip(axes, titles, strict=True):
        handles, names = axis.get_legend_handles_labels()
        if rows and names:
            rows.append((Line2D([], [], ls=""), ""))
        if title and names and (rows or len(axes) > 1):
            rows.append((Line2D([], [], ls=""), title))
        rows += zip(handles, names, strict=True)
    if not rows:
        return
    alone = titles[0] if len(axes) == 1 else None
    legend = figure.legend(*zip(*rows, strict=True), loc="outside right upper", frameon=False, title=alone)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([24])
            handle.set_alpha(1)
    figure.set_figheight(max(figure.get_figheight(), ROW * (len(rows) + (alone is not None)) + 0.3))


def empty(reason: str) -> Figure:
    """A figure that says why there is nothing to see."""
    figure = canvas(legend=False)
    axis = figure.subplots()
    axis.set_axis_off()
    axis.text(0.5, 0.5, reason, ha="center", va="center", wrap=True, transform=axis.transAxes)
    return figure


def shown(y: ArrayLike, most: int = MOST, seed: int = 0) -> NDArray[np.intp]:
    """Which events a scatter shows, `(N,)` labels to sorted positions: of every kind at most `most`, drawn by seed.

    Example:
        >>> shown([0, 0, 0, 1], most=1).shape
        (2,)
    """
    labels = np.asarray(y)
    random = np.random.default_rng(seed)
    chosen = []
    for label, _ in present(labels):
        rows = np.flatnonzero(labels == label)
        chosen.append(rows if len(rows) <= most else random.choice(rows, most, replace=False))
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.intp)


def subsampled(total: int, drawn: int) -> str:
    """What a scatter's title says of events left out.

    Example:
        >>> subsampled(1_000_000, 6000), subsampled(10, 10)
        ('6,000 of 1,000,000 events shown', '')
    """
    return f"{drawn:,} of {total:,} events shown" if drawn < total else ""
