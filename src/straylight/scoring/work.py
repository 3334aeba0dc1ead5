"""Files to scores: each once, whole or not at all, and gone on with by whoever starts again."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from straylight import __version__
from straylight.atomic import take_place
from straylight.errors import DataError
from straylight.metrics.drift import Compared, Drift
from straylight.scoring.columns import FILE, SCORE
from straylight.scoring.finish import Piece, Whole
from straylight.scoring.inputs import Input
from straylight.scoring.ledger import Ledger
from straylight.scoring.outputs import write, write_csv
from straylight.scoring.pieces import Told, scores, write_piece
from straylight.scoring.scorer import Scorer
from straylight.scoring.target import LEDGER, Target
from straylight.scoring.wanted import Wanted

PART = ".part"  # after the name of a file that is not whole yet
Progress = Callable[[Input, int, int | None], None]
Done = Callable[[Input, Told], None]


@dataclass
class Report:
    """What came of it.

    Attributes:
        files: what is known of each file, by what it is called.
        outputs: where its scores are.
        kept: files whose scores were there already.
        failed: sentences, by file.
        top: the strangest rows, first the strangest.
        drift: how the scores lie beside those of calibration; `None` where there are none of these.
    """

    files: dict[str, Told] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    top: list[dict[str, Any]] = field(default_factory=list)
    drift: Drift | None = None


def score_files(
    scorer: Scorer,
    inputs: Sequence[Input],
    target: Target,
    wanted: Wanted,
    scratch: Path,
    progress: Progress = lambda given, done, rows: None,
    done: Done = lambda given, told: None,
) -> Report:
    """Score files.

    Args:
        scorer: what scores them.
        inputs: the files.
        target: where scores go.
        wanted: what is wanted of each row.
        scratch: a folder for what is not done yet.
        progress: is told how many rows of a file are done, and how many it has, if that is known.
        done: is told what is known of a file that is done.

    Raises:
        DataError: if the only file, or one of those that make one output, does not fit; nothing is written then.
    """
    job = {"version": __version__, "scorer": scorer.identity(), "wanted": wanted.identity()}
    work = _Work(scorer, wanted, scratch, Ledger(scratch / "pieces.json", job), progress)
    report = Report()
    if target.folder is None:
        _together(work, inputs, target, report, done)
    else:
        _each(work, inputs, target, report, job, done)
    report.drift = None if work.compared is None else work.compared.drift()
    return report


class _Work:
    """Makes pieces, unless they are there."""

    def __init__(self, scorer: Scorer, wanted: Wanted, scratch: Path, ledger: Ledger, progress: Progress) -> None:
        self.scorer, self.wanted, self.scratch, self._ledger, self._progress = scorer, wanted, scratch, ledger, progress
        self.compared: Compared | None = None
        if scorer.judge.calibrated and not scorer.judge.folds:
            self.compared = Compared(*scorer.judge.calibrating)

    def aside(self, path: Path) -> Path:
        """Where a file is written before it takes its place, in a folder that goes when all is done."""
        return self.scratch / f"{path.name}{PART}"

    def write(self, whole: Whole, path: Path, ending: str, enter: Callable[[Path], None] = lambda aside: None) -> None:
        """Write a table, which is in its place once it has reached the disk."""
        aside = self.aside(path)
        write(aside, ending, whole.parts, whole.rows)
        enter(aside)
        path.parent.mkdir(parents=True, exist_ok=True)
        take_place(aside, path)

    def piece(self, given: Input) -> Piece:
        path = self.scratch / f"{hashlib.sha256(given.name.encode()).hexdigest()[:16]}.arrow"
        known = self._ledger.done(path, given.identity())
        if known is None:
            aside = self.aside(path)
            told = write_piece(
                self.scorer, given, self.wanted, aside, lambda done, rows: self._progress(given, done, rows)
            )
            self._ledger.enter(path, aside, given.identity(), asdict(told))
            take_place(aside, path, durable=False)
        else:
            told = Told(**known)
        if self.compared is not None:
            for part in scores(path):
                self.compared.add(part)
        return Piece(path, given.shown, told)


def _together(work: _Work, inputs: Sequence[Input], target: Target, report: Report, done: Done) -> None:
    """One table of all files; if one of them does not fit, none."""
    pieces = []
    for given in inputs:
        pieces.append(work.piece(given))
        done(given, pieces[-1].told)
    whole = Whole(pieces, work.wanted, work.scratch, named=len(inputs) > 1)
    report.top = whole.look()
    report.files = {piece.file: piece.told for piece in pieces}
    if target.file is not None:
        work.write(whole, target.file, target.ending)
        report.outputs = dict.fromkeys(report.files, str(target.file))
    elif target.stdout:
        write_csv(sys.stdout.buffer, whole.parts)
        sys.stdout.buffer.flush()


def _each(
    work: _Work, inputs: Sequence[Input], target: Target, report: Report, job: dict[str, Any], done: Done
) -> None:
    """A table of each file; one that does not fit is told, and the others go on."""
    ledgers: dict[Path, Ledger] = {}
    for given in inputs:
        out = target.path(given)
        if out.parent not in ledgers:
            ledgers[out.parent] = Ledger(out.parent / LEDGER, job)
        if (known := ledgers[out.parent].done(out, given.identity())) is not None:
            report.kept.append(given.shown)
            report.files[given.shown], report.outputs[given.shown] = Told(**known), str(out)
            continue
        try:
            piece = work.piece(given)
        except DataError as error:
            report.failed[given.shown] = str(error)
            continue
        whole = Whole([piece], work.wanted, work.scratch, named=False)
        top = [{FILE: given.shown, **row} for row in whole.look()]
        report.top = sorted([*report.top, *top], key=lambda row: -row[SCORE])[: work.wanted.top]

        def enter(aside: Path, given: Input = given, out: Path = out, told: Told = piece.told) -> None:
            ledgers[out.parent].enter(out, aside, given.identity(), asdict(told))

        work.write(whole, out, target.ending, enter)
        report.files[given.shown], report.outputs[given.shown] = piece.told, str(out)
        done(given, piece.told)
        piece.path.unlink()
