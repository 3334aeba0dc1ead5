"""Runs in Weights & Biases: on disk until they are sent, or sent as they go."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from straylight.atomic import write_json
from straylight.callbacks.tracker import Tracked, Tracker, once
from straylight.documents import read_json
from straylight.errors import ConfigError
from straylight.extras import lacking, needed


class WandbLog(Tracker, WandbLogger):
    """Lightning's W&B logger, which keeps still, asks for no login and, offline, reaches for no network.

    Losses have their course, and what was measured once, `test/...`, stands in the summary, so that it is a column of
    W&B's table and no chart of one point. Figures are media. A run keeps the id that its folder has: one that is
    resumed is the same run of W&B's; offline it leaves a second part of the same id, to be sent behind the first.

    Args:
        save_dir: the run's folder, in which W&B makes `wandb/`.
        project: as W&B has it.
        name: of the run; `None` has whoever starts the run say.
        group: of runs; `None` is the sweep.
        offline: whether the run stays on disk, until it is sent by `wandb sync`.
        machine: whether W&B samples the load of the machine meanwhile, which disturbs what is timed.
        options: see `pytorch_lightning.loggers.WandbLogger`.

    Raises:
        ConfigError: if `wandb` is not installed.
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "straylight",
        name: str | None = None,
        group: str | None = None,
        offline: bool = True,
        machine: bool = False,
        **options: Any,
    ) -> None:
        needed("logger=wandb", "wandb", "wandb")
        super().__init__(name=name, save_dir=save_dir, project=project, **options)
        self.offline, self.machine, self.group = offline, machine, group
        self.final: dict[str, float] = {}

    @classmethod
    def lacks(cls) -> str | None:
        return lacking("logger=wandb", "wandb", "wandb")

    def begin(self, run: Tracked) -> None:
        if self.offline:
            os.environ["WANDB_ERROR_REPORTING"] = "false"  # before it is imported; it would tell its makers
        import wandb

        if not self.offline and not wandb.api.api_key:
            raise ConfigError(
                "logger.wandb.offline=false sends the run to W&B, where nobody is logged in: type `wandb login` first."
            )
        begun = Path(str(self.save_dir), "wandb", "straylight.json")
        known = read_json(begun) if begun.is_file() else {}  # of a run that is resumed, maybe without its sweep
        if known.get("run") != run.run:
            known = {"run": run.run, "name": run.name, "group": run.group}
        options = {
            "name": self._wandb_init["name"] or known["name"],
            "group": self.group or known["group"],
            "id": self._wandb_init["id"] or run.run,
            "mode": "offline" if self.offline else "online",
            "resume": None if self.offline else "allow",
            "reinit": "create_new",  # whoever has a run of theirs in this process keeps it
            "settings": wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=not self.machine
            ),
        }
        self._wandb_init = {**{k: v for k, v in self._wandb_init.items() if k != "anonymous"}, **options}
        self._name, self._id = options["name"], options["id"]
        begun.parent.mkdir(parents=True, exist_ok=True)
        write_json(begun, known, durable=False)
        try:
            self._experiment = wandb.init(**self._wandb_init)
            self._experiment.define_metric("trainer/global_step")  # the axis of all charts
            self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
            self._experiment.config.update(dict(run.asked), allow_val_change=True)
        except Exception as error:  # of W&B's own sorts
            with suppress(Exception):  # what was said first counts
                self._end(failed=True)
            raise ConfigError(f"W&B could not begin a run: {' '.join(str(error).split())[:300]}") from error

    def _find(self, run: Tracked) -> bool:
        there = any(Path(str(self.save_dir), "wandb").glob(f"*run-*-{run.run}"))
        if there:
            self.begin(run)
        return there

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.final |= {name: float(value) for name, value in metrics.items() if once(name)}
        if charts := {name: value for name, value in metrics.items() if name not in self.final}:
            self._try(super().log_metrics, charts, step)

    def _picture(self, tag: str, png: bytes, step: int) -> None:
        import wandb

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{tag.rpartition('/')[2]}.png")
            path.write_bytes(png)
            self.experiment.log({tag: wandb.Image(str(path)), "trainer/global_step": step})

    def _reached(self, final: Mapping[str, float]) -> None:
        self.experiment.summary.update({**self.final, **final})

    def _end(self, failed: bool) -> None:
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(failed))
            self._experiment = None
