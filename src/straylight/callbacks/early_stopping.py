"""An end to training when what is monitored no longer falls."""

from typing import Any

import pytorch_lightning as pl

from straylight.callbacks.checkpoint import refuse_test


class EarlyStopping(pl.callbacks.EarlyStopping):
    """Lightning's early stopping, which waits until there is something to monitor.

    Detectors that are trained in phases have a validation loss in the last one only, and Lightning's own stops with an
    error in the first.

    Args:
        monitor: what should fall.
        options: see `pytorch_lightning.callbacks.EarlyStopping`.

    Raises:
        ValueError: if a metric of the test rows is to stop.
    """

    def __init__(self, monitor: str = "val/loss", **options: Any) -> None:
        refuse_test("callbacks.early_stopping.monitor", monitor)
        super().__init__(monitor, **options)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if getattr(pl_module, "last_phase", True):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if getattr(pl_module, "last_phase", True):
            super().on_train_epoch_end(trainer, pl_module)
