"""Whether a classifier can tell two sets of rows apart.

`n` rows of each set, `D` features.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from straylight.metrics.intervals import around, auroc_sides
from straylight.metrics.ranks import Column, Ranks

FEATURES = 100  # more are compared by half as many principal components
LEAST = 50  # rows of each set


class TwoSample(NamedTuple):
    """What a classifier made of two sets.

    Attributes:
        auroc: 0.5 where they cannot be told apart.
        interval: of 95 %, with DeLong's error.
        rows: of each set.
        components: principal components that were compared; `None` for the features themselves.
    """

    auroc: float
    interval: tuple[float, float]
    rows: int
    components: int | None = None


def two_sample(first: ArrayLike, second: ArrayLike, *, seed: int = 0, threads: int = 1) -> TwoSample:
    """The AUROC by which boosted trees tell the second set from the first on rows that they were not fitted to.

    Rows are halved by seed; trees are fitted to one half and rank the other. (The mean over both ways would be no
    better known: what sets the halves apart by chance, and no more, makes both errors one.) Row i of both sets goes
    into the same half, so that pairs, such as an event and a sample with the same context, do not leak. A value that is
    not finite is a value of its own. Trees see wrong margins and wrong dependence alike, whatever the units.

    References:
        D. Lopez-Paz, M. Oquab, Revisiting classifier two-sample tests, ICLR 2017, arXiv:1610.06545
        E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Comparing the areas under two or more correlated receiver
        operating characteristic curves: a nonparametric approach, Biometrics 44 (1988) 837, doi:10.2307/2531595

    Args:
        first, second: rows, `(n, D)` each.
        seed: of the halves.
        threads: that the trees may use.

    Raises:
        ValueError: if the shapes differ, or there are fewer than 50 rows of each.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = two_sample(rng.normal(size=(500, 2)), rng.normal(1, 1, (500, 2)))
        >>> found.interval[0] > 0.75
        True
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    pair = [np.asarray(rows, dtype=np.float64) for rows in (first, second)]
    if pair[0].ndim != 2 or pair[0].shape != pair[1].shape:
        raise ValueError(f"two sets of rows must be of one shape (n, D), not {pair[0].shape} and {pair[1].shape}")
    n, features = pair[0].shape
    if n < LEAST or not features:
        raise ValueError(f"a classifier needs {LEAST} rows or more of each set, and a feature, not {n} and {features}")
    pair = [np.where(np.isfinite(rows), rows, np.nan) for rows in pair]
    components = FEATURES // 2 if features > FEATURES else None
    if components:
        pair = _projected(pair, components)
    half = np.random.default_rng(seed).permutation(n) % 2 == 0
    with threadpool_limits(threads):
        trees = HistGradientBoostingClassifier(early_stopping=False, random_state=seed % 2**32)
        trees.fit(np.concatenate([rows[half] for rows in pair]), np.repeat([0, 1], int(half.sum())))
        scores = [trees.decision_function(rows[~half]) for rows in pair]
    ranks = Ranks(*(Column(name, found) for name, found in zip(("first", "second"), scores, strict=True)))
    area = ranks.auroc()
    return TwoSample(area, around(area, auroc_sides(ranks)), n, components)


def _projected(pair: list[NDArray[np.float64]], components: int) -> list[NDArray[np.float64]]:
    """Both sets along the directions in which all rows together vary most."""
    together = np.nan_to_num(np.concatenate(pair))
    centre = together.mean(0)
    _, directions = np.linalg.eigh(np.cov(together - centre, rowvar=False))
    return [(np.nan_to_num(rows) - centre) @ directions[:, ::-1][:, :components] for rows in pair]
