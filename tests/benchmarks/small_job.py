"""What a run adds to the work of a classical detector on 1,000 x 20 rows: fit, test, record, without the start-up.

A run is `straylight train` without the process around it: data read, split and scaled, Trainer, checkpoint, metrics,
latency at four batch sizes, thresholds, TensorBoard, result.json; no ONNX. The bare work is a fit and a score of the
same rows.

    python tests/benchmarks/small_job.py
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from straylight import config
from straylight.data import ADBench
from straylight.detectors import FittedDetector
from straylight.groups import FOLDER, choices
from straylight.job.train import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="detectors, with commas between them; all without it")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("straylight").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    generator = np.random.default_rng(0)
    y = np.arange(options.rows) >= 0.95 * options.rows
    np.savez(folder / "small.npz", X=generator.normal(size=(options.rows, 20)) * (1 + y[:, None]), y=y)
    total = [0.0, 0.0]
    print(f"{'seconds':24}{'run':>8}{'bare':>8}")
    for name in options.only.split(",") if options.only else choices("detector"):
        runs, bares = [], []
        for _ in range(options.rounds + 1):  # the first imports and is left out
            with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
                chosen = [f"detector={name}", "data=adbench", f"data.path={folder}/small.npz", "paths.run=."]
                chosen.append("callbacks.latency.runtimes=[eager]")
                cfg = compose("train", overrides=chosen)
            data = ADBench(path=str(folder / "small.npz"))
            try:
                detector = config.build(cfg, "detector", shape=data.shape, context=0)
            except Exception:  # takes images only
                break
            if not isinstance(detector, FittedDetector):
                break
            start = time.perf_counter()
            train(cfg, Path(tempfile.mkdtemp(dir=folder)))
            runs.append(time.perf_counter() - start)
            pl.seed_everything(0, verbose=False)
            rows, test = data.splits.train, data.splits.test
            start = time.perf_counter()
            x = detector.scaling.fit([rows.x])(rows.x)
            with torch.no_grad():
                detector.fit(x, rows.context, rows.weight)
                detector(test.x)
            bares.append(time.perf_counter() - start)
        if runs:
            run, bare = statistics.median(runs[1:]), statistics.median(bares[1:])
            print(f"{name:24}{run:8.3f}{bare:8.3f}", flush=True)
            total = [total[0] + run, total[1] + bare]
    print(f"ratio: {total[0] / total[1]:.3g}")


if __name__ == "__main__":
    main()
