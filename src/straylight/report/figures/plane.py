"""Events in the plane: where they lie, how they are scored there, and which are found."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures.axes import logarithmic
from straylight.report.figures.span import Span, short, span
from straylight.report.figures.style import Look, Names, beside, dots, panels, present, rule, shown, subsampled

Array = NDArray[np.float64]
Threshold = tuple[str, float]  # name and score
CELLS = 120  # of the plane along each axis, that scores are contoured on
LEVELS = 16
SLOTS = 8  # kinds, for which a panel of their numbers has room at least
BALANCE = (5, 1.2)  # how wide events are beside their numbers
FEW = 300  # events of each kind over the contours
OUTCOMES = (  # what it is called, colour, marker
    ("nominal, passed", "#999999", "o"),
    ("nominal, flagged", "#D55E00", "x"),
    ("anomalous, missed", "#0072B2", "v"),
    ("anomalous, flagged", "#009E73", "s"),
)


def scatter(
    x: ArrayLike, y: ArrayLike, kinds: Names = (), names: Names = ("x1", "x2"), counts: Sequence[int] | None = None
) -> Figure:
    """Events in the plane by kind, and how many there are of each.

    Of each kind at most 3,000 are shown, drawn by seed. The axes hold every kind's 0.1 to 99.9 % quantiles.

    Args:
        x: `(N, 2)`.
        names: of the two axes.
        counts: of the labels that occur, ascending, if `x` are only some of the events.

    Example:
        >>> scatter([[0., 0.], [1., 1.]], [0, 1]).axes[0].get_xlabel()
        'x1'
    """
    points, labels = _checked(x, y)
    there = present(labels, kinds)
    number = list(counts) if counts is not None else [int((labels == label).sum()) for label, _ in there]
    figure, (left, right) = panels(1, 2, width=3.6, width_ratios=BALANCE)
    rows = shown(labels)
    by_kind(left, points[rows], labels[rows], kinds)
    limits(left, points, labels)
    left.set(xlabel=names[0], ylabel=names[1], title=subsampled(sum(number), len(rows)))
    bars(right, number, [drawn for _, drawn in there])
    return beside(figure, left)


def bars(axis: Axes, counts: Sequence[int], looks: Sequence[Look]) -> None:
    """How many events there are of each kind, from zero, with their number and share beside each bar."""
    places, most, total = np.arange(len(counts)), max([*counts, 1]), sum(counts)
    axis.barh(places, counts, color=[drawn.colour for drawn in looks], height=0.6)
    for place, count in zip(places, counts, strict=True):
        share = f"{100 * count / (total or 1):.3g} %"
        axis.annotate(
            f"{count:,}\n{share}", (count, place), (3, 0), textcoords="offset points", va="center", fontsize=7
        )
    axis.set(xlim=(0, 1.9 * most), ylim=(max(len(counts), SLOTS) - 0.5, -0.5), xticks=[0], yticks=[])
    axis.set_xticklabels(["0"], fontsize=7)
    axis.set_xlabel("events", fontsize=8)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def by_kind(axis: Axes, points: Array, labels: NDArray[np.int64], kinds: Names, size: float = 6) -> None:
    """Points in the colours of their kinds, the nominal ones first, so that they hide no other."""
    for label, drawn in present(labels, kinds):
        dots(axis, points[labels == label], drawn, size)


def limits(axis: Axes, points: Array, labels: NDArray[np.int64]) -> None:
    """Limits that hold every kind's 0.1 to 99.9 % quantiles, and all events where there are at most 2,000."""
    if len(points) <= 2000:
        ends = np.stack([points.min(0), points.max(0)])
    else:
        each = [np.quantile(points[labels == label], [1e-3, 1 - 1e-3], axis=0) for label, _ in present(labels)]
        ends = np.stack([np.min(each, axis=0)[0], np.max(each, axis=0)[1]])
    pad = np.where(ends[1] > ends[0], (ends[1] - ends[0]) / 20, 0.5)
    axis.set_xlim(ends[0, 0] - pad[0], ends[1, 0] + pad[0])
    axis.set_ylim(ends[0, 1] - pad[1], ends[1, 1] + pad[1])


def by_score(
    x: ArrayLike,
    y: ArrayLike,
    scores: ArrayLike,
    score: Callable[[Array], ArrayLike] | None = None,
    threshold: Threshold | None = None,
    kinds: Names = (),
    names: Names = ("x1", "x2"),
) -> Figure:
    """Events in the plane coloured by score, and contours of the score over the plane where it can be asked there.

    Colours follow the axis of `straylight.report.figures.span`. Of each kind at most 3,000 events are shown, and 300
    over the contours.

    Args:
        x: `(N, 2)`.
        score: gives points of the plane, `(M, 2)`, their scores, `(M,)`.
        threshold: name and score, drawn as a line over the contours.
        names: of the two axes.

    Raises:
        ValueError: if the shapes do not fit or a score is NaN.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 2))
        >>> figure = by_score(x, np.zeros(50, int), (x**2).sum(1), lambda p: (p**2).sum(1))
        >>> [axis.get_title() for axis in figure.axes[:2]]
        ['events', 'score over the plane']
    """
    points, labels = _checked(x, y)
    s = np.asarray(scores, np.float64)
    axis_of = span(s, labels)
    norm = shades(axis_of)
    asked = score is not None
    figure, axes = panels(1, 1 + asked, width=4.4, legend=asked and threshold is not None)
    rows = shown(labels)
    rows = rows[np.argsort(s[rows], kind="stable")]  # the strangest on top
    drawn = axes[0].scatter(*points[rows].T, c=axis_of.clip(s[rows]), s=6, lw=0, cmap="viridis", norm=norm)
    axes[0].set(xlabel=names[0], ylabel=names[1], title="events")
    limits(axes[0], points, labels)
    if score is not None:
        _contours(axes[1], axes[0], score, axis_of.grid(LEVELS), norm, threshold)
        few = shown(labels, FEW)
        by_kind(axes[1], points[few], labels[few], kinds, size=4)
        axes[1].set(xlabel=names[0], title="score over the plane", xlim=axes[0].get_xlim(), ylim=axes[0].get_ylim())
        beside(figure, axes[1])
    scale_of(figure, drawn, axes, axis_of)
    return figure


def shades(axis_of: Span) -> FuncNorm:
    """Colours that follow an axis of scores."""
    return FuncNorm((axis_of.forward, axis_of.inverse), axis_of.low, axis_of.high)


def scale_of(figure: Figure, drawn: Any, axes: Any, axis_of: Span, name: str = "anomaly score") -> None:
    """The bar, to the left of panels, that says which colour is which score."""
    bar = figure.colorbar(drawn, ax=axes, label=name, location="left")
    if axis_of.width is not None:
        bar.set_ticks(ticks := list(axis_of.ticks(7)), labels=[short(value) for value in ticks])
    bar.ax.minorticks_off()


def _contours(
    axis: Axes,
    of: Axes,
    score: Callable[[Array], ArrayLike],
    levels: Array,
    norm: FuncNorm,
    threshold: Threshold | None,
) -> None:
    across, up = np.linspace(*of.get_xlim(), CELLS), np.linspace(*of.get_ylim(), CELLS)
    grid = np.stack(np.meshgrid(across, up), -1)
    over = np.asarray(score(grid.reshape(-1, 2)), np.float64).reshape(CELLS, CELLS)
    shown_over = np.clip(np.nan_to_num(over, nan=levels[-1]), levels[0], levels[-1])
    axis.contourf(across, up, shown_over, levels=np.unique(levels), cmap="viridis", norm=norm)
    if threshold is not None and over.min() < threshold[1] < over.max():
        axis.contour(across, up, over, levels=[threshold[1]], colors="#D55E00", linewidths=1.5)
        axis.plot([], [], color="#D55E00", label=f"{threshold[0]}: {threshold[1]:.4g}")


def found(
    x: ArrayLike, y: ArrayLike, scores: ArrayLike, threshold: Threshold, kinds: Names = (), names: Names = ("x1", "x2")
) -> Figure | None:
    """Detected against true: events by kind, and by what a threshold made of them; None without labels.

    Of each kind at most 3,000 events are shown; the legend counts all of them.

    Args, Raises: as `by_score`.

    Example:
        >>> figure = found([[0., 0.], [1., 1.]], [0, 1], [0.1, 0.9], ("FPR 0.01", 0.5))
        >>> [axis.get_title() for axis in figure.axes]
        ['true', 'detected by FPR 0.01']
    """
    points, labels = _checked(x, y)
    if (labels < 0).all():
        return None
    flagged = np.asarray(scores) > threshold[1]
    outcome = 2 * (labels > 0) + flagged
    figure, (left, right) = panels(1, 2, width=4.2)
    rows = shown(labels)
    by_kind(left, points[rows], labels[rows], kinds)
    for i, (name, colour, marker) in enumerate(OUTCOMES):
        chosen = rows[(outcome[rows] == i) & (labels[rows] >= 0)]
        text = f"{name}: {int(((outcome == i) & (labels >= 0)).sum()):,}"
        right.scatter(*points[chosen].T, s=6, c=colour, marker=marker, lw=0.7, label=text)
    for axis, title in ((left, "true"), (right, f"detected by {threshold[0]}")):
        limits(axis, points, labels)
        axis.set(title=title, xlabel=names[0])
    left.set_ylabel(names[1])
    return beside(figure, left, right, titles=("true", "detected"))


def _checked(x: ArrayLike, y: ArrayLike) -> tuple[Array, NDArray[np.int64]]:
    points, labels = np.asarray(x, np.float64), np.asarray(y, np.int64)
    if points.ndim != 2 or points.shape[1] != 2 or labels.shape != points.shape[:1] or not len(points):
        raise ValueError(f"points in a plane are of shape (N, 2) with N labels, not {points.shape} and {labels.shape}")
    return points, labels


def line(x: ArrayLike, y: ArrayLike, kinds: Names = (), name: str = "x1") -> Figure:
    """Events of one dimension: a histogram of each kind, counts on a logarithmic axis, and their number.

    Every event is counted; those beyond the axis in its outermost bins, which the label of the axis says.

    Args:
        x: `(N,)`.
        name: of the axis.

    Raises:
        ValueError: as `straylight.report.figures.span`.

    Example:
        >>> line([0.0, 1.0, 5.0], [0, 0, 1]).axes[0].get_xlabel()
        'x1'
    """
    values, labels = np.asarray(x, np.float64), np.asarray(y)
    axis_of, there = span(values, labels), present(labels, kinds)
    figure, (left, right) = panels(1, 2, width=3.6, width_ratios=BALANCE)
    for label, drawn in there:
        left.stairs(*axis_of.histogram(values[labels == label], 60), **drawn.line, label=drawn.name)
    left.set(xlabel=name + axis_of.left_out(values), ylabel="events")
    logarithmic(left.yaxis)
    axis_of.apply(left)
    rule(left)
    bars(right, [int((labels == label).sum()) for label, _ in there], [drawn for _, drawn in there])
    return beside(figure, left)
