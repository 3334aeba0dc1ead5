"""How training descends: the learning rate and the norm of the gradient."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor


class Descent(pl.Callback):
    """Logs `train/lr` and `train/grad_norm` once per epoch, for detectors that descend a gradient.

    The norm is that of the whole gradient as it was before clipping, averaged over the last mini-batches of the groups
    that the Trainer is handed (see `data.group`): what each step would add costs more than it tells. Networks that
    take turns are seen as the last turn left them.
    """

    def __init__(self) -> None:
        self._norms: list[Tensor] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._norms.clear()

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        clipped_from = getattr(pl_module, "gradient_norm", None)
        if clipped_from is not None:
            self._norms.append(clipped_from)
        elif gradients := [p.grad for p in pl_module.parameters() if p.grad is not None]:
            self._norms.append(torch.nn.utils.get_total_norm(gradients))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._norms:
            return
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        found = {"train/lr": float(rate), "train/grad_norm": float(torch.stack(self._norms).mean())}
        # equal on all ranks already: gradients were exchanged. `log_dict` is attached by the Trainer.
        self.log_dict(found, sync_dist=trainer.world_size > 1)  # type: ignore[attr-defined]
