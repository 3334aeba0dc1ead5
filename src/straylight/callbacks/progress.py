"""What a run is at, at a human pace: a line for each epoch, and the phases around them."""

import time
from collections.abc import Callable
from typing import Any, TextIO

import pytorch_lightning as pl

from straylight.phases import Phases
from straylight.rows.batch import Group


class Progress(pl.Callback):
    """Says the epoch, its losses, the events trained on per second, and the time left; and what is done after them.

    `epoch 3/20  loss 0.412  val/loss 0.398  1,250,000 events/s  8 s left`. In a terminal one line is kept up to date,
    of which the last epoch stays; elsewhere each phase is a line, and epochs are at a slower pace. Detectors that are
    fitted in one pass have no epochs: the rows that they are given are counted.

    Args:
        interval_s: seconds between two lines in a terminal.
        log_interval_s: the same for epochs where there is no terminal, as in a batch job's log.
        clock: seconds; replaced in tests.
        file: where to; standard error by default.

    Attributes:
        tell: is told every line; by default it says them.
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
        self._own: Phases | None = None  # where nobody else is told
        self._first = True
        self._rows = self._passed = 0
        self._said, self._interval = 0.0, interval_s
        self._ended: int | None = None  # the epoch that has ended and was not told of

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._first = trainer.is_global_zero
        if self.tell is None:
            self._own = Phases(self.file)
            self.tell = self._own

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._own is not None:
            self._own.done()

    def phase(self, what: str) -> None:
        """Say what is done now."""
        if self._first and self.tell is not None:
            self.tell(what)

    def step(self, what: str) -> None:
        """Say how far a fit is, unless something was said just now."""
        now = self.clock()
        if now - self._said >= self._interval:
            self._said = now
            self.phase(what)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ended, self._rows, self._passed = None, 0, 0
        self._live = getattr(self.tell, "live", True)  # others show many jobs in one table
        self._interval = self.interval_s if self._live else self.log_interval_s
        self._start = self._said = self.clock()
        self._from = getattr(pl_module, "done", None) or 0.0  # of a resumed training, some was done before
        self._one_pass = getattr(pl_module, "one_pass", False)
        if self._one_pass:
            rows = getattr(trainer.train_dataloader, "events", None)
            self.phase(f"fitting {type(pl_module).__name__}" + (f" to {len(rows):,} rows" if rows is not None else ""))
        else:
            self.phase(f"training {type(pl_module).__name__}")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer, pl_module)
        self._rows, self._epoch_start = 0, self.clock()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if isinstance(batch, Group):
            self._rows += sum(batch.totals)
            self._trained_until = self.clock()
            if self._one_pass and self._trained_until - self._said >= self._interval:
                self._said = self._trained_until
                self.phase(f"fitting  {self._rows:,} rows  {self._speed(self._start)}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ended = trainer.current_epoch + 1  # told a little later: the module logs its losses after this

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer, pl_module, last=True)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.phase("testing")

    def _tell(self, trainer: pl.Trainer, module: pl.LightningModule, last: bool = False) -> None:
        epoch, self._ended = self._ended, None
        now = self.clock()
        if self._one_pass or epoch is None or not (now - self._said >= self._interval or last):
            return
        self._said = now
        of = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        if of and self._first and (at := getattr(self.tell, "at", None)) is not None:
            at(epoch, trainer.max_epochs)
        parts = [f"epoch {epoch}{of}", *self._losses(trainer)]
        if self._rows and self._trained_until > self._epoch_start:
            parts.append(self._speed(self._epoch_start))
        done = getattr(module, "done", None)
        if done is not None and done > self._from and not last:
            parts.append(f"{_duration((now - self._start) * (1 - done) / (done - self._from))} left")
        if last and self._first and isinstance(self.tell, Phases) and self._live:
            self.tell.keep("  ".join(parts))
        else:
            self.phase("  ".join(parts))

    def _speed(self, start: float) -> str:
        return f"{self._rows / (self._trained_until - start):,.0f} events/s"

    def _losses(self, trainer: pl.Trainer) -> list[str]:
        """The loss where there is one; what a phase has otherwise."""
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        losses: dict[str, float] = {name: found[name] for name in ("train/loss", "val/loss") if name in found}
        named = losses or {name: value for name, value in found.items() if name.startswith("train/")}
        return [f"{name.removeprefix('train/')} {value:.4g}" for name, value in named.items()]


def announce(trainer: pl.Trainer, what: str) -> None:
    """Say what is done now, where somebody watches a Trainer."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Progress):
            callback.phase(what)


def _duration(seconds: float) -> str:
    """`8 s`, `3:05`, `2:03:05`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
