"""What a sweep of thousands of jobs costs who submits it, beside the jobs themselves.

`python tests/benchmarks/many_jobs.py` sweeps `hbos` on blobs over 10,000 seeds by an engine that computes nothing: it
takes every job at once, as a cluster's queue does, keeps it for some seconds, and writes a `result.json` for it. CPU
seconds of this process are counted without those in which the engine writes; of them, those in which configs are
composed are told apart. Memory is the most that was resident, beside what it was before the first job. A sweep of a
tenth as many jobs shows whether the cost of a job grows with their number: the last line is the ratio of CPU seconds a
job, most jobs to fewest.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from straylight.engines.base import Ended, Running
from straylight.folder import RunFolder
from straylight.job.devices import Asked
from straylight.job.order import Order

KEPT_S = 5.0  # for which a job is queued, and then runs


class Clocked:
    """CPU seconds spent in functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, function: Any) -> Any:
        def clocked(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return function(*given, **named)
            finally:
                self.seconds += time.process_time() - start

        return clocked


class Nothing:
    """An engine whose jobs compute nothing."""

    name, outlives, queues = "nothing", False, True

    def __init__(self) -> None:
        self.jobs: dict[str, tuple[RunFolder, float]] = {}
        self.writing = Clocked()
        self.end = self.writing(self._end)

    def submit(self, folder: RunFolder, asked: Asked) -> str | None:
        self.jobs[id := f"job {len(self.jobs)}"] = (folder, time.monotonic())
        return id

    def look(self, ids: Collection[str]) -> dict[str, Running | Ended]:
        return {id: self._state(id) for id in ids}

    def _state(self, id: str) -> Running | Ended:
        folder, since = self.jobs[id]
        passed = time.monotonic() - since
        if passed < 2 * KEPT_S:
            return Running("epoch 3", "n1", queued=passed < KEPT_S)
        self.end(folder)
        return Ended(0)

    def _end(self, folder: RunFolder) -> None:
        known = {**Order.read(folder).fields, "metrics": {"test/auroc": 0.5}, "latency": [], "status": "ok"}
        folder.write_result(known)

    def wait(self, ids: Collection[str], seconds: float) -> None:
        time.sleep(seconds)

    def stop(self, id: str, grace_s: float) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


def swept(jobs: int, folder: Path) -> None:
    """Sweep in this process, and print what it took."""
    from straylight.commands.app import run_hydra
    from straylight.engines.local import engine, pool
    from straylight.sweep.command import Command
    from straylight.sweep.composer import Composer

    nothing, composing = Nothing(), Clocked()
    engine.LocalEngine = lambda machine: nothing  # type: ignore[assignment,misc]
    pool.warm, pool.ask = lambda: None, lambda function, *given: []  # type: ignore[assignment]
    Composer.__call__ = composing(Composer.__call__)  # type: ignore[method-assign]
    overrides = ["detector=hbos", "data=blobs", f"seed=range({jobs})", "logger=none", f"hydra.sweep.dir={folder}"]
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with redirect_stdout(sys.stderr):
        run_hydra(Command(), ["-m"], overrides)
    cpu = time.process_time() - start - nothing.writing.seconds
    assert len(list(folder.glob("*/result.json"))) == jobs
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{cpu - composing.seconds} {composing.seconds} {peak}")


def _in_a_process(jobs: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", __file__, "--jobs", str(jobs), "--here", f"{folder}/sweep"]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return [float(word) for word in said.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=1, help="of which the medians count")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here is not None:
        swept(given.jobs, given.here)
        return
    own = []
    for jobs in (given.jobs // 10, given.jobs):
        taken = [_in_a_process(jobs) for _ in range(given.rounds)]
        sweep, composing, peak = (statistics.median(values) for values in zip(*taken, strict=True))
        own.append(sweep / jobs)
        print(
            f"{jobs:6,} jobs: {1e3 * sweep / jobs:.2f} ms of CPU a job, and {1e3 * composing / jobs:.2f} ms in which "
            f"configs are composed; {peak:.0f} MiB"
        )
    print(f"ratio: {own[1] / own[0]:.2f}")


if __name__ == "__main__":
    main()
