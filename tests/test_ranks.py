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
            if self.how == "exit":
                raise SystemExit(1)
            if self.how == "hang":
                time.sleep(600)
            if self.how == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
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
    assert sorted(p.name for p in sweep.iterdir() if p.is_dir()) == [".sweeps", "0", "1", "2", "3"]
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
    for raised, said in (("raise", "RuntimeError: rank 1 broke"), ("early", "detector: rank 1 broke early")):
        assert found[raised]["reason"].startswith(f"Rank 1: {said}; see "), found[raised]["reason"]
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
    two = straylight_train(f"resume={one.run}", "trainer.devices=2", "trainer.accelerator=cpu", "--trust=ranked")
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
    again = straylight_train(f"resume={one.run}", "trainer.max_epochs=3", "--trust=ranked")
    assert again.status == 1 and "Error: Rank 0 was killed by signal 9" in again.err
    assert again.result == one.result, "which stands as it was"


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
    again = fresh.run([*command[:6], f"resume={sweep}", "--trust=ranked"], cwd=tmp_path, timeout=200)
    assert again.returncode == 0, again.stdout + again.stderr
    (result,) = [json.loads(p.read_text()) for p in sweep.glob("*/result.json")]
    assert (result["status"], result["epochs"], result["devices"]) == ("ok", 30, 2) and before < 30


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", ["hang", "stop"])
def test_a_rank_that_hangs_is_named_and_the_healthy_one_is_not_blamed(how, rank, ranked, straylight_train) -> None:
    start = time.monotonic()
    asked = (f"detector.how={how}", f"detector.rank={rank}", "trainer.timeout_s=4")
    ended = straylight_train(*ranked, *asked, epochs=3)
    assert ended.status == 1 and time.monotonic() - start < 60
    said = f"Rank {rank} has shown no sign of life for 4 s (trainer.timeout_s)"
    assert ended.result["status"] == "failed" and ended.result["reason"].startswith(said), ended.result["reason"]
    assert how == "stop" or "ranked.py:" in ended.result["reason"], "where it hangs"
    assert not ranks_left()


def test_a_detector_that_exits_has_failed_and_was_not_interrupted(ranked, straylight_train) -> None:
    ended = straylight_train(
        *ranked, "detector.how=exit", "detector.rank=0", "trainer.devices=1", "trainer.strategy=auto", epochs=3
    )
    assert ended.status == 1 and ended.result["status"] == "failed"
    assert "sys.exit(1)" in ended.result["reason"]
    two = straylight_train(*ranked, "detector.how=exit", "detector.rank=1", epochs=3, output="two")
    assert two.status == 1 and two.result["status"] == "failed" and "Rank 1" in two.result["reason"]


#: What a process of a job of a scheduler's finds, as if it were the third of four.
SCHEDULERS = {
    "slurm": {
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NAME": "mine",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "2",
        "SLURM_LOCALID": "2",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "here",
        "SLURM_STEP_ID": "0",
    },
    "mpi": {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "2"},
    "lsf": {
        "LSB_JOBID": "1",
        "LSB_DJOB_RANKFILE": "/nowhere",
        "JSM_NAMESPACE_LOCAL_RANK": "2",
        "JSM_NAMESPACE_SIZE": "4",
        "JSM_NAMESPACE_RANK": "2",
    },
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("devices", [1, 2])
def test_ranks_are_those_that_were_asked_for_in_any_job_of_a_scheduler(
    scheduler, devices, ranked, straylight_train, monkeypatch
) -> None:
    for name, value in SCHEDULERS[scheduler].items():
        monkeypatch.setenv(name, value)
    ended = straylight_train(*ranked, f"trainer.devices={devices}", "trainer.strategy=auto")
    assert ended.status == 0, ended.err
    assert ended.result["devices"] == devices and ended.result["status"] == "ok"


def test_a_job_whose_world_is_smaller_than_asked_for_fails(ranked, straylight_train) -> None:
    from straylight.folder import RunFolder
    from straylight.job import train
    from straylight.job.order import Order

    folder = RunFolder(straylight_train(*ranked, "trainer.devices=1", "trainer.strategy=auto").run)
    with pytest.raises(train.StraylightError, match="3 processes were to train together, and Lightning knows of 1"):
        train.train(Order.read(folder).cfg, folder, ranks=3)


@pytest.mark.parametrize(("status", "said"), [(1, None), (1, "ValueError: no"), (None, None)])
def test_a_job_of_several_ranks_is_well_only_if_all_ended_well(status, said, tmp_path) -> None:
    from straylight.engines.base import Ended
    from straylight.folder import RunFolder
    from straylight.sweep.outcome import settled

    folder = RunFolder(tmp_path)
    folder.write_result({"status": "ok", "metrics": {"test/auroc": 0.9}})
    assert settled(folder, {}, Ended(0, rank=0))["status"] == "ok"
    signal_ = 9 if status is None else None
    result = settled(folder, {}, Ended(status, signal_, "output.1.log", rank=1, said=said))
    assert result["status"] == "failed" and "Rank 1" in result["reason"] and (said or "") in result["reason"]


@pytest.mark.parametrize(
    ("rank", "said", "own", "blamed"),
    [
        (
            1,
            "RuntimeError: rank 1 broke",
            "RuntimeError: [gloo] Connection closed by peer",
            "Rank 1: RuntimeError: rank 1",
        ),
        (1, "RuntimeError: Connection reset by peer", "detector: rank 0 broke early", "Rank 0: detector: rank 0 broke"),
        (0, None, "detector: rank 0 broke early", "Rank 0: detector: rank 0 broke early"),
        (1, "RuntimeError: rank 1 broke", "ValueError: rank 0 broke too", "Rank 1: RuntimeError: rank 1 broke; see"),
    ],
)
def test_of_ranks_that_end_together_the_one_that_lost_no_other_is_blamed(rank, said, own, blamed, tmp_path) -> None:
    from straylight.engines.base import Ended
    from straylight.folder import RunFolder
    from straylight.sweep.outcome import settled

    folder = RunFolder(tmp_path)
    folder.write_result({"status": "failed", "metrics": {}, "reason": own})
    result = settled(folder, {}, Ended(1, None, "output.1.log", rank=rank, said=said))
    assert result["reason"].startswith(blamed), result["reason"]


def test_a_rank_has_time_for_its_first_sign_of_life() -> None:
    from straylight.job.pulse import START_S, Beat, Watch

    now = [0.0]
    watch = Watch(2, 4.0, lambda: now[0])
    now[0] = 1.0
    watch.heard(1, Beat(1, False, ""))
    now[0] = 4.5
    watch.heard(1, Beat(2, False, ""))
    assert watch.silent([0, 1]) is None, "rank 0 has not begun yet"
    now[0] = 9.0
    assert watch.silent([0, 1]) == (1, "has shown no sign of life for 4 s (trainer.timeout_s)")
    watch.heard(1, Beat(3, False, ""))
    now[0] = START_S + 1
    watch.heard(1, Beat(4, False, ""))
    found = watch.silent([0, 1])
    assert found is not None and found[0] == 0


def test_the_port_where_ranks_meet_is_never_free_for_others() -> None:
    import socket

    from straylight.engines.local.pool import meeting_place

    store, places = meeting_place(2)
    assert [place["LOCAL_RANK"] for place in places] == ["0", "1"]
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", int(places[0]["MASTER_PORT"])))
    assert store.port == int(places[0]["MASTER_PORT"])
