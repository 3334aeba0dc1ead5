"""Detectors without a training loop: one pass over the rows, then a fit."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from straylight.batch import Batch, Group
from straylight.detectors.base import Detector


class FittedDetector(Detector):
    """A detector that sees every training row once and is then fitted. A subclass writes `fit` and `score`.

    Rows come back in the order of the split, gathered over all ranks, so that neither shuffling nor the number of
    processes changes what is fitted. One that needs only sums of the rows overrides `update` and `finish` and keeps
    no row.

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

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        """Fit to all training rows, scaled, `(N, *shape)`, `(N, C)` and `(N,)`."""
        raise NotImplementedError(f"{type(self).__name__} must write fit(x, context, weight)")

    def update(self, batch: Batch) -> None:
        """Take in some training rows, scaled."""
        self._kept.append(batch)

    def finish(self) -> None:
        """Fit, after the last row of every rank was taken in."""
        rows = Batch(*(gathered(torch.cat(column)) for column in zip(*self._kept, strict=True)))
        self._kept.clear()
        order = rows.index.argsort()
        self.fit(rows.x[order], rows.context[order], rows.weight[order])

    @torch.no_grad()
    def training_step(self, group: Group, batch_idx: int) -> None:
        self.update(self.scaled(group.rows()))
        if batch_idx + 1 == self.trainer.num_training_batches:  # before validation, which scores
            self.finish()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._kept: list[Batch] = []

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
