"""CPU seconds from Enter to a first result, as whole processes, one after the other in turns.

`import pytorch_lightning` alone (A) stands beside `straylight train detector=knn data=blobs` (at most 1.6 A is wanted)
and `straylight train detector=autoencoder data=digits` (at most 2.5 A), and, where PyOD can be imported (extra `bench`,
or another interpreter by --pyod), scripts that fit its detectors to the same rows and print an AUROC: less is measured
and nothing is kept by them. Byte code is compiled beforehand for all.

    python tests/benchmarks/first_result.py
"""

from __future__ import annotations

import argparse
import compileall
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import straylight
from straylight.data import Blobs, Digits

PYOD = """
import numpy as np
from pyod.models.{module} import {name}
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
rows = np.load({path!r})
scaler = StandardScaler().fit(rows["train"])
detector = {name}({settings}).fit(scaler.transform(rows["train"]))
print(roc_auc_score(rows["y"], detector.decision_function(scaler.transform(rows["test"]))))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pyod", default=sys.executable, help="an interpreter that has PyOD")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    compileall.compile_dir(Path(straylight.__file__).parent, quiet=2)
    python, command = [sys.executable, "-c"], [sys.executable, "-m", "straylight", "train"]
    commands = {
        "import pytorch_lightning": [*python, "import pytorch_lightning"],
        "detector=knn data=blobs": [*command, "detector=knn", "data=blobs"],
        "detector=autoencoder data=digits": [*command, "detector=autoencoder", "data=digits"],
    }
    if subprocess.run([options.pyod, "-c", "import pyod"], capture_output=True, check=False).returncode == 0:
        commands["import pyod.models.knn"] = [options.pyod, "-c", "import pyod.models.knn"]
        for data, module, name, settings in (
            (Blobs(seed=0), "knn", "KNN", ""),
            (Digits(nominal=0, seed=0), "auto_encoder", "AutoEncoder", "epoch_num=100, verbose=0"),
        ):
            path = folder / f"{module}.npz"
            train, test = data.splits.train, data.splits.test
            rows = {"train": train.x.flatten(1).numpy(), "test": test.x.flatten(1).numpy(), "y": test.y.numpy() > 0}
            np.savez(path, **rows)  # type: ignore[arg-type]
            script = PYOD.format(module=module, name=name, path=str(path), settings=settings)
            commands[f"PyOD's {name}, {data.name}"] = [options.pyod, "-c", script]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(options.rounds + 1):  # the first fills caches and is left out
        for name in list(commands)[:: 1 if number % 2 else -1]:
            took = cpu(commands[name], folder)
            if number:
                seconds[name].append(took)
    base = statistics.median(seconds["import pytorch_lightning"])
    print(f"{'CPU seconds':36}{'median':>8}{'/ A':>7}")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{name:36}{median:8.2f}{median / base:7.2f}")
    print(f"ratio: {statistics.median(seconds['detector=knn data=blobs']) / base:.3g}")


def cpu(command: list[str], folder: Path) -> float:
    """CPU seconds of a process and all that it waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    if ended.returncode:
        sys.exit(f"{' '.join(command)[:200]}\n{ended.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
