"""Scores of nominal and anomalous events, and what a threshold makes of them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures.axes import logarithmic
from straylight.report.figures.rates import kept_at_rate
from straylight.report.figures.span import Span, per_unit, short, span
from straylight.report.figures.style import DASHES, Names, Thresholds, Weight, beside, panels, present

BINS = (20, 80)  # as many as the square root of the rarest kind's events, within these
POINTS = 400


def score_histogram(
    scores: ArrayLike, y: ArrayLike, kinds: Names = (), thresholds: Thresholds = None, weight: Weight = None
) -> Figure:
    """Histograms of the scores of each kind: counts on a logarithmic axis, and each kind's density.

    Every event is counted; those beyond the axis (see `straylight.report.figures.span`) in its outermost bins, which
    the label of the axis says. A score that more than half of a kind's events share is named in the
    legend. Densities are per unit of score and integrate to one; where the axis is stretched the share of each kind in
    a bin is drawn instead.

    Args:
        thresholds: by name, drawn as vertical lines.

    Raises:
        ValueError: if there is no score, the lengths differ, or a score is NaN.

    Example:
        >>> figure = score_histogram([0.1, 0.2, 0.3, 2.0], [0, 0, 0, 1], ("nominal", "far"), {"FPR 1e-2": 1.5})
        >>> [axis.get_ylabel() for axis in figure.axes]
        ['events', 'density of each kind']
    """
    s, labels = np.asarray(scores), np.asarray(y)
    axis_of, kinds_there = span(s, labels), present(labels, kinds)
    rarest = min(int((labels == label).sum()) for label, _ in kinds_there)
    bulk = s[labels == 0] if (labels == 0).any() else s
    bins = axis_of.bins(bulk, int(np.clip(rarest**0.5, *BINS)))
    w = None if weight is None else np.asarray(weight, np.float64)
    figure, (left, right) = panels(1, 2, ruled=True)
    for label, drawn in kinds_there:
        chosen = labels == label
        counts, edges = axis_of.histogram(s[chosen], bins, None if w is None else w[chosen])
        share = per_unit(counts, edges) if axis_of.width is None else counts / (counts.sum() or 1.0)
        for axis, heights in ((left, counts), (right, share)):
            if label == 0 and axis is right:  # an area begins at zero
                axis.stairs(heights, edges, fill=True, alpha=0.35, lw=0, color=drawn.colour)
            axis.stairs(heights, edges, label=drawn.name if axis is left else None, **drawn.line, lw=1.4)
        if same := _shared_by_most(s[chosen]):
            left.plot([], [], " ", label=f"  {same}")
    logarithmic(left.yaxis)
    if w is None:
        left.set_ylim(0.7, max(left.get_ylim()[1], 150))
    left.set_ylabel("events" if w is None else "sum of event weights")
    right.set_ylabel("density of each kind" if axis_of.width is None else "share of each kind in a bin")
    right.set_ylim(0, None)
    for axis in (left, right):
        dress(axis, axis_of, "anomaly score", thresholds, axis_of.left_out(s), named=axis is left)
    return beside(figure, left)


def _shared_by_most(scores: NDArray[np.floating]) -> str:
    """What is said of a score that more than half of these have; nothing where none is."""
    middle = np.median(scores) if len(scores) % 2 else np.sort(scores)[len(scores) // 2]
    share = float((scores == middle).mean())
    if share <= 0.5 or len(scores) < 2:
        return ""
    return f"{'all' if share == 1 else f'{100 * share:.3g} %'} of them score {short(float(middle))}"


def selected_fraction(
    scores: ArrayLike,
    y: ArrayLike,
    kinds: Names = (),
    thresholds: Thresholds = None,
    weight: Weight = None,
    input_hz: float | None = None,
    accepted: Sequence[float] = (),
) -> Figure:
    """The fraction of each kind that a threshold selects, against the threshold; exact at every point drawn.

    Where it is known how many events arrive a second, the fraction of nominal events has an axis in Hz, too, and a
    second panel shows what is kept of each anomaly at each accepted rate; see `straylight.report.figures.rates`.

    Args:
        input_hz: how many events arrive a second; `None` where nobody says.
        accepted: of these, how many were asked to be kept.
        others: as `score_histogram`.

    Raises:
        ValueError: as `score_histogram`.

    Example:
        >>> selected_fraction([0.1, 0.2, 0.3, 2.0], [0, 0, 0, 1]).axes[0].get_ylabel()
        'fraction of a kind above the threshold'
    """
    s, labels = np.asarray(scores), np.asarray(y)
    axis_of = span(s, labels)
    at = axis_of.grid(POINTS)
    w = None if weight is None else np.asarray(weight, np.float64)
    figure, (axis, *more) = panels(1, 1 if input_hz is None else 2, width=5.6, ruled=True)
    least = 1.0
    for label, drawn in present(labels, kinds):
        chosen = labels == label
        above = _above(s[chosen], None if w is None else w[chosen], at)
        above[above <= 0] = np.nan
        least = min(least, float(np.nanmin(above, initial=1.0)))
        axis.plot(at, above, **drawn.line, label=drawn.name)
    axis.set_ylim(10 ** np.floor(np.log10(least)), 1.3)
    logarithmic(axis.yaxis)
    dress(axis, axis_of, "threshold on the anomaly score", thresholds)
    axis.set_ylabel("fraction of a kind above the threshold")
    if input_hz is not None:
        hz = axis.secondary_yaxis("right", functions=(lambda part: part * input_hz, lambda rate: rate / input_hz))
        hz.set_ylabel("of nominal events, in Hz")
        if not kept_at_rate(more[0], s, labels, input_hz, accepted, kinds, weight):
            more[0].set_visible(False)
        return beside(figure, axis, *more, titles=("above a threshold", "kept at a rate"))
    return beside(figure, axis)


def _above(scores: NDArray[np.floating], weight: NDArray[np.float64] | None, at: NDArray[np.float64]) -> NDArray:
    """The fraction of scores above each of these."""
    order = np.argsort(scores) if weight is not None else None
    ordered = np.sort(scores) if order is None else scores[order]
    places = np.searchsorted(ordered.astype(np.float64), at, "right")
    if weight is None or order is None:
        return 1 - places / len(ordered)
    sums = np.append(np.cumsum(weight[order][::-1])[::-1], 0.0)
    return sums[places] / (sums[0] or 1.0)


def confusion(matrices: Mapping[str, Sequence[Sequence[float]]]) -> Figure | None:
    """What each rule flagged of nominal and anomalous events: counts, and their share of a row; None without a rule.

    Args:
        matrices: by the rule's name, [[tn, fp], [fn, tp]].

    Example:
        >>> [axis.get_title() for axis in confusion({"quantile 0.95": [[90, 10], [2, 8]]}).axes]
        ['quantile 0.95']
    """
    if not matrices:
        return None
    figure, axes = panels(1, len(matrices), width=2.9, height=2.9, legend=False)
    for axis, (name, matrix) in zip(axes, matrices.items(), strict=True):
        table = np.asarray(matrix, np.float64)
        rows = table.sum(1, keepdims=True)
        share = np.divide(table, rows, out=np.zeros_like(table), where=rows > 0)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (i, j), count in np.ndenumerate(table):
            text = f"{count:,.0f}" if count == round(count) else f"{count:,.4g}"
            ink = "white" if share[i, j] > 0.6 else "black"
            axis.text(j, i, f"{text}\n{100 * share[i, j]:.3g} %", ha="center", va="center", color=ink)
        axis.set(title=name, xticks=(0, 1), yticks=(0, 1), xlabel="decision")
        axis.set_xticklabels(("passed", "flagged"))
        axis.set_yticklabels(("nominal", "anomalous") if axis is axes[0] else ("", ""), rotation=90, va="center")
    axes[0].set_ylabel("truth")
    return figure


def dress(axis: Axes, axis_of: Span, label: str, thresholds: Thresholds, note: str = "", named: bool = True) -> None:
    """Make an axis' x one of scores, and draw thresholds as vertical lines; one beyond the ends is named only."""
    for i, (name, value) in enumerate((thresholds or {}).items()):
        text = f"{name}: {value:.4g}"
        if axis_of.low <= value <= axis_of.high:
            axis.axvline(value, color="black", lw=1, ls=DASHES[1 + i % 6], label=text if named else None)
        elif named:
            axis.plot([], [], " ", label=f"{text} (off the axis)")
    axis_of.apply(axis)
    axis.set_xlabel(label + axis_of.stretched + note)
