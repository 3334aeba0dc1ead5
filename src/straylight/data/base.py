"""What every data set is: four splits, checked once, served in whole batches."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import ArrayLike
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor

from straylight.data.steps.contamination import contaminate
from straylight.data.steps.dte import LARGE, dte, refuse, said, with_means
from straylight.data.steps.limits import Limit, check_interval, counts, left_by, limits
from straylight.data.steps.overlap import found_in
from straylight.data.steps.splits import Places, halves, nominal_only, unsupervised
from straylight.errors import DataError
from straylight.metrics.conformal import needed
from straylight.rows.batch import HIDDEN, Batch, Events, Group, Splits
from straylight.rows.loaders import BatchLoader, GroupLoader
from straylight.rows.mapped import CHUNK, Mapped
from straylight.rows.missing import Missing, filling, lacking, medians
from straylight.rows.resonance import Resonance, Truth
from straylight.rows.stretches import Stretches

log = logging.getLogger(__name__)

Protocol = Literal["nominal_only", "unsupervised", "dte"]
SHARE = 0.5  # of a GPU's free memory that the training split may take
LOOKED_AT = 2**27  # values that are looked through for overlaps without being asked to


class AnomalyDataModule(pl.LightningDataModule):
    """Base of all data sets. A subclass writes `load() -> Splits`, and `kinds` where there is more than one.

    Splits are made before anything is fitted. Training labels are served hidden. Validation is halved by seed: one
    half selects epochs, by its rows that are not known to be anomalous; the other (`calibration_dataloader`) is for
    thresholds. Test rows touch nothing before the test. A batch in a limit of the Trainer's is a mini-batch, of
    `batch_size` rows: where validation or test are limited, so many are drawn by seed from all of their rows.

    Args:
        batch_size: rows of a mini-batch, over all devices.
        eval_batch_size: rows of an evaluation batch.
        group: mini-batches handed to the Trainer at a time; changes the speed, never the weights. One, whatever is
            given, where an option of the Trainer counts mini-batches.
        protocol: `nominal_only`, the one-class protocol, or `unsupervised`, in which all rows train and the same rows
            are tested. `dte`, for comparison with published tables only, is that of `straylight.data.steps.dte`. Data
            sets that come with splits of their own know the first only.
        contamination: the fraction of anomalies among training rows, drawn from those found there and those in
            reserve; 0 leaves none, `None` leaves them as found, and by `nominal_only` none are.
        train_fraction, val_fraction, reserve_fraction: see `straylight.data.steps.splits.nominal_only`.
        smallest_fpr: the least false-positive rate that thresholds are asked for: as many rows validate as set one in
            the half that calibrates, if that is no more than half of them; `None` leaves it to `val_fraction`.
        missing: what is done about a NaN or an infinity: `error`; `median`, of the training rows; `indicator`, the same
            with one more column for each feature that some training row lacks; `skip`, which leaves such rows out.
        overlap: test rows that stand in another split too are named by `report`, and left out of the test by `drop`.
        memory_mb: splits on disk that take no more than this together, in MiB, are read into memory.
        workers: threads that read ahead of training and evaluation where rows are on disk; they change no batch.
        device: `auto` keeps the training split on a GPU where it takes no more than half of what is free there, so
            that no batch crosses the bus; `cpu` never does.
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
    #: Log-density of nominal rows in nats, `(B, *shape)` to `(B,)`, where it is known.
    log_prob: Callable[[Tensor], Tensor] | None = None
    #: The resonant variable and its signal region, where the data has them.
    resonance: Resonance | None = None
    #: Log-ratio of the densities of signal and background in the signal region, features and context, `(B, *shape)`
    #: and `(B, C)`, to `(B,)`, where it is known: the best score there is of features alone.
    log_ratio: Callable[[Tensor, Tensor], Tensor] | None = None
    #: Whether the rows are of several files, of which each rank reads its own if they stay on disk.
    by_parts: bool = False
    #: Whether an event is a series: its first axis is time.
    series: bool = False
    #: Rows that `protocol=dte` keeps at most.
    max_rows: int | None = LARGE

    def __init__(
        self,
        *,
        batch_size: int = 128,
        eval_batch_size: int = 65536,
        group: int = 32,
        protocol: Protocol = "nominal_only",
        contamination: float | None = None,
        train_fraction: float = 0.5,
        val_fraction: float = 0.1,
        smallest_fpr: float | None = None,
        reserve_fraction: float = 0.0,
        missing: Missing = "error",
        overlap: Literal["report", "drop"] = "report",
        memory_mb: int = 4096,
        workers: int = 1,
        device: Literal["auto", "cpu"] = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "group": group}.items():
            if value < 1:
                raise DataError(f"data.{name} must be positive, not {value}.")
        for name, value in {"memory_mb": memory_mb, "workers": workers}.items():
            if value < 0:
                raise DataError(f"data.{name} must not be negative, and is {value}.")
        self.batch_size, self.eval_batch_size, self.group = batch_size, eval_batch_size, group
        self.protocol, self.contamination, self.seed = protocol, contamination, seed
        if protocol == "dte":
            asked = {
                "contamination": (contamination, None),
                "train_fraction": (train_fraction, 0.5),
                "reserve_fraction": (reserve_fraction, 0),
                "overlap": (overlap, "report"),
            }
            refuse(**{key: value for key, (value, usual) in asked.items() if value != usual})
        if smallest_fpr is not None and not 0 < smallest_fpr < 1:
            raise DataError(f"data.smallest_fpr must lie between 0 and 1, or be null, not {smallest_fpr}.")
        self.train_fraction, self.val_fraction, self.reserve_fraction = train_fraction, val_fraction, reserve_fraction
        self.smallest_fpr = smallest_fpr
        self.missing_values, self.overlap = missing, overlap
        self.memory_mb, self.workers, self.device = memory_mb, workers, device
        self.notices: list[str] = []  # what whoever reads the results should know of the data
        self.medians: dict[str, float] = {}  # of all features, if what is missing is filled in
        self.filled: dict[str, float] = {}  # those of features that some training row lacks
        self._training: GroupLoader | None = None
        self.shared_rows: dict[str, int] | None = None  # test rows that stand in another split too, if looked for

    # what a subclass writes

    def load(self) -> Splits:
        """Read or generate the rows and split them."""
        raise NotImplementedError(f"{type(self).__name__} must write load()")

    @property
    def name(self) -> str:  # type: ignore[override]
        """What the data set is called in tables."""
        return type(self).__name__.lower()

    @property
    def title(self) -> str:
        """What it is called beside others: with its protocol where that is not the usual one, which makes it another
        problem."""
        return self.name if self.protocol == "nominal_only" else f"{self.name} ({self.protocol})"

    def truth(self) -> Truth:
        """Background and signal of the signal region that no training row is: a yardstick's, and nobody else's.

        Raises:
            DataError: if nobody knows.
        """
        raise DataError(f"{self.name} does not know which events are signal, as idealized and supervised must.")

    # what it may use for that

    def split(self, events: Events) -> Splits:
        """Split by the protocol, with this data set's fractions and seed; `meta["group"]` keeps rows together."""
        return self.divide(events.y, events.meta.get("group")).of(events)

    def divide(self, y: ArrayLike, group: ArrayLike | None = None) -> Places:
        """Which rows go where by the protocol, from their labels and groups, `(N,)`."""
        self._divided = True
        if self.protocol == "unsupervised":
            return unsupervised(len(y))  # type: ignore[arg-type]
        if self.protocol == "dte":
            refuse(group)
            places = dte(y, seed=self.seed, most=self.max_rows)
            self.notice(said(places, y))
            return places
        return nominal_only(
            y,
            seed=self.seed,
            train=self.train_fraction,
            val=self.validating(round(self.train_fraction * int((np.asarray(y) <= 0).sum()))),
            reserve=self.reserve_fraction,
            group=group,
        )

    def validating(self, nominal: int) -> float:
        """The fraction of so many rows that validates: `val_fraction`, or what a threshold at `smallest_fpr` takes."""
        if self.smallest_fpr is None or not nominal:
            return self.val_fraction
        return min(0.5, max(self.val_fraction, 2 * needed(self.smallest_fpr) / nominal))

    def notice(self, sentence: str) -> None:
        """Say what whoever reads the results should know, in the log and in the run's record."""
        if sentence not in self.notices:
            self.notices.append(sentence)
            if not getattr(rank_zero_only, "rank", 0):
                log.warning(f"{self.name}: {sentence}")

    def feature(self, i: int) -> str:
        """What a feature is called: by its name, or by its number where it has none."""
        return self.columns[i] if i < len(self.columns) else str(i)

    def recipe(self) -> dict[str, Any]:
        """What it takes to bring new rows into the columns of these, as plain values; kept in the run's folder."""
        filling = {"missing": self.missing_values, "medians": self.medians, "filled": self.filled}
        return {"columns": list(self.columns), **filling}

    def check_same(self, kept: Mapping[str, Any]) -> None:
        """Make sure, before a run is gone on with, that the rows are those that it began with, as far as it is known.

        Args:
            kept: what `recipe` was then.

        Raises:
            DataError: if they are not.
        """

    # what it serves

    @cached_property
    def splits(self) -> Splits:
        """The four splits, loaded, checked and contaminated at the first call."""
        self._divided = False
        found = self.load()
        if self.protocol != "nominal_only" and not self._divided:
            raise DataError(f"{self.name} comes with splits of its own; data.protocol={self.protocol} is not for it.")
        self._check_train(found.train)
        found = self._check_finite(self._fill_missing(found))
        found = self._check_overlap(self._into_memory(found))
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

    @cached_property
    def selecting(self) -> Events:
        """The validation rows by whose loss an epoch is chosen: half of them, without those known to be anomalous.

        How well an epoch reconstructs anomalies says nothing for it, and few of them can outweigh all others. Rows
        without a label stay.
        """
        half = self._val_halves[0]
        kept = (half.y <= 0).numpy()
        return half if kept.all() else half.take(np.flatnonzero(kept))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one event."""
        return tuple(self.splits.train.x.shape[1:])

    @property
    def context(self) -> int:
        """Columns of context."""
        return self.splits.train.context.shape[1]

    def setup(self, stage: str | None = None) -> None:
        if self.trainer and stage == "fit" and getattr(self.trainer.lightning_module, "selects", False):
            self._tell_what_selects()
        if not len(self.selecting) and self.trainer:
            self.trainer.limit_val_batches = 0  # Lightning warns of a loader without rows, and this is meant

    def training_rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The training rows as served and their weights, in chunks of `(n, *shape)` and `(n,)`."""
        train = self.splits.train
        yield from zip(train.x.split(CHUNK), train.weight.split(CHUNK), strict=True)

    def own_training_rows(self) -> Iterator[Tensor] | None:
        """Those training rows, in chunks of `(n, *shape)`, that this rank alone reads; `None` if all ranks read all."""
        train, (rank, world) = self.splits.train, self._place
        if world == 1 or not (self.by_parts and isinstance(train.x, Mapped)):
            return None
        own = Stretches(train.x, world)
        rows = own.rows(rank, np.arange(own.sizes[rank]))
        return train.x.take(rows).split(CHUNK)

    def training_sample(self, n: int) -> tuple[Tensor, Tensor]:
        """Up to n training rows, evenly spaced, and their context, `(n, *shape)` and `(n, C)`."""
        train = self.splits.train
        rows = torch.arange(0, len(train), max(1, -(-len(train) // n)))
        return train.x.index_select(0, rows), train.context.index_select(0, rows)

    def train_dataloader(self) -> GroupLoader:
        rank, world = self._place
        self._training = GroupLoader(
            self._resident(self.splits.train),
            batch_size=self.batch_size,
            group=1 if self.trainer and counts(self.trainer) else self.group,
            seed=self.seed,
            rank=rank,
            world=world,
            workers=self.workers,
            fixed=bool(getattr(self.trainer, "overfit_batches", 0)),
            by_parts=self.by_parts,
        )
        if self.trainer:
            self._training.served = left_by(self.trainer.limit_train_batches, len(self._training))
            check_interval(self.trainer, self._training.served)
        return self._training

    def teardown(self, stage: str) -> None:
        """Leave the GPU to the test: the Trainer keeps its training loader as long as it lives."""
        if stage == "fit" and self._training is not None:
            self._training.events = self.splits.train

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """The rows of validation that select; nothing where there are none."""
        return self._evaluation(self.selecting, self.trainer.limit_val_batches if self.trainer else 1.0)

    def calibration_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """The half of validation that thresholds are set on."""
        return self._evaluation(self._val_halves[1])

    def test_dataloader(self) -> BatchLoader | list[BatchLoader]:
        return self._evaluation(self.splits.test, self.trainer.limit_test_batches if self.trainer else 1.0)

    def predict_dataloader(self) -> BatchLoader | list[BatchLoader]:
        return self._evaluation(self.splits.test, self.trainer.limit_predict_batches if self.trainer else 1.0)

    def transfer_batch_to_device(
        self, batch: Batch | Group, device: torch.device, dataloader_idx: int
    ) -> Batch | Group:
        if isinstance(batch, Group):
            return batch.to(device)
        # Lightning would take a batch apart to find that it is there already
        return batch if batch.x.device == device else batch.to(device)

    def _evaluation(self, events: Events, limit: Limit = 1.0) -> BatchLoader | list[BatchLoader]:
        rank, world = self._place
        if not len(events):
            return []
        size, seed = self.eval_batch_size, None
        if limits(limit):  # the Trainer will take the first of these
            size, seed = max(1, self.batch_size // world), self.seed
        return BatchLoader(
            events, batch_size=size, seed=seed, rank=rank, world=world, workers=self.workers, by_parts=self.by_parts
        )

    @property
    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _resident(self, events: Events) -> Events:
        """The events on the GPU that trains on them, if there is one and they fit."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if self.device == "cpu" or device.type != "cuda":
            return events
        if 4 * math.prod(events.x.shape) > SHARE * torch.cuda.mem_get_info(device)[0]:
            return events
        n = len(events)
        even = events.weight.stride(0) == 0
        weight = events.weight[:1].to(device).expand(n) if even else events.weight.to(device)
        return replace(events, x=events.x.to(device), context=events.context.to(device), weight=weight)

    def _tell_what_selects(self) -> None:
        """Say so where anomalies may be among the rows that an epoch is chosen by, or nothing but anomalies is."""
        rows = len(self.selecting)
        if rows and int(self.selecting.y.min()) < 0:
            self.notice(
                f"The {rows:,} validation rows that choose the epoch have no labels: if anomalies are among them, how "
                "well they are reconstructed chooses it, too."
            )
        elif len(self.splits.val) and not rows:
            self.notice("All validation rows that would choose the epoch are anomalous: the last epoch is tested.")

    # what is looked at once

    def _fill_missing(self, splits: Splits) -> Splits:
        if self.missing_values == "error":
            return splits if self.protocol != "dte" else self._fill_means(splits)
        if self.missing_values == "skip":
            return self._skip_missing(splits)
        lacks = lacking(splits.train)
        if self.missing_values == "indicator" and lacks.ndim != 1:
            raise DataError(
                f"{self.name}: data.missing=indicator is for tables, not for events of shape {tuple(lacks.shape)}."
            )
        values = medians(splits.train)
        if values.isnan().any():
            where = int(values.flatten().isnan().nonzero()[0])
            raise DataError(
                f"{self.name}: no training row has a value of {self._column(where)}, so that there is nothing "
                "to fill it with; leave the column out."
            )
        indicate = lacks if self.missing_values == "indicator" and lacks.any() else None
        fill = filling(values, indicate)
        flat = values.flatten().tolist()
        self.medians = {self.feature(i): value for i, value in enumerate(flat)}
        self.filled = {self.feature(i): flat[i] for i in lacks.flatten().nonzero().flatten().tolist()}
        if indicate is not None:
            names = [self.feature(i) for i in range(len(lacks))]
            self.columns = [*names, *(f"{names[i]} is missing" for i in lacks.nonzero().flatten().tolist())]
        return _with(splits, lambda x: x.map(fill) if isinstance(x, Mapped) else fill(x))

    def _fill_means(self, splits: Splits) -> Splits:
        """The splits as `dte` has them where a value is missing."""
        filled, rows = with_means(splits, self.name, self._column)
        if rows:
            self.notice(
                f"{rows:,} rows lack a value and get the mean of their own split, training or test, as in the tables "
                "of DTE: what a test row gets depends on the others."
            )
        return filled

    def _skip_missing(self, splits: Splits) -> Splits:
        """The splits without rows that lack a value."""
        kept: dict[int, Events] = {}
        for part in splits:
            if id(part) not in kept and len(part):
                if isinstance(part.x, Mapped) and part.x.finite:
                    kept[id(part)] = part
                    continue
                whole = np.concatenate([chunk.flatten(1).isfinite().all(1).numpy() for chunk in part.x.split(CHUNK)])
                kept[id(part)] = part if whole.all() else part.take(np.flatnonzero(whole))
        own = {id(part): part for part in splits}
        rows, left = sum(map(len, own.values())), sum(map(len, kept.values()))
        if left < rows:
            self.notice(f"{rows - left:,} of {rows:,} rows lack a value and are left out, as data.missing=skip asks.")
        return Splits(*(kept.get(id(part), part) for part in splits))

    def _into_memory(self, splits: Splits) -> Splits:
        """Splits on disk in memory, if that is allowed to hold them."""
        on_disk = {id(part.x): part.x.nbytes for part in splits if isinstance(part.x, Mapped)}
        if sum(on_disk.values()) > self.memory_mb * 2**20:
            return splits
        read = _with(splits, lambda x: x.to("cpu"))
        return Splits(*(replace(part, y=part.y.long()) for part in read))  # a byte a label where there are many

    def _check_overlap(self, splits: Splits) -> Splits:
        test, others = splits.test, (splits.train, splits.val, splits.reserve)
        if self.protocol == "unsupervised":  # tested on the rows that train, as its name says
            return splits
        if self.overlap == "report" and sum(len(part) for part in splits) * math.prod(test.x.shape[1:]) > LOOKED_AT:
            return splits
        there = found_in(test.x.split(CHUNK), (chunk for part in others for chunk in part.x.split(CHUNK)))
        anomalous = int((test.y[torch.from_numpy(there)] > 0).sum())
        self.shared_rows = {"nominal": int(there.sum()) - anomalous, "anomalous": anomalous}
        if not there.any():
            return splits
        what = f"{there.sum():,} of {len(test):,} test rows ({anomalous:,} anomalous) stand in another split too"
        if self.protocol == "dte":
            self.notice(f"{what}.")
            return splits
        if self.overlap == "report":
            self.notice(f"{what}; data.overlap=drop leaves them out of the test.")
            return splits
        self.notice(f"{what} and are left out of the test.")
        return splits._replace(test=test.take((~there).nonzero()[0]))

    def _check_finite(self, splits: Splits) -> Splits:
        if all(isinstance(part.x, Mapped) and part.x.finite for part in splits):
            return splits
        bad = torch.zeros(math.prod(splits.train.x.shape[1:]), dtype=torch.int64)
        rows = 0
        parts = [splits.train, *([] if self.protocol == "unsupervised" else splits[1:])]
        for chunk in (chunk for events in parts for chunk in events.x.split(CHUNK)):
            wrong = ~chunk.flatten(1).isfinite()
            if wrong.any():
                bad += wrong.sum(0)
                rows += int(wrong.any(1).sum())
        if not rows:
            return splits
        worst = bad.argsort(descending=True, stable=True)[: min(5, int((bad > 0).sum()))].tolist()
        named = ", ".join(f"{self._column(i)} ({int(bad[i])} row{'s' if bad[i] > 1 else ''})" for i in worst)
        more = int((bad > 0).sum()) - len(worst)
        raise DataError(
            f"{self.name}: {rows} of {sum(map(len, parts))} rows hold a NaN or an infinity, in {named}"
            f"{f' and {more} more columns' if more else ''}; set data.missing=median, or data.missing=skip."
        )

    def _column(self, i: int) -> str:
        return f"column {self.columns[i]!r}" if i < len(self.columns) else f"column {i}"

    def _check_train(self, train: Events) -> None:
        if not len(train):
            raise DataError(
                f"{self.name}: there are no nominal rows to train on; check the labels (0 is nominal), "
                "data.train_fraction and data.val_fraction."
            )

    def _check_classes(self, splits: Splits) -> None:
        self._check_train(splits.train)
        if len(splits.test) and int(splits.test.y.max()) == HIDDEN:
            return  # without labels nothing is ranked
        for label, what in ((splits.test.y == 0, "nominal"), (splits.test.y > 0, "anomalous")):
            if not label.any():
                raise DataError(
                    f"{self.name}: the test split of {len(splits.test)} rows holds no {what} row, so that nothing can "
                    "be ranked; check the labels (0 is nominal, larger is anomalous) and data.train_fraction."
                )


def _with(splits: Splits, change: Callable[[Any], Tensor | Mapped]) -> Splits:
    """The splits with something done to their events; once where a protocol serves the same ones twice."""
    changed: dict[int, Tensor | Mapped] = {}
    for part in splits:
        if id(part.x) not in changed:
            changed[id(part.x)] = change(part.x)
    return Splits(*(replace(part, x=changed[id(part.x)]) for part in splits))
