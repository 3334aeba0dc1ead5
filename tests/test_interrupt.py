"""Ctrl-C and SIGTERM: a checkpoint, a record, exit status 130, and a resume that ends with the same weights."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from straylight.callbacks import Interrupt
from straylight.commands.retime import retime
from straylight.data import Blobs
from straylight.detectors import KNN, VAE
from straylight.folder import RunFolder
from straylight.run import Run
from straylight.stopping import SIGNALS

pytestmark = pytest.mark.usefixtures("terminal")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


class SignalAt(pl.Callback):
    """Sends this process a signal in the n-th group of mini-batches."""

    def __init__(self, group: int, number: int = signal.SIGINT) -> None:
        self.left, self.number = group, number

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        self.left -= 1


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("group", range(9))  # 3 epochs of 3 groups, among them the last of an epoch and of all
def test_a_resume_ends_with_the_weights_of_an_uninterrupted_run(group, number, tmp_path, trainer) -> None:
    def parts():
        pl.seed_everything(0, verbose=False)
        # a loss that draws noise, and a tail: 450 rows in 15 mini-batches of 32 in groups of 5
        return VAE((2,), hidden=[8], latent=2), Blobs(batch_size=32, group=5)

    detector, data = parts()
    trainer(max_epochs=3).fit(detector, datamodule=data)
    again, data = parts()
    callbacks = [SignalAt(group, number), Interrupt(tmp_path / "interrupt.ckpt")]
    last = group == 8
    with pytest.raises(SystemExit) as stopped:
        trainer(max_epochs=3, callbacks=callbacks).fit(again, datamodule=data)
    assert stopped.value.code == 130
    if not last:
        resumed, data = parts()
        torch.manual_seed(12345)  # whatever the generator's state was
        fit = trainer(max_epochs=3)
        fit.fit(resumed, datamodule=data, ckpt_path=tmp_path / "interrupt.ckpt", weights_only=True)
        assert fit.global_step == 45
        again = resumed
    assert all(torch.equal(a, b) for a, b in zip(detector.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("by_epoch", [1, None])
@pytest.mark.parametrize("batch", [2, 3, 4, 14, 15, 18])  # of 15 an epoch, validated after every fourth
def test_no_validation_in_mid_epoch_is_lost_or_done_twice(batch, by_epoch, tmp_path, trainer) -> None:
    class Validated(pl.Callback):
        def __init__(self) -> None:
            self.at: list[int] = []

        def on_validation_epoch_end(self, trainer, pl_module) -> None:
            self.at.append(trainer.global_step)

    def validated(*callbacks: pl.Callback, start: Path | None = None) -> list[int]:
        pl.seed_everything(0, verbose=False)
        seen = Validated()
        options = {"val_check_interval": 4, "check_val_every_n_epoch": by_epoch, "max_epochs": 2}
        fit = trainer(**options, callbacks=[seen, *callbacks])
        data = Blobs(batch_size=32)
        if not callbacks:
            fit.fit(VAE((2,), hidden=[8], latent=2), datamodule=data, ckpt_path=start, weights_only=True)
        else:
            with pytest.raises(SystemExit):
                fit.fit(VAE((2,), hidden=[8], latent=2), datamodule=data)
        return seen.at

    path = tmp_path / "interrupt.ckpt"
    first = validated(SignalAt(batch), Interrupt(path))
    assert first + validated(start=path) == validated()


def test_the_signals_handlers_are_put_back(trainer, tmp_path) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    fit = trainer(max_epochs=1, callbacks=[Interrupt(tmp_path / "interrupt.ckpt")])
    fit.fit(VAE((2,)), datamodule=Blobs())
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_second_signal_does_not_wait(trainer, tmp_path) -> None:
    class Twice(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second signal was not acted on")

    with pytest.raises(SystemExit):
        trainer(max_epochs=1, callbacks=[Interrupt(tmp_path / "i.ckpt"), Twice()]).fit(VAE((2,)), datamodule=Blobs())
    assert not (tmp_path / "i.ckpt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_the_command_is_interrupted_and_resumed(number, tmp_path, straylight_train, fresh) -> None:
    common = [
        "detector=vae",
        "data=blobs",
        "data.batch_size=16",
        "data.group=2",
        "callbacks.latency.budget_s=0.01",
        "callbacks.latency.runtimes=[eager]",
    ]
    command = [sys.executable, "-m", "straylight", "train", *common, "trainer.max_epochs=3000", "paths.output=out"]
    process = fresh.start(command, cwd=tmp_path)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("out/runs/*/checkpoints/last.ckpt")):
        assert time.monotonic() < until and process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    (run,) = (tmp_path / "out" / "runs").iterdir()
    assert RunFolder(run).read()["status"] == "interrupted" and "Traceback" not in err
    assert f"resume={run.relative_to(tmp_path)}" in err
    done = torch.load(run / "checkpoints" / "interrupt.ckpt", weights_only=True)["epoch"]

    resumed = straylight_train(f"resume={run}", f"trainer.max_epochs={done + 2}")
    assert resumed.status == 0, resumed.err
    assert RunFolder(run).read()["status"] == "ok" and not (run / "checkpoints" / "interrupt.ckpt").exists()
    whole = straylight_train(*common, epochs=done + 2, output="whole")
    assert RunFolder(run).read()["metrics"] == whole.result["metrics"]
    assert all(torch.equal(a, weights(whole.run)[name]) for name, a in weights(run).items())
    # and once more: there is nothing left to do
    again = straylight_train(f"resume={run}")
    assert again.status == 0 and "nothing to resume" in again.out


def test_resume_refuses_what_it_cannot_do(straylight_train, tmp_path) -> None:
    nowhere = straylight_train(f"resume={tmp_path}/none")
    assert nowhere.status == 1 and "not a run folder" in nowhere.err
    done = straylight_train("data=blobs", epochs=1)
    before = (done.run / "result.json").read_text()
    typo = straylight_train(f"resume={done.run}", "trainer.max_epoch=3")
    assert typo.status == 1 and "max_epochs" in typo.err and "Traceback" not in typo.err
    for change in ("seed=5", "detector.latent=3", "data=digits", "--multirun", "trainer=gpu", "trainer.max_epochs=abc"):
        refused = straylight_train(f"resume={done.run}", change)
        assert refused.status == 1 and len(refused.err.strip().splitlines()) == 1, refused.err
    assert (done.run / "result.json").read_text() == before


def test_a_finished_run_can_be_trained_longer(straylight_train) -> None:
    whole = straylight_train("detector=vae", "data=blobs", epochs=4, output="whole")
    short = straylight_train("detector=vae", "data=blobs", epochs=2)
    longer = straylight_train(f"resume={short.run}", "trainer.max_epochs=4")
    assert longer.status == 0, longer.err
    again = RunFolder(short.run).read()
    assert again["metrics"] == whole.result["metrics"] and "trainer.max_epochs=4" in again["overrides"]
    assert Run.open(short.run).cfg.trainer.max_epochs == 4


def test_a_run_on_a_relative_path_is_resumed_opened_and_timed_from_anywhere(straylight_train, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", X=random.normal(size=(200, 2)), y=np.repeat([0, 1], [180, 20]))
    first = straylight_train("data=file", "data.path=mine.npz", "data.label=y", "hydra.run.dir=here", epochs=1)
    assert first.status == 0, first.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    longer = straylight_train("resume=../here", "trainer.max_epochs=2")
    assert longer.status == 0, longer.err
    run = Run.open("../here")
    assert run.result["epochs"] == 2 and Path(run.cfg.data.path) == tmp_path / "mine.npz"
    assert retime(Path("../here")) == 0
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == []


def test_a_fitted_detector_finishes_its_pass(tmp_path, trainer) -> None:
    callbacks = [SignalAt(0), Interrupt(tmp_path / "interrupt.ckpt")]
    knn = KNN((2,))
    with pytest.raises(SystemExit):
        trainer(max_epochs=3, callbacks=callbacks).fit(knn, datamodule=Blobs(batch_size=32, group=5))
    assert len(knn.neighbours.memory) == 450
