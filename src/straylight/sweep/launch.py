"""What Hydra's launchers of ours do: check the values that are swept over, and run a batch of jobs."""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from straylight import config
from straylight.engines.base import Engine
from straylight.errors import ConfigError
from straylight.sweep.board import Board
from straylight.sweep.command import Command
from straylight.sweep.composer import Composer
from straylight.sweep.job import Job
from straylight.sweep.lease import leased
from straylight.sweep.manifest import Manifest
from straylight.sweep.points import Points, trusted_job
from straylight.sweep.source import Source
from straylight.sweep.sweep import History, Policy, Sweep

AT_ONCE = 200  # configs that are looked at by one question


def launch(
    cfg: DictConfig,
    compose: Composer,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    *,
    engine: Engine,
    policy: Policy,
    history: History,
    command: Command,
    source: Source | None = None,
) -> list[JobReturn]:
    """Run jobs of a sweep; what every one of them returned, in their order. None is what a failed one returns.

    Args:
        cfg: the sweep's config.
        compose: the configs of its jobs.
        job_overrides: of each job.
        first: the number of the first.
        engine: runs them.
        policy: for those that do not end well.
        history: of the same sweep, where the sweeper hands over one batch of jobs after the other.
        command: of the sweep.
        source: of more jobs, by what others have reached.

    Raises:
        ConfigError: if the sweep's folder is in use by another.
        KeyboardInterrupt: on Ctrl-C, after all jobs were ended and marked.
    """
    setup_globals()
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    jobs = [Job(first + i, list(overrides)) for i, overrides in enumerate(job_overrides)]
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    for job in jobs:  # what tells it from the others
        job.what = " ".join(o for o in filter_overrides(job.overrides) if o not in shared)
    first_batch = not history.seen
    points = Points(cfg, compose, history.seen, command)
    command.phases.done()  # the board says how far the jobs are
    with (
        nullcontext() if command.resume else leased(points.folder.path, alone=False),  # which who resumes holds already
        Board(len(jobs)) as board,
    ):
        if first_batch:
            Manifest.of(cfg.hydra, command.manifest).write(points.folder)
        Sweep(jobs, points, engine, policy, board, history, command, source).run()
    return [job.returned or JobReturn(job.overrides, status=JobStatus.COMPLETED) for job in jobs]


def look_at(
    cfg: DictConfig,
    compose: Composer,
    job_overrides: Iterable[Sequence[str]],
    ask: Callable[..., list[str]],
    trust: Collection[str] | None = None,
    *,
    nodes: bool = False,
) -> None:
    """Compose jobs among which every value that is swept over stands once, and look at their values.

    Args:
        cfg: the sweep's config.
        compose: the configs of its jobs.
        job_overrides: of these jobs.
        ask: calls a function, with its arguments, in a process that has imported what configs name.
        trust: what they may build, where they came with a folder; `None` where they were typed.
        nodes: whether a job of several machines can be started.

    Raises:
        ConfigError: for the first value that does not fit, before there is any job or folder.
    """
    plain = (_values(cfg, compose, overrides, trust, nodes) for overrides in job_overrides)
    known = (values for values in plain if values is not None)
    while some := list(islice(known, AT_ONCE)):
        if wrong := ask(config.faults, some):
            raise ConfigError(wrong[0])


def _values(
    cfg: DictConfig, compose: Composer, overrides: Sequence[str], trust: Collection[str] | None, nodes: bool
) -> dict[str, Any] | None:
    """The config of a job as plain values; `None` of one that fails by itself and says so."""
    composed = compose(overrides)
    trusted_job(composed, cfg, trust)
    with read_write(composed), open_dict(composed):
        composed.pop("hydra")
        composed.paths.run = "."
    try:
        values: Any = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException:
        return None
    if nodes:
        values["trainer"].pop("num_nodes", None)  # which by itself would wait for machines that nobody starts
    return dict(values)
