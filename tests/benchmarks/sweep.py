"""What a job of a sweep costs beside its own work, in a process of its own and in one process for all.

`python tests/benchmarks/sweep.py` sweeps `hbos` on blobs over 40 seeds, one job at a time, without figures and latency,
by `hydra/launcher=local` with a process for each job, by the same with one process for all (`jobs_per_process`), and by
Hydra's `basic`, in turns. It prints the seconds of a job from the first result to the last, less what the job itself
took (`duration_s` of its record), beside the seconds before the first; the last line is the ratio of whole sweeps,
local to basic.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

LAUNCHERS = {
    "local": ["hydra.launcher.n_jobs=1"],
    "shared": ["hydra.launcher.n_jobs=1", "hydra.launcher.jobs_per_process=1000"],
    "basic": ["hydra/launcher=basic"],
}


class Taken(NamedTuple):
    """Seconds of a sweep: altogether, until the first job had ended, and of each job beside its own work."""

    whole: float
    first: float
    beside: float


def sweep(launcher: str, jobs: int, folder: Path) -> Taken:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "straylight",
        "train",
        "-m",
        "detector=hbos",
        "data=blobs",
        f"seed=range({jobs})",
    ]
    command += ["callbacks.figures=null", "callbacks.latency=null", "callbacks.tensorboard=null", "logger=none"]
    command += [*LAUNCHERS[launcher], f"hydra.sweep.dir={folder}"]
    start = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    whole = time.time() - start
    written = sorted(path.stat().st_mtime for path in folder.glob("*/result.json"))
    own = [json.loads(path.read_text())["duration_s"] for path in folder.glob("*/result.json")]
    assert len(own) == jobs
    beside = (written[-1] - written[0]) / max(1, jobs - 1) - statistics.mean(own)
    return Taken(whole, written[0] - start, beside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    taken: dict[str, list[Taken]] = {name: [] for name in LAUNCHERS}
    with tempfile.TemporaryDirectory() as root:
        for number in range(given.rounds):
            for name in taken if number % 2 else reversed(taken):
                taken[name].append(sweep(name, given.jobs, Path(root) / f"{name}-{number}"))
    print(f"{given.jobs} jobs one by one, median of {given.rounds} rounds, seconds")
    print("launcher  whole  first  beside own work, a job")
    for name, rounds in taken.items():
        whole, first, beside = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"{name:8}  {whole:5.1f}  {first:5.1f}  {beside:.3f}")
    ratios = [ours.whole / theirs.whole for ours, theirs in zip(taken["local"], taken["basic"], strict=True)]
    print(f"ratio: {statistics.median(ratios):.3g}")


if __name__ == "__main__":
    main()
