"""Whether p-values are what they promise to be."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from straylight.metrics.conformal import fpr_band
from straylight.report.figures.axes import logarithmic
from straylight.report.figures.curves import thinned
from straylight.report.figures.style import Names, Weight, beside, panels, present

BANDS = 40  # levels at which the band is computed


def p_values(p: ArrayLike, y: ArrayLike, n: int, kinds: Names = (), weight: Weight = None) -> Figure | None:
    """The fraction of each kind whose p-value is at most a level, against the level, both logarithmic.

    Nominal events that are like the calibration events follow the diagonal, within the band in which 95 % of samples of
    these sizes lie (`straylight.metrics.conformal.fpr_band`, level by level; without weights). Anomalies are to lie far
    above. None without a nominal event.

    Args:
        p: conformal p-values, `(N,)`.
        y: `(N,)`, -1 unknown, 0 nominal, 1..K the kind of anomaly.
        n: nominal calibration events behind them.

    Raises:
        ValueError: if the lengths differ.

    Example:
        >>> figure = p_values(np.arange(1, 101) / 101, [0] * 100, n=100)
        >>> figure.axes[0].get_xlabel()
        'level'
    """
    values, labels = np.asarray(p, np.float64), np.asarray(y)
    if values.shape != labels.shape:
        raise ValueError(f"p-values and labels must be of one length, not {values.shape} and {labels.shape}")
    if not (labels == 0).any():
        return None
    figure, (axis,) = panels(width=5.0, ruled=True)
    least = 1 / (n + 1)
    if weight is None:
        ranks = np.unique(np.geomspace(1, n, min(n, BANDS)).round().astype(int))
        low, high = np.array([fpr_band(int(k), n, int((labels == 0).sum())) for k in ranks]).T
        levels = ranks / (n + 1)
        axis.fill_between(levels, low, high, color="0.5", alpha=0.2, lw=0, label="95 % of nominal samples")
    floor = least
    for label, drawn in present(labels, kinds):
        chosen = labels == label
        own = None if weight is None else np.asarray(weight, np.float64)[chosen]
        at, share = _cumulative(values[chosen], own)
        floor = min(floor, float(share[share > 0].min(initial=1.0)))
        keep = thinned(np.log10(at), np.log10(np.maximum(share, 1e-12)))
        axis.plot(at[keep], share[keep], **drawn.line, lw=1.6, drawstyle="steps-post", label=drawn.name)
    axis.plot((least, 1), (least, 1), color="0.6", lw=1, ls=":", label="as promised")
    axis.set(
        xlim=(least, 1), ylim=(floor / 1.5, 1.3), xlabel="level", ylabel="fraction with a p-value at most the level"
    )
    logarithmic(axis.xaxis, axis.yaxis)
    return beside(figure, axis)


def _cumulative(p: NDArray[np.float64], weight: NDArray[np.float64] | None) -> tuple[NDArray, NDArray]:
    """Levels, ascending, and the fraction with a p-value of at most each."""
    order = np.argsort(p, kind="stable")
    sums = np.cumsum(np.ones(len(p)) if weight is None else weight[order])
    at, first = np.unique(p[order][::-1], return_index=True)
    last = len(p) - 1 - first  # of each value, the last of its equals
    share = sums[last] / (sums[-1] or 1.0)
    return np.append(at, 1.0), np.append(share, 1.0)
