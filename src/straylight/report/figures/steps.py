"""What each channel adds to a score at each step of a series.

`C` channels, `T` steps.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from straylight.report.figures.contributions import SHADES
from straylight.report.figures.style import COLOURS, cut, panels

LINES = 9  # channels that are drawn as lines


def by_step(x: ArrayLike, contributions: ArrayLike, title: str = "", channels: Sequence[str] = ()) -> Figure:
    """A series above a map of what each channel adds at each step; red raises the score, blue lowers it.

    Of more than nine channels those are drawn as lines that add or take most; the map has all.

    Args:
        x: the event, `(C, T)`.
        contributions: `(C, T)`, in units of the score.
        channels: their names.

    Raises:
        ValueError: if they are not of one shape of two axes.

    Example:
        >>> figure = by_step(np.zeros((2, 5)), np.eye(2, 5))
        >>> figure.axes[1].get_xlabel()
        'step'
    """
    events, of = np.asarray(x, np.float64), np.asarray(contributions, np.float64)
    if events.ndim != 2 or events.shape != of.shape or not events.size:
        raise ValueError(f"a series and what it adds are of shapes {events.shape} and {of.shape}, and must be (C, T)")
    figure, (above, below) = panels(2, 1, width=7.0, height=2.0, legend=False, sharex=True)
    for number, k in enumerate(np.sort(np.argsort(-np.abs(of).sum(1), kind="stable")[:LINES]).tolist()):
        above.plot(events[k], color=COLOURS[number], lw=1, label=cut(channels[k] if channels else f"channel {k}"))
    if len(events) > 1:
        above.legend(fontsize=6, ncols=3, frameon=False)
    largest = float(np.abs(of).max()) or 1.0
    image = below.imshow(of, cmap=SHADES, vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")
    below.set(xlabel="step", ylabel="channel", yticks=range(len(of)) if len(of) <= LINES else [])
    above.set_ylabel("value")
    above.set_title(title, fontsize=9)
    figure.colorbar(image, ax=below, label="added")
    return figure
