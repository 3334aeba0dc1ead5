"""The launcher of sweeps on one machine: every job in a process of its own, on a place of its own, exactly once."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from straylight import app, config
from straylight.errors import ConfigError
from straylight.job.devices import visible_gpus
from straylight.launcher import pool
from straylight.launcher.board import Board
from straylight.launcher.child import Order
from straylight.launcher.held import held
from straylight.launcher.jobs import Job, Points, returned
from straylight.launcher.outcome import log_file, settle
from straylight.launcher.ranks import frozen
from straylight.launcher.slots import Slots
from straylight.report.results import write_result

CORES = len(os.sched_getaffinity(0))
TICK_S = 0.2  # between two looks at a deadline
QUICK_S = 60.0  # a job that took longer ends its process: a new one costs it next to nothing


@dataclass(frozen=True)
class Options:
    """How jobs are run.

    Args:
        n_jobs: jobs at a time on the CPU, every rank of a job counted as one; by default as many as there are cores
            for, `threads` of the config each.
        gpus: those to use, by number or name as `CUDA_VISIBLE_DEVICES` has them; all that are visible by default.
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
    gpus: int | str | Sequence[int | str] | None = None
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

    @property
    def named_gpus(self) -> list[str]:
        """The GPUs to use, by name."""
        match self.gpus:
            case None:
                return visible_gpus()
            case int() | str():
                return [name.strip() for name in str(self.gpus).split(",")]
        return [str(name) for name in self.gpus]


@dataclass
class History:
    """What batches of jobs of one sweep know of earlier ones: jobs by their identity; whether the sweep is to end."""

    seen: dict[str, Job] = field(default_factory=dict)
    over: bool = False


def launch(
    cfg: DictConfig,
    context: Any,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    options: Options,
    history: History | None = None,
) -> list[JobReturn]:
    """Run jobs of a sweep; what every one of them returned, in their order. None is what a failed one returns.

    Args:
        cfg: the sweep's config.
        context: Hydra's, with what composes configs.
        job_overrides: of each job.
        first: the number of the first.
        options: how they are run.
        history: of the same sweep, where the sweeper hands over one batch of jobs after the other.

    Raises:
        ConfigError: if the sweep's folder is in use by another.
        KeyboardInterrupt: on Ctrl-C, after all jobs were ended and marked.
    """
    setup_globals()
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    pool.warm()
    jobs = [Job(first + i, list(overrides)) for i, overrides in enumerate(job_overrides)]
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    for job in jobs:  # what tells it from the others
        job.what = " ".join(o for o in filter_overrides(job.overrides) if o not in shared)
    with nullcontext() if app.resuming else held(Path(cfg.hydra.sweep.dir), alone=False), Board(len(jobs)) as board:
        Sweep(cfg, context, jobs, options, board, history or History()).run()
    return [job.returned or JobReturn(job.overrides, status=JobStatus.COMPLETED) for job in jobs]


class Sweep:
    """Jobs that wait, run and have ended."""

    def __init__(
        self, cfg: DictConfig, context: Any, jobs: list[Job], options: Options, board: Board, history: History
    ) -> None:
        self.context, self.jobs, self.options, self.board, self.history = context, jobs, options, board, history
        self.points = Points(cfg, context.config_loader, history.seen)
        self.waiting = deque([] if history.over else jobs)
        self.running: list[Job] = []
        self.spare: list[pool.Worker] = []
        self._slots: Slots | None = None

    def run(self) -> None:
        """Until all have ended."""
        try:
            while self.waiting or self.running:
                self._step()
        except BaseException:  # Ctrl-C, or a fault of ours
            self._interrupt()
            raise
        finally:
            while self.spare:
                self.spare.pop().close()
        for job in self.jobs:
            if job.same is not None:
                job.returned = job.same.returned

    def _step(self) -> None:
        while self.waiting and self._start(self.waiting[0]):
            pass
        if self.running and self.waiting and self.waiting[0].config is None:
            self._ready(self.waiting[0])  # the next one's config is composed while others work
            return
        if self.running:
            wait([thing for job in self.running if job.running for thing in job.running.waited_for], TICK_S)
        elif self.waiting:
            time.sleep(TICK_S)  # other sweeps have the GPUs
        for job in list(self.running):
            self._look(job)

    # starting

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
            self.waiting.remove(job)
            self.board.end(job.number, "known", seen)
        return seen is None

    def _start(self, job: Job) -> bool:
        """Whether the job no longer waits: it runs, or need not."""
        if not self._ready(job):
            return True
        try:
            slots = self._slots_for(job)
            job.place = slots.take(job.asked.gpus, job.asked.ranks)
            if job.place is None:
                return False
            at_once = len(slots.gpus) * slots.jobs_per_gpu if job.place.gpus else slots.n_jobs
            orders = self._orders(job, job.place.gpus, at_once)
        except (ConfigError, OmegaConfBaseException, OSError) as error:
            self._refuse(job, config.explain(error) or str(error))
            return True
        job.attempts += 1
        job.stopped = job.timed_out = False
        (job.folder / "result.json").unlink(missing_ok=True)
        self.waiting.remove(job)
        job.running = pool.Running(orders, self._spare() if orders[0].keep else None)
        self.running.append(job)
        self.board.start(job.number, job.what)
        return True

    def _orders(self, job: Job, gpus: Sequence[str], at_once: int) -> list[Order]:
        """What each rank is to do, where so many processes share the cores."""
        ranks, followed = job.asked.ranks, None
        if ranks > 1:
            HydraConfig.instance().set_config(job.config)
            followed = frozen(job.config, job.folder)
        return [
            Order(
                config=followed if rank else job.config,
                folder=str(job.folder),
                rank=rank,
                resume=job.resume,
                # a job sees its own devices alone
                environment={**os.environ, **place, "CUDA_VISIBLE_DEVICES": ",".join(gpus)},
                threads=None if job.config.get("threads") else max(1, CORES // at_once),
                callbacks=None if rank else self.context.callbacks,
                log=str(log_file(job.folder, rank)),
                keep=self.options.jobs_per_process > 1 and ranks == 1 and not gpus and not job.alone,
                fields=job.fields,
            )
            for rank, place in enumerate(pool.meeting_place(ranks) if ranks > 1 else [{}])
        ]

    def _spare(self) -> pool.Worker | None:
        """A process that is ready for another job."""
        while self.spare:
            if (worker := self.spare.pop()).process.is_alive():
                return worker
            worker.close()
        return None

    def _slots_for(self, job: Job) -> Slots:
        if self._slots is None:
            n_jobs = self.options.n_jobs or max(1, CORES // (job.config.get("threads") or CORES))
            self._slots = Slots(n_jobs, (), self.options.jobs_per_gpu)
        gpus = job.asked.gpus
        if gpus and not self._slots.gpus:
            self._slots.gpus = tuple(self.options.named_gpus)
        if gpus > len(self._slots.gpus):
            raise ConfigError(f"It asks for {gpus} GPU{'s' * (gpus > 1)}, and there are {len(self._slots.gpus)}.")
        return self._slots

    # ending

    def _look(self, job: Job) -> None:
        assert job.running is not None
        over = job.running.look()
        self.board.progress(job.number, job.running.line)
        late = self.options.timeout_s is not None and time.monotonic() - job.running.started > self.options.timeout_s
        if late and not over and not job.stopped:
            job.timed_out = True
            self._stop(job)
        if over:
            self._end(job)

    def _stop(self, job: Job) -> None:
        """Tell a job to end, once."""
        if job.running is not None and not job.stopped:
            job.stopped = True
            job.running.stop(self.options.grace_s)

    def _end(self, job: Job) -> None:
        assert job.running is not None and job.place is not None and self._slots is not None
        ended = job.running
        self._slots.give_back(job.place)
        self.running.remove(job)
        job.running = job.place = None
        late = (
            f"It was stopped after {self.options.timeout_s:g} s (hydra.launcher.timeout_s)." if job.timed_out else None
        )
        try:
            result = settle(job.folder, job.fields, ended, late, job.stopped)
        except OSError as error:
            result = {"status": "failed", "reason": f"{job.folder} cannot be written: {error.strerror}."}
        well = result["status"] == "ok"
        used = ended.workers[0].orders > 1
        worker = ended.close()
        if worker is not None:
            quick = time.monotonic() - ended.started < QUICK_S
            if well and quick and worker.orders < self.options.jobs_per_process:
                self.spare.append(worker)
            else:
                worker.close()
        asked = job.stopped and not job.timed_out
        if well or asked or self.history.over:
            self._conclude(job, result)
        elif used and not job.timed_out:  # what others left behind may be why
            job.alone, job.attempts = True, job.attempts - 1
            self._again(job, result)
        elif job.attempts <= self.options.retry:
            self._again(job, result)
        else:
            self._conclude(job, result)

    def _again(self, job: Job, result: Mapping[str, Any]) -> None:
        job.resume = result["status"] == "interrupted"
        self.board.end(job.number, "again", str(result.get("reason") or result["status"]))
        self.waiting.append(job)

    def _conclude(self, job: Job, result: dict[str, Any]) -> None:
        """The job is not tried again."""
        job.config = None
        job.returned = returned(job, result)
        status = str(result["status"])
        said = app.headline(result) if status == "ok" else f"{job.what}: {result.get('reason') or ''}".rstrip(": ")
        self.board.end(job.number, status, said)
        if status != "ok" and not (job.stopped and not job.timed_out):  # nobody asked it to
            self._failed(job, f"#{job.number} {said}")

    def _refuse(self, job: Job, reason: str) -> None:
        """The job cannot be started."""
        self.waiting.remove(job)
        if job.place is not None and self._slots is not None:
            self._slots.give_back(job.place)
            job.place = None
        write_result(job.folder, {"metrics": {}, "latency": [], **job.fields, "status": "failed", "reason": reason})
        self.board.end(job.number, "failed", f"{job.what}: {reason}")
        self._failed(job, f"#{job.number} {job.what}: {reason}")

    def _failed(self, job: Job, said: str) -> None:
        job.config = None
        print(f"Error: {said}", file=sys.stderr)
        app.failed()
        if self.options.fail_fast and not self.history.over:
            self.history.over = True
            self.board.say(f"#{job.number} failed, and with hydra.launcher.fail_fast the sweep ends.")
            self._forget_waiting()
            for other in self.running:
                self._stop(other)

    def _forget_waiting(self) -> None:
        for job in self.waiting:
            if job.config is not None:
                with suppress(OSError):
                    job.folder.rmdir()  # claimed, and never used
        self.waiting.clear()

    def _interrupt(self) -> None:
        """End all jobs, with a checkpoint where there is time for one; a second Ctrl-C does not wait."""
        self.history.over = True
        while True:
            try:
                self._forget_waiting()
                for job in self.running:
                    self._stop(job)
                while self.running:
                    wait([thing for job in self.running if job.running for thing in job.running.waited_for], TICK_S)
                    for job in list(self.running):
                        self._look(job)
                return
            except KeyboardInterrupt:
                for job in self.running:
                    if job.running is not None:
                        job.running.kill()
