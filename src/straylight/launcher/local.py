"""The launcher of sweeps on one machine: every job in a process of its own, on a place of its own, exactly once."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from omegaconf import DictConfig

from straylight import app
from straylight.errors import ConfigError
from straylight.launcher import pool
from straylight.launcher.board import Board
from straylight.launcher.child import Order
from straylight.launcher.jobs import Job, Points, plain, returned
from straylight.launcher.slots import Slots, visible_gpus
from straylight.report.results import read, write_result

EMPTY: dict[str, Any] = {"metrics": {}, "latency": []}
TICK_S = 0.2  # between two looks at a deadline
QUICK_S = 60.0  # a job that took longer has its process to itself: an end of it would cost more than a start


@dataclass(frozen=True)
class Options:
    """How jobs are run.

    Args:
        n_jobs: jobs at a time on the CPU, every rank of a job counted as one; by default as many as there are cores
            for, `threads` of the config each.
        gpus: names of the GPUs to use, as `CUDA_VISIBLE_DEVICES` has them; all that are visible by default.
        jobs_per_gpu: jobs that share a GPU.
        jobs_per_process: how many quick jobs on the CPU a process may take, one after the other. 1 gives every job a
            process of its own. A job that fails in a process that had others before is tried again in one of its own.
        retry: how often a job that failed is tried again.
        timeout_s: seconds after which a job is stopped and counts as failed.
        fail_fast: whether the first job that fails ends the sweep.
        grace_s: seconds for a job to leave a checkpoint when it is stopped.

    Raises:
        ConfigError: if a number is out of its range.
    """

    n_jobs: int | None = None
    gpus: Sequence[Any] | None = None
    jobs_per_gpu: int = 1
    jobs_per_process: int = 1
    retry: int = 0
    timeout_s: float | None = None
    fail_fast: bool = False
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        whole = ("n_jobs", "jobs_per_gpu", "jobs_per_process", "retry")
        for name in (*whole, "timeout_s", "grace_s"):
            value, zero = getattr(self, name), name in ("retry", "grace_s")
            if value is None and name in ("n_jobs", "timeout_s"):
                continue
            kind = int if name in whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kind) or value < 0 or not (value or zero):
                number = "whole number" if name in whole else "number"
                limit = f"{number} of at least 0" if zero else f"positive {number}"
                raise ConfigError(f"hydra.launcher.{name} must be a {limit}, not {value!r}.")


def launch(
    cfg: DictConfig,
    context: Any,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    options: Options,
    ended: dict[str, Job] | None = None,
) -> list[JobReturn]:
    """Run the jobs of a sweep; what every one of them returned, in their order. None is what a failed one returns.

    Args:
        cfg: the sweep's config.
        context: Hydra's, with what composes configs.
        job_overrides: of each job.
        first: the number of the first.
        options: how they are run.
        ended: jobs of the same sweep that were launched before, by their identity; those launched now are added.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after all jobs were ended and marked.
    """
    setup_globals()
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    pool.warm()
    jobs = [Job(first + i, list(overrides)) for i, overrides in enumerate(job_overrides)]
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    for job in jobs:  # what tells it from the others
        job.what = " ".join(o for o in filter_overrides(job.overrides) if o not in shared)
    try:
        with Board(len(jobs)) as board:
            Sweep(cfg, context, jobs, options, board, {} if ended is None else ended).run()
    except BaseException as error:  # the leaderboard is written whatever happened
        app.conclude_sweep(Path(cfg.hydra.sweep.dir), interrupted=isinstance(error, KeyboardInterrupt))
        raise
    return [job.returned or JobReturn(job.overrides, status=JobStatus.COMPLETED) for job in jobs]


class Sweep:
    """Jobs that wait, run and have ended."""

    def __init__(
        self, cfg: DictConfig, context: Any, jobs: list[Job], options: Options, board: Board, ended: dict[str, Job]
    ) -> None:
        self.context, self.jobs, self.options, self.board = context, jobs, options, board
        self.points = Points(cfg, context.config_loader, ended)
        self.waiting = deque(jobs)
        self.running: list[Job] = []
        self.spare: list[pool.Worker] = []
        self._slots: Slots | None = None
        self._threads = 1

    def run(self) -> None:
        """Until all have ended."""
        try:
            while self.waiting or self.running:
                while self.waiting and self._start(self.waiting[0]):
                    self.waiting.popleft()
                if self.running and self.waiting and self.waiting[0].config is None:
                    if not self._ready(self.waiting[0]):  # the next one's config is composed while others work
                        self.waiting.popleft()
                    continue
                if self.running:
                    wait([thing for job in self.running if job.running for thing in job.running.waited_for], TICK_S)
                elif self.waiting:
                    time.sleep(TICK_S)  # other sweeps have the GPUs
                for job in list(self.running):
                    self._look(job)
        except KeyboardInterrupt:
            self._interrupt()
            raise
        except BaseException:
            for job in self.running:
                if job.running:
                    job.running.kill()
            raise
        finally:
            while self.spare:
                self.spare.pop().close()
        for job in self.jobs:
            if job.same is not None:
                job.returned = job.same.returned

    # starting

    def _start(self, job: Job) -> bool:
        """Whether the job has been seen to: it runs, or need not."""
        if not self._ready(job):
            return True
        try:
            slots = self._slots_for(job)
        except ConfigError as error:
            self._refuse(job, str(error))
            return True
        job.place = slots.take(job.gpus, job.ranks)
        if job.place is None:
            return False
        environments = pool.meeting_place(job.ranks) if job.ranks > 1 else [{}]
        devices = {"CUDA_VISIBLE_DEVICES": ",".join(job.place.gpus)} if job.place.gpus else {}
        followers = plain(job) if job.ranks > 1 else None
        shares = self.options.jobs_per_process > 1 and job.ranks == 1 and not job.gpus and not job.alone
        orders = [
            Order(
                config=followers if rank else job.config,
                folder=str(job.folder),
                rank=rank,
                resume=job.resume,
                environment={**os.environ, **environment, **devices},
                threads=None if job.config.get("threads") else self._threads,
                callbacks=None if rank else self.context.callbacks,
                log=str(job.folder / _log(rank)),
                keep=shares,
                fields=job.fields,
            )
            for rank, environment in enumerate(environments)
        ]
        job.attempts += 1
        job.timed_out = False
        (job.folder / "result.json").unlink(missing_ok=True)
        job.running = pool.Running(orders, self._spare() if shares else None)
        self.running.append(job)
        self.board.start(job.number, job.what)
        return True

    def _spare(self) -> pool.Worker | None:
        """A process that is ready for another job."""
        while self.spare:
            if (worker := self.spare.pop()).process.is_alive():
                return worker
            worker.close()
        return None

    def _ready(self, job: Job) -> bool:
        """Whether the job is composed, and is to run."""
        if job.config is not None:
            return True
        try:
            seen = self.points.ready(job)
        except ConfigError as error:
            self._refuse(job, str(error))
            return False
        if seen is not None:
            self.board.end(job.number, "known", seen)
        return seen is None

    def _refuse(self, job: Job, reason: str) -> None:
        write_result(job.folder, {**EMPTY, **job.fields, "status": "failed", "reason": reason})
        self.board.end(job.number, "failed", f"{job.what}: {reason}")
        print(f"Error: #{job.number} {job.what}: {reason}", file=sys.stderr)
        app.failed()
        job.config = None

    def _slots_for(self, job: Job) -> Slots:
        if self._slots is None:
            cores = len(os.sched_getaffinity(0))
            n_jobs = self.options.n_jobs or max(1, cores // (job.config.get("threads") or cores))
            self._threads = max(1, cores // n_jobs)  # of jobs whose config leaves it open
            self._slots = Slots(n_jobs, (), self.options.jobs_per_gpu)
        if job.gpus and not self._slots.gpus:
            self._slots.gpus = tuple(map(str, self.options.gpus or visible_gpus()))
        if job.gpus > len(self._slots.gpus):
            raise ConfigError(f"{job.what} asks for {job.gpus} GPUs, and there are {len(self._slots.gpus)}.")
        return self._slots

    # ending

    def _look(self, job: Job) -> None:
        assert job.running is not None
        over = job.running.look()
        self.board.progress(job.number, job.running.line)
        late = self.options.timeout_s is not None and time.monotonic() - job.running.started > self.options.timeout_s
        if late and not over and not job.timed_out:
            job.timed_out = True
            job.running.stop(self.options.grace_s)
        if over:
            self._end(job)

    def _end(self, job: Job, interrupted: bool = False) -> None:
        assert job.running is not None and job.place is not None and self._slots is not None
        died, value, rank = job.running.died(), job.running.returned, job.running.first_dead
        quick = time.monotonic() - job.running.started < QUICK_S
        used = job.running.workers[0].orders > 1
        worker = job.running.close()
        job.running = None
        self.running.remove(job)
        self._slots.give_back(job.place)
        result = self._recorded(job, died, rank or 0, interrupted)
        status = str(result["status"])
        if worker is not None and status == "ok" and quick and worker.orders < self.options.jobs_per_process:
            self.spare.append(worker)
        elif worker is not None:
            worker.close()
        if status == "failed" and used and not job.timed_out:  # what others left behind may be why
            job.alone, job.attempts = True, job.attempts - 1
        elif status != "failed" or job.attempts > self.options.retry:
            return self._conclude(job, result, value)
        self.board.end(job.number, "again", str(result.get("reason")))
        self.waiting.append(job)

    def _conclude(self, job: Job, result: dict[str, Any], value: Any) -> None:
        """The job is not tried again."""
        job.config = None
        status = str(result["status"])
        said = app.headline(result) if status == "ok" else f"{job.what}: {result.get('reason') or ''}".rstrip(": ")
        self.board.end(job.number, status, said)
        job.returned = value if isinstance(value, JobReturn) else returned(job, result)
        if status == "failed":
            print(f"Error: #{job.number} {said}", file=sys.stderr)
            app.failed()
            if self.options.fail_fast:
                self.board.say(f"#{job.number} failed, and with hydra.launcher.fail_fast the sweep ends.")
                self._forget_waiting()
                for other in self.running:
                    assert other.running is not None
                    other.running.stop(self.options.grace_s)

    def _recorded(self, job: Job, died: str | None, rank: int, interrupted: bool) -> dict[str, Any]:
        """What `result.json` says, after it was put right where the job could not do so itself."""
        found = read(job.folder)
        if found is not None and found["status"] == "ok":
            return found
        if job.timed_out:
            status, reason = "failed", f"It was stopped after {self.options.timeout_s:g} s (hydra.launcher.timeout_s)."
        elif found is None or found["status"] == "failed":
            own = " ".join(str((found or {}).get("reason") or "").split())
            one = job.ranks == 1
            if found is not None and (died is None or one):
                return found
            if interrupted:
                status, reason = "interrupted", None
            else:
                died = died or "The job's process ended without a result"
                where = job.folder / _log(rank)
                status, reason = (
                    "failed",
                    f"{died}; see {where}." + (f" The first rank said: {own[:300]}" if own else ""),
                )
        else:
            return found
        known = {k: v for k, v in (found or {}).items() if k != "folder"}
        write_result(job.folder, {**EMPTY, **job.fields, **known, "status": status, "reason": reason})
        return read(job.folder) or {"status": status, "reason": reason}

    def _forget_waiting(self) -> None:
        for job in self.waiting:
            if job.config is not None:
                with suppress(OSError):
                    job.folder.rmdir()  # claimed, and never used
        self.waiting.clear()

    def _interrupt(self) -> None:
        """End all jobs, with a checkpoint where there is time for one."""
        self._forget_waiting()
        for job in self.running:
            assert job.running is not None
            job.running.stop(self.options.grace_s)
        try:
            while self.running:
                wait([thing for job in self.running if job.running for thing in job.running.waited_for], TICK_S)
                for job in list(self.running):
                    if job.running is not None and job.running.look():
                        self._end(job, interrupted=True)
        except KeyboardInterrupt:  # asked twice
            for job in list(self.running):
                if job.running is not None:
                    job.running.kill()
                    while not job.running.look():
                        time.sleep(0.01)
                    self._end(job, interrupted=True)


def _log(rank: int) -> str:
    return f"output.{rank}.log" if rank else "output.log"
