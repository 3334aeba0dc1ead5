"""Jobs of several ranks, in sweeps and alone: each one run, the rank that breaks named, nobody left waiting."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from crashing import by_override

RANKS = """
import os, signal, time
from pathlib import Path
from straylight.detectors import AutoEncoder

RANK = os.environ.get("LOCAL_RANK", "0")

class Ranked(AutoEncoder):
    def __init__(self, shape, how="none", rank=1, **common):
        super().__init__(shape, hidden=[8], latent=2, **common)
        self.how, self.rank = how, str(rank)
        if how == "early" and self.rank == RANK:
            raise RuntimeError(f"rank {rank} broke early")
        if how == "early_kill" and self.rank == RANK:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_epoch_start(self):
        if RANK == self.rank and self.current_epoch == 1:
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "raise":
                raise RuntimeError(f"rank {self.rank} broke")
        if self.how == "slow":
            Path(f"slow.{RANK}").touch()
            time.sleep(0.2)
"""
pytestmark = pytest.mark.slow


@pytest.fixture
def ranked(tmp_path, monkeypatch) -> tuple[str, ...]:
    """Arguments that train a detector one of whose two CPU ranks may break."""
    (tmp_path / "ranked.py").write_text(RANKS)
    (tmp_path / "own" / "detector").mkdir(parents=True)
    (tmp_path / "own" / "detector" / "ranked.yaml").write_text("_target_: ranked.Ranked\nhow: none\nrank: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    own = f"--config-dir={tmp_path}/own"
    return (own, "data=blobs", "detector=ranked", "trainer=ddp", "trainer.accelerator=cpu")


def ranks_left() -> list[str]:
    """Jobs' processes that this one started and that are still there."""
    time.sleep(0.5)
    server = [p for p in psutil.Process().children(recursive=True) if "forkserver" in " ".join(p.cmdline())]
    return [str(child.cmdline()) for process in server for child in process.children(recursive=True)]


def test_jobs_of_two_ranks_and_of_one_follow_each_other_in_one_sweep(ranked, straylight_train) -> None:
    start = time.monotonic()
    ended = straylight_train("-m", *ranked, "trainer.devices=2,1,2", "seed=1,2")
    assert time.monotonic() - start < 150
    assert ended.status == 0, ended.out + ended.err
    found = {(r["devices"], r["seed"]): r["metrics"]["test/auroc"] for r in ended.results}
    assert len(ended.results) == 4, "the third value is the first"
    assert found[2, 1] == pytest.approx(found[1, 1], abs=1e-3)
    assert found[2, 2] == pytest.approx(found[1, 2], abs=1e-3)
    (sweep,) = (ended.folder / "sweeps").iterdir()
    assert sorted(p.name for p in sweep.iterdir() if p.is_dir()) == ["0", "1", "2", "3"]
    assert not ranks_left()


def test_a_rank_that_breaks_fails_its_job_alone_and_is_named(ranked, straylight_train) -> None:
    start = time.monotonic()
    how = ["kill", "raise", "early", "early_kill", "none"]
    ended = straylight_train("-m", *ranked, f"detector.how={','.join(how)}", "detector.rank=1", epochs=3)
    assert time.monotonic() - start < 200 and ended.status == 1
    found = by_override(ended, "detector.how")
    assert {h: r["status"] for h, r in found.items()} == {**dict.fromkeys(how[:-1], "failed"), "none": "ok"}
    for killed in ("kill", "early_kill"):
        assert found[killed]["reason"].startswith("Rank 1 was killed by signal 9 (SIGKILL"), found[killed]["reason"]
    for raised, said in (("raise", "rank 1 broke"), ("early", "rank 1 broke early")):
        assert found[raised]["reason"].startswith("Rank 1 ended with status 1; see "), found[raised]["reason"]
        assert said in (Path(found[raised]["folder"]) / "output.1.log").read_text()
    assert not ranks_left()


def test_the_first_rank_is_named_where_it_is_the_one_that_breaks(ranked, straylight_train) -> None:
    start = time.monotonic()
    ended = straylight_train("-m", *ranked, "detector.how=kill,raise,early", "detector.rank=0", epochs=3)
    assert time.monotonic() - start < 150 and ended.status == 1
    found = {h: r["reason"] for h, r in by_override(ended, "detector.how").items()}
    assert found["kill"].startswith("Rank 0 was killed by signal 9 (SIGKILL")
    assert found["raise"] == "Rank 0: RuntimeError: rank 0 broke"
    assert found["early"] == "Rank 0: detector: rank 0 broke early"
    assert not ranks_left()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_single_run_ends_too_when_a_rank_breaks_before_the_others_have_found_it(ranked, straylight_train, rank):
    start = time.monotonic()
    ended = straylight_train(*ranked, "detector.how=early", f"detector.rank={rank}")
    assert time.monotonic() - start < 100 and ended.status == 1
    assert ended.result["status"] == "failed" and ended.result["reason"].startswith(f"Rank {rank}")
    assert ended.err.splitlines()[-1] == f"Error: {ended.result['reason']}" and not ranks_left()


def test_two_ranks_rank_the_same_weights_as_one_does(ranked, straylight_train, tmp_path) -> None:
    one = straylight_train(*ranked[1:2], "detector=autoencoder", "callbacks.thresholds.f1=true", epochs=3)
    before = json.loads((one.run / "result.json").read_text())
    scored = pq.read_table(one.run / "scores.parquet")
    two = straylight_train(f"resume={one.run}", "trainer.devices=2", "trainer.accelerator=cpu")
    assert two.status == 0, two.err
    after = two.result
    assert (before["devices"], after["devices"]) == (1, 2) and before["steps"] == after["steps"]
    for field in ("metrics", "intervals", "thresholds"):
        assert after[field] == before[field]
    assert pq.read_table(one.run / "scores.parquet").equals(scored)


def test_ranks_that_die_at_once_are_not_taken_for_the_run_before_them(ranked, straylight_train) -> None:
    one = straylight_train(*ranked, "detector.rank=0")
    config = one.run / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("how: none", "how: early_kill"))
    again = straylight_train(f"resume={one.run}", "trainer.max_epochs=3")
    assert again.status == 1 and again.result["status"] == "failed"
    assert again.result["reason"].startswith("Rank 0 was killed by signal 9")


def test_a_sweep_of_ranks_that_is_interrupted_goes_on_where_it_stopped(ranked, tmp_path, fresh) -> None:
    sweep = tmp_path / "sweep"
    command = [sys.executable, "-W", "ignore", "-m", "straylight", "train", "-m", *ranked, "detector.how=slow"]
    command += ["trainer.max_epochs=30", f"hydra.sweep.dir={sweep}", "callbacks=numbers"]
    job = fresh.start(command, cwd=tmp_path, merged=True)
    deadline = time.monotonic() + 120
    while not all((tmp_path / f"slow.{rank}").exists() for rank in (0, 1)):
        assert time.monotonic() < deadline and job.poll() is None, job.stdout and job.stdout.read()
        time.sleep(0.1)
    time.sleep(1)
    job.send_signal(signal.SIGINT)
    out, _ = job.communicate(timeout=60)
    assert job.returncode == 130, out
    (result,) = [json.loads(p.read_text()) for p in sweep.glob("*/result.json")]
    assert result["status"] == "interrupted" and (sweep / "0" / "checkpoints" / "interrupt.ckpt").is_file()
    before = result["epochs"]
    again = fresh.run([*command[:6], f"resume={sweep}"], cwd=tmp_path, timeout=200)
    assert again.returncode == 0, again.stdout + again.stderr
    (result,) = [json.loads(p.read_text()) for p in sweep.glob("*/result.json")]
    assert (result["status"], result["epochs"], result["devices"]) == ("ok", 30, 2) and before < 30
