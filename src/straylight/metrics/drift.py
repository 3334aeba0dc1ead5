"""Whether new scores are like those that thresholds were set on.

`n` calibration scores of nominal events, `N` new scores.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import kolmogorov

from straylight.metrics.conformal import ROUNDING

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75)  # of p-values, which nominal events have at these shares
LEVEL = 0.01  # below which a difference is none of chance
SHARE = 0.1  # of rows that may differ before thresholds are doubted


class Drift(NamedTuple):
    """How new scores lie beside those of calibration rows.

    Attributes:
        rows: N.
        calibration: n; with weights their effective number.
        above: the largest excess of new scores that are strange, sup (F_calibration - F_new): no fewer than this share
            of the new events is not nominal, or is nominal no more.
        below: the largest excess of ordinary ones, sup (F_new - F_calibration), which no anomaly explains.
        p_value: of Kolmogorov and Smirnov's two-sample test.
        quantiles: which share of new events has a p-value of at most 0.01, 0.05, ...; of nominal events it is that.
    """

    rows: int
    calibration: float
    above: float
    below: float
    p_value: float
    quantiles: dict[float, float]

    def sentence(self) -> str:
        """Whether thresholds still mean what they say."""
        if self.p_value >= LEVEL:
            return (
                f"No drift: the {self.rows:,} scores lie as those of {self.calibration:,.0f} calibration rows do "
                f"(Kolmogorov-Smirnov p = {self.p_value:.2g}), so that thresholds mean what they say."
            )
        if self.below > SHARE:
            return (
                f"Drift: {self.below:.0%} more of the {self.rows:,} rows than of calibration rows are ordinary, which "
                "no anomaly explains; thresholds do not mean what they say: calibrate on rows of now."
            )
        if self.above > SHARE:
            return (
                f"Drift, or many anomalies: at least {self.above:.0%} of the {self.rows:,} rows are stranger than "
                "calibration rows are; unless so many are anomalous, thresholds flag more nominal rows than they say."
            )
        return (
            f"The {self.rows:,} scores differ from those of calibration rows as if {max(self.above, self.below):.1%} "
            "of them were other rows, which may be anomalies; for the others thresholds mean what they say."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **self._asdict(),
            "quantiles": {f"{at:g}": share for at, share in self.quantiles.items()},
            "sentence": self.sentence(),
        }


class Compared:
    """Counts new scores between those of calibration, a part at a time, in memory that grows with n alone.

    References:
        N. Smirnov, Table for estimating the goodness of fit of empirical distributions, Ann. Math. Stat. 19 (1948) 279,
        doi:10.1214/aoms/1177730256
        S. Bates et al., Testing for outliers with conformal p-values, Ann. Stat. 51 (2023) 149, arXiv:2104.08279

    Args:
        calibration: `(n,)`, without a NaN.
        weight: `(n,)`; None is one each.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> compared = Compared(rng.normal(size=2000))
        >>> compared.add(rng.normal(size=2000)); compared.drift().p_value > 0.01
        True
        >>> compared.add(rng.normal(3, 1, 8000)); round(compared.drift().above, 1)
        0.7
    """

    def __init__(self, calibration: ArrayLike, weight: ArrayLike | None = None) -> None:
        scores = np.asarray(calibration)
        scores = scores if scores.dtype == np.float32 else scores.astype(np.float64)
        order = np.argsort(scores, kind="stable")
        weights = np.ones(len(scores)) if weight is None else np.asarray(weight, dtype=np.float64)
        self._values, first = np.unique(scores[order], return_index=True)
        self._weights = np.add.reduceat(weights[order], first)
        self._n = float(weights.sum() ** 2 / (weights**2).sum())
        self._between = np.zeros(2 * len(self._values) + 1, dtype=np.int64)  # below, at, between, at, ..., above

    def add(self, scores: NDArray[Any]) -> None:
        """Count some more new scores; a NaN is none."""
        new = np.asarray(scores)
        if (gone := np.isnan(new)).any():
            new = new[~gone]
        new = new.astype(np.promote_types(new.dtype, self._values.dtype), copy=False)
        left = np.searchsorted(self._values, new, "left")
        at = left < len(self._values)
        at[at] = self._values[left[at]] == new[at]
        self._between += np.bincount(2 * left + at, minlength=len(self._between))

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many new scores lie below, at, between, at, ..., and above the values of calibration."""
        return self._between

    def take(self, counts: NDArray[np.int64]) -> None:
        """Add the counts of another that compares with the same calibration scores."""
        self._between += counts

    def drift(self) -> Drift | None:
        """What there is to say; `None` without a new score."""
        rows = int(self._between.sum())
        if not rows:
            return None
        new = np.cumsum(self._between) / rows
        before, after = new[:-1:2], new[1::2]  # shares below each calibration score, and at or below it
        known = np.cumsum(self._weights) / self._weights.sum()
        known_before = np.concatenate([[0.0], known[:-1]])
        # between two calibration scores theirs is constant, and the other one grows: its ends are extreme
        above = float(max(0.0, (known - after).max()))
        below = float(max(0.0, (after - known).max(), (before - known_before).max()))
        size = np.sqrt(self._n * rows / (self._n + rows))
        p_value = float(kolmogorov(size * max(above, below)))
        # the p-value of a score at or below calibration score i is (1 + what lies at or above it) / (n + 1)
        p = (1 + (self._n * (1 - known_before)).round(9)) / (self._n + 1)
        shares = {}
        for at in QUANTILES:
            first = int(np.argmax(p <= at * ROUNDING)) if (p <= at * ROUNDING).any() else len(p)
            below_it = 0 if first == 0 else int(self._between[: 2 * first].sum())
            shares[at] = (rows - below_it) / rows if 1 / (self._n + 1) <= at * ROUNDING else 0.0
        return Drift(rows, self._n, above, below, p_value, shares)
