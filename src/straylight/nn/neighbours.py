"""The nearest of many rows, exactly, in bounded memory.

Shapes: `B` rows asked about, `N` rows kept, `D` features, `k` neighbours, `Q` candidates.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from straylight import checks
from straylight.nn import turns

Metric = Literal["euclidean", "manhattan", "cosine"]

LARGEST = 1e17  # a coordinate whose square, and the sum of many, float32 holds; what is farther is as strange
ROUNDING = {"highest": 2.0**-23, "high": 2.0**-10, "medium": 2.0**-7}  # of one product, by torch's setting


class Neighbours(nn.Module):
    """Distances to the k nearest of the rows kept, on the device where they are.

    |x - t|^2 = |x|^2 + |t|^2 - 2 x.t turns the Euclidean search into matrix products. In float32 that form loses digits
    far from the origin, so rows are centred first, a few candidates more than k are kept, and their distances are taken
    again from the differences. Where the rounding could have hidden a nearer row, the search is done again without
    products. Candidates are picked in two steps: the minima of interleaved blocks of columns, then the columns of the
    blocks with the least minima, among which the least of all must be.

    Cosine distance, 1 - cos(x, t), is half the squared Euclidean distance of rows scaled to unit length; a row of zeros
    has no direction and gets one of its own, at distance 1 from all others. Manhattan distances come from differences.
    No distance carries a gradient.

    Args:
        features: D.
        metric: `euclidean`, `manhattan` or `cosine`.
        budget_mb: memory in MiB that the tile of distances may take.

    Raises:
        ValueError: if the metric is unknown or the budget is not positive.

    Example:
        >>> Neighbours(1).fit(torch.tensor([[0.], [10.], [11.]]))(torch.tensor([[3.]]), k=2)
        tensor([[3., 7.]])
    """

    memory: Tensor
    centre: Tensor
    reach: Tensor

    #: Whether it is put into a graph, which cannot go by what its numbers are; see `straylight.nn.turns`.
    traced = False
    EXTRA = 8  # candidates beyond k that are ranked again
    TALL, WIDE = 512, 65536  # rows asked about and rows kept that are looked at together, at most

    def __init__(self, features: int, metric: Metric = "euclidean", budget_mb: float = 64) -> None:
        super().__init__()
        checks.one_of("detector", Metric, metric=metric)
        checks.positive("detector", budget_mb=budget_mb)
        self.metric, self.budget_mb = metric, budget_mb
        columns = features + 2 * (metric == "cosine")  # directions for zeros asked about, and for zeros kept
        self.register_buffer("memory", torch.empty(0, columns + 1))  # centred, and the square of the length of each
        self.register_buffer("centre", torch.zeros(columns))
        self.register_buffer("reach", torch.zeros(()))  # the largest distance of a row kept from the centre

    def fit(self, rows: Tensor) -> Neighbours:
        """Keep these rows, `(N, D)`."""
        rows = self._unit(rows, kept=True)
        self.centre = rows.mean(0, dtype=torch.float64).to(rows.dtype)
        rows = (rows - self.centre).clamp(-LARGEST, LARGEST)
        self.memory = torch.cat([rows, rows.square().sum(1, keepdim=True)], 1)
        self.reach = self.memory[:, -1].max().sqrt()
        return self

    def forward(self, rows: Tensor, k: int) -> Tensor:
        """Distances of `(B, D)` to the k nearest rows kept, nearest first, `(B, k)`; see `nearest`."""
        return self.nearest(rows, k)[0]

    def nearest(self, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Distances of `(B, D)` to the k nearest rows kept, nearest first, and the places of these, twice `(B, k)`.

        Raises:
            ValueError: if fewer than k rows are kept.
        """
        if k > len(self.memory):
            raise ValueError(f"{k} neighbours cannot be found among {len(self.memory)} rows")
        if self.traced:
            return self._in_a_graph((self._unit(rows, kept=False) - self.centre).clamp(-LARGEST, LARGEST), k)
        if not len(rows):
            return rows.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=rows.device)
        rows = (self._unit(rows.detach(), kept=False) - self.centre).clamp(-LARGEST, LARGEST)
        numbers = int(self.budget_mb * 2**20 / 4)
        again = 3 * (k + self.EXTRA) * rows.shape[1] * rows.element_size() // 4
        # few wide tiles are better than many narrow ones, of which each has its own candidates
        wide = min(len(self.memory), self.WIDE)
        tall = max(64, numbers // (wide + again))
        tall = max(1, min(len(rows), self.TALL, tall, numbers // (8 * (k + self.EXTRA) + again)))
        wide = min(wide, max(256, numbers // tall - again))
        if self.metric == "manhattan":
            found = [self._differences(part, k, wide) for part in rows.split(tall)]
        else:
            memory = self.memory.float()
            room = memory.new_empty((tall + -tall % 16) * wide)  # one for all: new pages of memory are dear
            found = [self._products(part, k, memory, room, wide) for part in rows.split(tall)]
        distances, places = (torch.cat(some) for some in zip(*found, strict=True))
        if self.metric != "manhattan":
            distances = distances / 2 if self.metric == "cosine" else distances.sqrt()
        return distances, places

    def _in_a_graph(self, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Distances and places by operations that do not depend on the numbers, in double precision."""
        memory, exact = self.memory[:, :-1].double(), rows.double()
        q = min(k + self.EXTRA, len(memory))
        width = rows.shape[1] if self.metric == "manhattan" else 3
        turns.one(self, rows, int(self.budget_mb * 2**20 / (8 * (len(memory) * width + q * rows.shape[1]))))
        if self.metric == "manhattan":
            near, found = (exact[:, None] - memory).abs().sum(2).topk(k, dim=1, largest=False)
            return near.to(rows.dtype), found
        squared = torch.addmm(memory.square().sum(1), exact, memory.T, alpha=-2)  # less |x|^2, one for all
        found = squared.topk(q, dim=1, largest=False).indices
        squared = (memory[found] - exact[:, None]).square().sum(2)
        squared, order = squared.topk(k, dim=1, largest=False)
        distances = squared / 2 if self.metric == "cosine" else squared.sqrt()
        return distances.to(rows.dtype), found.gather(1, order)

    def _unit(self, rows: Tensor, kept: bool) -> Tensor:
        if self.metric != "cosine":
            return rows
        length = rows.double().norm(dim=1, keepdim=True)
        empty = length == 0
        own = [torch.zeros_like(empty), empty] if kept else [empty, torch.zeros_like(empty)]
        return torch.cat([rows / torch.where(empty, 1, length), *own], 1).to(rows.dtype)

    def _products(self, rows: Tensor, k: int, memory: Tensor, room: Tensor, wide: int) -> tuple[Tensor, Tensor]:
        """Squared distances, by candidates from products with the memory, in single precision first."""
        q, lines = min(k + self.EXTRA, len(memory)), len(rows)
        if memory.dtype != torch.float32:  # whole blocks, which round alike in any batch: of rows as near, the same win
            lines += -lines % 8
        tile = room.view(memory.dtype)[: lines * wide].view(lines, wide)
        # |x|^2 is the same for the whole line and does not change the order; |t|^2 comes in through the product, which
        # is faster than adding it to the tile
        factors = torch.cat([-2 * rows, rows.new_ones(len(rows), 1)], 1).to(memory.dtype)
        factors = functional.pad(factors, (0, 0, 0, lines - len(rows)))
        best, found = tile[: len(rows), :0], torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device)
        for start in range(0, len(memory), wide):
            part = memory[start : start + wide]
            value, place = least(torch.mm(factors, part.T, out=tile[:, : len(part)])[: len(rows)], q)
            best, found = torch.cat([best, value], 1), torch.cat([found, place + start], 1)
            if best.shape[1] > q:
                best, keep = best.topk(q, dim=1, largest=False)
                found = found.gather(1, keep)
        found = found.sort(1).values  # of rows that are as near the first are taken
        squared = (self.memory[found][..., :-1] - rows[:, None]).square().sum(2)
        squared, order = (some[:, :k] for some in squared.sort(dim=1, stable=True))
        found = found.gather(1, order)
        if q < len(self.memory):
            # rows left out are no nearer than the worst candidate, up to the rounding of the product form, and one that
            # is nearer than the k-th found is no farther from the centre than |x| and that distance together
            norm = rows.square().sum(1)
            reach = torch.minimum(self.reach, norm.sqrt() + squared[:, -1].sqrt())
            single = ROUNDING[torch.get_float32_matmul_precision()]
            resolution = single if memory.dtype == torch.float32 else torch.finfo(memory.dtype).eps
            rounding = (rows.shape[1] + 3) * resolution * (norm.sqrt() + reach) ** 2
            left_out = (best.amax(1) + norm - rounding).clamp_min(0)
            doubtful = (left_out < squared[:, -1] * (1 - 1e-9)).nonzero()[:, 0]  # in float64: or just as near
            again = max(1, len(rows) // 4) if memory is self.memory else len(room) // (2 * wide)
            for some in doubtful.split(again) if len(doubtful) else ():
                if memory is self.memory:
                    distances, found[some] = self._differences(rows[some], k, wide)
                    squared[some] = distances.square()
                else:
                    squared[some], found[some] = self._products(rows[some], k, self.memory, room, wide)
        return squared, found

    def _differences(self, rows: Tensor, k: int, wide: int) -> tuple[Tensor, Tensor]:
        """From differences alone: slower, for Manhattan and for rows in a crowd far from the centre."""
        best, found = rows.new_empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device)
        p = 1.0 if self.metric == "manhattan" else 2.0
        for start in range(0, len(self.memory), wide):
            part = self.memory[start : start + wide, :-1]
            tile = torch.cdist(rows, part, p=p, compute_mode="donot_use_mm_for_euclid_dist")
            value, place = least(tile, k)
            best, found = torch.cat([best, value], 1), torch.cat([found, place + start], 1)
            best, keep = best.topk(min(k, best.shape[1]), dim=1, largest=False, sorted=True)
            found = found.gather(1, keep)
        return best, found

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if (prefix + "memory") in state_dict:  # as long as there were training rows, and as fine
            memory = state_dict[prefix + "memory"]
            self.centre, self.reach = self.centre.to(memory.dtype), self.reach.to(memory.dtype)
            self.memory = self.centre.new_empty(len(memory), len(self.centre) + 1)
        super()._load_from_state_dict(state_dict, prefix, *args)


def least(values: Tensor, q: int) -> tuple[Tensor, Tensor]:
    """The up to q least values of each line and their places, in no order, `(B, M)` to twice `(B, min(q, M))`.

    Example:
        >>> least(torch.tensor([[3., 1., 2.]]), 1)
        (tensor([[1.]]), tensor([[1]]))
    """
    m = values.shape[1]
    q = min(q, m)
    block = 2 ** round(math.log2(max(1.0, m / q)) / 2)
    blocks = m // block
    if block < 4 or blocks < 2 * q:
        value, place = values.topk(q, dim=1, largest=False, sorted=False)
        return value, place
    # block b has columns b, b + blocks, b + 2 blocks, ...: neighbours in memory are reduced side by side
    minima = values[:, : block * blocks].unflatten(1, (block, blocks)).amin(1)
    chosen = minima.topk(q, dim=1, largest=False, sorted=False).indices
    steps = torch.arange(block, device=values.device) * blocks
    columns = (chosen[:, :, None] + steps).flatten(1)
    if block * blocks < m:
        rest = torch.arange(block * blocks, m, device=values.device)
        columns = torch.cat([columns, rest.expand(len(values), -1)], 1)
    value, place = values.gather(1, columns).topk(q, dim=1, largest=False, sorted=False)
    return value, columns.gather(1, place)
