"""Every detector as `straylight export` writes it: size, parity, and ONNX Runtime's time beside torch's, on one thread.

Each is trained for two epochs on `digits`, 8 x 8 pixels; those of particles on `toy_trigger`, those of over-densities
on 20,000 events of `bump`. The table is that of docs/export.md.

    python tests/benchmarks/export.py
"""

from __future__ import annotations

import argparse
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

from straylight.commands.train import main as train
from straylight.errors import StraylightError
from straylight.export import Model, to_folder
from straylight.groups import choices
from straylight.job.train import quiet
from straylight.run import Run

PARTICLES = ["data=toy_trigger", "data.layout=particles", "data.background=2000", "data.signal=100"]
SEARCHED = ["data=digits", "+trainer.limit_test_batches=1", "+trainer.limit_val_batches=1"]  # a search for each row
HUNTED = ["data=bump", "data.events=20000", "data.test_background=2000", "data.test_signal=200"]
SEARCHES = ("anode", "cathode", "cwola", "idealized", "lacathode", "r_anode", "supervised")
DATA = {"multiplicity": PARTICLES, "sum_pt": PARTICLES, "anogan": SEARCHED} | dict.fromkeys(SEARCHES, HUNTED)
LARGE = 1024  # events of the larger batch


def trained(name: str, folder: Path) -> Run:
    """A run of a detector, two epochs long."""
    lean = ["callbacks=numbers", "callbacks.latency=null", "logger=none", "trainer.max_epochs=2"]
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            train([f"detector={name}", *DATA.get(name, ["data=digits"]), *lean, f"hydra.run.dir={folder}"])
    except SystemExit as end:
        raise RuntimeError(said.getvalue()) from end
    return Run.open(folder)


def seconds(call: Callable[[], object], rounds: int) -> float:
    """The median of several calls, after one."""
    call()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def shown(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="detectors, with commas between them; all without it")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("straylight").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    quiet()
    print(f"| detector | size, kB | parity | one event, us: torch, ONNX | {LARGE:,} events, ms: torch, ONNX |")
    print("|---|---|---|---|---|")
    ratios = []
    for name in options.only.split(",") if options.only else choices("detector"):
        with tempfile.TemporaryDirectory() as place:
            run = trained(name, Path(place) / "run")
            try:
                made = to_folder(run, Path(place) / "export")
            except StraylightError as error:
                print(f"| `{name}` | {error} | | | |", flush=True)
                continue
            model = Model.open(Path(place) / "export")
            test = run.material.data.splits.test
            rows = torch.arange(LARGE) % len(test)
            x, context = test.x[:].float()[rows].numpy(), test.context[rows].numpy()
            cells = []
            for n, unit in ((1, 1e6), (LARGE, 1e3)):
                given = (x[:n], context[:n]) if context.shape[1] else (x[:n],)
                bare, ours = (seconds(lambda g=given, m=m: m.score(*g), options.rounds) for m in (run, model))
                cells.append(f"{shown(bare * unit)}, {shown(ours * unit)}")
            ratios.append(ours / bare)
            worst = max(one.difference for one in made.findings)
            size = made.files["model.onnx"] / 1e3
            print(f"| `{name}` | {size:,.0f} | {worst:.0e} | {cells[0]} | {cells[1]} |", flush=True)
    if ratios:
        print(f"ratio: {statistics.median(ratios):.3g}")


if __name__ == "__main__":
    main()
