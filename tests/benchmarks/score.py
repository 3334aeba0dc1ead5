"""`straylight score` against reading the file and a bare loop of the network, and its memory over many rows.

    python tests/benchmarks/score.py [--rows 1000000] [--memory-rows 10000000] [--rounds 5] [--folder DIR]

Trains the 57-8-57 autoencoder of the trigger tutorial for an epoch and scores a Parquet file of rows x 57 float32 with
it, into Parquet with p-values, flags and ranks. Bare is what anyone would write: pyarrow's batches, stacked, and the
network over slices of 16,384 rows, whose scores are thrown away. The ratio is of CPU seconds on one thread. Memory is
the peak of anonymous resident memory of a process of its own that scores `--memory-rows` rows, 0 for none.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from interleaved import compare
from large_data import anonymous

FEATURES, SLICE, PART = 57, 16384, 250_000


def write(path: Path, rows: int) -> None:
    """Normal rows of three digits, so many at a time."""
    rng, names = np.random.default_rng(0), [f"f{i}" for i in range(FEATURES)]
    schema = pa.schema([(name, pa.float32()) for name in names])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, PART):
            n = min(PART, rows - start)
            x = rng.normal(size=(n, FEATURES)).round(2).astype(np.float32)
            writer.write_table(pa.table({name: x[:, i] for i, name in enumerate(names)}))


def trained(folder: Path):
    """A run on such rows."""
    from straylight.commands.train import main

    write(folder / "train.parquet", 20_000)
    quiet = ["callbacks=numbers", "callbacks.latency=null", "logger=none", "trainer.max_epochs=1"]
    own = [f"data.path={folder / 'train.parquet'}", "data.val_fraction=0.2", "detector=autoencoder"]
    main(["data=file", *own, *quiet, f"hydra.run.dir={folder / 'run'}"])
    return folder / "run"


def score(run: Path, path: Path, out: Path) -> None:
    from straylight.commands.score import main

    main([str(run), str(path), "-o", str(out), "--threads", "1", "--threshold", "fpr=0.01"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--memory-rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where files are written; a temporary folder by default")
    parser.add_argument("--watched", nargs=3, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.watched:
        return watched(*args.watched)
    from straylight.run import Run

    with tempfile.TemporaryDirectory(dir=args.folder) as text:
        folder = Path(text)
        run, path, out = trained(folder), folder / "rows.parquet", folder / "scores.parquet"
        detector = Run.open(run).detector
        torch.set_num_threads(1)
        if args.rounds:
            write(path, args.rows)

        def ours() -> None:
            score(run, path, out)

        def bare() -> None:
            with torch.inference_mode(), pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=4 * SLICE):
                    x = torch.from_numpy(np.stack([column.to_numpy() for column in batch.columns], 1))
                    for part in x.split(SLICE):
                        detector(part)

        if args.memory_rows:
            many = folder / "many.parquet"
            write(many, args.memory_rows)
            print(f"{args.memory_rows:,} x {FEATURES} float32, {many.stat().st_size / 2**30:.2f} GiB", flush=True)
            places = [str(run), str(many), str(folder / "many_scores.parquet")]
            subprocess.run([sys.executable, __file__, "--watched", *places], check=True)
            many.unlink()
        if args.rounds:
            compare(ours, bare, args.rounds, f"straylight score against a bare loop, {args.rows:,} rows")


def watched(run: Path, path: Path, out: Path) -> None:
    """Score, and say how much memory it took."""
    import straylight.commands.score  # noqa: F401  what is imported is counted before

    peak, done, base = [anonymous()], threading.Event(), anonymous()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    score(run, path, out)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    rows = pq.ParquetFile(out).metadata.num_rows
    print(f"{rows:,} rows in {seconds:.0f} s; anonymous resident memory: {base:.0f} MiB before, {peak[0]:.0f} at most")


if __name__ == "__main__":
    main()
