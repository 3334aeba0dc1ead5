"""The two checkpoints of a run: the last epoch's and the best one's; and the best epoch in memory."""

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from straylight.folder import checkpoint_in, run_of
from straylight.objective import refuse_test


class Checkpoint(pl.callbacks.Checkpoint):
    """Keeps `last.ckpt`, to resume from, and `best.ckpt`, to test with, written at the end of an epoch.

    Lightning's ModelCheckpoint with `save_last` rewrites its last checkpoint only when it saved a best one too, and
    saves nothing at step 0, where a detector without an optimiser stays.

    Args:
        folder: where to.
        monitor: what the best epoch has least of; `None` keeps no best. Ignored for a detector that selects nothing
            and where there is no validation. Epochs before the last phase of a training are not compared.

    Raises:
        ConfigError: if a metric of the test rows is to select.
    """

    def __init__(self, folder: str | Path, monitor: str | None = "val/loss") -> None:
        if monitor is not None:
            refuse_test("callbacks.checkpoint.monitor", monitor)
        self.folder, self.monitor = Path(folder), monitor
        self.best, self.best_epoch = math.inf, -1

    @property
    def chosen(self) -> Path:
        """The checkpoint to test with: the best where one was selected, otherwise the last."""
        return checkpoint_in(self.folder, "best" if self.best_epoch >= 0 else "last")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.improved(trainer, pl_module):
            trainer.save_checkpoint(checkpoint_in(self.folder, "best"))
        trainer.save_checkpoint(checkpoint_in(self.folder, "last"))

    def improved(self, trainer: pl.Trainer, module: pl.LightningModule) -> bool:
        """Whether the epoch that ended is the best until now, which is remembered."""
        value = trainer.callback_metrics.get(self.monitor) if self.monitor and self._selects(trainer, module) else None
        if value is None or not float(value) < self.best:
            return False
        self.best, self.best_epoch = float(value), trainer.current_epoch
        return True

    def _selects(self, trainer: pl.Trainer, module: pl.LightningModule) -> bool:
        selects = getattr(module, "selects", True) and getattr(module, "last_phase", True)
        return selects and bool(trainer.num_val_batches and sum(trainer.num_val_batches))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["run"] = run_of(self.folder)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"checkpoint": f"{self.folder.name}/{self.chosen.name}", "best_epoch": self.best_epoch}


class Best(Checkpoint):
    """Remembers the state of the best epoch, and writes nothing."""

    def __init__(self) -> None:
        super().__init__("")
        self.state: dict[str, Any] | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.improved(trainer, pl_module):
            state = pl_module.state_dict()
            self.state = {name: v.clone() if isinstance(v, Tensor) else v for name, v in state.items()}
