"""Scores of any kind on one scale: how improbable they are among nominal ones.

Shapes: `B` scores, `N` of nominal rows.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from straylight.nn.searching import places

TAIL = 0.05  # of the nominal scores, from where on their tail is exponential


class LogTail(nn.Module):
    """-log of the fraction of nominal scores that are as large, continued by an exponential tail.

        L(s) = -log((1 + number of nominal scores >= s) / (N + 2))           up to their 95 % quantile u
        L(s) = -log 0.05 + (s - u) / (mean excess of nominal scores over u)   above

    The nominal scores are of rows that the detector was not fitted to, or left out one by one. Up to u, exp(-L) is
    then a conformal p-value but for 2 in place of 1; above, counts end at 1/N, and the tail is fitted by its mean as
    peaks over a threshold are. L never falls. NaN stays NaN.

    References:
        S. Bates et al., Testing for outliers with conformal p-values, Ann. Stat. 51 (2023) 149, arXiv:2104.08279
        J. Pickands, Statistical inference using extreme order statistics, Ann. Stat. 3 (1975) 119,
        doi:10.1214/aos/1176343003

    Example:
        >>> tail = LogTail()
        >>> tail.fit(torch.arange(98.0))
        >>> tail(torch.tensor([0.0, 49.0])).exp()  # 99 of 100, and 50 of 100
        tensor([1.0101, 2.0000], dtype=torch.float64)
    """

    ordered: Tensor
    start: Tensor
    excess: Tensor

    #: Whether it is put into a graph, which cannot go by what its numbers are; see `straylight.nn.turns`.
    traced = False

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ordered", torch.empty(0, dtype=torch.float64))
        self.register_buffer("start", torch.zeros((), dtype=torch.float64))  # u
        self.register_buffer("excess", torch.ones((), dtype=torch.float64))

    @torch.no_grad()
    def fit(self, scores: Tensor) -> None:
        """Learn the scores of nominal rows, `(N,)`."""
        self.ordered = scores.double().sort().values
        n = len(self.ordered)
        place = (1 - TAIL) * (n - 1)
        low, high = self.ordered[math.floor(place)], self.ordered[math.ceil(place)]
        self.start = low + (high - low) * (place - math.floor(place))
        above = self.ordered[self.ordered > self.start]
        spread = self.ordered[-1] - self.ordered[0]
        mean = (above - self.start).mean() if len(above) else spread
        self.excess = mean.clamp_min(torch.finfo(torch.float32).eps * spread.clamp_min(1))  # where all are equal

    def forward(self, scores: Tensor) -> Tensor:
        """L of scores, `(B,)` to the same in float64."""
        scores = scores.double()
        n = self.ordered.shape[0]
        below = places(self.ordered[None], scores.contiguous()[None], traced=self.traced)[0]
        counted = math.log(n + 2) - ((n - below).double() + 1).log()
        beyond = -math.log(TAIL) + (scores - self.start) / self.excess
        return torch.where(scores <= self.start, counted, beyond)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if prefix + "ordered" in state_dict:
            self.ordered = torch.empty_like(state_dict[prefix + "ordered"], device=self.start.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
