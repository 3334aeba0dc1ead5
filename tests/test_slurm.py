"""The engine of Slurm, by a cluster that is asked as the real one is but answers what a test wants."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import DictConfig

from hydra_plugins.straylight_local import slurm as plugin
from straylight import versions
from straylight.atomic import write_json
from straylight.commands.resume import launched
from straylight.engines import node
from straylight.engines.base import Ended, Running
from straylight.engines.slurm import commands, task
from straylight.engines.slurm import engine as slurm
from straylight.engines.slurm.commands import Line, Unanswered
from straylight.engines.slurm.engine import SlurmEngine
from straylight.engines.slurm.options import Options
from straylight.errors import ConfigError
from straylight.folder import RunFolder, SweepFolder
from straylight.job.devices import Asked
from straylight.job.order import Order, parts_of, placed
from straylight.stopping import STOP


class Cluster:
    """What Slurm would do: it runs jobs when it is told to."""

    def __init__(self) -> None:
        self.jobs: dict[str, Line] = {}
        self.scripts: list[tuple[str, list[int], int | None]] = []
        self.told: list[tuple[list[str], tuple[str, ...]]] = []
        self.asked = 0
        self.silent = self.refuses = False

    def listed(self) -> dict[str, Line]:
        self.asked += 1
        if self.silent:
            raise Unanswered("Unable to contact slurm controller.")
        return dict(self.jobs)

    def submitted(self, script: str, places: Sequence[int], at_once: int | None = None) -> str:
        if self.refuses:
            raise Unanswered("Batch job submission failed.")
        self.scripts.append((script, list(places), at_once))
        (name,) = [line.partition("=")[2] for line in script.splitlines() if line.startswith("#SBATCH --job-name=")]
        number = str(100 + len(self.scripts))
        self.jobs |= {f"{name}_{i}": Line(f"{number}_{i}", "PENDING", 0, "", "Priority") for i in places}
        return number

    def tell(self, numbers: Sequence[str], *options: str) -> None:
        self.told.append((list(numbers), options))

    def put(self, id: str, state: str, code: int = 0, nodes: str = "n1") -> None:
        self.jobs[id] = self.jobs[id]._replace(state=state, code=code, nodes=nodes)


@pytest.fixture
def cluster(monkeypatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(commands, "listed", found.listed)
    monkeypatch.setattr(commands, "submitted", found.submitted)
    monkeypatch.setattr(commands, "told", found.tell)
    monkeypatch.setattr(commands, "needed", lambda: None)
    monkeypatch.setattr(commands, "tried", lambda script: None)
    monkeypatch.setattr(commands, "largest_array", lambda: 1000)
    monkeypatch.setattr(slurm, "LOOKED_S", 0.0)
    return found


def folders(tmp_path: Path, count: int) -> list[RunFolder]:
    return [RunFolder(tmp_path / str(i)) for i in range(count)]


# submitting


def test_jobs_that_ask_for_the_same_are_one_array(cluster, tmp_path) -> None:
    engine = SlurmEngine(Options(partition="cpu", at_once=3), tmp_path)
    runs = folders(tmp_path, 30)
    ids = [engine.submit(run, Asked(threads=2 if number < 25 else 4)) for number, run in enumerate(runs)]
    assert len(set(ids)) == 30 and not cluster.scripts, "nobody has waited yet"
    assert {type(s) for s in engine.look(ids).values()} == {Running}
    engine.wait(ids, 0.0)
    assert [(places, at_once) for _, places, at_once in cluster.scripts] == [(list(range(25)), 3), (list(range(5)), 3)]
    assert "--cpus-per-task=2" in cluster.scripts[0][0] and "--cpus-per-task=4" in cluster.scripts[1][0]
    assert all(state == Running("Priority", "", True) for state in engine.look(ids).values())
    for id, run in zip(ids, runs, strict=True):
        name, _, place = id.rpartition("_")
        listed = (tmp_path / ".jobs" / f"{name}.txt").read_text().splitlines()
        assert listed[int(place)] == str(run.path.absolute())


def test_an_array_is_submitted_after_a_while_and_never_larger_than_slurm_takes(cluster, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(commands, "largest_array", lambda: 4)
    monkeypatch.setattr(slurm, "GATHERED_S", 0.0)
    engine = SlurmEngine(Options(), tmp_path)
    ids = [engine.submit(run, Asked()) for run in folders(tmp_path, 10)]
    engine.look(ids)
    assert [len(places) for _, places, _ in cluster.scripts] == [4, 4, 2]


def test_the_script_says_what_is_asked_and_carries_no_more_than_is_named(tmp_path) -> None:
    options = Options(
        partition="gpu", account="lab", time="2:00:00", cpus=3, memory="8G", gpus="a100:2", requeue=2,
        extra={"qos": "long", "exclusive": None, "signal": "B:TERM@300"}, setup=["module load cuda", "ulimit -n 4096"],
        environment=["KEPT", "ABSENT"], python="other-python",
    )  # fmt: skip
    given = {"KEPT": "it's; $(touch x)", "SECRET": "password"}
    script = options.script("straylight-x", tmp_path / "straylight-x.txt", Asked(ranks=2, gpus=2), given)
    flags = [line.removeprefix("#SBATCH ").strip("'") for line in script.splitlines() if line.startswith("#SBATCH")]
    expected = "partition=gpu account=lab time=2:00:00 nodes=1 ntasks-per-node=1 cpus-per-task=6 mem=8G gres=gpu:a100:2"
    expected += " qos=long exclusive signal=B:TERM@300 requeue export=NONE job-name=straylight-x"
    assert {f"--{flag}" for flag in expected.split()} <= set(flags) and sum("signal" in flag for flag in flags) == 1
    assert "SECRET" not in script and "password" not in script and "ABSENT" not in script
    ran = script.replace("exec other-python", "exec echo").replace("module load cuda", "true")
    said = subprocess.run(["bash", "-c", f"{ran}"], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert said.split()[:3] == ["-m", "straylight.engines.slurm.task", str(tmp_path / "straylight-x.txt")]
    assert not (tmp_path / "x").exists() and f"export KEPT={chr(39)}it" in script
    broken = ran.replace("ulimit -n 4096", "false")
    ended = subprocess.run(["bash", "-c", broken], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 96 and "hydra.launcher.setup failed" in ended.stderr


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"cpus": 0}, "hydra.launcher.cpus must be a positive whole number, not 0."),
        ({"time": "soon"}, "hydra.launcher.time must be minutes, or as 2:00:00 or 1-12, not 'soon'."),
        ({"time": 2}, "hydra.launcher.time=2 leaves a job no time"),
        ({"memory": "8 GB"}, "hydra.launcher.memory must be megabytes, or as 16G, not '8 GB'."),
        ({"gpus": "a100"}, "hydra.launcher.gpus must be a number, or as a100:2, not 'a100'."),
        ({"partition": "gpu --wrap=x"}, "hydra.launcher.partition must be one word"),
        ({"account": "x\n#SBATCH --wrap=x"}, "hydra.launcher.account must be one word"),
        ({"setup": "module load"}, "hydra.launcher.setup must be a list of texts, not 'module load'."),
        ({"environment": ["A=1"]}, "hydra.launcher.environment names variables, and 'A=1' is no name of one."),
        ({"extra": {"qos": "a\nb"}}, "hydra.launcher.extra.qos='a\\nb' is no option of sbatch's, as qos=long is."),
        ({"extra": {"--qos": 1}}, "hydra.launcher.extra.--qos=1 is no option of sbatch's"),
        ({"extra": {"array": "0-5"}}, "hydra.launcher.extra.array cannot be set: jobs are told apart by it."),
        ({"extra": ["x"]}, "hydra.launcher.extra must hold options of sbatch by their names, not ['x']."),
        ({"requeue": -1}, "hydra.launcher.requeue must be a whole number of at least 0, not -1."),
    ],
)
def test_options_that_do_not_fit_are_refused_in_a_sentence(given, sentence) -> None:
    with pytest.raises(ConfigError) as refused:
        Options(**given)
    assert str(refused.value).startswith(sentence)


def test_the_options_are_those_that_the_config_has() -> None:
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in plugin.OPTIONS.items()}
    assert plain == vars(Options())


def test_nodes_are_those_of_the_trainer() -> None:
    assert Options().nodes_of(Asked(nodes=3)) == Options(nodes=3).nodes_of(Asked(nodes=3)) == 3
    with pytest.raises(ConfigError, match=r"hydra.launcher.nodes=2, and trainer.num_nodes=1: set trainer.num_nodes"):
        Options(nodes=2).nodes_of(Asked())
    assert {"--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=3"} <= set(Options(cpus=3).flags(Asked(4, nodes=2)))


# how jobs are


@pytest.mark.parametrize(
    ("state", "code", "status", "by", "words", "lost"),
    [
        ("FAILED", 1 << 8, 1, None, "The job's process ended with status 1", False),
        ("FAILED", 130 << 8, 130, None, "The job's process ended with status 130", False),
        ("FAILED", 9, None, 9, "was killed by signal 9 (SIGKILL", False),
        ("FAILED", node.UNSEEN << 8, node.UNSEEN, None, "The job on n1 found no order in the job's folder", False),
        ("OUT_OF_MEMORY", 9, None, 9, "The job on n1 took more memory than it had asked for", False),
        ("TIMEOUT", 15, None, 15, "The job on n1 ran into its time limit (hydra.launcher.time)", False),
        ("CANCELLED", 15, None, 15, "The job on n1 was cancelled", False),
        ("NODE_FAIL", 0, 0, None, "The job on n1 lost its node", True),
        ("PREEMPTED", 15, None, 15, "The job on n1 had to make room for another", True),
    ],
)
def test_how_a_job_ended(state, code, status, by, words, lost, cluster, tmp_path) -> None:
    engine = SlurmEngine(Options(), tmp_path)
    (run,) = folders(tmp_path, 1)
    id = str(engine.submit(run, Asked()))
    engine.wait([id], 0.0)
    cluster.put(id, state, code)
    ended = engine.look([id])[id]
    assert isinstance(ended, Ended)
    assert (ended.status, ended.signal, ended.lost) == (status, by, lost) and words in ended.words


def test_a_job_says_where_and_how_far_it_is(cluster, tmp_path) -> None:
    engine = SlurmEngine(Options(), tmp_path)
    (run,) = folders(tmp_path, 1)
    id = str(engine.submit(run, Asked()))
    engine.wait([id], 0.0)
    cluster.put(id, "RUNNING", nodes="n2")
    assert engine.look([id]) == {id: Running("", "n2")}
    node.teller(run)("epoch 3/20")
    assert engine.look([id]) == {id: Running("epoch 3/20", "n2")}
    assert node.told(run) == Running("epoch 3/20", socket.gethostname())
    cluster.put(id, "PENDING", nodes="")
    assert engine.look([id])[id] == Running("Priority", "", True), "it was queued again"


def test_a_result_that_is_not_seen_yet_is_waited_for(cluster, tmp_path, monkeypatch) -> None:
    engine = SlurmEngine(Options(), tmp_path)
    (run,) = folders(tmp_path, 1)
    id = str(engine.submit(run, Asked()))
    engine.wait([id], 0.0)
    cluster.put(id, "COMPLETED")
    assert isinstance(engine.look([id])[id], Running)
    run.write_result({"status": "ok"})
    assert engine.look([id])[id] == Ended(0, log=str(run.log(0)))
    run.result.unlink()
    monkeypatch.setattr(slurm, "SEEN_S", 0.0)
    assert isinstance(engine.look([id])[id], Ended), "not for ever"


def test_nothing_is_concluded_while_slurm_does_not_answer(cluster, tmp_path) -> None:
    engine = SlurmEngine(Options(), tmp_path)
    (run,) = folders(tmp_path, 1)
    id = str(engine.submit(run, Asked()))
    engine.wait([id], 0.0)
    engine.look([id])
    cluster.silent, cluster.jobs = True, {}
    state = engine.look([id])[id]
    assert isinstance(state, Running)
    later = SlurmEngine(Options(), tmp_path).look([id])[id]  # of whoever resumes meanwhile
    assert later == Running("Slurm does not answer: Unable to contact slurm controller.")
    cluster.silent = False
    assert engine.look([id])[id] == Ended(None, log=str(run.log(0))), "what Slurm does not know has ended"


def test_a_submission_whose_answer_was_lost_is_not_repeated(cluster, tmp_path, monkeypatch) -> None:
    engine = SlurmEngine(Options(), tmp_path)
    ids = [str(engine.submit(run, Asked())) for run in folders(tmp_path, 2)]
    through = cluster.submitted

    def lost(script: str, places: Sequence[int], at_once: int | None = None) -> str:
        through(script, places, at_once)
        raise Unanswered("Socket timed out on send/recv operation.")

    monkeypatch.setattr(commands, "submitted", lost)
    engine.wait(ids, 0.0)
    assert all(isinstance(state, Running) for state in engine.look(ids).values())


def test_what_slurm_refuses_fails_in_its_words(cluster, tmp_path) -> None:
    engine = SlurmEngine(Options(), tmp_path)
    ids = [str(engine.submit(run, Asked())) for run in folders(tmp_path, 2)]
    cluster.refuses = True
    engine.wait(ids, 0.0)
    for ended in engine.look(ids).values():
        assert isinstance(ended, Ended)
        assert ended.words == "The job was refused by Slurm: Batch job submission failed"


def test_jobs_are_told_to_end_all_at_once(cluster, tmp_path) -> None:
    engine = SlurmEngine(Options(), tmp_path)
    ids = [str(engine.submit(run, Asked())) for run in folders(tmp_path, 3)]
    engine.wait(ids[:3], 0.0)
    cluster.put(ids[0], "RUNNING")
    engine.look(ids)
    late = str(engine.submit(RunFolder(tmp_path / "late"), Asked()))
    for id in (*ids, late):
        engine.stop(id, 60.0)
    states = engine.look([*ids, late])
    numbers = [cluster.jobs[id].number for id in ids]
    assert cluster.told == [(numbers, ("--state=PENDING",)), (numbers, ("--state=RUNNING", "--signal=INT", "--batch"))]
    assert isinstance(states[late], Ended) and isinstance(states[ids[0]], Running)
    engine.wait(ids, 0.0)
    assert len(cluster.scripts) == 1, "what was not submitted never is"
    engine.stop(ids[0], 0.0)
    engine.look(ids)
    assert ([numbers[0]], ("--signal=KILL", "--full")) in cluster.told and ([numbers[0]], ()) in cluster.told


def test_what_squeue_says_is_read(monkeypatch, tmp_path) -> None:
    lines = [
        ("straylight-abc", "12_0", "RUNNING", "0", "n[1-2]", "None"),
        ("straylight-abc", "12_11", "FAILED", "768", "n1", "NonZeroExitCode"),
        ("straylight-abc", "12_12", "PENDING", "0", "", "Nodes required for job are DOWN, DRAINED or reserved"),
        ("another", "13", "RUNNING", "0", "n1", "None"),
    ]
    text = "\n".join("".join(f"{v:<{w}}" for v, w in zip(l, commands.COLUMNS.values(), strict=True)) for l in lines)
    program = tmp_path / "squeue"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert commands.listed() == {
        "straylight-abc_0": Line("12_0", "RUNNING", 0, "n[1-2]", "None"),
        "straylight-abc_11": Line("12_11", "FAILED", 768, "n1", "NonZeroExitCode"),
        "straylight-abc_12": Line("12_12", "PENDING", 0, "", "Nodes required for job are DOWN, DRAINED or reserved"),
    }
    program.write_text("#!/bin/sh\necho 'squeue: error: Unable to contact slurm controller' >&2; exit 1\n")
    with pytest.raises(Unanswered, match=r"^Unable to contact slurm controller\.$"):
        commands.listed()


# on the node


@pytest.fixture
def ordered(tmp_path) -> RunFolder:
    """A folder with an order in it."""
    cfg = DictConfig({"threads": None, "paths": {"run": "", "data": "d"}, "trainer": {}, "seed": 0})
    folder = RunFolder(tmp_path / "job")
    placed(parts_of(cfg, str(folder)), folder, {"detector": "knn", "seed": 0})
    return folder


def test_a_folder_that_a_node_does_not_see_is_said_so(tmp_path, capsys) -> None:
    assert node.do(tmp_path / "nowhere") == node.UNSEEN
    assert "it holds no job.json" in capsys.readouterr().err and not (tmp_path / "nowhere").exists()


def test_a_job_that_another_process_is_at_is_left_alone(ordered, monkeypatch, capsys) -> None:
    monkeypatch.setattr(node, "SILENT_S", -10.0)
    write_json(ordered.path / ".lease.other", {"host": "elsewhere", "pid": 1, "born": 0.0, "alone": True})
    assert node.do(ordered.path) == node.TAKEN
    assert "A run is running in" in capsys.readouterr().err and not ordered.result.exists()


def test_other_code_on_a_node_is_a_notice(ordered, monkeypatch, capfd) -> None:
    done = []
    monkeypatch.setattr("straylight.job.perform.perform", lambda path, tell: done.append(Order.read(RunFolder(path))))
    monkeypatch.setattr(node, "print_to", lambda path: None)
    node.do(ordered.path)
    monkeypatch.setattr(versions, "here", lambda: {**Order.read(ordered).by, "torch": "1.0", "code": "other"})
    node.do(ordered.path)
    assert "notices" not in done[0].fields
    (notice,) = done[1].fields["notices"]
    assert "computes by other code than who submitted: " in notice and "torch 1.0, not " in notice
    assert notice in capfd.readouterr().out


def test_a_job_goes_on_with_what_its_own_order_left(ordered) -> None:
    assert not node.taken_up(Order.read(ordered), ordered).resume
    ordered.write_shape({"shape": [1]})
    again = node.taken_up(Order.read(ordered), ordered)
    assert again.resume and Order.read(ordered) == again
    other = Order.read(ordered).again(ordered, resume=False)
    assert not node.taken_up(other, ordered).resume, "what another run left is not gone on with"


@pytest.mark.parametrize(
    ("by", "state", "been", "requeued", "reason"),
    [
        (signal.SIGTERM, "RUNNING", "0", True, None),
        (signal.SIGTERM, "RUNNING", "2", False, "It ran into its time limit, after 2 earlier turns"),
        (signal.SIGTERM, "CANCELLED", "0", False, None),
        (signal.SIGINT, "RUNNING", "0", False, None),
    ],
)
def test_what_slurm_interrupts_is_queued_again(
    by, state, been, requeued, reason, ordered, tmp_path, monkeypatch
) -> None:
    asked = []
    monkeypatch.setenv("SLURM_RESTART_COUNT", been)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setattr(commands, "shown", lambda number: {"JobState": state})
    monkeypatch.setattr(commands, "requeued", lambda number: asked.append(number) or True)
    monkeypatch.setattr(signal, "signal", lambda *given: None)

    def do(path: Path, **given: object) -> int:
        ordered.write_result({"status": "interrupted", "metrics": {}, "latency": []})
        STOP.by = by
        return 130

    monkeypatch.setattr(node, "do", do)
    (tmp_path / "list").write_text(f"{tmp_path}/other\n{ordered}\n")
    assert task.main([str(tmp_path / "list"), "2", "1"]) == 130
    assert asked == (["12_3"] if requeued else [])
    said = ordered.read()
    assert said["status"] == "interrupted" and (said.get("reason") or "").startswith(reason or "")
    assert bool(said.get("reason")) == bool(reason)


# sweeps


def test_what_came_with_a_folder_runs_nothing_on_a_cluster(straylight_train, cluster, tmp_path) -> None:
    here = tmp_path / "sweep"
    straylight_train("-m", "data=blobs", "detector=hbos", "seed=0", f"hydra.sweep.dir={here}")
    (manifest,) = SweepFolder(here).manifests.glob("*.json")
    kept = json.loads(manifest.read_text())
    for poison in ("hydra.launcher.setup=[touch x]", "hydra.launcher.python=evil", "+hydra.launcher.extra.bb=x"):
        manifest.write_text(json.dumps({**kept, "overrides": [*kept["overrides"], "hydra/launcher=slurm", poison]}))
        ended = straylight_train(f"resume={here}", "-m")
        assert ended.status == 1 and "by which it could run or write anything" in ended.err, poison
        assert not cluster.scripts


def test_another_launcher_is_told_nothing_that_it_does_not_know() -> None:
    before = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.launcher.retry=2", "seed=0,1"]
    kept, dropped = launched(before, ["hydra/launcher=local"])
    assert kept == ["hydra/launcher=slurm", "hydra.launcher.retry=2", "seed=0,1"]
    assert dropped == ["hydra.launcher.partition"]
    assert launched(before, []) == launched(before, ["hydra/launcher=slurm"]) == (before, [])
