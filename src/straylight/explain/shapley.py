"""Shapley values: what features add to a score, whatever makes it, by mixtures of an event and references.

Shapes: `N` events, `M` references, `K` groups of features, `D` features, `E` mixtures.
"""

import math
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from straylight.explain.gradients import Score

EVALUATIONS = 2048  # mixtures of each event that are scored


def shapley(
    score: Score,
    x: Tensor,
    context: Tensor,
    references: Tensor,
    groups: Tensor,
    at_once: int,
    *,
    evaluations: int = EVALUATIONS,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """The mean rise of the score when a group of features becomes the event's, over all orders in which they may.

    The others are still those of a reference, of which the mean is taken too. Where all `2^K` mixtures with every
    reference are no more than twice `evaluations`, the value is exact. Otherwise orders are drawn by seed, each with
    its reverse, the same for all events, a pair with each reference in turn. Of every order the rises sum to the score
    less the reference's, so that the sum is exact however few there are.

    References:
        L. S. Shapley, A value for n-person games, Contributions to the Theory of Games II (1953) 307
        E. Strumbelj, I. Kononenko, Explaining prediction models and individual predictions with feature
        contributions, Knowl. Inf. Syst. 41 (2014) 647, doi:10.1007/s10115-013-0679-x
        R. Mitchell et al., Sampling permutations for Shapley value estimation, JMLR 23 (2022) 43, arXiv:2104.12199

    Args:
        score: of scaled events and context.
        x, context: scaled events `(N, *shape)` and `(N, C)`.
        references: scaled events, `(N, M, *shape)`.
        groups: which group a feature is of, from 0 to K - 1, `(D,)`.
        at_once: mixtures that are scored together.
        evaluations: mixtures of each event that are scored, about; K + 1 for two orders at least.
        seed: of the orders.

    Returns:
        contributions `(N, K)` and baselines, the mean score of the references that were taken, `(N,)`, both float64.

    Example:
        >>> product = lambda x, context: x.prod(1)
        >>> of, baseline = shapley(product, torch.tensor([[2., 4.]]), torch.zeros(1, 0), torch.ones(1, 1, 2),
        ...     torch.tensor([0, 1]), 100)
        >>> of.tolist(), baseline.tolist()  # 2 * 4 less 1 * 1: of 2 the mean of 1 and 4, of 4 that of 3 and 6
        ([[2.5, 4.5]], [1.0])
    """
    k, m = int(groups.max()) + 1, references.shape[1]
    whole = k < 20 and m * 2**k <= 2 * evaluations
    mixing = _Mixing(score, x, context, references, groups, at_once)
    return _exact(mixing, k, m) if whole else _sampled(mixing, k, m, evaluations, seed)


class _Mixing:
    """Scores of events in which some groups are a reference's."""

    def __init__(
        self, score: Score, x: Tensor, context: Tensor, references: Tensor, groups: Tensor, at_once: int
    ) -> None:
        self.score, self.x, self.context, self.references = score, x, context, references
        self.groups, self.at_once, self.n = groups.to(x.device), at_once, len(x)

    def __call__(self, own: Tensor, reference: int) -> Tensor:
        """Scores of all events for each choice of groups that are their own, `(E, K)` bool to `(N, E)` float64."""
        taken = own.to(self.x.device)[:, self.groups].view(len(own), *self.x.shape[1:])
        each = max(1, self.at_once // len(own))
        found = []
        for i in range(0, self.n, each):
            x, other = self.x[i : i + each], self.references[i : i + each, reference]
            for some in taken.split(self.at_once):
                mixed = torch.where(some, x[:, None], other[:, None]).flatten(0, 1)
                context = self.context[i : i + each].repeat_interleave(len(some), 0)
                found.append(self.score(mixed, context).double().view(len(x), -1))
        parts = -(-len(own) // self.at_once)
        return torch.cat([torch.cat(found[i : i + parts], 1) for i in range(0, len(found), parts)])


def _exact(mixing: _Mixing, k: int, m: int) -> tuple[Tensor, Tensor]:
    codes = torch.arange(2**k)
    own = (codes[:, None] >> torch.arange(k) & 1).bool()
    size = own.sum(1)
    # the share of all orders in which a group comes right after these others
    weight = torch.tensor([1 / (k * math.comb(k - 1, s)) for s in range(k)], dtype=torch.float64)
    values = reduce(torch.add, (mixing(own, i) for i in range(m))) / m
    found = []
    for g in range(k):
        without = codes[~own[:, g]]
        rise = values[:, without + 2**g] - values[:, without]
        found.append(rise @ weight[size[without]].to(values.device))
    return torch.stack(found, 1), values[:, 0]


def _sampled(mixing: _Mixing, k: int, m: int, evaluations: int, seed: int) -> tuple[Tensor, Tensor]:
    pairs = max(1, round(evaluations / (2 * (k + 1))))
    pairs = max(m, pairs) if m * 2 * (k + 1) <= 2 * evaluations else pairs  # each reference once, if that is near
    random = np.random.default_rng(seed)
    found = torch.zeros(mixing.n, k, dtype=torch.float64, device=mixing.x.device)
    baseline = found.new_zeros(mixing.n)
    ranks = torch.arange(k + 1)[:, None]
    for pair in range(pairs):
        drawn = torch.from_numpy(random.permutation(k))
        for order in (drawn, drawn.flip(0)):
            place = torch.empty_like(order)
            place[order] = torch.arange(k)
            values = mixing(place < ranks, pair % m)  # (N, K + 1), none of its own first
            found[:, order.to(found.device)] += values.diff(dim=1)
            baseline += values[:, 0]
    return found / (2 * pairs), baseline / (2 * pairs)
