"""How fast events are scored, and at what cost."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from straylight.callbacks.progress import announce
from straylight.callbacks.timing import Runtime, Timing


class Latency(pl.Callback):
    """Times the detector after the test, on the trainer's device, at several batch sizes and in several runtimes.

    The events are test events, repeated where a batch is larger than the first test batch. See
    `straylight.callbacks.timing.Timing` for what is timed and what is left out. The record's `cost` holds parameters,
    bytes of state, floating-point operations per event and, on a card, peak memory and energy; and whether others used
    the device in the meantime.

    Args:
        batches, runtimes, budget_s, longest_s, clock: see there; runtimes are `eager`, `onnx` and `compile`.

    Raises:
        ValueError: if a number or a name cannot be used.
    """

    def __init__(
        self,
        batches: Sequence[int] = (1, 32, 1024, 16384),
        runtimes: Sequence[Runtime] = ("eager", "onnx"),
        budget_s: float = 0.1,
        longest_s: float = 2.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.timing = Timing(batches, runtimes, budget_s, longest_s, clock)
        self.entries: list[dict[str, Any]] = []
        self.cost: dict[str, Any] = {}
        self._sample: tuple[Tensor, Tensor] | None = None

    def on_test_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, *args: Any) -> None:
        if self._sample is None:
            most = max(self.timing.batches)
            self._sample = batch.x[:most], batch.context[:most]

    @torch.inference_mode()
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self._sample is not None
        if trainer.is_global_zero:
            announce(trainer, "timing")
            # in the precision that was tested
            self.entries, self.cost = self.timing(pl_module, *self._sample, trainer.precision_plugin.forward_context)
        self._sample = None
        trainer.strategy.barrier()

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"latency": self.entries, "cost": self.cost}
