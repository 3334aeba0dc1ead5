"""Data larger than memory: resident memory of a training, and rows a second, against a bare pass over the same file.

    python tests/benchmarks/large_data.py [--rows 50000000] [--batch 1024] [--folder DIR] [--rounds 3]

Writes an array of rows x 57 float32 (11 GB by default, removed at the end) and trains the 57-8-57 autoencoder of the
trigger tutorial on it for an epoch, in a process of its own, as `straylight train data=file` does: finiteness and
scaling in a pass each, rows shuffled in blocks, mini-batches gathered from the memory map. Reported are the peak of the
process's anonymous resident memory, which is what it takes beyond the page cache, and the rows a second that the loader
yields in mini-batches from a warm cache; the ratio is that of the loader to a bare loop
over a permutation of all rows, of which each mini-batch is sorted and taken from the memory map.
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
import torch

from interleaved import compare

FEATURES = 57


def write(path: Path, rows: int) -> None:
    """Correlated normal rows, so many at a time."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(8, FEATURES)).astype(np.float32)
    array = np.lib.format.open_memmap(path, "w+", np.float32, (rows, FEATURES))
    for start in range(0, rows, 1_000_000):
        n = min(1_000_000, rows - start)
        array[start : start + n] = rng.standard_normal((n, 8), dtype=np.float32) @ mixing
        array[start : start + n] += rng.standard_normal((n, FEATURES), dtype=np.float32)
    array.flush()


def anonymous() -> float:
    """Resident memory of this process that is no file's, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def data_of(path: Path, batch: int):
    from straylight.data import File

    return File(path=str(path), batch_size=batch, train_fraction=0.98, val_fraction=0.01, memory_mb=0)


def train(path: Path, batch: int) -> None:
    """One epoch, watched."""
    import pytorch_lightning as pl

    from straylight.detectors import AutoEncoder
    from straylight.job.train import quiet

    torch.set_num_threads(1)
    quiet()
    peak, done = [anonymous()], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], anonymous())

    base = peak[0]
    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    data = data_of(path, batch)
    data.setup()
    rows = len(data.splits.train)
    loaded = time.perf_counter() - start
    quiet_trainer = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, **quiet_trainer)
    trainer.fit(AutoEncoder((FEATURES,), hidden=[], latent=8), datamodule=data)
    trained = time.perf_counter() - start - loaded
    done.set()
    watcher.join()
    print(f"rows trained on: {rows}, {trainer.global_step} steps")
    print(f"opening, splitting and checking: {loaded:.0f} s; scaling and one epoch: {trained:.0f} s")
    print(f"anonymous resident memory: {base:.0f} MiB before, {peak[0]:.0f} MiB at most")


def load(path: Path, batch: int, rounds: int) -> None:
    """The loader against rows drawn from all over the file, both a mini-batch at a time, from a warm cache."""
    torch.set_num_threads(1)
    data = data_of(path, batch)
    loader = data.train_dataloader()
    count = min(loader.steps * batch, 4_000_000)  # of rows, a part of the epoch that stays in the cache
    array = np.load(path, mmap_mode="r")

    def ours() -> None:
        seen = 0
        for group in loader:
            for minibatch, _ in group.minibatches():
                seen += len(minibatch.x)
            if seen >= count:
                break

    def bare() -> None:
        order = np.random.default_rng(0).permutation(len(array))
        for start in range(0, count, batch):
            torch.from_numpy(array[np.sort(order[start : start + batch])])

    ours()
    start = time.perf_counter()
    ours()
    rate = count / (time.perf_counter() - start)
    print(f"loader, warm: {rate:,.0f} rows/s of {FEATURES} float32, in batches of {batch}")
    compare(ours, bare, rounds, f"loader against a permutation of all rows, {count} of them", clock=time.perf_counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the array is written; a temporary folder by default")
    parser.add_argument("--part", choices=["train", "load"], help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        return train(args.path, args.batch) if args.part == "train" else load(args.path, args.batch, args.rounds)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "rows.npy"
        write(path, args.rows)
        print(f"{args.rows} x {FEATURES} float32, {path.stat().st_size / 2**30:.2f} GiB", flush=True)
        own = [sys.executable, __file__, "--path", str(path), "--batch", str(args.batch), "--rounds", str(args.rounds)]
        for part in ("train", "load"):
            subprocess.run([*own, "--part", part], check=True)


if __name__ == "__main__":
    main()
