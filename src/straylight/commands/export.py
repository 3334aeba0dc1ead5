"""`straylight export RUN`: a folder that another program uses without Straylight."""

import argparse
import json
from pathlib import Path
from typing import Any

from straylight.commands.asked import Parser, working
from straylight.console import say
from straylight.folder import EXPORTED
from straylight.loading import loading

MLFLOW = "mlflow"
TARGETS = ("onnx", "pt2", MLFLOW)


def main(arguments: list[str]) -> None:
    """Entry point of the command."""
    parser = Parser(
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
        help="the graph: for ONNX Runtime (onnx, the default) or for torch.export (pt2); or the run itself as a model "
        "of MLflow's (mlflow), which needs Straylight where it is loaded",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help=f"default: {EXPORTED}, in the run's own")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="NAME", help="a module whose classes may be built"
    )
    parser.add_argument("--json", action="store_true", help="print what was written, and the parity, as JSON")
    given = parser.parse_args(arguments)
    if not given.run.is_dir():
        parser.error(f"there is no folder {given.run}")
    if given.to == MLFLOW and given.output is None:
        parser.error("say where the model goes: -o FOLDER")
    with working(f"opening {given.run}") as phases:
        with loading():
            from straylight.export import targets
            from straylight.job.train import quiet
            from straylight.run import Run
        quiet()
        run = Run.open(given.run, trust=given.trust)
        phases(f"writing {given.to}, and comparing its scores")
        if given.to == MLFLOW:
            _save(run, given)
            return
        written = targets.TARGETS[given.to](run, given.output or given.run / EXPORTED)
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


def _save(run: Any, given: argparse.Namespace) -> None:
    from straylight.pyfunc import save

    folder = save(run, given.output)
    print(json.dumps({"folder": str(folder), "to": MLFLOW}) if given.json else f"{folder}  a model of MLflow's")


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
