"""What of each kind of anomaly is kept at a rate of accepted events, as a trigger has it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from straylight.metrics.intervals import tpr
from straylight.metrics.ranks import Ranks
from straylight.report.figures.axes import logarithmic
from straylight.report.figures.curves import ALL, parts, resolved
from straylight.report.figures.style import DASHES, Look, Names, Weight

POINTS = 200  # of a curve
BANDS = 24  # points of a band, each of which is a bootstrap


def kept_at_rate(
    axis: Axes,
    scores: ArrayLike,
    y: ArrayLike,
    input_hz: float,
    accepted: Sequence[float] = (),
    kinds: Names = (),
    weight: Weight = None,
) -> bool:
    """Draw the fraction of each kind of anomaly that is kept against the rate of accepted nominal events; whether any.

    Kinds have the looks that they have everywhere, and no name of their own in the legend but all of them together.

    The rate is the false-positive rate times that of the input. Bands are 95 % intervals of the fraction, that the
    threshold is known by the nominal events alone included (`straylight.metrics.intervals.tpr`). Curves start where ten
    nominal events lie above the threshold: below it neither is known.

    Args:
        input_hz: how many events arrive a second.
        accepted: rates that were asked for, drawn as vertical lines.

    Example:
        >>> from matplotlib.figure import Figure
        >>> panel = Figure().subplots()
        >>> kept_at_rate(panel, range(100), [0] * 90 + [1] * 10, 1000.0, [200])
        True
        >>> panel.get_xlabel()
        'accepted rate of nominal events in Hz'
    """
    least = None
    for _, drawn, ranks in parts(scores, y, kinds, weight):
        least = resolved(ranks)
        _curve(axis, drawn, ranks, least, input_hz)
    if least is None:
        return False
    for i, rate in enumerate(accepted):
        axis.axvline(rate, color="black", lw=1, ls=DASHES[1 + i % 6], label=f"{rate:g} Hz asked for")
    axis.set(xlim=(min([least * input_hz, *(rate / 1.5 for rate in accepted)]), input_hz), ylim=(0, 1.02))
    logarithmic(axis.xaxis)
    axis.set_xlabel("accepted rate of nominal events in Hz")
    axis.set_ylabel("fraction of a kind that is kept")
    return True


def _curve(axis: Axes, drawn: Look, ranks: Ranks, least: float, input_hz: float) -> None:
    fprs = np.geomspace(least, 1, POINTS)
    axis.plot(
        fprs * input_hz,
        [ranks.at(fpr).tpr for fpr in fprs],
        **drawn.line,
        lw=1.6,
        label=drawn.name if drawn is ALL else None,
    )
    bands = [(fpr, *band) for fpr in np.geomspace(least, 1, BANDS) if (band := tpr(ranks, float(fpr))) is not None]
    if bands:
        at, low, high = np.array(bands).T
        axis.fill_between(at * input_hz, low, high, color=drawn.colour, alpha=0.15, lw=0)
