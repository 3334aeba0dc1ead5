"""Ctrl-C and SIGTERM: stop between two steps, with a checkpoint from which training goes on exactly."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from straylight.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt(pl.callbacks.Checkpoint):
    """On a signal while training, finishes the group of mini-batches, writes a checkpoint and raises `Interrupted`.

    A second signal does not wait. A signal in the last group of an epoch is acted on when the epoch has ended, since a
    checkpoint before its validation would skip that on resume, and one at the start of the next epoch would skip the
    epoch. A `Checkpoint` to Lightning, which calls those last. Under DDP a signal to one rank stops all.

    Args:
        path: the checkpoint to write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.requested = False
        self._before: dict[int, Any] = {}

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:
            raise Interrupted
        self.requested = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # here and not earlier: Lightning installs its own SIGTERM handler after on_fit_start
        self.requested = False
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # a detector that is fitted in one pass finishes it: half of it could not be resumed
        if not getattr(pl_module, "one_pass", False) and batch_idx + 1 < trainer.num_training_batches:
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        asked = self.requested
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            trainer.save_checkpoint(self.path)
            raise Interrupted

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
