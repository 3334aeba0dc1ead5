"""What is left of a run: `result.json` and `scores.parquet`."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from straylight.callbacks.cost import Layers
from straylight.callbacks.scored import Scores, TestScores, columns_of, kinds_of, measured, split_of, weights_of
from straylight.folder import RunFolder
from straylight.report.kept import WEIGHT
from straylight.versions import packages


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on, and the CPU instructions that torch adds up with."""
    return {**packages(), "instructions": torch.backends.cpu.get_cpu_capability()}


class Record(TestScores):
    """Writes `result.json` at the end of the test, and `scores.parquet` beside it.

    What it holds comes from the other callbacks: each that has a method `result()` adds its fields. A run that fails
    or is interrupted is recorded as such. See docs/runs.md for the fields.

    Args:
        folder: the run's folder.
        fields: more fields, such as the command.
    """

    def __init__(self, folder: str | Path, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.folder, self.fields = RunFolder(folder), dict(fields or {})
        self.written: dict[str, Any] = {}
        self._start = time.monotonic()
        self._layers: list[dict[str, Any]] = []
        self._watched: Layers | None = None

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_test_epoch_start(trainer, pl_module)
        self._watched = Layers(pl_module) if trainer.is_global_zero else None

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        super().on_test_batch_end(trainer, pl_module, *args, **kwargs)
        if self._watched is not None:  # the first batch tells
            self._layers, self._watched = self._watched.done(), None

    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        if not trainer.is_global_zero:
            return
        columns = columns_of(scores, kinds_of(trainer), split_of(getattr(trainer, "datamodule", None), "test"))
        if (weight := weights_of(trainer, scores.index)) is not None:
            columns[WEIGHT] = weight
        self.folder.write_columns(self.folder.scores, columns)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.write(trainer, pl_module, "ok")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._watched is not None:
            self._watched.done()
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        with suppress(OSError):  # of a full disk: it is not to hide the exception
            self.write(trainer, pl_module, "interrupted" if stopped else "failed", None if stopped else str(exception))

    def write(self, trainer: pl.Trainer, module: pl.LightningModule, status: str, reason: str | None = None) -> None:
        """Write `result.json` with this status, on the first rank, and keep what was `written`."""
        if not trainer.is_global_zero:
            return
        data = getattr(trainer, "datamodule", None)
        result: dict[str, Any] = {
            "status": status,
            "reason": reason,
            "metrics": {},
            "latency": [],
            **measured(trainer),
            "contamination": _contamination(data),
            "truth": bool(getattr(module, "sees_truth", False)),
            "parameters": sum(p.numel() for p in module.parameters()),
            "layers": self._layers,
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "device": str(trainer.strategy.root_device),
            "devices": trainer.world_size,
            "duration_s": round(time.monotonic() - self._start, 3),
            "versions": versions(),
            "digests": self.folder.digests(),
            **self.fields,
            "notices": [*_notices(data), *_notices(module), *self.fields.get("notices", ())],
        }
        self.folder.write_result(result)
        self.written = result


def _notices(of: Any) -> list[str]:
    return list(getattr(of, "notices", ()))


def _contamination(data: Any) -> float | None:
    """The fraction of anomalies among training rows, where somebody knows."""
    y = getattr(split_of(data, "train"), "y", None)
    return None if y is None or not len(y) or int(y.min()) < 0 else float((y > 0).float().mean())
