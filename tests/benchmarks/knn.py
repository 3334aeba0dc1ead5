"""kNN against scikit-learn's brute force: 50,000 rows scored by 50,000 x 57 training rows, wall time on two threads.

python tests/benchmarks/knn.py
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from interleaved import compare
from straylight.detectors import KNN


def peak_mib(reset: bool = False) -> float:
    """The process's largest resident memory in MiB, since it was last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000, help="training rows, and rows to score")
    parser.add_argument("--features", type=int, default=57)
    parser.add_argument("--threads", type=int, default=2, help="torch's; scikit-learn takes the machine's cores")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.randn(options.rows, options.features, generator=generator) for _ in range(2))
    knn = KNN((options.features,), distance="kth", scaling="none")
    knn.fit(train, train[:, :0], torch.ones(len(train)))
    neighbours = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(train.numpy())

    @torch.no_grad()
    def ours() -> np.ndarray:
        return knn(test).numpy()

    def bare() -> np.ndarray:
        return neighbours.kneighbors(test.numpy())[0][:, -1]

    before = peak_mib(reset=True)
    found = ours()
    print(f"memory above the data and the training rows kept: {peak_mib() - before:.0f} MiB")
    truth = bare()
    assert np.allclose(found, truth, rtol=1e-5), np.abs(found / truth - 1).max()
    what = f"5th neighbour of {options.rows:,} among {options.rows:,} x {options.features}, {options.threads} threads"
    compare(ours, bare, options.rounds, what, clock=time.perf_counter)


if __name__ == "__main__":
    main()
