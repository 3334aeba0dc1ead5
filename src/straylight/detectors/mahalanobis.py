"""Mahalanobis distance.

Shapes: `B` events, `D` features.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from straylight import checks
from straylight.detectors.moments import Moments, resolution
from straylight.nn.sums import Sums


class Mahalanobis(Moments):
    """Squared distance from the training rows' mean, in units of their shrunk covariance.

    (x - m)^T S^-1 (x - m), with S = (1 - a) C + a tr(C)/D I. Shrinkage a keeps S invertible where there are few rows
    or many features. Assumes one cloud of roughly elliptic shape.

    References:
        P. C. Mahalanobis, On the generalised distance in statistics, Proc. Nat. Inst. Sci. India 2 (1936) 49
        O. Ledoit, M. Wolf, A well-conditioned estimator for large-dimensional covariance matrices, J. Multivar. Anal.
        88 (2004) 365, doi:10.1016/S0047-259X(03)00096-4

    Args:
        shrinkage: a, between 0 and 1, or `ledoit_wolf`, which chooses it.
        shape, common: see `FittedDetector`; events are flattened.

    Example:
        >>> distance = Mahalanobis((2,), shrinkage=0.0, scaling="none")
        >>> distance.fit(torch.tensor([[-2., 0.], [2., 0.], [0., 1.], [0., -1.]]), torch.zeros(4, 0), torch.ones(4))
        >>> distance(torch.tensor([[2., 0.], [0., 2.]]))
        tensor([2., 8.])
    """

    def __init__(
        self, shape: tuple[int, ...], *, shrinkage: float | Literal["ledoit_wolf"] = "ledoit_wolf", **common: Any
    ) -> None:
        super().__init__(shape, **common)
        checks.between("detector", 0, 1, also="ledoit_wolf", shrinkage=shrinkage)
        self.shrinkage = shrinkage

    def solve(self, sums: Sums) -> Tensor:
        covariance = sums.covariance
        a = sums.ledoit_wolf() if self.shrinkage == "ledoit_wolf" else float(self.shrinkage)
        shrunk = (1 - a) * covariance
        shrunk.diagonal().add_(a * covariance.trace() / self.features)
        variances, vectors = torch.linalg.eigh(shrunk)
        return vectors / variances.clamp_min(resolution(variances)).sqrt()
