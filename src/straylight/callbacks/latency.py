"""How fast events are scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from straylight.metrics.latency import measure


class Latency(pl.Callback):
    """Times the detector after the test, on the trainer's device, scaling included, at several batch sizes.

    The events are test events, repeated where a batch is larger than the first test batch.

    Args:
        batches: batch sizes.
        budget_s: seconds spent on each.
        clock: seconds; replaced in tests.
    """

    def __init__(
        self,
        batches: Sequence[int] = (1, 32, 1024),
        budget_s: float = 0.1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not batches or min(batches) < 1:
            raise ValueError(f"callbacks.latency.batches must be one or more positive sizes, not {list(batches)}")
        self.batches, self.budget_s, self.clock = tuple(batches), budget_s, clock
        self.entries: list[dict[str, Any]] = []
        self._sample: tuple[Tensor, Tensor] | None = None

    def on_test_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, *args: Any) -> None:
        if self._sample is None:
            self._sample = batch.x[: max(self.batches)], batch.context[: max(self.batches)]

    @torch.inference_mode()
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self._sample is not None
        self.entries = []
        for size in self.batches if trainer.is_global_zero else ():
            x, context = (rows[torch.arange(size) % len(rows)] for rows in self._sample)
            with trainer.precision_plugin.forward_context():  # the computation that was tested
                times = measure(
                    lambda x=x, context=context: pl_module(x, context),  # type: ignore[misc]
                    events=size,
                    budget_s=self.budget_s,
                    synchronise=torch.cuda.synchronize if pl_module.device.type == "cuda" else lambda: None,
                    clock=self.clock,
                )
            compiled = getattr(pl_module, "compiled", False)
            self.entries.append({"runtime": "compiled" if compiled else "eager", "batch": size, **times})
        self._sample = None
        trainer.strategy.barrier()

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"latency": self.entries}
