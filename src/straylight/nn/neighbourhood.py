"""How far a row is from its neighbours, and how wrong they are about it.

Shapes: `B` rows asked about, `N` rows kept, `D` features, `K` neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from straylight.nn import turns
from straylight.nn.neighbours import LARGEST, Neighbours

NEAREST = 5  # neighbours whose distances are looked at
ERRORS = (2, 3, 5, 10)  # numbers of neighbours whose mean predicts a row
K = max(ERRORS)
OFFSET = 0.1  # of the median distance, below which differences between distances mean little
SHRUNK, RIDGE = 0.2, 1e-3  # of the covariance of errors: towards its diagonal, and of the mean variance
FLOOR = 0.01  # of a mean squared error in units of its variance, below which differences mean little
FULL = 300  # features up to which errors are decorrelated, and beyond which each has its variance alone
TINY = 1e-12  # where all rows are equal


class Near(NamedTuple):
    """The nearest rows kept: distances, nearest first, and places, twice `(B, K)`."""

    distances: Tensor
    places: Tensor


class Neighbourhood(nn.Module):
    """Two numbers of a row from one exact search for its K = 10 nearest, of training rows without themselves.

    With D_k the distance to the k-th nearest and c a tenth of the median of D_1 to D_5 of the training rows,

        distance:  g(x) = mean over k = 1..5 of log(D_k + c).

    The mean of the k nearest predicts x and leaves the error r_k. With inv(C_k) = L_k' L_k, and C_k = 0.8 of the
    covariance of the errors of the training rows, 0.2 of its diagonal and 0.001 of their mean variance,

        error:     w(x) = mean over k in {2, 3, 5, 10} of log(0.01 + mean over features of (r_k L_k')^2) / 2,

    so that an error counts where the neighbourhood usually makes none. Above 300 features C_k is the diagonal alone.
    Where there are fewer than 11 rows, each looks at all others in place of ten.

    Args:
        features: D.
        errors: whether w is wanted.
        budget_mb: memory in MiB that the search may take, and then the errors.

    Example:
        >>> near = Neighbourhood(1)
        >>> _ = near.fit(torch.arange(20.0)[:, None])
        >>> asked = torch.tensor([[3.5], [30.0]])
        >>> near.distance(near(asked)).argmax().item()  # the far one
        1
    """

    offset: Tensor
    whitening: Tensor

    def __init__(self, features: int, errors: bool = True, budget_mb: float = 64) -> None:
        super().__init__()
        self.features, self.errors, self.budget_mb = features, errors, budget_mb
        self.neighbours = Neighbours(features, budget_mb=budget_mb)
        self.register_buffer("offset", torch.zeros((), dtype=torch.float64))  # c
        self.register_buffer("whitening", torch.empty(0, dtype=torch.float64))  # L_k', or one over its diagonal's root

    @property
    def k(self) -> int:
        """How many neighbours a row has."""
        return min(K, len(self.neighbours.memory) - 1)

    def fit(self, rows: Tensor, own: Tensor | None = None) -> Near:
        """Keep these rows, `(N, D)`, at least two, and learn what is usual from those at the places `own`, or all.

        Returns:
            The nearest others of these.
        """
        self.neighbours.fit(rows.double())
        places = torch.arange(len(rows), device=rows.device) if own is None else own
        asked = rows.index_select(0, places)
        near = self._others(asked, places)
        ordered = near.distances[:, :NEAREST].flatten().sort().values  # torch's own median is the lower of two
        median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        self.offset = (OFFSET * median).clamp_min(TINY)
        if self.errors:
            self.whitening = torch.stack([_whitening(*sums) for sums in self._moments(asked, near.places)])
        return near

    def forward(self, rows: Tensor) -> Near:
        """The nearest rows kept of `(B, D)`."""
        return Near(*self.neighbours.nearest(rows.double(), self.k))

    def distance(self, near: Near) -> Tensor:
        """g of rows with these neighbours, `(B,)` float64."""
        return (near.distances[:, :NEAREST] + self.offset).log().mean(1)

    def error(self, rows: Tensor, near: Near) -> Tensor:
        """w of rows, `(B, D)`, with these neighbours, `(B,)` float64."""
        found = [
            torch.stack([(FLOOR + self.white(r, i).square().mean(1)).log() / 2 for i, r in enumerate(errors)]).mean(0)
            for errors in self.wrong(rows, near.places)
        ]
        return torch.cat(found)

    def white(self, r: Tensor, i: int) -> Tensor:
        """r_k L_k' of errors `(B, D)` from the i-th of the numbers of neighbours."""
        return r @ self.whitening[i] if self.whitening.ndim == 3 else r * self.whitening[i]

    def wrong(self, rows: Tensor, places: Tensor) -> Iterator[list[Tensor]]:
        """Errors r_k of rows, for each k `(b, D)`, some rows at a time."""
        tall = max(1, int(self.budget_mb * 2**20 / (8 * self.features * (4 + 2 * len(ERRORS)))))
        parts: Iterable[tuple[Tensor, Tensor]] = [(rows, places)]
        if not turns.one(self, rows, tall):
            parts = zip(rows.split(tall), places.split(tall), strict=True)
        for part, near in parts:
            x = (part.double() - self.neighbours.centre).clamp(-LARGEST, LARGEST)
            yield [x - mean for mean in self._means(near)]

    def _means(self, places: Tensor) -> Iterator[Tensor]:
        """Means of the first neighbours at these places, for each of the numbers of them, `(b, D)`.

        They are added one after the other, which takes a third of the time of fetching them together.
        """
        memory = self.neighbours.memory[:, :-1]
        sums = torch.zeros_like(memory[:1])
        for many in range(1, self.k + 1):
            sums = sums + memory.index_select(0, places[:, many - 1])
            yield from (sums / many for k in ERRORS if min(k, self.k) == many)

    def _others(self, rows: Tensor, own: Tensor) -> Near:
        """The nearest of the rows kept that are not these rows themselves, which are at the places `own`."""
        n, k = len(rows), self.k
        distances, places = self.neighbours.nearest(rows.double(), k + 1)
        itself = places == own[:, None]
        itself[:, -1] |= ~itself.any(1)  # among more than k equal rows
        return Near(distances[~itself].view(n, k), places[~itself].view(n, k))

    def _moments(self, rows: Tensor, places: Tensor) -> list[tuple[Tensor, Tensor, int]]:
        """Of the errors of each number of neighbours: their mean, their mean products or squares, and how many."""
        n, d = rows.shape
        first = [torch.zeros(d, dtype=torch.float64, device=rows.device) for _ in ERRORS]
        second = [torch.zeros((d, d) if d <= FULL else (d,), dtype=torch.float64, device=rows.device) for _ in ERRORS]
        for errors in self.wrong(rows, places):
            for i, r in enumerate(errors):
                first[i] += r.sum(0)
                second[i] += r.T @ r if d <= FULL else r.square().sum(0)
        return [(one / n, two / n, n) for one, two in zip(first, second, strict=True)]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if prefix + "whitening" in state_dict:
            self.whitening = torch.empty_like(state_dict[prefix + "whitening"], device=self.offset.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _whitening(mean: Tensor, second: Tensor, n: int) -> Tensor:
    """L' of the covariance of errors, shrunk, `(D, D)`; or one over the roots of its diagonal, `(D,)`."""
    unbiased = n / max(1, n - 1)
    if second.ndim == 1:
        variances = (second - mean.square()).clamp_min(0) * unbiased
        return (variances + (RIDGE * variances.mean()).clamp_min(TINY)).rsqrt()
    covariance = (second - torch.outer(mean, mean)) * unbiased
    variances = covariance.diagonal().clamp_min(0)
    ridge = (RIDGE * variances.mean()).clamp_min(TINY)
    c = (1 - SHRUNK) * covariance + torch.diag(SHRUNK * variances + ridge)
    factor = torch.linalg.cholesky(c)
    return torch.linalg.solve_triangular(factor, torch.eye(len(c)).to(c), upper=False).T.contiguous()
