"""Two processes on the CPU: equal weights and buffers on both ranks, and the numbers of one."""

from __future__ import annotations

import os
import pydoc
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from fresh import Program
from given import OVER_DENSITIES
from straylight.detectors import FittedDetector
from straylight.folder import RunFolder
from straylight.groups import FOLDER, choices

CHECK = """
import os, torch, pytorch_lightning as pl
from straylight.detectors import AutoEncoder

class KeepState(pl.Callback):
    def __init__(self, folder): self.folder = folder
    def on_train_end(self, trainer, module):
        torch.save(module.state_dict(), f"{self.folder}/rank{trainer.global_rank}.pt")

class WithBatchNorm(AutoEncoder):
    def __init__(self, shape, **common):
        super().__init__(shape, **common)
        self.encoder.append(torch.nn.BatchNorm1d(self.encoder[-1].out_features))

class Dies(pl.Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.global_rank == 1:
            os.kill(os.getpid(), 9)
"""
KEEP = "+callbacks.keep={_target_:check.KeepState,folder:'${paths.run}'}"


def prepare(folder: Path) -> None:
    (folder / "check.py").write_text(CHECK)
    (folder / "conf" / "detector").mkdir(parents=True)
    (folder / "conf" / "detector" / "batchnorm.yaml").write_text("_target_: check.WithBatchNorm\nscaling: standard\n")


def start(folder: Path, *arguments: str) -> Program:
    command = [sys.executable, "-W", "ignore", "-m", "straylight", "train", *arguments]
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return Program(command, cwd=folder, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})


def finish(process: Program) -> tuple[int, str]:
    try:
        _, err = process.communicate(timeout=900)
    finally:
        process.close()
    return process.returncode, err


def states(run: Path) -> list[dict]:
    return [torch.load(run / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[key]) for key, value in first.items() if isinstance(value, torch.Tensor)
    )


def scores(run: Path) -> np.ndarray:
    table = pq.read_table(run / "scores.parquet")
    assert table["index"].to_pylist() == list(range(len(table)))  # every row once
    return table["score"].to_numpy()


def is_fitted(name: str) -> bool:
    target = pydoc.locate(yaml.safe_load((FOLDER / "detector" / f"{name}.yaml").read_text()).get("_target_", ""))
    return isinstance(target, type) and issubclass(target, FittedDetector)


TWO = [
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "trainer.devices=2",
    "callbacks.latency.budget_s=0.01",
    "callbacks.latency.runtimes=[eager]",
    "callbacks.figures.only=[]",
    "callbacks.tensorboard.max_points=0",
    "logger=none",
]
# 450 training rows in mini-batches of 37 leave a tail of 6; with 64, one of 2: a row for each rank
JOB = ["trainer.max_epochs=3", "data.batch_size=37", "data.group=3", "data.eval_batch_size=100"]
JOB += ["optimizer.clip=1", "optimizer.schedule=cosine"]
# fitted in one pass; two of them go through the command line with the others
NAMES = [name for name in choices("detector") if name not in OVER_DENSITIES]
FITTED = [name for name in NAMES if is_fitted(name)]
# every other detector; those of images on images
SWEEPS = {
    "blobs": [
        *(name for name in NAMES if not name.endswith("_conv") and name not in FITTED),
        *("knn", "isolation_forest", "batchnorm"),
    ],
    "digits": [name for name in NAMES if name.endswith("_conv")],
}
BOTH = [(data, name) for data, names in SWEEPS.items() for name in names]


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory) -> Callable[[str], dict[str, Path]]:
    """One sweep over detectors for a data set, each job on two ranks, made when it is first asked for."""

    @cache
    def make(data: str) -> dict[str, Path]:
        folder = tmp_path_factory.mktemp(data)
        prepare(folder)
        names = ",".join(SWEEPS[data])
        own = ["--config-dir", "conf", f"hydra.sweep.dir={folder}/sweep", f"data={data}"]
        status, err = finish(start(folder, "-m", *TWO, *JOB, KEEP, *own, f"detector={names}"))
        assert status == 0, err
        assert len(list(folder.rglob("result.json"))) == len(SWEEPS[data])  # each job once, in one folder
        return {name: folder / "sweep" / str(number) for number, name in enumerate(SWEEPS[data])}

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("data", "name"), [pytest.param(*p, marks=pytest.mark.xdist_group(p[0])) for p in BOTH])
def test_two_ranks_end_with_equal_weights_and_buffers(data, name, sweeps) -> None:
    run = sweeps(data)[name]
    first, second = states(run)
    assert equal(first, second)
    assert RunFolder(run).read()["status"] == "ok" and RunFolder(run).read()["devices"] == 2
    if name == "batchnorm":
        assert any("running_mean" in key and value.abs().sum() > 0 for key, value in first.items())


@pytest.mark.slow
@pytest.mark.xdist_group("blobs")
@pytest.mark.parametrize(("name", "close"), [("autoencoder", 1e-4), ("maf", 1e-3), ("knn", 0), ("isolation_forest", 0)])
def test_two_ranks_give_the_numbers_of_one(name, close, sweeps, straylight_train) -> None:
    one = straylight_train(*JOB, "data=blobs", f"detector={name}", epochs=3)
    assert one.status == 0, one.err
    assert np.allclose(scores(sweeps("blobs")[name]), scores(one.run), rtol=close, atol=close)
    if not close:
        for field in ("metrics", "intervals", "thresholds", "criteria"):
            assert RunFolder(sweeps("blobs")[name]).read()[field] == one.result[field]


FIT = """
import sys, torch, pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from straylight import config
from straylight.callbacks.scored import TestScores
from straylight.data import Blobs
from straylight.groups import FOLDER
from straylight.job.ddp import DDP
from straylight.job.train import quiet

class Keep(TestScores):
    def on_scores(self, trainer, module, scores): self.scores = scores.score

quiet()
torch.set_num_threads(1)
rank, ranks, folder, *cases = sys.argv[1:]
for number, case in enumerate(cases):
    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        cfg = compose("train", overrides=[*case.split(), "paths.run=."])
    pl.seed_everything(3, verbose=False)
    data, keep = Blobs(batch_size=37, group=3, eval_batch_size=100), Keep()
    data.setup()
    detector = config.build(cfg, "detector", shape=data.shape, context=0)
    two = {"devices": 2, "strategy": DDP()} if ranks == "2" else {"devices": 1}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[keep], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **two)
    trainer.fit(detector, data)
    trainer.test(detector, data, verbose=False)
    torch.save((keep.scores, detector.state_dict()), f"{folder}/{number}-{rank}-of-{ranks}.pt")
"""


FITS = [
    *(f"detector={name} detector.calibrate=3" for name in ("knn", "mahalanobis", "isolation_forest")),
    *(f"detector={name}" for name in FITTED if name not in ("multiplicity", "sum_pt")),  # which learn nothing
    "detector=pca detector.variant=reconstruction detector.components=1",
    "detector=knn detector.reduce=0.5",
    "detector=kde detector.bandwidth=likelihood",
    "detector=gmm detector.covariance=diag",
    "detector=gmm detector.covariance=tied",
    "detector=ensemble detector@detector.member=pca detector.members=2",
    "detector=ensemble detector@detector.member=gmm detector.members=2",
]


@pytest.fixture(scope="module")
def fits(tmp_path_factory) -> Path:
    """Every fitted detector, fitted by one process and by two that stay for all of them."""
    folder = tmp_path_factory.mktemp("fits")
    (folder / "fit.py").write_text(FIT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    environments = {("0", "1"): {}, **{(str(r), "2"): {**place, "LOCAL_RANK": str(r)} for r in (0, 1)}}
    processes = [
        Program(
            [sys.executable, "-W", "ignore", "fit.py", *which, str(folder), *FITS],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        for which, environment in environments.items()
    ]
    for status, err in map(finish, processes):
        assert status == 0, err
    return folder


@pytest.mark.slow
@pytest.mark.xdist_group("fits")
@pytest.mark.parametrize("case", FITS)
def test_a_fitted_detector_gives_the_numbers_of_one_process_on_two_ranks(case, fits) -> None:
    one, first, second = (
        torch.load(fits / f"{FITS.index(case)}-{which}.pt", weights_only=False)
        for which in ("0-of-1", "0-of-2", "1-of-2")
    )
    assert np.allclose(first[0], one[0], rtol=1e-6, atol=1e-6)
    assert np.array_equal(first[0], second[0])
    assert equal(first[1], second[1])


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run_and_is_named(tmp_path) -> None:
    prepare(tmp_path)
    dies = "+callbacks.dies={_target_:check.Dies}"
    two = ["trainer.devices=2", *TWO[3:]]  # and without trainer=ddp
    status, err = finish(start(tmp_path, *two, "data=blobs", dies, f"hydra.run.dir={tmp_path}/run"))
    assert status == 1
    assert "Error: Rank 1 was killed by signal 9 (SIGKILL" in err.splitlines()[-1], err
    assert RunFolder(tmp_path / "run").read()["status"] == "failed"


@pytest.mark.slow
def test_an_interrupted_run_of_two_ranks_resumes_to_the_same_weights(tmp_path) -> None:
    prepare(tmp_path)
    run = tmp_path / "run"
    common = [*TWO, "data=blobs", "detector=vae", "data.batch_size=16", "data.group=2", KEEP, f"hydra.run.dir={run}"]
    process = start(tmp_path, *common, "trainer.max_epochs=2000")
    until = time.monotonic() + 120
    while not (run / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < until and process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # to rank 0 alone
    status, err = finish(process)
    assert status == 130, err
    assert RunFolder(run).read()["status"] == "interrupted"
    epochs = torch.load(run / "checkpoints" / "interrupt.ckpt", weights_only=True)["epoch"] + 2
    status, err = finish(start(tmp_path, f"resume={run}", f"trainer.max_epochs={epochs}", "--trust=check"))
    assert status == 0, err
    resumed, other = states(run)
    assert equal(resumed, other)
    run.rename(tmp_path / "interrupted")
    status, err = finish(start(tmp_path, *common, f"trainer.max_epochs={epochs}"))
    assert status == 0, err
    assert equal(resumed, states(run)[0])
