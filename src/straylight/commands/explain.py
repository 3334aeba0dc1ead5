"""`straylight explain RUN FILE`: why rows are strange."""

from __future__ import annotations

import argparse
from pathlib import Path

from straylight.commands.asked import MISSING, UNSEEN, Parser, working
from straylight.loading import loading

FEATURES = 8  # of each row, that are printed
METHODS = ("auto", "exact", "gradients", "shapley")


def main(arguments: list[str]) -> None:
    """Entry point of the command."""
    parser = Parser(
        prog="straylight explain",
        usage="straylight explain RUN [FILE] [options]",
        description="Why rows are strange: what each feature adds to a row's score above that of the nominal training "
        "rows that are most like it, and what it is in the nearest of them.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="of rows; without it the run's test rows")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rows", type=_numbers, metavar="3,17", help="these rows, counted from 1; 5-8 are four")
    which.add_argument("--top", type=_count, default=20, metavar="N", help="the N strangest (20)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="a line for each row and feature: .parquet, .csv"
    )
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="a picture of each row, or a map of images")
    parser.add_argument("--features", type=_count, default=FEATURES, metavar="N", help="how many to print of a row (8)")
    parser.add_argument("--json", action="store_true", help="print all features of all rows as JSON")
    parser.add_argument(
        "--method", choices=METHODS, default="auto", metavar="M", help="exact, gradients, shapley or auto"
    )
    parser.add_argument("--references", type=_count, metavar="N", help="nominal rows of each (4)")
    parser.add_argument("--evaluations", type=_count, metavar="N", help="of each row by shapley")
    parser.add_argument("--missing", choices=MISSING, metavar="M", help="of a value: error, median or skip")
    parser.add_argument("--unseen", choices=UNSEEN, metavar="U", help="a category: error, other or skip")
    parser.add_argument("--trust", action="append", default=[], metavar="NAME", help="whose classes may be built")
    given = parser.parse_args(arguments)
    with working(f"opening {given.run}") as phases:
        with loading():
            from straylight.commands.explaining import explain
        explain(given, phases)


def _numbers(text: str) -> list[int]:
    """Numbers of rows as they are typed.

    Example:
        >>> _numbers("3,17,5-7")
        [3, 17, 5, 6, 7]
    """
    found: list[int] = []
    for word in text.split(","):
        first, dash, last = word.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(first) < 1 or (dash and int(last) < int(first)):
            raise argparse.ArgumentTypeError(f"rows are numbers from 1, such as 3,17 or 5-8, not {text!r}")
        found += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(found))


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 is needed, not {text!r}")
    return int(text)
