"""Detectors without a training loop: one pass over the rows, then a fit."""

import copy
from collections.abc import Iterator
from typing import Any, Literal, Self

import torch
import torch.distributed as dist
from torch import Tensor

from straylight import checks
from straylight.detectors.base import Detector
from straylight.detectors.crossed import crossed
from straylight.detectors.parts import Parts
from straylight.detectors.trial import try_score
from straylight.nn import LogTail, turns
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
        calibrate: folds of the training rows, two or more. Then a score is -log of how improbable it is, see
            `straylight.nn.LogTail`, by scores of training rows that were each left out of a fit. So all detectors are
            on one scale. It takes as many fits again, keeps the rows while it does, and ends with no density.
        common: `context`, `scaling`, see `Detector`.

    Raises:
        DataError: in training, if there are fewer than two rows for each fold.

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

    def __init__(
        self, shape: tuple[int, ...], *, budget_mb: float = 64, calibrate: int | None = None, **common: Any
    ) -> None:
        super().__init__(shape, **common)
        checks.positive("detector", budget_mb=budget_mb)
        checks.counts("detector", 2, also="null", calibrate=calibrate)
        self.budget_mb, self.calibrate = budget_mb, calibrate
        self.tail = LogTail() if calibrate else None
        if calibrate:
            self.density = False
        self._wanted: Tensor | None = None

    def as_computed(self, x: Tensor, scaled: Tensor, context: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().as_computed(x, scaled, context)

    def told(self, x: Tensor, context: Tensor) -> Tensor:
        score = self.score(x, context)
        return score if self.tail is None else self.tail(score).float()

    def told_parts(self, x: Tensor, context: Tensor) -> Parts | None:
        """The score's own, stretched to what they come to on its scale."""
        found = self.parts(x, context)
        return found if self.tail is None else self._stretched(found)

    def told_parts_from(self, reference: Tensor, x: Tensor, context: Tensor) -> Parts | None:
        found = self.parts_from(reference, x, context)
        return found if self.tail is None else self._stretched(found)

    def _stretched(self, found: Parts | None) -> Parts | None:
        if found is None or self.tail is None:
            return None
        of = found.of.double()
        rise = of.flatten(1).sum(1)
        least = torch.as_tensor(found.baseline, device=of.device).double().expand(len(of))
        low, high = self.tail(least), self.tail(least + rise)
        by = torch.where(rise == 0, 0, (high - low) / torch.where(rise == 0, 1, rise))
        return Parts(of * by.view(-1, *[1] * (of.ndim - 1)), low, found.words)

    def twin(self) -> Self:
        """Another like this one, of which nothing is shared, without a trainer."""
        trainer, self._trainer = self._trainer, None  # which a copy would take along with the data
        try:
            return copy.deepcopy(self)
        finally:
            self._trainer = trainer

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

    def drawn(self, limit: int | None, *columns: Tensor, why: str, use: str = "is fitted to") -> tuple[Tensor, ...]:
        """Up to `limit` rows of some columns, drawn by seed and in their order, with a notice if any are left out."""
        n = len(columns[0])
        if limit is None or n <= limit:
            return columns
        self._tell_fewer(limit, n, why, use)
        order = self.rows_drawn(limit, n)
        return tuple(column.index_select(0, order.to(column.device)) for column in columns)

    def rows_drawn(self, limit: int, n: int) -> Tensor:
        """The places of `limit` of n rows, drawn by seed, in their order."""
        return torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))[:limit].sort().values

    def _tell_fewer(self, limit: int, n: int, why: str, use: str = "is fitted to") -> None:
        self.notice(f"{type(self).__name__} {use} {limit:,} of {n:,} training rows, drawn by seed: {why}.")

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        """Fit to all training rows, scaled, `(N, *shape)`, `(N, C)` and `(N,)`."""
        raise NotImplementedError(f"{type(self).__name__} must write fit(x, context, weight)")

    def update(self, batch: Batch) -> None:
        """Take in some training rows, scaled."""
        self._kept.append(batch)

    def finish(self) -> None:
        """Fit, after the last row of every rank was taken in."""
        self.fit(*_in_order(self._kept)[:3])

    @torch.no_grad()
    def training_step(self, group: Group, batch_idx: int) -> None:
        with torch.autocast(self.device.type, enabled=False):
            batch = self._looked_at(self.scaled(group.rows()))
            if self.tail is None:
                self.update(batch)
            else:  # whatever it needs for a fit: folds are fitted to rows
                self._kept.append(batch)
            if batch_idx + 1 == self.trainer.num_training_batches:  # before validation, which scores
                if self.tail is None:
                    self.finish()
                else:
                    self._fit_and_calibrate(self.tail)
                if (rows := self._first_rows()) is not None:
                    try_score(self, *rows)

    def _fit_and_calibrate(self, tail: LogTail) -> None:
        x, context, weight, index = _in_order(self._kept)
        self.fit(x, context, weight)
        events = getattr(self.trainer.train_dataloader, "events", None)
        group = None if events is None else events.meta.get("group")
        group = None if group is None else group[index.cpu()]
        tail.fit(crossed(self, x, context, weight, int(self.calibrate or 0), group))

    def _looked_at(self, batch: Batch) -> Batch:
        """The rows that the fit would look at: no other is kept."""
        if self._wanted is None:
            return batch
        wanted = self._wanted[batch.index.cpu()].nonzero().flatten().to(batch.index.device)
        return Batch(*(column.index_select(0, wanted) for column in batch))

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


def _in_order(taken: list[Batch]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Events, context, weights and places of the rows that all ranks took in, in the order of the split.

    Nothing is taken any longer.
    """
    rows = Batch(*(gathered(torch.cat(column)) for column in zip(*taken, strict=True)))
    taken.clear()
    order = rows.index.argsort()
    return rows.x[order], rows.context[order], rows.weight[order], rows.index[order]


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
