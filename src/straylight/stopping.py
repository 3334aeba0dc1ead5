"""Asking a run to end: Ctrl-C, SIGTERM and SIGHUP are noted, and acted on where nothing is lost.

A signal sets a flag. While a detector is trained nothing else happens until its `Interrupt` callback has left a
checkpoint; elsewhere the run is left at once, and where that is swallowed, as by a library in the middle of a drawing,
when the next phase begins. A second signal does not wait.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from straylight.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """What this process has been asked.

    Attributes:
        asked: whether to end.
        careful: whether the run is left by who looks at `asked`, and not by the signal itself.
        begun: whether a run is in progress, which what was asked is meant for.
        signs: how often it was looked at: of a process that goes on, this grows.
        by: the signal that asked, of the run that goes on or the last one.

    Example:
        >>> stop = Stop()
        >>> stop.careful = True
        >>> stop(signal.SIGINT)
        >>> stop.asked, stop.careful
        (True, True)
    """

    def __init__(self) -> None:
        self.asked = self.careful = self.begun = False
        self.signs = 0
        self.by: int | None = None

    def __call__(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal.

        Raises:
            Interrupted: if it is the second, or nothing is lost.
        """
        again, self.asked, self.by = self.asked, True, number
        if again or not self.careful:
            raise Interrupted

    def look(self) -> None:
        """Between two phases.

        Raises:
            Interrupted: if it was asked to end.
        """
        self.signs += 1
        if self.asked and self.begun and not self.careful:
            raise Interrupted

    def listen(self) -> None:
        """Take the signals, also from whoever took them since; a SIGHUP that `nohup` has ignored stays so."""
        if threading.current_thread() is threading.main_thread():
            self.asked &= signal.getsignal(signal.SIGINT) == self  # what was asked of an earlier run is not of this one
            for number in SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Begin anew, and listen as long as this lasts."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self.asked, self.careful, self.begun, self.by = False, False, True, None
        self.listen()
        try:
            yield
        finally:
            self.asked = self.careful = self.begun = False
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)


#: Of this process, which has one main thread that gets signals.
STOP = Stop()
