"""Sweeps in which every job has a process of its own: crashes, duplicates, resumption, interruption, places."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict
from typing import ClassVar

import pytest
from rich.console import Console
from rich.text import Text

from crashing import by_override, hanging, make
from hydra_plugins.straylight_local.local import DEFAULTS
from straylight.engines.base import Running
from straylight.engines.local.engine import Machine
from straylight.engines.local.slots import Slots
from straylight.errors import ConfigError
from straylight.job.devices import asked_for, visible_gpus
from straylight.sweep.board import Board
from straylight.sweep.job import Job
from straylight.sweep.sweep import History, Policy, Sweep


@pytest.fixture
def crashing(tmp_path, monkeypatch) -> str:
    """Brings `detector=crash detector.how=HOW`; the argument that makes it known."""
    monkeypatch.syspath_prepend(tmp_path)
    return make(tmp_path)


def test_whatever_ends_a_job_ends_that_job_alone(straylight_train, crashing) -> None:
    how = ["none", "raise", "exit", "sys.exit", "kill", "segfault"]
    ended = straylight_train("-m", crashing, "data=blobs", "detector=crash", f"detector.how={','.join(how)}")
    assert ended.status == 1
    found = by_override(ended, "detector.how")
    assert {h: found[h]["status"] for h in how} == {"none": "ok", **dict.fromkeys(how[1:], "failed")}
    assert found["raise"]["reason"] == "RuntimeError: it broke"
    assert "ended with status 7" in found["exit"]["reason"]
    assert "ended with status 3" in found["sys.exit"]["reason"] or found["sys.exit"]["reason"]
    assert "signal 9 (SIGKILL, as the kernel does where memory runs out)" in found["kill"]["reason"]
    assert "signal 11 (SIGSEGV)" in found["segfault"]["reason"]
    for result in found.values():
        assert result["detector"] == "crash" and result["seed"] == 0 and result["config_hash"]
    (sweep,) = (ended.folder / "sweeps").iterdir()
    assert (sweep / "leaderboard.csv").is_file()
    for h in how[1:]:
        assert f"detector.how={h}: " in ended.out, "a line says which job failed and why"


def test_a_job_that_fails_is_tried_again(straylight_train, crashing) -> None:
    ended = straylight_train(
        "-m", crashing, "data=blobs", "detector=crash", "detector.how=once", "hydra.launcher.retry=1"
    )
    assert ended.status == 0, ended.out + ended.err
    assert [r["status"] for r in ended.results] == ["ok"]
    assert "again: The job's process ended with status 9" in ended.out


def test_a_job_that_takes_too_long_is_stopped_with_all_it_started(straylight_train, crashing) -> None:
    start = time.monotonic()
    ended = straylight_train(
        "-m", crashing, "data=blobs", "detector=crash", "detector.how=hang,none", "hydra.launcher.timeout_s=15",
        "hydra.launcher.grace_s=1",
    )  # fmt: skip
    assert time.monotonic() - start < 90 and ended.status == 1
    found = by_override(ended, "detector.how")
    assert found["hang"]["reason"] == "It was stopped after 15 s (hydra.launcher.timeout_s)."
    assert found["none"]["status"] == "ok"
    assert not hanging()


def test_fail_fast_ends_a_sweep_at_the_first_failure(straylight_train, crashing) -> None:
    ended = straylight_train(
        "-m", crashing, "data=blobs", "detector=crash", "detector.how=raise,none", "seed=0,1,2",
        "hydra.launcher.fail_fast=true", "hydra.launcher.n_jobs=1",
    )  # fmt: skip
    assert ended.status == 1 and len(ended.results) == 1
    assert "with hydra.launcher.fail_fast the sweep ends" in ended.out


def test_a_point_that_comes_twice_runs_once(straylight_train) -> None:
    ended = straylight_train("-m", "data=blobs", "detector=hbos", "seed=0,1,0")
    assert ended.status == 0 and sorted(r["seed"] for r in ended.results) == [0, 1]
    assert "is the same as #0" in ended.out


def test_a_resumed_sweep_runs_what_is_missing_failed_or_new(straylight_train, crashing, tmp_path) -> None:
    here = tmp_path / "sweep"
    common = ("-m", crashing, "data=blobs", "detector=crash")
    first = straylight_train(*common, "detector.how=once,none,raise", f"hydra.sweep.dir={here}")
    assert first.status == 1
    before = {p.parent.name: p.stat().st_mtime_ns for p in here.glob("*/result.json")}
    assert len(before) == 3
    again = straylight_train(*common, "detector.how=once,none", "seed=0,1", f"resume={here}")
    assert again.status == 0, again.out
    results = {p.parent.name: json.loads(p.read_text()) for p in here.glob("*/result.json")}
    asked = {n: (r["overrides"], r["status"]) for n, r in results.items()}
    assert len(results) == 5, asked  # once, none, raise of before; once and none with seed 1
    assert sum(r["status"] == "ok" for r in results.values()) == 4
    untouched = [n for n, r in results.items() if "detector.how=none" in r["overrides"] and r["seed"] == 0]
    assert len(untouched) == 1 and (here / untouched[0] / "result.json").stat().st_mtime_ns == before[untouched[0]]


def test_a_resumed_sweep_may_repeat_what_was_asked_before(straylight_train, tmp_path) -> None:
    here = tmp_path / "a sweep"
    straylight_train("-m", "data=blobs", "detector=hbos", "seed=0,1", f"hydra.sweep.dir='{here}'")
    (here / "1" / "result.json").unlink()
    kept = (here / "0" / "result.json").stat().st_mtime_ns
    ended = straylight_train(f"resume={here}", "-m")
    assert ended.status == 0, ended.out + ended.err
    assert (here / "1" / "result.json").is_file() and (here / "0" / "result.json").stat().st_mtime_ns == kept
    assert sorted(p.name for p in here.iterdir() if p.is_dir()) == [".sweeps", "0", "1"]


def test_only_a_sweep_can_be_resumed_as_one(straylight_train, tmp_path) -> None:
    ended = straylight_train("-m", "data=blobs", f"resume={tmp_path}")
    assert ended.status == 1 and "is not the folder of a sweep" in ended.err


def test_another_sweep_into_the_same_folder_overwrites_nothing(straylight_train, tmp_path) -> None:
    here = f"hydra.sweep.dir={tmp_path}/sweep"
    straylight_train("-m", "data=blobs", "detector=hbos", "seed=0,1", here)
    straylight_train("-m", "data=blobs", "detector=pca", "seed=0,1", here)
    results = [json.loads(p.read_text()) for p in (tmp_path / "sweep").glob("*/result.json")]
    assert sorted((r["detector"], r["seed"]) for r in results) == [("hbos", 0), ("hbos", 1), ("pca", 0), ("pca", 1)]


def test_folders_of_ones_own_naming_are_never_shared(straylight_train, tmp_path) -> None:
    common = ("-m", "data=blobs", "detector=hbos", "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep")
    ended = straylight_train(*common, "hydra.sweep.subdir=of/all")
    assert ended.status == 0
    found = {
        p.parent.name: json.loads(p.read_text())["seed"] for p in (tmp_path / "sweep" / "of").glob("*/result.json")
    }
    assert found == {"all": 0, "all_1": 1}
    again = straylight_train(*common, "hydra.sweep.subdir=of/all", f"resume={tmp_path}/sweep")
    assert again.status == 0 and again.out.count("known") == 0 and len(list((tmp_path / "sweep" / "of").iterdir())) == 2


@pytest.mark.slow
def test_ctrl_c_ends_all_jobs_marks_them_and_says_how_to_go_on(crashing, tmp_path, fresh) -> None:
    command = [sys.executable, "-m", "straylight", "train", "-m", crashing, "data=blobs", "detector=crash"]
    command += ["detector.how=hang", "seed=0,1,2", "hydra.launcher.n_jobs=2", "hydra.launcher.grace_s=2"]
    command += [f"hydra.sweep.dir={tmp_path}/sweep"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    job = fresh.start(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, merged=True)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("hanging.*"))) < 2:
        assert time.monotonic() < deadline and job.poll() is None, job.stdout and job.stdout.read()
        time.sleep(0.1)
    before = time.monotonic()
    job.send_signal(signal.SIGINT)
    out, _ = job.communicate(timeout=60)
    assert time.monotonic() - before < 20
    assert job.returncode == 130, out
    results = [json.loads(p.read_text()) for p in (tmp_path / "sweep").glob("*/result.json")]
    assert [r["status"] for r in results] == ["interrupted"] * 2
    assert f"straylight train -m resume={tmp_path}/sweep" in out or "straylight train -m resume=sweep" in out
    os.chdir(tmp_path)
    assert not hanging()


def test_a_second_ctrl_c_right_behind_the_first_leaves_no_job_unmarked(monkeypatch) -> None:
    class Engine:
        killed: ClassVar[list[str]] = []

        def stop(self, id: str, grace_s: float) -> None:
            if grace_s and not self.killed:
                raise KeyboardInterrupt  # as we were about to tell the job of the first one
            if not grace_s:
                self.killed.append(id)

    sweep = object.__new__(Sweep)
    sweep.policy, sweep.history, sweep.engine = Policy(), History(), Engine()
    jobs = [Job(number, [], id=str(number)) for number in (0, 1)]
    sweep.waiting, sweep.running, sweep.engines, marked = deque(), {job.id: job for job in jobs}, {}, []

    def look(self, seconds: float) -> None:
        marked.append(self.running.pop(next(iter(self.running))).number)

    monkeypatch.setattr(Sweep, "_look", look)
    sweep._interrupt()
    assert marked == [0, 1] and all(job.stopped for job in jobs) and Engine.killed == ["0", "1"]


@pytest.mark.slow
def test_nothing_is_left_of_a_sweep_that_is_killed(crashing, tmp_path, fresh) -> None:
    command = [sys.executable, "-m", "straylight", "train", "-m", crashing, "data=blobs", "detector=crash"]
    command += ["detector.how=hang", f"hydra.sweep.dir={tmp_path}/sweep"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    job = fresh.start(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, silent=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("hanging.*")):
        assert time.monotonic() < deadline and job.poll() is None
        time.sleep(0.1)
    job.kill()
    job.wait()
    time.sleep(3)
    os.chdir(tmp_path)
    assert not hanging()


# places


def test_so_many_jobs_at_a_time_on_the_cpu() -> None:
    slots = Slots(2)
    first, second = slots.take(0), slots.take(0)
    assert first and second and slots.take(0) is None
    slots.give_back(first)
    assert slots.take(0) is not None


def test_every_rank_of_a_job_counts_and_one_of_too_many_waits_for_all_places() -> None:
    slots = Slots(3)
    pair, one = slots.take(0, ranks=2), slots.take(0)
    assert pair and one and slots.take(0) is None and slots.take(0, ranks=7) is None
    slots.give_back(pair)
    slots.give_back(one)
    assert slots.take(0, ranks=7) is not None and slots.take(0) is None


def test_a_job_gets_as_many_gpus_as_it_asks_for_and_none_twice(tmp_path) -> None:
    slots = Slots(1, ["0", "GPU-3f", "2"], folder=tmp_path)
    pair = slots.take(2)
    assert pair is not None and pair.gpus == ("0", "GPU-3f")
    assert slots.take(2) is None, "one is left"
    one = slots.take(1)
    assert one is not None and one.gpus == ("2",) and slots.take(1) is None
    slots.give_back(pair)
    again = slots.take(2)
    assert again is not None and again.gpus == ("0", "GPU-3f")


def test_jobs_share_a_gpu_where_they_may_and_each_has_two_different_ones(tmp_path) -> None:
    slots = Slots(1, ["0", "1"], jobs_per_gpu=2, folder=tmp_path)
    places = [slots.take(2), slots.take(2)]
    assert [place and place.gpus for place in places] == [("0", "1")] * 2 and slots.take(1) is None


def test_sweeps_of_one_machine_share_its_gpus_and_a_dead_one_holds_none(tmp_path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from straylight.engines.local.slots import Slots\n"
        "place = Slots(1, ['0', '1'], folder=Path(sys.argv[1])).take(1); print(place.gpus, flush=True); time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline().strip() == "('0',)"
    slots = Slots(1, ["0", "1"], folder=tmp_path)
    assert slots.take(2) is None
    mine = slots.take(1)
    assert mine is not None and mine.gpus == ("1",)
    with other:
        other.kill()
    freed = slots.take(1)
    assert freed is not None and freed.gpus == ("0",)


@pytest.mark.parametrize(("named", "found"), [("", []), ("-1", []), ("1,GPU-a", ["1", "GPU-a"])])
def test_gpus_are_those_that_are_visible(monkeypatch, named: str, found: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == found


@pytest.mark.parametrize(
    ("trainer", "ranks", "gpus"),
    [
        ({"accelerator": "cpu"}, 1, 0),
        ({"accelerator": "cpu", "devices": "auto"}, 1, 0),
        ({"accelerator": "cpu", "devices": 3}, 3, 0),
        ({"accelerator": "auto", "devices": "2"}, 2, 2),
        ({"accelerator": "gpu", "devices": -1}, 3, 3),
        ({"accelerator": "cuda", "devices": [0, 2]}, 2, 2),
        ({"accelerator": "gpu", "devices": "0,2"}, 2, 2),
        ({"accelerator": "gpu", "devices": 2, "strategy": "ddp_spawn"}, 1, 2),
    ],
)
def test_ranks_and_gpus_are_what_the_trainer_asks_for(monkeypatch, trainer, ranks, gpus) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert asked_for(trainer)[:2] == (ranks, gpus)


@pytest.mark.parametrize(
    ("given", "names"), [(None, ["4", "5"]), (0, ["0"]), ("1, GPU-a", ["1", "GPU-a"]), ([0, "GPU-b"], ["0", "GPU-b"])]
)
def test_gpus_are_given_by_number_or_name(monkeypatch, given, names) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert Machine(gpus=given).named_gpus == names


def test_the_options_are_those_that_the_config_has() -> None:
    defaults = {name: value for name, value in DEFAULTS.items() if name != "_target_"}
    assert asdict(Machine()) | asdict(Policy()) == defaults


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ({"n_jobs": 0}, "a positive whole number, not 0"),
        ({"n_jobs": 1.5}, "a positive whole number, not 1.5"),
        ({"jobs_per_gpu": 0}, "a positive whole number, not 0"),
        ({"jobs_per_process": True}, "a positive whole number, not True"),
        ({"retry": -1}, "a whole number of at least 0, not -1"),
        ({"timeout_s": 0}, "a positive number, not 0"),
        ({"timeout_s": "1h"}, "a positive number, not '1h'"),
        ({"grace_s": None}, "a number of at least 0, not None"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(wrong, meant) -> None:
    (name,) = wrong
    takes = Machine if hasattr(Machine(), name) else Policy
    with pytest.raises(ConfigError, match=rf"^hydra.launcher.{name} must be {meant}\.$"):
        takes(**wrong)


# what is seen of it


def test_a_terminal_shows_what_waits_runs_and_has_ended() -> None:
    out = io.StringIO()
    board = Board(5, Console(file=out, force_terminal=True, width=120))
    with board:
        board.start(0, "detector=vae")
        board.progress(0, Running("epoch 3/20  loss 0.412  1,250,000 events/s  8 s left"))
        board.start(1, "detector=knn")
        board.end(1, "ok", "knn on blobs, seed 0: AUROC 0.9990")
        board.start(2, "detector=gmm")
        board.end(2, "failed", "detector=gmm: it broke")
        table = Text.from_ansi(rendered(board))
    assert table.plain.splitlines()[0].split() == ["1", "running,", "2", "waiting,", "1", "ok,", "1", "failed"]
    lines = [" ".join(line.split()) for line in table.plain.splitlines()[2:]]
    assert lines == [
        "1 ok knn on blobs, seed 0: AUROC 0.9990",
        "2 failed detector=gmm: it broke",
        "0 0 s detector=vae epoch 3/20 loss 0.412 1,250,000 events/s 8 s left",
    ]
    assert "epoch 3/20" in out.getvalue(), "and it was shown"


def rendered(board: Board) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(board.table())
    return console.file.getvalue()


# what a job finds


def test_a_job_has_the_environment_of_now_and_its_share_of_the_threads(straylight_train, tmp_path, monkeypatch) -> None:
    (tmp_path / "looking.py").write_text(
        "import json, os, torch\nfrom straylight.detectors import HBOS\n"
        "class Look(HBOS):\n"
        "    def on_fit_start(self):\n"
        "        super().on_fit_start()\n"
        "        found = {'mine': os.environ.get('MINE'), 'threads': torch.get_num_threads(), 'cwd': os.getcwd()}\n"
        "        open(f\"found.{os.environ['MINE']}.json\", 'w').write(json.dumps(found))\n"
    )
    (tmp_path / "own" / "detector").mkdir(parents=True)
    (tmp_path / "own" / "detector" / "look.yaml").write_text("_target_: looking.Look\n")
    monkeypatch.syspath_prepend(tmp_path)
    cores = len(os.sched_getaffinity(0))
    for name, more, threads in (("one", [], 1), ("two", ["threads=null", "hydra.launcher.n_jobs=1"], cores)):
        monkeypatch.setenv("MINE", name)
        ended = straylight_train(
            "-m", f"--config-dir={tmp_path}/own", "data=blobs", "detector=look", *more, output=name
        )
        assert ended.status == 0, ended.err
        found = json.loads((tmp_path / f"found.{name}.json").read_text())
        assert found == {"mine": name, "threads": threads, "cwd": str(tmp_path)}
