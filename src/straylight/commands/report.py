"""`straylight report FOLDER`: what a run or a sweep reached."""

import argparse
import sys
from pathlib import Path

from straylight.console import say
from straylight.folder import RunFolder, SweepFolder
from straylight.report.compared import PICTURES
from straylight.report.page import report, show_run
from straylight.report.runtimes import BEST, RUNTIMES


def main(arguments: list[str]) -> None:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(
        prog="straylight report",
        description="The leaderboard of a sweep, or of all runs below a folder: a row for each detector on each data "
        f"set, mean and range over seeds; written to leaderboard.csv there too, beside {', '.join(PICTURES)}, those of "
        "them that apply. For the folder of one run, its numbers.",
    )
    parser.add_argument("folder", type=Path, help="of a run, of a sweep, or above several of them")
    parser.add_argument("--details", action="store_true", help="of one run: all that was measured")
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default=BEST,
        help="whose times the leaderboard has: of each detector the fastest that scores as torch does (best), or one",
    )
    parser.add_argument("--retime", action="store_true", help="time every run once more, one by one, before reporting")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="NAME",
        help="with --retime: a module whose classes may be built",
    )
    given = parser.parse_args(arguments)
    folder, runs = given.folder, SweepFolder(given.folder)
    if not folder.is_dir():
        sys.exit(_refusal(f"there is no folder {folder}."))
    failures = 0
    if given.retime:
        from straylight.commands.retime import retime

        failures = retime(folder, given.trust)
    if RunFolder(folder).result.is_file():
        show_run(folder, details=given.details)
    elif given.details:
        sys.exit(_refusal(f"--details is for the folder of one run, and {folder} holds no result.json of its own."))
    elif not runs.has_results:
        sys.exit(_refusal(f"{folder} holds no result.json, in it or below: no run in it has ended."))
    else:
        report(folder, runtime=given.runtime)
    if failures:
        sys.exit(1)


def _refusal(sentence: str) -> int:
    say(f"Error: {sentence}", error=True)
    return 1
