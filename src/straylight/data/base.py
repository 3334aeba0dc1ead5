"""What every data set is: four splits, checked once, served in whole batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import pytorch_lightning as pl
import torch
from torch import Tensor

from straylight.batch import Batch, Events, Group, Splits
from straylight.data.loaders import BatchLoader, GroupLoader
from straylight.data.splits import contaminate, halves, nominal_only
from straylight.errors import DataError

CHUNK = 65536  # rows looked at together when a whole split is read


class AnomalyDataModule(pl.LightningDataModule):
    """Base of all data sets. A subclass writes `load() -> Splits`, and `kinds` where there is more than one.

    Splits are made before anything is fitted. Training labels are served hidden. Validation is halved by seed: one
    half selects epochs, the other (`calibration_dataloader`) is for thresholds. Test rows touch nothing before the
    test.

    Args:
        batch_size: rows of a mini-batch, over all devices.
        eval_batch_size: rows of an evaluation batch.
        group: mini-batches handed to the Trainer at a time; changes the speed, never the weights.
        contamination: the fraction of anomalies among training rows, drawn from those in reserve; `None` as found.
        train_fraction, val_fraction, reserve_fraction: see `straylight.data.splits.nominal_only`.
        seed: of splits and shuffling.

    Raises:
        DataError: from `setup`, in one sentence, if rows are missing, not finite, or of one class only.

    Example:
        >>> class Line(AnomalyDataModule):
        ...     def load(self):
        ...         x = torch.arange(100.)[:, None]
        ...         return self.split(Events.of(x, (x[:, 0] > 90).long()))
        >>> data = Line(seed=1)
        >>> data.setup()
        >>> data.shape, len(data.splits.test)
        ((1,), 54)
    """

    #: Names of the labels 0..K.
    kinds: tuple[str, ...] = ("nominal", "anomaly")
    #: Names of the features, where the data has them.
    columns: Sequence[str] = ()

    def __init__(
        self,
        *,
        batch_size: int = 128,
        eval_batch_size: int = 65536,
        group: int = 32,
        contamination: float | None = 0.0,
        train_fraction: float = 0.5,
        val_fraction: float = 0.1,
        reserve_fraction: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "group": group}.items():
            if value < 1:
                raise DataError(f"data.{name} must be positive, not {value}.")
        self.batch_size, self.eval_batch_size, self.group = batch_size, eval_batch_size, group
        self.contamination, self.seed = contamination, seed
        self.train_fraction, self.val_fraction, self.reserve_fraction = train_fraction, val_fraction, reserve_fraction

    # what a subclass writes

    def load(self) -> Splits:
        """Read or generate the rows and split them."""
        raise NotImplementedError(f"{type(self).__name__} must write load()")

    @property
    def name(self) -> str:  # type: ignore[override]
        """What the data set is called in tables."""
        return type(self).__name__.lower()

    def split(self, events: Events) -> Splits:
        """Split by the one-class protocol with this data set's fractions and seed."""
        return nominal_only(
            events,
            seed=self.seed,
            train=self.train_fraction,
            val=self.val_fraction,
            reserve=self.reserve_fraction,
        )

    # what it serves

    @cached_property
    def splits(self) -> Splits:
        """The four splits, loaded, checked and contaminated at the first call."""
        found = self.load()
        self._check_finite(found)
        train = contaminate(found.train, found.reserve, self.contamination, self.seed)
        splits = found._replace(train=train)
        self._check_classes(splits)
        if train.weight.stride(0) != 0:  # one on average over training rows, so that losses keep their scale
            scale = train.weight.mean()
            val = replace(found.val, weight=found.val.weight / scale)
            splits = splits._replace(train=replace(train, weight=train.weight / scale), val=val)
        return splits

    @cached_property
    def _val_halves(self) -> tuple[Events, Events]:
        return halves(self.splits.val, self.seed)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one event."""
        return tuple(self.splits.train.x.shape[1:])

    @property
    def context(self) -> int:
        """Columns of context."""
        return self.splits.train.context.shape[1]

    def setup(self, stage: str | None = None) -> None:
        if not len(self.splits.val) and self.trainer:
            self.trainer.limit_val_batches = 0  # Lightning warns of a loader without rows, and this is meant

    def training_rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The training rows as served and their weights, in chunks of `(n, *shape)` and `(n,)`."""
        train = self.splits.train
        yield from zip(train.x.split(CHUNK), train.weight.split(CHUNK), strict=True)

    def training_sample(self, n: int) -> tuple[Tensor, Tensor]:
        """Up to n training rows, evenly spaced, and their context, `(n, *shape)` and `(n, C)`."""
        train = self.splits.train
        rows = torch.arange(0, len(train), max(1, -(-len(train) // n)))
        return train.x.index_select(0, rows), train.context.index_select(0, rows)

    def train_dataloader(self) -> GroupLoader:
        rank, world = self._place
        return GroupLoader(
            self.splits.train, batch_size=self.batch_size, group=self.group, seed=self.seed, rank=rank, world=world
        )

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """The half of validation that selects; nothing where there is no validation."""
        return self._evaluation(self._val_halves[0])

    def calibration_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """The half of validation that thresholds are set on."""
        return self._evaluation(self._val_halves[1])

    def test_dataloader(self) -> BatchLoader | list[BatchLoader]:
        return self._evaluation(self.splits.test)

    predict_dataloader = test_dataloader

    def transfer_batch_to_device(
        self, batch: Batch | Group, device: torch.device, dataloader_idx: int
    ) -> Batch | Group:
        if isinstance(batch, Group):
            return batch.to(device)
        # Lightning would take a batch apart to find that it is there already
        return batch if batch.x.device == device else batch.to(device)

    def _evaluation(self, events: Events) -> BatchLoader | list[BatchLoader]:
        rank, world = self._place
        return BatchLoader(events, batch_size=self.eval_batch_size, rank=rank, world=world) if len(events) else []

    @property
    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _check_finite(self, splits: Splits) -> None:
        bad = torch.zeros(math.prod(splits.train.x.shape[1:]), dtype=torch.int64)
        rows = 0
        for chunk in (chunk for events in splits for chunk in events.x.split(CHUNK)):
            wrong = ~chunk.flatten(1).isfinite()
            if wrong.any():
                bad += wrong.sum(0)
                rows += int(wrong.any(1).sum())
        if not rows:
            return
        worst = bad.argsort(descending=True, stable=True)[: min(5, int((bad > 0).sum()))].tolist()
        named = ", ".join(f"{self._column(i)} ({int(bad[i])} row{'s' if bad[i] > 1 else ''})" for i in worst)
        more = int((bad > 0).sum()) - len(worst)
        raise DataError(
            f"{self.name}: {rows} of {sum(map(len, splits))} rows hold a NaN or an infinity, in {named}"
            f"{f' and {more} more columns' if more else ''}; remove or fill them in before training."
        )

    def _column(self, i: int) -> str:
        return f"column {self.columns[i]!r}" if i < len(self.columns) else f"column {i}"

    def _check_classes(self, splits: Splits) -> None:
        if not len(splits.train):
            raise DataError(
                f"{self.name}: there are no nominal rows to train on; check the labels (0 is nominal), "
                "data.train_fraction and data.val_fraction."
            )
        for label, what in ((splits.test.y == 0, "nominal"), (splits.test.y > 0, "anomalous")):
            if not label.any():
                raise DataError(
                    f"{self.name}: the test split of {len(splits.test)} rows holds no {what} row, so that nothing can "
                    "be ranked; check the labels (0 is nominal, larger is anomalous) and data.train_fraction."
                )
