"""How every figure looks: colours, markers, panels, legends, names, and which events or features of many are shown.

Colours are Okabe and Ito's, and Tol's wine, told apart by colour-blind readers; dashes and markers tell them apart in
grey print.

References:
    M. Okabe, K. Ito, Color universal design: how to make figures and presentations that are friendly to colorblind
    people, 2002, https://jfly.uni-koeln.de/color/
    P. Tol, Colour schemes, SRON/EPS/TN/09-002, 2021
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures.about import passed_on
from straylight.report.figures.literal import legible

# nine of one and eight of the other make 72 looks
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255", "#F0E442")
MARKERS = "sD^vP*Xh"
NOMINAL = "#777777"
UNKNOWN = "#BBBBBB"
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
ROW = 0.21  # inches, of a line of a legend
GLYPH = 0.085  # inches, of a letter of it
MOST = 3000  # points of each kind in a scatter
FEATURES = 24  # columns of a table, or panels
NAME = 18  # characters of a feature's name

# what figures take, see `straylight.report.figures`
Names = Sequence[str]
Weight = ArrayLike | None
Thresholds = Mapping[str, float] | None


class Look(NamedTuple):
    """How a kind of event, or a detector, is drawn wherever it is drawn."""

    name: str
    colour: str
    marker: str
    dash: Any

    @property
    def line(self) -> dict[str, Any]:
        """How a line of it is drawn."""
        return {"color": self.colour, "ls": self.dash}


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
    return series(label - 1, name)


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
    colour, marker, dash = (of[number % len(of)] for of in (COLOURS, MARKERS, DASHES))
    return Look(name, colour, marker, dash)


def panels(
    rows: int = 1,
    columns: int = 1,
    *,
    width: float = 4.6,
    height: float = 3.6,
    legend: bool = True,
    ruled: bool = False,
    **shared: Any,
) -> tuple[Figure, list[Any]]:
    """An empty figure and its panels row by row, each `width` x `height` inches, with room for a legend beside them.

    `ruled` panels have grey lines at their ticks; `shared` is what `Figure.subplots` takes.
    """
    figure = Figure(figsize=(width * columns + (2.0 if legend else 0.0), height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **shared).ravel())
    if ruled:
        rule(*axes)
    return figure, axes


def tiles(count: int, across: int, **options: Any) -> tuple[Figure, list[Any]]:
    """A figure of so many panels, at most `across` of them in a row; see `panels`.

    Example:
        >>> figure, axes = tiles(4, 3)
        >>> len(axes), sum(axis.get_visible() for axis in figure.axes)
        (4, 4)
    """
    across = max(1, min(across, count))
    figure, axes = panels(max(1, -(-count // across)), across, **options)
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def rule(*axes: Axes, which: Literal["major", "minor", "both"] = "major") -> None:
    """Grey lines at the ticks."""
    for axis in axes:
        axis.grid(alpha=0.25, which=which)


def bare(*axes: Axes, frame: str | None = None) -> None:
    """No ticks, and a frame of a colour, as around an image of a kind."""
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        if frame is not None:
            axis.spines[:].set(color=frame, linewidth=2)


def dots(axis: Any, points: NDArray[Any], drawn: Look, size: float = 6) -> None:
    """Points, `(N, 2)` or `(N, 3)`, as of a kind."""
    axis.scatter(*points.T, s=size, c=drawn.colour, marker=drawn.marker, lw=0, alpha=0.7, label=drawn.name)


def ink(drawn: Look) -> str:
    """Black or white, whichever can be read on its colour.

    Example:
        >>> ink(look(1)), ink(look(5))
        ('white', 'black')
    """
    red, green, blue = to_rgb(drawn.colour)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else "black"


def band(
    axis: Axes, x: NDArray[Any], values: NDArray[Any], drawn: Look, step: Literal["post"] | None = None, **style: Any
) -> list[Artist]:
    """The mean over repetitions, `(S, N)`, and their range where there are several; as steps if asked for."""
    steps = "steps-post" if step else None
    made: list[Artist] = [*axis.plot(x, values.mean(0), **drawn.line, label=drawn.name, drawstyle=steps, **style)]
    if len(values) > 1:
        low, high = values.min(0), values.max(0)
        if np.isfinite(values).all():
            made.append(_between(axis, x, low, high, drawn, step))
        else:
            made.append(axis.fill_between(x, low, high, color=drawn.colour, alpha=0.15, lw=0, step=step))
    return made


def _between(
    axis: Axes, x: NDArray[Any], low: NDArray[Any], high: NDArray[Any], drawn: Look, step: Literal["post"] | None = None
) -> PolyCollection:
    """An area without gaps, as `Axes.fill_between` draws it of more."""
    if step:
        x, low, high = np.repeat(x, 2)[1:], np.repeat(low, 2)[:-1], np.repeat(high, 2)[:-1]
    corners = np.concatenate([np.column_stack([x, low]), np.column_stack([x, high])[::-1]])
    made = PolyCollection([corners], color=drawn.colour, alpha=0.15, lw=0)
    axis.add_collection(made, autolim=False)
    axis.update_datalim(corners)  # the line of the mean has asked for new limits
    return made


def beside(figure: Figure, *axes: Axes, titles: Sequence[str | None] = (None,)) -> Figure:
    """One legend of all named in these panels, to the right, where it covers nothing; none where nothing has a name.

    Panels follow each other in it, each under its title. The figure is made as tall as that takes, and returned.
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
        return figure
    alone = titles[0] if len(axes) == 1 else None
    legend = figure.legend(*zip(*rows, strict=True), loc="outside right upper", frameon=False, title=alone)
    passed_on([handle for handle, _ in rows], legend)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([24])
            handle.set_alpha(1)
    figure.set_figheight(max(figure.get_figheight(), ROW * (len(rows) + (alone is not None)) + 0.3))
    return figure


def roomy(figure: Figure, axis: Axes, width: float) -> None:
    """Make a figure as wide as a panel of so many inches and the longest of its names beside it."""
    longest = max(map(len, axis.get_legend_handles_labels()[1]), default=0)
    figure.set_figwidth(width + 0.8 + GLYPH * longest)


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


def telling(measure: ArrayLike) -> NDArray[np.intp]:
    """Which features are shown, `(D,)` to sorted places: of more than 24 those of the largest measure.

    Example:
        >>> telling(range(100))[0]
        np.int64(76)
    """
    largest = np.argsort(-np.asarray(measure), kind="stable")[:FEATURES]
    return np.sort(largest)


def cut(name: str, most: int = NAME) -> str:
    """A name of at most so many characters.

    Example:
        >>> cut("transverse momentum of the first jet"), cut("eta")
        ('transverse moment…', 'eta')
    """
    return " ".join(legible(name, most).split("\n"))


def named(columns: Sequence[str], i: int) -> str:
    """The name of a feature, or its number."""
    return str(columns[i]) if i < len(columns) else str(i)


def at_ticks(axis: Axis, names: Sequence[str], **text: Any) -> None:
    """Names at 0, 1, 2 ... of an axis, in the style of the first, which others are made by; see `figures.ticks`.

    Of what a text takes, matplotlib does not hand on its `rotation_mode`.
    """
    axis.set_major_locator(FixedLocator(range(len(names))))
    axis.set_major_formatter(FixedFormatter(names))
    for tick in axis.get_major_ticks(1):
        tick.label1.set(**text)


def name_features(axis: Axes, columns: Sequence[str], places: NDArray[np.intp], most: int = NAME) -> None:
    """Names of features below the places that they have in a table."""
    names = [cut(named(columns, i), most) for i in places.tolist()]
    axis.set_xticks(range(len(places)), names, rotation=90, fontsize=7)
