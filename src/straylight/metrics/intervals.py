"""How far the true value of a ranking metric may lie from the measured one.

Every metric of a ranking is smooth in the weights of the events, so its variance is the sum over both classes of
squared influences (the infinitesimal jackknife, the limit of the bootstrap stratified by class: B. Efron, The
jackknife, the bootstrap and other resampling plans, SIAM 1982, doi:10.1137/1.9781611970319, chapter 6). Influences are
constant between two neighbouring anomalous scores, so `2 R + 1` numbers hold them all. For AUROC the variance is
DeLong's. How often intervals hold the truth is simulated in `tests/test_intervals.py`.

`n` nominal scores, `m` anomalous scores, `R` distinct anomalous scores.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri

from straylight.metrics.ranks import Ranks, Steps

Interval = tuple[float, float]
DRAWS = 2000  # of a bootstrap: its 95 % limits are then known to 0.35 % of probability
FEW = 1.5  # wrongly ranked events, below which the logit scale is left: found by simulation
PRIOR = 0.5  # of an all-or-nothing event added to the observed ones: found by simulation


class Side(NamedTuple):
    """What one class contributes to the variance of a metric.

    Attributes:
        variance: of the metric over that class.
        known: the effective number of events that differ from a perfect (or perfectly wrong) ranking.
        size: the number of events whose all-or-nothing outcomes would have the metric as their mean.
    """

    variance: float
    known: float
    size: float


class _Cells(NamedTuple):
    """Events of one class among which an influence is constant: number of events, summed weight and squares."""

    events: int
    sums: NDArray[Any]
    squares: NDArray[Any]

    @classmethod
    def anomalous(cls, ranks: Ranks) -> _Cells:
        s, high = ranks.steps, ranks.high
        return cls(high.n, s.tp_ge - s.tp_gt, high.squares(s.first) - high.squares(s.end))

    @classmethod
    def nominal(cls, ranks: Ranks) -> _Cells:
        """Those below all anomalous scores, those tied with each, those between each and the next."""
        s, low = ranks.steps, ranks.low

        def split(ge: NDArray[Any], gt: NDArray[Any], total: Any) -> NDArray[Any]:
            return np.concatenate([[total - ge[0]], ge - gt, gt - np.append(ge[1:], 0)])

        squares = low.squares(s.below), low.squares(s.upto), low.squares(0)
        return cls(low.n, split(s.fp_ge, s.fp_gt, low.total), split(*squares))

    def variance(self, influence: NDArray[np.float64]) -> float:
        """Of a metric whose derivative by an event's weight is `influence`, over draws of the events."""
        if self.events < 2:
            return 0.0
        # the summed weight of a class is held fixed
        centred = influence - np.sum(self.sums * influence) / np.sum(self.sums)
        return float(np.sum(self.squares * centred**2)) * self.events / (self.events - 1)

    def effective(self, share: NDArray[np.float64]) -> float:
        """How many events of equal share make up a sum of unequal ones."""
        squares = float(np.sum(self.squares * share**2))
        return float(np.sum(self.sums * share)) ** 2 / squares if squares > 0 and self.events > 1 else 0.0

    def known(self, share: NDArray[np.float64]) -> float:
        return min(self.effective(share), self.effective(1 - share))


def _around_steps(s: Steps, total: float) -> NDArray[np.float64]:
    """The TPR at each cell of nominal scores, ties counted half."""
    return np.concatenate([[1.0], (s.tp_ge + s.tp_gt) / (2 * total), s.tp_gt / total])


def auroc_sides(ranks: Ranks) -> tuple[Side, Side]:
    """DeLong's variances over the nominal and the anomalous events.

    References:
        E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Comparing the areas under two or more correlated receiver
        operating characteristic curves: a nonparametric approach, Biometrics 44 (1988) 837, doi:10.2307/2531595
    """
    s, low, high = ranks.steps, ranks.low, ranks.high
    value = ranks.auroc()
    nominal, anomalous = _Cells.nominal(ranks), _Cells.anomalous(ranks)
    outranked = _around_steps(s, high.total)
    outranks = 1 - (s.fp_ge + s.fp_gt) / (2 * low.total)
    return (
        Side(nominal.variance((outranked - value) / low.total), nominal.known(outranked), low.effective(0)),
        Side(anomalous.variance((outranks - value) / high.total), anomalous.known(outranks), high.effective(0)),
    )


def ap_sides(ranks: Ranks) -> tuple[Side, Side]:
    """Variances of the average precision, the ratio of the classes held fixed."""
    s, high = ranks.steps, ranks.high
    nominal, anomalous = _Cells.nominal(ranks), _Cells.anomalous(ranks)
    weight, chosen = s.tp_ge - s.tp_gt, s.tp_ge + s.fp_ge
    precision = s.tp_ge / chosen
    spoilt = np.append(0.0, np.cumsum(weight * s.tp_ge / chosen**2)) / high.total
    helped = np.cumsum(weight * s.fp_ge / chosen**2)
    above = np.concatenate([spoilt[:1], spoilt[1:], spoilt[1:]])
    size = high.effective(0)
    return (
        Side(nominal.variance(above), nominal.effective(above), size),
        Side(anomalous.variance((precision + helped) / high.total), anomalous.known(precision), size),
    )


def area_sides(ranks: Ranks, max_fpr: float) -> tuple[Side, Side]:
    """Variances of the area left of `max_fpr` as a fraction of it."""
    s, low, high = ranks.steps, ranks.low, ranks.high
    nominal, anomalous = _Cells.nominal(ranks), _Cells.anomalous(ranks)
    placed = ranks.placed(max_fpr) / max_fpr
    area = float(np.sum((s.tp_ge - s.tp_gt) * placed)) / high.total
    start, stop = s.fp_gt / low.total, s.fp_ge / low.total
    # the TPR at max_fpr, which rises along the nominal events that are tied there
    part = np.clip((max_fpr - start) / np.where(stop > start, stop - start, 1.0), 0, 1)
    part = np.where(stop > start, part, start < max_fpr)
    edge = float(np.sum((s.tp_ge - s.tp_gt) * part)) / high.total
    tpr = _around_steps(s, high.total)
    inside = np.concatenate([[False], stop <= max_fpr, start < max_fpr])
    influence = np.where(inside, tpr - edge, 0.0)
    cut = (start < max_fpr) & (stop > max_fpr)
    influence[1 : 1 + len(cut)] -= np.where(cut, (s.tp_ge - s.tp_gt) / high.total * part**2 / 2, 0.0)
    # between scores the edge lies anywhere, and the TPR there is the edge's own
    influence = influence / max_fpr + edge - area
    known = nominal.effective(np.where(inside, 1 - tpr, 0.0))
    return (
        Side(nominal.variance(influence / low.total), known, low.effective(0) * max_fpr),
        Side(anomalous.variance((placed - area) / high.total), anomalous.known(placed), high.effective(0)),
    )


def around(value: float, sides: tuple[Side, ...], level: float = 0.95) -> Interval:
    """Interval of a metric between 0 and 1 from what each class contributes to its variance.

    The variance is that of a fraction of N all-or-nothing events. Each class adds half such an event to those it
    knows, so that N stays finite where few or no events are ranked wrongly. The interval is Wald's on the logit scale,
    and Wilson's where fewer than 1.5 events are.

    References:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927) 209,
        doi:10.1080/01621459.1927.10502953
    """
    z = z_of(level)
    bound = value * (1 - value)
    size = 1 / sum(
        ((s.known * s.variance * s.size / bound if bound > 0 else 0.0) + PRIOR) / (s.known + PRIOR) / s.size
        for s in sides
    )
    if bound <= 0 or min(s.known for s in sides) < FEW:
        centre = (value + z**2 / (2 * size)) / (1 + z**2 / size)
        half = z / (1 + z**2 / size) * math.sqrt(max(bound, 0.0) / size + z**2 / (4 * size**2))
        low, high = centre - half, centre + half
    else:
        centre = (value * size + 0.5) / (size + 1)
        half = z / math.sqrt((size + 1) * centre * (1 - centre))
        low, high = (float(expit(logit(centre) + sign * half)) for sign in (-1, 1))
    return max(min(low, value), 0.0), min(max(high, value), 1.0)


def z_of(level: float) -> float:
    """How many standard deviations an interval of this level reaches to each side of the mean of a normal law.

    Raises:
        ValueError: if the level does not lie between 0 and 1.

    Example:
        >>> round(z_of(0.95), 2)
        1.96
    """
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, not at {level}")
    return float(ndtri((1 + level) / 2))


def tpr(ranks: Ranks, fpr: float, level: float = 0.95, seed: int = 0) -> Interval | None:
    """Interval of the TPR at a false-positive rate, where the threshold is an order statistic of these nominal scores.

    The bootstrap stratified by class. Of n nominal events drawn anew, with k of them allowed above the threshold, the
    threshold is the one at position floor(n U) of the sorted scores, U ~ Beta(n - k, k + 1): the law of an order
    statistic of n uniform draws, so that none of the n needs to be drawn. The number of the m anomalous events above it
    would be binomial; where few of them, or few others, are, a binomial never leaves zero, or m, and Jeffreys'
    posterior Beta(p + 1/2, m - p + 1/2) of p events above the threshold is drawn from instead. With weights n and m are
    effective numbers.

    None where the working point is not resolvable: nominal events drawn anew never lie above the highest of these, so
    that with few of them above the threshold the bootstrap cannot know how far up it may lie.

    References:
        B. Efron, R. J. Tibshirani, An introduction to the bootstrap, Chapman & Hall 1993, doi:10.1201/9780429246593

    Args:
        fpr: the target.
        seed: of the draws, so that the same scores have the same interval.
    """
    low, high = ranks.low, ranks.high
    z_of(level)  # refuses what is none
    if fpr >= 1:
        return 1.0, 1.0
    working = ranks.at(fpr)
    if not working.resolvable:
        return None
    random = np.random.default_rng(seed)
    n, m = float(low.effective(0)), float(high.effective(0))
    allowed = n * fpr if low.weight is not None else n - low.place(fpr)
    at = low.positions(random.beta(n - allowed, allowed + 1, DRAWS))
    passed = high.above(np.searchsorted(ranks.anomalous, ranks.nominal[at], "right")) / high.total * m
    drawn = random.beta(passed + 0.5, np.maximum(m - passed, 0) + 0.5)
    least, most = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return min(float(least), working.tpr), max(float(most), working.tpr)
