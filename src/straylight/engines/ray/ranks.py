"""The ranks of a job of several nodes, as far as they are on this one."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from straylight.folder import RunFolder

TICK_S = 0.2
PATIENCE_S = 30.0  # for the others on a node to end by themselves when one has failed


class Meeting(NamedTuple):
    """Where ranks find each other.

    Attributes:
        address, port: on the first node.
        name: that no other meeting has.
    """

    address: str
    port: int
    name: str


class World(NamedTuple):
    """Of how many ranks a job is, and which of its nodes this one is.

    Attributes:
        node, nodes: this one, and of how many.
        ranks: on each.
    """

    node: int
    nodes: int
    ranks: int

    def environment(self, local: int, meeting: Meeting) -> Mapping[str, str]:
        """What `torchrun` would say to a rank.

        Example:
            >>> said = World(node=1, nodes=2, ranks=2).environment(0, Meeting("10.0.0.1", 4000, "x"))
            >>> said["RANK"], said["LOCAL_RANK"], said["WORLD_SIZE"], said["MASTER_ADDR"]
            ('2', '0', '4', '10.0.0.1')
        """
        return {
            "RANK": str(self.node * self.ranks + local),
            "LOCAL_RANK": str(local),
            "WORLD_SIZE": str(self.nodes * self.ranks),
            "LOCAL_WORLD_SIZE": str(self.ranks),
            "GROUP_RANK": str(self.node),
            "GROUP_WORLD_SIZE": str(self.nodes),
            "NODE_RANK": str(self.node),
            "MASTER_ADDR": meeting.address,
            "MASTER_PORT": str(meeting.port),
            "TORCHELASTIC_RUN_ID": meeting.name,
        }


class RankEnded(NamedTuple):
    """How the ranks of a node ended: the first that did not end well, or the first of all, with its exit status."""

    rank: int
    status: int


def meet(name: str) -> Meeting:
    """A place on this node, which a task of Ray's looks for."""
    import ray

    address = str(ray.util.get_node_ip_address())
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as free:
        free.bind((address, 0))
        return Meeting(address, free.getsockname()[1], name)


def run(folder: RunFolder, world: World, meeting: Meeting) -> RankEnded:
    """Start the ranks of this node, and wait for their end. Ctrl-C interrupts all of them, a second one kills them."""
    ranks = {}
    for local in range(world.ranks):
        rank = world.node * world.ranks + local
        with folder.log(rank).open("ab") as log:
            ranks[rank] = subprocess.Popen(
                [sys.executable, "-m", "straylight.job", str(folder)],
                env={**os.environ, **world.environment(local, meeting)},
                stdout=log,
                stderr=log,
            )
    first: RankEnded | None = None
    kill_at, asked = float("inf"), False
    while any(process.poll() is None for process in ranks.values()):
        try:
            ended = [RankEnded(rank, process.returncode) for rank, process in ranks.items() if process.returncode]
            if first is None and ended:
                first, kill_at = ended[0], time.monotonic() + PATIENCE_S
            if time.monotonic() > kill_at:
                _tell(ranks.values(), signal.SIGKILL)
            time.sleep(TICK_S)
        except KeyboardInterrupt:
            _tell(ranks.values(), signal.SIGKILL if asked else signal.SIGINT)
            asked = True
    ended = [RankEnded(rank, process.returncode) for rank, process in ranks.items()]
    return first or next((one for one in ended if one.status), ended[0])


def _tell(processes: Iterable[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)
