"""Scores that are sums over features, taken apart exactly.

Shapes: `B` events, `D` features, `q` directions, `*shape` one event.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from straylight.nn import Neighbours


class Parts(NamedTuple):
    """What each feature adds to a score: score = baseline + sum of `of`, but for rounding.

    Attributes:
        of: the part of each feature of scaled events, `(B, *shape)`.
        baseline: what is left where every part is zero, `(B,)` or a number.
        words: what an event with that score is like.
    """

    of: Tensor
    baseline: Tensor | float
    words: str

    def less(self, other: "Parts") -> "Parts":
        """The parts of the differences, with what remains for a baseline: mostly the score of the others."""
        return Parts(self.of - other.of, self.baseline + other.of.flatten(1).double().sum(1), "")


def quadratic(apart: Tensor, directions: Tensor, reference: Tensor | None = None) -> Tensor:
    """The parts (d_j - r_j) (W W^T (d + r))_j of |d W|^2 - |r W|^2, of differences from a mean `(B, D)`, to the same.

    They are the Shapley values of the features where one that is left out is the reference's, and the integrated
    gradients from it: a feature's own square and half of each product with another. One may be negative, where a
    feature makes the others look less strange.

    Args:
        apart: d, `(B, D)`.
        directions: W, `(D, q)`.
        reference: r, `(B, D)`; without one, the mean itself.

    Example:
        >>> quadratic(torch.tensor([[1., 2.]]), torch.eye(2))
        tensor([[1., 4.]])
    """
    both, rise = (apart, apart) if reference is None else (apart + reference, apart - reference)
    return rise * ((both @ directions) @ directions.T)


def shares_of_distance(rows: Tensor, near: Tensor, distances: Tensor, metric: str) -> Tensor:
    """How a distance is made up of differences, of rows `(B, D)`, others `(B, D)` and their distances `(B,)`.

    Differences themselves for `manhattan`; squares over the distance for `euclidean`, which sum to it.

    Example:
        >>> shares_of_distance(torch.tensor([[3., 4.]]), torch.zeros(1, 2), torch.tensor([5.]), "euclidean")
        tensor([[1.8000, 3.2000]])
    """
    apart = (rows - near).abs()
    if metric == "manhattan":
        return apart
    return torch.where(distances[:, None] > 0, apart.square() / distances[:, None], 0.0)


def nearest_parts(neighbours: Neighbours, x: Tensor, k: int, first: int) -> Parts | None:
    """What features add to the mean distance to the neighbours from `first` to the k-th; `None` for the cosine."""
    if neighbours.metric == "cosine":
        return None
    rows = x.flatten(1)
    distances, places = neighbours.nearest(rows, k)
    found = torch.zeros_like(rows)
    for i in range(first, k):
        near = neighbours.memory[places[:, i], :-1] + neighbours.centre
        found += shares_of_distance(rows, near, distances[:, i], neighbours.metric) / (k - first)
    return Parts(found.view(x.shape), 0.0, "where its neighbours are")
