"""`straylight score RUN FILE...`: scores of new rows, by a finished run."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, get_args

from straylight.console import say
from straylight.errors import ConfigError, StraylightError
from straylight.files.fitting import Lacking, Rules, Unseen
from straylight.metrics.judge import Cut
from straylight.phases import Phases
from straylight.scoring.inputs import Input, gathered
from straylight.scoring.pieces import Told
from straylight.scoring.runtime import RUNTIMES, set_device, set_threads
from straylight.scoring.scorer import Scorer, scorer_of
from straylight.scoring.shown import show_top
from straylight.scoring.target import STDOUT, Target
from straylight.scoring.wanted import Wanted
from straylight.scoring.work import Report, score_files
from straylight.sweep.lease import leased

TOP = 10  # of the strangest rows, where nothing is written
EVERY_S = {True: 0.5, False: 10.0}  # between two lines, in a terminal and elsewhere
NONE = "none"
EXAMPLES = """\
examples:
  straylight score outputs/mine new.csv -o scores.parquet
  straylight score outputs/mine days/ -o scores/ --threshold fpr=0.001
  straylight score outputs/mine 'days/*.parquet' -o 'scores/*.csv' --keep time
  zcat new.csv.gz | straylight score outputs/mine - -o - --missing skip
"""


def main(arguments: list[str]) -> None:
    """Entry point of the command."""
    given = _parser().parse_args(arguments)
    phases = Phases()
    try:
        report = _score(given, phases)
    except StraylightError as error:
        phases.done()
        say(f"Error: {error}", error=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    finally:
        phases.done()
    _show(report, given)
    if report.failed:
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="straylight score",
        usage="straylight score RUN FILE... [-o OUT] [options]",
        description="Score rows of files by a finished run, in any format that it could have been trained on. Columns "
        "are found by name and read as the types that they had in training.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the folder of a run, or one that `straylight export` wrote")
    add("files", nargs="+", metavar="FILE", help="files, patterns, folders, or - for standard input")
    add("-o", "--output", metavar="OUT", help=".parquet, .csv, .csv.gz or .npz: one for all; FOLDER/ or FOLDER/*.csv: "
        "one each; -: CSV to standard output")  # fmt: skip
    add("--threshold", action="append", metavar="RULE", help="flag by it: one of the run's, or fpr=0.001, "
        "quantile=0.9, fdr=0.05, score=3.5; again for more; none for none. The run's, if left out")  # fmt: skip
    add("--top", type=int, metavar="N", help="print the N strangest rows (10 without -o)")
    add("--explain", type=int, default=0, metavar="K", help="the K features of each row that contribute most")
    add("--keep", default="", metavar="A,B", help="columns of the input that stand beside the scores")
    add("--members", action="store_true", help="the scores of an ensemble's members")
    add("--missing", choices=get_args(Lacking), help="a value that is missing: refuse the file, fill the median of "
        "training rows in, or leave the row without a score; as in training, if left out")  # fmt: skip
    add("--unseen", choices=get_args(Unseen), help="a category that training did not have; other (the usual): none of "
        "them")  # fmt: skip
    add("--runtime", choices=RUNTIMES, default="torch", help="auto: the faster one, where scores agree")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 or auto")
    add("--threads", type=int, metavar="N", help="that compute; all processors, if left out")
    add("--trust", action="append", default=[], metavar="NAME", help="a module whose classes may be built")
    add("--json", action="store_true", help="what came of it, as JSON")
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        sentence = message.replace("unrecognized arguments:", "there is no option")
        say(f"Error: {sentence}; straylight score --help says what can be typed.", error=True)
        sys.exit(2)


def _score(given: argparse.Namespace, phases: Phases) -> Report:
    for name, value in {"--top": given.top, "--explain": given.explain, "--threads": given.threads}.items():
        if value is not None and value < (name == "--threads"):
            raise ConfigError(f"{name} must be {'1' if name == '--threads' else '0'} or more, not {value}.")
    target = Target.of(given.output)
    threads = set_threads(given.threads)
    phases(f"opening {given.run}")
    with _scratch(target) as scratch:
        inputs = gathered(given.files, sys.stdin.buffer, scratch, target.folder)
        scorer = scorer_of(given.run, given.runtime, scratch, threads, trust=given.trust)
        set_device(scorer.run, given.device)
        top = given.top if given.top is not None else 0 if given.output else TOP
        wanted = Wanted(
            cuts=tuple(_cuts(given.threshold, scorer, phases)),
            rules=Rules.of(given.missing, given.unseen, scorer.trained),
            keep=tuple(name for name in given.keep.split(",") if name),
            members=given.members,
            explain=given.explain,
            top=top,
        )
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
    interrupted = False
    try:
        with leased(place, alone=True, what="command that scores to the same place"):
            for left in place.glob("writing.*"):
                left.unlink()
            try:
                yield place
            except KeyboardInterrupt:
                interrupted = True
                raise
            finally:
                if not interrupted:
                    for left in place.iterdir():
                        if not left.name.startswith(".lease"):
                            left.unlink()
    finally:
        for folder in dict.fromkeys([place, *made]):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


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


def _show(report: Report, given: argparse.Namespace) -> None:
    if given.json:
        print(json.dumps(_plain(report), default=str))
        return
    error = given.output == STDOUT
    for name in report.kept:
        say(f"{name}: scored before, as {report.outputs[name]} says", error=error)
    for name, told in report.files.items():
        if name not in report.kept:
            say(f"{name}: {_line(told)}" + (f", in {out}" if (out := report.outputs.get(name)) else ""), error=error)
    for sentence in report.failed.values():
        say(f"Error: {sentence}", error=True)
    if report.drift is not None:
        say(report.drift.sentence(), error=error)
    if report.top:
        show_top(report.top, error=error)


def _line(told: Told) -> str:
    flagged = "".join(f", {count:,} flagged by {name}" for name, count in told.flagged.items())
    some = "" if told.scored == told.rows else f" ({told.rows - told.scored:,} without a score)"
    return f"{told.rows:,} row{'s' * (told.rows != 1)}{some}{flagged}"


def _plain(report: Report) -> dict[str, Any]:
    return {
        "files": {
            name: {**asdict(told), "output": report.outputs.get(name), "kept": name in report.kept}
            for name, told in report.files.items()
        },
        "failed": report.failed,
        "drift": None if report.drift is None else report.drift.to_json(),
        "top": report.top,
    }
