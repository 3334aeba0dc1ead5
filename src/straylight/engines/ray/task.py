"""In a task of Ray's: a process for the job, which is watched as long as it lasts.

The job is not done in Ray's own worker: there SIGINT is blocked, other signals are Ray's, and a cancellation is not
heard inside of C. Its process is forked from a server that has imported everything, as on one machine, and ends with
the worker, which ends with its node and with whoever submitted. A worker takes one task after the other, so the
server serves many jobs.
"""

import os
import signal
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import NamedTuple, NoReturn

from straylight.engines import node
from straylight.engines.local import pool
from straylight.engines.local.child import Question
from straylight.folder import RunFolder
from straylight.stopping import SIGNALS

TICK_S = 0.2  # in which a cancellation is heard


class Work(NamedTuple):
    """What a task is to do.

    Attributes:
        folder: the job's.
        threads: of each process on the CPU, where the config does not say.
        cwd: the folder that the sweep was typed in.
    """

    folder: str
    threads: int
    cwd: str


def run(work: Work) -> tuple[int, bool]:
    """Have a job done; the exit status of its process, and whether that is not known since its server is gone.

    The first cancellation interrupts the job as Ctrl-C does, the next one kills it.
    """
    asked = 0
    process = None
    try:
        process = _started(work)
        while (status := process.process.exitcode) is None:
            try:
                wait([process.process.sentinel], TICK_S)
            except KeyboardInterrupt:  # which Ray has raised
                asked += 1
                process.interrupt() if asked == 1 else process.kill()
        return status, status == pool.LOST and process.lost
    finally:
        if process is not None:
            process.close()
        with suppress(OSError):
            RunFolder(work.folder).progress.unlink(missing_ok=True)


def _started(work: Work) -> pool.Worker:
    """A process that does the work."""
    # Ray's own variables are of this worker; a GPU that was not given is not seen
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {"CUDA_VISIBLE_DEVICES": "", **own}
    with _nameless():
        worker = pool.Worker()
    worker.do(Question(_do, (work, environment)))
    return worker


@contextmanager
def _nameless() -> Iterator[None]:
    """As if this were no program: that of Ray's worker is not to be run in processes which are started."""
    program = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    path, sys.path = sys.path, [entry for entry in sys.path if "thirdparty_files" not in entry]  # Ray's own packages
    try:
        yield
    finally:
        sys.modules["__main__"], sys.path = program, path


def _do(work: Work, environment: Mapping[str, str]) -> NoReturn:
    """In the process of the job.

    Raises:
        SystemExit: with the status.
    """
    os.environ.clear()
    os.environ.update(environment)
    with suppress(OSError):  # on a machine that has no such folder
        os.chdir(work.cwd)
    node.teller(RunFolder(work.folder))("")  # it no longer waits for its turn
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    sys.exit(node.do(work.folder, threads=work.threads))
