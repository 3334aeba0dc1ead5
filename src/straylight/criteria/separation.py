"""How well scores tell rows from anomalies that were made of them.

`n` rows, `K` kinds of anomaly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from straylight.metrics.intervals import Interval, around, auroc_sides
from straylight.metrics.ranks import Column, Ranks


class Separation(NamedTuple):
    """AUROCs, each with its interval.

    Attributes:
        mean: over kinds.
        interval: of the mean.
        kinds: of each kind.
        intervals: of each.
    """

    mean: float
    interval: Interval
    kinds: dict[str, float]
    intervals: dict[str, Interval]


def separation(
    rows: ArrayLike, anomalies: Mapping[str, ArrayLike], weight: ArrayLike | None = None, level: float = 0.95
) -> Separation:
    """AUROC of rows against each kind of anomaly, and the mean of these.

    The mean is the AUROC against all of them together, each kind of equal weight, and its interval is DeLong's of that.

    Args:
        rows: scores, `(n,)`.
        anomalies: scores by kind.
        weight: of the rows, `(n,)`; one if left out.
        level: of the intervals.

    Raises:
        ValueError: if there is no row or no anomaly, or a score is NaN.

    Example:
        >>> found = separation([1.0, 2.0, 3.0], {"far": [9.0, 8.0], "near": [2.5, 0.5]})
        >>> found.kinds, round(found.mean, 4)
        ({'far': 1.0, 'near': 0.3333333333333333}, 0.6667)
    """
    nominal = Column("row", rows, weight)
    found = {kind: Ranks(nominal, Column(kind, scores)) for kind, scores in anomalies.items()}
    kinds = {kind: ranks.auroc() for kind, ranks in found.items()}
    intervals = {kind: around(kinds[kind], auroc_sides(ranks), level) for kind, ranks in found.items()}
    sizes = [ranks.high.n for ranks in found.values()]
    share = np.repeat([max(sizes, default=1) / size for size in sizes], sizes)
    together = np.concatenate([np.empty(0), *(np.asarray(scores, np.float64) for scores in anomalies.values())])
    ranks = Ranks(nominal, Column("anomaly", together, share))
    mean = ranks.auroc()
    return Separation(mean, around(mean, auroc_sides(ranks), level), kinds, intervals)
