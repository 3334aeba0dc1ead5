"""Gathering what a stage scored: every row once, in the order of the split, whatever the number of ranks."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from straylight.rows.batch import Batch, Scored


class Scores(NamedTuple):
    """The rows of a split as scored, sorted by index: `index` and `y` int64, `score` float32, each `(N,)`.

    `members`, `(N, M)` float32, are the scores of an ensemble's members.
    """

    index: np.ndarray  # type: ignore[assignment]
    score: np.ndarray
    y: np.ndarray
    members: np.ndarray | None = None


def gather(parts: Sequence[Scored]) -> Scores:
    """Join the batches of all ranks, sort by index, and drop copies.

    Example:
        >>> part = Scored(torch.tensor([1, 0, 1]), torch.tensor([5., 4., 5.]), torch.tensor([1, 0, 1]))
        >>> gather([part]).score.tolist()
        [4.0, 5.0]
    """
    given = [column for column in zip(*parts, strict=True) if column[0] is not None]
    columns = [torch.cat(column).cpu().numpy() for column in given]
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        ranks: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(ranks, columns)
        columns = [np.concatenate(column) for column in zip(*ranks, strict=True)]
    if (columns[0][1:] > columns[0][:-1]).all():  # one rank serves its rows in order
        return Scores(*columns)
    _, first = np.unique(columns[0], return_index=True)
    return Scores(*(column[first] for column in columns))


def split_of(data: Any, name: str) -> Any:
    """A split of a data module; `None` where it has none."""
    return getattr(getattr(data, "splits", None), name, None)


def kinds_of(trainer: pl.Trainer) -> tuple[str, ...]:
    """Names of the labels, where the data module has them."""
    return tuple(getattr(getattr(trainer, "datamodule", None), "kinds", ()))


def names_of(split: Any, index: NDArray[np.int64] | None = None) -> dict[str, Any]:
    """What names some rows of a split, by their positions, see `Events.named`; nothing where nobody knows."""
    named = getattr(split, "named", None)
    return named(index) if callable(named) else {}


def columns_of(scores: Scores, kinds: Sequence[str], split: Any) -> dict[str, Any]:
    """What `scores.parquet` holds of rows of a split, `(N,)` each: scores, labels, what names them, and members."""
    import pyarrow as pa

    names = ["hidden", *kinds] + [str(k) for k in range(len(kinds), int(scores.y.max(initial=0)) + 1)]
    kind = pa.DictionaryArray.from_arrays(pa.array((scores.y + 1).astype("int32")), pa.array(names))
    columns = {"index": scores.index, "score": scores.score, "y": scores.y, "kind": kind}
    columns |= names_of(split, scores.index)
    if scores.members is not None:
        columns |= {f"member_{m}": scores.members[:, m] for m in range(scores.members.shape[1])}
    return columns


def weights_of(trainer: pl.Trainer, index: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """The weights of these test rows, `(N,)`; `None` where all are one, or the data module has none."""
    return weights_of_split(split_of(getattr(trainer, "datamodule", None), "test"), index)


def weights_of_split(split: Any, index: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """The same of rows of a split, which may be None."""
    weight = getattr(split, "weight", None)
    return None if weight is None or weight.stride(0) == 0 else weight.numpy()[index]


def measured(trainer: pl.Trainer, but: pl.Callback | None = None) -> dict[str, Any]:
    """What the callbacks of a Trainer add to a run's record, each by its `result()`; of all but one, if it is named.

    Several may add to one mapping, such as `metrics`.
    """
    found: dict[str, Any] = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if callback is not but and callable(own := getattr(callback, "result", None)):
            for field, value in own().items():
                there = found.get(field)
                found[field] = {**there, **value} if isinstance(there, dict) and isinstance(value, dict) else value
    return found


def scored_by(trainer: pl.Trainer, module: pl.LightningModule, loader: Iterable[Batch]) -> list[Scored]:
    """The batches of a loader as the test would score them, with the weights of now; leaves no trace in the module."""
    with evaluating(module), torch.no_grad(), trainer.precision_plugin.forward_context():
        return [module.test_step(batch.to(module.device), i) for i, batch in enumerate(loader)]  # type: ignore[misc]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode; afterwards every part of it as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class TestScores(pl.Callback):
    """Collects the test's `Scored` batches and hands them over once, gathered, to `on_scores`."""

    __test__ = False  # not a test case of pytest's

    def __init__(self) -> None:
        self._parts: list[Scored] = []

    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        """What the subclass does with the scores of the whole split; called on every rank."""
        raise NotImplementedError

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._parts.clear()

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        self._parts.append(outputs)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        scores = gather(self._parts)
        _tell_of_a_part(trainer, scores)
        self.on_scores(trainer, pl_module, scores)
        self._parts.clear()


def _tell_of_a_part(trainer: pl.Trainer, scores: Scores) -> None:
    """Say so, once, where fewer rows were tested than the split holds, and where those are of one class."""
    data, tested = getattr(trainer, "datamodule", None), len(scores.y)
    test, say = split_of(data, "test"), getattr(data, "notice", None)
    if test is None or say is None or tested >= len(test):
        return
    option = "fast_dev_run" if trainer.fast_dev_run else "limit_test_batches"  # type: ignore[attr-defined]
    say(f"{tested:,} of {len(test):,} test rows, drawn by seed, were tested, as trainer.{option} asks.")
    known = scores.y[scores.y >= 0]
    for there, what in ((known == 0, "nominal"), (known > 0, "anomalous")):
        if len(known) and not there.any():
            say(
                f"None of the {tested:,} rows that were tested is {what}, so that nothing is ranked: test more of them."
            )


class AfterTest(TestScores):
    """Keeps the scores until the others have measured; the first rank goes on to `after_test`, the others wait."""

    def __init__(self) -> None:
        super().__init__()
        self._scores: Scores | None = None

    def after_test(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        """What the subclass does with the scores of the whole split."""
        raise NotImplementedError

    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        self._scores = scores

    @torch.no_grad()
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._scores is not None and trainer.is_global_zero:
            self.after_test(trainer, pl_module, self._scores)
        self._scores = None
        trainer.strategy.barrier()


def due(trainer: pl.Trainer, every_n_epochs: int | None) -> bool:
    """Whether so many epochs have ended again, asked at the start of the next.

    Not at the end of the one before: under DDP, ranks share their running statistics only there.
    """
    epoch = trainer.current_epoch
    return bool(every_n_epochs and epoch and not epoch % every_n_epochs)


def said(error: Exception, most: int | None = None) -> str:
    """An error in one line, of so many characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:most]}"
