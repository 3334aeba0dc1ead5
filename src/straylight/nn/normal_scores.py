"""Features on the scale of a normal distribution, by their ranks.

Shapes: `B` rows asked about, `N` training rows, `D` features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from straylight.nn.searching import places

BEYOND = 5.0  # standard deviations beyond the training rows that are told apart


class NormalScores(nn.Module):
    """The normal quantile of a value's mid-rank among the training rows, feature by feature.

    With a the number of training values below v and b those at most v, the score of v is the standard normal quantile
    of (a + b) / 2N, no nearer to 0 or 1 than 0.5/N. Equal values have the mean of their ranks, so that a value which
    most rows share is near the middle, and not at the end. Beyond the training rows a score goes on in standard
    deviations of the feature, up to 5 more.

    References:
        B. L. van der Waerden, Order tests for the two-sample problem and their power, Indag. Math. 14 (1952) 453

    Args:
        features: D.

    Example:
        >>> scores = NormalScores(1)
        >>> scores.fit(torch.tensor([[0.], [0.], [0.], [1.]]))
        >>> scores(torch.tensor([[0.], [1.]])).flatten()  # quantiles of 3/8 and 7/8
        tensor([-0.3186,  1.1503])
    """

    ordered: Tensor
    quantiles: Tensor
    factor: Tensor

    #: Whether it is put into a graph, which cannot go by what its numbers are; see `straylight.nn.turns`.
    traced = False

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("ordered", torch.empty(features, 0))
        self.register_buffer("quantiles", torch.empty(0))  # of 0 to 2 N halves of ranks
        self.register_buffer("factor", torch.ones(features))  # one over the standard deviation

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Learn the ranks of training rows, `(N, D)`."""
        n = len(rows)
        self.ordered = rows.T.contiguous().sort(1).values
        share = torch.arange(2 * n + 1, dtype=torch.float64, device=rows.device) / (2 * n)
        self.quantiles = torch.special.ndtri(share.clamp(0.5 / n, 1 - 0.5 / n)).to(rows.dtype)
        width = rows.double().std(0, correction=0)
        flat = self.ordered[:, 0] == self.ordered[:, -1]
        self.factor = torch.where(flat, 1.0, 1 / torch.where(flat, 1.0, width)).to(rows.dtype)

    def forward(self, rows: Tensor) -> Tensor:
        """Scores of rows, `(B, D)` to the same."""
        values = rows.T.contiguous()
        below = places(self.ordered, values, traced=self.traced)
        up_to = places(self.ordered, values, right=True, traced=self.traced)
        inside = values.minimum(self.ordered[:, -1:]).maximum(self.ordered[:, :1])
        beyond = ((values - inside) * self.factor[:, None]).clamp(-BEYOND, BEYOND)
        return (self.quantiles[below + up_to] + beyond).T

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("ordered", "quantiles"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.factor.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
