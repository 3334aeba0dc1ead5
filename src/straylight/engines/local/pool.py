"""Processes of one job: started, watched, ended, with nothing left of them."""

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import psutil

from straylight.engines.base import Ended
from straylight.engines.local import child
from straylight.engines.local.child import Errand, Question
from straylight.job.pulse import Beat, Watch

SERVER = multiprocessing.get_context("forkserver")
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PATIENCE_S = 5.0  # for the other ranks to end by themselves when one has failed
LINGER_S = 60.0  # and when the first one has ended
INTERRUPTED = 130  # the status of a process that was
LOST = 255  # what multiprocessing gives of one whose server is gone
DYING_S = 2.0  # a process that is killed closes its pipes first, and is dead only then


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


def _server() -> int | None:
    from multiprocessing import forkserver

    return forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _dies(pid: int | None) -> bool:
    """Whether a process is gone, or so soon after its pipes have closed that it was about to be."""
    until = time.monotonic() + DYING_S
    while pid is not None and _lives(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


class Worker:
    """A process that takes orders: one, or one after the other."""

    def __init__(self) -> None:
        self.orders = 0
        told, tell = SERVER.Pipe(duplex=False)
        take, self._order = SERVER.Pipe(duplex=False)
        self.told: Connection | None = told
        for left in (2, 1, 0):
            warm()
            self.process = SERVER.Process(target=child.main, args=(take, tell), daemon=False)
            try:
                self.process.start()
                break
            except (OSError, EOFError):  # the server was killed just now, and may be a while dying on a busy machine
                if not left:
                    raise
                _dies(_server())
        self.server = _server()
        tell.close()
        take.close()

    @property
    def lost(self) -> bool:
        """Whether the server that it was forked from is gone, and with it all knowledge of how it ends."""
        return self.server != _server() or _dies(self.server)

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
        patience_s: how long several ranks may show no sign of life.
        store: in which they find each other, kept as long as they run.
    """

    def __init__(
        self,
        errands: Sequence[Errand],
        worker: Worker | None = None,
        patience_s: float | None = None,
        store: Any = None,
    ) -> None:
        self.started = time.monotonic()
        self.errands = errands
        self.line = ""
        self.status: dict[int, int] = {}  # of ranks that have ended
        self.first_dead: int | None = None  # by itself, and not on Ctrl-C
        self.said: dict[int, str] = {}  # by ranks that failed, or of one that stood still
        self.lost = False
        self._asked = False  # to end
        self._stopping: float | None = None
        self._store = store
        self._watch = Watch(len(errands), patience_s if len(errands) > 1 else None)
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
        return [*ended, *(worker.told for worker in self.workers if worker.told is not None)]

    def look(self) -> bool:
        """Take in what has happened; whether the job is over."""
        ended = {
            rank: code
            for rank, worker in enumerate(self.workers)
            if rank not in self.status and (code := worker.process.exitcode) is not None
        }
        for rank, worker in enumerate(self.workers):  # all that was told before the end
            for word, value in worker.heard():
                self._hear(rank, word, value)
        # of those that end at once: what was killed, then who says why
        for rank, status in sorted(ended.items(), key=lambda item: (item[1], item[0] not in self.said)):
            self.lost |= status == LOST and self.workers[rank].lost
            self.status[rank] = status
            self.workers[rank].kill()  # what it started
            if status not in (0, INTERRUPTED) and self.first_dead is None and not self._asked:
                self.first_dead = rank
        if self._stopping is None:
            self._see_whether_to_stop()
        if self._stopping is not None and time.monotonic() > self._stopping:
            self.kill()
        return self._free or len(self.status) == len(self.workers)

    def _hear(self, rank: int, word: str, value: Any) -> None:
        if word == "beat":
            self._watch.heard(rank, Beat(*value))
        elif word == "failed":
            self.said[rank] = " ".join(str(value).split())
        elif rank == 0 and word == "free":
            self._free = True
        elif rank == 0:
            self.line = value

    def _see_whether_to_stop(self) -> None:
        """Whether one of several ranks keeps the others from ending."""
        silent = self._watch.silent(rank for rank in range(len(self.workers)) if rank not in self.status)
        if self.first_dead is not None:
            self._stopping = time.monotonic() + PATIENCE_S
        elif silent is not None:
            self.first_dead, said = silent
            self.said[self.first_dead] = said
            self._stopping = time.monotonic()
        elif 0 in self.status:
            self._stopping = time.monotonic() + LINGER_S

    def stop(self, grace_s: float) -> None:
        """Ask all processes to end as on Ctrl-C, and see to it that they have after so many seconds."""
        self._asked = True
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
        stood = rank == self.first_dead and rank in self.said and status == -signal.SIGKILL
        return Ended(
            status=status if status >= 0 else None,
            signal=-status if status < 0 and not stood else None,
            log=self.errands[rank].log or "",
            rank=rank if len(self.workers) > 1 else None,
            reused=self.reused,
            lost=self.lost,
            said=self.said.get(rank),
        )


def meeting_place(count: int) -> tuple[Any, list[Mapping[str, str]]]:
    """A store in which so many ranks find each other, to be kept while they run, and the environment of each.

    The store is ours and not the first rank's, so that its port is never free for others between being found and used.
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # what torch's own starter says of a store that is there already
        "WORLD_SIZE": str(count),
        "NODE_RANK": "0",
    }
    return store, [{**place, "LOCAL_RANK": str(rank)} for rank in range(count)]
