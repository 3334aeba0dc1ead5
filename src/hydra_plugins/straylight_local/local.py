"""`hydra/launcher=local`: every job of a sweep in a process of its own; see `straylight.engines.local.engine`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

#: What an engine on one machine is given, see `straylight.engines.local.engine.Machine`.
MACHINE = {"n_jobs": None, "gpus": None, "jobs_per_gpu": 1, "jobs_per_process": 1}
#: What becomes of jobs, see `straylight.sweep.sweep.Policy`.
POLICY = {"retry": 0, "timeout_s": None, "fail_fast": False, "grace_s": 10.0}


class LocalLauncher(Launcher):
    """Hands jobs to a sweep and its engine, which are imported when there are some."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.history: Any = None  # of earlier batches, where the sweeper makes several

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from straylight.sweep.command import Command

        self.config, self.loader = config, hydra_context.config_loader
        self.command = Command.of(task_function)

    def look_at(self, job_overrides: Iterable[Sequence[str]]) -> None:
        """Refuse values that do not fit, before there is any job or folder."""
        from straylight.engines.local.engine import Machine
        from straylight.engines.local.pool import ask, warm
        from straylight.sweep.launch import look_at
        from straylight.sweep.sweep import Policy

        Machine(**{name: self.options[name] for name in MACHINE})
        Policy(**{name: self.options[name] for name in POLICY})
        self.command.phases("loading torch and Lightning")
        warm()
        look_at(self.config, self.loader, job_overrides, ask, self.command.trust)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from straylight.engines.local.engine import LocalEngine, Machine
        from straylight.sweep.launch import launch
        from straylight.sweep.sweep import History, Policy

        self.command.sweep = Path(self.config.hydra.sweep.dir).absolute()
        self.history = self.history or History()
        engine = LocalEngine(Machine(**{name: self.options[name] for name in MACHINE}))
        try:
            return launch(
                self.config,
                self.loader,
                job_overrides,
                initial_job_idx,
                engine=engine,
                policy=Policy(**{name: self.options[name] for name in POLICY}),
                history=self.history,
                command=self.command,
            )
        finally:
            engine.close()


# a plain mapping: Hydra runs this file outside of `sys.modules`
DEFAULTS = {"_target_": "hydra_plugins.straylight_local.local.LocalLauncher", **MACHINE, **POLICY}
ConfigStore.instance().store(group="hydra/launcher", name="local", node=DEFAULTS, provider="straylight")
