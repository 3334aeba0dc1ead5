"""What a sweep promises on this machine it promises on a cluster: the same cases, on a real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest

import straylight
from clusters import lacking_slurm, slurm
from crashing import by_override, hanging, make, pids
from straylight.folder import RunFolder, SweepFolder
from straylight.job.order import Order

pytestmark = pytest.mark.slow
QUICK = ["callbacks.figures.only=[]", "callbacks.tensorboard.max_points=0", "logger=none"]
LONG = ["detector=autoencoder", "data.nominal=200", "trainer.max_epochs=100000", "+trainer.max_time='00:00:00:08'"]


class Cluster(NamedTuple):
    """One to run sweeps on.

    Attributes:
        name: of the engine.
        launcher: what is typed.
        environment: in which its commands find it.
    """

    name: str
    launcher: list[str]
    environment: dict[str, str]


@pytest.fixture(scope="module")
def slurm_cluster(tmp_path_factory) -> Iterator[Cluster]:
    if (lacking := lacking_slurm()) is not None:
        pytest.skip(lacking)
    with slurm(tmp_path_factory.mktemp("slurm")) as conf:
        yield Cluster("slurm", ["hydra/launcher=slurm"], {"SLURM_CONF": str(conf)})


CLUSTERS = ["slurm"]


@pytest.fixture(params=CLUSTERS)
def cluster(request, monkeypatch, tmp_path) -> Cluster:
    found: Cluster = request.getfixturevalue(f"{request.param}_cluster")
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    source = Path(straylight.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, source, Path(__file__).parent))))
    monkeypatch.syspath_prepend(tmp_path)
    return found


@pytest.fixture
def crashing(tmp_path) -> str:
    """Brings `detector=crash detector.how=HOW`; the argument that makes it known."""
    return make(tmp_path)


@pytest.fixture
def typed(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """`straylight train` in a process of its own, which is gone at the end of the test."""
    started: list[subprocess.Popen] = []

    def start(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-W", "ignore", "-m", "straylight", "train", "-m", *arguments]
        with (tmp_path / f"typed.{len(started)}").open("w") as log:
            given = {"cwd": tmp_path, "stdout": log, "stderr": log, "start_new_session": True}
            started.append(subprocess.Popen(command, preexec_fn=_heard, **given))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def _heard() -> None:
    """Signals end a process, also where whoever started the tests has some ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def until(happens: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def scores(folder: Path) -> list[float]:
    return pq.read_table(RunFolder(folder).scores)["score"].to_pylist()


def test_scores_are_bit_for_bit_those_of_this_machine(cluster, straylight_train, tmp_path) -> None:
    asked = ["-m", "data=blobs", "detector=knn,autoencoder", *QUICK]
    here = straylight_train(*asked, f"hydra.sweep.dir={tmp_path}/here")
    there = straylight_train(*asked, *cluster.launcher, f"hydra.sweep.dir={tmp_path}/there")
    assert here.status == there.status == 0, there.out + there.err
    for number in "01":
        one, other = tmp_path / "here" / number, tmp_path / "there" / number
        assert scores(one) == scores(other) and len(scores(one)) > 100
        result = RunFolder(other).read()
        assert result["notices"] == RunFolder(one).read()["notices"]  # the code is the same there
        assert RunFolder(other).log(0).read_text(), "what the job printed is kept"
        assert not RunFolder(other).progress.exists()
        order = Order.read(RunFolder(other))
        assert order.engine == cluster.name and order.id and order.by["code"]
    assert "#0 queued" in there.out and "#0 started" in there.out
    assert "knn" in there.out.partition("AUROC")[2], "the leaderboard stands at the end"


def test_a_job_ends_for_itself_alone_and_is_tried_again(cluster, straylight_train, crashing, tmp_path) -> None:
    how = "none,raise,kill,once,none"
    ended = straylight_train(
        "-m", crashing, "data=blobs", "detector=crash", f"detector.how={how}", "hydra.launcher.retry=1", *QUICK,
        *cluster.launcher,
    )  # fmt: skip
    assert ended.status == 1, ended.out + ended.err
    found = by_override(ended, "detector.how")
    assert {h: r["status"] for h, r in found.items()} == {
        "none": "ok",
        "raise": "failed",
        "kill": "failed",
        "once": "ok",
    }
    assert found["raise"]["reason"] == "RuntimeError: it broke"
    assert "SIGKILL" in found["kill"]["reason"]
    assert [len(pids(h)) for h in ("none", "raise", "kill", "once")] == [1, 2, 2, 2]
    assert ended.out.count("again: ") == 3 and "is the same as #0" in ended.out


def test_a_job_that_takes_too_long_is_stopped_with_all_it_started(cluster, straylight_train, crashing) -> None:
    ended = straylight_train(
        "-m", crashing, "data=blobs", "detector=crash", "detector.how=stubborn,hang", "hydra.launcher.timeout_s=25",
        "hydra.launcher.grace_s=1", "hydra.launcher.fail_fast=true", *QUICK, *cluster.launcher,
    )  # fmt: skip
    assert ended.status == 1
    reasons = {r["reason"] for r in ended.results if r["status"] == "failed"}
    assert reasons == {"It was stopped after 25 s (hydra.launcher.timeout_s)."}, ended.out + ended.err
    until(lambda: not hanging(), 60)


def test_an_interrupted_sweep_goes_on_on_this_machine(cluster, typed, tmp_path) -> None:
    here = tmp_path / "sweep"
    asked = ["data=blobs", *LONG, "seed=0,1", *QUICK, f"paths.output={tmp_path}/out"]
    process = typed(*asked, *cluster.launcher, "hydra.launcher.grace_s=60", f"hydra.sweep.dir={here}")
    until(lambda: (here / "0" / "checkpoints" / "last.ckpt").is_file())
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130, (tmp_path / "typed.0").read_text()
    said = (tmp_path / "typed.0").read_text()
    assert "Interrupted. To go on where it stopped: straylight train -m resume=" in said
    assert {r["status"] for r in SweepFolder(here).results()} == {"interrupted"}
    first = RunFolder(here / "0")
    assert first.checkpoint("interrupt").is_file()
    run = first.run
    assert typed(f"resume={here}", "hydra/launcher=local").wait(240) == 0, (tmp_path / "typed.1").read_text()
    assert [r["status"] for r in SweepFolder(here).results()] == ["ok", "ok"]
    assert first.run == run and "Going on from" in first.log().read_text() + first.log(0).read_text()
    assert Order.read(first).engine == "local"


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP], ids=["killed", "hung-up"])
def test_jobs_outlive_who_submitted_them_and_are_attached_to(how, cluster, typed, tmp_path) -> None:
    here = tmp_path / "sweep"
    asked = ["data=blobs", *LONG, "seed=0,1,2", *QUICK, f"paths.output={tmp_path}/out"]
    process = typed(*asked, *cluster.launcher, "hydra.launcher.cpus=2", f"hydra.sweep.dir={here}")
    until(lambda: (here / "0" / "checkpoints" / "last.ckpt").is_file())
    process.send_signal(how)
    process.wait(60)
    runs = [RunFolder(here / name) for name in "012"]
    before = {str(run): (run.run, Order.read(run).id) for run in runs}
    arrays = sorted((here / ".jobs").glob("*.sh"))
    assert not (here / "0" / "result.json").is_file(), "it runs on"
    assert typed(f"resume={here}").wait(240) == 0, (tmp_path / "typed.1").read_text()
    assert {str(run): (run.run, Order.read(run).id) for run in runs} == before, "none was begun anew"
    assert [json.loads(run.result.read_text())["status"] for run in runs] == ["ok"] * 3
    assert sorted((here / ".jobs").glob("*.sh")) == arrays, "no other job was submitted"


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
def test_a_job_that_makes_room_for_an_urgent_one_goes_on_behind_it(cluster, typed, tmp_path) -> None:
    here = tmp_path / "sweep"
    asked = ["data=blobs", *LONG[:-1], "+trainer.max_time='00:00:00:20'", "seed=0", *QUICK, f"hydra.sweep.dir={here}"]
    process = typed(*asked, *cluster.launcher, "hydra.launcher.cpus=2", "hydra.launcher.partition=main")
    run = RunFolder(here / "0")
    until(lambda: run.checkpoint("last").is_file())
    id = run.run, Order.read(run).id
    urgent = ["--partition=urgent", "--nodes=2", "--ntasks-per-node=2", "--output=/dev/null", "--wrap=sleep 1"]
    asked_of("sbatch", *urgent)
    until(lambda: asked_of("squeue", "-h", "-p", "main", "-o", "%T") == "PENDING", 120)
    assert run.checkpoint("interrupt").is_file(), "there was time for a checkpoint"
    until(lambda: "queued again" in (tmp_path / "typed.0").read_text(), 60)
    number = asked_of("squeue", "-h", "-p", "main", "-o", "%i")
    asked_of("scontrol", "update", f"JobId={number}", "StartTime=now")  # or it would wait for two minutes
    assert process.wait(240) == 0, (tmp_path / "typed.0").read_text()
    assert "Going on from" in run.log(0).read_text() + run.log().read_text()
    assert (run.run, Order.read(run).id) == id


def asked_of(*command: str) -> str:
    """What a command of Slurm's says."""
    return subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
def test_what_slurm_would_refuse_is_refused_before_there_is_a_folder(cluster, straylight_train, tmp_path) -> None:
    here = tmp_path / "sweep"
    asked = ["-m", "data=blobs", "detector=knn", "seed=0,1", *cluster.launcher, f"hydra.sweep.dir={here}"]
    ended = straylight_train(*asked, "hydra.launcher.partition=nowhere")
    assert ended.status == 1 and not here.exists()
    assert "Slurm takes no job as hydra.launcher asks for it: invalid partition specified: nowhere" in ended.err


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
def test_a_job_of_two_nodes_trains_as_one_process_does(cluster, straylight_train, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # n1 and n2 are names of no hosts
    asked = ["-m", "data=blobs", "detector=autoencoder", "trainer.accelerator=cpu", *QUICK]
    one = straylight_train(*asked, f"hydra.sweep.dir={tmp_path}/one")
    two = straylight_train(
        *asked, "trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2", *cluster.launcher,
        "hydra.launcher.environment=[PYTHONPATH,SLURM_CONF,MASTER_ADDR]", f"hydra.sweep.dir={tmp_path}/two",
    )  # fmt: skip
    assert one.status == two.status == 0, two.out + two.err
    run = RunFolder(tmp_path / "two" / "0")
    assert run.read()["devices"] == 2 and run.log(1).is_file()
    np.testing.assert_allclose(scores(run.path), scores(tmp_path / "one" / "0"), rtol=0, atol=1e-4)


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
def test_files_are_scored_by_workers_of_a_cluster_as_they_are_here(cluster, straylight_train, tmp_path) -> None:
    asked = ["data=blobs", "detector=knn", *QUICK, f"hydra.run.dir={tmp_path}/run"]
    assert straylight_train(*asked).status == 0
    rng = np.random.default_rng(0)
    for number in range(3):
        np.savez(tmp_path / f"part{number}.npz", x=rng.normal(size=(500, 2)))
    command = [sys.executable, "-W", "ignore", "-m", "straylight", "score", "run", "part*.npz"]
    subprocess.run([*command, "-o", "here/"], cwd=tmp_path, check=True, timeout=240)
    more = ["--workers", "2", "--engine", cluster.name]
    subprocess.run([*command, "-o", "there/", *more], cwd=tmp_path, check=True, timeout=240)
    for number in range(3):
        one, other = (tmp_path / place / f"part{number}.parquet" for place in ("here", "there"))
        assert one.read_bytes() == other.read_bytes()
    assert not (tmp_path / "there" / ".scoring").exists(), "what workers shared is gone"
