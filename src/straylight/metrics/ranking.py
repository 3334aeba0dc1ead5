"""How well scores rank anomalies above nominal events: exact, in integers, with ties.

No threshold is binned and no score is squashed, so scores of any magnitude are ranked as they are. (torchmetrics passes
unbounded scores through a float32 sigmoid and ties them: its issue 2819.) See `ranks` for how, and `intervals` for how
well each number is known.

`n` nominal scores, `m` anomalous scores.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from straylight.metrics import intervals as known
from straylight.metrics.ranks import RESOLVABLE, SIC_FLOOR, Column, Ranks, Weight, Working, needed, weighed

__all__ = [
    "FPRS",
    "RESOLVABLE",
    "SIC_FLOOR",
    "Ranked",
    "Working",
    "auroc",
    "average_precision",
    "max_sic",
    "needed",
    "partial_auroc",
    "ranking",
    "sic",
    "sic_curve",
    "tpr_at_fpr",
]
FPRS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
MAX_FPR = 0.1


def _ranks(
    nominal: ArrayLike, anomalous: ArrayLike, nominal_weight: Weight = None, anomalous_weight: Weight = None
) -> Ranks:
    return Ranks(Column("nominal", nominal, nominal_weight), Column("anomalous", anomalous, anomalous_weight))


def auroc(
    nominal: ArrayLike, anomalous: ArrayLike, nominal_weight: Weight = None, anomalous_weight: Weight = None
) -> float:
    """Probability that a random anomalous score exceeds a random nominal one, ties counted half.

    AUROC = (#{a > b} + #{a = b} / 2) / (n m), the Mann-Whitney statistic, summed in integers; with weights every pair
    counts as the product of its weights.

    References:
        J. A. Hanley, B. J. McNeil, The meaning and use of the area under a ROC curve, Radiology 143 (1982) 29,
        doi:10.1148/radiology.143.1.7063747

    Args:
        nominal: scores of nominal events, `(n,)`.
        anomalous: scores of anomalous events, `(m,)`.
        nominal_weight, anomalous_weight: event weights, `(n,)` and `(m,)`; None is one each.

    Raises:
        ValueError: if a side is empty or holds NaN, or a weight is negative or not finite.

    Example:
        >>> auroc([0, 1, 2], [2, 3])
        0.9166666666666666
    """
    return _ranks(nominal, anomalous, nominal_weight, anomalous_weight).auroc()


def average_precision(
    nominal: ArrayLike, anomalous: ArrayLike, nominal_weight: Weight = None, anomalous_weight: Weight = None
) -> float:
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
    return _ranks(nominal, anomalous, nominal_weight, anomalous_weight).average_precision()


def partial_auroc(
    nominal: ArrayLike,
    anomalous: ArrayLike,
    max_fpr: float = MAX_FPR,
    nominal_weight: Weight = None,
    anomalous_weight: Weight = None,
) -> float:
    """Area under the ROC curve left of a false-positive rate, scaled so that 0.5 is chance and 1 is perfect.

    pAUROC = (1 + (A - a) / (b - a)) / 2 with the area A, a = max_fpr^2 / 2 that of chance and b = max_fpr.

    References:
        D. K. McClish, Analyzing a portion of the ROC curve, Med. Decis. Making 9 (1989) 190,
        doi:10.1177/0272989X8900900307

    Args:
        nominal, anomalous, nominal_weight, anomalous_weight: as `auroc`.
        max_fpr: above 0, at most 1.

    Raises:
        ValueError: as `auroc`, and if `max_fpr` is out of its range.

    Example:
        >>> partial_auroc([0, 1, 2, 3], [2.5, 4], max_fpr=0.5)
        0.8333333333333333
    """
    if not 0 < max_fpr <= 1:
        raise ValueError(
            f"the largest false-positive rate of a partial AUROC lies above 0, at most at 1, not at {max_fpr}"
        )
    area = _ranks(nominal, anomalous, nominal_weight, anomalous_weight).area(max_fpr)
    return _standardised(area / max_fpr, max_fpr)


def _standardised(mean_tpr: float, max_fpr: float) -> float:
    """McClish's scale of an area, given as the mean TPR below `max_fpr`."""
    return (1 + (mean_tpr - max_fpr / 2) / (1 - max_fpr / 2)) / 2


def tpr_at_fpr(
    nominal: ArrayLike, anomalous: ArrayLike, fpr: float, nominal_weight: Weight = None, anomalous_weight: Weight = None
) -> Working:
    """Fraction of anomalies kept at the largest false-positive rate that is not above `fpr`.

    Args:
        nominal, anomalous, nominal_weight, anomalous_weight: as `auroc`.
        fpr: the target, between 0 and 1. A working point that fewer than ten nominal events lie above is not
            `resolvable`: its FPR, and so its TPR, is mostly chance.

    Raises:
        ValueError: as `auroc`, and if `fpr` is not between 0 and 1.

    Example:
        >>> working = tpr_at_fpr(range(100), [85, 95, 99.5], 0.1)
        >>> working.tpr, working.above, working.threshold
        (0.6666666666666666, 10, 89.0)
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"a false-positive rate lies between 0 and 1, not at {fpr}")
    return _ranks(nominal, anomalous, nominal_weight, anomalous_weight).at(fpr)


def sic(working: Working) -> float | None:
    """Significance improvement TPR / sqrt(FPR): by how much a cut raises signal / sqrt(background).

    None where fewer than 25 nominal events lie above the threshold: their number, and with it the background that is
    left, is then known to no better than 1 / sqrt(25) = 20 %.

    References:
        J. Gallicchio et al., Multivariate discrimination and the Higgs + W/Z search, JHEP 04 (2011) 069,
        arXiv:1010.3698

    Example:
        >>> sic(tpr_at_fpr(range(10_000), range(9_950, 10_050), 0.01))
        10.0
    """
    return working.tpr / working.fpr**0.5 if working.above >= SIC_FLOOR else None


def max_sic(
    nominal: ArrayLike, anomalous: ArrayLike, nominal_weight: Weight = None, anomalous_weight: Weight = None
) -> tuple[float, float] | None:
    """The largest significance improvement of any threshold, and the FPR there; see `sic`.

    Only thresholds count which 25 nominal events or more (with weights: that effective number) lie above; None if there
    are not so many. Being the largest of many noisy numbers it lies, on average, above the true one.

    Args, Raises: as `auroc`.

    Example:
        >>> max_sic(range(10_000), [9_950] * 10)
        (14.142135623730951, 0.005)
    """
    return _ranks(nominal, anomalous, nominal_weight, anomalous_weight).max_sic()


def sic_curve(
    nominal: ArrayLike,
    anomalous: ArrayLike,
    nominal_weight: Weight = None,
    anomalous_weight: Weight = None,
    points: int = 200,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """TPR, rising, and the significance improvement there, `(T,)` both, at most so many points; see `sic`.

    Of the thresholds that 25 nominal events or more lie above, evenly spaced in their order, and the best of all.

    Args, Raises: as `auroc`.

    Example:
        >>> tpr, sic = sic_curve(range(10_000), range(9_900, 9_980, 10), points=2)
        >>> tpr.tolist(), sic.round(2).tolist()
        ([0.125, 1.0], [2.28, 10.0])
    """
    found = _ranks(nominal, anomalous, nominal_weight, anomalous_weight).improvements
    tpr, sic = found.tpr, found.sic
    if len(tpr) > points:
        chosen, best = np.linspace(0, len(tpr) - 1, points).round().astype(int), sic.argmax()
        chosen[np.abs(chosen - best).argmin()] = best
        tpr, sic = tpr[chosen], sic[chosen]
    return tpr, sic


class Ranked:
    """The scores of a split, sorted once: every ranking metric, overall and per kind, and how well it is known.

    Args:
        scores: `(N,)`, larger is stranger.
        y: `(N,)`, 0 nominal, 1..K the kind of anomaly; rows labelled -1 are left out.
        kinds: names of the labels, `kinds[0]` the nominal one; a kind beyond them is named by its number.
        weight: `(N,)` event weights; None is one each. Rows of weight zero are left out.
        fprs: false-positive rates of the working points.
        max_fpr: of the partial AUROC.

    Raises:
        ValueError: if a score is NaN, a weight negative or not finite, or a false-positive rate out of its range.

    Example:
        >>> ranked = Ranked([0, 1, 2, 3], [0, 0, 1, 1])
        >>> ranked.metrics()["auroc"], ranked.intervals()["auroc"]
        (1.0, (0.20654931437723745, 1.0))
    """

    def __init__(
        self,
        scores: ArrayLike,
        y: ArrayLike,
        kinds: Sequence[str] = (),
        weight: Weight = None,
        *,
        fprs: Sequence[float] = FPRS,
        max_fpr: float = MAX_FPR,
    ) -> None:
        self.fprs, self.max_fpr = tuple(fprs), max_fpr
        for fpr in (*self.fprs, max_fpr):
            if not 0 < fpr <= 1:
                raise ValueError(f"a false-positive rate lies above 0, at most at 1, not at {fpr}")
        self._scores, self._y, self._kinds = np.asarray(scores), np.asarray(y), kinds
        if self._scores.ndim != 1 or self._scores.shape != self._y.shape:
            raise ValueError(
                f"scores and their labels must be two columns of one length, not of shape {self._scores.shape} "
                f"and {self._y.shape}"
            )
        self._weight = None
        if weight is not None:
            self._weight = weighed("all", weight, self._scores.shape)
            # hidden from the metrics like a row without a label
            self._y = np.where(self._weight > 0, self._y, -1)
        nominal, anomalous = self._y == 0, self._y > 0
        self.counts = {"nominal": int(nominal.sum()), "anomalous": int(anomalous.sum())}
        self._parts: dict[str, NDArray[np.bool_]] = {}
        if not self.counts["nominal"] or not self.counts["anomalous"]:
            return
        labels = np.flatnonzero(np.bincount(self._y[anomalous])).tolist()
        self._refuse_nans([0, *labels])
        self._parts[""] = anomalous
        if len(labels) > 1:
            self._parts |= {f"/{self._name(label)}": self._y == label for label in labels}
        self._low = self._column("nominal", nominal)

    def _name(self, label: int) -> str:
        return self._kinds[label] if label < len(self._kinds) else "nominal" if label == 0 else str(label)

    def _refuse_nans(self, labels: list[int]) -> None:
        if np.isfinite(self._scores.sum(dtype=np.float64)):
            return
        bad = np.isnan(self._scores)
        counts = [(self._name(label), int((bad & (self._y == label)).sum()), label) for label in labels]
        if said := [f"{n} of {int((self._y == label).sum())} scores of {name!r}" for name, n, label in counts if n]:
            raise ValueError(f"{', '.join(said)} are NaN")

    def _column(self, name: str, chosen: NDArray[np.bool_]) -> Column:
        return Column(name, self._scores[chosen], None if self._weight is None else self._weight[chosen])

    @cached_property
    def _ranks(self) -> dict[str, Ranks]:
        return {kind: Ranks(self._low, self._column("anomalous", part)) for kind, part in self._parts.items()}

    def metrics(self) -> dict[str, float]:
        """By name: overall, then per kind of anomaly against all nominal events as `NAME/KIND`.

        Returns:
            `auroc`, `ap`, `partial_auroc@fpr=F`, `tpr@fpr=F` and the (effective) number of nominal events above that
            threshold, `nominal_above@fpr=F`; `sic@fpr=F` where at least 25 are; `max_sic` and the `max_sic_fpr` that it
            is at. Per kind where there is more than one. `nominal` and `anomalous`, the counts. Where a side is empty
            only the counts.
        """
        found: dict[str, float] = dict(self.counts)
        for kind, ranks in self._ranks.items():
            found[f"auroc{kind}"] = ranks.auroc()
            found[f"ap{kind}"] = ranks.average_precision()
            area = ranks.area(self.max_fpr) / self.max_fpr
            found[f"partial_auroc@fpr={self.max_fpr:g}{kind}"] = _standardised(area, self.max_fpr)
            for fpr in self.fprs:
                working = ranks.at(fpr)
                found[f"tpr@fpr={fpr:g}{kind}"] = working.tpr
                if (improved := sic(working)) is not None:
                    found[f"sic@fpr={fpr:g}{kind}"] = improved
                if not kind:
                    found[f"nominal_above@fpr={fpr:g}"] = working.above
            if best := ranks.max_sic():
                found[f"max_sic{kind}"], found[f"max_sic_fpr{kind}"] = best
        return found

    def intervals(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """The interval of each of `auroc`, `ap`, `partial_auroc`, `tpr` and `sic`, by the same names.

        The largest SIC has none here, see `straylight.metrics.resampled`; nor has a TPR that is not resolvable.

        Raises:
            ValueError: if `level` is not between 0 and 1.
        """
        found = {}
        for kind, ranks in self._ranks.items():
            for name, interval in self._known(ranks, level):
                found[f"{name}{kind}"] = interval
        return found

    def _known(self, ranks: Ranks, level: float) -> Iterator[tuple[str, known.Interval]]:
        yield "auroc", known.around(ranks.auroc(), known.auroc_sides(ranks), level)
        yield "ap", known.around(ranks.average_precision(), known.ap_sides(ranks), level)
        mean_tpr = ranks.area(self.max_fpr) / self.max_fpr
        low, high = known.around(mean_tpr, known.area_sides(ranks, self.max_fpr), level)
        limits = _standardised(low, self.max_fpr), _standardised(high, self.max_fpr)
        yield f"partial_auroc@fpr={self.max_fpr:g}", limits
        for fpr in self.fprs:
            if (interval := known.tpr(ranks, fpr, level)) is None:
                continue
            yield f"tpr@fpr={fpr:g}", interval
            working = ranks.at(fpr)
            if sic(working) is not None:
                yield f"sic@fpr={fpr:g}", (interval[0] / working.fpr**0.5, interval[1] / working.fpr**0.5)


def ranking(
    scores: ArrayLike, y: ArrayLike, kinds: Sequence[str] = (), fprs: Sequence[float] = FPRS, weight: Weight = None
) -> dict[str, float]:
    """Every ranking metric of one split, by name; `Ranked(...).metrics()`.

    Example:
        >>> ranking([0, 1, 2, 3], [0, 0, 1, 1], fprs=(0.5,))["tpr@fpr=0.5"]
        1.0
    """
    return Ranked(scores, y, kinds, weight, fprs=fprs).metrics()
