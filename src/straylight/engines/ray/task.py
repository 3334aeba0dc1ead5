"""In a task of Ray's: a process for the job, which is watched as long as it lasts.

The job is not done in Ray's own worker: there SIGINT is blocked, other signals are Ray's, and a cancellation is not
heard inside of C. Its process is forked from a server that has imported everything, as on one machine, and ends with
the worker, which ends with its node and with whoever submitted. A worker takes one task after the other, so the
server serves many jobs.
"""

import os
import signal
import sys
import threading
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import NamedTuple

from straylight.engines import node
from straylight.engines.local import pool
from straylight.engines.local.child import Question
from straylight.engines.ray import ranks
from straylight.engines.ray.ranks import Meeting, RankEnded, World
from straylight.folder import RunFolder
from straylight.job.perform import ENDS
from straylight.stopping import SIGNALS

TICK_S = 0.2  # in which a cancellation is heard


class Work(NamedTuple):
    """What a task is to do.

    Attributes:
        folder: the job's.
        threads: of each process on the CPU, where the config does not say.
        cwd: the folder that the sweep was typed in.
        world: of a job of several nodes, which one this task is for.
    """

    folder: str
    threads: int
    cwd: str
    world: World | None = None


class Done(NamedTuple):
    """How it ended.

    Attributes:
        status: of the process, as `multiprocessing` has it.
        lost: whether that is not known, since the server is gone that it was forked from.
        rank: of a job of several nodes, the one that the status is of, where it is not the whole job's.
    """

    status: int
    lost: bool = False
    rank: int | None = None


def run(work: Work, meeting: Meeting | None = None) -> Done:
    """Have a job done, or the part of it that is on this node.

    The first cancellation interrupts the job as Ctrl-C does, the next one kills it.
    """
    asked = 0
    process = None
    try:
        if threading.current_thread() is threading.main_thread():  # a node that was started by nohup ignores it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        process = _started(work, meeting)
        found: RankEnded | None = None
        while True:
            try:
                if (status := process.process.exitcode) is not None or found is not None:
                    break
                wait([process.process.sentinel, *filter(None, [process.told])], TICK_S)
                found = next((value for word, value in process.heard() if word == "answer"), None)
            except KeyboardInterrupt:  # which Ray has raised
                asked += 1
                process.interrupt() if asked == 1 else process.kill()
        if found is not None:
            return Done(found.status, rank=found.rank)
        return Done(status or 0, status == pool.LOST and process.lost)
    finally:
        if process is not None:
            process.close()
        if work.world is None or work.world.node == 0:
            with suppress(OSError):
                RunFolder(work.folder).progress.unlink(missing_ok=True)


def _started(work: Work, meeting: Meeting | None) -> pool.Worker:
    """A process that does the work."""
    # Ray's own variables are of this worker; a GPU that was not given is not seen
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {"CUDA_VISIBLE_DEVICES": "", **own}
    with _nameless():
        worker = pool.Worker()
    worker.do(Question(_do, (work, meeting, environment)))
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


def _do(work: Work, meeting: Meeting | None, environment: Mapping[str, str]) -> RankEnded:
    """In the process of the job, or of the part of it that is on this node.

    Returns:
        how the ranks ended, on a node that only has some of them.

    Raises:
        SystemExit: with the status.
    """
    os.environ.clear()
    os.environ.update(environment)
    with suppress(OSError):  # on a machine that has no such folder
        os.chdir(work.cwd)
    folder = RunFolder(work.folder)
    if work.world is None or work.world.node == 0:
        node.teller(folder)("")  # it no longer waits for its turn
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if work.world is None:
        sys.exit(node.do(folder.path, threads=work.threads))
    assert meeting is not None
    if work.world.node > 0:
        return ranks.run(folder, work.world, meeting)
    ended: list[RankEnded] = []

    def several(*_: object) -> int:
        assert work.world is not None and meeting is not None
        ended.append(ranks.run(folder, work.world, meeting))
        return ENDS["failed"] if ended[0].status < 0 else ended[0].status

    status = node.do(folder.path, threads=work.threads, several=several)
    if ended and ended[0].status < 0:
        return ended[0]
    sys.exit(status)
