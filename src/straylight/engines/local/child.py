"""In the process of a job: one job, or one rank of it, or small jobs one after the other."""

import logging
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from straylight.engines.local.reuse import reusable, unchanged
from straylight.errors import StraylightError
from straylight.job.pulse import beating
from straylight.streams import lenient, print_to


class Errand(NamedTuple):
    """What a process is to do: what the job's folder says, as one of its ranks.

    Attributes:
        folder: the job's.
        rank: 0 for the process that keeps the record.
        environment: the whole of it, set before anything of the job runs; that of the server is as old as the server.
        threads: of torch, where the config leaves the choice; None where it says.
        log: file for what the process prints; None leaves it where the server prints.
        keep: whether the process takes another job after this one.
        watched: whether it tells that it is alive.
    """

    folder: str
    rank: int
    environment: Mapping[str, str]
    threads: int | None
    log: str | None
    keep: bool
    watched: bool = False


class Question(NamedTuple):
    """A function to call in a process that has everything imported; its value is told."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def main(orders: Connection, told: Connection) -> None:
    """Entry point of the process; how a job goes is told through the pipe, as pairs of a word and a value.

    Its exit status is 0 if the job went well, 130 if it was interrupted, and another one otherwise.
    """
    lenient()
    os.setpgid(0, 0)  # with all that it starts it can be ended as one
    tell = _teller(told)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the server may have been told to ignore some
        signal.signal(number, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import multiprocessing

    # what a job starts is forked from it: a server of its own would import everything anew
    multiprocessing.set_start_method("fork", force=True)
    try:
        while (order := _next(orders)) is not None:
            if isinstance(order, Question):
                tell("answer", order.function(*order.arguments))
                continue
            with unchanged():
                _do(order, tell)
            if not (order.keep and reusable()):
                break
            _flush()
            tell("free", None)
    except KeyboardInterrupt:
        _leave(130)
    except SystemExit as error:
        _leave(error.code if isinstance(error.code, int) else 1 if error.code else 0)
    except BaseException as error:
        own = isinstance(error, StraylightError)
        if own:
            print(f"Error: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        with suppress(OSError):
            tell("failed", str(error) if own else f"{type(error).__name__}: {error}")
        _leave(1)
    _leave(0)


def _teller(told: Connection) -> Callable[[str, Any], None]:
    """Tells a word and a value, one at a time: a thread tells that the process is alive, too."""
    turn = threading.Lock()

    def tell(word: str, value: Any) -> None:
        with turn:
            told.send((word, value))

    return tell


def _next(orders: Connection) -> Errand | Question | None:
    try:
        return pickle.loads(orders.recv_bytes())
    except EOFError:  # there are no more
        return None


def _do(errand: Errand, tell: Callable[[str, Any], None]) -> None:
    """Do what is ordered.

    Raises:
        SystemExit: if it did not go well.
    """
    from straylight.job.perform import perform

    os.environ.clear()
    os.environ.update(errand.environment)
    if errand.log is not None:
        print_to(Path(errand.log))
    if errand.threads is not None:
        import torch

        torch.set_num_threads(errand.threads)
    if errand.watched:
        beating(lambda beat: tell("beat", tuple(beat)))
    here = errand.log is None  # whoever waits says how it ended
    progress = None if here else lambda line: tell("progress", line)
    if status := perform(errand.folder, rank=errand.rank, tell=progress, conclude=not here):
        sys.exit(status)


def _leave(status: int) -> NoReturn:
    logging.shutdown()
    _flush()
    os._exit(status)  # threads of libraries do not hold it up


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)
