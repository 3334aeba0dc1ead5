"""`hydra/launcher=local`: every job of a sweep in a process of its own; see `straylight.engines.local.engine`."""

from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore

from straylight.sweep.launcher import POLICY, EngineLauncher

if TYPE_CHECKING:
    from straylight.engines.base import Engine

#: What an engine on one machine is given, see `straylight.engines.local.engine.Machine`.
MACHINE = {"n_jobs": None, "gpus": None, "jobs_per_gpu": 1, "jobs_per_process": 1}


class LocalLauncher(EngineLauncher):
    """On this machine."""

    def check(self) -> None:
        from straylight.engines.local.engine import Machine

        Machine(**self.options)

    def room(self) -> int | None:
        from straylight.engines.local.engine import CORES, Machine
        from straylight.job.devices import asked_for

        machine, asked = Machine(**self.options), asked_for(self.config.trainer, self.config.get("threads"))
        if asked.gpus:
            return max(1, len(machine.named_gpus) * machine.jobs_per_gpu // asked.gpus)
        return max(1, (machine.n_jobs or CORES // (asked.threads or CORES)) // asked.ranks)

    def engine(self) -> "Engine":
        from straylight.engines.local.engine import LocalEngine, Machine

        return LocalEngine(Machine(**self.options))


# a plain mapping: Hydra runs this file outside of `sys.modules`
DEFAULTS = {"_target_": "hydra_plugins.straylight_local.local.LocalLauncher", **MACHINE, **POLICY}
ConfigStore.instance().store(group="hydra/launcher", name="local", node=DEFAULTS, provider="straylight")
