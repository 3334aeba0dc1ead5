"""Sweeps as they are asked for: combinations, batches, what cannot be composed, going on, and sweeps that ship."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from crashing import make
from given import OVER_DENSITIES
from straylight.commands.train import main as train
from straylight.folder import SweepFolder
from straylight.groups import FOLDER, choices
from straylight.sweep.lease import leased


@pytest.fixture
def crash(tmp_path, monkeypatch) -> tuple[str, ...]:
    """Arguments that sweep over `detector.how`."""
    monkeypatch.syspath_prepend(tmp_path)
    return ("-m", make(tmp_path), "data=blobs", "detector=crash")


def leaderboard(folder: Path) -> list[dict[str, str]]:
    with (folder / "leaderboard.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# what is run


def test_a_wrong_value_is_refused_before_any_job_runs(straylight_train) -> None:
    ended = straylight_train("-m", "data=blobs", "detector=hbos,nosuch", "seed=0,1")
    assert ended.status == 1 and not ended.results
    assert "There is no detector 'nosuch'" in ended.err and "Traceback" not in ended.err


@pytest.fixture
def choosy(tmp_path) -> str:
    """Brings `detector=choosy`, whose config can be composed with `data=blobs` alone."""
    own = tmp_path / "own"
    (own / "detector").mkdir(parents=True)
    (own / "suits").mkdir()
    (own / "suits" / "blobs.yaml").write_text("# @package _global_\n")
    yaml_of = "# @package detector\ndefaults:\n  - /suits: ${data}\n  - _self_\n"
    (own / "detector" / "choosy.yaml").write_text(f"{yaml_of}_target_: straylight.detectors.PCA\n")
    return f"--config-dir={own}"


def test_a_combination_that_cannot_be_composed_fails_alone_and_is_mended_by_resuming(
    straylight_train, choosy, tmp_path
) -> None:
    here = tmp_path / "sweep"
    ended = straylight_train(
        "-m", choosy, "detector=hbos,choosy", "data=blobs,moons", "seed=3", f"hydra.sweep.dir={here}"
    )
    assert ended.status == 1
    results = SweepFolder(here).results()
    assert len(results) == 4
    (failed,) = [r for r in results if r["status"] == "failed"]
    assert failed["detector"] == "choosy" and failed["data"] == "moons" and "suits" in failed["reason"]
    assert [row["status"] for row in leaderboard(here)].count("failed") == 1
    (tmp_path / "own" / "suits" / "moons.yaml").write_text("# @package _global_\n")
    again = straylight_train(f"resume={here}", "-m")
    assert again.status == 0, again.out + again.err
    assert [r["status"] for r in SweepFolder(here).results()] == ["ok"] * 4, "in the folder that it had"


def test_a_folder_that_cannot_be_named_fails_its_job_alone(straylight_train, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    ended = straylight_train("-m", "data=blobs", "detector=hbos", "seed=0,1", "hydra.sweep.subdir='${nope}'")
    assert ended.status == 1 and [r["status"] for r in ended.results] == ["failed", "failed"]
    assert not (tmp_path / "result.json").exists()


def test_a_point_that_comes_again_in_another_batch_runs_once(straylight_train) -> None:
    ended = straylight_train("-m", "data=blobs", "detector=hbos", "seed=0,1,0", "hydra.sweeper.max_batch_size=2")
    assert ended.status == 0, ended.err
    assert sorted(r["seed"] for r in ended.results) == [0, 1] and "is the same as #0" in ended.out


def test_fail_fast_holds_for_later_batches_and_for_jobs_that_would_be_tried_again(straylight_train, crash) -> None:
    ended = straylight_train(
        *crash, "detector.how=exit,stubborn,none", "hydra.launcher.n_jobs=2", "hydra.launcher.grace_s=1",
        "hydra.launcher.fail_fast=true", "hydra.sweeper.max_batch_size=2",
    )  # fmt: skip
    assert ended.status == 1
    status = {o.partition("=")[2]: r["status"] for r in ended.results for o in r["overrides"] if "how=" in o}
    assert status == {"exit": "failed", "stubborn": "interrupted"}, ended.out


def test_a_job_that_ends_as_if_interrupted_did_not_end_well(straylight_train, crash) -> None:
    ended = straylight_train(*crash, "detector.how=interrupt,none")
    assert ended.status == 1
    assert sorted(r["status"] for r in ended.results) == ["interrupted", "ok"]


def test_what_cannot_be_resolved_is_refused_for_that_job(straylight_train) -> None:
    ended = straylight_train("-m", "data=blobs", "detector=hbos,pca", "+callbacks.ranking.note='${nope}'")
    assert ended.status == 1 and [r["status"] for r in ended.results] == ["failed", "failed"]
    assert all("nope" in r["reason"] for r in ended.results)
    (sweep,) = (ended.folder / "sweeps").iterdir()
    assert len(leaderboard(sweep)) == 2


@pytest.mark.slow
def test_the_process_of_a_sweep_imports_neither_torch_nor_lightning(tmp_path) -> None:
    script = (
        "import sys; from straylight.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print('imported', sorted({'torch', 'pytorch_lightning'} & set(sys.modules)))"
    )
    asked = ["train", "-m", "data=blobs", "detector=hbos", "seed=0,1", "callbacks=numbers"]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *asked], cwd=tmp_path, capture_output=True, text=True
    )
    assert "imported []" in ended.stdout, ended.stdout + ended.stderr
    assert len(SweepFolder(tmp_path / "outputs").results()) == 2


# going on


def test_a_resumed_sweep_has_its_own_points_but_for_what_is_typed(straylight_train, crash, tmp_path) -> None:
    here = tmp_path / "sweep"
    straylight_train(*crash, "detector.how=none,tidy", "seed=0", f"hydra.sweep.dir={here}")
    with pytest.raises(SystemExit):
        train([f"resume={here}", "seed=0,1"])
    assert len(SweepFolder(here).results()) == 2, "nobody trusts the detector's class"
    train([f"resume={here}", "seed=0,1", "hydra.launcher.n_jobs=1", "--trust", "crashing_detector"])  # no --config-dir
    asked = sorted((o, r["seed"]) for r in SweepFolder(here).results() for o in r["overrides"] if "how=" in o)
    assert asked == [(f"detector.how={how}", seed) for how in ("none", "tidy") for seed in (0, 1)]
    again = yaml.safe_load((here / "multirun.yaml").read_text())["hydra"]["overrides"]["task"]
    assert "seed=0,1" in again and "detector.how=none,tidy" in again, "the next time it is known"


def test_a_sweep_is_resumed_from_anywhere(straylight_train, tmp_path, monkeypatch) -> None:
    random = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", X=random.normal(size=(200, 2)), y=np.repeat([0, 1], [180, 20]))
    asked = ("-m", "data=file", "data.path=mine.npz", "data.label=y", "detector=hbos,pca", "hydra.sweep.dir=sweep")
    first = straylight_train(*asked)
    assert first.status == 0, first.err
    (tmp_path / "sweep" / "1" / "result.json").unlink()
    elsewhere = tmp_path / "else" / "where"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    again = straylight_train("resume=../../sweep", "-m")
    assert again.status == 0, again.err
    assert len(SweepFolder(tmp_path / "sweep").results()) == 2 and not list(elsewhere.iterdir())
    assert Path.cwd() == elsewhere and "straylight report" in again.out


@pytest.mark.parametrize("option", [["--config-dir", "../own"], ["--config-dir=../own"], ["-cd", "../own"]])
def test_a_typed_config_folder_is_meant_from_here(straylight_train, crash, tmp_path, monkeypatch, option) -> None:
    here = tmp_path / "sweep"
    straylight_train(*crash, "detector.how=none", "seed=0,1", f"hydra.sweep.dir={here}")
    (here / "1" / "result.json").unlink()
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    again = straylight_train(*option, "-m", f"resume={here}", pictures=False)
    assert again.status == 0, again.err
    assert {0, 1} <= {r["seed"] for r in SweepFolder(here).results()}


def test_a_sweep_that_runs_is_not_resumed(straylight_train, tmp_path) -> None:
    here = tmp_path / "sweep"
    straylight_train("-m", "data=blobs", "detector=hbos", "seed=0,1", f"hydra.sweep.dir={here}")
    before = (here / "multirun.yaml").read_bytes()
    with leased(here, alone=False):
        ended = straylight_train(f"resume={here}", "-m")
    assert ended.status == 1 and f"Error: A sweep is running in {here};" in ended.err
    assert (here / "multirun.yaml").read_bytes() == before


def test_a_new_sweep_into_a_folder_touches_no_job_that_is_there(straylight_train, tmp_path) -> None:
    here = tmp_path / "sweep"
    asked = ("-m", "data=blobs", "detector=hbos", "seed=0,1", f"hydra.sweep.dir={here}")
    straylight_train(*asked)
    before = {path: path.read_bytes() for path in here.glob("*/result.json")}
    straylight_train(*asked)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert sorted(p.name for p in here.iterdir() if p.is_dir()) == [".sweeps", "0", "1", "2", "3"]


def test_an_unreadable_config_of_a_killed_job_does_not_keep_a_sweep_from_going_on(straylight_train, tmp_path) -> None:
    here = tmp_path / "sweep"
    straylight_train("-m", "data=blobs", "detector=hbos", "seed=0,1", f"hydra.sweep.dir={here}")
    (here / "1" / "result.json").unlink()
    (here / "1" / ".hydra" / "config.yaml").write_text("seed: [1")
    ended = straylight_train(f"resume={here}", "-m")
    assert ended.status == 0, ended.err
    assert sorted(r["seed"] for r in SweepFolder(here).results()) == [0, 1]


def test_other_launchers_do_not_resume(straylight_train, tmp_path) -> None:
    here = tmp_path / "sweep"
    straylight_train("-m", "data=blobs", "detector=hbos", "seed=0,1", f"hydra.sweep.dir={here}")
    before = [json.loads(p.read_text()) for p in sorted(here.glob("*/result.json"))]
    ended = straylight_train("-m", f"resume={here}", "hydra/launcher=basic")
    assert ended.status == 1 and "hydra/launcher=local, slurm or ray" in ended.err
    assert [json.loads(p.read_text()) for p in sorted(here.glob("*/result.json"))] == before


# sweeps that ship

SWEEPS = [name for name in choices("experiment") if name.startswith("sweep/")]


def config_of(name: str) -> dict:
    return yaml.safe_load((FOLDER / "experiment" / f"{name}.yaml").read_text())


def test_these_sweeps_ship() -> None:
    images, others = (
        ["digits", "digits_contaminated", "mnist_one_class", "mnist_ruff"],
        ["adbench", "adc2021_pareto", "bump", "moons"],
    )
    assert sorted(f"sweep/{name}" for name in [*images, *others, "house_prices_contamination"]) == SWEEPS


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_that_ships_names_detectors_that_exist(name) -> None:
    asked = config_of(name)["hydra"]["sweeper"]["params"]["detector"].split(",")
    assert len(set(asked)) == len(asked) and set(asked) <= set(choices("detector"))


def test_the_config_of_a_sweep_that_ships_can_be_looked_at(straylight_train) -> None:
    ended = straylight_train("experiment=sweep/digits", "--cfg", "job", pictures=False)
    assert ended.status == 0 and "straylight.data.Digits" in ended.out and not ended.results


def test_a_sweep_that_does_not_ship_is_told_from_those_that_do(straylight_train) -> None:
    ended = straylight_train("experiment=sweep/digit", pictures=False)
    assert ended.status == 1
    assert "There is no experiment 'sweep/digit' (did you mean 'sweep/digits'?)" in ended.err
    assert "sweep/moons" in ended.err and "vae_blobs" in ended.err


IMAGES, PARTICLES = {"autoencoder_conv", "vae_conv"}, {"sum_pt", "multiplicity"}


@pytest.mark.parametrize(
    "name, unfit", [("adbench", IMAGES | PARTICLES), ("moons", IMAGES | PARTICLES), ("digits_contaminated", PARTICLES)]
)
def test_every_detector_that_fits_the_data_is_swept_over(name, unfit) -> None:
    asked = config_of(f"sweep/{name}")["hydra"]["sweeper"]["params"]["detector"].split(",")
    assert set(asked) == set(choices("detector")) - unfit - OVER_DENSITIES - {"external"}  # which is of another library


def test_the_sweep_over_adbench_takes_what_is_present_and_may_be_narrowed(straylight_train, tmp_path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "data" / "adbench").mkdir(parents=True)
    for name in ("2_two", "10_ten"):
        x = np.r_[random.normal(size=(300, 3)), random.normal(4, 1, (20, 3))]
        np.savez(tmp_path / "data" / "adbench" / f"{name}.npz", X=x, y=np.repeat([0, 1], [300, 20]))
    ended = straylight_train("experiment=sweep/adbench", "detector=hbos,vae,knn", "seed=0,1", pictures=False)
    assert ended.status == 0, ended.err
    ran = sorted((r["detector"], r["data"], r["seed"]) for r in ended.results)
    assert ran == [(d, s, n) for d in ("hbos", "knn", "vae") for s in ("10_ten", "2_two") for n in (0, 1)]
    (sweep,) = (ended.folder / "sweeps").iterdir()
    assert "average ranks only" in ended.out and (sweep / "ranks.png").is_file()
    assert {row["seeds"] for row in leaderboard(sweep)} == {"2"}


def test_the_sweep_over_digits_compares_detectors_over_ten_data_sets(straylight_train) -> None:
    ended = straylight_train("experiment=sweep/digits", "detector=hbos,pca,knn", "seed=0", pictures=False)
    assert ended.status == 0, ended.err
    assert {r["data"] for r in ended.results} == {f"digits_{digit}" for digit in range(10)}
    assert "10 data sets" in ended.out and ("Friedman" in ended.out)
    first = {p.name: p.read_bytes() for p in next((ended.folder / "sweeps").iterdir()).iterdir() if p.is_file()}
    from straylight.report.page import report

    (sweep,) = (ended.folder / "sweeps").iterdir()
    report(sweep)
    os.chdir(sweep)
    report(Path())
    assert {p.name: p.read_bytes() for p in sweep.iterdir() if p.is_file()} == first, "a second report changes nothing"
