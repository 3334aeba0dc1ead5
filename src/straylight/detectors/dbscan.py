"""Distance to the nearest core point of DBSCAN's clusters.

Shapes: `B` events, `N` training rows, `D` features.
"""

import math
from typing import Any

import torch
from torch import Tensor

from straylight import checks
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.parts import Parts, nearest_parts
from straylight.errors import DataError
from straylight.nn import Neighbours


class DBSCAN(FittedDetector):
    """Distance to the nearest core point: a training row with `min_samples` rows, itself included, within eps.

    An event nearer than eps would join a cluster, one farther would be noise. Which rows are core points takes no
    clustering, only the distance of each to its neighbours, so the search is that of `KNN`: exact, in bounded memory,
    on the device. Where eps is not given it is a quantile of the rows' distances to their `min_samples`-th neighbour,
    for which the paper looks at a plot. Assumes features of comparable scale. Event weights are not read.

    References:
        M. Ester, H.-P. Kriegel, J. Sander, X. Xu, A density-based algorithm for discovering clusters in large spatial
        databases with noise, KDD 1996, 226

    Args:
        eps: in scaled units; `None` takes the quantile.
        quantile: the fraction of training rows that are core points where eps is not given.
        min_samples: see above.
        max_rows: more training rows than these are drawn from by seed, and a notice says so; `None` takes all.
        shape, common: see `FittedDetector`; events are flattened.

    Raises:
        DataError: in training, if no row is a core point.

    Example:
        >>> dbscan = DBSCAN((1,), eps=1.0, min_samples=2, scaling="none")
        >>> dbscan.fit(torch.tensor([[0.], [1.], [9.]]), torch.zeros(3, 0), torch.ones(3))
        >>> dbscan(torch.tensor([[9.]]))  # whose neighbour is alone
        tensor([8.])
    """

    eps: Tensor
    why_fewer = "its cost grows with their square (detector.max_rows)"

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        eps: float | None = None,
        quantile: float = 0.9,
        min_samples: int = 5,
        max_rows: int | None = 50_000,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        checks.positive("detector", also="null", eps=eps)
        checks.above("detector", 0, 1, quantile=quantile)
        checks.counts("detector", min_samples=min_samples)
        checks.counts("detector", also="null", max_rows=max_rows)
        self.given, self.quantile, self.min_samples, self.max_rows = eps, quantile, min_samples, max_rows
        self.cores = Neighbours(math.prod(self.shape), budget_mb=self.budget_mb)
        self.register_buffer("eps", torch.tensor(math.nan))

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        self.no_weights(weight)
        (rows,) = self.kept(x.flatten(1))
        k = min(self.min_samples, len(rows))
        if k < self.min_samples:
            self.notice(f"DBSCAN has {k} training rows for detector.min_samples={self.min_samples} and takes {k}.")
        self.expect(2.0 * len(rows) ** 2 * rows.shape[1], "lower detector.max_rows")
        radius = self.cores.fit(rows)(rows, k)[:, -1]  # the first neighbour is the row itself
        eps = radius.double().quantile(self.quantile) if self.given is None else torch.tensor(self.given)
        self.eps = eps.to(self.eps)
        core = radius <= eps
        if not core.any():
            raise DataError(
                f"DBSCAN finds no core point: no training row has {k} within detector.eps={self.given}; the closest "
                f"are within {float(radius.min()):.3g}."
            )
        self.cores.fit(rows[core])

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        return self.cores(x.flatten(1), 1)[:, 0]

    def parts(self, x: Tensor, context: Tensor) -> Parts | None:
        return nearest_parts(self.cores, x, 1, first=0)
