"""What is typed out of habit: it means here what it means elsewhere, or is refused by its name here."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from straylight import habits
from straylight.callbacks import EarlyStopping
from straylight.errors import ConfigError
from straylight.folder import RunFolder

REFUSED = [
    (["+trainer.gradient_clip_val=0.5"], "set optimizer.clip=0.5."),
    (["+trainer.gradient_clip_algorithm=value"], "optimizer.clip is the largest norm"),
    (["+trainer.accumulate_grad_batches=4", "data.batch_size=16"], "set data.batch_size=64, not 16."),
    (["trainer.precision=16-true"], "set trainer.precision=16-mixed."),
    (["trainer.precision=bf16-true"], "set trainer.precision=bf16-mixed."),
    (["trainer.num_nodes=2"], "torchrun"),
    (["callbacks=early_stopping", "data.val_fraction=0"], "data.val_fraction=0 leaves no validation"),
    (["callbacks=early_stopping", "data.protocol=unsupervised"], "data.protocol=unsupervised leaves no validation"),
    (["callbacks=early_stopping", "data.protocol=dte"], "data.protocol=dte leaves no validation"),
    (["callbacks=early_stopping", "+trainer.limit_val_batches=0"], "trainer.limit_val_batches=0 leaves no validation"),
    (["callbacks=early_stopping", "trainer.check_val_every_n_epoch=5"], "at most trainer.max_epochs=2"),
    (["+trainer.logger=false"], "logger=tensorboard, csv"),
    (["+trainer.callbacks=[]"], "callbacks.NAME"),
    (["+trainer.enable_checkpointing=false"], "callbacks.checkpoint=null"),
    (["+trainer.default_root_dir=here"], "hydra.run.dir"),
]


def sentence(ended) -> str:
    (said,) = (line for line in ended.err.splitlines() if line.strip())
    assert ended.status == 1 and said.startswith("Error: ") and said.endswith(".")
    return said


@pytest.mark.parametrize(("overrides", "words"), REFUSED, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_a_habit_is_answered_with_its_name_here_before_there_is_a_run(overrides, words, straylight_train) -> None:
    ended = straylight_train("data=digits", "paths.data=nowhere", *overrides)
    assert words in sentence(ended)
    assert not list(ended.folder.rglob("*/*"))  # no run's folder


@pytest.mark.parametrize("overrides", [overrides for overrides, _ in REFUSED[::4]])
def test_a_sweep_is_refused_for_it_before_its_first_job(overrides, straylight_train) -> None:
    ended = straylight_train("-m", "seed=0,1", "data=blobs", *overrides)
    assert {tuple(given): words for given, words in REFUSED}[tuple(overrides)] in sentence(ended)
    assert not list(ended.folder.rglob("*/*"))


@pytest.mark.parametrize("subdir", ["null", ".hydra", "own"])
def test_a_refusal_leaves_alone_what_lay_in_its_folder(subdir, straylight_train, tmp_path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "notes.txt").write_text("mine")
    here = [f"hydra.run.dir={tmp_path / 'here'}", f"hydra.output_subdir={subdir}"]
    sentence(straylight_train("data=blobs", "+trainer.gradient_clip_val=1", *here))
    assert [path.name for path in (tmp_path / "here").rglob("*")] == ["notes.txt"]


def test_a_refusal_leaves_alone_the_run_in_its_folder(sent, straylight_train) -> None:
    before = sent.result.read_bytes(), sent.config.read_bytes()
    sentence(straylight_train("data=blobs", "+trainer.gradient_clip_val=1", f"hydra.run.dir={sent}"))
    assert (sent.result.read_bytes(), sent.config.read_bytes()) == before


@pytest.mark.parametrize("habit", ["trainer.precision=16-true", "trainer.gradient_clip_val=1"])
def test_a_run_is_not_resumed_with_it(habit, sent, straylight_train) -> None:
    before = sent.result.read_bytes()
    sentence(straylight_train(f"resume={sent}", habit))
    assert sent.result.read_bytes() == before


@pytest.mark.parametrize(
    "overrides",
    [
        ["+trainer.gradient_clip_val=null"],
        ["+trainer.gradient_clip_val=0", "optimizer.clip=1.0", "+trainer.gradient_clip_algorithm=norm"],
        ["+trainer.accumulate_grad_batches=1"],
        ["trainer.precision=64-true"],
        ["trainer.precision=bf16-mixed"],
        ["trainer.num_nodes=1"],
        ["+trainer.enable_progress_bar=false", "+trainer.deterministic=true"],
        ["callbacks=early_stopping", "callbacks.early_stopping.monitor=train/loss", "data.val_fraction=0"],
        ["callbacks=early_stopping", "trainer.check_val_every_n_epoch=2"],
    ],
    ids=" ".join,
)
def test_what_works_is_left_to_work(overrides, straylight_train) -> None:
    lean = [o for o in overrides if o.partition("=")[0].lstrip("+") != "trainer.enable_progress_bar"]
    ended = straylight_train("data=blobs", "callbacks.figures=null", "logger=none", *lean, epochs=2)
    assert ended.status == 0 and ended.result["metrics"]["test/auroc"] > 0.9, ended.err


def test_a_config_of_several_machines_is_read_on_one() -> None:
    habits.refuse({"trainer": {"num_nodes": 2}})  # as of a run that is opened to score


def test_a_batch_size_that_nobody_knows_is_not_multiplied() -> None:
    with pytest.raises(ConfigError, match="to as many times as many rows"):
        habits.refuse({"trainer": {"accumulate_grad_batches": 2}, "data": {}})


def test_a_logging_interval_says_what_it_does_not_change(straylight_train) -> None:
    ended = straylight_train("data=blobs", "trainer.log_every_n_steps=50")
    assert ended.status == 0 and "smaller than the logging interval" not in ended.err
    assert any("once an epoch" in notice for notice in ended.result["notices"])


# early stopping

STOPPING = ["data=blobs", "callbacks=early_stopping", "callbacks.early_stopping.patience=2"]
STOPPING += ["+callbacks.early_stopping.min_delta=1e9", "callbacks.figures=null", "logger=none"]  # nothing is better


def stopped(straylight_train) -> Path:
    ended = straylight_train(*STOPPING, epochs=20)
    assert ended.status == 0 and ended.result["epochs"] == 3 and ended.result["stopped_early"], ended.err
    return ended.run


def test_a_run_ended_by_early_stopping_is_not_made_longer_by_more_epochs_alone(straylight_train) -> None:
    run = stopped(straylight_train)
    said = sentence(straylight_train(f"resume={run}", "trainer.max_epochs=50"))
    assert "callbacks.early_stopping.patience" in said and "callbacks.early_stopping=null" in said
    assert RunFolder(run).read()["epochs"] == 3


@pytest.mark.parametrize(
    ("typed", "epochs"),
    [
        (["callbacks.early_stopping.patience=4", "trainer.max_epochs=50"], 5),
        (["callbacks.early_stopping=null", "trainer.max_epochs=6"], 6),
        (["callbacks.early_stopping.patience=4"], 5),
        (["callbacks.latency.budget_s=0.02"], 3),  # tested again, not trained
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_it_goes_on_with_more_patience_or_without_and_stands_otherwise(typed, epochs, straylight_train) -> None:
    run = stopped(straylight_train)
    ended = straylight_train(f"resume={run}", *typed)
    assert ended.status == 0, ended.err
    assert ended.result["epochs"] == epochs


@pytest.mark.parametrize("monitor", ["val_loss", "loss"])
def test_a_measure_that_there_is_not_is_answered_with_those_that_there_are(monitor, straylight_train) -> None:
    ended = straylight_train(*STOPPING, f"callbacks.early_stopping.monitor={monitor}")
    said = sentence(ended)
    assert f"monitor={monitor} is not measured" in said and "val/loss" in said and "train/loss" in said


def test_without_rows_of_validation_it_says_that_it_does_not_wait(straylight_train, tmp_path, monkeypatch) -> None:
    (tmp_path / "bare.py").write_text(
        "import torch\nfrom straylight.batch import Events, Splits\nfrom straylight.data import AnomalyDataModule\n\n\n"
        "class Bare(AnomalyDataModule):\n"
        "    def load(self):\n"
        "        rows = Events.of(torch.randn(60, 2), torch.arange(60) % 2)\n"
        "        return Splits(rows.take(range(0, 60, 2)), rows.take([]), rows, rows.take([]))\n"
    )
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "bare.yaml").write_text("_target_: bare.Bare\n")
    monkeypatch.syspath_prepend(tmp_path)
    ended = straylight_train("--config-dir", str(tmp_path / "conf"), *STOPPING[1:], "data=bare", epochs=4)
    assert ended.status == 0 and ended.result["epochs"] == 4, ended.err
    assert any("does not wait for val/loss" in notice for notice in ended.result["notices"])


def test_a_threshold_that_has_ended_a_training_stays_ended(trainer, serving, tmp_path) -> None:
    from straylight.detectors import AutoEncoder

    def fit(epochs: int, start: Path | None = None) -> pl.Trainer:
        stop = EarlyStopping(stopping_threshold=1e9, patience=3)
        running = trainer(max_epochs=epochs, callbacks=[stop])
        data = serving(torch.randn(64, 2), torch.randn(64, 2))
        running.fit(AutoEncoder((2,)), datamodule=data, ckpt_path=start, weights_only=True)
        return running

    first = fit(5)
    assert first.current_epoch == 1
    first.save_checkpoint(tmp_path / "end.ckpt")
    assert fit(5, tmp_path / "end.ckpt").current_epoch == 1
