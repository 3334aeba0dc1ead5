"""How well scores rank anomalies above nominal events: exact, in integers, with ties.

The nominal scores are sorted once; every anomalous score is then looked up in them from the left and from the right,
which counts the nominal events below it and tied with it. No threshold is binned and no score is squashed, so scores
of any magnitude are ranked as they are. (torchmetrics passes unbounded scores through a float32 sigmoid and ties
them: its issue 2819.)

`n` nominal scores, `m` anomalous scores.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FPRS = (1e-1, 1e-2, 1e-3, 1e-4)
RESOLVABLE = 10  # nominal events above a threshold, below which its FPR is not known to better than about a third


def _sorted(name: str, scores: ArrayLike) -> NDArray[np.floating]:
    array = np.asarray(scores)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} scores must be a non-empty column, not of shape {array.shape}")
    if nans := int(np.isnan(array).sum()):
        raise ValueError(f"{nans} of {len(array)} {name} scores are NaN and cannot be ranked")
    return np.sort(array)


class Working(NamedTuple):
    """A working point: the fraction of anomalies above the threshold and what it rests on.

    Attributes:
        tpr: the fraction of anomalous scores above the threshold.
        above: how many nominal scores lie above it.
        threshold: the score that must be exceeded.
    """

    tpr: float
    above: int
    threshold: float

    @property
    def resolvable(self) -> bool:
        """Whether at least ten nominal events lie above the threshold."""
        return self.above >= RESOLVABLE


class _Ranks:
    """Both sides sorted, in one dtype, and each anomalous score's place among the nominal ones."""

    def __init__(self, nominal: ArrayLike, anomalous: ArrayLike) -> None:
        low, high = _sorted("nominal", nominal), _sorted("anomalous", anomalous)
        dtype = np.result_type(low, high)
        self.low, self.high = low.astype(dtype, copy=False), high.astype(dtype, copy=False)
        self.below = np.searchsorted(self.low, self.high, "left")
        self.upto = np.searchsorted(self.low, self.high, "right")

    def auroc(self) -> float:
        # 2 n m stays an exact integer: a tie counts one half
        wins = int(self.below.sum(dtype=np.int64)) + int(self.upto.sum(dtype=np.int64))
        return wins / (2 * len(self.low) * len(self.high))

    def average_precision(self) -> float:
        n, m = len(self.low), len(self.high)
        first = np.flatnonzero(np.r_[True, self.high[1:] != self.high[:-1]])  # of each run of equal anomalous scores
        tp = m - first
        fp = n - self.below[first]
        share = np.diff(np.r_[first, m]) / m
        return float(np.sum(share * (tp / (tp + fp))))

    def at(self, fpr: float) -> Working:
        n, m = len(self.low), len(self.high)
        # 0.29 * 100 is 28.999999999999996: the allowance is rounded at the thirteenth digit before it is cut
        allowed = int(np.floor(fpr * n * (1 + 1e-13)))
        if allowed >= n:
            return Working(1.0, n, float("-inf"))
        threshold = self.low[n - 1 - allowed]
        above = n - int(np.searchsorted(self.low, threshold, "right"))
        passed = m - int(np.searchsorted(self.high, threshold, "right"))
        return Working(passed / m, above, float(threshold))


def auroc(nominal: ArrayLike, anomalous: ArrayLike) -> float:
    """Probability that a random anomalous score exceeds a random nominal one, ties counted half.

    AUROC = (#{a > b} + #{a = b} / 2) / (n m), the Mann-Whitney statistic, summed in integers.

    References:
        J. A. Hanley, B. J. McNeil, The meaning and use of the area under a ROC curve, Radiology 143 (1982) 29,
        doi:10.1148/radiology.143.1.7063747

    Args:
        nominal: scores of nominal events, `(n,)`.
        anomalous: scores of anomalous events, `(m,)`.

    Raises:
        ValueError: if a side is empty or holds NaN.

    Example:
        >>> auroc([0, 1, 2], [2, 3])
        0.9166666666666666
    """
    return _Ranks(nominal, anomalous).auroc()


def average_precision(nominal: ArrayLike, anomalous: ArrayLike) -> float:
    """Area under the precision-recall curve as a sum over its steps, without interpolation.

    AP = sum over distinct scores t of (R(t) - R(t+)) P(t), with recall R and precision P of `score >= t`.

    References:
        J. Davis, M. Goadrich, The relationship between precision-recall and ROC curves, ICML 2006,
        doi:10.1145/1143844.1143874

    Args, Raises: as `auroc`.

    Example:
        >>> average_precision([0, 1], [2, 3])
        1.0
    """
    return _Ranks(nominal, anomalous).average_precision()


def tpr_at_fpr(nominal: ArrayLike, anomalous: ArrayLike, fpr: float) -> Working:
    """Fraction of anomalies kept at the largest false-positive rate that is not above `fpr`.

    Args:
        nominal, anomalous: as `auroc`.
        fpr: the target, between 0 and 1. A working point that fewer than ten nominal events lie above is not
            `resolvable`: its FPR, and so its TPR, is mostly chance.

    Raises:
        ValueError: if a side is empty or holds NaN, or `fpr` is not between 0 and 1.

    Example:
        >>> tpr_at_fpr(range(100), [85, 95, 99.5], 0.1)
        Working(tpr=0.6666666666666666, above=10, threshold=89.0)
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"a false-positive rate lies between 0 and 1, not at {fpr}")
    return _Ranks(nominal, anomalous).at(fpr)


def ranking(
    scores: ArrayLike, y: ArrayLike, kinds: tuple[str, ...] = (), fprs: tuple[float, ...] = FPRS
) -> dict[str, float]:
    """Every ranking metric of one split, by name: overall, then per kind of anomaly against all nominal events.

    Args:
        scores: `(N,)`, larger is stranger.
        y: `(N,)`, 0 nominal, 1..K the kind of anomaly; rows labelled -1 are left out.
        kinds: names of the labels, `kinds[0]` the nominal one; a kind beyond them is named by its number.
        fprs: false-positive rates of the working points.

    Returns:
        `auroc`, `ap`, `tpr@fpr=F` and the number of nominal events above that threshold, `nominal_above@fpr=F`;
        `auroc/KIND`, `ap/KIND`, `tpr@fpr=F/KIND` where there is more than one kind; `nominal` and `anomalous`, the
        counts. Where a side is empty only the counts.

    Raises:
        ValueError: if a score is NaN.

    Example:
        >>> ranking([0, 1, 2, 3], [0, 0, 1, 1], fprs=(0.5,))["tpr@fpr=0.5"]
        1.0
    """
    scores, y = np.asarray(scores), np.asarray(y)
    nominal, anomalous = scores[y == 0], scores[y > 0]
    metrics: dict[str, float] = {"nominal": len(nominal), "anomalous": len(anomalous)}
    if not len(nominal) or not len(anomalous):
        return metrics
    labels = np.unique(y[y > 0])
    parts = [("", anomalous)]
    if len(labels) > 1:
        parts += [(f"/{kinds[k] if k < len(kinds) else k}", scores[y == k]) for k in labels.tolist()]
    for kind, part in parts:
        ranks = _Ranks(nominal, part)
        metrics[f"auroc{kind}"] = ranks.auroc()
        metrics[f"ap{kind}"] = ranks.average_precision()
        for fpr in fprs:
            working = ranks.at(fpr)
            metrics[f"tpr@fpr={fpr:g}{kind}"] = working.tpr
            if not kind:
                metrics[f"nominal_above@fpr={fpr:g}"] = working.above
    return metrics
