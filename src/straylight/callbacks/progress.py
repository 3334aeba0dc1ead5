"""A line for each epoch, at a human pace."""

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import pytorch_lightning as pl

from straylight.rows.batch import Group


class Progress(pl.Callback):
    """Prints the epoch, its losses, the events trained on per second, and the time left.

    `epoch 3/20  loss 0.412  val/loss 0.398  1,250,000 events/s  8 s left`. Epochs that come faster than lines are
    wanted are left out; the last one never is. Detectors fitted in one pass have no epochs to report.

    Args:
        interval_s: seconds between two lines in a terminal.
        log_interval_s: the same where there is no terminal, as in a batch job's log: short trainings print nothing.
        clock: seconds; replaced in tests.
        file: where to; standard error by default.

    Attributes:
        tell: is told every line in the place of a terminal, as by whoever shows many jobs in one table.
    """

    def __init__(
        self,
        interval_s: float = 0.5,
        log_interval_s: float = 30.0,
        clock: Callable[[], float] = time.perf_counter,
        file: TextIO | None = None,
    ) -> None:
        self.interval_s, self.log_interval_s, self.clock, self.file = interval_s, log_interval_s, clock, file
        self.tell: Callable[[str], None] | None = None
        self._silent = True
        self._rows = 0
        self._ended: int | None = None  # the epoch that has ended and was not told of

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ended = None
        self._silent = not trainer.is_global_zero or getattr(pl_module, "one_pass", False)
        self._out = self.file or sys.stderr
        self._watched = self.file is None and (self.tell is not None or self._out.isatty())
        self._interval = self.interval_s if self._watched or self._out.isatty() else self.log_interval_s
        self._start = self._said = self.clock()
        self._from = getattr(pl_module, "done", None) or 0.0  # of a resumed training, some was done before

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer, pl_module)
        self._rows, self._epoch_start = 0, self.clock()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if isinstance(batch, Group):
            self._rows += sum(batch.totals)
            self._trained_until = self.clock()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ended = trainer.current_epoch + 1  # told a little later: the module logs its losses after this

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer, pl_module, last=True)

    def _tell(self, trainer: pl.Trainer, module: pl.LightningModule, last: bool = False) -> None:
        epoch, self._ended = self._ended, None
        now = self.clock()
        due = now - self._said >= self._interval or (last and self._out.isatty())
        if self._silent or epoch is None or not due:
            return
        self._said = now
        of = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        parts = [f"epoch {epoch}{of}", *self._losses(trainer)]
        if self._rows and self._trained_until > self._epoch_start:
            parts.append(f"{self._rows / (self._trained_until - self._epoch_start):,.0f} events/s")
        done = getattr(module, "done", None)
        if done is not None and done > self._from and not last:
            parts.append(f"{_duration((now - self._start) * (1 - done) / (done - self._from))} left")
        if self.tell is not None and self.file is None:
            self.tell("  ".join(parts))
        else:
            print("  ".join(parts), file=self._out, flush=True)

    def _losses(self, trainer: pl.Trainer) -> list[str]:
        """The loss where there is one; what a phase has otherwise."""
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        losses: dict[str, float] = {name: found[name] for name in ("train/loss", "val/loss") if name in found}
        named = losses or {name: value for name, value in found.items() if name.startswith("train/")}
        return [f"{name.removeprefix('train/')} {value:.4g}" for name, value in named.items()]


def _duration(seconds: float) -> str:
    """`8 s`, `3:05`, `2:03:05`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
