"""Distance to the nearest training rows."""

import math
from typing import Any, Literal

from torch import Tensor

from straylight import checks
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.parts import Parts, nearest_parts
from straylight.errors import DataError
from straylight.nn import Neighbours
from straylight.nn.neighbours import Metric

Distance = Literal["mean", "kth"]


class KNN(FittedDetector):
    """Mean distance to the k nearest training rows, or that to the k-th: exact, batched, in bounded memory.

    Assumes features of comparable scale and a distance that means something in all of them together. Event weights
    are not read.

    References:
        S. Ramaswamy, R. Rastogi, K. Shim, Efficient algorithms for mining outliers from large data sets, SIGMOD 2000,
        doi:10.1145/342009.335437 (k-th neighbour)
        F. Angiulli, C. Pizzuti, Fast outlier detection in high dimensional spaces, PKDD 2002,
        doi:10.1007/3-540-45681-3_2 (mean)

    Args:
        k: neighbours.
        distance: `mean` or `kth`.
        metric: `euclidean`, `manhattan` or `cosine`.
        shape, common: see `FittedDetector`; events are flattened.

    Raises:
        DataError: in training, if there are fewer rows than k.

    Example:
        >>> import torch
        >>> knn = KNN((1,), k=1, scaling="none")
        >>> knn.fit(torch.tensor([[0.], [10.]]), torch.zeros(2, 0), torch.ones(2))
        >>> knn(torch.tensor([[3.], [12.]]))
        tensor([3., 2.])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        k: int = 5,
        distance: Distance = "mean",
        metric: Metric = "euclidean",
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", k=k)
        checks.one_of("detector", Distance, distance=distance)
        self.k, self.distance = k, distance
        self.neighbours = Neighbours(math.prod(self.shape), metric, self.budget_mb)

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        if len(x) < self.k:
            raise DataError(f"detector.k={self.k} neighbours cannot be found among {len(x)} training rows; lower it.")
        self.no_weights(weight)
        self.expect(2.0 * len(x) * x.numel(), "that is to score as many events again; take fewer training rows")
        self.neighbours.fit(x.flatten(1))

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        near = self.neighbours(x.flatten(1), self.k)
        return near[:, -1] if self.distance == "kth" else near.mean(1)

    def parts(self, x: Tensor, context: Tensor) -> Parts | None:
        return nearest_parts(self.neighbours, x, self.k, first=self.k - 1 if self.distance == "kth" else 0)
