"""Ctrl-C, SIGTERM and SIGHUP: stop between two steps, with a checkpoint from which training goes on exactly."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from straylight.errors import Interrupted
from straylight.stopping import STOP


class Interrupt(pl.callbacks.Checkpoint):
    """On a signal while training, finishes the group of mini-batches, writes a checkpoint and raises `Interrupted`.

    A second signal does not wait. A signal in the last group of an epoch is acted on when the epoch has ended, since a
    checkpoint before its validation would skip that on resume, and one at the start of the next epoch would skip the
    epoch; one just before a validation in mid-epoch is acted on a group later. A `Checkpoint` to Lightning, which calls
    those last. Under DDP a signal to one rank stops all.

    Args:
        path: the checkpoint to write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        STOP.listen()  # here and not earlier: Lightning installs its own SIGTERM handler after on_fit_start
        STOP.careful = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        STOP.listen()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        STOP.listen()

    def on_test_batch_end(self, *_: Any) -> None:
        STOP.look()

    def on_validation_batch_end(self, *_: Any) -> None:
        STOP.look()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        STOP.look()
        # a detector that is fitted in one pass finishes it: half of it could not be resumed
        last = batch_idx + 1 >= trainer.num_training_batches
        if not (getattr(pl_module, "one_pass", False) or last or _validates(trainer, batch_idx)):
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        asked = STOP.asked
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            trainer.save_checkpoint(self.path)
            STOP.careful = False
            raise Interrupted

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        STOP.careful = False
        STOP.look()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        STOP.careful = False


def _validates(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the Trainer validates after this batch, in the middle of an epoch."""
    every = trainer.val_check_batch
    if every is None or every == float("inf") or not trainer.enable_validation:
        return False
    done = trainer.fit_loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
    return (done + 1) % int(every) == 0
