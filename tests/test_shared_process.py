"""Quick jobs that share a process: the numbers of jobs alone, and no job that fails because of another."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from crashing import by_override, make, pids

ONE = ("hydra.launcher.n_jobs=1", "hydra.launcher.jobs_per_process=10")


@pytest.fixture
def crash(tmp_path, monkeypatch) -> tuple[str, ...]:
    """Arguments that sweep over `detector.how`."""
    monkeypatch.syspath_prepend(tmp_path)
    return ("-m", make(tmp_path), "data=blobs", "detector=crash")


def test_shared_or_not_the_scores_are_the_same_bit_for_bit(straylight_train) -> None:
    asked = ("-m", "data=blobs", "detector=autoencoder,isolation_forest,vae", "seed=0,1")
    alone = straylight_train(*asked, output="alone")
    shared = straylight_train(*asked, *ONE, output="shared")
    assert alone.status == shared.status == 0, shared.err
    assert len(shared.results) == 6
    for one, other in zip(alone.results, shared.results, strict=True):
        assert one["config_hash"] == other["config_hash"] and one["metrics"] == other["metrics"]
        first, second = (pq.read_table(Path(r["folder"]) / "scores.parquet") for r in (one, other))
        assert first.equals(second)


def test_jobs_share_a_process_up_to_a_number_and_each_has_a_log_of_its_own(straylight_train, crash) -> None:
    ended = straylight_train(*crash, "detector.how=none", "seed=range(5)", ONE[0], "hydra.launcher.jobs_per_process=2")
    assert ended.status == 0, ended.err
    first, second, third, fourth, fifth = pids("none")
    assert first == second != third == fourth != fifth
    logs = [(Path(result["folder"]) / "output.log").read_text() for result in ended.results]
    assert [log.count("AUROC") for log in logs] == [1] * 5


def test_by_default_no_job_shares_a_process(straylight_train, crash) -> None:
    straylight_train(*crash, "detector.how=none", "seed=range(3)", ONE[0])
    assert len(set(pids("none"))) == 3


def test_a_job_that_fails_where_others_were_is_tried_again_alone(straylight_train, crash) -> None:
    ended = straylight_train(*crash, "detector.how=none,first,tidy", *ONE)
    assert ended.status == 0, ended.err
    assert [r["status"] for r in ended.results] == ["ok"] * 3
    assert "again: RuntimeError: others were here: ['none', 'first']" in ended.out
    assert len(pids("first")) == 2 and pids("first")[0] == pids("none")[0] != pids("first")[1]


@pytest.mark.parametrize("how", ["exit", "kill", "raise"])
def test_a_job_that_ends_its_process_ends_no_other(how, straylight_train, crash) -> None:
    ended = straylight_train(*crash, f"detector.how=none,{how},tidy", *ONE)
    assert ended.status == 1
    found = by_override(ended, "detector.how")
    assert {h: r["status"] for h, r in found.items()} == {"none": "ok", how: "failed", "tidy": "ok"}
    assert len(pids(how)) == 2, "once where the first job was, once alone"


def test_what_a_job_changes_of_its_process_is_put_back(straylight_train, crash) -> None:
    ended = straylight_train(*crash, "detector.how=untidy,tidy", *ONE)
    assert ended.status == 0, ended.err
    assert pids("tidy") == pids("untidy") and Path("tidy").is_file()
