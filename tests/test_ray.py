"""Sweeps on Ray: a cluster of two nodes with one CPU each on this machine, and one that a sweep starts for itself."""

from __future__ import annotations

import importlib.machinery
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from crashing import by_override, hanging, make
from hydra_plugins.straylight_local import ray as plugin
from straylight import extras
from straylight.engines.ray.cluster import _Place
from straylight.engines.ray.engine import RayEngine, _Job, _own_path
from straylight.engines.ray.options import Needs, Options
from straylight.engines.ray.ranks import Meeting, World
from straylight.errors import ConfigError
from straylight.folder import RunFolder, SweepFolder
from straylight.job.devices import Asked
from straylight.job.order import Order

HERE = find_spec("ray") is not None
skipped = pytest.mark.skipif(not HERE, reason="no Ray: pip install 'straylight[ray]'")


def real(test: Callable[..., Any]) -> Callable[..., Any]:
    return pytest.mark.cluster(skipped(test))


pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
]

# what is asked for


@pytest.mark.parametrize(
    ("options", "asked", "needs"),
    [
        ({}, Asked(threads=1), (1, 0, 1)),
        ({}, Asked(threads=None), (1, 0, 1)),
        ({}, Asked(ranks=2, threads=3), (6, 0, 1)),
        ({}, Asked(ranks=2, gpus=2, threads=1), (2, 2, 1)),
        ({"cpus": 4}, Asked(threads=1), (4, 0, 1)),
        ({"gpus": 0.5}, Asked(gpus=1, threads=1), (1, 0.5, 1)),
        ({"gpus": 0.25, "cpus": 0.5}, Asked(threads=1), (0.5, 0.25, 1)),
        ({"gpus": 0}, Asked(gpus=1, threads=1), (1, 0, 1)),
        ({}, Asked(ranks=2, threads=1, nodes=3), (2, 0, 3)),
    ],
)
def test_a_job_asks_ray_for_what_its_config_or_the_options_say(options, asked, needs) -> None:
    assert Options(**options).needs(asked) == needs


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cpus": 0}, "hydra.launcher.cpus must be a positive number, not 0"),
        ({"cpus": "many"}, "hydra.launcher.cpus must be a positive number, not 'many'"),
        ({"gpus": -1}, "hydra.launcher.gpus must be a number of at least 0, not -1"),
        ({"gpus": 1.5}, "hydra.launcher.gpus must be a whole number or a fraction below 1, not 1.5"),
        ({"autoscaling": "yes"}, "hydra.launcher.autoscaling must be true or false, not 'yes'"),
        ({"environment": "PATH"}, "hydra.launcher.environment must be a list of names"),
        ({"environment": ["A=B"]}, "hydra.launcher.environment must be a list of names"),
        ({"address": "here"}, "hydra.launcher.address must be HOST:PORT"),
        ({"address": "ray://head:10001"}, "not through Ray's client"),
        ({"address": "head:99999"}, "hydra.launcher.address must be HOST:PORT"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(wrong, words) -> None:
    with pytest.raises(ConfigError) as refused:
        Options(**wrong)
    assert words in str(refused.value) and str(refused.value).count(". ") == 0


def test_the_options_are_those_that_the_config_has() -> None:
    assert {**plugin.OPTIONS, "environment": tuple(plugin.OPTIONS["environment"])} == vars(Options())


def test_without_ray_a_sentence_says_how_to_install_it(straylight_train, monkeypatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    ended = straylight_train("-m", "data=blobs", "detector=hbos", "seed=0,1", "hydra/launcher=ray")
    assert ended.status == 1 and not ended.folder.exists()
    said = "Error: hydra/launcher=ray needs ray, which is not installed: pip install 'straylight[ray]'."
    assert ended.err.strip() == said


def test_where_nobody_answers_nothing_is_begun(straylight_train, monkeypatch) -> None:
    spec = importlib.machinery.ModuleSpec("ray", None, origin="here")
    monkeypatch.setattr(extras, "find_spec", lambda package: spec)
    ended = straylight_train(
        "-m", "data=blobs", "detector=hbos", "seed=0,1", "hydra/launcher=ray", "hydra.launcher.address=127.0.0.1:9"
    )
    assert ended.status == 1 and not ended.folder.exists()
    assert "Error: hydra.launcher.address=127.0.0.1:9 does not answer (Connection refused)" in ended.err


def test_ranks_are_numbered_as_torchrun_would() -> None:
    said = [World(node, 2, 2).environment(local, Meeting("h", 1, "x")) for node in (0, 1) for local in (0, 1)]
    assert [s["RANK"] for s in said] == ["0", "1", "2", "3"] and [s["LOCAL_RANK"] for s in said] == ["0", "1"] * 2
    assert {(s["WORLD_SIZE"], s["LOCAL_WORLD_SIZE"], s["MASTER_ADDR"], s["MASTER_PORT"]) for s in said} == {
        ("4", "2", "h", "1")
    }
    assert [s["GROUP_RANK"] for s in said] == ["0", "0", "1", "1"]


def test_jobs_look_for_modules_where_the_sweep_does_and_not_in_another_machines_python(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert _own_path()[0] == str(tmp_path)
    assert not any(path.startswith((sys.prefix, sys.base_prefix)) for path in _own_path())


def test_needs_are_said_in_words() -> None:
    assert Needs(2, 0.5, 3).words == "2 CPUs and 0.5 GPUs on each of 3 nodes"


# on a cluster

LEAN = ("callbacks=numbers", "logger=none")


class Nodes:
    """Two nodes of one CPU each; the second may die, and another come."""

    def __init__(self) -> None:
        self.place = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        head = ["--head", f"--port={self.address.split(':')[1]}", f"--temp-dir={self.place.name}"]
        self.head = self._started(*head, "--include-dashboard=false", "--disable-usage-stats")
        self.another()

    def another(self) -> None:
        """Start the second node."""
        served = Path(self.place.name, "session_latest", "node_ip_address.json")
        first = served.read_text()
        self.second = self._started(f"--address={self.address}", host="127.0.0.2")
        served.write_text(first)  # a driver here is served by the node that stays, not by the last that has come

    def kill_the_second(self) -> None:
        """As if it lost its power: what is left of it must end by itself."""
        (raylet,) = [p for p in psutil.Process(self.second.pid).children() if "raylet" in p.name()]
        raylet.kill()
        self.second.wait(60)
        assert self.second.stdout is not None
        self.second.stdout.close()

    def close(self) -> None:
        running = [psutil.Process(node.pid) for node in (self.second, self.head) if node.poll() is None]
        for process in [below for node in running for below in (*node.children(recursive=True), node)]:
            with suppress(psutil.Error):
                process.kill()
        for node in (self.second, self.head):
            node.wait(60)
            assert node.stdout is not None
            node.stdout.close()
        self.place.cleanup()

    def _started(self, *how: str, host: str = "127.0.0.1") -> subprocess.Popen[str]:
        common = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000", f"--node-ip-address={host}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *how, *common, "--block"]
        node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert node.stdout is not None
        said = ""
        while "Ray runtime started" not in said:
            line = node.stdout.readline()
            assert line, f"ray start ended: {said}"
            said += line
        return node


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        found = Nodes()
        yield found
        found.close()


@pytest.fixture
def on_ray(nodes, straylight_train) -> Callable[..., Any]:
    """`straylight train -m` on the cluster."""

    def run(*arguments: str) -> Any:
        ray = ("hydra/launcher=ray", f"hydra.launcher.address={nodes.address}")
        return straylight_train("-m", *ray, *LEAN, *arguments, pictures=False)

    return run


@pytest.fixture
def crashing(tmp_path, monkeypatch) -> str:
    monkeypatch.syspath_prepend(tmp_path)
    return make(tmp_path)


@real
def test_a_job_that_fails_costs_itself_alone_and_each_attempt_is_one_of_the_sweeps(on_ray, crashing, tmp_path) -> None:
    ended = on_ray(
        crashing, "data=blobs", "detector=crash", "detector.how=none,raise,kill,once", "hydra.launcher.retry=1"
    )
    assert ended.status == 1
    found = by_override(ended, "detector.how")
    assert {how: result["status"] for how, result in found.items()} == {
        "none": "ok", "raise": "failed", "kill": "failed", "once": "ok",
    }  # fmt: skip
    assert found["raise"]["reason"] == "RuntimeError: it broke"
    assert "signal 9 (SIGKILL" in found["kill"]["reason"]
    attempts = {how: len((tmp_path / f"pids.{how}").read_text().split()) for how in found}
    assert attempts == {"none": 1, "raise": 2, "kill": 2, "once": 2}
    assert "again: The job's process ended with status 9" in ended.out
    assert "#0 queued: detector.how=none" in ended.out
    folder = RunFolder(found["none"]["folder"])
    assert Order.read(folder).engine == "ray" and folder.log(0).is_file() and not folder.progress.exists()
    assert (next((ended.folder / "sweeps").iterdir()) / "leaderboard.csv").is_file()


@real
def test_a_job_that_takes_too_long_is_stopped_with_all_it_started(on_ray, crashing) -> None:
    ended = on_ray(
        crashing, "data=blobs", "detector=crash", "detector.how=hang,none", "hydra.launcher.timeout_s=10",
        "hydra.launcher.grace_s=1",
    )  # fmt: skip
    found = by_override(ended, "detector.how")
    assert found["hang"]["reason"] == "It was stopped after 10 s (hydra.launcher.timeout_s)."
    assert found["none"]["status"] == "ok"
    assert not hanging()


@real
def test_fail_fast_ends_what_runs_and_what_waits_at_ray(on_ray, crashing) -> None:
    ended = on_ray(
        crashing, "data=blobs", "detector=crash", "detector.how=stubborn,raise,none,hang",
        "hydra.launcher.fail_fast=true", "hydra.launcher.grace_s=1",
    )  # fmt: skip
    assert ended.status == 1 and "with hydra.launcher.fail_fast the sweep ends" in ended.out
    statuses = [result["status"] for result in ended.results]
    assert statuses.count("failed") == 1 and "ok" not in statuses
    assert not [*Path.cwd().glob("hanging.*")] or not hanging()  # it may not have come so far


@real
def test_what_no_node_has_is_refused_and_not_waited_for(on_ray) -> None:
    ended = on_ray("data=blobs", "detector=hbos", "threads=1,2")
    assert ended.status == 1
    found = by_override(ended, "threads")
    assert found["1"]["status"] == "ok" and found["2"]["status"] == "failed"
    assert found["2"]["reason"].startswith("It asks for 2 CPUs (hydra.launcher.cpus, ")
    assert "the nodes of the Ray cluster are: 2 of 1 CPU." in found["2"]["reason"]


@real
def test_a_sweep_begun_here_goes_on_at_ray(on_ray, straylight_train, nodes, tmp_path) -> None:
    here = tmp_path / "sweep"
    common = (*LEAN, "data=blobs", "detector=hbos", "seed=0,1", f"hydra.sweep.dir={here}")
    straylight_train("-m", *common, pictures=False)
    RunFolder(here / "1").result.unlink()
    kept = RunFolder(here / "0").result.stat().st_mtime_ns
    again = straylight_train(
        "-m", f"resume={here}", "hydra/launcher=ray", f"hydra.launcher.address={nodes.address}", pictures=False
    )  # fmt: skip
    assert again.status == 0, again.out + again.err
    assert [result["status"] for result in SweepFolder(here).results()] == ["ok", "ok"]
    assert [Order.read(RunFolder(here / name)).engine for name in "01"] == ["local", "ray"]
    assert RunFolder(here / "0").result.stat().st_mtime_ns == kept


SLOW = """
import os, time
from pathlib import Path
from straylight.detectors import AutoEncoder
from straylight.stopping import STOP

class Slow(AutoEncoder):
    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        with open("epochs", "a") as file:
            print(self.current_epoch, file=file)
        if self.current_epoch == 3:
            Path(f"waiting.{os.getpid()}").touch()
            while not Path("go").exists() and not STOP.asked:
                time.sleep(0.05)
"""


@pytest.fixture
def slow(tmp_path, monkeypatch) -> str:
    """Brings `detector=slow`, which waits in its fourth epoch for a file `go`, or its end."""
    (tmp_path / "slow_detector.py").write_text(SLOW)
    (tmp_path / "own" / "detector").mkdir(parents=True)
    (tmp_path / "own" / "detector" / "slow.yaml").write_text("defaults: [autoencoder]\n_target_: slow_detector.Slow\n")
    monkeypatch.syspath_prepend(tmp_path)
    return f"--config-dir={tmp_path}/own"


def until(condition: Callable[[], Any], sweep: Any = None) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert sweep is None or sweep.poll() is None, sweep.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def begun(fresh: Any, folder: Path, *arguments: str) -> Any:
    """A sweep in a process of its own."""
    cheap = ["trainer.max_epochs=6", "callbacks.latency.budget_s=0.01", *LEAN]
    command = [sys.executable, "-m", "straylight", "train", "-m", *cheap, "data=blobs", *arguments]
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return fresh.start(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, merged=True)


@real
def test_ctrl_c_leaves_checkpoints_from_which_another_engine_goes_on(slow, nodes, fresh, tmp_path):
    here = tmp_path / "sweep"
    sweep = begun(
        fresh, tmp_path, slow, "detector=slow", "seed=0,1", f"hydra.sweep.dir={here}", "hydra/launcher=ray",
        f"hydra.launcher.address={nodes.address}", "hydra.launcher.grace_s=60",
    )  # fmt: skip
    until(lambda: len([*tmp_path.glob("waiting.*")]) == 2, sweep)
    sweep.send_signal(signal.SIGINT)
    out, _ = sweep.communicate(timeout=200)
    assert sweep.returncode == 130, out
    assert [result["status"] for result in SweepFolder(here).results()] == ["interrupted"] * 2
    assert all(RunFolder(here / name).checkpoint("interrupt").is_file() for name in "01")
    (tmp_path / "go").touch()
    (tmp_path / "epochs").unlink()
    again = begun(fresh, tmp_path, slow, f"resume={here}", "hydra/launcher=local")
    out, _ = again.communicate(timeout=300)
    assert again.returncode == 0, out
    assert "hydra.launcher.address" in out, "what the other launcher was told is dropped, and said so"
    assert [result["status"] for result in SweepFolder(here).results()] == ["ok"] * 2
    assert "0" not in (tmp_path / "epochs").read_text().split(), "they went on"


@real
def test_jobs_of_a_node_that_dies_go_on_elsewhere_from_their_checkpoint(slow, nodes, fresh, tmp_path) -> None:
    here = tmp_path / "sweep"
    sweep = begun(
        fresh, tmp_path, slow, "detector=slow", "seed=0,1", f"hydra.sweep.dir={here}", "hydra/launcher=ray",
        f"hydra.launcher.address={nodes.address}",
    )  # fmt: skip
    until(lambda: len([*tmp_path.glob("waiting.*")]) == 2, sweep)
    (tmp_path / "epochs").unlink()
    nodes.kill_the_second()
    try:
        jobs = [int(path.suffix[1:]) for path in tmp_path.glob("waiting.*")]
        until(lambda: not all(map(psutil.pid_exists, jobs)), sweep)  # what ran there ends by itself
        (tmp_path / "go").touch()
        out, _ = sweep.communicate(timeout=300)
        assert sweep.returncode == 0, out
        assert " started on " in out, "the nodes are told of jobs that take long enough"
        assert out.count("again: The job lost its node") == 1 and "Raylet is terminated" not in out
        assert [result["status"] for result in SweepFolder(here).results()] == ["ok"] * 2
        assert "0" not in (tmp_path / "epochs").read_text().split(), "it went on from its last epoch"
    finally:
        nodes.another()


@skipped
@pytest.mark.parametrize(
    ("error", "lost", "words"),
    [
        ("NodeDiedError", True, "The job lost its node"),
        ("WorkerCrashedError", True, "The job lost Ray's worker (WorkerCrashedError)"),
        ("LocalRayletDiedError", False, "The job cannot be reached any more, since Ray's node on this machine"),
    ],
)
def test_what_ray_says_of_a_task_that_it_lost(error, lost, words, tmp_path) -> None:
    import ray

    def get(task: Any) -> None:
        raise getattr(ray.exceptions, error)("gone")

    engine = RayEngine.__new__(RayEngine)
    engine._ray = SimpleNamespace(exceptions=ray.exceptions, get=get)
    ended = engine._ended(_Job(RunFolder(tmp_path), Needs(1, 0, 1), ["task"], frozenset()), 0)
    assert (ended.lost, ended.status) == (lost, None) and ended.words.startswith(words)


# a cluster of a sweep's own


@real
def test_scores_are_those_of_the_local_engine_bit_for_bit_and_nothing_is_left(straylight_train, tmp_path) -> None:
    import numpy as np

    common = ("-m", *LEAN, "data=blobs", "detector=vae,knn", "seed=1")
    before = set(psutil.Process().children(recursive=True))  # of other tests
    there = straylight_train(*common, "hydra/launcher=ray", output="ray", pictures=False)
    assert there.status == 0, there.out + there.err
    after = set(psutil.Process().children(recursive=True)) - before
    assert not [process for process in after if process.name() in ("raylet", "gcs_server")]
    assert not list(Path(tempfile.gettempdir()).glob(f"straylight-ray.{os.getpid()}*"))
    here = straylight_train(*common, output="local", pictures=False)
    assert here.status == 0
    for one, other in zip(there.results, here.results, strict=True):
        assert one["detector"] == other["detector"] and one["metrics"]["test/auroc"] == other["metrics"]["test/auroc"]
        scores, local = (RunFolder(r["folder"]).columns(RunFolder(r["folder"]).scores) for r in (one, other))
        for name in scores:
            np.testing.assert_array_equal(scores[name], local[name])


@real
def test_nothing_is_left_of_a_sweep_that_is_killed(crashing, fresh, tmp_path, monkeypatch) -> None:
    sweep = begun(fresh, tmp_path, crashing, "detector=crash", "detector.how=hang", "hydra/launcher=ray")
    until(lambda: [*tmp_path.glob("hanging.*")], sweep)
    (folder,) = [
        p for p in Path(tempfile.gettempdir()).glob("straylight-ray.*") if str(sweep.pid) in p.name and p.is_dir()
    ]
    sweep.kill()
    sweep.wait()
    monkeypatch.chdir(tmp_path)

    def left() -> list[str]:  # but for agents of Ray's, which take a minute to notice
        known = (" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"]))
        return [command for command in known if str(folder) in command and "agent" not in command]

    until(lambda: not left() and not hanging())
    _Place().close()  # the next one
    assert not folder.exists()


# a job of several nodes


@real
def test_a_job_of_two_nodes_has_a_rank_on_each_and_trains_as_one_process_does(on_ray, straylight_train) -> None:
    import numpy as np

    common = ("data=blobs", "detector=autoencoder", "seed=1", "trainer.max_epochs=3")
    ended = on_ray(*common, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=2")
    assert ended.status == 0, ended.out + ended.err
    folder = RunFolder(ended.result["folder"])
    assert folder.log(1).is_file() and Order.read(folder).nodes == 2
    one = straylight_train(*LEAN, *common, "trainer.accelerator=cpu", output="one", pictures=False)
    alone = RunFolder(one.result["folder"])
    np.testing.assert_allclose(
        folder.columns(folder.scores)["score"], alone.columns(alone.scores)["score"], rtol=1e-4, atol=1e-4
    )
