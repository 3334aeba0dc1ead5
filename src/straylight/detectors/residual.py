"""Distance to the neighbours, and what they cannot predict.

Shapes: `B` events, `N` training rows, `D` features.
"""

import math
from typing import Any

import torch
from torch import Tensor

from straylight import checks
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.parts import Parts, quadratic
from straylight.errors import DataError
from straylight.nn.neighbourhood import ERRORS, FLOOR, NEAREST, K, Neighbourhood


class Residual(FittedDetector):
    """How far an event is from its nearest training rows, and how wrong their mean is about it.

    score = g + w, both logarithms, from one exact search for the ten nearest; see `straylight.nn.Neighbourhood`:

        g = mean over k = 1..5 of log(D_k + c)
        w = mean over k in {2, 3, 5, 10} of log(0.01 + mean over features of (r_k L_k')^2) / 2

    D_k is the distance to the k-th nearest, r_k the event less the mean of its k nearest, and L_k decorrelates the
    errors of the training rows, each predicted by the others. `KNN` has no second term: there an error in a feature
    that follows from the others weighs no more than one in a feature that is noise. Assumes features of comparable
    scale, and rows that are not mostly copies of each other. Event weights are not read.

    References:
        S. Ramaswamy, R. Rastogi, K. Shim, Efficient algorithms for mining outliers from large data sets, SIGMOD 2000,
        doi:10.1145/342009.335437 (g is a smooth form of it; w is our own)

    Args:
        own_rows: training rows whose own neighbours are searched for, which says what is usual: drawn by seed if there
            are more; `None` takes all. All rows are kept as neighbours.
        shape, common: see `FittedDetector`; events are flattened.

    Raises:
        DataError: in training, if there are fewer than two rows.

    Example:
        >>> import torch
        >>> residual = Residual((2,), scaling="none")
        >>> line = torch.linspace(-1, 1, 99)[:, None].repeat(1, 2)
        >>> residual.fit(line, torch.zeros(99, 0), torch.ones(99))
        >>> along, beside = residual(torch.tensor([[1.1, 1.1], [0.1, -0.1]]))  # as far from the line's rows
        >>> bool(beside > along)
        True
    """

    def __init__(self, shape: tuple[int, ...], *, own_rows: int | None = 1000, **common: Any) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", 2, also="null", own_rows=own_rows)
        self.own_rows = own_rows
        self.near = Neighbourhood(math.prod(self.shape), budget_mb=self.budget_mb)

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        rows = x.flatten(1)
        enough(self, len(rows))
        self.no_weights(weight)
        n, limit = len(rows), self.own_rows
        own = self.rows_drawn(limit, n) if limit is not None and n > limit else torch.arange(n)
        own = own.to(rows.device)
        self.expect(2.0 * len(own) * rows.numel(), "lower detector.own_rows")
        self.near.fit(rows, own)

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        rows = x.flatten(1)
        near = self.near(rows)
        return (self.near.distance(near) + self.near.error(rows, near)).float()

    def parts(self, x: Tensor, context: Tensor) -> Parts:
        """Each logarithm above its least, shared out as the squares in it are."""
        rows, near = x.flatten(1).double(), self.near(x.flatten(1))
        centred = rows - self.near.neighbours.centre
        found = torch.zeros_like(rows)
        first = min(NEAREST, self.near.k)
        for i in range(first):
            far = near.distances[:, i]
            rise = (far / self.near.offset).log1p() / torch.where(far > 0, far.square(), 1) / first
            found += (centred - self.near.neighbours.memory[near.places[:, i], :-1]).square() * rise[:, None]
        found += torch.cat([self._of_errors(errors) for errors in self.near.wrong(rows, near.places)])
        least = float(self.near.offset.log()) + math.log(FLOOR) / 2
        return Parts(found.view(x.shape), least, "equal to its neighbours")

    def _of_errors(self, errors: list[Tensor]) -> Tensor:
        found = torch.zeros_like(errors[0])
        for i, r in enumerate(errors):
            w = self.near.whitening[i]
            squares = (quadratic(r, w) if w.ndim == 2 else (r * w).square()) / r.shape[1]
            total = squares.sum(1, keepdim=True)
            rise = (total / FLOOR).log1p() / 2 / torch.where(total > 0, total, 1)
            found += squares * rise / len(ERRORS)
        return found


def enough(detector: FittedDetector, n: int) -> None:
    """Refuse fewer than two training rows, and give notice where they are fewer than the neighbours."""
    if n < 2:
        raise DataError(f"{type(detector).__name__} needs two training rows or more.")
    if n <= K:
        detector.notice(f"{type(detector).__name__} has {n} training rows for {K} neighbours and takes {n - 1}.")
