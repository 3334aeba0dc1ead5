"""`straylight export RUN`: a folder that another program uses without Straylight."""

import argparse
import json
import sys
from pathlib import Path
from typing import NoReturn

from straylight.console import say
from straylight.errors import StraylightError
from straylight.export.targets import TARGETS
from straylight.folder import EXPORTED
from straylight.job.train import quiet
from straylight.run import Run


def main(arguments: list[str]) -> None:
    """Entry point of the command."""
    parser = _Parser(
        prog="straylight export",
        description="A folder that another program uses without Straylight: the detector of a run as a graph that "
        "scales and scores, what to know of it (model.json), a program that scores a file by it (score.py), and how "
        "near its scores are to the detector's on the run's own rows and on rows far outside (parity.json). Nothing is "
        "left if they are not near.",
        epilog="examples: straylight export outputs/runs/NAME; straylight export outputs/runs/NAME --to pt2 -o served",
    )
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument(
        "--to",
        choices=TARGETS,
        default="onnx",
        help="the graph: for ONNX Runtime (onnx, the default) or for torch.export (pt2)",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help=f"default: {EXPORTED}, in the run's own")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="NAME", help="a module whose classes may be built"
    )
    parser.add_argument("--json", action="store_true", help="print what was written, and the parity, as JSON")
    given = parser.parse_args(arguments)
    if not given.run.is_dir():
        parser.error(f"there is no folder {given.run}")
    quiet()
    try:
        run = Run.open(given.run, trust=given.trust)
        written = TARGETS[given.to](run, given.output or given.run / EXPORTED)
    except StraylightError as error:
        say(f"Error: {error}", error=True)
        sys.exit(1)
    if given.json:
        print(json.dumps(written.to_json(), indent=2))
        return
    worst = max(written.findings, key=lambda one: one.difference / one.tolerance)
    for name, size in written.files.items():
        say(f"{written.folder / name}  {_bytes(size)}")
    say(
        f"Parity: on {written.rows}, and on rows far outside, the scores differ by {worst.difference:.1e} of their "
        f"spread at most ({worst.what}; {worst.tolerance:g} is allowed)."
    )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        sentence = message.replace("unrecognized arguments:", "there is no option")
        say(f"Error: {sentence}; straylight export --help says what can be typed.", error=True)
        sys.exit(2)


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
