"""A job that scores files together with others like it: `straylight.job` does it, on whichever machine.

Workers know of each other by the files of `straylight.scoring.claims` alone, so that any of them may end at any moment.
A worker that has died is noticed, and what it was at is done again from the start by another; nothing that is in its
place is written again.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from contextlib import chdir
from dataclasses import asdict
from pathlib import Path
from typing import Any

from straylight.errors import ConfigError, DataError, StraylightError, no_room
from straylight.folder import RunFolder
from straylight.job.attempt import Tell
from straylight.job.order import Order
from straylight.scoring.claims import Claims, working
from straylight.scoring.finish import Piece, Whole
from straylight.scoring.ledger import Ledger
from straylight.scoring.pieces import Counted, told_of
from straylight.scoring.runtime import set_threads
from straylight.scoring.scorer import Asked, scorer_of
from straylight.scoring.summary import Summary
from straylight.scoring.tasks import Folder, Records, Task, Tasks, Unit
from straylight.scoring.work import Making
from straylight.stopping import STOP

POLL_S = 0.5  # between two looks at what others do
TRIES = 3  # workers that may die at one task


def attempt(order: Order, folder: RunFolder, tell: Tell | None = None) -> dict[str, Any]:
    """Score what others have not; what `result.json` says of it.

    Args:
        order: what to do.
        folder: of the job.
        tell: told a line now and then on how far it is.
    """
    folder.result.unlink(missing_ok=True)
    status, reason, refused = "ok", None, False
    with STOP.listening():
        try:
            _work(order.config, tell or (lambda line: None))
        except (KeyboardInterrupt, SystemExit):
            status = "interrupted"
        except Exception as error:
            refused = isinstance(error, StraylightError)
            if not refused:
                traceback.print_exc()
            said = str(error) if refused else no_room(error) or f"{type(error).__name__}: {error}"
            status, reason = "failed", " ".join(said.split())
    result = {"metrics": {}, "latency": [], **order.fields, "status": status, "reason": reason, "refused": refused}
    folder.write_result(result)
    return result


def _work(config: Any, tell: Tell) -> None:
    if not Path(config["cwd"]).is_dir():
        raise ConfigError(f"{socket.gethostname()} does not see {config['cwd']}, the folder that files are named from.")
    folder = Folder(Path(config["folder"]))
    tasks = Tasks.read(folder.tasks)
    if tasks.id != config["tasks"]:
        raise ConfigError("Another command scores to the same place now.")
    with chdir(config["cwd"]), working(folder.alive) as own:
        asked = Asked(own, config["runtime"], config["device"], set_threads(config["threads"]), config["trust"])
        scorer = scorer_of(Path(config["run"]), asked)

        def progress(given: Any, done: int, rows: int | None) -> None:
            tell(f"{given.shown}: {done:,}" + (f" of {rows:,} rows" if rows else " rows"))

        worker = _Worker(folder, tasks, own)
        worker.making = Making(scorer, tasks.wanted, own, progress, worker.may)
        worker.work()


class _Taken(Exception):
    """Others took this worker for dead, and have what it was at."""


class _Worker:
    """Does what nobody does, until all is done."""

    making: Making

    def __init__(self, folder: Folder, tasks: Tasks, own: Path) -> None:
        self.own, self.tasks = own, tasks
        self.claims = Claims(folder.claims, folder.alive, own.name)
        self.records = Records(folder, tasks.job)
        self._key = ""

    def work(self) -> None:
        """Until all is done, by whomever: what nobody had first, then what others died at."""
        units = [unit for task in self.tasks.all for unit in task.units]
        left = []
        for unit in sorted(units, key=lambda unit: -unit.size):
            if self._ready(unit) and self.claims.new(unit.key):
                self._do(unit)
                self._join(unit.task)
            else:
                left.append(unit)
        while left := [unit for unit in left if not self._over(unit)]:
            took = False
            for unit in left:
                if self._ready(unit) and self.claims.take(unit.key):
                    self._do(unit)
                    took = True
            if not took:
                time.sleep(POLL_S)

    def may(self) -> None:
        """See that what is done now is ours still.

        Raises:
            _Taken: if it is another's.
        """
        if not self.claims.mine(self._key):
            raise _Taken

    def _over(self, unit: Unit) -> bool:
        """Whether nothing is left to be done, as where a part cannot be scored whose file another one has spoiled."""
        return self.claims.over(unit.key) or self.records.done(unit) or self.records.failed(unit) is not None

    def _ready(self, unit: Unit) -> bool:
        """Whether all is there that it takes."""
        return unit.part is not None or all(self._over(part) for part in unit.task.units[:-1])

    def _join(self, task: Task) -> None:
        whole = task.units[-1]
        if task.rows and self._ready(whole) and self.claims.new(whole.key):
            self._do(whole)

    def _do(self, unit: Unit) -> None:
        """Do what is ours now."""
        self._key = unit.key
        if not self._over(unit):
            try:
                self._see_that_it_is_safe(unit)
                self._part(unit) if unit.part is not None else self._whole(unit.task)
            except DataError as error:
                self.records.fail(unit, str(error))
            except _Taken:
                return
        self.claims.end(unit.key)

    def _see_that_it_is_safe(self, unit: Unit) -> None:
        given = unit.task.given
        if (deaths := self.claims.deaths(unit.key)) >= TRIES:
            raise DataError(f"{given.shown} cannot be scored: {deaths} workers ended while they were at it.")
        try:
            same = given.identity() == unit.task.made_of
        except OSError as error:
            raise DataError(f"{given.shown} cannot be read ({os.strerror(error.errno or 0)}).") from error
        if not same:
            raise DataError(f"{given.shown} was changed while files were scored; score it again.")

    def _part(self, unit: Unit) -> None:
        """Score some rows of a large file, unless some before them cannot be."""
        task, part = unit.task, unit.part
        assert part is not None
        if not any(self.records.failed(before) for before in task.units[:part]):
            ledger, path = self.records.ledger(unit.key), self.records.piece(unit)
            self.making.piece(task.given, path, unit.made_of, ledger, task.rows[part])

    def _whole(self, task: Task) -> None:
        """Make the scores of a file, of those of its parts if it has any."""
        *parts, whole = task.units
        for part in parts:
            if (sentence := self.records.failed(part)) is not None:
                raise DataError(sentence)
        if parts:
            paths = [self.records.piece(part) for part in parts]
            counted = [one for part in parts if (one := self.records.counted(part)) is not None]
            rows: list[range | None] = [*task.rows]
        else:
            paths, rows, counted = [self.own / "whole.arrow"], [None], []
            counted.append(self._scored(task, paths[0]))
        if len(counted) < len(paths):
            raise DataError(f"{task.given.shown}: scores of some of its rows are gone from {paths[0].parent}.")
        told = told_of(counted)
        pieces = [Piece(path, task.given.shown, told, own) for path, own in zip(paths, rows, strict=True)]
        output = Whole(pieces, self.tasks.wanted, self.own, named=False)
        self._keep(task, output, paths)
        ledger = self.records.ledger(whole.key)

        def enter(aside: Path) -> None:
            ledger.enter(task.out, aside, task.made_of, asdict(told), digest=True)

        self.making.write(output, task.out, self.tasks.ending, enter)
        for path in paths:
            path.unlink(missing_ok=True)

    def _scored(self, task: Task, path: Path) -> Counted:
        return self.making.piece(task.given, path, task.made_of, Ledger(self.own / "whole.json", {}))  # this one's own

    def _keep(self, task: Task, output: Whole, paths: list[Path]) -> None:
        """Keep what the summary needs of all files together."""
        compared, counts = self.making.compared, None
        if compared is not None:
            before = compared.counts.copy()
            self.making.compare(paths)
            counts = compared.counts - before
        top = output.look()
        schema = next(output.parts()).schema
        self.may()
        Summary(self.records.folder.done, task.key).keep(top, schema, counts)
