"""The first of the ranks that somebody else started: it says what is done, and who is to blame if that fails."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from straylight.console import say
from straylight.folder import RunFolder
from straylight.habits import refuse_ranks
from straylight.job.attempt import Tell, attempt
from straylight.job.meeting import (
    ARRIVE_S,
    GONE,
    JOIN_S,
    LINGER_S,
    LOST_S,
    PATIENCE_S,
    SILENT_S,
    Clock,
    Meeting,
    store_of,
)
from straylight.job.order import Order
from straylight.job.perform import ENDS
from straylight.job.pulse import LOST, Beat, Watch
from straylight.job.world import World
from straylight.stopping import STOP

TICK_S = 0.2
COLLECT_S = 25.0  # for the others to say why they have ended


@contextmanager
def leading(world: World) -> Iterator["Leader"]:
    """Lead the others, who end as this does.

    Raises:
        ConfigError: if they cannot meet.
    """
    leader = Leader(world, store_of(world), store_of(world._replace(kept=True)))
    leader.open()
    leader.start()
    status = 1
    try:
        yield leader
        status = 0
    except KeyboardInterrupt:
        status = ENDS["interrupted"]
        raise
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
        raise
    finally:
        leader.dismiss(status)


class Leader(Meeting):
    """The first rank.

    Args:
        leave: ends the process from a thread; replaced in tests.
    """

    def __init__(
        self, world: World, store: Any, line: Any, clock: Clock = time.monotonic, leave: Callable[[int], Any] = os._exit
    ) -> None:
        super().__init__(world, store, line, clock)
        self._leave = leave
        self._others = range(1, world.size)
        self._job: tuple[Order, RunFolder] | None = None
        self._watch: Watch | None = None
        self._started = clock()
        self._seen: dict[int, int] = {}  # how many beats of each rank
        self._heard: dict[int, float] = {}  # and when the last was new
        self.hosts: dict[int, str] = {}
        self.ends: dict[int, tuple[str, str]] = {}  # status and reason
        self._since: dict[str, float] = {}  # when something was seen that main thread may answer by itself
        self._concluding = threading.Lock()
        self._attempted = threading.Event()
        self._over = False

    def open(self) -> None:
        """Have all keys there, so that they are read at once."""
        for rank in range(self.world.size):
            self.say(f"beat/{rank}", None)
            self.say(f"end/{rank}", None)
        self.say("word", None)
        self.say("over", None)
        self.say("open", self.world.host)

    def lead(self, order: Order, folder: RunFolder, tell: Tell | None = None) -> dict[str, Any]:
        """Do a job together; what its `result.json` says, put right where another rank is to blame.

        Raises:
            ConfigError: if the config asks for other ranks than there are.
        """
        refuse_ranks(order.config["trainer"])
        self._watch = Watch(self.world.size, order.config["trainer"].get("timeout_s"), self.clock)
        self._job = order, folder
        self.say("word", {"folder": str(folder.path.absolute()), "run": order.run, "resume": order.resume})
        with _deaf():  # but for the attempt, which listens by itself: what comes after it is short
            result = attempt(order, folder, tell)
            self._attempted.set()
            with self._concluding:  # nobody else does from here on
                if result["status"] != "ok" and not result.get("refused"):
                    result = self._settled(result, order, folder)
                self.dismiss(ENDS[result["status"]])
        return result

    def dismiss(self, status: int) -> None:
        """Tell the others that all is over, and wait until they have gone, but not for long. The first word counts."""
        if self._over:
            return
        self._over = True
        start = self.clock()
        with suppress(RuntimeError):
            self.say("over", status)
            while any(self.clock() < start + patience for patience in map(self._patience, self._others)):
                time.sleep(TICK_S)
        self.leave()

    # who is to blame

    def _settled(self, result: dict[str, Any], order: Order, folder: RunFolder) -> dict[str, Any]:
        """What a run says that failed or was interrupted, once the others have said how they are."""
        own = str(result["reason"] or "")
        if result["status"] == "failed" and not LOST.search(own):
            return result
        self._collect(result["status"] == "interrupted")
        blamed = self._blamed()
        if blamed is None:
            return result
        return self._write(folder, order, {**result, "status": "failed", "reason": blamed})

    def _collect(self, interrupted: bool) -> None:
        """Wait until every other rank has said how it ended, or is gone; after an interruption, or lives."""
        start = self.clock()
        while self.clock() < start + COLLECT_S:
            open_ = [r for r in self._others if r in self._heard and r not in self.ends and not self._silent(r, LOST_S)]
            if not [r for r in open_ if not (interrupted and self._heard[r] > start)]:
                return
            time.sleep(TICK_S)

    def _blamed(self) -> str | None:
        """The ranks that are gone, or the first that failed by itself."""
        if gone := [r for r in self._others if r in self._heard and r not in self.ends and self._silent(r, LOST_S)]:
            return self._gone(gone)
        for rank, (status, reason) in sorted(self.ends.items()):
            if status == "failed" and not LOST.search(reason):
                return self._failed(rank, reason)
        return None

    def _failed(self, rank: int, reason: str) -> str:
        return f"Rank {rank} on {self.hosts.get(rank, 'its node')}: {reason}"

    def _gone(self, ranks: Collection[int]) -> str:
        folder = self._job[1] if self._job is not None else None
        return gone({rank: self.hosts.get(rank, "its node") for rank in ranks}, folder)

    def _write(self, folder: RunFolder, order: Order, result: Mapping[str, Any]) -> dict[str, Any]:
        written = {"metrics": {}, "latency": [], **order.fields, **result}
        with suppress(OSError):
            folder.write_result(written)
        return written

    # in the thread that listens

    def listened_to(self) -> list[str]:
        return [f"{key}/{rank}" for key in ("beat", "end") for rank in self._others]

    def hear(self, said: dict[str, Any], own: Beat) -> None:
        now = self.clock()
        for rank in self._others:
            if (beat := said[f"beat/{rank}"]) is not None and beat[0] != self._seen.get(rank):
                self._seen[rank], self.hosts[rank] = beat[0], beat[1]
                self._heard[rank] = now
                if self._watch is not None:
                    self._watch.heard(rank, Beat(*beat[2:]))
            if (end := said[f"end/{rank}"]) is not None:
                self.ends[rank] = (end[0], end[1])
        if self._watch is not None:
            self._watch.heard(0, own)
        if not self._over and (found := self._trouble(own, now)) is not None:
            self._conclude(*found)

    def alone(self) -> None:
        """The store is gone that who started the ranks keeps."""
        self._conclude("failed", f"The store at {self.world.address}:{self.world.port} that ranks meet at is gone.")

    def _trouble(self, own: Beat, now: float) -> tuple[str, str] | None:
        """Status and reason of a run that must be ended from here, whose main thread waits for who does not come."""
        never = [r for r in self._others if r not in self._heard and now - self._started > JOIN_S]
        if never:
            numbers = ", ".join(map(str, never))
            return "failed", f"Of {self.world.size} ranks {numbers} did not come within {JOIN_S:g} s."
        living = [rank for rank in self._others if rank in self._heard and rank not in self.ends]
        if silent := [rank for rank in living if self._silent(rank, SILENT_S)]:
            return "failed", self._gone(silent)
        if (
            self._watch is not None
            and self._job is not None
            and (stood := self._watch.silent([0, *living])) is not None
        ):
            rank, words = stood
            return "failed", f"Rank {rank} on {self.hosts.get(rank, self.world.host)} {words}."
        failed = next(((r, e[1]) for r, e in sorted(self.ends.items()) if e[0] == "failed"), None)
        stopped = any(status == "interrupted" for status, _ in self.ends.values())
        if failed is None and not stopped:
            return None
        first = self._since.setdefault("end", now)
        if not own.waits:
            self._since["waits"] = now
        waits = self._since.setdefault("waits", now)
        if stopped and now - first > PATIENCE_S and not STOP.asked and "asked" not in self._since:
            self._since["asked"] = now
            os.kill(os.getpid(), signal.SIGINT)  # as the rank had it
            return None
        if now - waits > 2 * PATIENCE_S or now - first > SILENT_S:
            return ("failed", self._failed(*failed)) if failed is not None else ("interrupted", "")
        return None

    def _conclude(self, status: str, reason: str) -> None:
        """End this process, whose main thread does not, and with it the run."""
        if not self._concluding.acquire(blocking=False):
            return
        say(f"Error: {reason}" if reason else "\nInterrupted.", error=True)
        self.dismiss(ENDS[status])
        if self._job is not None:
            order, folder = self._job
            self._attempted.wait(PATIENCE_S)  # the others have left the main thread alone, which may record that
            known = folder.read() or {}
            self._write(folder, order, {**known, "status": status, "reason": reason or None})
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        self._leave(ENDS[status])

    def _silent(self, rank: int, seconds: float) -> bool:
        return self.clock() - self._heard[rank] > seconds

    def _patience(self, rank: int) -> float:
        """How long to wait until a rank has heard that all is over."""
        if self.heard(f"end/{rank}") == GONE or (rank in self._heard and self._silent(rank, LOST_S)):
            return 0.0
        return LINGER_S if rank in self._heard else ARRIVE_S


@contextmanager
def _deaf() -> Iterator[None]:
    """Whoever has started the ranks sends signals to those that live when one is gone; it is to be said which."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def gone(ranks: Mapping[int, str], folder: RunFolder | None = None) -> str:
    """What to say of ranks, by number with their host, that are there no more.

    Example:
        >>> gone({1: "n1"})
        'Rank 1 on n1 is gone: its process was killed, or the node is lost.'
        >>> gone({2: "n2", 3: "n2"}, RunFolder("out"))
        'Ranks 2 and 3 on n2 are gone: their processes were killed, or the node is lost; see output.2.log. To go on \
from the last checkpoint: resume=out'
    """
    hosts: dict[str, list[str]] = {}
    for rank, host in ranks.items():
        hosts.setdefault(host, []).append(str(rank))
    several = len(ranks) > 1
    who = ", ".join(f"{_listed(numbers)} on {host}" for host, numbers in hosts.items())
    sentence = f"{'Ranks' if several else 'Rank'} {who} {'are' if several else 'is'} gone: "
    sentence += "their processes were killed" if several else "its process was killed"
    sentence += ", or the node is lost"
    first = min(ranks)
    if folder is None:
        return f"{sentence}."
    see = f"; see {Path(folder.log(first)).name}" if first else ""
    return f"{sentence}{see}. To go on from the last checkpoint: resume={folder}"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
