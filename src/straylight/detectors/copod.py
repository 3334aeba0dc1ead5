"""Tail probabilities of the empirical copula.

Shapes: `B` events, `N` training rows, `D` features.
"""

from typing import Any

import torch
from torch import Tensor

from straylight.detectors.ecod import ECOD, Aggregate


class COPOD(ECOD):
    """How improbable it is, by the empirical copula of the training rows, to be as extreme as an event.

    The copula's tails are estimated by the product of the features' own. With l_j, r_j and s_j as in `ECOD`, but s_j
    the sum of l_j and r_j where the training rows have no skewness:

        score = sum_j max(s_j, (l_j + r_j) / 2)                aggregate = feature, the authors' code (PyOD)
        score = max(sum_j l_j, sum_j r_j, sum_j s_j)           aggregate = total, the paper: the same as ECOD

    Of training rows `feature` gives PyOD's scores. PyOD ranks a new row among the training rows and all others that
    are scored with it; here its score depends on that row alone. Assumes nothing about scale; sees one feature at a
    time.

    References:
        Z. Li, Y. Zhao, N. Botta, C. Ionescu, X. Hu, COPOD: copula-based outlier detection, ICDM 2020, arXiv:2009.09463

    Args:
        shape, aggregate, common: see `ECOD`.

    Example:
        >>> copod = COPOD((1,), scaling="none")
        >>> copod.fit(torch.tensor([[1.], [2.], [3.], [9.]]), torch.zeros(4, 0), torch.ones(4))
        >>> copod(torch.tensor([[1.], [99.]])).exp()  # skewed to the right, so that the left tail counts half
        tensor([2., 5.])
    """

    skewed: Tensor

    def __init__(self, shape: tuple[int, ...], *, aggregate: Aggregate = "feature", **common: Any) -> None:
        super().__init__(shape, aggregate=aggregate, **common)
        self.register_buffer("skewed", torch.ones(self.features, dtype=torch.bool))

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        super().fit(x, context, weight)
        share = weight[weight > 0].double() / weight.double().sum()
        rows = x.flatten(1)[weight > 0].double()
        centred = rows - share @ rows
        third, variance = share @ centred.pow(3), share @ centred.square()
        # what is less is rounding
        self.skewed = third.abs() > 1e-12 * variance.pow(1.5).clamp_min(torch.finfo(torch.double).tiny)
        self.skewed &= self.ordered[:, 0] < self.ordered[:, -1]

    def terms(self, left: Tensor, right: Tensor) -> Tensor:
        if self.aggregate == "total":
            return super().terms(left, right)
        by_skew = torch.where(self.skewed[:, None], self._by_skew(left, right), left + right)
        return torch.maximum(by_skew, (left + right) / 2)[None]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}skewed", torch.ones_like(self.skewed))  # of checkpoints before it was looked at
        super()._load_from_state_dict(state_dict, prefix, *args)
