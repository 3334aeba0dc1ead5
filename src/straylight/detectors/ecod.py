"""Tail probabilities, feature by feature.

Shapes: `B` events, `N` training rows, `D` features.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from straylight import checks
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.parts import Parts
from straylight.nn.searching import places

Aggregate = Literal["total", "feature"]


class ECOD(FittedDetector):
    """How improbable an event's features are one by one, by the empirical distribution of the training rows.

    With l_j = -log of the fraction of training rows at or below x_j, r_j = -log of those at or above, and s_j = l_j
    where feature j is skewed to the left, r_j otherwise:

        score = max(sum_j l_j, sum_j r_j, sum_j s_j)           aggregate = total, the paper
        score = sum_j max(l_j, r_j)                            aggregate = feature, the authors' code (PyOD)

    A fraction is at least 1/(N+1), or the score of a row beyond all training rows would be infinite. Assumes nothing
    about scale; sees one feature at a time, in their marginal distributions alone.

    References:
        Z. Li et al., ECOD: unsupervised outlier detection using empirical cumulative distribution functions, IEEE
        TKDE 35 (2023) 12181, arXiv:2201.00382

    Args:
        aggregate: `total` or `feature`.
        shape, common: see `FittedDetector`; events are flattened.

    Example:
        >>> ecod = ECOD((1,), scaling="none")
        >>> ecod.fit(torch.tensor([[1.], [2.], [3.], [4.]]), torch.zeros(4, 0), torch.ones(4))
        >>> ecod(torch.tensor([[1.], [9.]])).exp()  # one of four rows is as low as 1; none is as high as 9
        tensor([4., 5.])
    """

    explained_by = "exact"
    sized_by_data = ("ordered", "cumulative")
    ordered: Tensor
    cumulative: Tensor
    left_skewed: Tensor

    def __init__(self, shape: tuple[int, ...], *, aggregate: Aggregate = "total", **common: Any) -> None:
        super().__init__(shape, **common)
        checks.one_of("detector", Aggregate, aggregate=aggregate)
        self.aggregate = aggregate
        self.features = math.prod(self.shape)
        self.register_buffer("ordered", torch.empty(self.features, 0))
        self.register_buffer("cumulative", torch.empty(0, 0, dtype=torch.float64))  # of weights, unless all are one
        self.register_buffer("left_skewed", torch.zeros(self.features, dtype=torch.bool))

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        rows = x.flatten(1)[weight > 0].T.contiguous()
        weight = weight[weight > 0].double()
        self.ordered, order = rows.sort(1)
        self.cumulative = weight.new_empty(0, 0)
        if (weight != weight[0]).any():
            running = weight[order].cumsum(1)
            self.cumulative = torch.cat([running.new_zeros(len(rows), 1), running], 1) / running[:, -1:]
        share = weight / weight.sum()
        centred = rows.double() - (rows.double() @ share)[:, None]
        self.left_skewed = centred.pow(3) @ share < 0

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        parts = self.in_turns(x.flatten(1), 6 * self.features)
        return torch.cat([self.combine(*self._tails(part)) for part in parts])

    def combine(self, left: Tensor, right: Tensor) -> Tensor:
        """The score from -log tail probabilities, twice `(D, B)` to `(B,)`."""
        return self.terms(left, right).sum(1).amax(0)

    def terms(self, left: Tensor, right: Tensor) -> Tensor:
        """What features add to each of the sums of which the score is the largest, twice `(D, B)` to `(S, D, B)`."""
        if self.aggregate == "feature":
            return torch.maximum(left, right)[None]
        return torch.stack([left, right, self._by_skew(left, right)])

    def parts(self, x: Tensor, context: Tensor) -> Parts:
        found = []
        for part in self.in_turns(x.flatten(1), 6 * self.features):
            terms = self.terms(*self._tails(part))
            largest = terms.sum(1).argmax(0)
            found.append(terms[largest, :, torch.arange(len(part), device=x.device)])
        return Parts(torch.cat(found).view(x.shape), 0.0, "no less probable than any in each feature")

    def _by_skew(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.where(self.left_skewed[:, None], left, right)

    def _tails(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        n, values = self.ordered.shape[1], rows.T.contiguous()
        below = places(self.ordered, values, traced=self.traced)  # strictly
        up_to = places(self.ordered, values, right=True, traced=self.traced)
        if len(self.cumulative):
            left, right = self.cumulative.gather(1, up_to), 1 - self.cumulative.gather(1, below)
        else:
            left, right = up_to.double() / n, (n - below).double() / n
        return tuple(-tail.clamp_min(1 / (n + 1)).log().float() for tail in (left, right))  # type: ignore[return-value]
