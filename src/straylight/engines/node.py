"""A job on a machine that is not the submitter's, which sees the same folders: what surrounds it there.

An engine has this done by a process of its own and learns the rest from the job's folder: what is printed goes to
`output.log`, how far it is to a small file that is replaced now and then, and how it ended to `result.json`. The code
and the packages there are compared with the submitter's, and the folder is held, so that nothing is computed twice by
two machines that do not know of each other.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from straylight import versions
from straylight.atomic import write_json
from straylight.console import say
from straylight.documents import read_json
from straylight.engines.base import Running
from straylight.errors import ConfigError
from straylight.folder import RunFolder
from straylight.job.order import Order
from straylight.streams import lenient, print_to
from straylight.sweep.lease import SILENT_S, leased

#: Runs a job of several machines to its end; the exit status.
Several = Callable[[Order, RunFolder], int]

#: How a process ends that does not see the job's folder, and one whose job another process is at.
UNSEEN, TAKEN = 97, 98
INTERRUPTED = 130
TOLD_S = 2.0  # between two times that it is told how far a job is
#: What there is to say of these, where nobody could write it into a folder.
SAID = {
    UNSEEN: "found no order in the job's folder: all machines must see the sweep's folder under the same path; set "
    "hydra.sweep.dir to one on a file system that they share",
    TAKEN: "found another process at the job, which goes on",
}


def do(path: str | Path, *, threads: int | None = None, several: Several | None = None) -> int:
    """Do what the folder of a job says, and leave there all that there is to know of it; the exit status.

    Args:
        path: of the folder.
        threads: of each process on the CPU, where the config does not say.
        several: runs a job of several machines, as whatever brought this one here can.
    """
    lenient()
    folder = RunFolder(path)
    try:
        order = Order.read(folder)
    except ConfigError as error:
        say(f"Error: {socket.gethostname()}: {error}", error=True)
        return UNSEEN
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(_held(folder))
            except ConfigError as error:
                say(f"Error: {socket.gethostname()}: {error}", error=True)
                return TAKEN
            stack.callback(folder.progress.unlink, missing_ok=True)
            return _do(order, folder, threads, several)
    except KeyboardInterrupt:  # before it began
        folder.write_result({"metrics": {}, "latency": [], **order.fields, "status": "interrupted"})
        return INTERRUPTED


def _do(order: Order, folder: RunFolder, threads: int | None, several: Several | None) -> int:
    from straylight.job.perform import ENDS, perform

    print_to(folder.log(0))
    order = taken_up(order, folder)
    if (unlike := versions.differences(versions.here(), order.by, socket.gethostname())) is not None:
        say(f"Warning: {unlike}")
        order = replace(order, fields={**order.fields, "notices": [unlike]}).write(folder)
    if threads is not None and order.config.get("threads") is None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # which ranks inherit
        import torch

        torch.set_num_threads(threads)
    tell = teller(folder)
    tell("")
    if order.nodes > 1:
        assert several is not None, "an engine that starts no ranks elsewhere was given such a job"
        return several(order, folder)
    if order.ranks == 1:
        return perform(folder.path, tell=tell)
    from straylight.engines.local.foreground import run_ranks

    return ENDS[run_ranks(order, folder)["status"]]


def taken_up(order: Order, folder: RunFolder) -> Order:
    """The order, to go on with what is in the folder if that was left by an earlier process that had this very one.

    An engine may start a job again, after its machine died or had to be given up for more urgent work.
    """
    if order.resume or not folder.begun:
        return order
    return replace(order, resume=True).write(folder)


def teller(folder: RunFolder) -> Callable[[str], None]:
    """Tells in a job's folder how far it is, so often that somebody who looks has news, and the disk little to do."""
    last, host, process = -TOLD_S, socket.gethostname(), os.getpid()

    def tell(line: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= TOLD_S:
            last = now
            with suppress(OSError):  # another time
                write_json(folder.progress, {"line": line, "host": host, "process": process}, durable=False)

    return tell


def told(folder: RunFolder) -> Running:
    """How far a job is that runs elsewhere, as far as it has told."""
    try:
        said = read_json(folder.progress)
        return Running(str(said["line"]), str(said["host"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Running()


@contextmanager
def _held(folder: RunFolder) -> Iterator[None]:
    """Hold the job's folder; one whose holder died on another machine is free when that has been silent for long.

    Raises:
        ConfigError: if another process is at it.
    """
    until = time.monotonic() + SILENT_S + 2 * TOLD_S
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(leased(folder.path, alone=True, what="run"))
                break
            except ConfigError:
                if time.monotonic() > until:
                    raise
            time.sleep(TOLD_S)
        yield
