"""The benchmark scripts run, check what they compare, and end with the ratio. How large it is no test says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parent / "benchmarks"


SMALL = {
    "sweep.py": ["--jobs", "2"],
    "training_loop.py": ["--rows", "5000"],
    "scoring.py": ["--rows", "5000"],
    "flow.py": ["--rows", "2048", "--epochs", "1", "--seeds", "1"],
    "anogan_search.py": ["--images", "8", "--steps", "20"],
    "detectors.py": ["--rows", "512", "--epochs", "1"],
    "ranking.py": ["--rows", "20000"],
    "figures.py": ["--rows", "20000"],
    "knn.py": ["--rows", "2000"],
    "small_job.py": ["--rows", "200"],
    "adbench.py": ["--seeds", "1", "--detectors", "pca,knn", "--data", "{data}/adbench"],
    "datasets.py": ["--only", "1_", "--data", "{data}"],
    "gpu.py": ["--device", "cpu", "--rows", "1024"],
    "large_data.py": ["--rows", "20000", "--folder", "{data}"],
}


def test_every_benchmark_is_tested() -> None:
    assert {p.name for p in FOLDER.glob("*.py")} == {*SMALL, "interleaved.py", "experiments.py"}  # see test_experiments


@pytest.mark.slow
@pytest.mark.parametrize("script", SMALL)
def test_a_benchmark_ends_with_its_ratio(script, tmp_path) -> None:
    (tmp_path / "adbench").mkdir()
    x = np.random.default_rng(0).normal(size=(200, 4))
    np.savez(tmp_path / "adbench" / "1_small.npz", X=x, y=np.arange(200) >= 180)
    given = [argument.format(data=tmp_path) for argument in SMALL[script]]
    command = [sys.executable, str(FOLDER / script), *given, *([] if script == "adbench.py" else ["--rounds", "1"])]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    unmeasured = "|not measured, PyOD is not installed" if script == "adbench.py" else ""
    assert re.fullmatch(rf"ratio: ([\d.]+{unmeasured})", ended.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_benchmark_says_so_in_a_sentence() -> None:
    ended = subprocess.run([sys.executable, str(FOLDER / "gpu.py")], capture_output=True, text=True)
    assert ended.returncode == 1 and not ended.stdout
    assert ended.stderr.splitlines()[-1].startswith("There is no GPU here; --device cpu")
