"""Files to scores: each once, whole or not at all, and gone on with by whoever starts again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from straylight.scoring.pieces import Counted, Told, scores, told_of, write_piece
from straylight.scoring.scorer import Scorer
from straylight.scoring.target import LEDGER, Target
from straylight.scoring.tasks import Folder, Records, key_of
from straylight.scoring.wanted import Wanted

PART = ".part"  # after the name of a file that is not whole yet
PIECES = "pieces.json"
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

    def add_top(self, given: Input, rows: Sequence[dict[str, Any]], most: int) -> None:
        """The strangest rows of a file are among those of all, if they are strange enough."""
        named = [{FILE: given.shown, **row} for row in rows]
        self.top = sorted([*self.top, *named], key=lambda row: -row[SCORE])[:most]


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
    job = job_of(scorer, wanted)
    making = Making(scorer, wanted, scratch, progress)
    report = Report()
    if target.folder is None:
        _together(making, inputs, target, report, job, done)
    else:
        _each(making, inputs, target, report, job, done)
    report.drift = None if making.compared is None else making.compared.drift()
    return report


def job_of(scorer: Scorer, wanted: Wanted) -> dict[str, Any]:
    """What outputs are made by."""
    return {"version": __version__, "scorer": scorer.identity(), "wanted": wanted.identity()}


class Making:
    """Makes pieces, and outputs of them.

    Args:
        scorer: what scores.
        wanted: of each row.
        scratch: a folder for what is not done yet.
        progress: see `score_files`.
        may: asked before a file takes its place, and raises what there is to say against it.
    """

    def __init__(
        self, scorer: Scorer, wanted: Wanted, scratch: Path, progress: Progress, may: Callable[[], None] = lambda: None
    ) -> None:
        self.scorer, self.wanted, self.scratch, self._progress, self._may = scorer, wanted, scratch, progress, may
        self.compared = compared_with(scorer)

    def aside(self, path: Path) -> Path:
        """Where a file is written before it takes its place, in a folder that goes when all is done."""
        return self.scratch / f"{path.name}{PART}"

    def write(self, whole: Whole, path: Path, ending: str, enter: Callable[[Path], None] = lambda aside: None) -> None:
        """Write a table, which is in its place once it has reached the disk."""
        aside = self.aside(path)
        write(aside, ending, whole.parts, whole.rows)
        self._may()
        enter(aside)
        path.parent.mkdir(parents=True, exist_ok=True)
        take_place(aside, path)

    def piece(
        self, given: Input, path: Path, made_of: Sequence[object], ledger: Ledger, rows: range | None = None
    ) -> Counted:
        """The scores of a file, or of some of its rows, unless they are there."""
        known = ledger.done(path, made_of)
        if known is not None:
            return Counted.of_json(known)
        aside = self.aside(path)
        counted = write_piece(
            self.scorer, given, self.wanted, aside, lambda done, rows: self._progress(given, done, rows), rows
        )
        self._may()
        ledger.enter(path, aside, made_of, counted.to_json())
        take_place(aside, path, durable=False)
        return counted

    def compare(self, pieces: Iterable[Path]) -> None:
        """Compare the scores of pieces with those of calibration."""
        if self.compared is not None:
            for path in pieces:
                for part in scores(path):
                    self.compared.add(part)


def compared_with(scorer: Scorer) -> Compared | None:
    """What compares scores with those of calibration; `None` where there are none to compare with."""
    if not scorer.judge.calibrated or scorer.judge.folds:
        return None
    return Compared(*scorer.judge.calibrating)


def _piece(making: Making, given: Input, ledger: Ledger) -> Piece:
    path = making.scratch / f"{key_of(given)}.arrow"
    counted = making.piece(given, path, given.identity(), ledger)
    making.compare([path])
    return Piece(path, given.shown, told_of([counted]))


def _together(
    making: Making, inputs: Sequence[Input], target: Target, report: Report, job: dict[str, Any], done: Done
) -> None:
    """One table of all files; if one of them does not fit, none."""
    pieces, ledger = [], Ledger(making.scratch / PIECES, job)
    for given in inputs:
        pieces.append(_piece(making, given, ledger))
        done(given, pieces[-1].told)
    whole = Whole(pieces, making.wanted, making.scratch, named=len(inputs) > 1)
    report.top = whole.look()
    report.files = {piece.file: piece.told for piece in pieces}
    if target.file is not None:
        making.write(whole, target.file, target.ending)
        report.outputs = dict.fromkeys(report.files, str(target.file))
    elif target.stdout:
        write_csv(sys.stdout.buffer, whole.parts)
        sys.stdout.buffer.flush()


def _each(
    making: Making, inputs: Sequence[Input], target: Target, report: Report, job: dict[str, Any], done: Done
) -> None:
    """A table of each file; one that does not fit is told, and the others go on."""
    ledgers = Ledgers(job)
    ledgers.take_in(inputs, target, Records(Folder(making.scratch), job))
    held = Ledger(making.scratch / PIECES, job)
    for given in inputs:
        if ledgers.kept(given, target, report):
            continue
        out = target.path(given)
        try:
            piece = _piece(making, given, held)
        except DataError as error:
            report.failed[given.shown] = str(error)
            continue
        whole = Whole([piece], making.wanted, making.scratch, named=False)
        report.add_top(given, whole.look(), making.wanted.top)

        def enter(aside: Path, given: Input = given, out: Path = out, told: Told = piece.told) -> None:
            ledgers.of(out).enter(out, aside, given.identity(), asdict(told), digest=True)

        making.write(whole, out, target.ending, enter)
        report.files[given.shown], report.outputs[given.shown] = piece.told, str(out)
        done(given, piece.told)
        piece.path.unlink()


class Ledgers:
    """`scored.json` of each folder of outputs, the manifest of what is in it.

    Args:
        job: what all outputs are made by.
    """

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._job = job
        self._known: dict[Path, Ledger] = {}

    def of(self, out: Path) -> Ledger:
        """That of an output."""
        if out.parent not in self._known:
            self._known[out.parent] = Ledger(out.parent / LEDGER, self._job)
        return self._known[out.parent]

    def kept(self, given: Input, target: Target, report: Report) -> bool:
        """Whether the scores of a file are there already, which is reported."""
        out = target.path(given)
        known = self.of(out).done(out, given.identity())
        if known is not None:
            report.kept.append(given.shown)
            report.files[given.shown], report.outputs[given.shown] = Told(**known), str(out)
        return known is not None

    def take_in(self, inputs: Iterable[Input], target: Target, records: Records) -> None:
        """Enter what workers have made and recorded."""
        taken: list[Ledger] = []
        there = {path.name for path in records.folder.done.glob("*.json")}
        for given in inputs:
            out, key = target.path(given), key_of(given)
            if f"{key}.json" not in there:
                continue
            if (ledger := records.ledger(key)).done(out, given.identity()) is not None:
                self.of(out).take(out, ledger)
                taken.append(self.of(out))
        for ledger in dict.fromkeys(taken):
            ledger.write()
