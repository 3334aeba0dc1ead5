"""Wilcoxon's signed-rank test and Friedman's test, whole tables of them in milliseconds."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, ndtr

EXACT = 50  # differences up to which the law of the statistic is counted out


def ranked(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1, ascending, ties share their mean.

    Example:
        >>> ranked([0.3, 0.1, 0.3]).tolist()
        [2.5, 1.0, 2.5]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place.ravel()]


def wilcoxon(differences: ArrayLike) -> float:
    """The two-sided p of the hypothesis that paired differences are symmetric about zero; those of zero are left out.

    Up to 50 differences it is exact, ties among their sizes or not: every sign is as likely as its opposite, and all
    2^n choices are counted. Beyond that the normal law is taken, with the variance that ties leave.

    References:
        F. Wilcoxon, Individual comparisons by ranking methods, Biometrics Bull. 1 (1945) 80, doi:10.2307/3001968

    Args:
        differences: `(n,)`.

    Example:
        >>> wilcoxon([1, 2, 3, 4, 5, 6]), wilcoxon([0, 0])
        (0.03125, 1.0)
    """
    given = np.asarray(differences, np.float64)
    given = given[given != 0]
    n = len(given)
    if not n:
        return 1.0
    ranks = ranked(np.abs(given))
    positive = float(ranks[given > 0].sum())
    if n > EXACT:
        spread = np.sqrt((ranks**2).sum() / 4)
        return float(min(1.0, 2 * ndtr(-abs(positive - ranks.sum() / 2) / spread)))
    law = _law(tuple((2 * np.sort(ranks)).astype(int).tolist()))
    place = round(2 * positive)
    return float(min(1.0, 2 * min(law[: place + 1].sum(), law[place:].sum())))


@lru_cache(maxsize=256)
def _law(doubled: tuple[int, ...]) -> NDArray[np.float64]:
    """The probability of each sum of twice the ranks that have a positive sign."""
    law = np.ones(1)
    for rank in doubled:
        law = (np.pad(law, (0, rank)) + np.pad(law, (rank, 0))) / 2
    return law


def friedman(table: ArrayLike) -> float:
    """Friedman's p of the hypothesis that the columns of a table are alike, by the chi-squared law, corrected for ties.

    References:
        M. Friedman, J. Am. Stat. Assoc. 32 (1937) 675, doi:10.1080/01621459.1937.10503522

    Args:
        table: `(n, k)`, k at least 2.

    Example:
        >>> round(friedman([[1, 2, 3], [1, 2, 3], [1, 3, 2], [1, 2, 3]]), 4)
        0.0388
    """
    ranks = np.apply_along_axis(ranked, 1, np.asarray(table, np.float64))
    n, k = ranks.shape
    spread = (ranks**2).sum() - n * k * (k + 1) ** 2 / 4  # what ties leave of it
    if spread <= 0:
        return 1.0
    between = ((ranks.sum(0) - n * (k + 1) / 2) ** 2).sum()
    return float(chdtrc(k - 1, (k - 1) * between / spread))
