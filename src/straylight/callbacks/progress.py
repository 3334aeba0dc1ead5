"""A progress bar that is redrawn at a human pace."""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm


class Progress(pl.Callback):
    """One bar over all epochs with the last epoch's losses; nothing where there is no terminal, or a single epoch.

    Args:
        interval_s: seconds between two drawings.
    """

    def __init__(self, interval_s: float = 0.2) -> None:
        self.interval_s = interval_s
        self._bar: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        once = trainer.max_epochs == 1 or getattr(pl_module, "one_pass", False)
        if once or not trainer.is_global_zero or not sys.stderr.isatty():
            return
        self._bar = tqdm(
            total=trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None,
            initial=trainer.current_epoch,
            desc=type(pl_module).__name__,
            unit="epoch",
            mininterval=self.interval_s,
            dynamic_ncols=True,
            leave=False,
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._bar is not None:
            losses = {n: float(v) for n, v in trainer.callback_metrics.items() if n in ("train/loss", "val/loss")}
            self._bar.set_postfix(losses, refresh=False)
            self._bar.update(1)

    def _close(self, *args: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()
