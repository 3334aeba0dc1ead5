"""Significance improvement: how much a cut on the score raises the significance of a signal, TPR / sqrt(FPR).

A curve ends where 25 nominal events are left above the threshold: with fewer its FPR is not known to a fifth.

References:
    J. Gallicchio et al., JHEP 04 (2011) 069, arXiv:1010.3698
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from straylight.metrics.ranks import SIC_FLOOR
from straylight.report.figures.about import about
from straylight.report.figures.axes import logarithmic
from straylight.report.figures.comparison import named_once, of_sets
from straylight.report.figures.curves import parts, thinned
from straylight.report.figures.style import Look, Names, Weight, band, beside, cut, panels, roomy, series

Array = NDArray[np.float64]
Optimum = Mapping[str, Sequence[float]] | None  # `tpr` and `sic`, of one length
TPRS = np.linspace(0, 1, 501)[1:]  # that curves of several seeds are averaged at
FAR = 20  # how many times as large the largest improvement of one curve is as another's, for a logarithmic axis
LEAST = 0.1  # where that starts
BEST = Look("optimum", "0.35", "o", (0, (4, 1.5)))
NAMES = {"xlabel": "true-positive rate", "ylabel": "significance improvement, TPR / √FPR", "xlim": (0, 1.02)}


def significance(
    scores: ArrayLike, y: ArrayLike, kinds: Names = (), weight: Weight = None, optimum: Optimum = None
) -> Figure | None:
    """Significance improvement of each kind of anomaly against the TPR, where 25 nominal events or more lie above.

    None where a side is empty or no kind has such a threshold.

    Args:
        optimum: the curve of the best score there is, `tpr` and `sic`, where that is known.

    Raises:
        ValueError: as `roc`.

    Example:
        >>> significance(range(1000), [0] * 900 + [1] * 100).axes[0].get_xlabel()
        'true-positive rate'
    """
    figure, (axis,) = panels(width=5.0, ruled=True)
    for _, drawn, ranks in parts(scores, y, kinds, weight):
        tpr, sic = ranks.improvements.tpr, ranks.improvements.sic
        if not len(tpr):
            continue
        keep = thinned(tpr, sic)
        marker, label = drawn.marker if len(keep) < 3 else None, f"{drawn.name}  {sic.max():.2f}"
        axis.plot(tpr[keep], sic[keep], **drawn.line, lw=1.6, marker=marker, ms=4, label=label)
    if not axis.lines:
        return None
    _best(axis, optimum)
    _chance(axis)
    axis.set(**NAMES, ylim=(0, None))
    return beside(figure, axis, titles=("largest improvement",))


class Improvement(NamedTuple):
    """Significance improvement at the TPRs of `TPRS`, `(500,)`, NaN below the floor, and the largest of all."""

    sic: Array
    largest: float


def improvement(scores: ArrayLike, y: ArrayLike, weight: Weight = None) -> Improvement | None:
    """The curve of one run, of all anomalies together, for `sic_curves`; None where no threshold leaves 25 nominal.

    Example:
        >>> found = improvement(range(1000), [0] * 900 + [1] * 100)
        >>> round(found.largest, 2), len(found.sic)
        (6.0, 500)
    """
    ranks = next((ranks for _, _, ranks in parts(scores, y, weight=weight)), None)
    if ranks is None or not len(ranks.improvements.tpr):
        return None
    tpr, sic = ranks.improvements.tpr, ranks.improvements.sic
    reached = np.minimum(np.searchsorted(tpr, TPRS * (1 - 1e-12)), len(tpr) - 1)  # the highest that finds as many
    return Improvement(np.where(tpr[0] <= TPRS * (1 + 1e-12), sic[reached], np.nan), float(sic.max()))


def sic_curves(
    curves: Mapping[str, Mapping[str, Sequence[Improvement]]], optimum: Mapping[str, Optimum] | None = None
) -> Figure | None:
    """Significance improvement of many detectors against the TPR, a panel for each data set: mean and range over seeds.

    The mean is drawn where every seed has a threshold that leaves 25 nominal events, and a dot marks where it ends. The
    axis is logarithmic where the largest improvements are twenty times apart. Of one data set the legend says the
    largest improvement, its mean over the seeds and its range. None without a curve.

    Args:
        curves: by data set and detector, those of its seeds.
        optimum: by data set, that of the best score there is, where it is known.

    Example:
        >>> one = improvement(range(1000), [0] * 900 + [1] * 100)
        >>> sic_curves({"bump": {"cathode": [one, one]}}).axes[0].get_title()
        'bump'
    """
    there = {data: {n: list(c) for n, c in own.items() if c} for data, own in curves.items()}
    there = {data: own for data, own in there.items() if own}
    if not there:
        return None
    names = sorted({name for own in there.values() for name in own})
    alone = len(there) == 1
    figure, axes = of_sets(list(there), width=5.4 if alone else 4.4, height=4.2 if alone else 3.4, ruled=True)
    for axis, (data, own) in zip(axes, there.items(), strict=False):
        for name, seeds in sorted(own.items()):
            largest = np.array([c.largest for c in seeds])
            text = f"{cut(name, 40)}{'  ' + _told(largest) if alone else ''}"
            drawn = series(names.index(name), text)
            values = np.stack([c.sic for c in seeds])
            about(*band(axis, TPRS, values, drawn, lw=1.6), detector=name, data=data)
            if len(ends := np.flatnonzero(np.isfinite(values).all(0))):
                axis.plot(TPRS[ends[0]], values[:, ends[0]].mean(), "o", color=drawn.colour, ms=4)
        tops = [float(np.mean([c.largest for c in seeds])) for seeds in own.values()]
        _best(axis, (optimum or {}).get(data), worth=alone)
        _chance(axis)
        axis.set(**NAMES)
        if max(tops) > FAR * min(tops):
            axis.set_ylim(LEAST, None)
            logarithmic(axis.yaxis)
        else:
            axis.set_ylim(0, None)
    first = axes[0]
    first.plot([], [], "o", color="0.4", ms=4, label=f"{SIC_FLOOR} nominal events left")
    if not alone:
        if any((optimum or {}).values()) and not (optimum or {}).get(next(iter(there))):
            first.plot([], [], **BEST.line, lw=2, label=BEST.name)
        return named_once(figure, axes, names)
    roomy(figure, first, 5.4)
    return beside(figure, first, titles=("largest improvement,\nmean [range] over seeds",))


def _told(largest: Array) -> str:
    """A mean over seeds with its range."""
    mean = f"{largest.mean():.2f}"
    return f"{mean} [{largest.min():.2f}, {largest.max():.2f}]" if len(largest) > 1 else mean


def _best(axis: Axes, optimum: Optimum, worth: bool = True) -> None:
    """The curve of the best score there is."""
    if not optimum:
        return
    tpr, sic = (np.asarray(optimum[name], np.float64) for name in ("tpr", "sic"))
    if not np.isfinite(sic).any():
        return
    label = f"{BEST.name}  {np.nanmax(sic):.2f}" if worth else BEST.name
    axis.plot(tpr, sic, **BEST.line, lw=2, label=label, zorder=3)


def _chance(axis: Axes) -> None:
    axis.plot(chance := np.linspace(0, 1, 200), np.sqrt(chance), color="0.6", lw=1, ls=":", label="chance")
