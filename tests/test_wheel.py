"""The wheel brings its configs and works outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_an_installed_wheel_trains_outside_the_checkout(tmp_path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    source = {f"straylight/conf/{p.relative_to(ROOT / 'conf')}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert source <= set(names) and not any(name.startswith(("tests/", "notebooks/")) for name in names)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(tmp_path / "site"), str(wheel)], check=True, capture_output=True)
    (tmp_path / "elsewhere").mkdir()
    code = "import sys, straylight.cli; print(straylight.__file__); straylight.cli.main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "train", "data=blobs", "detector=knn", "callbacks.latency.budget_s=0.01"],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(str(tmp_path / "site"))
    (result,) = (tmp_path / "elsewhere" / "outputs" / "runs").glob("*/result.json")
    assert json.loads(result.read_text())["status"] == "ok"
