"""An end to training when what is monitored no longer falls."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from torch import Tensor

from straylight.errors import ConfigError
from straylight.objective import refuse_test


class EarlyStopping(pl.callbacks.EarlyStopping):
    """Lightning's early stopping, which waits until there is something to monitor.

    Detectors that are trained in phases have a validation loss in the last one only, and Lightning's own stops with an
    error in the first. A training that it has ended stays ended when the run is
    resumed, unless with more patience.

    Args:
        monitor: what should fall.
        options: see `pytorch_lightning.callbacks.EarlyStopping`.

    Raises:
        ConfigError: if a metric of the test rows is to stop; while training, if there is no such measure.
    """

    def __init__(self, monitor: str = "val/loss", **options: Any) -> None:
        refuse_test("callbacks.early_stopping.monitor", monitor)
        super().__init__(monitor, **options)

    @property
    def stopped(self) -> bool:
        """Whether training was to end, by what is asked for now."""
        others = (EarlyStoppingReason.NOT_STOPPED, EarlyStoppingReason.PATIENCE_EXHAUSTED)
        return self.wait_count >= self.patience or self.stopping_reason not in others

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop |= self.stopped  # gone on with, what has ended takes no other epoch

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if getattr(pl_module, "last_phase", True):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if getattr(pl_module, "last_phase", True):
            super().on_train_epoch_end(trainer, pl_module)

    def _validate_condition_metric(self, logs: dict[str, Tensor]) -> bool:
        if self.strict and self.monitor not in logs:
            known = ", ".join(sorted(logs)) or "nothing"
            raise ConfigError(f"callbacks.early_stopping.monitor={self.monitor} is not measured; there is {known}.")
        return super()._validate_condition_metric(logs)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})  # what is asked for now, not then

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"stopped_early": self.stopped}
