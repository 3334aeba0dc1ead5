"""Where the ranks meet that somebody else started: a store in which the first one says what is done.

It is the store at `MASTER_ADDR`, `MASTER_PORT` that `torchrun` keeps, and that the first rank keeps where nobody does;
torch's process group finds itself there, too. In it stand

| key | said by | what |
|---|---|---|
| `open` | rank 0 | that all other keys are there |
| `word` | rank 0 | the folder of the job, once it has one |
| `beat/R` | rank R | every second that it lives, and where it is |
| `end/R` | rank R | how it ended, before it goes |
| `over` | rank 0 | the exit status of all |
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from straylight.errors import ConfigError
from straylight.job.pulse import BEAT_S, Beat, beating
from straylight.job.world import World

Clock = Callable[[], float]

JOIN_S = 600.0  # for all ranks to come, on nodes that load slowly
KEPT_S = 60.0  # for a store to answer that is there before any rank
SILENT_S = 120.0  # without a beat, after which a rank is gone
LOST_S = 15.0  # the same, where a connection is lost already
PATIENCE_S = 5.0  # for a rank to end by itself when another has
LINGER_S = 10.0  # for the others to hear that all is over
ARRIVE_S = 60.0  # the same of those that have not come yet, which would wait for the first rank in vain
GONE = ["gone", ""]  # the end of a rank that has heard so


def store_of(world: World, clock: Clock = time.monotonic) -> Any:
    """The store of these ranks: a connection to it, and on the first rank the store itself where nobody else keeps it.

    Raises:
        ConfigError: if it cannot be reached, or cannot be kept since something else is there.
    """
    from torch.distributed import DistNetworkError, PrefixStore, TCPStore

    try:
        socket.getaddrinfo(world.address, world.port)
    except OSError as error:
        raise ConfigError(
            f"{world.address}, where rank 0 is met, has no address on {world.host}: set MASTER_ADDR to one of the "
            "first node that all others reach."
        ) from error
    patience = KEPT_S if world.kept else JOIN_S
    until = clock() + patience
    kept = None
    if world.rank == 0 and not world.kept:
        try:
            kept = TCPStore(world.address, world.port, is_master=True, wait_for_workers=False)
        except DistNetworkError as error:
            raise ConfigError(
                f"Port {world.port} of {world.host} is taken, and ranks were to meet there: set MASTER_PORT to another."
            ) from error
    while kept is None:
        try:
            kept = TCPStore(world.address, world.port, wait_for_workers=False, timeout=timedelta(seconds=5))
        except DistNetworkError as error:
            if clock() > until:
                raise ConfigError(
                    f"Rank {world.rank} on {world.host} has not met rank 0 at {world.address}:{world.port} in "
                    f"{patience:g} s: see that this port is open between the nodes, or set MASTER_ADDR and MASTER_PORT."
                ) from error
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # so that torch's process group does not open another one
    return PrefixStore(f"straylight/{world.attempt}", kept)


class Meeting:
    """One rank at the meeting place, which says every second that it lives.

    Args:
        world: of the rank.
        store: a connection to say something by.
        line: another one, for the thread that listens.
        clock: seconds.
    """

    def __init__(self, world: World, store: Any, line: Any, clock: Clock = time.monotonic) -> None:
        self.world, self.store, self.clock = world, store, clock
        self._line = line
        self._beats = 0
        self._left = False
        self._taken = threading.Event()  # since the guard looked

    def start(self) -> None:
        """Begin to beat, and to listen."""
        beating(self._beat)
        threading.Thread(target=self._guard, daemon=True).start()

    def say(self, key: str, value: Any) -> None:
        """Put something where all see it."""
        self.store.set(key, json.dumps(value))

    def heard(self, key: str) -> Any:
        """What stands there."""
        return json.loads(self.store.get(key))

    def leave(self) -> None:
        """Say nothing more, and hear nothing."""
        self._left = True

    # what a rank makes of it

    def listened_to(self) -> list[str]:
        """The keys that are listened to, all of which are there since the meeting is open."""
        raise NotImplementedError

    def hear(self, said: dict[str, Any], own: Beat) -> None:
        """Take in what stands there now; `own` is where this rank's main thread is."""
        raise NotImplementedError

    def alone(self) -> None:
        """The store is gone, or does not answer."""
        raise NotImplementedError

    # in threads

    def _beat(self, own: Beat) -> None:
        if self._left:
            raise OSError("left")
        self._beats += 1
        try:
            self._line.set(f"beat/{self.world.rank}", json.dumps([self._beats, self.world.host, *own]))
            keys = self.listened_to()
            said = dict(zip(keys, map(json.loads, self._line.multi_get(keys)), strict=True))
        except RuntimeError as error:  # of a connection that is closed
            if not self._left:
                self.alone()
            raise OSError(str(error)) from error
        self._taken.set()
        self.hear(said, own)

    def _guard(self) -> None:
        """See that the store answers. Counts its own seconds, which do not pass while nothing here may run."""
        seconds = 0
        while not self._left:
            time.sleep(BEAT_S)
            seconds = 0 if self._taken.is_set() else seconds + 1
            self._taken.clear()
            if seconds * BEAT_S > SILENT_S:
                self.alone()
                return
