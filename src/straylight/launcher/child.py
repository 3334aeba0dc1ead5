"""In the process of a job: one job of a sweep, or one rank of it, or small jobs one after the other."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from straylight.launcher.shared import reusable, unchanged
from straylight.report.results import read


class Order(NamedTuple):
    """What a process is to do.

    Attributes:
        config: the job's composed config: of a sweep's job with `hydra` in it, otherwise resolved and without.
        folder: the job's.
        rank: 0 for the process that keeps the record.
        resume: go on from the newest checkpoint in the folder.
        environment: the whole of it, set before anything of the job runs; that of the server is as old as the server.
        threads: of torch, where the config leaves the choice; None where it says.
        callbacks: Hydra's; None for ranks other than the first.
        log: file for what the process prints; None leaves it where the server prints.
        keep: whether the process takes another job after this one.
        fields: what `result.json` says of what was asked for.
    """

    config: Any
    folder: str
    rank: int
    resume: bool
    environment: Mapping[str, str]
    threads: int | None
    callbacks: Any
    log: str | None
    keep: bool
    fields: Mapping[str, Any]


def main(orders: Connection, told: Connection) -> None:
    """Entry point of the process; how a job goes is told through the pipe, as pairs of a word and a value.

    Its exit status is 0 if the job went well, 130 if it was interrupted, and another one otherwise.
    """
    os.setpgid(0, 0)  # with all that it starts it can be ended as one
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server may have been told to ignore it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import multiprocessing

    # what a job starts is forked from it: a server of its own would import everything anew
    multiprocessing.set_start_method("fork", force=True)
    try:
        while (order := _next(orders)) is not None:
            with unchanged():
                _do(order, told)
            if not (order.keep and reusable()):
                break
            _flush()
            told.send(("free", None))
    except KeyboardInterrupt:
        _leave(130)
    except SystemExit as error:
        _leave(error.code if isinstance(error.code, int) else 1)
    except BaseException:
        traceback.print_exc()
        _leave(1)
    _leave(0)


def _next(orders: Connection) -> Order | None:
    try:
        return pickle.loads(orders.recv_bytes())
    except EOFError:  # there are no more
        return None


def _do(job: Order, told: Connection) -> None:
    """Do what is ordered.

    Raises:
        SystemExit: if it did not go well.
    """
    from straylight import app
    from straylight.callbacks import progress

    os.environ.clear()
    os.environ.update(job.environment)
    if job.log is not None:
        _print_to(Path(job.log))
        progress.listener = lambda line: told.send(("progress", line))
    if job.threads is not None:
        import torch

        torch.set_num_threads(job.threads)
    if job.rank:
        _follow(job)
        return
    if "hydra" in job.config:
        _lead(job)
    else:
        handlers: list[logging.Handler] = [
            logging.StreamHandler(sys.stdout),
            logging.FileHandler(Path(job.folder) / "train.log"),
        ]
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)
        app.attempt(job.config, Path(job.folder), dict(job.fields), resume=job.resume)
    status = (read(Path(job.folder)) or {}).get("status")
    if status != "ok":
        sys.exit(130 if status == "interrupted" else 1)


def _leave(status: int) -> NoReturn:
    logging.shutdown()
    _flush()
    os._exit(status)  # threads of libraries do not hold it up


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _lead(job: Order) -> None:
    """The job itself, as Hydra runs jobs."""
    from hydra import version
    from hydra.core.utils import JobRuntime, run_job, setup_globals
    from hydra.types import HydraContext

    from straylight import app

    version.setbase(app.HYDRA)
    setup_globals()
    JobRuntime.instance().set("name", job.config.hydra.job.name)
    app.resuming, app.asked = job.resume, job.fields
    context = HydraContext(config_loader=None, callbacks=job.callbacks)  # type: ignore[arg-type]
    ended = run_job(
        task_function=app.task,
        config=job.config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=context,
    )
    _ = ended.return_value  # which raises what was raised


def _follow(job: Order) -> None:
    """A rank other than the first."""
    from straylight.errors import StraylightError
    from straylight.job.train import train

    try:
        train(job.config, Path(job.folder), resume=job.resume)
    except StraylightError as error:
        print(f"Rank {job.rank}: {error}", file=sys.stderr)  # the first rank meets the same and records it
        sys.exit(1)


def _print_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)
