"""Loaders that slice whole batches from memory or from disk; nothing is collated row by row.

`R` ranks; `N` rows of a split.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise, repeat
from typing import Any, TypeVar

import torch
from torch import Tensor

from straylight.errors import ConfigError, DataError
from straylight.rows.batch import Batch, Events, Group, taken
from straylight.rows.mapped import Mapped
from straylight.rows.order import BlockShuffled, Order, Shuffled
from straylight.rows.stretches import Stretches

T = TypeVar("T")


class GroupLoader:
    """Shuffled training rows, several mini-batches at a time, labels hidden.

    Every epoch is a permutation of all rows drawn from (seed, epoch), cut into mini-batches; each mini-batch is dealt
    to the ranks row by row, so that all ranks take the same number of steps and together see every row once. A last
    mini-batch too small to give each rank a row joins the one before it. Rows on disk are shuffled in blocks (see
    `BlockShuffled`) and read a group at a time, in the order of the file.

    By parts each of several ranks has rows of its own, see `Stretches`, shuffles among these, and has as many steps as
    the others: its rows are spread evenly over them, so that mini-batches are of equal size but for a row a rank. Every
    row is seen once an epoch even so.

    It tells Lightning its length (without one a batch is fetched before the epoch is known), shuffles by
    `set_epoch`, and keeps its place in `state_dict`, which makes a resume in mid-epoch exact.

    Args:
        events: the training split.
        batch_size: rows of a mini-batch over all ranks.
        group: mini-batches yielded at a time.
        seed, rank, world: what the permutation is drawn from, and which part of it is served.
        workers: threads that read ahead where rows are on disk; they change no batch.
        fixed: whether every epoch serves the mini-batches of the first, as where few are to be learned by heart.
        by_parts: whether ranks have rows of their own where these are on disk.

    Raises:
        DataError: if there are fewer rows, or rows in a mini-batch, than ranks.

    Example:
        >>> loader = GroupLoader(Events.of(torch.zeros(10, 2)), batch_size=4, group=2)
        >>> [group.sizes for group in loader]
        [(4, 4), (2,)]
    """

    def __init__(
        self,
        events: Events,
        *,
        batch_size: int,
        group: int = 32,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        fixed: bool = False,
        by_parts: bool = False,
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
        self.on_disk = isinstance(events.x, Mapped)
        self.workers = workers if self.on_disk else 0
        # of n rows in batches of b: where each ends; kept as numbers, since there may be a hundred thousand
        self._ends = [*range(batch_size, n, batch_size), n]
        if len(self._ends) > 1 and n - self._ends[-2] < world:
            del self._ends[-2]
        self.group = group
        self.steps = len(self._ends)
        self._own = None
        if by_parts and world > 1 and isinstance(events.x, Mapped):
            self._own = Stretches(events.x, world, least=self.steps)
        self.served = len(self)  # groups of an epoch that are asked for, which a Trainer's limit makes fewer
        self.epoch = self._done = self._start = 0
        if not fixed:
            self.sampler = self  # where Lightning looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.steps // self.group)

    def steps_in(self, groups: int) -> int:
        """How many mini-batches the first groups of an epoch hold."""
        return min(groups * self.group, self.steps)

    def __iter__(self) -> Iterator[Group]:
        # a generator: Lightning calls iter before set_epoch, and the epoch is read at the first next
        n, seed = len(self.events), self.seed * 65537 + self.epoch
        if self._own is not None:
            n, seed = self._own.sizes[self.rank], (seed * 1_000_003 + self.rank) % 2**62
        order: Order = BlockShuffled(n, seed) if self.on_disk else Shuffled(n, seed)
        start, self._start = self._start, 0
        places = (self._place(order, number) for number in range(start, len(self)))
        for number, group in enumerate(ahead(self._read, places, self.workers), start + 1):
            self._done = number
            yield group

    def _place(self, order: Order, number: int) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
        """The rows of this rank in a group of mini-batches, how many in each, and how many on all ranks."""
        first = number * self.group
        if self._own is not None:
            return self._own_place(self._own, order, range(first, min(first + self.group, self.steps) + 1))
        cuts = [self._ends[first - 1] if first else 0, *self._ends[first : first + self.group]]
        totals = tuple(high - low for low, high in pairwise(cuts))
        rows = order.part(cuts[0], cuts[-1])
        if self.world == 1:
            return rows, totals, totals
        parts = [part[self.rank :: self.world] for part in rows.split(totals)]
        return torch.cat(parts), tuple(map(len, parts)), totals

    def _own_place(self, own: Stretches, order: Order, steps: range) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
        """The same of rows that are this rank's own."""
        cuts = [[step * n // self.steps for step in steps] for n in own.sizes]
        sizes = [[high - low for low, high in pairwise(ends)] for ends in cuts]
        here = order.part(cuts[self.rank][0], cuts[self.rank][-1])
        rows = torch.from_numpy(own.rows(self.rank, here.numpy()))
        return rows, tuple(sizes[self.rank]), tuple(map(sum, zip(*sizes, strict=True)))

    def _read(self, place: tuple[Tensor, tuple[int, ...], tuple[int, ...]]) -> Group:
        rows, sizes, totals = place
        events = self.events
        if isinstance(events.x, Tensor):
            if events.x.device != rows.device:
                rows = rows.to(events.x.device)
            return Group(events.x, events.context, events.weight, rows, rows, sizes, totals)
        ordered, where = rows.sort()
        x = events.x.index_select(0, ordered)
        context = events.context.index_select(0, ordered)
        even = events.weight.stride(0) == 0
        weight = events.weight[: len(rows)] if even else events.weight.index_select(0, ordered)
        return Group(x, context, weight, where.argsort(), rows, sizes, totals)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self._done % max(1, self.served), "group": self.group, "ranks": self._ranks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._start = self._done = int(state["done"])
        if self._done and self.group != state.get("group", self.group):  # which earlier versions do not say
            raise ConfigError(
                f"An epoch that was interrupted by {_at_a_time(state['group'])} cannot be ended by "
                f"{_at_a_time(self.group)}: go on with the Trainer's limits and the data.group that it was begun with."
            )
        if self._done and self._ranks != (before := state.get("ranks", self._ranks)):
            raise ConfigError(
                f"An epoch in which {_ranks_had(before)} cannot be ended where {_ranks_had(self._ranks)}: go on with "
                "the trainer.devices and the data.memory_mb that it was begun with."
            )

    @property
    def _ranks(self) -> int:
        """How many ranks have rows of their own; none, where any row may be any rank's."""
        return 0 if self._own is None else self.world


def _at_a_time(group: int) -> str:
    return "single mini-batches" if group == 1 else f"groups of {group} mini-batches"


def _ranks_had(ranks: int) -> str:
    return f"{ranks} processes read files of their own" if ranks else "all processes read the same files"


class BatchLoader:
    """Rows in order, whole batches dealt round robin to the ranks, labels as they are.

    Batches are made small enough for each rank to have one. Where there are fewer rows than ranks, a rank without any
    gets a copy of the first, which whoever gathers by index drops again: an empty rank would never reach the gathering.

    Args:
        events: a validation or test split.
        batch_size: rows of a batch, at most.
        seed: of the random order that the rows come in, so that any of the first batches are a fair sample of all;
            `None` leaves them as they lie.
        rank, world: which batches are served.
        workers: threads that read ahead where rows are on disk.
        by_parts: whether a rank is served batches that follow each other where rows are on disk and come in order.

    Example:
        >>> [len(batch.x) for batch in BatchLoader(Events.of(torch.zeros(10, 2)), batch_size=4)]
        [4, 4, 2]
    """

    def __init__(
        self,
        events: Events,
        *,
        batch_size: int,
        seed: int | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        by_parts: bool = False,
    ) -> None:
        self._order = None if seed is None else Shuffled(len(events), seed)
        self.events, self.batch_size = events, max(1, min(batch_size, len(events) // world))
        self.workers = workers if isinstance(events.x, Mapped) else 0
        starts = range(0, len(events), self.batch_size)
        neighbours = by_parts and seed is None and isinstance(events.x, Mapped)
        low, high = (step * len(starts) // world for step in (rank, rank + 1))
        self._starts = (starts[low:high] if neighbours else starts[rank::world]) or starts[:1]

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Batch]:
        yield from ahead(self._read, self._starts, self.workers)

    def _read(self, start: int) -> Batch:
        events, part = self.events, slice(start, start + self.batch_size)
        if self._order is not None:
            rows, _ = self._order.part(start, start + self.batch_size).sort()  # as they lie in a file
            y, context, weight = taken(events.y, rows).long(), events.context[rows], taken(events.weight, rows)
            return Batch(events.x.index_select(0, rows), y, context, weight, rows)
        rows = torch.arange(start, min(start + self.batch_size, len(events)))
        return Batch(events.x[part], events.y[part].long(), events.context[part], events.weight[part], rows)


def ahead(read: Callable[[Any], T], places: Sequence[Any] | Iterator[Any], workers: int) -> Iterator[T]:
    """What `read` makes of each place, in their order; threads work on the next ones meanwhile.

    Example:
        >>> list(ahead(abs, [-1, 2, -3], workers=2))
        [1, 2, 3]
    """
    if not workers:
        yield from map(read, places)
        return
    todo = iter(places)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="straylight-reader")
    try:
        waiting = deque(pool.submit(read, place) for place in islice(todo, workers + 1))
        while waiting:
            ready = waiting.popleft().result()
            waiting.extend(pool.submit(read, place) for place in islice(todo, 1))
            yield ready
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next of which a thread makes meanwhile.

    Example:
        >>> list(read_ahead(iter("abc")))
        ['a', 'b', 'c']
    """
    over: Any = object()
    for item in ahead(lambda _: next(items, over), repeat(None), workers=1):
        if item is over:
            return
        yield item
