"""Tail probabilities of the empirical copula.

Shapes: `B` events, `D` features.
"""

import torch
from torch import Tensor

from straylight.detectors.ecod import ECOD


class COPOD(ECOD):
    """How improbable it is, by the empirical copula of the training rows, to be as extreme as an event.

    The copula's tails are estimated by the product of the features' own, so that with l_j, r_j and s_j as in `ECOD`:

        score = max(sum_j l_j, sum_j r_j, sum_j s_j)           aggregate = total, the paper: the same as ECOD
        score = sum_j max(s_j, (l_j + r_j) / 2)                aggregate = feature, the authors' code (PyOD)

    Assumes nothing about scale; sees one feature at a time.

    References:
        Z. Li, Y. Zhao, N. Botta, C. Ionescu, X. Hu, COPOD: copula-based outlier detection, ICDM 2020, arXiv:2009.09463

    Args:
        shape, aggregate, common: see `ECOD`.

    Example:
        >>> copod = COPOD((1,), aggregate="feature", scaling="none")
        >>> copod.fit(torch.tensor([[1.], [2.], [3.], [4.]]), torch.zeros(4, 0), torch.ones(4))
        >>> copod(torch.tensor([[1.], [9.]])).exp()
        tensor([2., 5.])
    """

    def terms(self, left: Tensor, right: Tensor) -> Tensor:
        if self.aggregate == "total":
            return super().terms(left, right)
        return torch.maximum(self._by_skew(left, right), (left + right) / 2)[None]
