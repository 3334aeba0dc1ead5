"""Training on rows of several files on disk: against one file, and what each of several ranks reads and holds of them.

    python tests/benchmarks/parts.py [--rows 500000] [--parts 64] [--batch 1024] [--folder DIR] [--rounds 3]

Writes rows x 57 float32 as one array and as so many (0.2 GB together by default, removed at the end). The rows that
each of 1, 2 and 4 ranks has in an epoch are gone through once; said are the rows that it reads, as counted where files
are read, and how far resident memory rises meanwhile, at most: anonymous, and of files, which is what the rank maps.
Then the 57-8-57 autoencoder is trained for an epoch on the files and on the one, in turns, CPU time without what opens
and checks the rows; the last line is the ratio of the two.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import threading
from pathlib import Path

import numpy as np
import torch

from interleaved import compare

FEATURES = 57


def write(folder: Path, rows: int, parts: int) -> None:
    """Normal rows, as one file and as several."""
    rng = np.random.default_rng(0)
    whole = np.lib.format.open_memmap(folder / "whole.npy", "w+", np.float32, (rows, FEATURES))
    for i in range(parts):
        low, high = i * rows // parts, (i + 1) * rows // parts
        whole[low:high] = rng.standard_normal((high - low, FEATURES), dtype=np.float32)
        np.save(folder / f"part-{i:05}.npy", whole[low:high])
    whole.flush()


def resident() -> tuple[float, float]:
    """Resident memory of this process that is no file's, and that is, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith("Rss")}
    return found["RssAnon"], found["RssFile"]


def data_of(path: Path, batch: int):
    from straylight.data import File

    return File(path=str(path), batch_size=batch, train_fraction=0.98, val_fraction=0.01, memory_mb=0)


def one_rank(events, batch: int, rank: int, ranks: int) -> tuple[int, list[float]]:
    """The rows that one of several ranks reads in an epoch, and by how many MiB its memory rises."""
    from straylight.rows import mapped
    from straylight.rows.loaders import GroupLoader

    plain, read = mapped.Lying.index_select, [0]

    def index_select(self, axis, index):
        read[0] += len(index)
        return plain(self, axis, index)

    mapped.Lying.index_select = index_select
    mapped._kept_open.cache_clear()  # what others have mapped
    gc.collect()
    before, done = resident(), threading.Event()
    peak = list(before)

    def watch() -> None:
        while not done.wait(0.005):
            for i, now in enumerate(resident()):
                peak[i] = max(peak[i], now)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for group in GroupLoader(events, batch_size=batch, rank=rank, world=ranks, by_parts=True):
        for minibatch, _ in group.minibatches(ranks):
            minibatch.x.sum()
    done.set()
    watcher.join()
    mapped.Lying.index_select = plain
    return read[0], [high - low for high, low in zip(peak, before, strict=True)]


def train(data) -> None:
    """One epoch in this process."""
    import pytorch_lightning as pl

    from straylight.detectors import AutoEncoder

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, limit_val_batches=0, **quiet)
    trainer.fit(AutoEncoder((FEATURES,), hidden=[], latent=8), datamodule=data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--parts", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        write(folder, args.rows, args.parts)
        size = args.rows * FEATURES * 4 / 2**20
        print(f"{args.rows:,} rows of {FEATURES} float32 in {args.parts} files, {size:.0f} MiB")
        from straylight.job.train import quiet

        quiet()
        several, one = (data_of(folder / name, args.batch) for name in ("part-*.npy", "whole.npy"))
        for data in (several, one):
            data.setup()
        print("ranks  rank  rows read  of training  anonymous, MiB  of files, MiB")
        events = several.splits.train
        for ranks in (1, 1, 2, 4):  # the first of them takes room that is not given back
            for rank in range(ranks):
                read, (anonymous, mapped) = one_rank(events, args.batch, rank, ranks)
                print(f"{ranks:5} {rank:5} {read:10,} {read / len(events):12.3f} {anonymous:15.0f} {mapped:14.0f}")
        what = f"an epoch on {args.parts} files against one"
        compare(lambda: train(several), lambda: train(one), args.rounds, what)


if __name__ == "__main__":
    main()
