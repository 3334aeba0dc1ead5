"""In which order an epoch takes the rows.

`N` rows of a split.
"""

from typing import Protocol

import torch
from torch import Tensor


class Order(Protocol):
    """A permutation of the rows of a split."""

    def part(self, low: int, high: int) -> Tensor:
        """The rows at positions `low` to `high` of the epoch, int64."""


class Shuffled:
    """Every permutation is as likely as every other: for rows in memory.

    Args:
        n: rows.
        seed: of the permutation.

    Example:
        >>> sorted(Shuffled(5, 0).part(0, 5).tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(self, n: int, seed: int) -> None:
        self._order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))

    def part(self, low: int, high: int) -> Tensor:
        return self._order[low:high]


class BlockShuffled:
    """Blocks of neighbouring rows in random order, and within some of them together every permutation.

    For rows on disk: what is read at a time lies in a few places of the file, however long that is, and no order of all
    rows is kept. Any part can be had without those before it.

    Args:
        n: rows.
        seed: of the permutation.
        block: rows of a block.
        window: blocks that are shuffled together.

    Example:
        >>> sorted(BlockShuffled(10, 0, block=2, window=2).part(0, 10).tolist()) == list(range(10))
        True
    """

    def __init__(self, n: int, seed: int, *, block: int = 4096, window: int = 256) -> None:
        self._n, self._seed, self._block = n, seed, block
        blocks = torch.randperm(-(-n // block), generator=torch.Generator().manual_seed(seed))
        self._windows = blocks.split(window) if n else ()
        rows = torch.tensor([sum(min(block, n - b * block) for b in window.tolist()) for window in self._windows])
        self._ends = rows.cumsum(0) if n else rows
        self._kept: tuple[int, Tensor] | None = None

    def part(self, low: int, high: int) -> Tensor:
        parts = []
        while low < high:
            number = int(torch.searchsorted(self._ends, low, right=True))
            end = int(self._ends[number])
            window = self._window(number)
            start = end - len(window)
            parts.append(window[low - start : min(high, end) - start])
            low = end
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)

    def _window(self, number: int) -> Tensor:
        if self._kept is None or self._kept[0] != number:
            firsts = self._windows[number] * self._block
            rows = (firsts[:, None] + torch.arange(self._block)).flatten()
            rows = rows[rows < self._n]
            own = torch.Generator().manual_seed((self._seed * 1_000_003 + number + 1) % 2**63)
            self._kept = number, rows[torch.randperm(len(rows), generator=own)]
        return self._kept[1]
