"""Distance to the nearest training rows.

Shapes: `B` events, `N` training rows kept, `D` features, `k` neighbours, `Q` candidates.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from straylight.detectors.fitted import FittedDetector
from straylight.errors import DataError


class KNN(FittedDetector):
    """Distance to the k-th nearest training row, or the mean over the k nearest: exact, batched, in bounded memory.

    |x - t|^2 = |x|^2 + |t|^2 - 2 x.t turns the search into matrix products, on the device that trains. In float32
    that form loses digits far from the origin, so rows are centred first, a few candidates more than k are kept, and
    their distances are taken again from the differences. Where the rounding could have hidden a nearer row, the search
    is done again without products.

    Assumes features of comparable scale and a distance that means something in all of them together.

    References:
        S. Ramaswamy, R. Rastogi, K. Shim, Efficient algorithms for mining outliers from large data sets, SIGMOD 2000,
        doi:10.1145/342009.335437 (k-th neighbour)
        F. Angiulli, C. Pizzuti, Fast outlier detection in high dimensional spaces, PKDD 2002,
        doi:10.1007/3-540-45681-3_2 (mean)

    Args:
        shape: the shape of one event; it is flattened to D features.
        k: neighbours.
        distance: `kth` or `mean`.
        budget_mb: memory in MiB that the tile of distances may take while scoring.
        common: `context`, `scaling`, `optimizer` (unused), see `Detector`.

    Raises:
        ValueError: if k is not positive or a name is unknown.
        DataError: in training, if there are fewer rows than k.

    Example:
        >>> knn = KNN((1,), k=1, scaling="none")
        >>> knn.fit(torch.tensor([[0.], [10.]]), torch.zeros(2, 0), torch.ones(2))
        >>> knn(torch.tensor([[3.], [12.]]))
        tensor([3., 2.])
    """

    sized_by_data = ("memory",)
    memory: Tensor
    centre: Tensor
    reach: Tensor

    EXTRA = 8  # candidates beyond k that are ranked again

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        k: int = 5,
        distance: Literal["kth", "mean"] = "kth",
        budget_mb: float = 64,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        if k < 1 or not budget_mb > 0:
            raise ValueError(f"detector.k and budget_mb must be positive, not {k} and {budget_mb}")
        if distance not in ("kth", "mean"):
            raise ValueError(f"detector.distance must be kth or mean, not {distance!r}")
        self.k, self.distance, self.budget_mb = k, distance, budget_mb
        self.register_buffer("memory", torch.empty(0, math.prod(self.shape)))
        self.register_buffer("centre", torch.zeros(math.prod(self.shape)))
        self.register_buffer("reach", torch.zeros(()))  # the largest distance of a training row from the centre

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        if len(x) < self.k:
            raise DataError(f"detector.k={self.k} neighbours cannot be found among {len(x)} training rows; lower it.")
        rows = x.flatten(1)
        self.centre = rows.mean(0, dtype=torch.float64).to(rows.dtype)
        self.memory = rows - self.centre
        self.reach = self.memory.square().sum(1).max().sqrt()

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        rows = x.flatten(1) - self.centre
        wide = min(len(self.memory), 65536)
        tall = max(1, int(self.budget_mb * 2**20 / (4 * (wide + (self.k + self.EXTRA) * rows.shape[1]))))
        return torch.cat([self._score(part, wide) for part in rows.split(tall)]) if len(rows) else rows.new_zeros(0)

    def _score(self, rows: Tensor, wide: int) -> Tensor:
        q = min(self.k + self.EXTRA, len(self.memory))
        best, found = rows.new_empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device)
        for start in range(0, len(self.memory), wide):
            part = self.memory[start : start + wide]
            # |x|^2 is the same for the whole line and does not change the order
            tile = torch.addmm(part.square().sum(1), rows, part.T, alpha=-2)
            value, place = tile.topk(min(q, len(part)), dim=1, largest=False)
            best, found = torch.cat([best, value], 1), torch.cat([found, place + start], 1)
            if best.shape[1] > q:
                best, keep = best.topk(q, dim=1, largest=False)
                found = found.gather(1, keep)
        squared = (self.memory[found] - rows[:, None]).square().sum(2)
        squared = squared.topk(self.k, dim=1, largest=False, sorted=True).values
        if q < len(self.memory):
            # rows left out are no nearer than the worst candidate, up to the rounding of the product form
            norm = rows.square().sum(1)
            rounding = (rows.shape[1] + 2) * torch.finfo(rows.dtype).eps * (norm.sqrt() + self.reach) ** 2
            doubtful = (best.amax(1) + norm - rounding < squared[:, -1]).nonzero()[:, 0]
            for some in doubtful.split(max(1, len(rows) // 4)) if len(doubtful) else ():
                squared[some] = self._direct(rows[some], wide)
        near = squared.sqrt()
        return near[:, -1] if self.distance == "kth" else near.mean(1)

    def _direct(self, rows: Tensor, wide: int) -> Tensor:
        """The k smallest squared distances from differences alone: slower, for rows in a crowd far from the centre."""
        best = rows.new_empty(len(rows), 0)
        for part in self.memory.split(wide):
            tile = torch.cdist(rows, part, compute_mode="donot_use_mm_for_euclid_dist").square()
            best = torch.cat([best, tile], 1).topk(min(self.k, best.shape[1] + len(part)), dim=1, largest=False).values
        return best
