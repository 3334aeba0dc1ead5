"""A job's folder, done by this process: whatever started it, and on whichever machine."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from straylight.console import Formatter, say
from straylight.errors import ConfigError
from straylight.folder import RunFolder
from straylight.job.attempt import Tell, attempt
from straylight.job.order import Order, keep_hydra
from straylight.objective import returned
from straylight.phases import Phases
from straylight.result import headline
from straylight.stopping import STOP

Lead = Callable[[Order, RunFolder, Tell | None], dict[str, Any]]

#: How a process ends whose job went well, failed, or was interrupted.
ENDS = {"ok": 0, "failed": 1, "interrupted": 130}
#: What a job may be besides training, by the module whose `attempt` does it: a folder may name these and no other.
OTHERS = {"score": "straylight.scoring.worker"}


def perform(
    path: str | Path, *, rank: int = 0, tell: Tell | None = None, conclude: bool = True, lead: Lead = attempt
) -> int:
    """Do what the folder of a job says; the exit status.

    Args:
        path: of the folder.
        rank: 0 for the process that keeps the record.
        tell: told a line now and then on how far it is, in the place of who watches here.
        conclude: whether to print how it ended, which whoever waits for it may do.
        lead: makes the attempt; `Leader.lead` where somebody else started other ranks, too.

    Raises:
        ConfigError: if it is no folder of a job.
        Exception: whatever ended a rank other than the first.
    """
    folder = RunFolder(path)
    order = Order.read(folder)
    if rank:
        return _follow(order, folder)
    phases = None if tell is not None else Phases()
    if order.task != "train":
        return _other(order, folder, tell or phases)
    with _around(order, folder) as ended:
        try:
            result = lead(order, folder, tell or phases)
        finally:
            if phases is not None:
                phases.done()
        ended.append(returned(result))
        if result["status"] == "ok" and conclude:
            logging.getLogger(__name__).info(headline(result))
    if result["status"] == "failed" and conclude:
        say(f"Error: {result['reason']}", error=True)
    return ENDS[result["status"]]


def _other(order: Order, folder: RunFolder, tell: Any) -> int:
    """Do a job that is not training."""
    if order.task not in OTHERS:
        raise ConfigError(f"{folder.job} asks for {order.task!r}; a job is train or {' or '.join(OTHERS)}.")
    result = import_module(OTHERS[order.task]).attempt(order, folder, tell)
    if result["status"] == "failed":
        say(f"Error: {result['reason']}", error=True)
    return ENDS[result["status"]]


def log_into(folder: RunFolder) -> None:
    """Have what a run says printed, and kept in its folder behind what it said before."""
    kept = logging.FileHandler(folder.log(), encoding="utf-8", errors="backslashreplace")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout), kept]
    for handler in handlers:
        handler.setFormatter(Formatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)


def _follow(order: Order, folder: RunFolder) -> int:
    """Be a rank other than the first, which meets the same errors and records them."""
    from straylight.job.train import train

    with STOP.listening():
        train(order.cfg, folder, resume=order.resume, ranks=order.ranks)
    return ENDS["ok"]


@contextmanager
def _around(order: Order, folder: RunFolder) -> Iterator[list[Any]]:
    """What surrounds a job: a log and, for one of a sweep, what Hydra's own launchers surround theirs with.

    The job puts what it reached of its objective into the list, for Hydra's callbacks.
    """
    ended: list[Any] = []
    if not order.hydra:
        log_into(folder)
        yield ended
        return
    from hydra import version
    from hydra._internal.callbacks import Callbacks
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, env_override, setup_globals
    from omegaconf import DictConfig

    from straylight.config import HYDRA

    version.setbase(HYDRA)
    setup_globals()
    # all of it where somebody's callbacks look at it
    others: Any = order.config if order.hydra.get("callbacks") else {}
    cfg: Any = DictConfig({**others, "hydra": dict(order.hydra)})
    JobRuntime.instance().set("name", cfg.hydra.job.name)
    HydraConfig.instance().cfg = cfg
    keep_hydra(folder, order.hydra)
    callbacks, here = Callbacks(cfg), Path.cwd()
    if cfg.hydra.job.chdir:
        os.chdir(folder)
    configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)
    try:
        with env_override(cfg.hydra.job.env_set):
            callbacks.on_job_start(config=cfg, task_function=lambda cfg: None)
            yield ended
        job = JobReturn(list(cfg.hydra.overrides.task), status=JobStatus.COMPLETED)
        job.return_value = ended[0]
        callbacks.on_job_end(config=cfg, job_return=job)
    finally:
        os.chdir(here)
