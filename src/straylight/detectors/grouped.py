"""Training many mini-batches per step of the Trainer, with the weights of one at a time."""

import logging
import math
import os
from functools import cached_property
from typing import Any, cast

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor

from straylight.errors import StraylightError
from straylight.nn import Optimization
from straylight.rows.batch import Batch, Group

log = logging.getLogger(__name__)


class GroupedTraining(pl.LightningModule):
    """What `Detector` trains by; a subclass of that never sees it.

    The loader hands out the rows of several mini-batches in one piece with their cut points, and `training_step` takes
    one optimiser step for each, so that the Trainer's cost is paid once for all of them. Losses are summed on the
    device and logged once per epoch. Random numbers are seeded by (seed, step, rank) before every mini-batch: noise
    depends neither on the grouping nor on where a run was interrupted.

    Args:
        optimization: the optimiser, its schedule and clipping.
    """

    #: Whether a step leaves some parameters without a gradient, as it does where networks take turns.
    alternates = False
    #: The norm of the last step's gradient before it was clipped; `None` where nothing clips.
    gradient_norm: Tensor | None = None

    def __init__(self, optimization: Optimization) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.optimization = optimization
        self._noise_seed: int | None = None
        self._sums: dict[str, Tensor] = {}
        self._rows: dict[str, int] = {}
        self._interrupted_sums: tuple[dict[str, Tensor], dict[str, int]] = {}, {}
        self._steps = {"unreported": 0}
        self._warned: set[str] = set()
        self._total: int | None = None

    def loss(self, batch: Batch) -> Tensor | dict[str, Tensor]:
        """Mean loss of a mini-batch whose `x` is scaled; or several by name, of which `loss` is minimised."""
        raise NotImplementedError(f"{type(self).__name__} must write loss(batch)")

    def scaled(self, batch: Batch) -> Batch:
        """The batch with its events scaled."""
        return batch

    def training_step(self, group: Group, batch_idx: int) -> None:
        optimizer = self.optimizers()
        step, rank = self.trainer.global_step, self.global_rank
        seen: list[dict[str, Tensor]] = []
        for batch, share in group.minibatches(self.trainer.world_size):
            if 0 < self.trainer.max_steps <= step + len(seen):
                break  # in mid-group
            self.seed_noise(step + len(seen), rank)
            seen.append(self.step(self.scaled(batch), optimizer, share))
            self._steps["unreported"] += 1
        self.count(seen, group.sizes[: len(seen)])
        self._report_steps()
        # by which loggers draw: what Lightning logs of an epoch stands at the last of its steps
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.trainer.global_step

    def step(self, batch: Batch, optimizer: Any, share: float) -> dict[str, Tensor]:
        """One optimiser step on one mini-batch whose `x` is scaled; detectors that alternate networks override it.

        Such a detector sets `alternates` and descends more than once. There is one optimiser for all its networks: a
        parameter without a gradient stays where it is, and so do its moments. However often it descends, one
        mini-batch counts as one step.

        Args:
            batch: the mini-batch, this rank's part of it.
            optimizer: what `self.optimizers()` returns.
            share: factor on the loss that makes ranks of unequal size count by their rows.

        Returns:
            losses by name, to be averaged over the epoch.
        """
        losses = self.losses(batch)
        self.descend_on(losses["loss"], optimizer, share)
        return losses

    def descend_on(self, loss: Tensor, optimizer: Any, share: float) -> None:
        """One optimiser step down the gradient of a loss."""
        self.forget(optimizer)
        self.backward_from(loss if share == 1 else loss * share)
        self.descend(optimizer)

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
            # gradients of 16-mixed are scaled, and Lightning's own step would not have them unscaled before
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            scale = 1.0 if scaler is None else scaler.get_scale()
            self.gradient_norm = self.clip_gradients(optimizer, recipe.clip * scale) / scale
        if not recipe.constant:
            rate = recipe.rate(self.steps_taken, self.total_steps())
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
        if self._plain:
            optimizer.optimizer.step()
        else:
            optimizer.step()
            self._steps["unreported"] -= 1  # Lightning has counted it, and mini-batches are what we count

    def clip_gradients(self, optimizer: LightningOptimizer, largest: float) -> Tensor:  # type: ignore[override]
        """Shrink the gradients together until their norm is `largest` at most; returns what it was before."""
        # not Lightning's own, which refuses a fused optimiser under bf16
        return torch.nn.utils.clip_grad_norm_((p for g in optimizer.param_groups for p in g["params"]), largest)

    @property
    def steps_taken(self) -> int:
        """Mini-batches trained on so far."""
        return self.trainer.global_step + self._steps["unreported"]

    def total_steps(self) -> int:
        """Mini-batches in the whole training.

        Raises:
            StraylightError: if the Trainer has no end.
        """
        if self._total is None:
            trainer, loader = self.trainer, cast(Any, self.trainer.train_dataloader)
            ends = [trainer.max_steps] if trainer.max_steps > 0 else []
            if trainer.max_epochs and trainer.max_epochs > 0:
                ends.append(loader.steps_in(int(trainer.num_training_batches)) * trainer.max_epochs)
            if not ends:
                raise StraylightError(
                    "A schedule, a warm-up or a detector of several phases needs to know the end: set "
                    "trainer.max_epochs or max_steps."
                )
            self._total = min(ends)
        return self._total

    @property
    def done(self) -> float | None:
        """The fraction of the training that is over; `None` if the Trainer has no end."""
        try:
            return min(1.0, self.steps_taken / max(1, self.total_steps()))
        except StraylightError:
            return None

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

        Its wrappers around backward and step are a good part of a small network's training time.
        """
        hooks = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")
        listeners = [(self, pl.LightningModule), *((c, pl.Callback) for c in self.trainer.callbacks)]  # type: ignore[attr-defined]
        return (
            type(self.trainer.strategy) is SingleDeviceStrategy
            and type(self.trainer.precision_plugin) is Precision
            and all(
                getattr(getattr(one, hook), "__func__", None) is getattr(base, hook)
                for one, base in listeners
                for hook in hooks
            )
            and type(self).optimizer_step is pl.LightningModule.optimizer_step
            and type(self).backward is pl.LightningModule.backward
        )

    def configure_optimizers(self) -> Any:
        parameters = [p for p in self.parameters() if p.requires_grad]
        return self.optimization.build(parameters) if parameters else []

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a mini-batch by name."""
        losses = self.loss(batch)
        return losses if isinstance(losses, dict) else {"loss": losses}

    def seed_noise(self, step: int, rank: int = 0) -> None:
        """Make the random numbers that follow those of this step; steps below zero are validation's."""
        seed = (((self._noise_seed or 0) * 1_000_003 + step) * 4099 + rank) % 2**63
        # the CPU generator alone, where there is no other: torch.manual_seed costs seventy times as much
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed(seed)

    # hooks

    def on_fit_start(self) -> None:
        self.__dict__.pop("_plain", None)  # of an earlier Trainer
        self._warned.clear()
        self._total = None
        self.gradient_norm = None
        _stop_searching_for_gpus()
        if self._noise_seed is None:
            self._noise_seed = torch.initial_seed() % 2**31

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["noise_seed"] = self._noise_seed
        checkpoint["loss_sums"] = self._sums, self._rows  # of an epoch that was interrupted

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._noise_seed = checkpoint.get("noise_seed")
        self._interrupted_sums = checkpoint.get("loss_sums", ({}, {}))

    def on_train_epoch_start(self) -> None:
        (sums, self._rows), self._interrupted_sums = self._interrupted_sums, ({}, {})
        self._sums = {name: total.to(self.device) for name, total in sums.items()}  # checkpoints are read on the CPU

    def on_validation_epoch_start(self) -> None:
        self._synchronise_buffers()
        self._training_sums = self._sums, self._rows  # validation runs before the training epoch has ended
        self._sums, self._rows = {}, {}

    def on_validation_epoch_end(self) -> None:
        self._log_losses("val")
        self._sums, self._rows = self._training_sums

    def on_train_epoch_end(self) -> None:
        self._synchronise_buffers()
        self.watch(self._log_losses("train"))
        self._sums, self._rows = {}, {}

    def count(self, losses: list[dict[str, Tensor]], sizes: tuple[int, ...]) -> None:
        """Add the losses of some mini-batches to the means of this stage; each may have losses of its own."""
        for name in dict.fromkeys(name for one in losses for name in one):
            having = [(one[name].detach(), n) for one, n in zip(losses, sizes, strict=True) if name in one]
            values, rows = torch.stack([value for value, _ in having]), [n for _, n in having]
            total = values.double() @ torch.tensor(rows, dtype=torch.double).to(values.device)
            self._sums[name] = self._sums[name] + total if name in self._sums else total
            self._rows[name] = self._rows.get(name, 0) + sum(rows)

    def watch(self, means: dict[str, float]) -> None:
        """Look at an epoch's mean losses by name, of all ranks, to warn of what goes wrong."""

    def warn(self, what: str, sentence: str) -> None:
        """Say a sentence, on the first rank and once in a training."""
        if what not in self._warned and self.global_rank == 0:
            log.warning(f"Epoch {self.current_epoch}: {sentence}")
        self._warned.add(what)

    def _log_losses(self, stage: str) -> dict[str, float]:
        if not self._sums:
            return {}
        rows = torch.tensor([self._rows[name] for name in self._sums], dtype=torch.double, device=self.device)
        sums = torch.stack([torch.stack([*self._sums.values()]), rows])
        if self.trainer.world_size > 1:
            dist.all_reduce(sums)
        means = dict(zip(self._sums, (sums[0] / sums[1]).tolist(), strict=True))
        if not all(map(math.isfinite, means.values())):
            raise StraylightError(
                f"Training diverged: {stage} losses of epoch {self.current_epoch} are {means}. "
                "Lower optimizer.lr, set optimizer.clip, or choose another detector.scaling."
            )
        losses = {f"{stage}/{name}": value for name, value in means.items()}
        self.log_dict(losses, sync_dist=self.trainer.world_size > 1)  # equal already; Lightning would warn otherwise
        return means

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
