"""Run folders: whole files or none, records that are odd, and nothing of one run taken for another's."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from straylight.atomic import replacing, write_json
from straylight.commands.report import main as report
from straylight.documents import read_yaml
from straylight.errors import ConfigError
from straylight.folder import RunFolder, SweepFolder
from straylight.result import SOUND, odd
from straylight.run import Run

SOURCE = Path(__file__).parents[1] / "src"
SOUND_ONE = {
    "status": "ok",
    "reason": None,
    "detector": "vae",
    "data": "digits",
    "seed": 0,
    "overrides": ["detector=vae"],
    "metrics": {"test/auroc": 0.9, "test/ap": 0.8, "test/nominal_above@fpr=0.1": 50, "test/tpr@fpr=0.1": 0.5},
    "intervals": {"test/auroc": [0.8, 0.95]},
    "latency": [{"batch": 1, "runtime": "eager", "p50_us": 3.0}],
    "thresholds": [{"rule": "fpr", "asked": {"fpr": 0.01}, "value": 3.0}],
    "notices": ["a"],
    "parameters": 3,
    "duration_s": 1.0,
}
#: Another value for a field than one that a run writes.
ODD = {
    "status": [None, 3, "well", ["ok"]],
    "reason": [3, ["x"]],
    "detector": [3, {}],
    "data": [[]],
    "seed": ["0", 1.5, True],
    "overrides": [None, "detector=vae", [1], {"a": "b"}],
    "command": [None, 3],
    "config_hash": [3],
    "variant": [[]],
    "metrics": [None, [], "0.9", {"test/auroc": "0.9"}, {"test/auroc": [0.9]}, {"test/auroc": True}],
    "criteria": [None, [], "0.9", {"val/loss": "0.9"}, {"val/loss": [0.9]}, {"val/loss": True}],
    "criteria_intervals": [None, {"val/loss": 0.9}, {"val/loss": [0.1]}, {"val/loss": [0.1, "x"]}],
    "criteria_none": [None, [], {"val/nll": 1}, {"val/nll": None}],
    "objective": [None, "val/loss", [1]],
    "intervals": [None, {"test/auroc": 0.9}, {"test/auroc": [0.1]}, {"test/auroc": [0.1, "x"]}],
    "interval_level": [None, "95"],
    "nominal_needed": [{"0.1": "x"}],
    "latency": [
        None,
        {},
        [3],
        [{}],
        [{"batch": 1, "runtime": "eager"}],
        [{"batch": "1", "runtime": "eager", "p50_us": 1}],
    ],
    "cost": [[], "much"],
    "thresholds": [None, [{}], [{"rule": "fpr"}], [{"rule": "fpr", "asked": None, "value": 1}]],
    "by_epoch": [[{}], [{"epoch": "one"}]],
    "losses": [[], {"train/loss": 1.0}, {"train/loss": [1.0]}, {"train/loss": [[1, "2"]]}, {"train/loss": [[1]]}],
    "density": ["high"],
    "bump": [[], {"cuts": [{}]}, {"sculpting": [{}]}, {"resonance": 3}],
    "truth": [None, "yes"],
    "figures": [None, "roc", [1]],
    "figures_none": [None, {"roc": 1}],
    "notices": ["a", [1]],
    "contamination": ["0.1"],
    "checkpoint": [None, 3],
    "parameters": ["3", []],
    "duration_s": ["1 s", []],
    "device": [0],
    "digests": [[], {"scores.parquet": 3}],
    "ranged": ["seed", [1]],
    "run": [3],
}


def test_every_field_that_is_looked_at_is_tried() -> None:
    assert set(ODD) == {"status", *SOUND} and odd(SOUND_ONE) is None


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in ODD.items() for v in values])
@pytest.mark.parametrize("details", [False, True])
def test_an_odd_record_is_a_failed_row_with_its_reason_and_costs_no_other(
    field, value, details, tmp_path, capfd
) -> None:
    for name, record in (("0", SOUND_ONE), ("1", {**SOUND_ONE, "seed": 1, field: value})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(record))
    found = RunFolder(tmp_path / "1").read()
    assert found is not None and found["status"] == "failed" and field in found["reason"]
    report([str(tmp_path / "1"), *(["--details"] if details else [])] if details else [str(tmp_path)])
    out, err = capfd.readouterr()
    assert field in out and not err
    if not details:
        assert "0.9000" in out, "the other one is there"


@pytest.mark.parametrize("content", ["{", "[]", "3", '"ok"', "null", "\x00", "[" * 10_000])
def test_a_record_that_is_none_is_a_failed_run(content, tmp_path) -> None:
    (tmp_path / "result.json").write_text(content)
    found = RunFolder(tmp_path).read()
    assert found is not None and found["status"] == "failed" and str(tmp_path) in found["reason"]


# writing


class Broken(Exception):
    """In the middle of writing."""


@pytest.mark.parametrize("there", [None, "before"])
def test_a_file_that_could_not_be_written_whole_is_as_it_was(there, tmp_path) -> None:
    path = tmp_path / "it.txt"
    if there:
        path.write_text(there)
    with pytest.raises(Broken), replacing(path) as aside:
        aside.write_text("half")
        raise Broken
    assert [p.read_text() for p in tmp_path.iterdir()] == ([there] if there else [])


def test_a_record_is_whole_at_every_moment_of_its_writing(tmp_path, monkeypatch) -> None:
    folder = RunFolder(tmp_path)
    folder.write_result(SOUND_ONE)
    seen = []
    really = os.fsync

    def looking(number: int) -> None:
        seen.append(json.loads(folder.result.read_text())["seed"])  # a reader at the worst moment
        really(number)

    monkeypatch.setattr(os, "fsync", looking)
    folder.write_result({**SOUND_ONE, "seed": 7, "notices": ["x" * 100_000]})
    assert seen == [0] and folder.read()["seed"] == 7
    monkeypatch.setattr(Path, "replace", lambda self, to: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        folder.write_result({**SOUND_ONE, "seed": 8})
    assert folder.read()["seed"] == 7 and [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_what_json_lacks_becomes_null(tmp_path) -> None:
    write_json(tmp_path / "x.json", {"a": [float("nan"), {"b": float("inf")}], 3: (1, 2)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, {"b": None}], "3": [1, 2]}


def _report_often(folder: str, times: int) -> None:
    for _ in range(times):
        report([folder])


def test_reports_at_once_on_one_folder_all_succeed(tmp_path) -> None:
    for seed in range(3):
        RunFolder(tmp_path / str(seed)).write_result({**SOUND_ONE, "seed": seed})
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=_report_often, args=(str(tmp_path), 5)) for _ in range(3)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0] * 3
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert (tmp_path / "leaderboard.csv").read_text().count("\n") == 2


# names


def test_the_names_of_a_runs_files_stand_in_one_module_alone() -> None:
    names = re.compile(
        r"""["'/](result\.json|shape\.json|job\.json|scores\.parquet|calibration\.parquet|runs\.parquet|"""
        r"""(best|last|interrupt)(\.ckpt)|leaderboard\.csv|multirun\.yaml)["']"""
    )
    knowing = {path.name for path in SOURCE.rglob("*.py") if names.search(path.read_text())}
    assert knowing == {"folder.py"}


def test_files_are_replaced_in_one_module_alone() -> None:
    aside = re.compile(r"os\.replace|\.replace\(\s*(self\.)?(path|folder)\b|temporary\.replace")
    knowing = {path.name for path in SOURCE.rglob("*.py") if aside.search(path.read_text())}
    assert knowing <= {"atomic.py", "folder.py", "stored.py"}  # puts whole files back; moves what a library has fetched


# one run after another in one folder


@pytest.fixture
def twice(straylight_train, tmp_path):
    """Runs with the given arguments, one after the other in the same folder."""
    here = tmp_path / "here"

    def run(*commands: tuple[str, ...]):
        for command in commands:
            ended = straylight_train("data=blobs", f"hydra.run.dir={here}", *command, pictures=False)
        return here, ended

    return run


LOUD = (
    "detector=vae",
    "callbacks=results_hdf5",
    "callbacks.figures.only=[scores]",
    "logger=both",
    "trainer.max_epochs=1",
)


@pytest.mark.parametrize(
    "second",
    [
        ("detector=pca", "logger=none", "callbacks.thresholds=null", "callbacks.figures=null"),
        ("detector=knn", "detector.k=9999", "logger=none"),
    ],
    ids=["another", "one that fails"],
)
def test_no_file_of_an_earlier_run_survives_in_its_folder(second, twice) -> None:
    here, _ = twice(LOUD)
    before = {p.relative_to(here): p.stat().st_mtime_ns for p in here.rglob("*") if p.is_file()}
    assert len(before) > 10
    twice(second)
    now = {p.relative_to(here): p.stat().st_mtime_ns for p in here.rglob("*") if p.is_file()}
    assert not [str(path) for path, when in now.items() if before.get(path) == when]
    assert "vae" not in (here / "train.log").read_text()


def test_all_files_of_a_run_bear_its_id(twice) -> None:
    import pyarrow.parquet as pq
    import torch
    from PIL import Image

    here, _ = twice(LOUD)
    run = json.loads((here / "job.json").read_text())["run"]
    found = {p.name: json.loads(p.read_text())["run"] for p in (here / "result.json", here / "shape.json")}
    for name in ("scores.parquet", "calibration.parquet"):
        found[name] = pq.read_schema(here / name).metadata[b"straylight.run"].decode()
    for path in (here / "checkpoints").iterdir():
        found[path.name] = torch.load(path, weights_only=True)["run"]
    with Image.open(here / "figures" / "scores.png") as picture:
        found["scores.png"] = picture.info["Run"]
    assert set(found.values()) == {run} and len(found) == 7


@pytest.mark.parametrize("name", ["calibration.parquet", "shape.json", "checkpoints/best.ckpt"])
def test_a_file_of_another_run_is_refused(name, straylight_train, tmp_path) -> None:
    for where in ("one", "other"):
        straylight_train("data=blobs", "detector=vae", f"hydra.run.dir={tmp_path / where}", epochs=1)
    (tmp_path / "one" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(ConfigError, match="is of another run"):
        Run.open(tmp_path / "one").p_values(np.zeros((2, 2)))


def test_a_folder_that_no_run_has_been_in_is_left_alone(straylight_train, tmp_path) -> None:
    (tmp_path / "mine" / "figures").mkdir(parents=True)
    (tmp_path / "mine" / "figures" / "holiday.png").write_bytes(b"mine")
    straylight_train("data=blobs", "detector=pca", f"hydra.run.dir={tmp_path / 'mine'}")
    assert (tmp_path / "mine" / "figures" / "holiday.png").read_bytes() == b"mine"


def test_runs_are_found_without_looking_into_what_runs_keep(tmp_path) -> None:
    for name in ("10", "9", "deep/er/1"):
        RunFolder(tmp_path / name).write_result(SOUND_ONE)
        (tmp_path / name / "checkpoints").mkdir()
        (tmp_path / name / "checkpoints" / "result.json").write_text("{}")
    assert [Path(r["folder"]).name for r in SweepFolder(tmp_path).results()] == ["9", "10", "1"]


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [1.0, 1e-3, .inf, ~, 'x', \"y\"]\nc: {d: {}, e: []}",
        "a: |\n  two\n  lines\nb: one\n  line\n'1': '2'\n1: 2\nnull: 010\n2.5: 0x1f",
        "yes: on\nwhen: 2024-01-31\nthen: 2024-01-31 10:00:00\nclock: 12:30:00\nnot: 'yes'",
        "a: 1\na: 2",
        "",
        "# nothing",
        "--- \n...",
        "word",
        "- 1\n- - 2\n  - {a: b}",
        "a: !!str 1\nb: !!int '3'\nc: ! d",
        "!!set {a, b}",
        "<<: {a: 1}\nb: 2",
        "a: =",
        "? [1, 2]\n: 3",
        "{a: 1}: 2",
        "a: 1\n---\nb: 2",
        "a: 2024-99-99",
        "a: !!python/object:os.system x",
        "a: [1",
    ],
)
def test_yaml_says_what_its_own_constructor_says(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    try:
        said = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        with pytest.raises(ValueError):
            read_yaml(path)
    else:
        assert repr(read_yaml(path)) == repr(said)
