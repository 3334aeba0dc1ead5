"""What `straylight score` asks for, done: opened, scored in a folder of its own, and watched."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from straylight.errors import ConfigError
from straylight.files.fitting import Rules
from straylight.metrics.judge import Cut
from straylight.phases import Phases
from straylight.scoring.crew import EVERY_S, Unfinished, refuse_others
from straylight.scoring.crewed import crew_of
from straylight.scoring.inputs import Input, gathered
from straylight.scoring.pieces import Told
from straylight.scoring.runtime import set_threads
from straylight.scoring.scorer import Asked, Scorer, scorer_of
from straylight.scoring.target import Target
from straylight.scoring.tasks import Folder
from straylight.scoring.wanted import Wanted
from straylight.scoring.work import PART, Report, score_files
from straylight.sweep.lease import leased

TOP = 10  # of the strangest rows, where nothing is written
NONE = "none"


def score(given: argparse.Namespace, phases: Phases) -> Report:
    """Score what is asked for.

    Args:
        given: as `straylight.commands.score` parses it.
        phases: is told how far it is.

    Raises:
        ConfigError: if it is asked wrongly.
        DataError: if the files do not fit.
    """
    target = Target.of(given.output)
    crew = crew_of(given, target, phases) if given.workers is not None else None
    threads = set_threads(given.threads)
    device = given.device if crew is None else "cpu"  # whoever has others score needs none
    with _scratch(target) as scratch:
        if crew is None:
            refuse_others(Folder(scratch))
        inputs = gathered(given.files, sys.stdin.buffer, scratch, target.folder)
        scorer = scorer_of(given.run, Asked(scratch, given.runtime, device, threads, given.trust))
        top = given.top if given.top is not None else 0 if given.output else TOP
        wanted = Wanted(
            cuts=tuple(_cuts(given.threshold, scorer, phases)),
            rules=Rules.of(given.missing, given.unseen, scorer.trained),
            keep=tuple(name for name in given.keep.split(",") if name),
            members=given.members,
            explain=given.explain,
            top=top,
        )
        if crew is not None:
            return crew.score(scorer, inputs, target, wanted, scratch)
        watch = _Watch(phases, len(inputs))
        return score_files(scorer, inputs, target, wanted, scratch, watch.progress, watch.done)


def _cuts(asked: Sequence[str] | None, scorer: Scorer, phases: Phases) -> Iterator[Cut]:
    """The thresholds that are asked for; if none are, those of the run by which something can be flagged."""
    if asked is not None:
        yield from (scorer.judge.cut(name) for name in dict.fromkeys(asked) if asked != [NONE])
        return
    for entry in scorer.judge.entries:
        try:
            yield scorer.judge.cut(scorer.judge.called(entry))
        except ConfigError as error:
            phases.keep(str(error))


@contextmanager
def _scratch(target: Target) -> Iterator[Path]:
    """A folder for what is not done yet, beside the output, where whoever starts again after a kill finds it."""
    place = target.scratch
    if place is None:
        with TemporaryDirectory(prefix="straylight-") as folder:
            yield Path(folder)
        return
    made = [folder for folder in (place.parent, *place.parents) if not folder.exists()]
    try:
        with leased(place, alone=True, what="command that scores to the same place"):
            before = Folder(place).tasks.exists()
            for left in place.glob(f"*{PART}"):
                left.unlink()
            try:
                yield place
            except (KeyboardInterrupt, Unfinished):
                raise
            except BaseException:
                if not before:  # what workers have done so far is not for a typing error to undo
                    _clear(place)
                raise
            _clear(place)
    finally:
        for empty in dict.fromkeys([place, *made]):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()


def _clear(place: Path) -> None:
    for left in place.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        elif not left.name.startswith(".lease"):
            left.unlink()


class _Watch:
    """Says how far it is: rows a second, and the time that is left where the number of rows is known."""

    def __init__(self, phases: Phases, files: int) -> None:
        self._phases, self._files, self._number = phases, files, 1
        self._start = self._said = time.monotonic()

    def progress(self, given: Input, done: int, rows: int | None) -> None:
        now = time.monotonic()
        if now - self._said < EVERY_S[self._phases.live]:
            return
        self._said = now
        speed = done / max(1e-9, now - self._start)
        which = f"file {self._number} of {self._files}, " if self._files > 1 else ""
        left = f" of {rows:,} rows, {(rows - done) / speed:,.0f} s left" if rows else " rows"
        self._phases(f"scoring {which}{given.shown}: {done:,}{left}, {speed:,.0f} a second")

    def done(self, given: Input, told: Told) -> None:
        self._number += 1
        self._start = time.monotonic()
        for notice in told.notices:
            self._phases.keep(f"{given.shown}: {notice}")
