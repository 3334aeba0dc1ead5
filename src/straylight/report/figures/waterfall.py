"""How a score is reached from its baseline, feature by feature.

`K` features.
"""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from straylight.report.figures.span import short
from straylight.report.figures.style import COLOURS, cut, panels

RAISES, LOWERS, REST = COLOURS[1], COLOURS[0], "#999999"
BARS = 12  # features that have a bar of their own
TITLE = 88  # characters in a line of it
NOTHING = 1e-9  # of the largest: rounding


def waterfall(
    contributions: ArrayLike,
    baseline: float,
    names: Sequence[str],
    values: Sequence[str] = (),
    title: str = "",
    most: int = BARS,
) -> Figure:
    """Bars from the baseline below to the score above, the features that add or take most at the top.

    Args:
        contributions: what each feature adds, `(K,)`.
        baseline: the score without them.
        names: of the features, `(K,)`.
        values: what each is, in words, `(K,)`.
        title: a line or two.
        most: features with a bar of their own, if they add anything; those that remain share one.

    Raises:
        ValueError: if names or values are not as many as contributions, or there are none.

    Example:
        >>> figure = waterfall([3.0, -1.0, 0.5, 0.1], 1.0, list("abcd"), list("9210"), most=2)
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['2 other features', 'b = 2', 'a = 9']
    """
    of = np.asarray(contributions, np.float64)
    if not len(of) or of.ndim != 1 or len(names) != len(of) or len(values) not in (0, len(of)):
        raise ValueError(f"{of.shape} contributions, {len(names)} names and {len(values)} values do not fit each other")
    largest = np.argsort(-np.abs(of), kind="stable")
    own = largest[:most] if len(of) > most + 1 else largest
    own = own[np.abs(of[own]) > NOTHING * np.abs(of).max()] if of.any() else own[:1]
    others = np.setdiff1d(largest, own)
    rest = len(others)
    left = of[others].sum()
    steps = [*([left if abs(left) > NOTHING * np.abs(of).max() else 0.0] if rest else []), *of[own[::-1]]]
    labels = [f"{rest} other feature{'s' * (rest > 1)}"] if rest else []
    labels += [cut(names[k], 26) + (f" = {cut(values[k], 22)}" if len(values) else "") for k in own[::-1].tolist()]
    ends = baseline + np.cumsum(steps)
    starts = np.concatenate([[baseline], ends[:-1]])
    figure, (axis,) = panels(width=6.4, height=0.27 * len(steps) + 1.5, legend=False)
    colours = [RAISES if step > 0 else LOWERS for step in steps]
    if rest:
        colours[0] = REST
    axis.barh(range(len(steps)), steps, left=starts, color=colours, height=0.66)
    for i, end in enumerate(ends[:-1]):
        axis.plot([end, end], [i - 0.33, i + 1.33], color="0.6", lw=0.7)
    low, high = min(starts.min(), ends.min()), max(starts.max(), ends.max())
    room = 0.015 * (high - low or 1.0)
    for i, step in enumerate(steps):
        end = max(starts[i], ends[i])
        axis.text(end + room, i, f"{'+' if step > 0 else ''}{short(float(step))}", va="center", fontsize=7)
    axis.set_xlim(low - 4 * room, high + 12 * room)
    axis.axvline(baseline, color="0.4", lw=0.8, ls=":")
    axis.axvline(ends[-1], color="0.1", lw=0.8)
    axis.set_yticks(range(len(steps)), labels, fontsize=8)
    axis.set_xlabel(f"score: from the baseline, {short(float(baseline))} (dotted), to {short(float(ends[-1]))} (line)")
    axis.set_title("\n".join(fill(line, TITLE) for line in title.splitlines()), fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure
