"""The seam between sweeps and what runs their jobs: any engine will do, and a job is a folder."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Collection
from pathlib import Path

import psutil
import pytest

from straylight.engines.base import Ended, Engine, Running
from straylight.engines.local import engine as local
from straylight.engines.local import pool
from straylight.errors import ConfigError
from straylight.folder import RunFolder, SweepFolder
from straylight.job.__main__ import main as job
from straylight.job.devices import Asked
from straylight.job.order import Order
from straylight.sweep import lease


class Elsewhere:
    """An engine whose jobs outlive the launcher, as those of a cluster do: each ends when it is told to."""

    name = "elsewhere"
    outlives = True
    queues = False

    def __init__(self) -> None:
        self.jobs: dict[str, RunFolder] = {}
        self.submitted: list[tuple[str, Asked]] = []
        self.over: dict[str, Ended] = {}
        self.stopped: dict[str, float] = {}
        self.patience = 0  # looks for which jobs go on
        self.no_room_for: set[str] = set()
        self.fails = False

    @property
    def running(self) -> bool:
        return bool(set(self.jobs) - set(self.over))

    def submit(self, folder: RunFolder, asked: Asked) -> str | None:
        order = Order.read(folder)  # which must be there by now
        if ("gpu" if asked.gpus else "cpu") in self.no_room_for:
            return None
        id = f"{len(self.submitted)}@elsewhere"
        self.submitted.append((str(order.fields["seed"]), asked))
        self.jobs[id] = folder
        return id

    def look(self, ids: Collection[str]) -> dict[str, Running | Ended]:
        self.patience -= 1
        return {id: self.state(id) for id in ids}

    def state(self, id: str) -> Running | Ended:
        if id in self.over:
            return self.over[id]
        if id not in self.jobs:
            return Ended(None)
        if self.patience > 0 and id not in self.stopped:
            return Running("epoch 3")
        return self.end(id)

    def end(self, id: str) -> Ended:
        folder = self.jobs[id]
        order = Order.read(folder)
        status = "failed" if self.fails else "ok"
        folder.write_result({**order.fields, "metrics": {"test/auroc": 0.5}, "latency": [], "status": status})
        self.over[id] = Ended(int(self.fails))
        return self.over[id]

    def wait(self, ids: Collection[str], seconds: float) -> None:
        pass

    def stop(self, id: str, grace_s: float) -> None:
        self.stopped[id] = grace_s

    def close(self) -> None:
        pass


@pytest.fixture
def elsewhere(monkeypatch) -> Elsewhere:
    """Sweeps run on it, and no process is started."""
    engine: Engine = Elsewhere()
    monkeypatch.setattr(local, "LocalEngine", lambda machine: engine)
    monkeypatch.setattr(pool, "ask", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(pool, "warm", lambda: None)
    return engine  # type: ignore[return-value]


def test_a_sweep_needs_no_more_of_an_engine_than_the_protocol(straylight_train, elsewhere) -> None:
    ended = straylight_train("-m", "data=blobs", "detector=knn", "seed=0,1,2")
    assert ended.status == 0, ended.err
    assert [seed for seed, _ in elsewhere.submitted] == ["0", "1", "2"]
    orders = [Order.read(RunFolder(r["folder"])) for r in ended.results]
    assert [(o.engine, o.id) for o in orders] == [("elsewhere", f"{n}@elsewhere") for n in range(3)]
    assert len({o.run for o in orders}) == 3 and {r["run"] for r in ended.results} == {o.run for o in orders}


def test_jobs_of_a_launcher_that_died_are_attached_to_and_run_once(straylight_train, elsewhere, tmp_path) -> None:
    here = tmp_path / "sweep"
    elsewhere.patience = 10**9

    def dies(ids: Collection[str], seconds: float) -> None:
        os._exit(9)  # as by SIGKILL: nothing is put right

    elsewhere.wait = dies  # type: ignore[method-assign]
    if (child := os.fork()) == 0:
        straylight_train("-m", "data=blobs", "detector=knn", "seed=0,1", f"hydra.sweep.dir={here}")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = [RunFolder(here / name) for name in "01"]
    # what was submitted in the other process runs on, though nobody there knows of it
    elsewhere.jobs = {str(Order.read(folder).id): folder for folder in left if folder.job.is_file()}
    del elsewhere.wait
    assert len(elsewhere.jobs) == 2 and not elsewhere.submitted
    elsewhere.patience = 2
    again = straylight_train(f"resume={here}", "-m")
    assert again.status == 0, again.out + again.err
    assert not elsewhere.submitted, "none was started anew"
    assert [r["status"] for r in SweepFolder(here).results()] == ["ok", "ok"]


def test_a_job_that_nobody_knows_of_any_more_is_started_again(straylight_train, elsewhere, tmp_path) -> None:
    here = tmp_path / "sweep"
    straylight_train("-m", "data=blobs", "detector=knn", "seed=0,1", f"hydra.sweep.dir={here}")
    RunFolder(here / "1").result.unlink()
    elsewhere.jobs.clear()
    elsewhere.over.clear()
    before = Order.read(RunFolder(here / "1"))
    assert straylight_train(f"resume={here}", "-m").status == 0
    assert [seed for seed, _ in elsewhere.submitted] == ["0", "1", "1"]
    after = Order.read(RunFolder(here / "1"))
    assert after.resume and after.run == before.run, "the same run goes on"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run": "x"}'])
def test_an_order_that_was_cut_off_keeps_no_sweep_from_going_on(content, straylight_train, elsewhere, tmp_path) -> None:
    here = tmp_path / "sweep"
    straylight_train("-m", "data=blobs", "detector=knn", "seed=0,1", f"hydra.sweep.dir={here}")
    RunFolder(here / "1").result.unlink()
    RunFolder(here / "1").job.write_text(content)
    again = straylight_train(f"resume={here}", "-m")
    assert again.status == 0, again.err
    assert [seed for seed, _ in elsewhere.submitted] == ["0", "1", "1"]
    assert [r["status"] for r in SweepFolder(here).results()] == ["ok", "ok"]


def ended_before(folder: Path, status: str) -> None:
    """Let a job's record say that it ended so."""
    record = RunFolder(folder)
    record.write_result({**(record.read() or {}), "status": status, "reason": None})


@pytest.mark.parametrize(("status", "goes_on"), [("interrupted", True), ("failed", False)])
def test_an_interrupted_job_goes_on_and_a_failed_one_begins_anew(
    status, goes_on, straylight_train, elsewhere, tmp_path
):
    here = tmp_path / "sweep"
    straylight_train("-m", "data=blobs", "detector=knn", "seed=0,1", f"hydra.sweep.dir={here}")
    before = Order.read(RunFolder(here / "1"))
    ended_before(here / "1", status)
    assert straylight_train(f"resume={here}", "-m").status == 0
    after = Order.read(RunFolder(here / "1"))
    assert after.resume is goes_on and (after.run == before.run) is goes_on


def test_a_job_of_before_that_was_not_reached_again_keeps_its_folder(straylight_train, elsewhere, tmp_path) -> None:
    here = tmp_path / "sweep"
    straylight_train("-m", "data=blobs", "detector=knn", "seed=0,1,2", f"hydra.sweep.dir={here}")
    for name in "012":
        ended_before(here / name, "failed")
    really = elsewhere.submit
    elsewhere.submit = lambda folder, asked: None if elsewhere.running else really(folder, asked)  # type: ignore[method-assign]
    elsewhere.fails = True
    elsewhere.patience = 6
    ended = straylight_train(f"resume={here}", "-m", "hydra.launcher.fail_fast=true")
    assert ended.status == 1 and len(elsewhere.submitted) == 4, "three before, and one now"
    for name in "12":
        folder = RunFolder(here / name)
        assert folder.config.is_file() and folder.job.is_file() and folder.read()["status"] == "failed"


def test_a_job_that_waits_for_a_gpu_keeps_no_other_from_the_cpu(straylight_train, elsewhere, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    elsewhere.no_room_for = {"gpu"}
    really = elsewhere.submit

    def submit(folder: RunFolder, asked: Asked) -> str | None:
        if len(elsewhere.submitted) == 2:
            elsewhere.no_room_for = set()
        return really(folder, asked)

    elsewhere.submit = submit  # type: ignore[method-assign]
    ended = straylight_train("-m", "data=blobs", "detector=knn", "trainer.accelerator=gpu,cpu", "seed=0,1")
    assert ended.status == 0, ended.err
    assert [asked.gpus for _, asked in elsewhere.submitted] == [0, 0, 1, 1]


def test_a_job_that_takes_too_long_is_stopped_by_any_engine(straylight_train, elsewhere) -> None:
    elsewhere.patience = 10**9
    ended = straylight_train(
        "-m", "data=blobs", "detector=knn", "hydra.launcher.timeout_s=0.01", "hydra.launcher.grace_s=3"
    )
    assert elsewhere.stopped == {"0@elsewhere": 3.0} and ended.status == 0, "it ended well before it was stopped"


WRONG = [
    ("detector=knn detector.k=5,abc", ("detector.k", "'abc'")),
    ("detector=vae detector.latent=2,x", ("detector.latent", "'x'")),
    ("detector=vae,knn optimizer.lr=1e-3,fast", ("optimizer.lr", "'fast'")),
    ("detector=knn threads=1,0", ("threads", "0")),
    ("detector=knn seed=0,-1", ("seed", "-1")),
    ("detector=knn trainer.max_epochs=1,many", ("trainer.max_epochs", "'many'")),
    ("detector=knn +detector.latnt=1,2", ("latnt", "k")),
    ("detector=knn data.nominl=1,2", ("nominl",)),
    ("detector=knn,vea", ("'vea'", "'vae'")),
    ("detector=knn seed=0,1 hydra.launcher.n_jobs=0", ("hydra.launcher.n_jobs", "0")),
    ("detector=knn seed=0,1 hydra.launcher.retry=-1", ("hydra.launcher.retry", "-1")),
]


@pytest.mark.parametrize(("asked", "words"), WRONG)
def test_a_wrong_value_is_refused_once_before_there_is_a_job_or_a_folder(
    asked, words, straylight_train, elsewhere
) -> None:
    ended = straylight_train("-m", "data=blobs", *asked.split())
    lines = [line for line in ended.err.splitlines() if line.strip()]
    assert ended.status == 1 and len(lines) == 1 and lines[0].startswith("Error: "), ended.err
    assert all(word in lines[0] for word in words), lines[0]
    assert not elsewhere.submitted and not ended.folder.exists()


# the machine's own engine


@pytest.fixture
def four_cores(monkeypatch) -> None:
    monkeypatch.setattr(pool, "warm", lambda: None)
    monkeypatch.setattr(local, "CORES", 4)


@pytest.mark.parametrize(
    ("machine", "asked", "at_once", "threads"),
    [
        ({}, Asked(threads=1), 4, None),
        ({}, Asked(threads=2), 2, None),
        ({}, Asked(ranks=2, threads=1), 2, None),
        ({}, Asked(threads=None), 1, 4),
        ({}, Asked(threads=9), 1, None),
        ({"n_jobs": 2}, Asked(threads=None), 2, 2),
        ({"n_jobs": 3}, Asked(threads=8), 3, None),
    ],
)
def test_so_many_jobs_run_at_once_with_so_many_threads(four_cores, machine, asked, at_once, threads) -> None:
    engine = local.LocalEngine(local.Machine(**machine))
    places = []
    while (place := engine._place(asked)) is not None:
        places.append(place)
    assert len(places) == at_once and engine._threads(asked, places[0]) == threads


def test_each_job_has_the_threads_of_its_own_config(four_cores) -> None:
    engine = local.LocalEngine()
    assert engine._place(Asked(threads=3)) and engine._place(Asked(threads=1)) and not engine._place(Asked(threads=1))


class Done:
    """Processes that are over as soon as they are looked at."""

    line, started, waited_for, ended = "", 0.0, (), Ended(0)

    def __init__(self, errands, worker, patience_s, store) -> None:
        self.errands = errands

    def look(self) -> bool:
        return True

    def close(self) -> None:
        return None


def test_a_place_is_free_again_when_its_job_has_ended(four_cores, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(pool, "Processes", Done)
    engine = local.LocalEngine(local.Machine(n_jobs=1))
    for number in range(3):
        id = engine.submit(RunFolder(tmp_path / str(number)), Asked(threads=1))
        assert id is not None and engine.submit(RunFolder(tmp_path / "other"), Asked(threads=1)) is None
        assert engine.look([id, "unknown"]) == {id: Ended(0), "unknown": Ended(None)}


# a job is a folder


def test_a_jobs_folder_is_done_by_whoever_is_given_it(straylight_train, elsewhere, tmp_path, monkeypatch) -> None:
    (tmp_path / "watching.py").write_text(
        "import json, os\nfrom pathlib import Path\nfrom hydra.experimental.callback import Callback\n"
        "from hydra.core.hydra_config import HydraConfig\n"
        "class Watch(Callback):\n"
        "    def on_job_start(self, config, **more):\n"
        "        Path('started.json').write_text(json.dumps([os.environ['MINE'], HydraConfig.get().job.num]))\n"
        "    def on_job_end(self, config, job_return, **more):\n"
        "        Path('ended.json').write_text(json.dumps([job_return.return_value, os.getcwd()]))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    straylight_train(
        "-m",
        "data=blobs",
        "detector=knn",
        "seed=3",
        "objective=duration_s",
        f"hydra.sweep.dir={tmp_path}/sweep",
        "hydra.job.chdir=true",
        "+hydra.job.env_set.MINE=set",
        "+hydra.callbacks.watch._target_=watching.Watch",
    )
    folder = RunFolder(tmp_path / "sweep" / "0")
    folder.result.unlink()
    here = Path.cwd()
    assert job([str(folder)]) == 0
    result = folder.read()
    assert result is not None and result["status"] == "ok" and result["metrics"]["test/auroc"] > 0.9
    assert result["seed"] == 3 and result["run"] == Order.read(folder).run
    assert json.loads((folder.path / "started.json").read_text()) == ["set", 0]
    assert json.loads((folder.path / "ended.json").read_text()) == [result["duration_s"], str(folder)]
    assert Path.cwd() == here and "MINE" not in os.environ
    assert "AUROC" in folder.log().read_text()


def test_numbers_of_a_job_are_those_that_were_typed(tmp_path) -> None:
    folder = RunFolder(tmp_path)
    config = {"detector": {"far": math.inf, "near": -math.inf, "none": None, "small": 1e-300, "third": 1 / 3}}
    Order("abc", config, {}).write(folder)
    assert Order.read(folder).config == config
    Order("abc", {"detector": {"unknown": math.nan}}, {}).write(folder)
    assert math.isnan(Order.read(folder).config["detector"]["unknown"])


@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"run": "x"}', '{"run": "x", "config": {}, "fields": {}, "new": 1}']
)
def test_a_folder_that_is_no_jobs_is_refused_in_a_sentence(content, tmp_path, capsys) -> None:
    if content is not None:
        (tmp_path / "job.json").write_text(content)
    assert job([str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and str(tmp_path) in said and said.count("\n") == 1


# whose a sweep's folder is


def holder(folder: Path, *, host: str, pid: int, alone: bool, silent_s: float = 0.0) -> Path:
    """The lease of another sweep."""
    path = folder / ".lease.other"
    born = psutil.Process(pid).create_time() if psutil.pid_exists(pid) else 0.0
    path.write_text(json.dumps({"host": host, "pid": pid, "born": born, "alone": alone}))
    os.utime(path, (time.time() - silent_s,) * 2)
    return path


HERE = socket.gethostname()
DEAD = 2**22 - 5


@pytest.mark.parametrize(
    ("other", "alone", "free"),
    [
        ({"host": HERE, "pid": os.getpid(), "alone": False}, True, False),
        ({"host": HERE, "pid": os.getpid(), "alone": True}, False, False),
        ({"host": HERE, "pid": os.getpid(), "alone": False}, False, True),
        ({"host": HERE, "pid": DEAD, "alone": True}, True, True),
        ({"host": "other", "pid": os.getpid(), "alone": True}, True, False),
        ({"host": "other", "pid": DEAD, "alone": False}, True, False),
        ({"host": "other", "pid": DEAD, "alone": True, "silent_s": 1000}, True, True),
    ],
)
def test_a_lease_holds_while_its_holder_lives_on_whatever_machine(other, alone, free, tmp_path) -> None:
    path = holder(tmp_path, **other)
    if not free:
        with pytest.raises(ConfigError, match="A sweep is running"), lease.leased(tmp_path, alone):
            pass
        assert path.exists()
    else:
        with lease.leased(tmp_path, alone):
            assert [p for p in tmp_path.glob(".lease.*") if p != path]
    assert [p for p in tmp_path.glob(".lease.*") if p != path] == []


def test_a_lease_is_renewed_while_it_is_held(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(lease, "RENEWED_S", 0.01)
    with lease.leased(tmp_path, alone=True):
        (mine,) = tmp_path.glob(".lease.*")
        os.utime(mine, (0, 0))
        deadline = time.monotonic() + 10
        while mine.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - mine.stat().st_mtime < 60
