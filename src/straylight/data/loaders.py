"""Loaders that slice whole batches from memory; nothing is collated row by row.

`R` ranks; `N` rows of a split.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch

from straylight.batch import Batch, Events, Group
from straylight.errors import DataError


class GroupLoader:
    """Shuffled training rows, several mini-batches at a time, labels hidden.

    Every epoch is a permutation of all rows drawn from (seed, epoch), cut into mini-batches; each mini-batch is dealt
    to the ranks row by row, so that all ranks take the same number of steps and together see every row once. A last
    mini-batch too small to give each rank a row joins the one before it.

    It tells Lightning its length (without one a batch is fetched before the epoch is known), shuffles by
    `set_epoch`, and keeps its place in `state_dict`, which makes a resume in mid-epoch exact.

    Args:
        events: the training split.
        batch_size: rows of a mini-batch over all ranks.
        group: mini-batches yielded at a time.
        seed, rank, world: what the permutation is drawn from, and which part of it is served.

    Raises:
        DataError: if there are fewer rows, or rows in a mini-batch, than ranks.

    Example:
        >>> loader = GroupLoader(Events.of(torch.zeros(10, 2)), batch_size=4, group=2)
        >>> [group.sizes for group in loader]
        [(4, 4), (2,)]
    """

    def __init__(
        self, events: Events, *, batch_size: int, group: int = 32, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        n = len(events)
        if n < world:
            raise DataError(f"{n} training rows cannot be shared by {world} processes; lower trainer.devices.")
        if batch_size < world:
            raise DataError(
                f"data.batch_size={batch_size} rows cannot be shared by {world} processes; raise it or lower "
                "trainer.devices."
            )
        self.events, self.seed, self.rank, self.world = events, seed, rank, world
        cuts = [*range(0, n, batch_size), n]
        if n - cuts[-2] < world and len(cuts) > 2:
            del cuts[-2]
        spans = list(pairwise(cuts))
        self._groups = [spans[i : i + group] for i in range(0, len(spans), group)]
        self.steps = len(spans)
        self.epoch = self._done = self._start = 0
        self.sampler = self  # where Lightning looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._groups)

    def steps_in(self, groups: int) -> int:
        """How many mini-batches the first groups of an epoch hold."""
        return sum(map(len, self._groups[:groups]))

    def __iter__(self) -> Iterator[Group]:
        # a generator: Lightning calls iter before set_epoch, and the epoch is read at the first next
        order = torch.randperm(
            len(self.events), generator=torch.Generator().manual_seed(self.seed * 65537 + self.epoch)
        )
        start, self._start = self._start, 0
        for number in range(start, len(self._groups)):
            spans = self._groups[number]
            totals = sizes = tuple(high - low for low, high in spans)
            if self.world > 1:
                parts = [order[low + self.rank : high : self.world] for low, high in spans]
                rows, sizes = torch.cat(parts), tuple(len(part) for part in parts)
            else:
                rows = order[spans[0][0] : spans[-1][1]]
            self._done = number + 1
            events = self.events
            yield Group(events.x, events.context, events.weight, rows, rows, sizes, totals)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self._done % len(self._groups)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._start = self._done = int(state["done"])


class BatchLoader:
    """Rows in order, whole batches dealt round robin to the ranks, labels as they are.

    A rank that would get none gets a copy of the first batch, which whoever gathers by index drops again: an empty
    rank would never reach the gathering.

    Args:
        events: a validation or test split.
        batch_size: rows of a batch.
        rank, world: which batches are served.

    Example:
        >>> [len(batch.x) for batch in BatchLoader(Events.of(torch.zeros(10, 2)), batch_size=4)]
        [4, 4, 2]
    """

    def __init__(self, events: Events, *, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.events, self.batch_size = events, batch_size
        starts = range(0, len(events), batch_size)
        self._starts = starts[rank::world] or starts[:1]

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Batch]:
        events = self.events
        for start in self._starts:
            part = slice(start, start + self.batch_size)
            rows = torch.arange(start, min(start + self.batch_size, len(events)))
            yield Batch(events.x[part], events.y[part], events.context[part], events.weight[part], rows)
