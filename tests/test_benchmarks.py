"""The benchmark scripts run, check what they compare, and end with the ratio. How large it is no test says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"


SMALL = {
    "training_loop.py": ["--rows", "5000"],
    "scoring.py": ["--rows", "5000"],
    "flow.py": ["--rows", "2048", "--epochs", "1", "--seeds", "1"],
    "anogan_search.py": ["--images", "8", "--steps", "20"],
    "detectors.py": ["--rows", "512", "--epochs", "1"],
}


def test_every_benchmark_is_tested() -> None:
    assert {p.name for p in FOLDER.glob("*.py")} == {*SMALL, "interleaved.py"}


@pytest.mark.slow
@pytest.mark.parametrize("script", SMALL)
def test_a_benchmark_ends_with_its_ratio(script) -> None:
    command = [sys.executable, str(FOLDER / script), *SMALL[script], "--rounds", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"ratio: [\d.]+", ended.stdout.splitlines()[-1])
