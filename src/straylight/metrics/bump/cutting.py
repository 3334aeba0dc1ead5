"""A cut on the score that keeps a fraction of each fold.

`N` events.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def places(score: ArrayLike, fold: ArrayLike, seed: int = 0) -> NDArray[np.float64]:
    """What fraction of its fold is as strange as an event or stranger, itself counted half, `(N,)`, below 1.

    A cut of efficiency e keeps those below e: of n events of a fold, as near to e n as whole events come. So it is
    fixed beforehand, scores of different models need not be of one scale, and cuts of several efficiencies are nested.
    Equal scores, of which trees give many, are ordered by chance: in the order of the rows they may be sorted.

    Args:
        score: larger is stranger, `(N,)`.
        fold: of each event, `(N,)`.
        seed: of the order of equal scores.

    Raises:
        ValueError: if a score is NaN.

    Example:
        >>> places([0.1, 0.9, 0.5, 7.0, 8.0], [0, 0, 0, 1, 1]).round(2).tolist()
        [0.83, 0.17, 0.5, 0.75, 0.25]
    """
    values, of = np.asarray(score), np.asarray(fold)
    if bad := int(np.isnan(values).sum()):
        raise ValueError(f"{bad:,} of {len(values):,} scores are NaN")
    chance = np.random.default_rng(seed).random(len(values))
    order = np.lexsort((chance, -values, of))
    _, first, size = np.unique(of[order], return_index=True, return_counts=True)
    found = np.empty(len(values))
    found[order] = (np.arange(len(values)) - np.repeat(first, size) + 0.5) / np.repeat(size, size)
    return found
