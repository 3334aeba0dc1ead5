"""Thresholds on the rows that train: each judged by a detector that was fitted without it.

`n` training rows in `K` folds; `N` events to judge.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from straylight.metrics.conformal import ROUNDING, benjamini_hochberg, needed
from straylight.metrics.decisions import decisions
from straylight.metrics.ranks import Column, Weight
from straylight.metrics.rules import JOINTLY, Entry, Rule


class CrossCalibration:
    """K-fold cross-conformal p-values: training rows calibrate, where too few others are left to.

    p(x) = (1 + sum over folds k of #{i in k: s_k(i) >= s_k(x)}) / (n + 1), with s_k the score of a detector fitted to
    all folds but k, so that both scores of a pair are of a detector that has seen neither.

    Of an event that is exchangeable with the training rows, P(p <= a) <= 2 a + e, e = min(2 (1 - 1/K) / (n/K + 1),
    (1 - K/n) / (K + 1)), whatever the detector and the law; with K = n, the jackknife+, P(p <= a) <= 2 a. (For folds of
    one size; that is at most 2 a + sqrt(2/n).) The factor of two is for detectors that a few rows change beyond
    recognition: for others P(p <= a) is near a. Split calibration, which promises a, is to be preferred where there are
    rows enough.

    References:
        V. Vovk, Cross-conformal predictors, Ann. Math. Artif. Intell. 74 (2015) 9, doi:10.1007/s10472-013-9368-4
        R. F. Barber, E. J. Candès, A. Ramdas, R. J. Tibshirani, Predictive inference with the jackknife+, Ann. Stat. 49
        (2021) 486, arXiv:1905.02928, theorems 1 and 4

    Args:
        scores: of the rows of each fold, by the detector that was fitted without them, `(n_k,)` each.

    Raises:
        ValueError: if there are fewer than two folds, a fold is empty, or a score is NaN.

    Example:
        >>> calibration = CrossCalibration([[1, 2], [3, 4]])
        >>> calibration.p_values([[2.5, 9.0], [3.5, 9.0]]).tolist()
        [0.4, 0.2]
    """

    def __init__(self, scores: Sequence[ArrayLike]) -> None:
        if len(scores) < 2:
            raise ValueError(f"cross-conformal calibration takes two folds or more, not {len(scores)}")
        self._columns = [Column("out-of-fold", fold) for fold in scores]
        self.folds, self.n = len(scores), sum(column.n for column in self._columns)

    def p_values(self, scores: Sequence[ArrayLike]) -> NDArray[np.float64]:
        """Of new events, given their scores by the detector of each fold, K times `(N,)` to `(N,)`.

        Raises:
            ValueError: if there are not as many folds, or a score is NaN.
        """
        new = [np.asarray(fold) for fold in scores]
        if len(new) != self.folds:
            raise ValueError(f"new scores are of {len(new)} folds, and those that calibrate of {self.folds}")
        if nans := sum(int(np.isnan(fold).sum()) for fold in new):
            raise ValueError(f"{nans} of {sum(map(len, new))} scores are NaN and have no p-value")
        pairs = zip(self._columns, new, strict=True)
        above = sum(column.above(np.searchsorted(column.values, fold, "left")) for column, fold in pairs)
        return np.asarray((1 + above) / (self.n + 1))

    def guaranteed(self, fpr: float) -> float:
        """The largest P(p <= a) that exchangeable rows allow, at most 1.

        Example:
            >>> round(CrossCalibration([[0.0] * 40] * 10).guaranteed(0.05), 4)
            0.1439
        """
        n, k = self.n, self.folds
        return min(1.0, 2 * fpr + min(2 * (1 - 1 / k) / (n / k + 1), (1 - k / n) / (k + 1)))


class CrossCuts:
    """What each rule comes to by out-of-fold scores, and what it does to test rows; as `straylight.metrics.rules.Cuts`.

    An event is flagged at a false-positive rate a if p <= a: it has a score for each fold, and there is no one number
    that a score must exceed.

    Args:
        rules: which are asked for.
        scores: see `CrossCalibration`.

    Attributes:
        calibration: of the training rows.
        entries: one for each rule: `rule`, `asked`, `value` (always None), `calibration`, the number of training rows,
            `folds`, the `fpr` that it comes to, `expected_fpr`, `guaranteed_fpr` and `remark`.

    Example:
        >>> from straylight.metrics.rules import rules
        >>> cuts = CrossCuts(rules(quantile=None, fprs=[0.25], fdr=None), [[1, 2], [3, 4]])
        >>> cuts.applied([[2.5, 9.0], [3.5, 9.0]], [0, 1])[0]["confusion"]
        [[1, 0], [0, 1]]
    """

    def __init__(self, rules: Sequence[Rule], scores: Sequence[ArrayLike]) -> None:
        self.calibration = CrossCalibration(scores)
        self._rules = tuple(rules)
        self.entries = [self._entry(rule) for rule in rules]

    def _entry(self, rule: Rule) -> Entry:
        n = self.calibration.n
        entry: Entry = {"rule": rule.name, "asked": rule.asked, "value": None, "calibration": n}
        entry["folds"] = self.calibration.folds
        if rule.name == "f1":
            return entry | {
                "remark": "not set: the best F1 is chosen on validation, without callbacks.thresholds.cross."
            }
        said = [f"By {n:,} training rows, each scored by a fit without its fold, of {entry['folds']}."]
        if rule.fpr is None:
            return entry | {"remark": " ".join([*said, JOINTLY, "Of such p-values the rate is not guaranteed."])}
        entry["fpr"] = rule.fpr
        entry["expected_fpr"] = min(math.floor(rule.fpr * (n + 1) * ROUNDING), n) / (n + 1)
        entry["guaranteed_fpr"] = self.calibration.guaranteed(rule.fpr)
        if rule.name == "rate":
            entry |= {"accept_hz": rule.asked["accept_hz"]}
            entry["expected_hz"] = entry["expected_fpr"] * rule.asked["input_hz"]
        if entry["expected_fpr"]:
            said.append(
                f"The FPR is near the expected one, and at most {entry['guaranteed_fpr']:.3g} on average over samples, "
                "of events that are exchangeable with these rows."
            )
        else:
            said.append(f"Nothing may be flagged at an FPR of {rule.fpr:.6g}: it takes {needed(rule.fpr):,} of them.")
        return entry | {"remark": " ".join(said)}

    def applied(
        self, scores: Sequence[ArrayLike], y: ArrayLike, kinds: Sequence[str] = (), weight: Weight = None
    ) -> list[Entry]:
        """The entries and what `decisions` finds of each on test rows.

        Args:
            scores: of the test rows by the detector of each fold, K times `(N,)`.
            y, kinds, weight: see `decisions`.

        Raises:
            ValueError: if a score is NaN.
        """
        p = self.calibration.p_values(scores)
        return [
            entry | self._met(rule, entry, p, y, kinds, weight)
            for rule, entry in zip(self._rules, self.entries, strict=True)
        ]

    def flagged(self, rule: Rule, p: NDArray[np.float64]) -> NDArray[np.bool_] | None:
        """Which p-values a rule flags; None where it sets nothing."""
        if rule.name == "fdr":
            return benjamini_hochberg(p, rule.asked["fdr"])
        return None if rule.fpr is None else np.asarray(p <= rule.fpr * ROUNDING)

    def _met(
        self, rule: Rule, entry: Entry, p: NDArray[np.float64], y: ArrayLike, kinds: Sequence[str], weight: Weight
    ) -> dict[str, Any]:
        flagged = self.flagged(rule, p)
        if flagged is None:
            return {}
        found = decisions(flagged, y, kinds, weight, one_by_one=rule.name != "fdr")
        if rule.name == "rate" and found.get("observed_fpr") is not None:
            found["observed_hz"] = found["observed_fpr"] * rule.asked["input_hz"]
        found.pop("nominal", None)
        return found
