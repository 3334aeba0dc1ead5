"""`straylight score --workers`: every row once and in its order, whoever dies at whatever moment."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import finished_run
from straylight.commands.score import main
from straylight.engines import choose
from straylight.engines.base import Ended, Running
from straylight.errors import ConfigError
from straylight.folder import RunFolder
from straylight.job.order import Order
from straylight.job.perform import perform
from straylight.scoring import crew as crew_module
from straylight.scoring.claims import Claims, living, working
from straylight.scoring.ranges import cuts
from straylight.scoring.tasks import Folder, Tasks

STRAYLIGHT = [sys.executable, "-m", "straylight", "score"]


def mine(n: int, seed: int) -> pa.Table:
    """Rows whose id says which they are."""
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "id": [f"{seed}-{i}" for i in range(n)],
            "a": rng.normal(size=n),
            "b": rng.normal(size=n),
            "service": np.array(["http", "dns", "smtp"])[rng.integers(0, 3, n)],
            "status": np.where(np.arange(n) % 20, "ok", "bad"),
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("worked")
    pq.write_table(mine(400, 0), folder / "mine.parquet")
    options = ["data.label=status", "data.nominal=ok", "data.meta=[id]", "data.val_fraction=0.4", "detector=pca"]
    data = ["data=file", f"data.path={folder / 'mine.parquet'}", "callbacks.thresholds.fprs=[0.1]"]
    return finished_run(folder / "run", *data, *options, f"hydra.run.dir={folder / 'run'}")


@pytest.fixture(scope="module")
def days(tmp_path_factory) -> Path:
    """A folder of files, of which one is large and has several row groups."""
    folder = tmp_path_factory.mktemp("days") / "days"
    folder.mkdir()
    for day in range(5):
        pq.write_table(mine(300 + day, day), folder / f"{day}.parquet")
    pq.write_table(mine(6000, 9), folder / "large.parquet", row_group_size=700)
    return folder


@pytest.fixture(scope="module")
def expected(run, days, tmp_path_factory) -> dict[str, bytes]:
    """What one process makes of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("straylight.files.recipe.BYTES", 2**15)
        out = tmp_path_factory.mktemp("plain")
        assert typed(run, days, "-o", f"{out}/*.csv", "--threads", 1) == 0
    return scored(out)


@pytest.fixture
def small(monkeypatch) -> None:
    """What is read together, and a file that is cut in parts, are small."""
    monkeypatch.setattr("straylight.files.recipe.BYTES", 2**15)
    monkeypatch.setattr("straylight.scoring.tasks.LARGE", 2**15)


def typed(*arguments: object) -> int:
    """The exit status of the command."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as error:
        return int(error.code or 0)
    except KeyboardInterrupt:
        return 130
    return 0


def scored(folder: Path) -> dict[str, bytes]:
    """The outputs in a folder."""
    there = [path for path in folder.rglob("*") if path.is_file() and ".scoring" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in there if path.name != "scored.json"}


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """When each output was written."""
    return {name: ((folder / name).stat().st_ino, (folder / name).stat().st_mtime_ns) for name in scored(folder)}


# workers of an engine of ours, which can be made to die at a moment, and outlive whoever started them

JOB = """
import os, signal, sys, time
from contextlib import suppress
from pathlib import Path
import torch

torch.set_num_threads(1)
from straylight.files import recipe

recipe.BYTES = 2**15
from straylight.scoring import claims, work, worker

folder, moment, once, times = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])


def die(first=lambda: None):
    for time in range(times):  # so many do
        try:
            once.with_name(f"{once.name}{time}").mkdir()
        except FileExistsError:
            continue
        first()
        os.kill(os.getpid(), signal.SIGKILL)


def around(owner, name, before=lambda *a, **k: None, after=lambda *a, **k: None):
    plain = getattr(owner, name)

    def wrapped(*arguments, **named):
        before(*arguments, **named)
        value = plain(*arguments, **named)
        after(*arguments, **named)
        return value

    setattr(owner, name, wrapped)


def half(aside, *rest):
    die(lambda: os.truncate(aside, aside.stat().st_size // 2))


def of_outputs(aside, path, durable=True):
    durable and die()


def of_pieces(aside, path, durable=True):
    durable or die()


def at_2(given, *rest):
    given.given.name == "2" and die()


def hold():
    with suppress(FileExistsError):
        return once.with_name("first").mkdir()
    while not once.with_name("go").exists():
        time.sleep(0.05)


match moment:
    case "claimed":
        around(worker._Worker, "_do", before=lambda self, unit: die())
    case "piece half written":
        around(work, "write_piece", after=lambda scorer, given, wanted, path, *rest: half(path))
    case "piece entered":
        around(work, "take_place", before=of_pieces)
    case "piece in place":
        around(work, "take_place", after=of_pieces)
    case "output half written":
        around(work, "write", after=half)
    case "output entered":
        around(work, "take_place", before=of_outputs)
    case "output in place":
        around(work, "take_place", after=of_outputs)
    case "done":
        around(claims.Claims, "end", after=lambda self, key: die())
    case "at 2":
        around(worker._Worker, "_whole", before=lambda self, task: at_2(task))
    case "held":
        around(work, "write", before=lambda *a: hold())
    case "broken":
        around(worker, "scorer_of", before=lambda *a: 1 / 0)
from straylight.job.__main__ import main

sys.exit(main([folder]))
"""
MOMENTS = [
    "claimed",
    "piece half written",
    "piece entered",
    "piece in place",
    "output half written",
    "output entered",
    "output in place",
    "done",
]


class Processes:
    """An engine whose jobs outlive it."""

    name = "processes"

    def __init__(self, fresh, place: Path, moment: str = "never", times: int = 1) -> None:
        self._fresh, self._more = fresh, [moment, str(place / "died"), str(times)]
        self.programs: dict[str, object] = {}
        self.tick: Callable[[], None] = lambda: None

    def submit(self, folder, asked):
        program = self._fresh.start([sys.executable, "-c", JOB, str(folder), *self._more], silent=True)
        self.programs[str(program.pid)] = program
        return str(program.pid)

    def look(self, ids):
        codes = {id: self.programs[id].poll() if id in self.programs else 1 for id in ids}
        return {
            id: Running() if code is None else Ended(code if code >= 0 else None, -code if code < 0 else None)
            for id, code in codes.items()
        }

    def wait(self, ids, seconds):
        time.sleep(0.05)
        self.tick()

    def stop(self, id, grace_s):
        self.programs[id].send_signal(signal.SIGINT if grace_s else signal.SIGKILL)

    def close(self):
        pass


@pytest.fixture
def engine(fresh, tmp_path, monkeypatch) -> Callable[..., Processes]:
    def made(moment: str = "never", times: int = 1) -> Processes:
        one = Processes(fresh, tmp_path, moment, times)
        monkeypatch.setattr(choose, "engine", lambda name, options, at_once, place: one)
        return one

    return made


def killed(engine: Processes, monkeypatch) -> None:
    """Let whoever starts workers die as soon as one of these has."""

    def end():
        if any(program.poll() is not None for program in engine.programs.values()):
            raise KeyboardInterrupt

    engine.tick = end
    monkeypatch.setattr(crew_module._Watch, "_end", lambda self, wait_s: None)


@pytest.mark.parametrize("both", [False, True], ids=["worker", "worker and driver"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_any_moment_loses_nothing_and_repeats_nothing(
    run, days, expected, tmp_path, small, engine, moment, both, monkeypatch
):
    out = tmp_path / "out"
    command = [run, days, "-o", f"{out}/*.csv", "--threads", 1, "--workers", 2]
    one = engine(moment)
    if both:
        with monkeypatch.context() as patch:
            killed(one, patch)
            assert typed(*command) == 130
        for program in one.programs.values():
            program.kill()
            program.wait(60)
        one.tick = lambda: None
        before = written(out)
        assert {name: expected[name] for name in before} == scored(out)
        assert typed(*command) == 0
        assert before.items() <= written(out).items()
    else:
        assert typed(*command) == 0
    assert (tmp_path / "died0").is_dir()
    assert scored(out) == expected and not (out / ".scoring").exists()
    known = json.loads((out / "scored.json").read_text())["files"]
    assert {name: entry["known"]["rows"] for name, entry in known.items()} == {
        name: held.count(b"\n") - 1 for name, held in expected.items()
    }


def test_kills_of_the_command_and_its_workers_lose_nothing_and_repeat_nothing(run, tmp_path, fresh):
    for day in range(10):
        pq.write_table(mine(4000, day), tmp_path / f"{day}.parquet")
    files = [str(tmp_path / f"{day}.parquet") for day in range(10)]
    assert typed(run, *files, "-o", f"{tmp_path}/plain/*.csv", "--threads", 1) == 0
    expected, out = scored(tmp_path / "plain"), tmp_path / "out"
    rng, alive = random.Random(0), Folder(out / ".scoring").alive

    def start():
        options = ["-o", f"{out}/*.csv", "--threads", "1", "--workers", "2"]
        return fresh.start([*STRAYLIGHT, str(run), *files, *options], silent=True)

    def workers():
        leases = [json.loads(path.read_text()) for path in alive.glob("*/.lease.*") if path.stat().st_size]
        return [lease["pid"] for lease in leases]

    def kill(pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    for round in range(8):
        before, program = written(out) if out.exists() else {}, start()
        until = time.monotonic() + 120
        while program.poll() is None and not workers() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        whom = round % 4
        if whom in (0, 1):  # a worker, or both
            for pid in workers()[: whom + 1]:
                kill(pid)
            time.sleep(rng.uniform(0, 0.2))
        if whom == 2:
            program.send_signal(signal.SIGINT)
            assert program.wait(120) in (0, 130)
        program.kill()
        program.wait(120)
        after = written(out) if out.exists() else {}
        assert before.items() <= after.items()
        assert {name: expected[name] for name in after} == scored(out)
    before = written(out) if out.exists() else {}
    assert start().wait(300) == 0
    assert scored(out) == expected and before.items() <= written(out).items()
    assert not (out / ".scoring").exists()


# the same as without

OPTIONS = {
    "thresholds": ["--threshold", "fpr=0.2", "--threshold", "fdr=0.3", "--top", "4", "--keep", "b,service"],
    "rules": ["--missing", "skip", "--unseen", "skip", "--explain", "2", "--top", "3"],
    "none": ["--threshold", "none"],
}


@pytest.mark.parametrize("ending", [".parquet", ".npz"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_workers_write_what_one_command_writes_and_say_the_same(
    run, days, tmp_path, small, engine, options, ending, capsys, monkeypatch
):
    shutil.copytree(days, tmp_path / "days")
    monkeypatch.chdir(tmp_path)
    days = tmp_path / "days"
    large = pq.read_table(days / "large.parquet")
    texts = large["service"].to_pylist()
    texts[2500], texts[5100], numbers = None, "ftp", large["a"].to_pylist()
    numbers[4000] = float("nan")
    changed = large.set_column(3, "service", pa.array(texts)).set_column(1, "a", pa.array(numbers))
    pq.write_table(changed, days / "large.parquet", row_group_size=700)
    (days / "bad.csv").write_text("x\n1\n")
    (days / "damaged.parquet").write_bytes((days / "1.parquet").read_bytes()[:3000])
    one = engine()
    said = {}
    for name, more in {"plain": [], "crew": ["--workers", 3]}.items():
        assert typed(run, "days", "-o", f"{name}/*{ending}", "--threads", 1, *options, *more, "--json") == 1
        told = capsys.readouterr()
        notices = [line for line in told.err.splitlines() if "cannot be scored" in line or "ignored" in line]
        said[name] = {**json.loads(told.out.replace(f'"{name}/', '"')), "notices": notices}
    for key, value in said["plain"].items():
        assert said["crew"][key] == value
    assert len(one.programs) == 3 and len(said["crew"]["failed"]) == (2 if "skip" in options else 3)
    assert scored(tmp_path / "crew") == scored(tmp_path / "plain")
    digests = {
        name: {
            out: entry["sha256"] for out, entry in json.loads(Path(name, "scored.json").read_text())["files"].items()
        }
        for name in said
    }
    assert digests["crew"] == digests["plain"]


def test_members_of_an_ensemble_are_scored_by_workers_too(days, tmp_path, small, engine, straylight_train):
    own = ["data.label=status", "data.nominal=ok", "data.features=[a,b]", "trainer.max_epochs=1"]
    own += ["detector=ensemble", "detector.members=2"]
    run = straylight_train("data=file", f"data.path={days / 'large.parquet'}", *own).run
    engine()
    for name, more in {"plain": [], "crew": ["--workers", 2]}.items():
        assert typed(run, days, "-o", tmp_path / name, "--members", "--threads", 1, *more) == 0
    assert scored(tmp_path / "crew") == scored(tmp_path / "plain")
    assert "member_1" in pq.read_table(tmp_path / "crew" / "large.parquet").column_names


def test_a_large_file_is_cut_where_chunks_end_near_row_groups(tmp_path, days):
    with pq.ParquetFile(days / "large.parquet") as file:
        found = cuts(file.metadata, 500, 2**14)
        assert cuts(file.metadata, 10_000, 1) == [range(6000)]
    assert len(found) > 2 and found[0].start == 0 and found[-1].stop == 6000
    assert all(one.stop == other.start and one.stop % 500 == 0 for one, other in pairwise(found))
    assert all((one.stop // 500 * 500 + 499) // 700 >= one.stop // 700 for one in found)


def test_a_large_file_is_scored_in_parts(run, days, tmp_path, small, engine, monkeypatch):
    seen = []
    write = Tasks.write
    monkeypatch.setattr(Tasks, "write", lambda self, path: (seen.append(self), write(self, path)))
    engine()
    assert typed(run, days, "-o", tmp_path / "out", "--workers", 2) == 0
    parts = {task.given.name: len(task.rows) for task in seen[0].all}
    assert parts.pop("large") > 2 and set(parts.values()) == {0}


# those who outlive the command


def test_a_second_command_goes_on_with_the_workers_of_one_that_died(
    run, days, expected, tmp_path, small, engine, monkeypatch, capsys
):
    out, one = tmp_path / "out", engine("held")
    command = [run, days, "-o", f"{out}/*.csv", "--threads", 1, "--workers", 2]
    with monkeypatch.context() as patch:
        killed(one, patch)

        def end():
            if scored(out) and len(living(Folder(out / ".scoring").alive)) == 2:
                raise KeyboardInterrupt

        one.tick = end
        assert typed(*command) == 130
    one.tick = lambda: None
    before = written(out)
    capsys.readouterr()
    for other in ([*command, "--threshold", "fpr=0.2"], command[:-2]):
        assert typed(*other) == 2
        assert "still score to" in capsys.readouterr().err
    (tmp_path / "go").touch()
    assert typed(*command) == 0
    assert len(one.programs) == 2  # and no more
    assert scored(out) == expected and before.items() <= written(out).items()
    assert not (out / ".scoring").exists()
    after = written(out)
    assert typed(*command) == 0 and written(out) == after and len(one.programs) == 2


def test_one_command_keeps_what_workers_left(run, days, tmp_path, small, engine, monkeypatch, capsys):
    out, one = tmp_path / "out", engine("output in place", times=2)
    with monkeypatch.context() as patch:
        killed(one, patch)

        def end():
            if (tmp_path / "died1").is_dir():
                raise KeyboardInterrupt

        one.tick = end
        assert typed(run, days, "-o", out, "--threads", 1, "--workers", 2) == 130
    for program in one.programs.values():
        program.kill()
        program.wait(60)
    before = written(out)
    assert len(before) >= 2
    capsys.readouterr()
    assert typed(run, days, "-o", out, "--threads", 1) == 0
    assert capsys.readouterr().out.count("scored before") == len(before)
    assert len(scored(out)) == 6 and before.items() <= written(out).items() and not (out / ".scoring").exists()


def test_a_file_at_which_workers_die_fails_alone(run, days, tmp_path, small, engine, capsys):
    one = engine("at 2", times=100)
    assert typed(run, days, "-o", tmp_path / "out", "--workers", 2) == 1
    assert "2.parquet cannot be scored: 3 workers ended while they were at it." in capsys.readouterr().err
    assert sorted(scored(tmp_path / "out")) == [f"{name}.parquet" for name in (0, 1, 3, 4, "large")]
    assert len(one.programs) <= 6


def test_workers_that_always_end_are_not_started_for_ever(run, days, tmp_path, small, engine, capsys):
    one = engine("broken")
    command = [run, days, "-o", tmp_path / "out", "--workers", 2]
    assert typed(*command) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(error) == 1 and "6 of 6 files are not scored" in error[0] and "ZeroDivisionError" in error[0]
    assert len(one.programs) == 2 * (1 + crew_module.AGAIN)
    engine()
    assert typed(*command) == 0 and len(scored(tmp_path / "out")) == 6


def test_a_claim_is_anothers_once_its_worker_is_gone(tmp_path):
    (tmp_path / "claims").mkdir()
    with working(tmp_path / "alive") as me, working(tmp_path / "alive") as other:
        one, two = (Claims(tmp_path / "claims", tmp_path / "alive", name) for name in (me.name, other.name))
        assert one.new("a") and not two.new("a") and not two.take("a") and one.mine("a")
        lease = next(me.glob(".lease.*"))
        held = json.loads(lease.read_text())
        lease.write_text(json.dumps({**held, "host": "elsewhere"}))
        assert not two.take("a")  # on another machine, and not silent for long
        os.utime(lease, (time.time() - 1000, time.time() - 1000))
        assert two.deaths("a") == 1 and two.take("a") and not one.mine("a") and two.mine("a")
        two.end("a")
        assert two.over("a") and not one.take("a")
    assert living(tmp_path / "alive") == []


# what is typed


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--workers", "2"], "say -o FOLDER/"),
        (["-o", "scores.csv", "--workers", "2"], "say -o FOLDER/"),
        (["-o", "-", "--workers", "2"], "say -o FOLDER/"),
        (["-o", "out/", "--workers", "0"], "--workers must be 1 or more, not 0"),
        (["-o", "out/", "--engine", "local"], "--engine is for workers: say how many by --workers"),
        (["-o", "out/", "--engine-option", "gpus=1"], "--engine-option is for workers"),
        (["-o", "out/", "--workers", "2", "--engine", "lokal"], "not 'lokal' (did you mean 'local'?)"),
        (["-o", "out/", "--workers", "2", "--engine-option", "gpus"], "--engine-option is KEY=VALUE"),
        (["-o", "out/", "--workers", "2", "--engine-option", "gpu=1"], "no 'gpu' (did you mean 'gpus'?)"),
        (["-o", "out/", "--workers", "2", "--engine-option", "jobs_per_gpu=0"], "jobs_per_gpu must be a positive"),
        (["-o", "out/", "--workers", "2", "--runtime", "auto"], "say torch or onnx"),
        (["-o", "out/", "--workers", "2", "--device", "cuda:1"], "names one card"),
        (["-", "-o", "out/", "--workers", "2"], "cannot share standard input"),
        (["-o", "out/", "--workers", "2", "--threshold", "best"], "has no threshold 'best'"),
    ],
    ids=str,
)
def test_what_is_asked_wrongly_is_one_sentence(run, tmp_path, monkeypatch, arguments, said, capsys):
    monkeypatch.chdir(tmp_path)
    pq.write_table(mine(30, 1), tmp_path / "new.parquet")
    assert typed(run, "new.parquet", *arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and said in errors[0] and errors[0].endswith(".")
    assert [path.name for path in tmp_path.iterdir()] == ["new.parquet"]


def test_more_workers_than_files_are_not_started(run, tmp_path, engine, capsys):
    pq.write_table(mine(30, 1), tmp_path / "new.parquet")
    one = engine()
    assert typed(run, tmp_path / "new.parquet", "-o", tmp_path / "out", "--workers", 4) == 0
    assert "1 worker is started, not 4." in capsys.readouterr().err and len(one.programs) == 1


def test_a_folder_asks_for_no_other_task(tmp_path):
    Order("a", {}, {}, task="os.system").write(RunFolder(tmp_path))
    with pytest.raises(ConfigError, match=r"asks for 'os.system'; a job is train or score"):
        perform(tmp_path)
