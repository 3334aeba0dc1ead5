"""Ranks that somebody else started, by torchrun, by Slurm or by hand: one run in one folder, said by the first."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment

from clusters import lacking_slurm, slurm
from fresh import Program
from straylight.errors import ConfigError
from straylight.folder import RunFolder
from straylight.job.ddp import environment
from straylight.job.follow import Follower, Word
from straylight.job.lead import Leader
from straylight.job.meeting import JOIN_S, SILENT_S
from straylight.job.order import Order
from straylight.job.pulse import Beat
from straylight.job.train import silent
from straylight.job.world import World, disagreement, world_here
from test_ddp import CHECK, JOB, KEEP, equal, scores

# what the environment says

STEP = {
    "SLURM_JOB_ID": "120042",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "4",
    "SLURMD_NODENAME": "n2",
}
#: As Slurm 22.05 says of a batch script with room for four tasks, and of a step of one.
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NNODES": "2"}
TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}


def test_a_task_of_a_step_is_a_rank_as_torchrun_would_say_it() -> None:
    said = dict(STEP)
    world = world_here(said)
    assert world == World(2, 4, 0, 2, "n2", "n1", 15042, kept=False, attempt="120042/0//")
    assert (said["RANK"], said["WORLD_SIZE"], said["LOCAL_RANK"], said["GROUP_RANK"]) == ("2", "4", "0", "1")
    assert world_here(said) == world  # as often as it is asked


def test_what_is_set_beside_slurm_counts() -> None:
    world = world_here({**STEP, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4000"})
    assert world is not None and (world.address, world.port) == ("10.0.0.1", 4000)
    inner = world_here({**STEP, **TORCHRUN})  # srun torchrun
    assert inner is not None and (inner.rank, inner.size, inner.kept) == (1, 2, True)


@pytest.mark.parametrize("said", [{}, BATCH, {**BATCH, "SLURM_STEP_NUM_TASKS": "1"}], ids=["none", "batch", "step"])
def test_a_process_alone_is_no_rank(said, monkeypatch) -> None:
    before = dict(said)
    assert world_here(said) is None and said == before
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert type(environment()) is LightningEnvironment and environment().world_size() == 1


def test_a_world_of_one_may_start_ranks_of_its_own() -> None:
    said = {**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1", "HOME": "/root"}
    assert world_here(said) is None and said == {"HOME": "/root"}


def test_lightning_is_told_of_a_step(monkeypatch) -> None:
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)  # so that it is taken out again
    found = environment()
    assert type(found) is TorchElasticEnvironment
    assert (found.world_size(), found.global_rank(), found.local_rank(), found.node_rank()) == (4, 2, 0, 1)


def test_what_is_fitted_beside_a_run_asks_nobody_for_ranks(monkeypatch, straylight_train) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")  # as by `#SBATCH --ntasks=4`, which Lightning refuses
    ended = straylight_train("data=blobs", "detector=pca", "callbacks.thresholds.cross=3", "logger=none")
    assert ended.status == 0 and "folds" in ended.result["thresholds"][0], ended.err
    assert silent(str(ended.folder), [], 1).world_size == 1


def test_tasks_that_are_not_spread_evenly_are_counted_alone() -> None:
    world = world_here({**STEP, "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1"})
    assert world is not None and (world.on_node, world.nodes, world.deputy) == (0, 0, 1)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "LOCAL_RANK and MASTER_ADDR and MASTER_PORT"),
        ({**TORCHRUN, "RANK": "first"}, "RANK=first"),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "many"}, "SLURM_STEP_NUM_TASKS=many"),
    ],
)
def test_what_is_no_world_is_said(said, word) -> None:
    with pytest.raises(ConfigError, match=word):
        world_here(said)


@pytest.mark.parametrize(
    ("size", "on_node", "trainer", "typed"),
    [
        (4, 2, {"devices": 2, "num_nodes": 2}, None),
        (4, 4, {"devices": 4}, None),
        (2, 0, {"devices": 2}, None),
        (4, 2, {"devices": 4}, "type trainer.devices=2 trainer.num_nodes=2."),
        (2, 1, {"devices": 2, "num_nodes": 2}, "type trainer.devices=1 trainer.num_nodes=2, or have 4 started."),
        (2, 2, {"devices": 1}, "type trainer.devices=2, or have 1 started."),
        (3, 0, {"devices": 2, "num_nodes": 1}, "type trainer.devices=3, or have 2 started."),
        (2, 2, {"devices": 2, "strategy": "ddp_spawn"}, "type trainer.strategy=ddp."),
    ],
)
def test_other_ranks_than_are_asked_for_are_said_with_what_to_type(size, on_node, trainer, typed) -> None:
    said = disagreement(World(0, size, 0, on_node, "n1", "n1", 1), {"accelerator": "cpu", **trainer})
    assert said is None if typed is None else said is not None and said.endswith(typed)


# who is gone, without any process


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def order(tmp_path) -> Order:
    fields = {"detector": "vae"}
    return Order("abc", {"trainer": {"devices": 2, "num_nodes": 2, "timeout_s": 50.0}}, fields, ranks=4).write(
        RunFolder(tmp_path)
    )


WORLD = World(0, 4, 0, 2, "n1", "n1", 1)


class Led:
    """A leader whose clock is set, and what becomes of it."""

    def __init__(self, order: Order, folder: Path) -> None:
        self.left: list[int] = []
        self.clock = Clock()
        store = torch.distributed.HashStore()
        self.leader = Leader(WORLD, store, store, self.clock, self.left.append)
        self.leader.open()
        self.leader._job = order, RunFolder(folder)
        self.folder = RunFolder(folder)

    def second(self, *beating: int, waits: bool = False, **ends: Any) -> None:
        self.clock.now += 1
        for rank in beating:
            self.leader.say(f"beat/{rank}", [int(self.clock.now), f"n{1 + rank // 2}", int(self.clock.now), False, ""])
        for rank, end in ends.items():
            self.leader.say(f"end/{rank[1:]}", end)
        keys = self.leader.listened_to()
        said = dict(zip(keys, map(self.leader.heard, keys), strict=True))
        self.leader.hear(said, Beat(int(self.clock.now), waits, ""))

    @property
    def reason(self) -> str:
        result = self.folder.read() or {}
        return f"{result.get('status')}: {result.get('reason')}"


@pytest.fixture
def led(order, tmp_path, monkeypatch) -> Led:
    made = Led(order, tmp_path)
    monkeypatch.setattr("straylight.job.lead.LINGER_S", 0.0)  # by a clock that stands still
    monkeypatch.setattr("straylight.job.lead.ARRIVE_S", 0.0)
    made.leader._attempted.set()
    return made


def test_a_node_that_goes_silent_ends_the_run_and_is_named(led, capsys) -> None:
    while not led.left and led.clock.now < 1000:
        led.second(*((1, 2, 3) if led.clock.now < 5 else (1,)))
    assert led.left == [1] and SILENT_S < led.clock.now - 5 < SILENT_S + 3
    assert led.reason.startswith("failed: Ranks 2 and 3 on n2 are gone: their processes were killed, or the node")
    assert f"resume={led.folder}" in led.reason and led.reason[8:] in capsys.readouterr().err
    assert led.leader.heard("over") == 1 and led.folder.read()["detector"] == "vae"


def test_a_rank_that_never_comes_ends_the_run(led) -> None:
    while not led.left and led.clock.now < 1000:
        led.second(1, 2)
    assert JOIN_S < led.clock.now < JOIN_S + 3 and led.reason.startswith("failed: Of 4 ranks 3 did not come")


def test_a_rank_that_fails_ends_the_run_of_those_that_wait_for_it(led) -> None:
    led.second(1, 2, 3, r2=["failed", "ValueError: wrong here"])
    while not led.left and led.clock.now < 1000:
        led.second(1, 3, 2, waits=True)
    assert led.reason == "failed: Rank 2 on n2: ValueError: wrong here" and led.clock.now < 20


def test_ranks_that_go_on_are_left_to_go_on(led) -> None:
    for _ in range(3 * int(SILENT_S)):
        led.second(1, 2, 3)
    assert not led.left and led.folder.read() is None


def test_a_failure_that_all_meet_is_the_first_ones_own(led) -> None:
    result = {"status": "failed", "reason": "DataError: no rows"}
    assert led.leader._settled(result, led.leader._job[0], led.folder) == result


def test_a_lost_connection_is_laid_to_who_said_why(led) -> None:
    led.second(1, 2, 3, r1=["failed", "RuntimeError: gloo: Connection closed by peer"], r3=["failed", "its own fault"])
    led.leader.ends[2] = ("failed", "RuntimeError: NCCL error")
    lost = {"status": "failed", "reason": "RuntimeError: [gloo/tcp/pair.cc] Connection reset by peer"}
    assert led.leader._settled(lost, led.leader._job[0], led.folder)["reason"] == "Rank 3 on n2: its own fault"


@pytest.mark.parametrize(("rank", "says"), [(2, True), (1, False), (3, False)])
def test_one_of_the_others_says_that_the_first_is_gone(rank, says, order, tmp_path, capsys) -> None:
    clock, left = Clock(), []
    store = torch.distributed.HashStore()
    world = WORLD._replace(rank=rank, host="n2")
    Leader(WORLD, store, store, clock).open()
    follower = Follower(world, store, store, None, clock, left.append)
    follower._word, follower._folder = Word(str(tmp_path), "abc", False), RunFolder(tmp_path)
    follower.hear({"word": None, "over": None, "beat/0": [1, "n1", 0, False, ""]}, Beat(0, False, ""))
    clock.now = SILENT_S + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("straylight.job.follow.PATIENCE_S", 0.0)
        follower.hear({"word": None, "over": None, "beat/0": [1, "n1", 0, False, ""]}, Beat(0, False, ""))
    assert left == [1]
    said = "Rank 0 on n1 is gone: its process was killed, or the node is lost"
    assert (said in capsys.readouterr().err) == says
    assert ((RunFolder(tmp_path).read() or {}).get("status") == "failed") == says


# ranks of processes

ACTS = """
import os, pytorch_lightning as pl
from pathlib import Path

class Acts(pl.Callback):
    def __init__(self, rank, act): self.rank, self.act, self.once = rank, act, Path(__file__).with_name("once")
    def on_train_epoch_start(self, trainer, module):
        if trainer.global_rank != self.rank or trainer.current_epoch < 1 or self.once.exists():
            return
        self.once.touch()
        if self.act == "raise":
            raise ValueError("wrong here")
        if self.act == "node":
            os.kill(os.getppid(), 9)
        os.kill(os.getpid(), 9 if self.act == "node" else int(self.act))
"""
LEAN = ["trainer.accelerator=cpu", "logger=none", "callbacks=numbers", "callbacks.latency.budget_s=0.01"]
LEAN += ["callbacks.latency.runtimes=[eager]"]
TRAIN = ["data=blobs", "detector=autoencoder", *JOB, KEEP]
#: torchrun's agent, whose ranks are forked from it, which spares each of them the 10 seconds of imports.
AGENT = """
import os, sys
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

def rank():
    from straylight.cli import main
    sys.argv = ["straylight", *sys.argv[4:]]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise

_, node, port, count, *_ = sys.argv
elastic_launch(LaunchConfig(
    min_nodes=2, max_nodes=2, nproc_per_node=int(count), run_id="nodes", max_restarts=0, monitor_interval=0.1,
    rdzv_backend="static", rdzv_endpoint=f"127.0.0.1:{port}", rdzv_configs={"rank": int(node)}, start_method="fork",
), rank)()
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def around(folder: Path, **more: str) -> dict[str, str]:
    (folder / "check.py").write_text(CHECK + ACTS)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **more}


def ended(*programs: Program) -> tuple[list[int], str, str]:
    """Statuses, and what all said together."""
    try:
        said = [program.communicate(timeout=900) for program in programs]
        return [program.wait() for program in programs], *("".join(s[i] or "" for s in said) for i in (0, 1))
    finally:
        for program in programs:
            program.close()


def by_hand(folder: Path, count: int, *arguments: str, program: str = "straylight") -> tuple[list[int], str, str]:
    """Ranks with nobody around them who would end the others."""
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", program, *arguments]
    return ended(
        *(
            Program(command, cwd=folder, env=around(folder, RANK=str(rank), LOCAL_RANK=str(rank), **place))
            for rank in range(count)
        )
    )


def by_torchrun(folder: Path, count: int, *arguments: str) -> tuple[list[int], str, str]:
    """Two nodes of torchrun, with so many ranks each."""
    port = str(free_port())
    commands = [[sys.executable, "-c", AGENT, str(node), port, str(count), "train", *arguments] for node in range(2)]
    return ended(*(Program(command, cwd=folder, env=around(folder)) for command in commands))


def asked(folder: Path, ranks: int, nodes: int, *more: str) -> list[str]:
    return [*LEAN, *TRAIN, f"trainer.devices={ranks}", f"trainer.num_nodes={nodes}", f"hydra.run.dir={folder}", *more]


def acts(rank: int, act: str) -> str:
    """Something happens to a rank, once, in its second epoch."""
    return f"+callbacks.acts={{_target_:check.Acts,rank:{rank},act:{act}}}"


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> np.ndarray:
    """The scores of one process."""
    folder = tmp_path_factory.mktemp("alone")
    command = [sys.executable, "-m", "straylight", "train", *asked(folder / "run", 1, 1)]
    statuses, _, err = ended(Program(command, cwd=folder, env=around(folder)))
    assert statuses == [0], err
    return scores(folder / "run")


def check_one_run(run: Path, ranks: int, out: str, err: str, alone: np.ndarray) -> None:
    """One run, of equal ranks and the numbers of one process, of which the first alone has spoken."""
    assert np.allclose(scores(run), alone, rtol=1e-4, atol=1e-4)
    states = [torch.load(run / f"rank{rank}.pt", weights_only=False) for rank in range(ranks)]
    assert all(equal(states[0], other) for other in states[1:])
    result = RunFolder(run).read()
    assert (result["status"], result["devices"], Order.read(RunFolder(run)).ranks) == ("ok", ranks, ranks)
    assert out.count("AUROC") == 1 and err.count("training AutoEncoder") == 1, (out, err)
    assert {path.name for path in run.glob("output*.log")} == {f"output.{rank}.log" for rank in range(1, ranks)}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_two_nodes_of_torchrun_give_the_numbers_of_one_process(count, tmp_path, alone) -> None:
    run = tmp_path / "run"
    statuses, out, err = by_torchrun(tmp_path, count, *asked(run, count, 2))
    assert statuses == [0, 0], err
    check_one_run(run, 2 * count, out, err, alone)


@pytest.mark.slow
def test_torchrun_itself_starts_a_run(tmp_path, alone) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m"]
    statuses, out, err = ended(
        Program([*command, "straylight", "train", *asked(tmp_path / "run", 2, 1)], cwd=tmp_path, env=around(tmp_path))
    )
    assert statuses == [0], err
    check_one_run(tmp_path / "run", 2, out, err, alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "act", "words"),
    [
        (1, "9", "Rank 1 on HOST is gone: its process was killed, or the node is lost; see output.1.log."),
        (0, "9", "Rank 0 on HOST is gone: its process was killed, or the node is lost."),
        (1, "node", "Rank 1 on HOST is gone: its process was killed, or the node is lost; see output.1.log."),
        (1, "raise", "Rank 1 on HOST: ValueError: wrong here"),
    ],
    ids=["rank", "first", "node", "error"],
)
def test_what_ends_a_run_is_named_and_said_once(rank, act, words, tmp_path) -> None:
    run = tmp_path / "run"
    words = words.replace("HOST", socket.gethostname())
    _, _, err = by_torchrun(tmp_path, 1, *asked(run, 1, 2, acts(rank, act)))
    said = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1 and said[0].startswith(f"Error: {words}"), err
    result = RunFolder(run).read()
    assert result["status"] == "failed" and result["reason"].startswith(words)
    if act == "node":  # and by other ranks than before
        statuses, _, err = by_hand(tmp_path, 2, "train", f"resume={run}", "--trust=check", *AS_ONE_NODE)
        assert statuses == [0, 0], err
        assert RunFolder(run).read()["status"] == "ok" and RunFolder(run).read()["epochs"] == 3


AS_ONE_NODE = ["trainer.devices=2", "trainer.num_nodes=1"]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_by_the_same_starter_to_the_same_weights(tmp_path, alone) -> None:
    run = tmp_path / "run"
    _, _, err = by_torchrun(tmp_path, 1, *asked(run, 1, 2, acts(1, "15")))  # one rank alone
    assert err.count("Interrupted. To go on where it stopped: straylight train resume=") == 1, err
    assert RunFolder(run).read()["status"] == "interrupted"
    statuses, out, err = by_torchrun(tmp_path, 1, f"resume={run}", "--trust=check")
    assert statuses == [0, 0], err
    check_one_run(run, 2, out, err, alone)


@pytest.mark.slow
def test_ranks_do_the_job_of_a_folder_together(tmp_path, alone) -> None:
    run = tmp_path / "run"
    statuses, _, err = by_hand(tmp_path, 2, "train", *asked(run, 2, 1))
    assert statuses == [0, 0], err
    (run / "scores.parquet").unlink()
    for number in (0, 1):
        (run / f"rank{number}.pt").unlink()
    statuses, out, err = by_hand(tmp_path, 2, str(run), program="straylight.job")
    assert statuses == [0, 0], err
    check_one_run(run, 2, out, err, alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "detector=vae"], "trainer.devices x trainer.num_nodes is 1 x 1: type trainer.devices=2"),
        (["train", "-m", "seed=1,2"], "type it without srun or torchrun"),
        (["train", "+detector.nothing=1", "trainer.devices=2"], "nothing"),
        (["train", "data=file", "data.path=lacking.csv", "data.label=y", "trainer.devices=2"], "lacking.csv"),
    ],
    ids=["ranks", "sweep", "config", "data"],
)
def test_what_is_refused_is_said_once_and_leaves_nothing(arguments, sentence, tmp_path) -> None:
    statuses, out, err = by_hand(tmp_path, 2, *arguments)
    assert statuses == [1, 1], err
    said = [line for line in err.splitlines() if "Error" in line]
    assert len(said) == 1 and sentence in said[0], err
    assert not out and not list(tmp_path.rglob("result.json")) and "Traceback" not in err


# of a real Slurm


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[dict[str, str]]:
    """What is set where its commands are typed."""
    if (reason := lacking_slurm()) is not None:
        pytest.skip(reason)
    with slurm(Path(tmp_path_factory.mktemp("slurm"))) as conf:
        more = {"SLURM_CONF": str(conf)}
        with contextlib.suppress(OSError):
            socket.getaddrinfo("n1", None)
            yield more
            return
        yield {**more, "MASTER_ADDR": "127.0.0.1"}  # the nodes have names that nobody knows


def typed(folder: Path, cluster: dict[str, str], *command: str) -> subprocess.CompletedProcess:
    given = {name: value for name, value in around(folder, **cluster).items() if not name.startswith("SLURM_JOB")}
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, timeout=600)


STRAYLIGHT = [sys.executable, "-m", "straylight", "train"]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_two_nodes_of_slurm_give_the_numbers_of_one_process(count, tmp_path, cluster, alone) -> None:
    run = tmp_path / "run"
    srun = ["srun", "--nodes=2", f"--ntasks-per-node={count}", "--overcommit"]
    ended = typed(tmp_path, cluster, *srun, *STRAYLIGHT, *asked(run, count, 2))
    assert ended.returncode == 0, ended.stderr
    check_one_run(run, 2 * count, ended.stdout, ended.stderr, alone)


@pytest.mark.slow
def test_a_task_of_slurm_that_is_killed_is_named_by_its_node_and_the_run_goes_on(tmp_path, cluster, alone) -> None:
    run = tmp_path / "run"
    srun = ["srun", "--nodes=2", "--ntasks-per-node=1"]
    ended = typed(tmp_path, cluster, *srun, *STRAYLIGHT, *asked(run, 1, 2, acts(1, "9")))
    assert ended.returncode != 0
    said = re.findall(r"^Error: .*", ended.stderr, re.M)
    assert len(said) == 1 and said[0].startswith("Error: Rank 1 on n2 is gone: its process was killed"), ended.stderr
    resumed = typed(tmp_path, cluster, *srun, *STRAYLIGHT, f"resume={run}", "--trust=check")
    assert resumed.returncode == 0, resumed.stderr
    check_one_run(run, 2, resumed.stdout, resumed.stderr, alone)


@pytest.mark.slow
def test_in_a_batch_script_without_srun_a_run_is_an_ordinary_one(tmp_path, cluster) -> None:
    command = [*STRAYLIGHT, *asked(tmp_path / "run", 2, 1, "trainer.max_epochs=1")]
    script = tmp_path / "script.sh"
    script.write_text(f"#!/bin/bash\nexec {shlex.join(command)}\n")
    sbatch = ["sbatch", "--wait", "--nodes=1", "--ntasks=2", "--ntasks-per-node=2", f"--output={tmp_path}/said.txt"]
    ended = typed(tmp_path, cluster, *sbatch, str(script))
    assert ended.returncode == 0, (tmp_path / "said.txt").read_text()
    assert RunFolder(tmp_path / "run").read()["devices"] == 2  # both of which were started here
