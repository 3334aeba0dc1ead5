"""Robust kernel density estimation.

Shapes: `N` training rows kept.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from straylight import checks
from straylight.detectors.kde import KDE, squared_distances

Loss = Callable[[Tensor], Tensor]
Rho = Literal["huber", "hampel"]


class RobustKDE(KDE):
    """A kernel density whose rows count less the farther they lie from the bulk, in the kernel's own space.

    A kernel density is the mean of the rows' images F(x_i) in the kernel's Hilbert space. Here it is the point f that
    minimises the sum of rho(|F(x_i) - f|) instead, a weighted mean, found by taking turns between the distances
    |F(x_i) - f|^2 = k(x_i, x_i) - 2 sum_j w_j k(x_i, x_j) + sum_jl w_j w_l k(x_j, x_l) and the weights
    w_i ~ rho'(d_i) / d_i. Training rows may be contaminated: Huber's rho bounds what one row can do, Hampel's, which
    descends again, drops the farthest altogether. The thresholds of rho are quantiles of the distances to the minimum
    for rho(d) = d.

    Where kernels hardly overlap all distances are alike, and so are Huber's weights, which is `KDE`. Hampel's differ,
    and over data sets gain no AUROC by it (`tests/benchmarks/defaults.py`).

    References:
        J. Kim, C. D. Scott, Robust kernel density estimation, JMLR 13 (2012) 2529, arXiv:1107.3133

    Args:
        rho: `huber` or `hampel`.
        quantiles: where rho bends: a for Huber; a, b and c for Hampel, flat from b to c and zero beyond it; of rows,
            whatever their weights. The 95 % for c are those of P. Humbert's code beside arXiv:2006.16590.
        shape, bandwidth, max_rows, common: see `KDE`; the N x N matrix of kernels must fit `budget_mb` too.

    Raises:
        ValueError: if rho is unknown or the quantiles do not rise from 0 to 1.

    Example:
        >>> kde = RobustKDE((1,), bandwidth=1.0, scaling="none")
        >>> rows = torch.cat([torch.linspace(-1, 1, 99), torch.tensor([9.])])[:, None]
        >>> kde.fit(rows, torch.zeros(100, 0), torch.ones(100))
        >>> kde.weights[-1]  # the row at 9 is far from all others
        tensor(0., dtype=torch.float64)
    """

    TOLERANCE, ROUNDS = 1e-10, 200

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rho: Rho = "hampel",
        quantiles: tuple[float, float, float] = (0.5, 0.75, 0.95),
        max_rows: int | None = 5_000,
        **common: Any,
    ) -> None:
        super().__init__(shape, max_rows=max_rows, **common)
        checks.one_of("detector", Rho, rho=rho)
        if len(quantiles) != 3 or not 0 < quantiles[0] <= quantiles[1] <= quantiles[2] <= 1:
            raise ValueError(f"detector.quantiles must be three that rise from above 0 to 1, not {list(quantiles)}")
        self.rho, self.quantiles = rho, tuple(quantiles)
        fits = int((self.budget_mb * 2**20 / 8) ** 0.5)
        if max_rows is None or fits < max_rows:
            self.max_rows, self.limit = fits, "detector.budget_mb"
        self.weights = torch.empty(0, dtype=torch.float64)  # of all training rows, those that came to nothing included

    def arrange(self, weight: Tensor) -> None:
        kernel = squared_distances(self.memory, self.memory).div_(-2 * self.width**2).exp_()
        start, distance = self._descend(kernel, weight, weight, lambda d: 1 / d.clamp_min(1e-12), lambda d: d)
        a, b, c = torch.quantile(distance, distance.new_tensor(self.quantiles)).unbind()
        if self.rho == "huber":
            factor, rho = partial(huber_weight, a=a), partial(huber, a=a)
        else:
            factor, rho = partial(hampel_weight, a=a, b=b, c=c), partial(hampel, a=a, b=b, c=c)
        self.weights, _ = self._descend(kernel, weight, start, factor, rho)
        counts = self.weights > 0
        self.memory, self.log_weight = self.memory[counts], self.weights[counts].log()

    def _descend(self, kernel: Tensor, prior: Tensor, start: Tensor, factor: Loss, rho: Loss) -> tuple[Tensor, Tensor]:
        """Weights and distances at the minimum of sum_i prior_i rho(d_i)."""
        weight, before = start, None
        for _ in range(self.ROUNDS):
            product = kernel @ weight
            distance = (1 - 2 * product + weight @ product).clamp_min(0).sqrt()  # k(x, x) is 1
            loss = float(prior @ rho(distance))
            if before is not None and abs(before - loss) <= self.TOLERANCE * abs(before):
                break
            before = loss
            found = prior * factor(distance)
            if not (total := found.sum()) > 0:  # nothing is near any more
                break
            weight = found / total
        return weight, distance


def huber(d: Tensor, a: Tensor) -> Tensor:
    """Huber's loss: square up to a, linear beyond it."""
    return torch.where(d <= a, d.square() / 2, a * d - a.square() / 2)


def huber_weight(d: Tensor, a: Tensor) -> Tensor:
    """Its derivative over d."""
    return torch.where(d <= a, 1.0, a / d.clamp_min(1e-300))


def hampel(d: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Hampel's loss: square up to a, linear to b, flattening to c, constant beyond it."""
    top = a * (b + c - a) / 2
    bend = top - a * (c - d).square() / (2 * (c - b).clamp_min(1e-300))
    beyond = torch.where(d < b, a * d - a.square() / 2, torch.where(d < c, bend, top))
    return torch.where(d <= a, d.square() / 2, beyond)


def hampel_weight(d: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Its derivative over d."""
    slope = torch.where(d < b, a, torch.where(d < c, a * (c - d) / (c - b).clamp_min(1e-300), 0.0))
    return torch.where(d <= a, 1.0, slope / d.clamp_min(1e-300))
