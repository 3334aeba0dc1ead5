"""The engine of a cluster of Ray's: every job is a task with resources of its own."""

import os
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from straylight.engines import node
from straylight.engines.base import Ended, Running
from straylight.engines.ray.cluster import Cluster
from straylight.engines.ray.options import Needs, Options, amounts
from straylight.engines.ray.task import Work, run
from straylight.errors import ConfigError
from straylight.folder import RunFolder
from straylight.job.devices import Asked

QUEUED = 500  # tasks that wait at Ray; more wait here
CALLS = 200  # tasks that a worker of Ray's takes, one after the other
LOOKED_S = 10.0  # between two looks at the nodes
INSIST_S = 5.0  # after which a task that does not end has its worker killed


@dataclass
class _Task:
    """A job at Ray.

    Attributes:
        folder: the job's.
        needs: what it asks for.
        refs: what Ray calls its task.
        running: how far it has told to be, and `told_at` when that was looked at.
        kill_at: when it must have ended, if it is to.
    """

    folder: RunFolder
    needs: Needs
    ref: Any
    running: Running = Running("", queued=True)
    told_at: float = 0.0
    kill_at: float | None = None


class RayEngine:
    """Gives jobs to Ray, which queues them; they die with this process.

    Ray's own retries are off, so that each attempt is one of the sweep's.

    Args:
        options: which cluster, and what is asked of it for each job.

    Raises:
        ConfigError: if the cluster cannot be reached.
    """

    name = "ray"

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self._cluster = Cluster(self.options)
        self._ray = self._cluster.ray
        environment = {name: os.environ[name] for name in self.options.environment if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join([*_own_path(), "${PYTHONPATH}"])  # of the node, which Ray puts in
        self._run = self._ray.remote(max_calls=CALLS, max_retries=0, runtime_env={"env_vars": environment})(run)
        self._tasks: dict[str, _Task] = {}
        self._nodes: list[dict[str, float]] = []
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
        if sum(task.running.queued for task in self._tasks.values()) >= QUEUED:
            return None
        folder.result.unlink(missing_ok=True)  # of before: a job that dies at once says nothing
        folder.progress.unlink(missing_ok=True)
        ref = self._run.options(num_cpus=needs.cpus, num_gpus=needs.gpus, name=folder.path.name).remote(
            Work(
                folder=str(folder.path.absolute()), threads=max(1, int(needs.cpus) // asked.ranks), cwd=str(Path.cwd())
            )
        )
        self._tasks[ref.hex()] = _Task(folder, needs, ref)
        return str(ref.hex())

    def _fits(self, needs: Needs) -> bool:
        """Whether there are nodes that have what is needed, whatever they do now."""
        now = time.monotonic()
        if self._nodes_at is None or now - self._nodes_at > LOOKED_S:
            self._nodes, self._nodes_at = self._cluster.nodes(), now
        fitting = [has for has in self._nodes if has.get("CPU", 0) >= needs.cpus and has.get("GPU", 0) >= needs.gpus]
        return len(fitting) >= needs.nodes

    def _no_place(self, needs: Needs) -> str:
        there = sorted({amounts(has.get("CPU", 0), has.get("GPU", 0)) for has in self._nodes})
        return (
            f"It asks for {needs.words} (hydra.launcher.cpus, hydra.launcher.gpus, threads and trainer.devices), and the "
            f"nodes of the Ray cluster have {' or '.join(there) or 'nothing'}. Where the cluster starts larger ones when "
            "they are asked for, set hydra.launcher.autoscaling=true."
        )

    # looking

    def look(self, ids: Collection[str]) -> dict[str, Running | Ended]:
        """See `Engine`."""
        self._end_those_late()
        refs = {task.ref: id for id in ids if (task := self._tasks.get(id)) is not None}
        ended: set[Any] = set()
        if refs:
            ended = set(self._ray.wait([*refs], num_returns=len(refs), timeout=0, fetch_local=False)[0])
        return {id: self._state(id, ended) for id in ids}

    def _state(self, id: str, ended: Collection[Any]) -> Running | Ended:
        task = self._tasks.get(id)
        if task is None:
            return Ended(None)
        if task.ref in ended:
            del self._tasks[id]
            return self._ended(task)
        now = time.monotonic()
        if now - task.told_at >= node.TOLD_S:
            task.told_at = now
            told = node.told(task.folder)
            if told.place:
                task.running = told
            elif task.running.queued and not self._fits(task.needs):
                task.running = Running(f"no node has {task.needs.words} now", queued=True)
        return task.running

    def _ended(self, task: _Task) -> Ended:
        """How a job ended, by what its task returned or what Ray says of it."""
        errors, log = self._ray.exceptions, str(task.folder.log(0))
        try:
            status, lost = self._ray.get(task.ref)
        except errors.TaskCancelledError:
            return Ended(None, log=log)
        except errors.OutOfMemoryError:
            return Ended(None, log=log, said="was ended by Ray, since its node ran out of memory")
        except (errors.NodeDiedError, errors.WorkerCrashedError, errors.LocalRayletDiedError):
            return Ended(None, log=log, lost=task.kill_at is None, said="lost its node, or Ray's worker there")
        except errors.RayError as error:
            said = " ".join(str(error).split())[-400:]
            return Ended(None, log=log, said=f"could not be started by Ray: {said}")
        if status < 0:
            return Ended(None, -status, log)
        return Ended(status, log=log, lost=lost, said=node.SAID.get(status))

    def wait(self, ids: Collection[str], seconds: float) -> None:
        """See `Engine`."""
        refs = [task.ref for id in ids if (task := self._tasks.get(id)) is not None]
        if refs:
            self._ray.wait(refs, num_returns=1, timeout=seconds, fetch_local=False)
        else:
            time.sleep(seconds)

    # ending

    def stop(self, id: str, grace_s: float) -> None:
        """See `Engine`. A task that waits is forgotten by Ray."""
        if (task := self._tasks.get(id)) is not None:
            task.kill_at = time.monotonic() + grace_s
            self._ray.cancel(task.ref)

    def _end_those_late(self) -> None:
        """Cancel once more what was told to end long ago, which kills it, and kill what does not hear even that."""
        now = time.monotonic()
        for task in self._tasks.values():
            if task.kill_at is not None and now > task.kill_at:
                self._ray.cancel(task.ref, force=now > task.kill_at + INSIST_S)

    def close(self) -> None:
        """End all tasks that are left."""
        for task in self._tasks.values():
            self._ray.cancel(task.ref, force=True)
        self._tasks.clear()
        self._cluster.close()


def _own_path() -> list[str]:
    """Where modules are looked for here that are not Python's own, of which each machine has one."""
    homes = {sys.prefix, sys.base_prefix}
    found = [str(Path(entry).absolute()) for entry in sys.path if entry]
    return [path for path in found if not any(Path(path).is_relative_to(home) for home in homes)]
