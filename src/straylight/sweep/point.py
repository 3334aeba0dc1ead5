"""One point of a sweep: what it computes, what it asks of a machine, and what its folder is told."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from straylight.job.devices import Asked, asked_for
from straylight.job.order import Parts, fields_of, parts_of
from straylight.sweep.figures import without_figures


class Point(Protocol):
    """A composed job that has no folder yet."""

    def fields(self, ranged: Collection[str]) -> dict[str, Any]:
        """What its `result.json` says of what was asked for; `ranged` are the keys that the sweep ranges over."""

    def asked(self) -> Asked:
        """What it asks of the engine."""

    def subdir(self, number: int) -> str:
        """Its folder below the sweep's, as `hydra.sweep.subdir` has it for the job of this number."""

    def parts(self, number: int, folder: str, subdir: str) -> Parts:
        """What its folder is told.

        Args:
            number: of the job.
            folder: its own, absolute; `subdir`: the same, from the sweep's.

        Raises:
            OmegaConfBaseException: if a value cannot be resolved.
        """


class Whole:
    """A point of which Hydra has composed all.

    Args:
        cfg: the job's config, with `hydra` in it, which is changed.
        overrides: as the sweeper gave them.
    """

    def __init__(self, cfg: DictConfig, overrides: Collection[str]) -> None:
        self.cfg, self.overrides = cfg, overrides

    def fields(self, ranged: Collection[str]) -> dict[str, Any]:
        return fields_of(self.cfg, self.cfg.hydra.runtime.choices, self._task(), ranged=ranged)

    def asked(self) -> Asked:
        return asked_for(self.cfg.trainer, self.cfg.get("threads"))

    def subdir(self, number: int) -> str:
        self._number(number)
        HydraConfig.instance().set_config(self.cfg)
        return str(OmegaConf.select(self.cfg, "hydra.sweep.subdir"))

    def parts(self, number: int, folder: str, subdir: str) -> Parts:
        self._number(number)
        hydra: Any = self.cfg.hydra
        with read_write(hydra.sweep), read_write(hydra.runtime), open_dict(hydra.runtime):
            hydra.sweep.subdir, hydra.runtime.output_dir = subdir, folder
        asked = self.asked()
        if asked.gpus and OmegaConf.is_list(self.cfg.trainer.devices):  # it sees no other devices than its own
            with read_write(self.cfg), open_dict(self.cfg):
                self.cfg.trainer.devices = asked.gpus
        without_figures(self.cfg, [*self._task(), *self.overrides])
        known: Any = HydraConfig.instance()
        known.cfg = self.cfg  # which nothing else of Hydra's refers to: no copy is needed
        return parts_of(self.cfg, folder)

    def _task(self) -> Any:
        """What was typed, with all that refers to other values as it is."""
        return OmegaConf.to_container(self.cfg.hydra.overrides.task, resolve=False)

    def _number(self, number: int) -> None:
        hydra: Any = self.cfg.hydra
        with read_write(hydra), read_write(hydra.job), open_dict(hydra.job):
            hydra.job.id = hydra.job.num = number
