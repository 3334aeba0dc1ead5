"""The engine of one machine: every job in a process of its own, on a place of its own."""

import os
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import NamedTuple

from straylight import checks
from straylight.engines.base import Ended, Running
from straylight.engines.local import pool
from straylight.engines.local.child import Errand
from straylight.engines.local.slots import Place, Slots
from straylight.errors import ConfigError
from straylight.folder import RunFolder
from straylight.job.devices import Asked, visible_gpus

CORES = len(os.sched_getaffinity(0))
QUICK_S = 60.0  # a job that took longer ends its process: a new one costs it next to nothing


@dataclass(frozen=True)
class Machine:
    """How much of the machine jobs may have.

    Args:
        n_jobs: jobs at a time on the CPU, every rank of a job counted as one; by default as many as there are cores
            for, each with the `threads` of its own config.
        gpus: those to use, by number or name as `CUDA_VISIBLE_DEVICES` has them; all that are visible by default.
        jobs_per_gpu: jobs that share a GPU.
        jobs_per_process: how many quick jobs on the CPU a process may take, one after the other. 1 gives every job a
            process of its own. A job that fails in a process that had others before is tried again in one of its own.

    Raises:
        ConfigError: if a number is out of its range.
    """

    n_jobs: int | None = None
    gpus: int | str | Sequence[int | str] | None = None
    jobs_per_gpu: int = 1
    jobs_per_process: int = 1

    def __post_init__(self) -> None:
        for name in ("n_jobs", "jobs_per_gpu", "jobs_per_process"):
            checks.number(f"hydra.launcher.{name}", getattr(self, name), whole=True, null=name == "n_jobs")

    @property
    def named_gpus(self) -> list[str]:
        """The GPUs to use, by name."""
        match self.gpus:
            case None:
                return visible_gpus()
            case int() | str():
                return [name.strip() for name in str(self.gpus).split(",")]
        return [str(name) for name in self.gpus]


class _Job(NamedTuple):
    processes: pool.Processes
    place: Place


class LocalEngine:
    """Runs jobs in processes that are forked from a server which has imported everything; none outlives this one.

    Args:
        machine: how much of it they may have.
    """

    name = "local"
    outlives = queues = False

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine or Machine()
        self._slots = Slots(self.machine.n_jobs or CORES, (), self.machine.jobs_per_gpu)
        self._jobs: dict[str, _Job] = {}
        self._spare: list[pool.Worker] = []
        pool.warm()

    def submit(self, folder: RunFolder, asked: Asked) -> str | None:
        """See `Engine`.

        Raises:
            ConfigError: if it asks for more GPUs than there are.
        """
        place = self._place(asked)
        if place is None:
            return None
        keep = self.machine.jobs_per_process > 1 and asked.ranks == 1 and not place.gpus and not asked.alone
        try:
            store, ranks = pool.meeting_place(asked.ranks) if asked.ranks > 1 else (None, [{}])
            errands = [
                Errand(
                    folder=str(folder),
                    rank=rank,
                    # a job sees its own devices alone
                    environment={**os.environ, **own, "CUDA_VISIBLE_DEVICES": ",".join(place.gpus)},
                    threads=self._threads(asked, place),
                    log=str(folder.log(rank)),
                    keep=keep,
                    watched=asked.ranks > 1,
                )
                for rank, own in enumerate(ranks)
            ]
            folder.result.unlink(missing_ok=True)  # of before: a process that dies at once says nothing
            processes = pool.Processes(errands, self._idle() if keep else None, asked.patience_s, store)
        except BaseException:
            self._slots.give_back(place)
            raise
        id = secrets.token_hex(8)
        self._jobs[id] = _Job(processes, place)
        return id

    def look(self, ids: Collection[str]) -> dict[str, Running | Ended]:
        """See `Engine`."""
        return {id: self._state(id) for id in ids}

    def wait(self, ids: Collection[str], seconds: float) -> None:
        """See `Engine`."""
        wait([thing for id in ids if id in self._jobs for thing in self._jobs[id].processes.waited_for], seconds)

    def stop(self, id: str, grace_s: float) -> None:
        """See `Engine`."""
        if id in self._jobs:
            if grace_s > 0:
                self._jobs[id].processes.stop(grace_s)
            else:
                self._jobs[id].processes.kill()

    def close(self) -> None:
        """End all processes that are left."""
        while self._spare:
            self._spare.pop().close()
        while self._jobs:
            _, job = self._jobs.popitem()
            self._slots.give_back(job.place)
            job.processes.kill()
            if (worker := job.processes.close()) is not None:
                worker.close()

    def _state(self, id: str) -> Running | Ended:
        if id not in self._jobs:
            return Ended(None)
        processes, place = self._jobs[id]
        if not processes.look():
            return Running(processes.line)
        del self._jobs[id]
        self._slots.give_back(place)
        ended = processes.ended
        if (worker := processes.close()) is not None:
            quick = time.monotonic() - processes.started < QUICK_S
            if quick and worker.orders < self.machine.jobs_per_process:
                self._spare.append(worker)
            else:
                worker.close()
        return ended

    def _place(self, asked: Asked) -> Place | None:
        if asked.gpus:
            if not self._slots.gpus:
                self._slots.gpus = tuple(self.machine.named_gpus)
            if asked.gpus > (there := len(self._slots.gpus)):
                raise ConfigError(f"It asks for {asked.gpus} GPU{'s' * (asked.gpus > 1)}, and there are {there}.")
            return self._slots.take(asked.gpus)
        # by default a job has as many slots as it has threads
        each = 1 if self.machine.n_jobs else asked.threads or CORES
        return self._slots.take(0, asked.ranks * each)

    def _threads(self, asked: Asked, place: Place) -> int | None:
        """Of each process; `None` where the job's config says."""
        if asked.threads is not None:
            return None
        at_once = len(self._slots.gpus) * self._slots.jobs_per_gpu if place.gpus else self.machine.n_jobs or asked.ranks
        return max(1, CORES // at_once)

    def _idle(self) -> pool.Worker | None:
        """A process that is ready for another job."""
        while self._spare:
            if (worker := self._spare.pop()).process.is_alive():
                return worker
            worker.close()
        return None
