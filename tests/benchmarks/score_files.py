"""`straylight score --workers 2` against `--workers 1`: many files, and the memory of each worker.

    python tests/benchmarks/score_files.py [--files 200] [--rows 20000000] [--rounds 3] [--features 57] [--folder DIR]

Trains the 57-8-57 autoencoder of the trigger tutorial for an epoch and scores Parquet files of float32 with it, into
Parquet with p-values, flags and ranks, by one worker and by two of one thread each, in turns; outputs are compared byte
for byte. Seconds of wall time are those of the whole command, starts of workers included, and need a core for each
worker; CPU seconds of the command and all its workers, which other work on the machine changes little, say what two
workers cost more than one. The last line is the median over rounds of throughput by two workers over that by one, the
one before it the same from the moment on when the first worker is there.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil

import score as single
from score import trained, write


def command(run: Path, folder: Path, out: Path, workers: int) -> list[str]:
    options = ["-o", f"{out}/", "--workers", str(workers), "--threads", "1", "--threshold", "fpr=0.01"]
    return [sys.executable, "-m", "straylight", "score", str(run), f"{folder}/*.parquet", *options]


class Took(NamedTuple):
    """What a command took: seconds, those until the first worker was there, CPU seconds, MiB of a worker's own."""

    wall: float
    start: float
    cpu: float
    peak: float


def scored(run: Path, folder: Path, out: Path, workers: int) -> Took:
    """Score all files."""
    shutil.rmtree(out, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    peaks: dict[int, float] = {}
    cpu: dict[int, float] = {}
    first: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            for lease in (out / ".scoring" / "alive").glob("*/.lease.*"):
                try:
                    process = psutil.Process(json.loads(lease.read_text())["pid"])
                    first.append(time.perf_counter() - start)
                    peaks[process.pid] = max(peaks.get(process.pid, 0), anonymous_of(process))
                    cpu[process.pid] = sum(process.cpu_times()[:2])
                except (OSError, ValueError, psutil.Error):
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        subprocess.run(command(run, folder, out, workers), check=True, stdout=subprocess.DEVNULL)
    finally:
        wall = time.perf_counter() - start
        over.set()
        watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(wall, min(first, default=0.0), own + sum(cpu.values()), max(peaks.values(), default=0.0))


def anonymous_of(process: psutil.Process) -> float:
    """The anonymous memory of a process that it shares with no other, MiB."""
    return sum(group.private_dirty for group in process.memory_maps() if not group.path.startswith("/")) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--rows", type=int, default=20_000_000, help="of all files together")
    parser.add_argument("--features", type=int, default=single.FEATURES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where files are written; a temporary folder by default")
    args = parser.parse_args()
    single.FEATURES = args.features
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    with tempfile.TemporaryDirectory(dir=args.folder) as text:
        folder = Path(text)
        run, data = trained(folder), folder / "data"
        data.mkdir()
        each = -(-args.rows // args.files)
        write(data / "0000.parquet", each)
        for number in range(1, args.files):  # of the same rows, which costs less and changes nothing
            os.link(data / "0000.parquet", data / f"{number:04d}.parquet")
        ratios, begun, costs, rows = [], [], [], each * args.files
        for number in range(args.rounds):
            found = {}
            for workers in (2, 1) if number % 2 else (1, 2):
                found[workers] = scored(run, data, folder / f"by{workers}", workers)
                wall, start, cpu, peak = found[workers]
                print(
                    f"{workers} worker{'s' * (workers > 1)}: {rows:,} rows in {wall:.1f} s, {start:.1f} of which for "
                    f"the start, {cpu:.1f} s of CPU, at most {peak:.0f} MiB of a worker's own",
                    flush=True,
                )
            names = [path.name for path in (folder / "by1").glob("*.parquet")]
            same, other, lost = filecmp.cmpfiles(folder / "by1", folder / "by2", names, shallow=False)
            assert len(same) == args.files and not other and not lost
            one, two = found[1], found[2]
            ratios.append(one.wall / two.wall)
            begun.append((one.wall - one.start) / (two.wall - two.start))
            costs.append(two.cpu / max(1e-9, one.cpu))
        print(f"CPU seconds by two workers over those by one: {statistics.median(costs):.2f}")
        print(f"once workers are there: {statistics.median(begun):.2f}")
        print(f"ratio: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
