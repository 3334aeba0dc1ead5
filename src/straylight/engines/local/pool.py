"""Processes of one job: started, watched, ended, with nothing left of them."""

import multiprocessing
import os
import pickle
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from straylight.engines.base import Ended
from straylight.engines.local import child
from straylight.engines.local.child import Errand, Question

SERVER = multiprocessing.get_context("forkserver")
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PATIENCE_S = 5.0  # for the other ranks to end by themselves when one has failed
LINGER_S = 60.0  # and when the first one has ended
INTERRUPTED = 130  # the status of a process that was


def warm() -> None:
    """Start the server that jobs are forked from, if it does not run; it imports while we go on."""
    from multiprocessing import forkserver

    SERVER.set_forkserver_preload(["straylight.engines.local.warm"])
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    # a server with threads cannot be forked from safely; jobs set torch's own number
    os.environ.update({name: "1" for name in ONE_THREAD if before[name] is None})
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


class Worker:
    """A process that takes orders: one, or one after the other."""

    def __init__(self) -> None:
        self.orders = 0
        told, tell = SERVER.Pipe(duplex=False)
        take, self._order = SERVER.Pipe(duplex=False)
        self.told: Connection | None = told
        self.process = SERVER.Process(target=child.main, args=(take, tell), daemon=False)
        self.process.start()
        tell.close()
        take.close()

    def do(self, order: Errand | Question) -> None:
        """Give it something to do; it must not be at something else."""
        self.orders += isinstance(order, Errand)
        with suppress(BrokenPipeError):  # it has died, which is noticed as it is of one that dies later
            self._order.send_bytes(pickle.dumps(order))

    def heard(self) -> Iterator[tuple[str, Any]]:
        """What it has told since the last time."""
        while self.told is not None and self.told.poll():
            try:
                yield self.told.recv()
            except (EOFError, OSError):
                self.told.close()
                self.told = None

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        if self.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """End it at once, with what it has started."""
        if self.process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            self.process.kill()

    def close(self) -> None:
        """End it if it has not ended, and free what is held of it."""
        self.kill()
        self.process.join()
        self.process.close()
        self._order.close()
        if self.told is not None:
            self.told.close()


def ask(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process that has imported everything; its value.

    Raises:
        RuntimeError: if the process ended before it could tell, as of an error, which it has printed.
    """
    warm()
    worker = Worker()
    try:
        worker.do(Question(function, arguments))
        assert worker.told is not None
        return worker.told.recv()[1]
    except EOFError as error:
        raise RuntimeError(f"{function.__name__} ended without an answer") from error
    finally:
        worker.close()


class Processes:
    """One attempt at a job, by a process for each rank.

    Args:
        errands: what each is to do, the first rank first.
        worker: a process that has done with another job, for one of a single rank.
    """

    def __init__(self, errands: Sequence[Errand], worker: Worker | None = None) -> None:
        self.started = time.monotonic()
        self.errands = errands
        self.line = ""
        self.status: dict[int, int] = {}  # of ranks that have ended
        self.first_dead: int | None = None  # by itself, and not on Ctrl-C
        self._stopping: float | None = None
        self._free = False
        self.workers: list[Worker] = [worker] if worker else []
        self.reused = bool(worker and worker.orders)
        try:
            self.workers += [Worker() for _ in errands[len(self.workers) :]]
            for one, errand in zip(self.workers, errands, strict=True):
                one.do(errand)
        except BaseException:  # Ctrl-C: nobody else knows of them yet
            for one in self.workers:
                one.close()
            raise

    @property
    def waited_for(self) -> list[int | Connection]:
        """What says that something has happened."""
        ended: list[int | Connection] = [
            worker.process.sentinel for rank, worker in enumerate(self.workers) if rank not in self.status
        ]
        told = self.workers[0].told
        return ended if told is None else [*ended, told]

    def look(self) -> bool:
        """Take in what has happened; whether the job is over."""
        ended = {
            rank: code
            for rank, worker in enumerate(self.workers)
            if rank not in self.status and (code := worker.process.exitcode) is not None
        }
        for word, value in self.workers[0].heard():  # all that was told before the end
            if word == "free":
                self._free = True
            else:
                self.line = value
        for rank, status in sorted(ended.items(), key=lambda item: item[1]):  # what was killed before what gave up
            self.status[rank] = status
            self.workers[rank].kill()  # what it started
            if status not in (0, INTERRUPTED) and self.first_dead is None and self._stopping is None:
                self.first_dead = rank
        if self._stopping is None and self.first_dead is not None:
            self._stopping = time.monotonic() + PATIENCE_S
        elif self._stopping is None and 0 in self.status:
            self._stopping = time.monotonic() + LINGER_S
        if self._stopping is not None and time.monotonic() > self._stopping:
            self.kill()
        return self._free or len(self.status) == len(self.workers)

    def stop(self, grace_s: float) -> None:
        """Ask all processes to end as on Ctrl-C, and see to it that they have after so many seconds."""
        self._stopping = time.monotonic() + grace_s
        for rank, worker in enumerate(self.workers):
            if rank not in self.status:
                worker.interrupt()

    def kill(self) -> None:
        """End all processes and what they started at once."""
        for rank, worker in enumerate(self.workers):
            if rank not in self.status:
                worker.kill()

    def close(self) -> Worker | None:
        """Free what is held of the processes; one that can take another job is handed over instead."""
        if self._free and not self.status and self._stopping is None:
            return self.workers[0]
        for worker in self.workers:
            worker.close()
        return None

    @property
    def ended(self) -> Ended:
        """How they ended, once `look` has said so: of several the rank that is to blame."""
        rank = self.first_dead or 0
        status = self.status.get(rank, 0)
        return Ended(
            status=status if status >= 0 else None,
            signal=-status if status < 0 else None,
            log=self.errands[rank].log or "",
            rank=rank if len(self.workers) > 1 else None,
            reused=self.reused,
        )


def meeting_place(count: int) -> list[Mapping[str, str]]:
    """The environment in which so many ranks find each other, one for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "NODE_RANK": "0"}
    return [{**place, "LOCAL_RANK": str(rank)} for rank in range(count)]
