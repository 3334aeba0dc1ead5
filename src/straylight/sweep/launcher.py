"""What Hydra's launchers of ours have in common: each hands the jobs of a sweep to an engine."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from straylight.engines.base import Engine
    from straylight.sweep.composer import Composer
    from straylight.sweep.source import Source

#: What becomes of jobs, on whichever engine; see `straylight.sweep.sweep.Policy`.
POLICY = {"retry": 0, "timeout_s": None, "fail_fast": False, "grace_s": 10.0}


class EngineLauncher(Launcher):
    """Hands jobs to a sweep and its engine, which are imported when there are some.

    Attributes:
        nodes: whether a job of several machines can be started.
    """

    nodes: ClassVar[bool] = False

    def __init__(self, **options: Any) -> None:
        self.policy = {name: options.pop(name) for name in POLICY}
        self.options = options
        self.history: Any = None  # of earlier batches, where the sweeper makes several

    @abstractmethod
    def check(self) -> None:
        """Look at the options before there is a job or a folder.

        Raises:
            ConfigError: if one does not fit, or the engine is not there.
        """

    @abstractmethod
    def engine(self) -> "Engine":
        """What runs the jobs."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from straylight.sweep.command import Command

        self.config, self.loader = config, hydra_context.config_loader
        self._compose: Any = None
        self.command = Command.of(task_function)

    @property
    def compose(self) -> "Composer":
        """What composes the configs of jobs, which remembers what many of them have in common."""
        from straylight.sweep.composer import Composer

        self._compose = self._compose or Composer(self.config, self.loader)
        return self._compose

    def look_at(self, job_overrides: Iterable[Sequence[str]]) -> None:
        """Refuse values that do not fit, before there is any job or folder."""
        from straylight.engines.local.pool import ask, warm
        from straylight.sweep.launch import look_at
        from straylight.sweep.sweep import Policy

        self.check()
        Policy(**self.policy)
        self.command.phases("loading torch and Lightning")
        warm()
        look_at(self.config, self.compose, job_overrides, ask, self.command.trust, nodes=self.nodes)

    def room(self) -> int | None:
        """Jobs that run at a time, as far as is known before any does."""
        return None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return self._launched(job_overrides, initial_job_idx)

    def pursue(self, source: "Source") -> None:
        """Run jobs as they come, each chosen by what earlier ones have reached."""
        self._launched([], 0, source)

    def _launched(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int, source: "Source | None" = None
    ) -> Sequence[JobReturn]:
        from straylight.sweep.launch import launch
        from straylight.sweep.sweep import History, Policy

        self.command.sweep = Path(self.config.hydra.sweep.dir).absolute()
        self.history = self.history or History()
        engine = self.engine()
        try:
            return launch(
                self.config,
                self.compose,
                job_overrides,
                initial_job_idx,
                engine=engine,
                policy=Policy(**self.policy),
                history=self.history,
                command=self.command,
                source=source,
            )
        finally:
            engine.close()
