"""A detector trained on rows in memory: nothing is read, written, printed or logged, and no random number is spent."""

import logging
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from straylight.callbacks.checkpoint import Best
from straylight.data import AnomalyDataModule
from straylight.detectors import Detector
from straylight.job.train import quiet, silent
from straylight.rows.batch import HIDDEN, Events, Splits


class Served(AnomalyDataModule):
    """Rows without labels, of which some may be kept out of training to choose an epoch by.

    Args:
        x: the rows, `(N, *shape)`.
        weight: of each, `(N,)`, or `None`.
        keep: the fraction that is kept out.
        common: see `AnomalyDataModule`.
    """

    def __init__(self, x: Tensor, weight: Tensor | None, keep: float, **common: Any) -> None:
        super().__init__(**common)
        self.x, self.weight, self.keep = x, weight, keep

    @cached_property
    def splits(self) -> Splits:
        n, out = len(self.x), int(self.keep * len(self.x))
        weight = None if self.weight is None else self.weight / self.weight.mean()
        rows = Events.of(self.x, np.full(n, HIDDEN), weight=weight)
        if not out:
            return Splits(rows, rows.take([]), rows.take([]), rows.take([]))
        order = np.random.default_rng(self.seed).permutation(n)
        return Splits(rows.take(np.sort(order[out:])), rows.take(np.sort(order[:out])), rows.take([]), rows.take([]))

    @cached_property
    def selecting(self) -> Events:
        return self.splits.val

    def setup(self, stage: str | None = None) -> None:
        if not len(self.selecting) and self.trainer:
            self.trainer.limit_val_batches = 0


def train_on(
    build: Callable[[], Detector],
    x: Tensor,
    weight: Tensor | None = None,
    *,
    epochs: int = 100,
    batch_size: int = 128,
    val_fraction: float = 0.1,
    accelerator: str = "cpu",
    seed: int = 0,
) -> Detector:
    """Build a detector and train it on rows, all of them taken as nominal; of its epochs the best one is kept.

    Args:
        build: makes the detector, whose first weights are drawn by the seed.
        x: the rows, `(N, *shape)` float32.
        weight: of each, `(N,)`; one if it is `None`.
        epochs, batch_size: of training; a detector that is fitted sees the rows once.
        val_fraction: of the rows, that choose the epoch and are not trained on; none where nothing is chosen.
        accelerator: as Lightning calls it.
        seed: of first weights, shuffling and the choice of those rows.

    Returns:
        the detector, ready to score, on the CPU. What was done otherwise than asked for is in its `notices`.

    Raises:
        StraylightError: if it cannot be trained on them.

    Example:
        >>> from straylight.detectors import PCA
        >>> detector = train_on(lambda: PCA((2,)), torch.randn(50, 2))
        >>> detector(torch.tensor([[0.0, 0.0], [9.0, -9.0]])).argmax().item()
        1
    """
    quiet()
    with _apart(seed), _silent(), threads_of_torch(1):
        detector = build()
        keep = val_fraction if detector.selects else 0.0
        data = Served(x, weight, keep, batch_size=batch_size, seed=seed)
        best = Best()
        trainer = silent(tempfile.gettempdir(), [best], epochs, accelerator)
        trainer.fit(detector, datamodule=data)
        if best.state is not None:
            detector.load_state_dict(best.state)
    detector.trainer = None
    return detector.cpu().eval()


@contextmanager
def threads_of_torch(n: int) -> Iterator[None]:
    """As many threads of torch in the meantime; for small networks one is fastest."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _apart(seed: int) -> Iterator[None]:
    """Random numbers of its own; those that others draw afterwards, and whether gradients are, stay as they were."""
    python, arrays, gradients = random.getstate(), np.random.get_state(), torch.is_grad_enabled()  # noqa: NPY002
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.manual_seed(seed)
            torch.set_grad_enabled(True)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002
        torch.set_grad_enabled(gradients)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep notices, which the detector has, out of the log."""
    ours = logging.getLogger("straylight")
    before = ours.level
    ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ours.setLevel(before)
