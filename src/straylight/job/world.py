"""Ranks that somebody else started, by `torchrun` or `srun`: which of them this process is, in one form."""

import os
import re
import socket
from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple

from straylight.errors import ConfigError
from straylight.job.devices import asked_for

#: What `torchrun` says of a world, as far as we read it, and what else it says of one.
NEEDED = ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
SAID = ("RANK", "WORLD_SIZE", *NEEDED, "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK")
ROLE = ("ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME")
AGENT = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT")
FIRST_PORT = 15000  # of ten thousand from which one is taken by the number of Slurm's job, as Lightning does


class World(NamedTuple):
    """The ranks that were started, as one of them sees them.

    Attributes:
        rank, size: which one this is, and of how many.
        local, on_node: which one on its node, and of how many; `on_node` is 0 where nobody says.
        host: what the node is called.
        address, port: where all of them meet.
        kept: whether whoever started them keeps a store there, as `torchrun` does.
        attempt: tells what they say to each other from what others said there before.
    """

    rank: int
    size: int
    local: int
    on_node: int
    host: str
    address: str
    port: int
    kept: bool = False
    attempt: str = ""

    @property
    def nodes(self) -> int:
        """How many nodes there are; 0 where nobody says."""
        return self.size // self.on_node if self.on_node and self.size % self.on_node == 0 else 0

    @property
    def deputy(self) -> int:
        """The rank that says how a run has ended that lost the first one: on another node, if there is one."""
        return self.on_node if 0 < self.on_node < self.size else 1


def world_here(environment: MutableMapping[str, str] | None = None) -> World | None:
    """Which rank this process is; `None` of one that was started alone.

    What Slurm says of the tasks of a step is put into the environment as `torchrun` would say it, which Lightning and
    torch read. A batch script is no task of a step, whatever its job has room for. A world of one is none: what is
    said of it is taken out, so that such a process may start ranks of its own.

    Args:
        environment: instead of this process's.

    Raises:
        ConfigError: if a number is none, or something is left out.

    Example:
        >>> slurm = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
        >>> slurm |= {"SLURM_STEP_NODELIST": "n[07-08]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_JOB_ID": "120042"}
        >>> world = world_here(slurm)
        >>> world.rank, world.size, world.local, world.nodes, world.address, world.port
        (3, 4, 1, 2, 'n07', 15042)
        >>> world_here({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}), world_here({"RANK": "0", "WORLD_SIZE": "1"})
        (None, None)
    """
    said = os.environ if environment is None else environment
    if "RANK" not in said and _number(said, "SLURM_STEP_NUM_TASKS", 1) > 1 and "SLURM_PROCID" in said:
        said.update(_as_torchrun(said))
    if "RANK" not in said:
        return None
    if (size := _number(said, "WORLD_SIZE", 1)) == 1:
        for name in (*SAID, *ROLE, *AGENT):
            said.pop(name, None)
        return None
    if lacking := [name for name in NEEDED if not said.get(name)]:
        raise ConfigError(
            f"RANK and WORLD_SIZE={size} are set, and not {' and '.join(lacking)}: start the ranks by torchrun or "
            "srun, or unset RANK for a run of its own."
        )
    return World(
        rank=_number(said, "RANK"),
        size=size,
        local=_number(said, "LOCAL_RANK"),
        on_node=_number(said, "LOCAL_WORLD_SIZE", 0),
        host=said.get("SLURMD_NODENAME") or socket.gethostname(),
        address=said["MASTER_ADDR"],
        port=_number(said, "MASTER_PORT"),
        kept=said.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt="/".join(
            said.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "TORCHELASTIC_RUN_ID", AGENT[-1])
        ),
    )


def follows() -> bool:
    """Whether somebody else started this process as a rank other than the first, which says nothing by itself."""
    try:
        world = world_here()
    except ConfigError:  # the first one says so
        return os.environ.get("RANK") != "0"
    return world is not None and world.rank > 0


def disagreement(world: World, trainer: Mapping[str, Any]) -> str | None:
    """What to say of a Trainer's config that asks for other ranks than were started; `None` where it asks for these.

    Example:
        >>> world = World(0, 4, 0, 2, "n1", "n1", 15042)
        >>> disagreement(world, {"accelerator": "cpu", "devices": 2, "num_nodes": 2})
        >>> disagreement(world, {"accelerator": "cpu", "devices": 2})
        '4 ranks were started, 2 on each of 2 nodes, and trainer.devices x trainer.num_nodes is 2 x 1: type \
trainer.devices=2 trainer.num_nodes=2, or have 2 started.'
    """
    if any(word in str(trainer.get("strategy")) for word in ("spawn", "fork", "notebook")):
        return (
            f"trainer.strategy={trainer['strategy']} starts ranks of its own, and {world.size} were started already: "
            "type trainer.strategy=ddp."
        )
    asked = asked_for(trainer)
    devices, nodes = asked.ranks, asked.nodes
    if devices * nodes == world.size and world.nodes in (0, nodes):
        return None
    where = f", {world.on_node} on each of {world.nodes} nodes" if world.nodes > 1 else ""
    typed = f"trainer.devices={world.on_node if world.nodes else world.size}"
    typed += f" trainer.num_nodes={world.nodes}" if world.nodes > 1 or nodes > 1 else ""
    other = f", or have {devices * nodes} started" if devices * nodes != world.size else ""
    return (
        f"{world.size} ranks were started{where}, and trainer.devices x trainer.num_nodes is {devices} x {nodes}: "
        f"type {typed}{other}."
    )


def _as_torchrun(slurm: Mapping[str, str]) -> dict[str, str]:
    """What `torchrun` would say to the task of a step of Slurm's; what is set already stays."""
    node = _number(slurm, "SLURM_NODEID", 0)
    tasks = _expanded(slurm.get("SLURM_STEP_TASKS_PER_NODE", ""))
    port = FIRST_PORT + (_number(slurm, "SLURM_JOB_ID", 0) + _number(slurm, "SLURM_STEP_ID", 0)) % 10000
    said = {
        "RANK": slurm["SLURM_PROCID"],
        "WORLD_SIZE": slurm["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": slurm.get("SLURM_LOCALID", ""),
        "LOCAL_WORLD_SIZE": str(tasks[node] if len(set(tasks)) == 1 else 0),
        "GROUP_RANK": str(node),
        "NODE_RANK": str(node),
        "MASTER_ADDR": slurm.get("MASTER_ADDR") or first_host(slurm.get("SLURM_STEP_NODELIST", "")),
        "MASTER_PORT": slurm.get("MASTER_PORT") or str(port),
    }
    return {name: value for name, value in said.items() if value}


def first_host(names: str) -> str:
    """The first of a list of hosts as Slurm writes it.

    Example:
        >>> first_host("gpu-[003-007,9],cpu1"), first_host("a1-ib,a2-ib"), first_host("r[1-2]n[4,6]-x")
        ('gpu-003', 'a1-ib', 'r1n4-x')
    """
    return re.sub(r"\[([^],-]*)[^]]*\]", r"\1", names).partition(",")[0]


def _expanded(counts: str) -> list[int]:
    """Tasks of every node, as Slurm writes them.

    Example:
        >>> _expanded("2(x3),1")
        [2, 2, 2, 1]
    """
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


def _number(said: Mapping[str, str], name: str, otherwise: int | None = None) -> int:
    text = said.get(name)
    if text is None and otherwise is not None:
        return otherwise
    if text is None or not text.isdigit():
        raise ConfigError(f"{name}={text} in the environment is no number: it is set by who starts the ranks.")
    return int(text)
