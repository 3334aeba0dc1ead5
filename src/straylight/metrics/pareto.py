"""Which of several detectors no other beats in both cost and quality."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_front(cost: ArrayLike, quality: ArrayLike) -> NDArray[np.intp]:
    """Positions of the points that no other point beats, from the cheapest to the dearest.

    A point is beaten by one that costs no more and is no worse, and is better in at least one of the two.

    Args:
        cost: `(N,)`, smaller is better, e.g. the latency in microseconds.
        quality: `(N,)`, larger is better, e.g. the AUROC. Points with a NaN in either are left out.

    Example:
        >>> pareto_front([1, 2, 3], [0.8, 0.7, 0.9]).tolist()
        [0, 2]
    """
    cost, quality = np.asarray(cost, float), np.asarray(quality, float)
    known = np.flatnonzero(~np.isnan(cost) & ~np.isnan(quality))
    order = known[np.lexsort((-quality[known], cost[known]))]
    front: list[int] = []
    for i in order:
        best = front[-1] if front else i
        if not front or quality[i] > quality[best] or (cost[i], quality[i]) == (cost[best], quality[best]):
            front.append(int(i))
    return np.array(front, dtype=np.intp)
