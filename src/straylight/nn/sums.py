"""Mean and covariance from sums over rows.

Shapes: `n` rows, `D` features.
"""

import torch
import torch.distributed as dist
from torch import Tensor


class Sums:
    """Sums over rows u about a start, in float64, event weights counting as so many rows.

    Args:
        start: a point near the rows, the same on all ranks, `(D,)`.

    Example:
        >>> sums = Sums(torch.zeros(1, dtype=torch.float64))
        >>> sums.add(torch.tensor([[1.], [3.]]), torch.ones(2))
        >>> sums.mean, sums.covariance
        (tensor([2.], dtype=torch.float64), tensor([[1.]], dtype=torch.float64))
    """

    def __init__(self, start: Tensor) -> None:
        self.start = start
        self.weight = start.new_zeros(())  # of w
        self.first = torch.zeros_like(start)  # of w u
        self.second = start.new_zeros(len(start), len(start))  # of w u u^T
        self.third = torch.zeros_like(start)  # of w |u|^2 u
        self.fourth = start.new_zeros(())  # of w |u|^4

    def add(self, rows: Tensor, weight: Tensor) -> None:
        """Take in rows, `(n, D)` and `(n,)`."""
        u, w = rows.double() - self.start, weight.double()
        wu, length = u * w[:, None], u.square().sum(1)
        self.weight += w.sum()
        self.first += wu.sum(0)
        self.second += u.T @ wu
        self.third += length @ wu
        self.fourth += w @ length.square()

    def reduce(self) -> None:
        """Add up the sums of all ranks."""
        if dist.is_available() and dist.is_initialized():
            for total in (self.weight, self.first, self.second, self.third, self.fourth):
                dist.all_reduce(total)

    @property
    def mean(self) -> Tensor:
        """`(D,)`."""
        return self.start + self.first / self.weight

    @property
    def covariance(self) -> Tensor:
        """With a denominator of N, `(D, D)`."""
        shift = self.first / self.weight
        return self.second / self.weight - torch.outer(shift, shift)

    def ledoit_wolf(self) -> float:
        """How far to shrink the covariance towards a multiple of the identity to be nearest to the true one on average.

        O. Ledoit, M. Wolf, A well-conditioned estimator for large-dimensional covariance matrices, J. Multivar. Anal.
        88 (2004) 365, doi:10.1016/S0047-259X(03)00096-4.
        """
        covariance, n, m = self.covariance, self.weight, self.first / self.weight
        square, mm = covariance.square().sum(), m @ m
        fourth = (  # the sum of |u - m|^4
            self.fourth
            - 4 * (self.third @ m)
            + 4 * (m @ self.second @ m)
            + 2 * mm * self.second.trace()
            - 3 * n * mm.square()
        )
        spread = (fourth / n - square) / n
        distance = square - covariance.trace().square() / len(covariance)
        return float((spread / distance).clamp(0, 1)) if distance > 0 else 1.0
