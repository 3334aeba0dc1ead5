"""What every detector is: a scaling, a score, a loss, and training in groups of mini-batches.

Shapes: `B` events, `C` context columns, `*shape` one event.
"""

from __future__ import annotations

import math
import os
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor

from straylight.batch import Batch, Group, Scored
from straylight.errors import StraylightError
from straylight.nn import Optimization, Scaling
from straylight.nn.scaling import Method


class Detector(pl.LightningModule):
    """Base of all detectors. A subclass writes `loss(batch)` and `score(x, context)`; all else is here.

    * `forward` is scaling, then score: what is exported is what predicts.
    * A row's score depends on that row alone, and scoring draws no random number.
    * No label is read: training serves none.
    * All that scoring needs is in `state_dict`.

    Training is grouped: the loader hands out the rows of several mini-batches in one piece with their cut points, and
    `training_step` takes one optimiser step for each, so that the Trainer's cost is paid once for all of them with
    the very weights of one mini-batch at a time. Random numbers are seeded by (seed, step, rank) before every
    mini-batch: noise depends neither on the grouping nor on where a run was interrupted.

    Args:
        shape: the shape of one event, without the batch axis.
        context: columns of context; 0 when there are none.
        scaling: see `straylight.nn.Scaling`.
        optimizer: see `straylight.nn.Optimization`; Adam at 1e-3 by default.

    Example:
        >>> class Distance(Detector):  # the squared distance from a learned centre
        ...     def __init__(self, shape, **common):
        ...         super().__init__(shape, **common)
        ...         self.centre = torch.nn.Parameter(torch.ones(shape))
        ...     def loss(self, batch):
        ...         return self.score(batch.x, batch.context).mean()
        ...     def score(self, x, context):
        ...         return (x - self.centre).flatten(1).square().sum(1)
        >>> Distance((2,), scaling="none")(torch.zeros(1, 2))
        tensor([2.], grad_fn=<SumBackward1>)
    """

    #: Whether validation selects among epochs; False for detectors that are fitted in one pass.
    selects = True
    #: Rows of an evaluation batch that are scored together: what fits the processor's cache.
    rows_at_once = 16384
    #: Buffers whose length is known only after training; they take the checkpoint's shape when one is loaded.
    sized_by_data: tuple[str, ...] = ()

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        context: int = 0,
        scaling: Method = "standard",
        optimizer: Optimization | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.shape = tuple(int(n) for n in shape)
        self.context = context
        self.scaling = Scaling(self.shape, scaling)
        self.optimization = optimizer or Optimization()
        self._noise_seed: int | None = None
        self._sums: dict[str, Tensor] = {}
        self._rows = 0
        self._steps = {"unreported": 0}

    # what a subclass writes

    def loss(self, batch: Batch) -> Tensor | dict[str, Tensor]:
        """Mean loss of a mini-batch whose `x` is scaled; or several by name, of which `loss` is minimised."""
        raise NotImplementedError(f"{type(self).__name__} must write loss(batch)")

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        """Anomaly score of scaled events, `(B, *shape)` and `(B, C)` to `(B,)`."""
        raise NotImplementedError(f"{type(self).__name__} must write score(x, context)")

    # scoring

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Anomaly score of events in the data's own units, `(B, *shape)` to `(B,)` float32, larger is stranger."""
        if context is None:
            context = x.new_zeros(len(x), self.context)
        return self.score(self.scaling(x), context)

    def _scored(self, batch: Batch) -> Scored:
        parts = zip(batch.x.split(self.rows_at_once), batch.context.split(self.rows_at_once), strict=True)
        return Scored(batch.index, torch.cat([self(x, context).float() for x, context in parts]), batch.y)

    def validation_step(self, batch: Batch, batch_idx: int) -> Scored:  # type: ignore[override]
        if self.selects:
            self._seed_noise(-1 - batch_idx)
            parts = [Batch(*part) for part in zip(*(column.split(self.rows_at_once) for column in batch), strict=True)]
            self._count([self._losses(self._scaled(part)) for part in parts], tuple(len(part.x) for part in parts))
        return self._scored(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Scored:  # type: ignore[override]
        return self._scored(batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Scored:
        return self._scored(batch)

    # training

    def training_step(self, group: Group, batch_idx: int) -> None:
        optimizer = self.optimizers()
        step, rank = self.trainer.global_step, self.global_rank
        seen: list[dict[str, Tensor]] = []
        for batch, share in group.minibatches(self.trainer.world_size):
            self._seed_noise(step + len(seen), rank)
            seen.append(self.step(self._scaled(batch), optimizer, share))
        self._count(seen, group.sizes)
        self._report_steps()

    def step(self, batch: Batch, optimizer: Any, share: float) -> dict[str, Tensor]:
        """One optimiser step on one mini-batch whose `x` is scaled; detectors that alternate networks override it.

        Args:
            batch: the mini-batch, this rank's part of it.
            optimizer: what `self.optimizers()` returns.
            share: factor on the loss that makes ranks of unequal size count by their rows.

        Returns:
            losses by name, to be averaged over the epoch.
        """
        losses = self._losses(batch)
        self.forget(optimizer)
        self.backward_from(losses["loss"] if share == 1 else losses["loss"] * share)
        self.descend(optimizer)
        return losses

    def forget(self, optimizer: LightningOptimizer) -> None:
        """Drop the gradients of the step before."""
        if self._plain:
            for parameters in optimizer.param_groups:
                for parameter in parameters["params"]:
                    parameter.grad = None
        else:
            optimizer.zero_grad()

    def backward_from(self, loss: Tensor) -> None:
        """Gradients of a loss; exchanged between ranks, scaled and announced to callbacks where there is need."""
        if self._plain:
            loss.backward()
        else:
            self.manual_backward(loss)

    def descend(self, optimizer: LightningOptimizer) -> None:
        """Clip the gradients, set the learning rate of this step, and take it."""
        recipe = self.optimization
        if recipe.clip is not None:
            self.clip_gradients(optimizer.optimizer, gradient_clip_val=recipe.clip, gradient_clip_algorithm="norm")
        if not recipe.constant:
            loader: Any = self.trainer.train_dataloader
            total = loader.steps * self.trainer.max_epochs if self.trainer.max_epochs else 0
            for parameters in optimizer.param_groups:
                parameters["lr"] = recipe.rate(self.trainer.global_step + self._steps["unreported"], total)
        if self._plain:
            optimizer.optimizer.step()
            self._steps["unreported"] += 1
        else:
            optimizer.step()

    def _report_steps(self) -> None:
        """Add the steps taken without Lightning to its count, `trainer.global_step`."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for tally in (progress.total, progress.current):
            tally.ready += self._steps["unreported"]
            tally.completed += self._steps["unreported"]
        self._steps["unreported"] = 0

    @cached_property
    def _plain(self) -> bool:
        """Whether Lightning has nothing to do around a step: one process, full precision, nobody listening.

        Its wrappers around backward and step cost a small network a fifth of its training time.
        """
        hooks = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")
        listeners = [(self, pl.LightningModule), *((c, pl.Callback) for c in self.trainer.callbacks)]  # type: ignore[attr-defined]
        return (
            type(self.trainer.strategy) is SingleDeviceStrategy
            and type(self.trainer.precision_plugin) is Precision
            and all(getattr(type(one), hook) is getattr(base, hook) for one, base in listeners for hook in hooks)
            and type(self).optimizer_step is pl.LightningModule.optimizer_step
            and type(self).backward is pl.LightningModule.backward
        )

    def configure_optimizers(self) -> Any:
        parameters = [p for p in self.parameters() if p.requires_grad]
        return self.optimization.build(parameters) if parameters else []

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        losses = self.loss(batch)
        return losses if isinstance(losses, dict) else {"loss": losses}

    def _scaled(self, batch: Batch) -> Batch:
        return batch if self.scaling.method == "none" else batch._replace(x=self.scaling(batch.x))

    def _seed_noise(self, step: int, rank: int = 0) -> None:
        seed = (((self._noise_seed or 0) * 1_000_003 + step) * 4099 + rank) % 2**63
        # the CPU generator alone, where there is no other: torch.manual_seed costs seventy times as much
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed(seed)

    # hooks

    def on_fit_start(self) -> None:
        self.__dict__.pop("_plain", None)  # of an earlier Trainer
        _stop_searching_for_gpus()
        if self._noise_seed is None:
            self._noise_seed = torch.initial_seed() % 2**31
        if not self.scaling.fitted:
            self.scaling.fit(self._training_rows())

    def _training_rows(self) -> Any:
        rows = getattr(getattr(self.trainer, "datamodule", None), "training_rows", None)
        if rows is None:
            raise StraylightError(
                f"{type(self).__name__} fits its scaling on the training rows: give trainer.fit a "
                "straylight.data.AnomalyDataModule as datamodule, or build the detector with scaling='none'."
            )
        return rows()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["noise_seed"] = self._noise_seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._noise_seed = checkpoint.get("noise_seed")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.sized_by_data:
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def on_train_epoch_start(self) -> None:
        self._sums, self._rows = {}, 0

    def on_validation_epoch_start(self) -> None:
        self._training_sums = self._sums, self._rows  # validation runs before the training epoch has ended
        self._sums, self._rows = {}, 0

    def on_validation_epoch_end(self) -> None:
        self._log_losses("val")
        self._sums, self._rows = self._training_sums

    def on_train_epoch_end(self) -> None:
        self._synchronise_buffers()
        self._log_losses("train")

    def _count(self, losses: list[dict[str, Tensor]], sizes: tuple[int, ...]) -> None:
        weights = torch.tensor(sizes, dtype=torch.double)
        for name in losses[0]:
            values = torch.stack([one[name].detach() for one in losses])
            total = values.double() @ weights.to(values.device)
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._rows += sum(sizes)

    def _log_losses(self, stage: str) -> None:
        if not self._sums:
            return
        sums = torch.stack([*self._sums.values(), torch.tensor(self._rows, dtype=torch.double, device=self.device)])
        if self.trainer.world_size > 1:
            dist.all_reduce(sums)
        means = dict(zip(self._sums, (sums[:-1] / sums[-1]).tolist(), strict=True))
        if not all(map(math.isfinite, means.values())):
            raise StraylightError(
                f"Training diverged: {stage} losses of epoch {self.current_epoch} are {means}. "
                "Lower optimizer.lr, set optimizer.clip, or choose another detector.scaling."
            )
        self.log_dict({f"{stage}/{name}": value for name, value in means.items()})

    def _synchronise_buffers(self) -> None:
        # in manual optimisation DDP never sends buffers again, and running statistics would drift apart
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                dist.broadcast(buffer, 0)


def _stop_searching_for_gpus() -> None:
    """Spare every optimiser step on a machine without a GPU a search for one.

    torch asks at each step whether an accelerator is there. Lightning has told it, when it was imported, to ask the
    driver's library, which is then looked for on disk each time: 0.1 ms, a quarter of a small network's step.
    """
    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
