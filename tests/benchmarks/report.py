"""`straylight report` of sweeps of hundreds of runs: CPU seconds beyond start-up, memory, and the page it writes.

One real run of `autoencoder` on `digits_contaminated` is trained. A sweep is made of it: 20 detectors on 8 or 20 data
sets over 5 seeds, each in a folder with all that the run left, its record and its config with the names and numbers
changed, and scores of 1,000 rows of its own. Each round times, as processes of their own and in turns, `straylight
report --help` and, of each sweep, the console report without figures, `straylight report FOLDER`, and that with
`--html`. Seconds are those of the CPU less those of `--help`, medians over rounds; memory is the most that was resident
and no less than this script's own. Where there is Chromium, each page is then opened in it: seconds of the clock until
it is loaded, and until what a reader chose of the leaderboard at once is drawn. The last line is the ratio of seconds
with the page, most runs to fewest; the one above it is that of the numbers of runs.

    python tests/benchmarks/report.py
"""

from __future__ import annotations

import argparse
import compileall
import copy
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

import straylight
from straylight.folder import RunFolder
from straylight.groups import FOLDER, choices
from straylight.metrics.ranking import auroc, average_precision

DETECTORS, SEEDS, ROWS, ANOMALOUS = 20, 5, 1000, 150
SCRIPT = [sys.executable, "-W", "ignore", "-c"]
OURS = [sys.executable, "-W", "ignore", "-m", "straylight"]
LIGHT = """
import sys
from pathlib import Path
from straylight.report import page
page.draw = lambda *given: []
page.report(Path(sys.argv[1]))
"""


class Taken(NamedTuple):
    """Of a process: CPU seconds, and the most MiB that were resident."""

    cpu: float
    peak: float


def measured(command: list[str]) -> Taken:
    """Run a process and see what it took."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)[:200]}\n{said.read()[-2000:].decode()}")
    return Taken(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def real(folder: Path) -> RunFolder:
    """A run as `straylight train` leaves it in a sweep, which draws no figures."""
    command = [*OURS, "train", "detector=autoencoder", "data=digits_contaminated", "trainer.max_epochs=5"]
    command += ["callbacks.figures.only=[]", f"hydra.run.dir={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return RunFolder(folder)


def sweep(model: RunFolder, folder: Path, detectors: int, sets: int) -> Path:
    """A sweep of so many detectors and data sets, each run a copy of the model with other names and numbers."""
    record = json.loads(model.result.read_text())
    config = yaml.load(model.config.read_text(), yaml.CSafeLoader)
    rng, number = np.random.default_rng(0), 0
    for data in choices("data")[:sets]:
        for detector in choices("detector")[:detectors]:
            quality, speed = rng.uniform(0.3, 3), rng.uniform(0.3, 30)
            for seed in range(SEEDS):
                run = RunFolder(folder / str(number))
                shutil.copytree(model.path, run.path, copy_function=os.link)  # what is not changed lies there once
                scores, y = scored(rng, quality)
                result = json.dumps(changed(record, rng, speed, scores, y) | named(detector, data, seed), indent=2)
                text = yaml.dump(configured(config, detector, data, seed), Dumper=yaml.CSafeDumper, sort_keys=False)
                for path, content in ((run.result, result), (run.config, text)):
                    path.unlink()
                    path.write_text(content)
                run.scores.unlink()
                run.write_columns(run.scores, {"index": np.arange(ROWS), "score": scores, "y": y})
                number += 1
    return folder


def scored(rng: np.random.Generator, quality: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of nominal rows and three kinds of anomaly."""
    y = np.zeros(ROWS, np.int64)
    y[:ANOMALOUS] = 1 + np.arange(ANOMALOUS) % 3
    return rng.normal(size=ROWS).astype(np.float32) + np.float32(quality) * (y > 0), y


def changed(
    record: dict[str, Any], rng: np.random.Generator, speed: float, scores: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    """The record with the AUROC and AP of these scores, other numbers by chance, and times of another speed."""
    own = copy.deepcopy(record)
    kinds = [name.removeprefix("test/auroc/") for name in own["metrics"] if name.startswith("test/auroc/")]
    for label, ending in enumerate(("", *(f"/{kind}" for kind in kinds))):
        sides = scores[y == 0], scores[y == label if label else y > 0]
        for name, value in (("auroc", auroc(*sides)), ("ap", average_precision(*sides))):
            own["metrics"][f"test/{name}{ending}"] = value
            own["intervals"][f"test/{name}{ending}"] = [max(0.0, value - 0.03), min(1.0, value + 0.03)]
    for name, value in own["metrics"].items():
        if name.startswith("test/tpr") and value is not None:
            own["metrics"][name] = value * rng.uniform(0.8, 1)
    for entry in own["latency"]:
        for name in ("p50_us", "p95_us", "p99_us", "mean_us", "events_per_s"):
            if entry.get(name) is not None:
                entry[name] *= (1 / speed if name == "events_per_s" else speed) * rng.uniform(0.9, 1.1)
    return own


def named(detector: str, data: str, seed: int) -> dict[str, Any]:
    """The fields of a record that say which run it is."""
    overrides = [f"detector={detector}", f"data={data}", f"seed={seed}", "trainer.max_epochs=5"]
    which = hashlib.sha256(f"{detector} {data}".encode()).hexdigest()[:12]
    return {
        "detector": detector,
        "data": data,
        "seed": seed,
        "overrides": overrides,
        "variant": which,
        "config_hash": which[:11] + str(seed),
        "command": f"straylight train {' '.join(overrides)}",
    }


def configured(config: dict[str, Any], detector: str, data: str, seed: int) -> dict[str, Any]:
    """The config with the settings of another detector and of other data."""
    return {**config, "seed": seed, "detector": settings("detector", detector), "data": settings("data", data)}


@cache
def settings(group: str, name: str) -> dict[str, Any]:
    """What a config of a group sets, with what its base does."""
    found: dict[str, Any] = {}
    for path in (FOLDER / group / "base.yaml", FOLDER / group / f"{name}.yaml"):
        found |= yaml.safe_load(path.read_text()) if path.is_file() else {}
    return {key: value for key, value in found.items() if key != "defaults"}


def opened(path: Path) -> tuple[float, float] | None:
    """Seconds until a page is loaded in Chromium, and until what is chosen of it is drawn; None where it is absent."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if (browser := shutil.which("chromium")) is None:
        return None
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = window.new_page()
        page.goto("about:blank")
        start = time.monotonic()
        page.goto(path.resolve().as_uri(), wait_until="load")
        loaded = time.monotonic()
        page.select_option("#by-detector", index=1)
        page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        chosen = time.monotonic()
        window.close()
    return loaded - start, chosen - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, nargs="+", default=[8, 20], help="data sets of each sweep")
    parser.add_argument("--detectors", type=int, default=DETECTORS)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    compileall.compile_dir(Path(straylight.__file__).parent, quiet=2)
    with tempfile.TemporaryDirectory() as root:
        model = real(Path(root) / "model")
        commands = {"--help": [*OURS, "report", "--help"]}
        sweeps = {}
        for sets in given.sets:
            folder = sweep(model, Path(root) / str(sets), given.detectors, sets)
            runs = len(list(folder.glob("*/result.json")))
            sweeps[runs] = folder
            commands |= {
                f"{runs} runs, no figures": [*SCRIPT, LIGHT, str(folder)],
                f"{runs} runs": [*OURS, "report", str(folder)],
                f"{runs} runs, page": [*OURS, "report", str(folder), "--html", str(folder / "report.html")],
            }
        taken: dict[str, list[Taken]] = {name: [] for name in commands}
        pages: dict[int, list[tuple[float, float]]] = {runs: [] for runs in sweeps}
        print(f"{'round':7}{'':24}{'CPU, s':>8}{'peak, MiB':>11}")
        for number in range(given.rounds):
            for name in list(commands)[:: -1 if number % 2 else 1]:
                taken[name].append(measured(commands[name]))
                print(f"{number:5}  {name:24}{taken[name][-1].cpu:8.2f}{taken[name][-1].peak:11.0f}", flush=True)
            for runs, folder in sweeps.items():
                if seconds := opened(folder / "report.html"):
                    pages[runs].append(seconds)
        start = statistics.median(each.cpu for each in taken["--help"])
        print(f"{'median of rounds':24}{'CPU, s':>8}{'beyond start-up':>17}{'peak, MiB':>11}")
        beyond = {}
        for name, rounds in taken.items():
            cpu, peak = (statistics.median(values) for values in zip(*rounds, strict=True))
            beyond[name] = cpu - start
            print(f"{name:24}{cpu:8.2f}{beyond[name]:17.2f}{peak:11.0f}")
        for runs, folder in sweeps.items():
            said = "no Chromium to open it in"
            if pages[runs]:
                loaded, chosen = (statistics.median(values) for values in zip(*pages[runs], strict=True))
                said = f"loaded in {loaded:.2f} s, what is chosen drawn after {chosen:.2f} s"
            print(f"page of {runs} runs: {(folder / 'report.html').stat().st_size / 1e6:.2f} MB, {said}")
    least, most = min(sweeps), max(sweeps)
    print(f"{most / least:.3g} times the runs")
    print(f"ratio: {beyond[f'{most} runs, page'] / beyond[f'{least} runs, page']:.3g}")


if __name__ == "__main__":
    main()
