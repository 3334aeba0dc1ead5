"""Processes of one job: started, watched, ended, with nothing left of them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from straylight.launcher import child
from straylight.launcher.child import Order

SERVER = multiprocessing.get_context("forkserver")
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PATIENCE_S = 5.0  # for the other ranks to end by themselves when one has failed


def warm() -> None:
    """Start the server that jobs are forked from, if it does not run; it imports while we go on."""
    from multiprocessing import forkserver

    SERVER.set_forkserver_preload(["straylight.launcher.warm"])
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    # a server with threads cannot be forked from safely; jobs set torch's own number
    os.environ.update({name: "1" for name in ONE_THREAD if before[name] is None})
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


class Running:
    """The processes of one attempt at a job, a rank each.

    Args:
        orders: what each is to do, the first rank first.
    """

    def __init__(self, orders: Sequence[Order]) -> None:
        self.started = time.monotonic()
        self.returned: Any = None
        self.line = ""
        self.status: dict[int, int] = {}  # of ranks that have ended
        self.first_dead: int | None = None
        self._stopping: float | None = None
        self.pipe, tell = SERVER.Pipe(duplex=False)
        self.processes = [
            SERVER.Process(target=child.main, args=(pickle.dumps(order), tell), daemon=False) for order in orders
        ]
        for process in self.processes:
            process.start()
        tell.close()
        self._open = True

    @property
    def waited_for(self) -> list[int | Connection]:
        """What says that something has happened."""
        ended = [p.sentinel for rank, p in enumerate(self.processes) if rank not in self.status]
        return [*ended, *([self.pipe] if self._open else [])]

    def look(self) -> bool:
        """Take in what has happened; whether all processes have ended."""
        while self._open and self.pipe.poll():
            try:
                word, value = self.pipe.recv()
            except (EOFError, OSError):
                self._open = False
            else:
                if word == "done":
                    self.returned = value
                else:
                    self.line = value
        for rank, process in enumerate(self.processes):
            if rank not in self.status and process.exitcode is not None:
                self.status[rank] = process.exitcode
                _kill(process.pid)  # what it started
                if process.exitcode and self.first_dead is None:
                    self.first_dead = rank
        if self.first_dead is not None and self._stopping is None:
            self._stopping = time.monotonic() + PATIENCE_S
        if self._stopping is not None and time.monotonic() > self._stopping:
            self.kill()
        return len(self.status) == len(self.processes)

    def stop(self, grace_s: float) -> None:
        """Ask all processes to end as on Ctrl-C, and see to it that they have after so many seconds."""
        self._stopping = time.monotonic() + grace_s
        for rank, process in enumerate(self.processes):
            if rank not in self.status and process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGINT)

    def kill(self) -> None:
        """End all processes and what they started at once."""
        for rank, process in enumerate(self.processes):
            if rank not in self.status:
                _kill(process.pid)
                with suppress(ProcessLookupError):
                    process.kill()

    def close(self) -> None:
        """Free what is held of processes that have ended."""
        for process in self.processes:
            process.join()
            process.close()
        self.pipe.close()

    def died(self) -> str | None:
        """How the first process to fail ended, in words; None if none did."""
        if self.first_dead is None:
            return None
        status = self.status[self.first_dead]
        who = f"Rank {self.first_dead}" if len(self.processes) > 1 else "The job's process"
        if status >= 0:
            return f"{who} ended with status {status}"
        name = signal.Signals(-status).name
        note = ", as the kernel does where memory runs out" if name == "SIGKILL" else ""
        return f"{who} was killed by signal {-status} ({name}{note})"


def _kill(group: int | None) -> None:
    if group is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def meeting_place(count: int) -> list[Mapping[str, str]]:
    """The environment in which so many ranks find each other, one for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "NODE_RANK": "0"}
    return [{**place, "LOCAL_RANK": str(rank)} for rank in range(count)]
