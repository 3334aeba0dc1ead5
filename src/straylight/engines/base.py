"""What a sweep asks of whatever runs its jobs."""

import signal as signals
from collections.abc import Collection
from typing import NamedTuple, Protocol

from straylight.folder import RunFolder
from straylight.job.devices import Asked


class Running(NamedTuple):
    """A job that goes on, or will.

    Attributes:
        line: the last it said of how far it is, or why it waits.
        place: the machine that it is on, where that is not this one.
        queued: whether it waits for its turn and has not begun.
    """

    line: str = ""
    place: str = ""
    queued: bool = False


class Ended(NamedTuple):
    """A job whose processes are over.

    Attributes:
        status: of the process that says how it went: 0 well, 130 interrupted, `None` where nobody knows.
        signal: that killed it, if one did.
        log: the file with what it printed.
        rank: of several, the one that broke first by itself; `None` of a job of one process.
        reused: whether its process had done other jobs before.
        lost: whether it could not help ending, since what runs the engine's jobs was gone.
        said: why, in its own words or those of the engine.
    """

    status: int | None
    signal: int | None = None
    log: str = ""
    rank: int | None = None
    reused: bool = False
    lost: bool = False
    said: str | None = None

    @property
    def words(self) -> str:
        """How the process ended.

        Example:
            >>> Ended(3).words, Ended(None, 11, rank=1).words
            ("The job's process ended with status 3", 'Rank 1 was killed by signal 11 (SIGSEGV)')
        """
        who = "The job's process" if self.rank is None else f"Rank {self.rank}"
        if self.said is not None and self.rank is None:
            return f"The job {self.said}".rstrip(".")
        if self.said is not None:
            return f"{who} {self.said}" if self.said.startswith("has ") else f"{who}: {self.said}"
        if self.signal is not None:
            name = signals.Signals(self.signal).name
            note = ", as the kernel does where memory runs out" if name == "SIGKILL" else ""
            return f"{who} was killed by signal {self.signal} ({name}{note})"
        return f"{who} ended {'without a result' if not self.status else f'with status {self.status}'}"


class Engine(Protocol):
    """Runs jobs, each of which is a folder with an order in it (`straylight.job.order`), and answers in `result.json`.

    It knows neither sweeps nor configs: what a job is, whether it is tried again and what its result means are the
    sweep's. Ids are texts that another process can ask about when the one that submitted has died, if the engine's
    jobs outlive it.
    """

    #: What `job.json` calls it.
    name: str
    #: Whether its jobs go on when the one that submitted them is gone.
    outlives: bool
    #: Whether a job that was submitted may wait for its turn.
    queues: bool

    def submit(self, folder: RunFolder, asked: Asked) -> str | None:
        """Start the job of a folder; its id, or `None` where there is no room for it now.

        Raises:
            ConfigError: if there will never be room.
        """
        ...

    def look(self, ids: Collection[str]) -> dict[str, Running | Ended]:
        """How jobs are. An id that is not known here has ended."""
        ...

    def wait(self, ids: Collection[str], seconds: float) -> None:
        """Until one of the jobs may have something to tell, or so many seconds."""
        ...

    def stop(self, id: str, grace_s: float) -> None:
        """Ask a job to end as on Ctrl-C, with a checkpoint, and see to it that it has after so many seconds."""
        ...

    def close(self) -> None:
        """Free what is held; jobs that still run are the engine's to end or to leave."""
        ...
