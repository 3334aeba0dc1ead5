"""Mean and covariance in one pass over the training rows.

Shapes: `N` training rows, `D` features.
"""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from straylight.detectors.fitted import FittedDetector
from straylight.detectors.parts import Parts, quadratic
from straylight.errors import DataError
from straylight.rows.batch import Batch


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


class Moments(FittedDetector):
    """Base of detectors that know the training rows by their mean and covariance alone, and keep no row.

    score(x) = |(x - mean) W|^2, in float64, with W the directions that a subclass writes `solve` for. Sums are taken as
    rows come and added over ranks.

    Raises:
        DataError: in training, if the D x D covariance is beyond `budget_mb`, or there are fewer than two rows.
    """

    explained_by = "exact"
    sized_by_data = ("directions",)
    mean: Tensor
    directions: Tensor
    _taken: Sums

    def __init__(self, shape: tuple[int, ...], **common: Any) -> None:
        super().__init__(shape, **common)
        self.features = math.prod(self.shape)
        self.register_buffer("mean", torch.zeros(self.features, dtype=torch.float64))
        self.register_buffer("directions", torch.empty(self.features, 0, dtype=torch.float64))

    def solve(self, sums: Sums) -> Tensor:
        """The directions along which distances count, each in units of its own, `(D, q)`."""
        raise NotImplementedError(f"{type(self).__name__} must write solve(sums)")

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        needed = self.features**2 * 8 / 2**20
        if needed > self.budget_mb:
            raise DataError(
                f"{type(self).__name__} keeps a covariance of {self.features:,} x {self.features:,} features, "
                f"{needed:,.0f} MiB, above detector.budget_mb={self.budget_mb:g}; raise it, or take fewer features."
            )
        first, _ = next(self.training_rows())
        self._taken = Sums(self.scaling(first[:4096].to(self.device)).flatten(1).double().mean(0))

    def update(self, batch: Batch) -> None:
        rows, numbers = batch.x.flatten(1), 2 * self.features
        for part, weight in zip(self.in_turns(rows, numbers), self.in_turns(batch.weight, numbers), strict=True):
            self._taken.add(part, weight)

    def finish(self) -> None:
        self._taken.reduce()
        self._settle()

    def _settle(self) -> None:
        sums = self._taken
        del self._taken
        if sums.weight <= 1:
            raise DataError(f"{type(self).__name__} needs two training rows or more to see how they vary.")
        self.mean = sums.mean
        # contiguous, for ranks to exchange, and no view of more than is kept
        self.directions = self.solve(sums).clone(memory_format=torch.contiguous_format)

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        rows = self.in_turns(x.flatten(1), 2 * self.features)
        return torch.cat([((part - self.mean) @ self.directions).square().sum(1) for part in rows]).float()

    def parts(self, x: Tensor, context: Tensor) -> Parts:
        rows = self.in_turns(x.flatten(1), 2 * self.features)
        found = torch.cat([quadratic(part - self.mean, self.directions) for part in rows])
        return Parts(found.view(x.shape), 0.0, "the mean of the training rows")

    def parts_from(self, reference: Tensor, x: Tensor, context: Tensor) -> Parts:
        rows, others = (self.in_turns(some.flatten(1), 4 * self.features) for some in (x, reference))
        pairs = zip(rows, others, strict=True)
        found = torch.cat([quadratic(a - self.mean, self.directions, b - self.mean) for a, b in pairs])
        return Parts(found.view(x.shape), self.score(reference, context).double(), "")

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        self._taken = Sums(x[:4096].flatten(1).double().mean(0))
        self.update(Batch(x, weight.new_zeros(len(x)), context, weight, weight.new_zeros(len(x))))
        self._settle()


def resolution(variances: Tensor) -> Tensor:
    """The variance below which a direction's is float32's rounding of the rows, `(D,)` to a scalar above 0."""
    return (variances.max() * len(variances) * torch.finfo(torch.float32).eps ** 2).clamp_min(1e-30)
