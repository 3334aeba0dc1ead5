"""Hydra's own options, and those of a run that is gone on with: they work, or are refused by name in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from straylight.folder import RunFolder

LEAN = ["data=blobs", "detector=hbos", "callbacks=numbers", "logger=none"]


def sentence(ended) -> str:
    (said,) = (line for line in ended.err.splitlines() if line.strip())
    assert ended.status == 1 and said.startswith("Error: ") and said.endswith(".")
    return said


# a sweep of nothing


@pytest.mark.parametrize(
    ("nothing", "word"),
    [("detector=glob(zz*)", "autoencoder"), ("data=glob([q*,zz*])", "blobs"), ("seed=range(3,3)", "seed=range(3,3)")],
)
def test_a_sweep_without_a_job_is_an_error_and_leaves_no_folder(nothing, word, straylight_train) -> None:
    ended = straylight_train("-m", "data=blobs", "detector=hbos", nothing, pictures=False)
    said = sentence(ended)
    assert nothing in said and word in said and not list(ended.folder.rglob("*"))


def test_a_sweep_is_not_resumed_with_nothing(sent_sweep, straylight_train) -> None:
    before = sorted(path for path in sent_sweep.path.rglob("*"))
    assert "stands for no value" in sentence(
        straylight_train("-m", f"resume={sent_sweep.path}", "detector=glob(zz*)", pictures=False)
    )
    assert sorted(path for path in sent_sweep.path.rglob("*")) == before


# Hydra's own


@pytest.mark.parametrize("subdir", ["null", ".hydra", "own"])
def test_whatever_hydra_keeps_beside_the_run_is_whole_and_can_be_resumed(subdir, straylight_train) -> None:
    ended = straylight_train(*LEAN, "detector=autoencoder", f"hydra.output_subdir={subdir}", epochs=1, pictures=False)
    assert ended.status == 0, ended.err
    run = RunFolder(ended.run)
    assert run.config.is_file() and run.hydra.is_file() and run.overrides.is_file()
    again = straylight_train(f"resume={run}", "trainer.max_epochs=2")
    assert again.status == 0 and again.result["epochs"] == 2, again.err


def test_a_run_that_works_in_its_own_folder_reads_and_names_what_was_typed_elsewhere(
    straylight_train, tmp_path, monkeypatch
) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 3))
    np.savez(tmp_path / "rows.npz", x=rows, y=np.arange(200) % 5 == 0)
    own = ["data=file", "data.path=rows.npz", "data.label=y", "paths.output=there", "hydra.job.chdir=true"]
    ended = straylight_train(*LEAN, "detector=autoencoder", *own, epochs=1, pictures=False)
    assert ended.status == 0, ended.err
    assert Path.cwd() == tmp_path
    (result,) = (tmp_path / "there").rglob("result.json")
    shown = str(result.parent.relative_to(tmp_path))
    assert f"Folder: {shown}\n" in ended.out and f"straylight report {shown}" in ended.out
    monkeypatch.chdir("/")
    again = straylight_train(f"resume={result.parent}", "trainer.max_epochs=2")
    assert again.status == 0 and RunFolder(result.parent).read()["epochs"] == 2, again.err


@pytest.mark.parametrize("option", ["hydra.job.chdir=true", "hydra.output_subdir=own"])
def test_a_sweep_and_its_resumption_take_them_too(option, straylight_train) -> None:
    ended = straylight_train("-m", *LEAN, "seed=0,1", option, pictures=False)
    assert ended.status == 0 and [r["status"] for r in ended.results] == ["ok", "ok"], ended.err
    (sweep,) = (ended.folder / "sweeps").iterdir()
    again = straylight_train("-m", f"resume={sweep}", "seed=0,1,2", option, pictures=False)
    assert again.status == 0 and len(again.results) == 3, again.err


@pytest.mark.parametrize(
    "option",
    ["hydra.job.chdir=true", "hydra.output_subdir=null", "hydra.run.dir=else", "seed=3", "~logger.tensorboard"],
)
def test_a_run_is_not_resumed_with_what_it_was_started_with(option, sent, straylight_train) -> None:
    before = sent.result.read_bytes()
    assert repr(option) in sentence(straylight_train(f"resume={sent}", option))
    assert sent.result.read_bytes() == before


@pytest.mark.parametrize("choice", ["trainer=fast", "callbacks=numbers"])
def test_of_the_rest_values_are_changed_and_not_the_choice(choice, sent, straylight_train) -> None:
    said = sentence(straylight_train(f"resume={sent}", choice))
    assert repr(choice) in said and f"its own {choice.partition('=')[0]}" in said


@pytest.mark.parametrize(
    ("logger", "left"), [("csv", {"csv"}), ("both", {"csv", "events"}), ("tensorboard", {"events"}), ("none", set())]
)
def test_a_run_is_resumed_with_another_logger(logger, left, sent, straylight_train) -> None:
    ended = straylight_train(f"resume={sent}", f"logger={logger}", "trainer.max_epochs=3")
    assert ended.status == 0 and sent.read()["epochs"] == 3, ended.err
    there = {"csv": (sent.path / "csv").is_dir(), "events": bool(sent.events())}
    assert {name for name, found in there.items() if found} == left
    again = straylight_train(f"resume={sent}", "trainer.max_epochs=4")  # which its config says from then on
    assert again.status == 0, again.err
    if "csv" in left:  # and writes behind what it wrote before
        head, *lines = (sent.path / "csv" / "metrics.csv").read_text().splitlines()
        epochs = [line.split(",")[head.split(",").index("epoch")] for line in lines]
        assert {epoch for epoch in epochs if epoch} == {"2", "3"}


def test_a_logger_that_there_is_not_is_answered_with_the_choices(sent, straylight_train) -> None:
    said = sentence(straylight_train(f"resume={sent}", "logger=cvs", "trainer.max_epochs=3"))
    assert "'csv'" in said and "tensorboard" in said


@pytest.mark.parametrize("option", ["+trainer.limit_test_batches=1", "+trainer.max_steps=9"])
def test_a_run_is_resumed_with_an_option_of_the_trainer_that_it_had_not(option, sent, straylight_train) -> None:
    ended = straylight_train(f"resume={sent}", option, "trainer.max_epochs=4")
    assert ended.status == 0, ended.err
    assert sent.read()["steps"] == 9 if "steps" in option else any("drawn" in n for n in sent.read()["notices"])


def test_an_option_of_the_trainer_that_there_is_not_is_no_option_of_a_resumption_either(sent, straylight_train) -> None:
    assert "'trainer.max_steeps'" in sentence(straylight_train(f"resume={sent}", "+trainer.max_steeps=9"))
