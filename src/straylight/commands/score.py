"""`straylight score RUN FILE...`: scores of new rows, by a finished run."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from straylight.commands.asked import FAILED, MISSING, UNSEEN, Parser, working
from straylight.console import say
from straylight.loading import loading

if TYPE_CHECKING:
    from straylight.scoring.pieces import Told
    from straylight.scoring.work import Report

STDOUT = "-"
RUNTIMES = ("torch", "onnx", "auto")
EXAMPLES = """\
examples:
  straylight score outputs/mine days/ -o scores/ --threshold fpr=0.001 --top 5
  zcat new.csv.gz | straylight score outputs/mine - -o - --missing skip
"""


def main(arguments: list[str]) -> None:
    """Entry point of the command."""
    parser = _parser()
    given = parser.parse_args(arguments)
    for least, name, value in (
        (0, "--top", given.top),
        (0, "--explain", given.explain),
        (1, "--threads", given.threads),
        (1, "--workers", given.workers),
    ):
        if value is not None and value < least:
            parser.error(f"{name} must be {least} or more, not {value}")
    if given.workers is None and (given.engine or given.engine_option):
        parser.error(f"{'--engine' if given.engine else '--engine-option'} is for workers: say how many by --workers")
    try:
        with working(f"opening {given.run}") as phases:
            if given.workers is not None and given.engine in (None, "local"):
                from straylight.engines.local.pool import warm

                warm()  # what workers are forked from imports while the run is opened here
            with loading():
                from straylight.scoring.command import score
            report = score(given, phases)
    except KeyboardInterrupt:
        if given.output not in (None, STDOUT):
            say("Interrupted: the same command goes on with what is missing.", error=True)
        raise
    _show(report, given)
    if report.failed:
        sys.exit(FAILED)


def _parser() -> Parser:
    parser = Parser(
        prog="straylight score",
        usage="straylight score RUN FILE... [-o OUT] [options]",
        description="Score rows of files, whose columns are read as those of training were, by a finished run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the folder of a run, or an exported one")
    add("files", nargs="+", metavar="FILE", help="files, patterns, folders, or - (standard input)")
    add("-o", dest="output", metavar="OUT", help="a file .parquet .csv .csv.gz .npz; FOLDER/; F/*.csv; -")
    add("--threshold", action="append", metavar="T", help="the run's; or fpr=0.01 quantile=0.9 fdr=0.1 score=3")
    add("--top", type=int, metavar="N", help="print the N strangest rows (10 without -o)")
    add("--explain", type=int, default=0, metavar="K", help="the K features of each row that add most")
    add("--keep", default="", metavar="A,B", help="columns of the input beside the scores")
    add("--members", action="store_true", help="the scores of an ensemble's members")
    add("--missing", choices=MISSING, metavar="M", help="of a value: error, median or skip")
    add("--unseen", choices=UNSEEN, metavar="U", help="of a category: error, other or skip")
    add("--runtime", choices=RUNTIMES, metavar="R", help="torch, onnx or auto, the faster one")
    add("--device", default="cpu", metavar="D", help="cpu, cuda, cuda:1 or auto")
    add("--threads", type=int, metavar="N", help="that compute")
    add("--workers", type=int, metavar="N", help="that share the files, into FOLDER/")
    add("--engine", metavar="E", help="that runs them: local, slurm or ray")
    add("--engine-option", action="append", default=[], metavar="K=V", help="as hydra.launcher.K has it")
    add("--trust", action="append", default=[], metavar="NAME", help="whose classes may be built")
    add("--json", action="store_true", help="what came of it, as JSON")
    return parser


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
        from straylight.scoring.shown import show_top

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
