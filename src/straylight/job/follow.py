"""A rank that somebody else started, other than the first: it does what that says, and prints nothing here."""

import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from straylight.console import say
from straylight.errors import ConfigError, StraylightError
from straylight.folder import RunFolder
from straylight.job.attempt import interrupts
from straylight.job.lead import gone
from straylight.job.meeting import GONE, JOIN_S, LOST_S, PATIENCE_S, SILENT_S, Clock, Meeting, store_of
from straylight.job.order import Order
from straylight.job.perform import ENDS
from straylight.job.pulse import LOST, Beat
from straylight.job.world import World, world_here
from straylight.stopping import STOP
from straylight.streams import print_to

TICK_S = 0.1
SEEN_S = 60.0  # until a file that the first rank wrote is seen on another node


class Word(NamedTuple):
    """What the first rank says: the folder of the job, the id of the run, and whether it goes on."""

    folder: str
    run: str
    resume: bool


def main() -> int:
    """Be this rank from here on; the exit status, which is the first rank's."""
    try:
        world = world_here()
    except ConfigError:
        return ENDS["failed"]
    assert world is not None
    aside = Aside()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        line = _opened(world)
        follower = Follower(world, store_of(world), line, aside)
        follower.start()
        return follower.follow()
    except KeyboardInterrupt:
        return ENDS["interrupted"]
    except StraylightError as error:
        if world.local == 0:  # once a node
            aside.back()
            say(f"Error: {error}", error=True)
        return ENDS["failed"]
    except BaseException:
        aside.back()
        raise


def _opened(world: World, clock: Clock = time.monotonic) -> Any:
    """The store, once the first rank has opened the meeting.

    Raises:
        ConfigError: if it does not.
    """
    store, until = store_of(world, clock), clock() + JOIN_S
    try:
        while not store.check(["open"]):
            if clock() > until:
                raise ConfigError(f"Rank 0 has not begun within {JOIN_S:g} s.")
            time.sleep(TICK_S)
    except RuntimeError as error:
        raise ConfigError("Rank 0 has ended before it said what to do.") from error
    return store


class Aside:
    """What this process prints: kept until it is known where to."""

    def __init__(self) -> None:
        _flush()
        self._before = [os.dup(number) for number in (1, 2)]
        self._kept = tempfile.TemporaryFile()  # noqa: SIM115  which is there as long as the process
        for number in (1, 2):
            os.dup2(self._kept.fileno(), number)

    def into(self, path: Path) -> None:
        """Print into a file from here on, behind what it holds."""
        said = self._said()
        print_to(path)
        os.write(1, said)

    def back(self) -> None:
        """Print where the process was to, what was kept first."""
        said = self._said()
        for number, before in zip((1, 2), self._before, strict=True):
            os.dup2(before, number)
        os.write(2, said)

    def _said(self) -> bytes:
        _flush()
        self._kept.seek(0)
        said = self._kept.read()
        self._kept.truncate(0)
        return said


class Follower(Meeting):
    """A rank other than the first.

    Args:
        aside: what it prints.
        leave: ends the process from a thread; replaced in tests.
    """

    def __init__(
        self,
        world: World,
        store: Any,
        line: Any,
        aside: Aside | None = None,
        clock: Clock = time.monotonic,
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        super().__init__(world, store, line, clock)
        self._aside, self._leave = aside, leave
        self._word: Word | None = None
        self._status: int | None = None  # of all, once it is over
        self._severed = False  # from some other rank
        self._orphan = False  # the first rank is gone
        self._first: tuple[int, str] = (-1, "its node")  # its beats, and where
        self._heard = clock()
        self._folder: RunFolder | None = None
        self._burying = threading.Lock()

    def follow(self) -> int:
        """Do what the first rank says, and wait until it says that all is over; the exit status."""
        try:
            end = self._do()
        except KeyboardInterrupt:
            end = "interrupted", ""
        except Exception as error:
            own = isinstance(error, StraylightError)
            if own:
                say(f"Error: {error}", error=True)
            else:
                traceback.print_exc()
            end = "failed", " ".join(f"{'' if own else f'{type(error).__name__}: '}{error}".split())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the end of all is near
        self._severed = bool(LOST.search(end[1]))
        if self._status is None and not self._orphan:
            with suppress(RuntimeError):
                self.say(f"end/{self.world.rank}", end)
        while self._status is None and not self._orphan:
            time.sleep(TICK_S)
        if self._status is None:
            self._bury()
            return ENDS["failed"]
        self._go()
        return self._status

    def _do(self) -> tuple[str, str]:
        from straylight.job.train import train

        while self._word is None:
            if self._status is not None or self._orphan:
                return "ok", ""
            time.sleep(TICK_S)
        order, self._folder = self._awaited(self._word)
        if self._aside is not None:
            self._aside.into(self._folder.log(self.world.rank))
        with STOP.listening():
            try:
                train(order.cfg, self._folder, resume=self._word.resume, ranks=self.world.size)
            except (KeyboardInterrupt, SystemExit) as error:
                if STOP.asked or interrupts(error):
                    return "interrupted", ""
                raise StraylightError(
                    f"Something in the run called sys.exit({getattr(error, 'code', None)!r})."
                ) from error
        return "ok", ""

    def _awaited(self, word: Word) -> tuple[Order, RunFolder]:
        """What the folder says, once it is seen here.

        Raises:
            ConfigError: if it is not.
        """
        folder, until = RunFolder(word.folder), self.clock() + SEEN_S
        while True:
            with suppress(ConfigError):
                if (order := Order.read(folder)).run == word.run:
                    return order, folder
            if self.clock() > until or self._status is not None:
                raise ConfigError(
                    f"{folder}, which rank 0 writes to, is not seen here: set paths.output to a folder that all nodes "
                    "share."
                )
            time.sleep(TICK_S)

    def _go(self) -> None:
        with suppress(RuntimeError):
            self.say(f"end/{self.world.rank}", GONE)
        self.leave()

    def _bury(self) -> None:
        """Say how a run has ended that lost its first rank: one of the others does."""
        if not self._burying.acquire(blocking=False):
            return
        self.leave()
        if self.world.rank != self.world.deputy:
            return
        reason = gone({0: self._first[1]}, self._folder)
        if self._folder is not None and self._word is not None:
            if not self._folder.path.is_dir() or self._folder.run != self._word.run or self._folder.result.is_file():
                return  # it has said so itself
            known = {"metrics": {}, "latency": [], **Order.read(self._folder).fields}
            self._folder.write_result({**known, "status": "failed", "reason": reason})
        if self._aside is not None:
            self._aside.back()
        say(f"Error: {reason}", error=True)

    # in the thread that listens

    def listened_to(self) -> list[str]:
        return ["word", "over", "beat/0"]

    def hear(self, said: dict[str, Any], own: Beat) -> None:
        if said["word"] is not None and self._word is None:
            self._word = Word(**said["word"])
        if (first := said["beat/0"]) is not None and first[0] != self._first[0]:
            self._first, self._heard = (first[0], first[1]), self.clock()
        if self._status is None and said["over"] is not None:
            self._status = said["over"]
            self._see_to_the_end(self._status)
        elif self._status is None and self.clock() - self._heard > (LOST_S if self._severed else SILENT_S):
            self.alone()

    def alone(self) -> None:
        self._orphan = True
        self._see_to_the_end(ENDS["failed"])

    def _see_to_the_end(self, status: int) -> None:
        """Give the main thread some time to end by itself; it may wait for a rank that does not come."""
        time.sleep(PATIENCE_S)
        if self._left:
            return
        if self._orphan:
            self._bury()
        else:
            self._go()
        logging.shutdown()
        _flush()
        self._leave(status)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
