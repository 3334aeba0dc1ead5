"""What calibration scores of nominal events say about a new score: p-values, thresholds, and how far to trust them.

`n` calibration events, which are exchangeable with the nominal events to come; `N` events to judge.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln

from straylight.metrics.ranks import Column, Weight, weighed

ROUNDING = 1 + 1e-13  # 0.07 * 100 is 7.000000000000001, and 0.29 * 100 is 28.999999999999996
LEVEL = 0.95  # of bands


class Threshold(NamedTuple):
    """A threshold that a score must exceed to be flagged, and what it rests on.

    Attributes:
        value: infinite where nothing may be flagged.
        k: its rank from the top: the k-th largest calibration score; 0 if there is none. With weights, an effective
            number.
        n: how many calibration events there are; with weights their effective number, (sum w)^2 / sum w^2.
        above: how many of them lie above it: k - 1, or fewer where others are tied with it.
        tied: whether other calibration scores equal it, or it is infinite; fewer may then be flagged than expected.
        approximate: whether events have weights, so that what is expected is not exact.
    """

    value: float
    k: float
    n: float
    above: float
    tied: bool = False
    approximate: bool = False

    @property
    def expected_fpr(self) -> float:
        """k / (n + 1), the mean FPR over calibration samples; where scores are tied, the most that it can be."""
        return self.k / (self.n + 1)

    def band(self, n_test: float, level: float = LEVEL) -> tuple[float, float]:
        """Where the FPR on `n_test` nominal events lies with this probability; see `fpr_band`.

        Where scores are tied with the threshold the band reaches down to what is expected of a threshold above them.
        """
        if not self.k:
            return 0.0, 0.0
        n, n_test = max(1, round(self.n)), max(1, round(n_test))
        k = min(max(1, round(self.k)), n)
        low, high = fpr_band(k, n, n_test, level)
        if self.tied:
            low = fpr_band(int(self.above), n, n_test, level)[0]
        return low, high


class Calibration:
    """Scores of nominal events that a detector was not fitted to, against which new scores are held.

    The p-value of a score s is p(s) = (1 + #{calibration >= s}) / (n + 1). Of an event that is exchangeable with the
    calibration events, P(p <= a) <= a, whatever the detector and the law of the scores. An event is flagged at a
    false-positive rate a if p <= a. That is so exactly if its score exceeds the k-th largest calibration score,
    k = floor(a (n + 1)), and for k = 0 never; its mean probability is k / (n + 1) where no scores are tied.

    With weights, n becomes (sum w)^2 / sum w^2, the count becomes n times the fraction of the weight, and all of it is
    approximate.

    References:
        V. Vovk, A. Gammerman, G. Shafer, Algorithmic learning in a random world, Springer 2005, doi:10.1007/b106715
        S. Bates et al., Testing for outliers with conformal p-values, Ann. Stat. 51 (2023) 149, arXiv:2104.08279

    Args:
        scores: of nominal events, `(n,)`; infinities are scores as any other.
        weight: `(n,)` event weights; None is one each.

    Raises:
        ValueError: if there is no score, one is NaN, or a weight is negative or not finite.

    Example:
        >>> calibration = Calibration(range(1, 20))
        >>> calibration.at_fpr(0.1).value, calibration.p_values([18, 18.5]).tolist()
        (18.0, [0.15, 0.1])
    """

    def __init__(self, scores: ArrayLike, weight: Weight = None) -> None:
        if weight is not None:  # equal ones are as good as none
            weights = weighed("calibration", weight, np.shape(scores))
            weight = weights / (weights.max(initial=0) or 1)
        self._column = Column("calibration", scores, weight)
        self.weighted = self._column.weight is not None
        self.rows = self._column.n
        self.n = self._column.effective(0)

    def p_values(self, scores: ArrayLike) -> NDArray[np.float64]:
        """The p-values of new scores, `(N,)`, between 1 / (n + 1) and 1.

        Raises:
            ValueError: if a score is NaN.
        """
        new = np.asarray(scores)
        if nans := int(np.isnan(new).sum()):
            raise ValueError(f"{nans} of {new.size} scores are NaN and have no p-value")
        place = np.searchsorted(self._column.values, new, "left")
        p_values = (1 + self._column.above(place) * (self.n / self._column.total)) / (self.n + 1)
        return np.minimum(p_values, 1.0)  # the weights of all rows may add up to a rounding more than their total

    def at_fpr(self, fpr: float) -> Threshold:
        """The smallest threshold whose expected false-positive rate is at most `fpr`, between 0 and 1.

        Raises:
            ValueError: if `fpr` is not between 0 and 1.
        """
        if not 0 < fpr < 1:
            raise ValueError(f"a threshold's false-positive rate must lie between 0 and 1, not at {fpr}")
        k = fpr * (self.n + 1) * ROUNDING
        if not self.weighted:
            k = min(math.floor(k), self.n)
        if k < 1:
            return Threshold(math.inf, 0, self.n, 0, approximate=self.weighted)
        values = self._column.values
        value = values[max(1, self._column.place((k - 1) / self.n)) - 1]
        first, end = (int(np.searchsorted(values, value, side)) for side in ("left", "right"))
        tied = end - first > 1 or bool(np.isinf(value))
        if self.weighted:
            above = float(self._column.above(end) * (self.n / self._column.total))
            return Threshold(float(value), above + 1, float(self.n), above, tied, approximate=True)
        return Threshold(float(value), int(k), int(self.n), self.rows - end, tied)


def held_nominal(y: ArrayLike) -> NDArray[np.bool_]:
    """Which calibration rows are held to be nominal: those labelled so; where none is, those without a label.

    Example:
        >>> held_nominal([0, -1, 2]).tolist(), held_nominal([-1, -1, 2]).tolist()
        ([True, False, False], [True, True, False])
    """
    labels = np.asarray(y)
    return np.asarray(labels == 0 if (labels == 0).any() else labels < 0)


def needed(fpr: float) -> int:
    """The fewest calibration events with which something can be flagged at this false-positive rate, ceil(1/a) - 1.

    Example:
        >>> needed(0.05)
        19
    """
    return max(1, math.ceil(1 / (fpr * ROUNDING)) - 1)


def benjamini_hochberg(p: ArrayLike, q: float) -> NDArray[np.bool_]:
    """Which events to flag so that, on average, at most a fraction q of the flagged ones is nominal.

    All p <= p_(i) are flagged for the largest i with p_(i) <= q i / N. The false-discovery rate is then at most q times
    the fraction of nominal events: for independent p-values, and for conformal ones, which share their calibration
    events, as Bates et al. show. What is flagged depends on all N events together.

    References:
        Y. Benjamini, Y. Hochberg, Controlling the false discovery rate: a practical and powerful approach to multiple
        testing, J. R. Stat. Soc. B 57 (1995) 289, doi:10.1111/j.2517-6161.1995.tb02031.x
        S. Bates et al., Testing for outliers with conformal p-values, Ann. Stat. 51 (2023) 149, arXiv:2104.08279

    Args:
        p: p-values, `(N,)`.
        q: the false-discovery rate, between 0 and 1.

    Raises:
        ValueError: if `q` or a p-value is not between 0 and 1.

    Example:
        >>> benjamini_hochberg([0.01, 0.9, 0.04, 0.02], 0.06).tolist()
        [True, False, True, True]
    """
    values = np.asarray(p, dtype=np.float64)
    if not 0 < q < 1:
        raise ValueError(f"a false-discovery rate must lie between 0 and 1, not at {q}")
    if bad := int((~((values >= 0) & (values <= 1))).sum()):
        raise ValueError(f"{bad} of {len(values)} p-values do not lie between 0 and 1")
    different, counts = np.unique(values, return_counts=True)
    return values <= discovered(different, counts, q)


def discovered(p: ArrayLike, counts: ArrayLike, q: float) -> float:
    """The largest p-value that `benjamini_hochberg` flags; minus infinity if it flags none.

    Args:
        p: different p-values in increasing order, `(M,)`.
        counts: how many events have each, `(M,)`.
        q: the false-discovery rate.

    Example:
        >>> discovered([0.01, 0.02, 0.9], [1, 2, 1], 0.06)
        0.02
    """
    values, upto = np.asarray(p, dtype=np.float64), np.cumsum(counts)
    passing = np.flatnonzero(values <= q * upto / max(1, int(upto[-1]) if len(upto) else 1) * ROUNDING)
    return float(values[passing[-1]]) if len(passing) else -math.inf


def fpr_band(k: int, n: int, n_test: int, level: float = LEVEL) -> tuple[float, float]:
    """Where the observed FPR of a threshold at the k-th largest calibration score lies, with this probability or more.

    The FPR itself follows Beta(k, n + 1 - k) over calibration samples, and the number of false alarms among `n_test`
    nominal events the beta-binomial law of these. Of the `x + k` largest scores of both samples together, k or more are
    calibration scores exactly if no more than x are false alarms: its distribution function is one of a hypergeometric
    law. Both tails hold at most (1 - level) / 2. Assumes continuous scores.

    References:
        S. Bates et al., Testing for outliers with conformal p-values, Ann. Stat. 51 (2023) 149, arXiv:2104.08279
        N. L. Johnson, A. W. Kemp, S. Kotz, Univariate discrete distributions, 3rd ed., Wiley 2005,
        doi:10.1002/0471715816

    Args:
        k: rank of the threshold from the top, 0 to n; for 0 nothing is flagged.
        n: calibration events.
        n_test: nominal events to be judged.
        level: between 0 and 1.

    Raises:
        ValueError: if a number is out of its range.

    Example:
        >>> fpr_band(50, 999, 10_000)
        (0.0368, 0.065)
    """
    if not 0 <= k <= n or n < 1 or n_test < 1 or not 0 < level < 1:
        raise ValueError(
            f"an FPR band needs 0 <= k <= n, n_test > 0 and a level below 1, not {k}, {n}, {n_test}, {level}"
        )
    if not k:
        return 0.0, 0.0
    tail = (1 - level) / 2
    return tuple(_quantile(k, n, n_test, beyond) / n_test for beyond in (1 - tail, tail))  # type: ignore[return-value]


def _quantile(k: int, n: int, n_test: int, beyond: float) -> int:
    """The fewest false alarms that are exceeded with at most this probability."""
    low, high = 0, n_test
    while low < high:
        middle = (low + high) // 2
        if _exceeded(middle, k, n, n_test) <= beyond:
            high = middle
        else:
            low = middle + 1
    return low


def _exceeded(x: int, k: int, n: int, n_test: int) -> float:
    """P(more than x false alarms) = P(fewer than k of the x + k largest scores are calibration scores)."""
    drawn, total = x + k, n + n_test
    mode = (drawn + 1) * (n + 1) // (total + 2)
    width = 50 + int(12 * math.sqrt(drawn * (n / total) * (n_test / total)))  # what lies further away is below 1e-16
    first = max(0, drawn - n_test, min(k - 1, mode) - width)
    j = np.arange(first, min(k - 1, mode + width) + 1)
    terms = _choose(n, j) + _choose(n_test, drawn - j) - _choose(total, np.array(drawn))
    return float(np.exp(terms).sum())


def _choose(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
    """The logarithm of a binomial coefficient; `betaln` keeps digits that a difference of log-gammas loses."""
    return np.asarray(-np.log1p(n) - betaln(n - k + 1, k + 1))
