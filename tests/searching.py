"""An engine whose jobs end at once, with numbers that follow from their configs, for tests of searches."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from straylight.engines.base import Ended, Running
from straylight.folder import RunFolder
from straylight.job.devices import Asked
from straylight.job.order import Order
from straylight.journal import NAME, opened, study


class Died(BaseException):
    """Whoever searches is killed."""


def loss(config: dict[str, Any]) -> dict[str, Any]:
    """What a run reaches: the less, the better, with a little that is of its seed."""
    of = config["detector"]
    values = [float(of[key]) for key in ("latent", "k", "bins") if isinstance(of.get(key), int | float)]
    value = sum((v - 5) ** 2 for v in values) + abs(math.log10(config["optimizer"]["lr"]) + 3) + config["seed"] / 7
    return {"criteria": {"val/loss": value}, "parameters": sum(100 - v for v in values)}


class Numbers:
    """See `straylight.engines.base.Engine`.

    Args:
        reached: what a record holds of a job with such a config; fields of it take the place of those of a good end.
        room: jobs that are kept until as many run, or no more come, of which the last ends first; 0 ends each at once.
        dies: how many jobs may be submitted before whoever searches is killed, and whether that job ends all the same.
    """

    name, outlives, queues = "nothing", False, True

    def __init__(
        self,
        reached: Callable[[dict[str, Any]], dict[str, Any]] = loss,
        room: int = 0,
        dies: tuple[int, bool] | None = None,
    ) -> None:
        self.reached, self.room, self.dies = reached, room, dies
        self.jobs: dict[str, RunFolder] = {}
        self.running: deque[str] = deque()
        self.most: list[int] = []
        self._looks = 0

    def submit(self, folder: RunFolder, asked: Asked) -> str | None:
        self.jobs[id := str(len(self.jobs))] = folder
        self.running.append(id)
        self.most.append(len(self.running))
        self._looks = 0
        if self.dies is not None and len(self.jobs) == self.dies[0]:
            if self.dies[1]:
                self.end(id)
            raise Died
        return id

    def look(self, ids: Collection[str]) -> dict[str, Running | Ended]:
        self._looks += 1
        last = self.running[-1] if len(self.running) >= self.room or self._looks > 20 else None
        return {id: self.end(id) if not self.room or id == last else Running() for id in ids}

    def end(self, id: str) -> Ended:
        self.running.remove(id)
        folder = self.jobs[id]
        order = Order.read(folder)
        found = {"metrics": {"test/auroc": 0.5}, "latency": [], "status": "ok", "duration_s": 1.0}
        folder.write_result({**found, **order.fields, **self.reached(dict(order.config))})
        return Ended(0)

    def wait(self, ids: Collection[str], seconds: float) -> None:
        pass

    def stop(self, id: str, grace_s: float) -> None:
        pass

    def close(self) -> None:
        pass


def trials(folder: Path) -> list[Any]:
    """Those in the journal of a sweep's folder."""
    return study(opened(folder / NAME)).get_trials()


def told(folder: Path) -> list[tuple[Any, ...]]:
    """What tells two searches from each other."""
    return [(t.number, t.params, t.values, t.state.name) for t in trials(folder)]


def record(folder: Path, name: int | str) -> dict[str, Any]:
    """The record of a job of the sweep in this folder."""
    return dict(json.loads((folder / str(name) / "result.json").read_text()))


SOURCE = """
from dataclasses import replace

import pytorch_lightning as pl
from straylight.data import Blobs


class Reads(pl.Callback):  # the last loss of validation as a criterion
    def on_validation_end(self, trainer, pl_module):
        self.loss = float(trainer.callback_metrics["val/loss"])

    def result(self):
        return {"criteria": {"val/loss": self.loss}}


class Flipped(Blobs):  # test labels the other way round
    def load(self):
        splits = super().load()
        return splits._replace(test=replace(splits.test, y=1 - splits.test.y))
"""


def make(folder: Path) -> tuple[str, str]:
    """Write a module and a config of it, in a folder of the search path; what makes them known and reads losses."""
    (folder / "readings.py").write_text(SOURCE)
    (folder / "own" / "data").mkdir(parents=True)
    (folder / "own" / "data" / "flipped.yaml").write_text("defaults: [blobs, _self_]\n_target_: readings.Flipped\n")
    return f"--config-dir={folder / 'own'}", "+callbacks.reads._target_=readings.Reads"
