"""Workers that an engine runs, started, watched and replaced, until all files are scored."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from straylight import versions
from straylight.documents import read_json
from straylight.engines.base import Ended, Engine, Running
from straylight.errors import ConfigError, StraylightError
from straylight.folder import RunFolder, new_run
from straylight.job.devices import Asked as Places
from straylight.job.order import Order
from straylight.phases import Phases
from straylight.scoring.claims import Claims, bury, living
from straylight.scoring.inputs import Input
from straylight.scoring.scorer import Scorer
from straylight.scoring.summary import Summary
from straylight.scoring.target import Target
from straylight.scoring.tasks import Folder, Records, Task, Tasks, identity_of, task_of
from straylight.scoring.wanted import Wanted
from straylight.scoring.work import Ledgers, Report, compared_with, job_of

TICK_S = 0.5  # between two looks at what is done
EVERY_S = {True: 0.5, False: 10.0}  # between two lines, in a terminal and elsewhere
GRACE_S = 10.0  # for a worker to end that is told to
AGAIN = 3  # times that a worker is started again while nothing is done by any


class Unfinished(StraylightError):
    """Some files are not scored; what is complete is kept."""


@dataclass
class Crew:
    """What is known of the workers before there are any.

    Args:
        engine: makes what runs them.
        count: how many.
        config: what each is told beside the list: the run, and how it is to score.
        places: what each asks the engine for.
        phases: is told how far all are.
    """

    engine: Callable[[Path], Engine]
    count: int
    config: Mapping[str, Any]
    places: Places
    phases: Phases

    def score(self, scorer: Scorer, inputs: Sequence[Input], target: Target, wanted: Wanted, scratch: Path) -> Report:
        """Score files; as `straylight.scoring.work.score_files`.

        Raises:
            Unfinished: if workers ended before all was done.
            ConfigError: if workers of another command still score to the same place.
        """
        job, folder = job_of(scorer, wanted), Folder(scratch.absolute())
        records, ledgers, report = Records(folder, job), Ledgers(job), Report()
        id = identity_of(inputs, target, wanted, job)
        attached = _meet(folder, records, id)
        ledgers.take_in(inputs, target, records)
        todo = [one for one in inputs if not ledgers.kept(one, target, report)]
        if todo:
            if not attached:
                listed = [task_of(one, target, scorer, wanted.keep) for one in todo]
                Tasks(job, wanted, target.ending, listed, id).write(folder.tasks)
            names = {one.name for one in todo}
            ours = [task for task in Tasks.read(folder.tasks).all if task.given.name in names]
            try:
                _Watch(self, folder, records, ours, id).run()
            finally:
                ledgers.take_in(todo, target, records)
            self._sum_up(scorer, records, ours, report, wanted.top)
        report.files = {one.shown: report.files[one.shown] for one in inputs if one.shown in report.files}
        return report

    def _sum_up(self, scorer: Scorer, records: Records, tasks: Sequence[Task], report: Report, top: int) -> None:
        """Put together what is known of each file."""
        compared = compared_with(scorer)
        for task in tasks:
            given = task.given
            if (told := records.told(task)) is None:
                report.failed[given.shown] = records.failed(task.units[-1]) or f"{task.out} has gone since."
                continue
            report.files[given.shown], report.outputs[given.shown] = told, str(task.out)
            summary = Summary(records.folder.done, task.key)
            report.add_top(given, summary.top, top)
            if compared is not None and (counts := summary.counts) is not None:
                compared.take(counts)
            for notice in told.notices:
                self.phases.keep(f"{given.shown}: {notice}")
        report.drift = None if compared is None else compared.drift()


def _meet(folder: Folder, records: Records, id: str) -> bool:
    """Whether workers of an earlier command that asked for the same still go on, which are joined.

    Raises:
        ConfigError: if such of another command do.
    """
    if living(folder.alive):
        refuse_others(folder, id)
        bury(folder.alive)
        return True
    for old in (folder.claims, folder.alive):
        shutil.rmtree(old, ignore_errors=True)
    folder.make()
    records.forget_failures()
    return False


def refuse_others(folder: Folder, id: str | None = None) -> None:
    """See that no worker lives that another command has started, with this list or any.

    Raises:
        ConfigError: if one does.
    """
    if workers := living(folder.alive):
        try:
            if id is not None and Tasks.read(folder.tasks).id == id:
                return
        except ConfigError:
            pass
        who = f"Worker{'s' * (len(workers) > 1)} of another command ({', '.join(sorted(workers))})"
        still = "still score" if len(workers) > 1 else "still scores"
        raise ConfigError(f"{who} {still} to {folder.path.parent}: wait for the end, or go on by that very command.")


@dataclass
class _Worker:
    """One of the crew.

    Attributes:
        folder: of its job.
        id: what the engine calls it; `None` of one that does not run.
        starts: how often it was started.
        over: whether it is not started again.
        state: how it is, of one that runs.
    """

    folder: RunFolder
    id: str | None = None
    starts: int = 0
    over: bool = False
    state: Running = field(default_factory=Running)


class _Watch:
    """Sees to it that workers run until all is done."""

    def __init__(self, crew: Crew, folder: Folder, records: Records, tasks: Sequence[Task], id: str) -> None:
        self.crew, self.folder, self.records, self.id = crew, folder, records, id
        self.engine = crew.engine(folder.workers)
        self._left, self._count = list(tasks), len(tasks)
        self._claims = Claims(folder.claims, folder.alive, "")
        self._seen: set[str] = set()
        for _ in records.rows(self._seen):  # of before
            pass
        self._rows, self._start, self._said, self._looked = 0, time.monotonic(), 0.0, 0.0
        self._reason: str | None = None
        units = sum(max(1, len(task.rows)) for task in tasks)
        count = min(crew.count, units)
        if count < crew.count:
            some = f"{units} file{'s are' if units > 1 else ' is'} left to score, or part{'s' * (units > 1)} of such"
            crew.phases.keep(f"{some}: {count} worker{'s are' if count > 1 else ' is'} started, not {crew.count}.")
        there = [int(path.name) for path in folder.workers.glob("*") if path.name.isdigit()]
        self.workers = [_Worker(RunFolder(folder.workers / str(n))) for n in sorted({*range(1, count + 1), *there})]
        for worker in self.workers:
            self._join(worker)
        for worker in self.workers[count:]:
            worker.over = worker.id is None

    def run(self) -> None:
        """Until all is done.

        Raises:
            Unfinished: if workers ended before.
            KeyboardInterrupt: on Ctrl-C, after all workers have ended.
        """
        try:
            while self._still_to_do():
                if all(worker.over for worker in self.workers):
                    raise Unfinished(
                        f"{len(self._left):,} of {self._count:,} files are not scored, since workers ended "
                        f"({(self._reason or 'and nobody knows why').rstrip('.')}); the same command goes on with them."
                    )
                self._fill()
                self.engine.wait([worker.id for worker in self.workers if worker.id], TICK_S)
                self._look()
            self._end(GRACE_S)
        except BaseException:
            self._end(0.0)
            raise
        finally:
            self.engine.close()

    def _join(self, worker: _Worker) -> None:
        """Go on with one that an earlier command has started, if it goes on itself and was told the same."""
        try:
            order = Order.read(worker.folder)
        except ConfigError:
            return
        if order.engine != self.engine.name or order.id is None:
            return
        if isinstance(self.engine.look([order.id]).get(order.id), Running):
            if order.config.get("tasks") == self.id:
                worker.id, worker.starts = order.id, 1
            else:
                self.engine.stop(order.id, 0.0)

    def _fill(self) -> None:
        for worker in self.workers:
            if worker.id is None and not worker.over:
                config = {**self.crew.config, "folder": str(self.folder.path), "tasks": self.id}
                order = Order(
                    new_run(), config, {}, gpus=self.crew.places.gpus, by=versions.here(), task="score"
                ).write(worker.folder)
                worker.id = self.engine.submit(worker.folder, self.crew.places)
                if worker.id is None:  # no room now
                    return
                worker.starts += 1
                worker.state = Running(queued=True)
                order.started(worker.folder, self.engine.name, worker.id)

    def _look(self) -> None:
        there = {worker.id: worker for worker in self.workers if worker.id is not None}
        for id, state in self.engine.look(there).items():
            if isinstance(state, Running):
                there[id].state = state
            else:
                self._ended(there[id], state)

    def _ended(self, worker: _Worker, ended: Ended) -> None:
        worker.id, self._looked = None, 0.0
        try:
            result = dict(read_json(worker.folder.result))
        except (OSError, ValueError, TypeError):
            result = {}
        for notice in result.get("notices") or []:
            self.crew.phases.keep(str(notice))
        if result.get("status") == "ok":
            worker.over = True
            return
        self._reason = str(result.get("reason") or f"{ended.words}; see {ended.log or worker.folder.log(0)}")
        worker.over = bool(result.get("refused")) or worker.starts > AGAIN
        if not worker.over:
            self.crew.phases.keep(f"Worker {worker.folder.path.name} is started again: {self._reason}")

    def _still_to_do(self) -> bool:
        now = time.monotonic()
        if now - self._looked < TICK_S:
            return True
        self._looked = now
        before = self._rows, len(self._left)
        self._rows += sum(self.records.rows(self._seen))
        there = {path.name for path in self.folder.done.glob("*")}
        self._left = [task for task in self._left if not self._done(task, there)]
        if before != (self._rows, len(self._left)):  # it goes on, however often workers are killed
            for worker in self.workers:
                worker.starts = min(worker.starts, 1)
        if now - self._said > EVERY_S[self.crew.phases.live]:
            self._said = now
            self._tell(now)
        return bool(self._left)

    def _done(self, task: Task, there: Collection[str]) -> bool:
        if f"{task.key}.failed" in there and self.records.failed(task.units[-1]) is not None:
            return True
        if f"{task.key}.json" not in there:
            return False
        return self.records.told(task) is not None or self._claims.over(task.key)

    def _tell(self, now: float) -> None:
        running = [worker for worker in self.workers if worker.id is not None]
        queued = sum(worker.state.queued for worker in running)
        waits = f", {queued} of them in the queue" if queued else ""
        speed = self._rows / max(1e-9, now - self._start)
        self.crew.phases(
            f"scoring by {len(running)} worker{'s' * (len(running) != 1)}{waits}: {self._count - len(self._left):,} of "
            f"{self._count:,} files, {self._rows:,} rows, {speed:,.0f} a second"
        )

    def _end(self, wait_s: float) -> None:
        """See all workers end: by themselves, for so many seconds, or told to; a second Ctrl-C does not wait."""
        until, told = time.monotonic() + wait_s, False
        grace = GRACE_S
        while True:
            try:
                while running := [worker for worker in self.workers if worker.id is not None]:
                    for worker in running:
                        assert worker.id is not None
                        if not told and (worker.state.queued or time.monotonic() >= until):
                            self.engine.stop(worker.id, grace)
                    told = told or time.monotonic() >= until
                    self.engine.wait([str(worker.id) for worker in running], TICK_S)
                    for id, state in self.engine.look([str(worker.id) for worker in running]).items():
                        if isinstance(state, Ended):
                            next(worker for worker in running if worker.id == id).id = None
                    if time.monotonic() > until + 3 * GRACE_S:
                        return
                while living(self.folder.alive) and time.monotonic() < until:  # those of another engine
                    time.sleep(TICK_S / 5)
                return
            except KeyboardInterrupt:
                until, told, grace = 0.0, False, 0.0
