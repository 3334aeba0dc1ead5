"""A sweep while it runs: jobs that wait, run and have ended, each exactly once, by any engine."""

import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from straylight import checks, config
from straylight.console import say
from straylight.engines.base import Ended, Engine, Running
from straylight.engines.choose import attached
from straylight.errors import ConfigError, HungUp
from straylight.folder import RunFolder
from straylight.job.order import Order
from straylight.result import headline
from straylight.sweep.board import Board
from straylight.sweep.command import Command
from straylight.sweep.job import Job
from straylight.sweep.outcome import settled
from straylight.sweep.points import Points, returned
from straylight.sweep.source import Source

TICK_S = 0.2  # between two looks at a deadline
LOST_OFTEN = 3  # times that a job is started again since what runs jobs was killed
AHEAD = 64  # jobs that are composed while another one waits for its kind of place


@dataclass(frozen=True)
class Policy:
    """What becomes of jobs that do not end well.

    Args:
        retry: how often a job that failed is tried again.
        timeout_s: seconds after which a job is stopped and counts as failed.
        fail_fast: whether the first job that fails ends the sweep.
        grace_s: seconds for a job to leave a checkpoint when it is stopped.

    Raises:
        ConfigError: if a number is out of its range.
    """

    retry: int = 0
    timeout_s: float | None = None
    fail_fast: bool = False
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        checks.number("hydra.launcher.retry", self.retry, whole=True, zero=True)
        checks.number("hydra.launcher.timeout_s", self.timeout_s, null=True)
        checks.number("hydra.launcher.grace_s", self.grace_s, zero=True)


@dataclass
class History:
    """What batches of jobs of one sweep know of earlier ones: jobs by their identity; whether the sweep is to end."""

    seen: dict[str, Job] = field(default_factory=dict)
    over: bool = False


class Sweep:
    """Jobs that wait, run and have ended.

    Args:
        jobs: in their order.
        points: composes them and tells them apart.
        engine: runs them.
        policy: for those that do not end well.
        board: shows them.
        history: of earlier batches.
        command: counts failures.
        source: of more jobs, by what others have reached; there need not be any.
    """

    def __init__(
        self,
        jobs: list[Job],
        points: Points,
        engine: Engine,
        policy: Policy,
        board: Board,
        history: History,
        command: Command,
        source: Source | None = None,
    ) -> None:
        self.source = source
        self.jobs, self.points, self.engine, self.policy = jobs, points, engine, policy
        self.board, self.history, self.command = board, history, command
        self.engines: dict[str | None, Engine | None] = {engine.name: engine}
        self._looked = 0.0
        self.waiting = deque([] if history.over else jobs)
        self.running: dict[str, Job] = {}  # by what their engines call them

    def run(self) -> None:
        """Until all have ended.

        Raises:
            KeyboardInterrupt: on Ctrl-C, after all jobs were ended and marked.
        """
        try:
            while self._asked() or self.waiting or self.running:
                self._step()
        except BaseException as error:  # Ctrl-C, or a fault of ours
            if not (isinstance(error, HungUp) and self.engine.outlives):
                self._interrupt()
            raise
        for job in self.jobs:
            if job.same is not None:
                job.returned = job.same.returned

    def _asked(self) -> bool:
        """Whether the source has more jobs now."""
        if self.source is None or self.history.over:
            return False
        more = self.source.more()
        self.jobs += more
        self.waiting += more
        self.board.total += len(more)
        return bool(more)

    def _told(self, job: Job) -> None:
        if self.source is not None and not self.history.over:
            self.source.ended(job)

    def _step(self) -> None:
        composed = self._fill()
        if not (self.running and composed):
            self._look(TICK_S)
        elif time.monotonic() - self._looked > TICK_S:
            self._look(0.0)  # the next one's config was composed while others work

    # starting

    def _fill(self) -> bool:
        """Start what there is room for, in order; whether a config was composed on the way, which takes its time.

        A job that waits for a GPU keeps those behind it from the GPUs, and from nothing else.
        """
        full: set[bool] = set()
        for ahead, job in enumerate(list(islice(self.waiting, AHEAD + 1))):
            if ahead > (AHEAD if True in full else 1):
                break
            fresh = not job.ready
            if not fresh or self._ready(job):
                on_gpu = bool(job.asked.gpus)
                if on_gpu not in full and not self._start(job):
                    full.add(on_gpu)
            if self.history.over or len(full) == 2 or (fresh and self.running):
                return fresh
        return False

    def _ready(self, job: Job) -> bool:
        """Whether the job is composed, its folder says what to do, and it is to run."""
        try:
            seen = self.points.ready(job)
            if seen is None and job.id is None:
                self._place(job)
        except (ConfigError, OmegaConfBaseException, OSError) as error:
            self._refuse(job, config.explain(error) or str(error))
            return False
        job.ready = True
        if seen is not None:
            self.waiting.remove(job)
            self.board.end(job.number, "known", seen)
            self._told(job)
        return seen is None

    def _start(self, job: Job) -> bool:
        """Whether the job no longer waits: it runs, or cannot."""
        assert job.folder is not None
        try:
            if job.id is None or not self._goes_on(job):
                order = job.order or self._place(job)
                job.id, job.engine = self.engine.submit(job.folder, job.asked), self.engine.name
                if job.id is None:
                    return False
                with suppress(OSError):  # it runs; only who resumes after our death would have to start it anew
                    order.started(job.folder, self.engine.name, job.id)
        except (ConfigError, OmegaConfBaseException, OSError) as error:
            self._refuse(job, config.explain(error) or str(error))
            return True
        job.point = job.order = None  # its folder has all of it
        job.attempts += 1
        job.stopped = job.timed_out = False
        job.started = time.monotonic()
        self.waiting.remove(job)
        self.running[job.id] = job
        self.board.start(job.number, job.what, queued=self.engine.queues)
        return True

    def _place(self, job: Job) -> Order:
        """Have the job's folder say what to do, by what it said before of one that is tried again."""
        assert job.folder is not None
        if job.point is None:
            job.order = Order.read(job.folder).again(job.folder, resume=job.resume)
        else:
            job.order = self.points.place(job)
        return job.order

    def _goes_on(self, job: Job) -> bool:
        """Whether a job that a launcher started which has died still runs, or has ended by itself in the meantime."""
        assert job.folder is not None and job.id is not None
        if job.engine not in self.engines:
            self.engines[job.engine] = attached(job.engine, self.points.folder.path)
        engine = self.engines[job.engine]
        runs = engine is not None and isinstance(engine.look([job.id]).get(job.id), Running)
        if not runs and engine is not self.engine:
            job.engine = self.engine.name  # which knows no more of it
        return runs or job.folder.result.is_file()

    # ending

    def _look(self, seconds: float) -> None:
        if not self.running:
            time.sleep(seconds)  # other sweeps have the GPUs
            return
        for number, (engine, ids) in enumerate(self._by_engine()):
            if seconds:
                engine.wait(ids, 0.0 if number else seconds)
            for id, state in engine.look(ids).items():
                self._take_in(self.running[id], state)
        self._looked = time.monotonic()

    def _by_engine(self) -> list[tuple[Engine, list[str]]]:
        """The jobs that run, by what runs them: others than our own are of a launcher that has died."""
        found: dict[str | None, list[str]] = {}
        for id, job in self.running.items():
            found.setdefault(job.engine, []).append(id)
        return [(self.engines[name] or self.engine, ids) for name, ids in found.items()]

    def _take_in(self, job: Job, state: Running | Ended) -> None:
        if isinstance(state, Ended):
            self._end(job, state)
            return
        self.board.progress(job.number, state)
        if state.queued:
            job.started = time.monotonic()
        late = self.policy.timeout_s is not None and time.monotonic() - job.started > self.policy.timeout_s
        if late and not job.stopped:
            job.timed_out = True
            self._stop(job)

    def _stop(self, job: Job) -> None:
        """Tell a job to end, once."""
        if not job.stopped:
            job.stopped = True
            self._tell_to_end(job, self.policy.grace_s)

    def _tell_to_end(self, job: Job, grace_s: float) -> None:
        assert job.id is not None
        (self.engines.get(job.engine) or self.engine).stop(job.id, grace_s)

    def _end(self, job: Job, ended: Ended) -> None:
        assert job.folder is not None and job.id is not None
        del self.running[job.id]
        job.id = job.engine = None
        late = (
            f"It was stopped after {self.policy.timeout_s:g} s (hydra.launcher.timeout_s)." if job.timed_out else None
        )
        result: Mapping[str, Any]
        try:
            result = settled(job.folder, job.fields, ended, late, job.stopped)
        except OSError as error:
            result = {"status": "failed", "reason": f"{job.folder} cannot be written: {error.strerror}."}
        asked = job.stopped and not job.timed_out
        if result["status"] == "ok" or asked or self.history.over:
            self._conclude(job, result)
        elif ended.lost and job.lost < LOST_OFTEN:  # it could not help it
            job.attempts, job.lost = job.attempts - 1, job.lost + 1
            reason = ended.words if ended.said else "what starts jobs was killed, and is started again"
            self._again(job, {**result, "status": "interrupted", "reason": reason})
        elif ended.reused and not job.timed_out:  # what others left behind may be why
            job.asked, job.attempts = job.asked._replace(alone=True), job.attempts - 1
            self._again(job, result)
        elif job.attempts <= self.policy.retry:
            self._again(job, result)
        else:
            self._conclude(job, result)

    def _again(self, job: Job, result: Mapping[str, Any]) -> None:
        job.resume = result["status"] == "interrupted"
        self.board.end(job.number, "again", str(result.get("reason") or result["status"]))
        self.waiting.append(job)

    def _conclude(self, job: Job, result: Mapping[str, Any]) -> None:
        """The job is not tried again."""
        job.point = None
        job.returned = returned(job, result)
        status = str(result["status"])
        said = headline(result) if status == "ok" else f"{job.what}: {result.get('reason') or ''}".rstrip(": ")
        self.board.end(job.number, status, said)
        self._told(job)
        if status != "ok" and not (job.stopped and not job.timed_out):  # nobody asked it to
            self._failed(job, f"#{job.number} {said}")

    def _refuse(self, job: Job, reason: str) -> None:
        """The job cannot be started."""
        assert job.folder is not None
        self.waiting.remove(job)
        failed = {"metrics": {}, "latency": [], **job.fields, "status": "failed", "reason": reason}
        job.folder.write_result(failed)
        self.board.end(job.number, "failed", f"{job.what}: {reason}")
        self._told(job)
        self._failed(job, f"#{job.number} {job.what}: {reason}")

    def _failed(self, job: Job, said: str) -> None:
        job.point = None
        say(f"Error: {said}", error=True)
        self.command.failures += 1
        if self.policy.fail_fast and not self.history.over:
            self.history.over = True
            self.board.say(f"#{job.number} failed, and with hydra.launcher.fail_fast the sweep ends.")
            self._forget_waiting()
            for other in self.running.values():
                self._stop(other)

    def _forget_waiting(self) -> None:
        for job in self.waiting:
            if job.claimed and not job.attempts and job.folder is not None:
                _give_up(job.folder)
        self.waiting.clear()

    def _interrupt(self) -> None:
        """End all jobs, with a checkpoint where there is time for one; a second Ctrl-C does not wait."""
        self.history.over = True
        while True:
            try:
                self._forget_waiting()
                for job in self.running.values():
                    self._stop(job)
                while self.running:
                    self._look(TICK_S)
                return
            except KeyboardInterrupt:
                for job in self.running.values():
                    job.stopped = True
                    self._tell_to_end(job, 0.0)


def _give_up(folder: RunFolder) -> None:
    """Give up the folder of a job that was never started."""
    with suppress(OSError):
        for path in (folder.job, folder.config, folder.hydra, folder.overrides):
            path.unlink(missing_ok=True)
        if folder.config.parent.is_dir():
            folder.config.parent.rmdir()
        folder.path.rmdir()
