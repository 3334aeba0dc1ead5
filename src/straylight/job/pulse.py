"""Signs of life of a rank, and which of several keeps the others waiting when they end."""

import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

BEAT_S = 1.0  # between two signs of life
START_S = 30.0  # that a rank has at least to give the first, on a machine that is busy
#: Where a rank waits for the others.
WAITING = ("torch/distributed/", "torch/nn/parallel/distributed.py", "torch/autograd/graph.py")
#: What one says that has lost another.
LOST = re.compile(r"gloo|nccl|processgroup|tcpstore|Dist\w*Error|connection (closed|reset|refused)|broken pipe", re.I)
LIBRARIES = ("/torch/", "/pytorch_lightning/", "/lightning_fabric/", "/threading.py", "<frozen")


class Beat(NamedTuple):
    """What a rank says of itself.

    Attributes:
        signs: how far it is: grows as long as it goes on.
        waits: whether it is where it waits for the others.
        where: the line that it is at, in words.
    """

    signs: int
    waits: bool
    where: str


def beating(tell: Callable[[Beat], None]) -> None:
    """Tell how the main thread is, now and then, as long as the process lasts and can."""
    main = threading.main_thread().ident
    assert main is not None

    def beat() -> None:
        from straylight.stopping import STOP

        while True:
            frame = sys._current_frames().get(main)
            stack = traceback.extract_stack(frame)[::-1] if frame is not None else []
            waits = any(part in line.filename.replace("\\", "/") for line in stack[:4] for part in WAITING)
            own = next((line for line in stack if not any(part in line.filename for part in LIBRARIES)), None)
            where = "" if own is None else f"{Path(own.filename).name}:{own.lineno}, in {own.name}"
            try:
                tell(Beat(STOP.signs, waits, where))
            except OSError:  # nobody listens any more
                return
            time.sleep(BEAT_S)

    threading.Thread(target=beat, daemon=True).start()


class Watch:
    """Watches several ranks.

    Args:
        ranks: how many.
        patience_s: how long they may stand still; `None` is for ever.
        clock: seconds.

    Example:
        >>> now = [0.0]
        >>> watch = Watch(2, 10.0, lambda: now[0])
        >>> for second in range(12):
        ...     now[0] = second
        ...     watch.heard(0, Beat(5, True, "all_reduce"))
        ...     watch.heard(1, Beat(5, False, "mine.py:3, in step"))
        >>> watch.silent([0, 1])
        (1, 'has shown no sign of life for 10 s (trainer.timeout_s), last at mine.py:3, in step')
    """

    def __init__(self, ranks: int, patience_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience_s, self.clock = patience_s, clock
        self._beats: dict[int, Beat] = {}
        start = clock()
        self._heard = dict.fromkeys(range(ranks), start)  # when each last told anything
        self._moved = dict.fromkeys(range(ranks), start)  # and when it last went on

    def heard(self, rank: int, beat: Beat) -> None:
        """A rank tells how it is."""
        now = self._heard[rank] = self.clock()
        if rank not in self._beats or self._beats[rank].signs != beat.signs:
            self._moved[rank] = now
        self._beats[rank] = beat

    def silent(self, alive: Iterable[int]) -> tuple[int, str] | None:
        """Of the ranks that have not ended the one that keeps the others waiting, and why; `None` while they go on."""
        ranks = list(alive)
        if self.patience_s is None or not ranks:
            return None
        now = self.clock()
        first = max(self.patience_s, START_S)
        mute = [r for r in ranks if now - self._heard[r] > (self.patience_s if r in self._beats else first)]
        still = [rank for rank in ranks if now - self._moved[rank] > self.patience_s]
        if not mute and len(still) < len(ranks):
            return None
        rank = self._worst(mute or still)
        last = f", last at {beat.where}" if (beat := self._beats.get(rank)) is not None and beat.where else ""
        return rank, f"has shown no sign of life for {self.patience_s:g} s (trainer.timeout_s){last}"

    def _worst(self, ranks: list[int]) -> int:
        """The one that does not wait for others and is the least far."""
        unheard = Beat(-1, False, "")
        return min(ranks, key=lambda rank: ((beat := self._beats.get(rank, unheard)).waits, beat.signs))
