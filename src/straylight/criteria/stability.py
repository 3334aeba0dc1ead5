"""Whether a detector ranks rows as another does that has seen other rows, or been drawn otherwise.

`n` rows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from straylight.metrics.intervals import z_of
from straylight.metrics.signed_ranks import ranked

Interval = tuple[float, float]


def stability(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> tuple[float, Interval | None]:
    """Spearman's rank correlation of two sets of scores of the same rows, and its interval.

    The interval is Fisher's, with the error of Bonett and Wright. Scores that are all equal rank nothing: 0.

    References:
        D. G. Bonett, T. A. Wright, Sample size requirements for estimating Pearson, Kendall and Spearman correlations,
        Psychometrika 65 (2000) 23, doi:10.1007/BF02294183

    Args:
        first, second: scores, `(n,)` each.
        level: of the interval.

    Returns:
        no interval of fewer than four rows.

    Raises:
        ValueError: if there are not two rows or more with two scores each, or a score is NaN.

    Example:
        >>> stability([1, 2, 3, 4], [10, 20, 40, 30])[0]
        0.8
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != other.shape or one.ndim != 1 or len(one) < 2 or np.isnan(one).any() or np.isnan(other).any():
        raise ValueError(f"rankings of the same two rows or more are compared, not of {one.shape} and {other.shape}")
    a, b = (ranks - ranks.mean() for ranks in (ranked(one), ranked(other)))
    size = math.sqrt(float(a @ a) * float(b @ b))
    value = float(np.clip(a @ b / size, -1, 1)) if size else 0.0
    if len(one) < 4:
        return value, None
    if abs(value) == 1:
        return value, (value, value)
    reach = z_of(level) * math.sqrt((1 + value**2 / 2) / (len(one) - 3))
    low, high = (math.tanh(math.atanh(value) + sign * reach) for sign in (-1, 1))
    return value, (low, high)
