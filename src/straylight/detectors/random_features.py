"""Leverage in random Fourier features.

Shapes: `B` events, `N` training rows, `P` features of an event, `D` random features.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from straylight import checks
from straylight.detectors.fitted import FittedDetector
from straylight.errors import DataError
from straylight.rows.batch import Batch

SAMPLE = 500  # training rows whose distances from each other say what is near
LARGEST = 1e9  # a coordinate whose phase float64 still resolves; what is farther is as strange


class RandomFeatures(FittedDetector):
    """How much an event stands out from the training rows in a kernel's space, at a cost linear in rows.

        score(x) = f(x)^T (C + r tr(C)/D I)^-1 f(x)        C = mean of f f^T over training rows
        f_j(x) = sqrt(2) cos(w_j^T x + b_j)                w_j ~ N(0, I / (h_j m)^2),  b_j uniform on a circle

    m is the median distance between training rows, of those of 500 drawn by seed, and h_j goes through `bandwidths` in
    turn. f^T f / D is, on average over w and b, the mean of Gaussian kernels of these widths, and as D grows the score
    nears the variance that a Gaussian process with that kernel has left at x when it has seen the training rows, in
    units of r/D of the kernel at no distance: small where rows are near, the same everywhere far from all of them. So
    which of two rows is the stranger is chance where both are far. Event weights count as so many rows.

    One pass draws the rows that m is taken of, another adds up C, and what is kept is two matrices of fixed size.
    Assumes features of comparable scale.

    References:
        A. Rahimi, B. Recht, Random features for large-scale kernel machines, NIPS 2007 (f)
        A. Askari, F. Yang, L. El Ghaoui, Kernel-based outlier detection using the inverse Christoffel function, 2018,
        arXiv:1806.06775 (the score, with the kernel itself)

    Args:
        features: D, of all bandwidths together.
        bandwidths: widths of kernels, in units of m.
        ridge: r, above 0.
        shape, common: see `FittedDetector`; events are flattened.

    Raises:
        ValueError: if there are more bandwidths than features, or none, or one that is not positive.
        DataError: in training, if D x D numbers are beyond `budget_mb`, or no row has weight.

    Example:
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch._C.Generator object at ...>
        >>> detector = RandomFeatures((1,), scaling="none")
        >>> detector.fit(torch.linspace(-1, 1, 99)[:, None], torch.zeros(99, 0), torch.ones(99))
        >>> detector(torch.tensor([[0.], [9.]])).argmax().item()  # the far one
        1
    """

    frequencies: Tensor
    phases: Tensor
    whitening: Tensor
    _second: Tensor
    _weight: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        features: int = 900,
        bandwidths: Sequence[float] = (0.25, 0.5, 1.0),
        ridge: float = 1e-3,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", features=features)
        checks.positive("detector", ridge=ridge)
        if not 0 < len(bandwidths) <= features or not all(0 < h < math.inf for h in bandwidths):
            raise ValueError(
                f"detector.bandwidths must be positive numbers, one or more and at most detector.features={features}, "
                f"not {list(bandwidths)}"
            )
        self.features, self.bandwidths, self.ridge = features, tuple(bandwidths), ridge
        p = math.prod(self.shape)
        # in turns, of which float64 keeps the fraction where an event is far and float32 would not
        self.register_buffer("frequencies", torch.zeros(p, features, dtype=torch.float64))
        self.register_buffer("phases", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("whitening", torch.zeros(features, features))

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        needed = 3 * self.features**2 * 8 / 2**20
        if needed > self.budget_mb:
            raise DataError(
                f"RandomFeatures works on three matrices of {self.features:,} x {self.features:,} numbers, "
                f"{needed:,.0f} MiB, above detector.budget_mb={self.budget_mb:g}; raise it, or lower detector.features."
            )
        rows, weight = drawn(self.training_rows(), SAMPLE, self.seed)
        self._draw(self.scaling(rows.to(self.device)).flatten(1), weight.to(self.device))

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        rows, counts = drawn([(x, weight)], SAMPLE, self.seed)
        self._draw(rows.flatten(1), counts)
        self.update(Batch(x, weight.new_zeros(len(x)), context, weight, weight.new_zeros(len(x))))
        self._settle()

    def _draw(self, rows: Tensor, weight: Tensor) -> None:
        """Draw the features for training rows of which these are some, `(n, P)` and `(n,)`."""
        width = median_distance(rows, weight)
        if width is None:
            width = 1.0
            self.notice(
                "RandomFeatures finds no two different rows among those it takes the median distance from, and takes "
                "widths in units of scaled features."
            )
        generator = torch.Generator().manual_seed(self.seed)
        normal = torch.randn(*self.frequencies.shape, generator=generator, dtype=torch.float64)
        widths = width * torch.tensor(self.bandwidths, dtype=torch.float64).repeat(self.features)[: self.features]
        self.frequencies = (normal / (2 * math.pi * widths)).to(rows.device)
        self.phases = torch.rand(self.features, generator=generator, dtype=torch.float64).to(rows.device)
        self._second = self.frequencies.new_zeros(self.features, self.features)
        self._weight = self.frequencies.new_zeros(())

    def _turns(self, rows: Tensor) -> Tensor:
        """w^T x + b in fractions of a turn, from -1/2 to 1/2, `(B, P)` to `(B, D)` float64."""
        turns = rows.double().clamp(-LARGEST, LARGEST) @ self.frequencies + self.phases
        return turns - turns.round()

    def update(self, batch: Batch) -> None:
        rows, numbers = batch.x.flatten(1), 3 * self.features + len(self.frequencies)
        for part, weight in zip(self.in_turns(rows, numbers), self.in_turns(batch.weight, numbers), strict=True):
            found, w = (2 * math.pi * self._turns(part)).cos_(), weight.double()
            self._second.addmm_(found.T, found * w[:, None], alpha=2)
            self._weight += w.sum()

    def finish(self) -> None:
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self._second)
            dist.all_reduce(self._weight)
        self._settle()

    def _settle(self) -> None:
        second, weight = self._second, self._weight
        del self._second, self._weight
        if not weight > 0:
            raise DataError("RandomFeatures has no training row of positive weight.")
        second /= weight
        second.diagonal().add_(self.ridge * second.trace() / self.features)
        factor = torch.linalg.cholesky(second)
        inverse = torch.linalg.solve_triangular(factor, torch.eye(self.features).to(factor), upper=False)
        # contiguous, for ranks to exchange; with the height of the cosines
        self.whitening = (math.sqrt(2) * inverse.T).float().contiguous()

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        parts = self.in_turns(x.flatten(1), 3 * self.features + len(self.frequencies))
        return torch.cat([self._leverage(part) for part in parts])

    def _leverage(self, rows: Tensor) -> Tensor:
        found = (2 * math.pi * self._turns(rows).float()).cos()
        if self.traced:
            return (found @ self.whitening).square().sum(1)
        found = functional.pad(found, (0, 0, 0, -len(rows) % 8))  # whole blocks, which round alike in any batch
        return (found @ self.whitening)[: len(rows)].square().sum(1)


def drawn(chunks: Iterable[tuple[Tensor, Tensor]], most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Some of the rows with weight, in order, the same however they come in chunks of `(n, ...)` and `(n,)`.

    Example:
        >>> rows, weight = torch.arange(6.0), torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
        >>> drawn([(rows, weight)], 9, 0)[0].tolist()
        [0.0, 2.0, 3.0, 4.0, 5.0]
        >>> parts = zip(rows.split(2), weight.split(2), strict=True)
        >>> drawn(parts, 3, 0)[0].tolist() == drawn([(rows, weight)], 3, 0)[0].tolist()
        True
    """
    generator = np.random.default_rng(seed)
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows, weight in chunks:
        lot = torch.from_numpy(generator.random(len(rows))).to(weight.device)
        some = (weight > 0).nonzero().flatten()
        if len(some) > most:
            some = some[lot[some].topk(most, largest=False).indices.sort().values]
        kept.append((rows[some.to(rows.device)], weight[some], lot[some]))
        if len(kept) > 1:
            lots = torch.cat([part[2] for part in kept])
            least = lots.topk(min(most, len(lots)), largest=False).indices.sort().values
            kept = [tuple(torch.cat(column)[least] for column in zip(*kept, strict=True))]  # type: ignore[list-item]
    if not kept:
        raise DataError("RandomFeatures has no training row.")
    return kept[0][:2]


def median_distance(rows: Tensor, weight: Tensor) -> float | None:
    """The median distance between rows that differ, `(n, P)`, a pair counting as the product of its weights, `(n,)`.

    Half of the weight lies at it or below. `None` where no two differ.

    Example:
        >>> median_distance(torch.tensor([[0.0], [0.0], [3.0], [10.0]]), torch.ones(4))
        7.0
    """
    rows, weight = rows.double(), weight.double()
    distances, order = functional.pdist(rows).sort()
    first, second = torch.triu_indices(len(rows), len(rows), 1, device=rows.device)
    share = (weight[first] * weight[second])[order] * (distances > 0)
    total = share.cumsum(0)
    if not len(total) or not total[-1] > 0:
        return None
    return float(distances[int((total < total[-1] / 2).sum())])
