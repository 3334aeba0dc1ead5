"""The command line itself: quick, readable, and the same from everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from straylight import __version__
from straylight.groups import GROUPS, choices

ROOT = Path(__file__).parents[1]


def straylight(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "straylight", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_the_commands(arguments) -> None:
    ended = straylight(*arguments)
    assert ended.returncode == 0 and "train" in ended.stdout
    assert "detectors [NAME]" in ended.stdout and "report FOLDER" in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80


def test_help_of_train_lists_every_choice_also_the_users_own(tmp_path) -> None:
    (tmp_path / "detector").mkdir()
    (tmp_path / "detector" / "mine.yaml").write_text("_target_: mine.Mine\n")
    ended = straylight("train", "--config-dir", str(tmp_path), "--help")
    assert ended.returncode == 0 and "mine" in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80 and "conf/" not in ended.stdout
    shown = re.sub(r"\n {3,}", " ", ended.stdout)
    for group in GROUPS:
        for name in choices(group):
            assert re.search(rf"^  {group} .*\b{re.escape(name)}\b", shown, re.M), (group, name)


def test_help_of_report_says_what_it_writes() -> None:
    ended = straylight("report", "--help")
    assert ended.returncode == 0 and "leaderboard.csv" in ended.stdout


def test_the_version_is_the_packages() -> None:
    assert straylight("--version").stdout.strip() == f"straylight {__version__}"
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_an_unknown_command_is_answered_with_the_known_ones() -> None:
    ended = straylight("trian")
    assert ended.returncode == 2 and "'trian'" in ended.stderr and "train" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "module", ["straylight", "straylight.cli", "straylight.groups", "straylight.catalogue", "straylight.report.page"]
)
def test_nothing_heavy_is_imported_before_it_is_needed(module) -> None:
    code = f"import sys, {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"torch", "pytorch_lightning", "hydra", "sklearn", "pandas"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong", ["detector=vea", "detectr=vae", "detector.latnt=3", "--detector=vae", "detector=vae,knn", "data=blobs vae"]
)
def test_wrong_names_are_refused_before_anything_heavy_is_imported(wrong, tmp_path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "straylight", "train", *wrong.split()]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.stderr.splitlines() if "|" in line}
    assert ended.returncode == 1 and "Error: " in ended.stderr.splitlines()[-1], ended.stderr
    assert "hydra" in loaded and not loaded & {"torch", "pytorch_lightning", "sklearn", "scipy", "matplotlib", "numpy"}
    assert not list(tmp_path.iterdir())


def test_every_config_has_a_head_that_says_what_it_is() -> None:
    silent = {"data/base", "callbacks/default", "logger/tensorboard", "logger/csv", "logger/both", "logger/none"}
    for path in (ROOT / "conf").rglob("*.yaml"):
        name = str(path.relative_to(ROOT / "conf").with_suffix(""))
        assert name in silent or path.read_text().startswith("# "), name


def test_every_class_is_exported_by_its_papers_name() -> None:
    import straylight.data
    import straylight.detectors

    assert {"AutoEncoder", "VAE", "MAF", "KNN", "IsolationForest"} <= set(dir(straylight.detectors))
    assert {"Digits", "Blobs", "Gaussians", "ADBench", "MNIST"} <= set(dir(straylight.data))
