"""`hydra/launcher=local`: every job of a sweep in a process of its own; see `straylight.launcher.local`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

#: Options, see `straylight.launcher.local.Options`. A plain mapping: Hydra runs this file outside of `sys.modules`.
DEFAULTS = {
    "_target_": "hydra_plugins.straylight_local.local.LocalLauncher",
    "n_jobs": None,
    "gpus": None,
    "jobs_per_gpu": 1,
    "jobs_per_process": 1,
    "retry": 0,
    "timeout_s": None,
    "fail_fast": False,
    "grace_s": 10.0,
}


class LocalLauncher(Launcher):
    """Hands jobs to `straylight.launcher.local.launch`, which is imported when there are some."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.history: Any = None  # of earlier batches, where the sweeper makes several

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from straylight.launcher.local import History, Options, launch

        self.history = self.history or History()
        options = Options(**self.options)
        return launch(self.config, self.hydra_context, job_overrides, initial_job_idx, options, self.history)


ConfigStore.instance().store(group="hydra/launcher", name="local", node=DEFAULTS, provider="straylight")
