"""The engine of a cluster of Ray's: every job is a task with resources of its own, or one on each of its nodes."""

import os
import secrets
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from straylight.engines import node
from straylight.engines.base import Ended, Running
from straylight.engines.ray import ranks, task
from straylight.engines.ray.cluster import Cluster
from straylight.engines.ray.options import Needs, Options, amounts
from straylight.engines.ray.ranks import World
from straylight.engines.ray.task import Done, Work
from straylight.errors import ConfigError
from straylight.folder import RunFolder
from straylight.job.devices import Asked

QUEUED = 500  # jobs that wait at Ray; more wait here
CALLS = 200  # tasks that a worker of Ray's takes, one after the other
LOOKED_S = 10.0  # between two looks at the nodes
NOTICED_S = 180.0  # in which Ray notices that a node is gone; until then it would give it new tasks
NODE_LOST = "lost its node"
INSIST_S = 5.0  # after which a task that does not end has its worker killed
PATIENCE_S = 40.0  # for the other nodes of a job to end by themselves when one has


@dataclass
class _Job:
    """A job at Ray.

    Attributes:
        folder: the job's.
        needs: what it asks for.
        tasks: what Ray calls its tasks, one for each node.
        group: the resources of several nodes that are held together.
        state: how far it has told to be, and `told_at` when that was looked at.
        ended: how tasks ended, by the number of the node, in that order; `lost` are those, and since when, that lost a
            node of those that were `there`, while Ray does not know of it.
        asked: whether it was told to end; `kill_at` is when it must have.
    """

    folder: RunFolder
    needs: Needs
    tasks: list[Any]
    there: frozenset[str]
    group: Any = None
    state: Running = field(default_factory=lambda: Running(queued=True))
    told_at: float = 0.0
    ended: dict[int, Ended] = field(default_factory=dict)
    lost: dict[int, float] = field(default_factory=dict)
    asked: bool = False
    kill_at: float | None = None

    @property
    def goes_on(self) -> list[Any]:
        """The tasks that have not ended."""
        return [ref for number, ref in enumerate(self.tasks) if number not in self.ended]


class RayEngine:
    """Gives jobs to Ray, which queues them; they die with this process.

    Ray's own retries are off, so that each attempt is one of the sweep's.

    Args:
        options: which cluster, and what is asked of it for each job.

    Raises:
        ConfigError: if the cluster cannot be reached.
    """

    name = "ray"
    outlives = False
    queues = True

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self._cluster = Cluster(self.options)
        self._ray = self._cluster.ray
        environment = {name: os.environ[name] for name in self.options.environment if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join([*_own_path(), "${PYTHONPATH}"])  # of the node, which Ray puts in
        common = {"max_calls": CALLS, "max_retries": 0, "runtime_env": {"env_vars": environment}}
        self._run, self._meet = self._ray.remote(**common)(task.run), self._ray.remote(**common)(ranks.meet)
        self._jobs: dict[str, _Job] = {}
        self._nodes: Mapping[str, Mapping[str, float]] = {}
        self._nodes_at: float | None = None

    # submitting

    def submit(self, folder: RunFolder, asked: Asked) -> str | None:
        """See `Engine`. Ray keeps the queue, of which a part waits here where it is long.

        Raises:
            ConfigError: if no node of the cluster has what it asks for, and none will come that has.
        """
        needs = self.options.needs(asked)
        if not self._fits(needs) and not self.options.autoscaling:
            raise ConfigError(self._no_place(needs))
        if sum(job.state.queued for job in self._jobs.values()) >= QUEUED:
            return None
        folder.result.unlink(missing_ok=True)  # of before: a job that dies at once says nothing
        folder.progress.unlink(missing_ok=True)
        work = Work(str(folder.path.absolute()), max(1, int(needs.cpus) // asked.ranks), str(Path.cwd()))
        resources = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "name": folder.path.name}
        if needs.nodes == 1:
            job = _Job(folder, needs, [self._run.options(**resources).remote(work)], frozenset(self._nodes))
        else:
            job = self._on_several(folder, needs, work, asked.ranks, resources)
        id = secrets.token_hex(8)
        self._jobs[id] = job
        return id

    def _on_several(self, folder: RunFolder, needs: Needs, work: Work, each: int, resources: Mapping[str, Any]) -> _Job:
        """A task on each of several nodes, which begin together."""
        from ray.util import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        bundle = {"CPU": needs.cpus, **({"GPU": needs.gpus} if needs.gpus else {})}
        group = placement_group([bundle] * needs.nodes, strategy="STRICT_SPREAD")
        there = [PlacementGroupSchedulingStrategy(group, number) for number in range(needs.nodes)]
        meeting = self._meet.options(num_cpus=0, scheduling_strategy=there[0]).remote(secrets.token_hex(8))
        tasks = [
            self._run.options(**resources, scheduling_strategy=strategy).remote(
                work._replace(world=World(number, needs.nodes, each)), meeting
            )
            for number, strategy in enumerate(there)
        ]
        return _Job(folder, needs, tasks, frozenset(self._nodes), group)

    def _fits(self, needs: Needs) -> bool:
        """Whether there are nodes that have what is needed, whatever they do now."""
        self._look_at_nodes(LOOKED_S)
        fitting = [
            has for has in self._nodes.values() if has.get("CPU", 0) >= needs.cpus and has.get("GPU", 0) >= needs.gpus
        ]
        return len(fitting) >= needs.nodes

    def _look_at_nodes(self, seconds: float) -> None:
        """Ask which there are, if that is known from before so many seconds."""
        now = time.monotonic()
        if self._nodes_at is None or now - self._nodes_at > seconds:
            self._nodes, self._nodes_at = self._cluster.nodes(), now

    def _no_place(self, needs: Needs) -> str:
        has = [amounts(has.get("CPU", 0), has.get("GPU", 0)) for has in self._nodes.values()]
        there = ", ".join(f"{has.count(one)} of {one}" for one in sorted(set(has)))
        return (
            f"It asks for {needs.words} (hydra.launcher.cpus, hydra.launcher.gpus, threads, trainer.devices), and the "
            f"nodes of the Ray cluster are: {there or 'none'}. Where nodes come when they are asked for, set "
            "hydra.launcher.autoscaling=true."
        )

    # looking

    def look(self, ids: Collection[str]) -> dict[str, Running | Ended]:
        """See `Engine`."""
        self._end_those_late()
        refs = [ref for id in ids if id in self._jobs for ref in self._jobs[id].goes_on]
        ended = set(self._ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)[0]) if refs else set()
        return {id: self._state(id, ended) for id in ids}

    def _state(self, id: str, ended: Collection[Any]) -> Running | Ended:
        job = self._jobs.get(id)
        if job is None:
            return Ended(None)
        for number, ref in enumerate(job.tasks):
            if ref in ended and number not in job.ended:
                how = self._ended(job, number)
                if how.lost and how.said == NODE_LOST and not self._noticed(job, number):
                    continue
                job.ended[number] = how
                if job.kill_at is None:
                    job.kill_at = time.monotonic() + PATIENCE_S  # for the others
        if not job.goes_on:
            del self._jobs[id]
            if job.group is not None:
                self._ray.util.remove_placement_group(job.group)
            return _blamed(job)
        now = time.monotonic()
        if now - job.told_at >= node.TOLD_S:
            job.told_at = now
            told = node.told(job.folder)
            if told.place:
                job.state = told
            elif job.state.queued:
                lacking = "" if self._fits(job.needs) else f"no node has {job.needs.words} now"
                job.state = Running(lacking, queued=True)
        return job.state

    def _noticed(self, job: _Job, number: int) -> bool:
        """Whether Ray knows of the node that a task has lost, or has had the time to."""
        self._look_at_nodes(node.TOLD_S)
        since = job.lost.setdefault(number, time.monotonic())
        return not job.there <= self._nodes.keys() or time.monotonic() - since > NOTICED_S

    def _ended(self, job: _Job, number: int) -> Ended:
        """How a task ended, by what it returned or what Ray says of it."""
        errors = self._ray.exceptions
        log = str(job.folder.log(0))
        try:
            done: Done = self._ray.get(job.tasks[number])
        except errors.TaskCancelledError:
            return Ended(None, log=log)
        except errors.OutOfMemoryError:
            return Ended(None, log=log, said="was ended by Ray, since its node ran out of memory")
        except errors.NodeDiedError:
            return Ended(None, log=log, lost=not job.asked, said=NODE_LOST)
        except errors.LocalRayletDiedError:  # no other task would do better
            said = "cannot be reached any more, since Ray's node on this machine, which serves the sweep, is gone"
            return Ended(None, log=log, said=said)
        except errors.WorkerCrashedError as error:
            return Ended(None, log=log, lost=not job.asked, said=f"lost Ray's worker ({type(error).__name__})")
        except errors.RayError as error:
            said = " ".join(str(error).split())[-400:]
            return Ended(None, log=log, said=f"could not be started by Ray: {said}")
        log = str(job.folder.log(done.rank or 0))
        if done.status < 0:
            return Ended(None, -done.status, log, rank=done.rank)
        return Ended(done.status, log=log, rank=done.rank, lost=done.lost, said=node.SAID.get(done.status))

    def wait(self, ids: Collection[str], seconds: float) -> None:
        """See `Engine`."""
        jobs = [job for id in ids if (job := self._jobs.get(id)) is not None and not job.lost]
        if refs := [ref for job in jobs for ref in job.goes_on]:
            self._ray.wait(refs, num_returns=1, timeout=seconds, fetch_local=False)
        else:
            time.sleep(seconds)

    # ending

    def stop(self, id: str, grace_s: float) -> None:
        """See `Engine`. What waits is forgotten by Ray."""
        if (job := self._jobs.get(id)) is not None:
            job.asked, job.kill_at = True, time.monotonic() + grace_s
            for ref in job.goes_on:
                self._ray.cancel(ref)

    def _end_those_late(self) -> None:
        """Cancel once more what was told to end long ago, which kills it, and kill what does not hear even that."""
        now = time.monotonic()
        for job in self._jobs.values():
            if job.kill_at is not None and now > job.kill_at:
                for ref in job.goes_on:
                    self._ray.cancel(ref, force=now > job.kill_at + INSIST_S)

    def close(self) -> None:
        """End all that is left."""
        for job in self._jobs.values():
            for ref in job.goes_on:
                self._ray.cancel(ref, force=True)
        self._jobs.clear()
        self._cluster.close()


def _blamed(job: _Job) -> Ended:
    """How a job ended, by how it did on each of its nodes."""
    first = job.ended[0]
    if job.group is None or first.status == 0 or job.asked:
        return first
    if (lost := next((ended for ended in job.ended.values() if ended.lost), None)) is not None:
        return lost
    result = job.folder.read()
    if result is not None and result["status"] == "failed":  # the first rank knows why
        return first
    return next((ended for ended in job.ended.values() if ended.signal is not None), next(iter(job.ended.values())))


def _own_path() -> list[str]:
    """Where modules are looked for here that are not Python's own, of which each machine has one."""
    homes = {sys.prefix, sys.base_prefix}
    found = [str(Path(entry).absolute()) for entry in sys.path if entry]
    return [path for path in found if not any(Path(path).is_relative_to(home) for home in homes)]
