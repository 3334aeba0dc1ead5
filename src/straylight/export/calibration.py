"""Calibration scores, few enough to be written down, and the p-values that they give.

`n` calibration events; `N` events to judge.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from straylight.metrics.conformal import Calibration

#: Different scores that are kept, whatever they are; beyond them as many as keep p-values this near.
KEPT, ACCURACY = 10_000, 1e-3


def written(scores: ArrayLike, weight: ArrayLike | None = None, *, most: int = KEPT) -> dict[str, Any]:
    """Calibration scores as plain values, from which `p_values` has what `Calibration` has.

    Up to `most` different scores are all kept. Of more, those are kept at which the number of scores above falls by a
    tenth of a per cent, so that a p-value is never below the exact one, and never more than that above it.

    Args:
        scores, weight: of nominal events, see `Calibration`.
        most: see above.

    Returns:
        `n`, the events or their effective number; `scores`, in increasing order; `above`, how many lie above each;
        `accuracy`, by how much of itself a p-value may be too large.

    Raises:
        ValueError: if there is no score, or one is NaN.

    Example:
        >>> kept = written([3.0, 1.0, 2.0, 2.0])
        >>> kept["scores"], kept["above"], p_values(kept, [0.5, 2.0, 9.0]).tolist()
        ([1.0, 2.0, 3.0], [3.0, 1.0, 0.0], [1.0, 0.8, 0.2])
    """
    calibration = Calibration(scores, weight)
    values = np.unique(np.asarray(scores, dtype=np.float64))
    # one more than are above, from the p-value of what is just larger
    above = calibration.p_values(np.nextafter(values, np.inf)) * (calibration.n + 1) - 1
    above = above if calibration.weighted else above.round()
    accuracy = 0.0
    if len(values) > most:
        accuracy = ACCURACY
        alike = np.floor(np.log1p(above) / np.log1p(ACCURACY))  # of each such sort the one with most above is kept
        first = np.r_[True, alike[1:] != alike[:-1]]
        values, above = values[first], above[first]
    return {"n": float(calibration.n), "scores": values.tolist(), "above": above.tolist(), "accuracy": accuracy}


def p_values(kept: Mapping[str, Any], scores: ArrayLike) -> NDArray[np.float64]:
    """P-values of new scores, `(N,)`, by what `written` gave: (1 + calibration scores no smaller) / (n + 1).

    Raises:
        ValueError: if a score is NaN.
    """
    new = np.asarray(scores, dtype=np.float64)
    if nans := int(np.isnan(new).sum()):
        raise ValueError(f"{nans} of {new.size} scores are NaN and have no p-value")
    no_smaller = np.r_[kept["n"], kept["above"]][np.searchsorted(kept["scores"], new, "left")]
    return np.minimum((1 + no_smaller) / (kept["n"] + 1), 1.0)
