"""The sorted scores of two classes and each anomalous score's place among the nominal ones.

The nominal scores are sorted once; every anomalous score is then looked up in them from the left and from the right,
which counts the nominal events below it and tied with it. Without weights all counts are integers. `straylight.metrics`
has the public functions; ranks are shared between them, between kinds of anomaly and with their intervals.

`n` nominal scores, `m` anomalous scores, `R` distinct anomalous scores.
"""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Weight = ArrayLike | None  # of events; None is one each
RESOLVABLE = 10  # nominal events above a threshold, below which its FPR is not known to better than about a third
SIC_FLOOR = 25  # nominal events above a threshold, from which on its FPR is known to 20 % (1 / sqrt(25))


def needed(fpr: float) -> int:
    """How many nominal events resolve a false-positive rate: those that leave ten above its threshold.

    Raises:
        ValueError: if `fpr` is not above 0 and at most 1.

    Example:
        >>> needed(1e-5)
        1000000
    """
    if not 0 < fpr <= 1:
        raise ValueError(f"no number of nominal events resolves a false-positive rate of {fpr}")
    return int(np.ceil(RESOLVABLE / fpr * (1 - 1e-13)))  # 10 / (1 - 0.9) is 100.00000000000003


class Working(NamedTuple):
    """A working point: the fraction of anomalies above the threshold and what it rests on.

    Attributes:
        tpr: the fraction of anomalous scores above the threshold.
        above: how many nominal scores lie above it; with weights their effective number, (sum w)^2 / sum w^2.
        threshold: the score that must be exceeded.
        fpr: the fraction of nominal scores above it.
        target: the false-positive rate asked for.
        nominal: how many nominal scores there are; with weights their effective number.
    """

    tpr: float
    above: float
    threshold: float
    fpr: float = 0.0
    target: float = 0.0
    nominal: float = 0

    @property
    def resolvable(self) -> bool:
        """Whether at least ten nominal events lie above the threshold."""
        return self.above >= RESOLVABLE

    def remark(self) -> str | None:
        """None where the point is resolvable, else one sentence: why not, and what would help.
        Example:
            >>> Working(0.3, 3, 1.5, target=0.1, nominal=30).remark().split("; ")[1]
            'about 100 nominal events would resolve an FPR of 0.1'
        """
        if self.resolvable:
            return None
        weighted = isinstance(self.above, float)
        count = f"{self.above:.3g} effective" if weighted else f"{self.above}"
        one = self.above == 1 and not weighted
        text = f"not resolvable: {count} nominal event{' lies' if one else 's lie'} above the threshold"
        if self.target <= 0:
            return text
        if (allowed := np.floor(self.target * self.nominal * (1 + 1e-13))) >= RESOLVABLE:
            reason = "the weights at the threshold are too large or its score" if weighted else "the threshold's score"
            return f"{text}, where an FPR of {self.target:g} allows {allowed:,.0f}: {reason} is shared by too many"
        return f"{text}; about {needed(self.target):,} nominal events would resolve an FPR of {self.target:g}"


class Column:
    """The sorted scores of one class, and the weight above every place among them.

    Args:
        name: of the class, for messages.
        scores: `(n,)`, any real dtype, kept.
        weight: `(n,)` event weights; None is one each. Events of weight zero are left out.

    Raises:
        ValueError: if a weight is negative or not finite, a score NaN, or no event left.
    """

    def __init__(self, name: str, scores: ArrayLike, weight: Weight = None) -> None:
        values = np.asarray(scores)
        if values.ndim != 1 or not len(values):
            raise ValueError(f"{name} scores must be a non-empty column, not of shape {values.shape}")
        weights = None
        if weight is not None:
            weights = weighed(name, weight, values.shape)
            if (weights == 0).any():
                values, weights = values[weights > 0], weights[weights > 0]
            if not len(values):
                raise ValueError(f"all {name} events have weight zero, so there is none to rank")
            if (weights == 1).all():
                weights = None
        if nans := int(np.isnan(values).sum()):
            raise ValueError(f"{nans} of {len(values)} {name} scores are NaN and cannot be ranked")
        self.n = len(values)
        self.weight: NDArray[np.float64] | None = None
        if weights is None:
            self.values: NDArray[Any] = np.sort(values)
            self.total: float = self.n
        else:
            order = np.argsort(values)
            self.values, self.weight = values[order], weights[order]
            # summed from the top, so that the smallest sums are the most precise
            self._sums, self._squares = (np.append(0.0, np.cumsum(x[::-1])) for x in (self.weight, self.weight**2))
            self.total = float(self._sums[-1])

    def above(self, place: Any) -> Any:
        """Summed weight of the events from a sorted place on."""
        return self.n - place if self.weight is None else self._sums[self.n - place]

    def squares(self, place: Any) -> Any:
        """Summed squares of their weights."""
        return self.n - place if self.weight is None else self._squares[self.n - place]

    def effective(self, place: Any) -> Any:
        """Their effective number, (sum w)^2 / sum w^2: how many events of equal weight know as much."""
        if self.weight is None:
            return self.n - place
        return self.above(place) ** 2 / np.maximum(self.squares(place), np.finfo(float).tiny)

    def place(self, fraction: float) -> int:
        """The first sorted place above which, it included, at most this fraction of the weight lies."""
        if self.weight is None:
            # 0.29 * 100 is 28.999999999999996: the allowance is rounded at the thirteenth digit before it is cut
            return self.n - int(np.floor(fraction * self.n * (1 + 1e-13)))
        # summed weights are rounded more often
        return self.n + 1 - int(np.searchsorted(self._sums, fraction * self.total * (1 + 1e-9), "right"))

    def positions(self, u: NDArray[np.float64]) -> NDArray[np.intp]:
        """The sorted places below and at which these fractions of the weight lie."""
        if self.weight is None:
            at = (u * self.n).astype(np.intp)
        else:
            at = self.n - np.searchsorted(self._sums, (1 - u) * self.total, "left")
        return np.clip(at, 0, self.n - 1)


def weighed(name: str, weight: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Event weights, checked."""
    weights = np.asarray(weight, np.float64)
    if weights.shape != shape:
        raise ValueError(f"the weights of {name} events are of shape {weights.shape}, their scores of {shape}")
    if bad := int((~(np.isfinite(weights) & (weights >= 0))).sum()):
        raise ValueError(f"{bad} of {len(weights)} weights of {name} events are negative or not finite")
    return weights


class Steps(NamedTuple):
    """What lies above (`_gt`) and at or above (`_ge`) each distinct anomalous score; `(R,)` each, ascending.

    Attributes:
        first, end: the places among the anomalous scores where its run of equal scores starts and ends.
        below, upto: the places among the nominal scores where those equal to it start and end.
        tp_ge, tp_gt, fp_ge, fp_gt: weight of anomalous and nominal events.
    """

    first: NDArray[np.intp]
    end: NDArray[np.intp]
    below: NDArray[np.intp]
    upto: NDArray[np.intp]
    tp_ge: NDArray[Any]
    tp_gt: NDArray[Any]
    fp_ge: NDArray[Any]
    fp_gt: NDArray[Any]


class Improvements(NamedTuple):
    """What every threshold keeps that `SIC_FLOOR` nominal events or more lie above; `(T,)` each, TPR ascending.

    Thresholds are the anomalous scores, and a nominal one where that is the best of all.
    """

    tpr: NDArray[np.float64]
    fpr: NDArray[np.float64]

    @property
    def sic(self) -> NDArray[np.float64]:
        """The significance improvement, `(T,)`."""
        return self.tpr / np.sqrt(self.fpr)


class Ranks:
    """Both classes in one dtype, and what follows from their order. Nothing is computed before it is asked for."""

    def __init__(self, low: Column, high: Column) -> None:
        self.low, self.high = low, high
        dtype = np.result_type(low.values, high.values)
        self.nominal, self.anomalous = low.values.astype(dtype, copy=False), high.values.astype(dtype, copy=False)

    @cached_property
    def below(self) -> NDArray[np.intp]:
        return np.searchsorted(self.nominal, self.anomalous, "left")

    @cached_property
    def upto(self) -> NDArray[np.intp]:
        # differs only where there is a tie, which is seldom with floating-point scores
        places = self.below.copy()
        tied = self.nominal[np.minimum(places, self.low.n - 1)] == self.anomalous
        places[tied] = np.searchsorted(self.nominal, self.anomalous[tied], "right")
        return places

    @cached_property
    def steps(self) -> Steps:
        first = np.flatnonzero(np.r_[True, self.anomalous[1:] != self.anomalous[:-1]])
        end = np.append(first[1:], self.high.n)
        below, upto = self.below[first], self.upto[first]
        tp = self.high.above(first), self.high.above(end)
        return Steps(first, end, below, upto, *tp, self.low.above(below), self.low.above(upto))

    def auroc(self) -> float:
        low, high = self.low, self.high
        if low.weight is None and high.weight is None:
            # 2 n m stays an exact integer: a tie counts one half
            wins = int(self.below.sum(dtype=np.int64)) + int(self.upto.sum(dtype=np.int64))
            return wins / (2 * low.n * high.n)
        losses = low.above(self.below) + low.above(self.upto)
        lost = losses.sum() if high.weight is None else (high.weight * losses).sum()
        return float(min(max(1 - lost / (2 * low.total * high.total), 0.0), 1.0))

    def average_precision(self) -> float:
        s = self.steps
        share = (s.tp_ge - s.tp_gt) / self.high.total
        return float(np.sum(share * (s.tp_ge / (s.tp_ge + s.fp_ge))))

    def area(self, max_fpr: float) -> float:
        """Area under the ROC curve left of `max_fpr`, between 0 and `max_fpr`."""
        s = self.steps
        return float(np.sum((s.tp_ge - s.tp_gt) / self.high.total * self.placed(max_fpr)))

    def placed(self, max_fpr: float) -> NDArray[np.float64]:
        """`(R,)`, what an anomalous event adds to that area: its TPR rises from 0 to 1 along the nominal ones tied."""
        start, stop = self.steps.fp_gt / self.low.total, self.steps.fp_ge / self.low.total
        within = np.maximum(max_fpr - start, 0.0)
        width = stop - start
        cut = within**2 / (2 * np.where(width > 0, width, 1.0))
        return np.where(stop <= max_fpr, max_fpr - (start + stop) / 2, np.where(width > 0, cut, 0.0))

    def at(self, fpr: float) -> Working:
        low, high = self.low, self.high
        place, nominal = low.place(fpr), low.effective(0)
        if place <= 0:
            return Working(1.0, nominal, float("-inf"), 1.0, fpr, nominal)
        threshold = self.nominal[place - 1]
        place = int(np.searchsorted(self.nominal, threshold, "right"))
        passed = high.above(int(np.searchsorted(self.anomalous, threshold, "right")))
        above, rate = low.effective(place), low.above(place) / low.total
        plain = int if low.weight is None else float
        return Working(float(passed / high.total), plain(above), float(threshold), float(rate), fpr, plain(nominal))

    @cached_property
    def improvements(self) -> Improvements:
        low, high, s = self.low, self.high, self.steps
        known = np.flatnonzero(low.effective(s.below) >= SIC_FLOOR)[::-1]
        found = Improvements(s.tp_ge[known] / high.total, s.fp_ge[known] / low.total)
        # between two anomalous scores the fewest nominal events are best: only the floor stops at a nominal score
        corner = self.nominal[-SIC_FLOOR:][:1] if low.weight is None else self.nominal
        place = np.searchsorted(self.nominal, corner, "left")
        enough = low.effective(place) >= SIC_FLOOR
        tp = high.above(np.searchsorted(self.anomalous, corner[enough], "left")) / high.total
        others = Improvements(tp, low.above(place[enough]) / low.total)
        if not len(others.tpr) or others.sic.max() <= found.sic.max(initial=-1.0):
            return found
        best = others.sic.argmax()
        tpr, fpr = np.append(found.tpr, others.tpr[best]), np.append(found.fpr, others.fpr[best])
        order = np.lexsort((fpr, tpr))
        return Improvements(tpr[order], fpr[order])

    def max_sic(self) -> tuple[float, float] | None:
        """The largest TPR / sqrt(FPR) and its FPR, where at least `SIC_FLOOR` nominal events lie above; else None."""
        found = self.improvements
        if not len(found.tpr):
            return None
        best = len(found.tpr) - 1 - int(found.sic[::-1].argmax())  # of equal ones that which keeps the most
        return float(found.sic[best]), float(found.fpr[best])
