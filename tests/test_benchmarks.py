"""The benchmark scripts run, check what they compare, and end with the ratio. How large it is no test says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize("script", ["training_loop.py", "scoring.py"])
def test_a_benchmark_ends_with_its_ratio(script) -> None:
    command = [sys.executable, str(FOLDER / script), "--rows", "5000", "--rounds", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"ratio: \d+\.\d\d", ended.stdout.splitlines()[-1])
