"""Detectors without a training loop: one pass over the rows, then a fit."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from straylight import checks
from straylight.detectors.base import Detector
from straylight.detectors.trial import try_score
from straylight.nn import turns
from straylight.rows.batch import Batch, Group


class FittedDetector(Detector):
    """A detector that sees every training row once and is then fitted. A subclass writes `fit` and `score`.

    Rows come back in the order of the split, gathered over all ranks, so that neither shuffling nor the number of
    processes changes what is fitted. One that needs only sums of the rows overrides `update` and `finish` and keeps
    no row. Reduced precision is for networks: here autocast is off.

    Args:
        shape: the shape of one event.
        budget_mb: memory in MiB that matrices of rows by training rows, by components or by features may take beside
            the rows themselves; more rows are taken in turns.
        common: `context`, `scaling`, see `Detector`.

    Example:
        >>> class Mean(FittedDetector):
        ...     def __init__(self, shape, **common):
        ...         super().__init__(shape, **common)
        ...         self.register_buffer("mean", torch.zeros(shape))
        ...     def fit(self, x, context, weight):
        ...         self.mean = x.mean(0)
        ...     def score(self, x, context):
        ...         return (x - self.mean).flatten(1).norm(dim=1)
    """

    selects = False
    one_pass = True
    explained_by: Literal["exact", "gradients", "shapley"] = "shapley"
    #: Training rows that are looked at, at most; `None` for all.
    max_rows: int | None = None
    #: Why no more are.
    why_fewer = "its cost grows with them (detector.max_rows)"

    def __init__(self, shape: tuple[int, ...], *, budget_mb: float = 64, **common: Any) -> None:
        super().__init__(shape, **common)
        checks.positive("detector", budget_mb=budget_mb)
        self.budget_mb = budget_mb
        self._wanted: Tensor | None = None

    def as_computed(self, x: Tensor, scaled: Tensor, context: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().as_computed(x, scaled, context)

    @property
    def seed(self) -> int:
        """What random choices of a fit are drawn from."""
        return (torch.initial_seed() if self._noise_seed is None else self._noise_seed) % 2**32

    def in_turns(self, rows: Tensor, numbers: int, most: int = 2**62) -> Iterator[Tensor]:
        """Rows in parts of no more than `most` for which as many float64 numbers each stay within the budget."""
        tall = max(1, min(most, int(self.budget_mb * 2**20 / (8 * max(1, numbers)))))
        if turns.one(self, rows, tall):
            return iter((rows,))
        return iter(rows.split(tall)) if len(rows) else iter((rows,))

    def expect(self, operations: float, advice: str) -> None:
        """Give notice before a fit of so many floating-point operations if it is a matter of minutes or more."""
        if operations > 1e12:
            self.notice(
                f"{type(self).__name__} may take {operations:.0e} floating-point operations, of which a core does some "
                f"1e+10 in a second; {advice}."
            )

    def no_weights(self, weight: Tensor) -> None:
        """Give notice that event weights are not read, if there are any."""
        if (weight != weight[0]).any():
            self.notice(f"{type(self).__name__} does not read event weights: all rows count as one.")

    def most(self, n: int) -> int | None:
        """How many of n training rows the fit looks at; `None` for all."""
        return self.max_rows

    def kept(self, *columns: Tensor) -> tuple[Tensor, ...]:
        """Some columns of the training rows that the fit looks at: of all rows, unless there are too many."""
        return self.drawn(self.most(len(columns[0])), *columns, why=self.why_fewer)

    def drawn(self, limit: int | None, *columns: Tensor, why: str) -> tuple[Tensor, ...]:
        """Up to `limit` rows of some columns, drawn by seed and in their order, with a notice if any are left out."""
        n = len(columns[0])
        if limit is None or n <= limit:
            return columns
        self._tell_fewer(limit, n, why)
        order = self.rows_drawn(limit, n)
        return tuple(column.index_select(0, order.to(column.device)) for column in columns)

    def rows_drawn(self, limit: int, n: int) -> Tensor:
        """The places of `limit` of n rows, drawn by seed, in their order."""
        return torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))[:limit].sort().values

    def _tell_fewer(self, limit: int, n: int, why: str) -> None:
        self.notice(f"{type(self).__name__} is fitted to {limit:,} of {n:,} training rows, drawn by seed: {why}.")

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        """Fit to all training rows, scaled, `(N, *shape)`, `(N, C)` and `(N,)`."""
        raise NotImplementedError(f"{type(self).__name__} must write fit(x, context, weight)")

    def update(self, batch: Batch) -> None:
        """Take in some training rows, scaled; those that the fit would not look at are not kept."""
        if self._wanted is not None:
            wanted = self._wanted[batch.index.cpu()].nonzero().flatten().to(batch.index.device)
            batch = Batch(*(column.index_select(0, wanted) for column in batch))
        self._kept.append(batch)

    def finish(self) -> None:
        """Fit, after the last row of every rank was taken in."""
        rows = Batch(*(gathered(torch.cat(column)) for column in zip(*self._kept, strict=True)))
        self._kept.clear()
        order = rows.index.argsort()
        self.fit(rows.x[order], rows.context[order], rows.weight[order])

    @torch.no_grad()
    def training_step(self, group: Group, batch_idx: int) -> None:
        with torch.autocast(self.device.type, enabled=False):
            self.update(self.scaled(group.rows()))
            if batch_idx + 1 == self.trainer.num_training_batches:  # before validation, which scores
                self.finish()
                if (rows := self._first_rows()) is not None:
                    try_score(self, *rows)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._kept: list[Batch] = []
        self.notices.clear()
        self._wanted = self._choose()

    def _choose(self) -> Tensor | None:
        """Which rows the fit will look at, `(N,)` bool, before those that may not fit in memory; `None` for all."""
        events = getattr(self.trainer.train_dataloader, "events", None)
        if events is None or (limit := self.most(len(events))) is None or len(events) <= limit:
            return None
        if not (events.weight > 0).all():
            return None  # rows without weight are left out first, by the fit
        self._tell_fewer(limit, len(events), self.why_fewer)
        wanted = torch.zeros(len(events), dtype=torch.bool)
        wanted[self.rows_drawn(limit, len(events))] = True
        return wanted

    def on_train_epoch_end(self) -> None:
        self.trainer.should_stop = True  # one pass is all there is


def gathered(rows: Tensor) -> Tensor:
    """The rows of all ranks one after the other, `(n, ...)` of this rank to `(N, ...)`; ranks may differ in `n`."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows
    counts = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=rows.device)
    counts[dist.get_rank()] = len(rows)
    dist.all_reduce(counts)
    padded = rows.new_zeros(int(counts.max()), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:n] for part, n in zip(parts, counts.tolist(), strict=True)])
