"""The launcher of sweeps on one machine: every job in a process of its own, on a place of its own, exactly once.

A job is told from others by the hash of its composed config: a point that comes twice runs once, and a sweep that is
resumed runs what is missing, failed or new.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from straylight import app, config
from straylight.errors import ConfigError
from straylight.launcher import pool
from straylight.launcher.board import Board
from straylight.launcher.child import Order
from straylight.launcher.slots import Place, Slots, visible_gpus
from straylight.report.results import read

TICK_S = 0.2  # between two looks at a deadline
NUMBERED = "${hydra.job.num}"


@dataclass(frozen=True)
class Options:
    """How jobs are run.

    Args:
        n_jobs: jobs at a time on the CPU; by default as many as there are cores for, `threads` of the config each.
        gpus: names of the GPUs to use, as `CUDA_VISIBLE_DEVICES` has them; all that are visible by default.
        jobs_per_gpu: jobs that share a GPU.
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
    retry: int = 0
    timeout_s: float | None = None
    fail_fast: bool = False
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        for name, least in (("n_jobs", 1), ("jobs_per_gpu", 1), ("retry", 0), ("timeout_s", 0), ("grace_s", 0)):
            value = getattr(self, name)
            if value is not None and (value < least or (name == "timeout_s" and not value > 0)):
                raise ConfigError(
                    f"hydra.launcher.{name} must be {'positive' if least else 'at least 0'}, not {value}."
                )


@dataclass
class Job:
    """One point of a sweep."""

    number: int
    overrides: list[str]
    config: Any = None
    folder: Path = Path()
    fields: dict[str, Any] = field(default_factory=dict)
    attempts: int = 0
    resume: bool = False
    gpus: int = 0
    ranks: int = 1
    running: pool.Running | None = None
    place: Place | None = None
    returned: JobReturn | None = None
    timed_out: bool = False
    what: str = ""


def launch(
    cfg: DictConfig, context: Any, job_overrides: Sequence[Sequence[str]], first: int, options: Options
) -> list[JobReturn]:
    """Run the jobs of a sweep; what every one of them returned, in their order. None is what a failed one returns.

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
            Sweep(cfg, context, jobs, options, board).run()
    except KeyboardInterrupt:
        app.conclude_sweep(Path(cfg.hydra.sweep.dir), interrupted=True)
        raise
    return [job.returned or JobReturn(job.overrides, status=JobStatus.COMPLETED) for job in jobs]


class Sweep:
    """Jobs that wait, run and have ended."""

    def __init__(self, cfg: DictConfig, context: Any, jobs: list[Job], options: Options, board: Board) -> None:
        self.cfg, self.context, self.jobs, self.options, self.board = cfg, context, jobs, options, board
        self.folder = Path(cfg.hydra.sweep.dir).absolute()
        self.waiting = deque(jobs)
        self.running: list[Job] = []
        self.ended: dict[str, Job] = {}  # by the hash of their configs; those that run among them
        self.twice: list[tuple[Job, Job]] = []
        self.known = dict(_found(self.folder))
        self._slots: Slots | None = None
        self._threads = 1

    def run(self) -> None:
        """Until all have ended."""
        try:
            while self.waiting or self.running:
                while self.waiting and self._start(self.waiting[0]):
                    self.waiting.popleft()
                if self.running and self.waiting and self.waiting[0].config is None:
                    if not self._compose(self.waiting[0]):  # the next one's, while others work
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
        for job, other in self.twice:
            job.returned = other.returned

    # starting

    def _start(self, job: Job) -> bool:
        """Whether the job has been seen to: it runs, or need not."""
        if job.config is None and not self._compose(job):
            return True
        try:
            slots = self._slots_for(job)
        except ConfigError as error:
            self._refuse(job, str(error))
            return True
        job.place = slots.take(job.gpus)
        if job.place is None:
            return False
        environments = pool.meeting_place(job.ranks) if job.ranks > 1 else [{}]
        devices = {"CUDA_VISIBLE_DEVICES": ",".join(job.place.gpus)} if job.place.gpus else {}
        followers = self._resolved(job) if job.ranks > 1 else None
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
            )
            for rank, environment in enumerate(environments)
        ]
        job.attempts += 1
        job.timed_out = False
        (job.folder / "result.json").unlink(missing_ok=True)
        job.running = pool.Running(orders)
        self.running.append(job)
        self.board.start(job.number, job.what)
        return True

    def _refuse(self, job: Job, reason: str) -> None:
        from straylight.callbacks.record import write_result

        empty = {"metrics": {}, "latency": [], "seed": job.config.get("seed")}
        write_result(job.folder, {**empty, **job.fields, "status": "failed", "reason": reason})
        self.board.end(job.number, "failed", f"{job.what}: {reason}")
        print(f"Error: #{job.number} {job.what}: {reason}", file=sys.stderr)
        app.failed()

    def _compose(self, job: Job) -> bool:
        """Give a job its config and its folder; False if it has run, here or in the sweep that is resumed."""
        composed = self.context.config_loader.load_sweep_config(self.cfg, job.overrides)
        task = copy.deepcopy(composed)
        with read_write(task), open_dict(task):
            choices = composed.hydra.runtime.choices
            del task["hydra"]
        overrides: Any = OmegaConf.to_container(composed.hydra.overrides.task, resolve=False)
        job.fields = app.fields_of(task, choices.get("detector"), choices.get("data"), overrides)
        identity = job.fields["config_hash"]
        if identity in self.ended:
            self.twice.append((job, self.ended[identity]))
            self.board.end(job.number, "known", f"is the same as #{self.ended[identity].number}: {job.what}")
            return False
        self.ended[identity] = job
        before = self.known.get(identity)
        result = read(before) if before else None
        if before and app.resuming:
            if result and result["status"] == "ok":
                job.returned = _returned(job, result)
                self.board.end(job.number, "known", app.headline(result))
                return False
            job.resume = result is None or result["status"] == "interrupted"
        hydra = composed.hydra
        with read_write(hydra), read_write(hydra.job), read_write(hydra.sweep), open_dict(hydra.job):
            composed.hydra.job.id = composed.hydra.job.num = job.number
            name = str(before.relative_to(self.folder)) if before else self._claim(composed)
            composed.hydra.sweep.subdir = name
        job.config, job.folder = composed, self.folder / name
        devices, accelerator = task.trainer.get("devices", 1), task.trainer.get("accelerator", "auto")
        count = len(devices) if OmegaConf.is_list(devices) else int(devices) if str(devices).isdigit() else 1
        on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and bool(visible_gpus()))
        if on_gpu and str(devices) in ("auto", "-1"):
            count = len(visible_gpus())
        job.ranks = max(1, count)
        job.gpus = job.ranks if on_gpu else 0
        if job.gpus and OmegaConf.is_list(devices):  # a job sees no other devices than its own
            with read_write(composed), open_dict(composed):
                composed.trainer.devices = job.ranks
        return True

    def _claim(self, composed: DictConfig) -> str:
        """A folder that nobody else has, made for the job."""
        numbered = OmegaConf.to_container(self.cfg.hydra.sweep, resolve=False)["subdir"] == NUMBERED  # type: ignore[index,call-overload]
        HydraConfig.instance().set_config(composed)
        name = str(OmegaConf.select(composed, "hydra.sweep.subdir"))
        for attempt in range(1_000_000):
            tried = str(int(name) + attempt) if numbered else name + (f"_{attempt}" if attempt else "")
            try:
                (self.folder / tried).mkdir(parents=True)
                return tried
            except FileExistsError:
                continue
        raise ConfigError(f"{self.folder} has no room for a job's folder.")

    def _resolved(self, job: Job) -> DictConfig:
        """The config for ranks that know nothing of Hydra."""
        HydraConfig.instance().set_config(job.config)
        task = copy.deepcopy(job.config)
        with read_write(task), open_dict(task):
            del task["hydra"]
            task.paths.run = str(job.folder)
        plain: Any = OmegaConf.to_container(task, resolve=True)
        return DictConfig(plain)

    def _slots_for(self, job: Job) -> Slots:
        if self._slots is None:
            cores = len(os.sched_getaffinity(0))
            n_jobs = self.options.n_jobs or max(1, cores // ((job.config.get("threads") or cores) * job.ranks))
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
        died, returned, rank = job.running.died(), job.running.returned, job.running.first_dead
        job.running.close()
        job.running = None
        self.running.remove(job)
        self._slots.give_back(job.place)
        result = self._recorded(job, died, rank or 0, interrupted)
        status = str(result["status"])
        if status == "failed" and job.attempts <= self.options.retry:
            self.board.end(job.number, "again", str(result.get("reason")))
            self.waiting.append(job)
            return
        said = app.headline(result) if status == "ok" else f"{job.what}: {result.get('reason') or ''}".rstrip(": ")
        self.board.end(job.number, status, said)
        job.returned = returned if isinstance(returned, JobReturn) else _returned(job, result)
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
        from straylight.callbacks.record import write_result

        found = read(job.folder)
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
        empty = {"metrics": {}, "latency": [], "seed": job.config.get("seed")}
        write_result(job.folder, {**empty, **job.fields, **known, "status": status, "reason": reason})
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


def _found(sweep: Path) -> Iterator[tuple[str, Path]]:
    """The jobs that a sweep's folder holds, by the hash of their configs."""
    for saved in sorted(sweep.rglob(".hydra/config.yaml")):
        folder = saved.parent.parent
        result = read(folder) or {}
        identity = result.get("config_hash")
        if identity is None:
            loaded = OmegaConf.load(saved)
            identity = config.identity(loaded) if isinstance(loaded, DictConfig) else ""
        yield str(identity), folder


def _returned(job: Job, result: dict[str, Any]) -> JobReturn:
    returned = JobReturn(job.overrides, status=JobStatus.COMPLETED)
    returned.return_value = (result.get("metrics") or {}).get("test/auroc") if result["status"] == "ok" else None
    return returned
