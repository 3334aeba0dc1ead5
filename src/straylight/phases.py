"""What a run does now: one line that is kept up to date in a terminal, and a line for each phase elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from straylight.streams import plain

CLEAR = "\r\x1b[2K"
TICK_S = 0.5  # between two looks at the clock
SHOWN_S = 2.0  # from when on it is said how long the line has stood


class Phases:
    """Told what a run does now, it says so.

    In a terminal all phases share one line, which goes when all is done; whatever else is printed in the meantime
    stands above it. Elsewhere every phase is a line of its own.

    Args:
        out: where to; standard error by default.
        clock: seconds; replaced in tests.

    Attributes:
        live: whether the line is kept up to date, so that it may be told often.

    Example:
        >>> phases = Phases(sys.stdout)
        >>> phases("reading blobs")
        reading blobs
    """

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out or sys.stderr
        self._clock = clock
        self.live = self._out.isatty() and os.environ.get("TERM") != "dumb"
        self._turn = threading.RLock()  # the clock is looked at by another thread
        self._text = ""
        self._since = 0.0
        self._drawn = self._broken = False
        self._proxies: list[_Above] = []
        self._over = threading.Event()

    def __call__(self, text: str) -> None:
        """Say what is done now."""
        text = plain(text)
        with self._turn:
            if not self.live:
                if text != self._text:
                    print(text, file=self._out, flush=True)
                self._text = text
                return
            self._text, self._since = text, self._clock()
            self._begin()
            self._draw()

    def keep(self, text: str) -> None:
        """Say what was done, in a line that stays."""
        with self._turn:
            if self.live:
                self._clear()
            print(plain(text), file=self._out, flush=True)
            self._text = ""

    def done(self) -> None:
        """Nothing more is done: a terminal's line goes, and what is printed is printed as ever."""
        with self._turn:
            self._over.set()
            self._clear()
            self._text = ""
            for proxy in self._proxies:
                proxy.leave()
            self._proxies = []

    # a terminal's line

    def _begin(self) -> None:
        if self._proxies:
            return
        self._proxies = [_Above(self, name) for name in ("stdout", "stderr") if getattr(sys, name).isatty()]
        self._over = threading.Event()
        threading.Thread(target=self._tick, args=(self._over,), daemon=True).start()

    def _tick(self, over: threading.Event) -> None:
        while not over.wait(TICK_S):
            with self._turn:
                if not over.is_set():
                    self._draw()

    def _draw(self) -> None:
        if self._broken or not self._text:  # somebody else's line is not at its end
            return
        seconds = self._clock() - self._since
        took = f"  {seconds:.0f} s" if seconds >= SHOWN_S else ""
        try:
            width = os.get_terminal_size(self._out.fileno()).columns or 80
        except (OSError, ValueError):
            width = 80
        line = self._text + took
        self._out.write(CLEAR + (line if len(line) < width else line[: width - 2] + "…"))
        self._out.flush()
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._out.write(CLEAR)
            self._out.flush()
            self._drawn = False

    def above(self, stream: TextIO, text: str) -> int:
        """Print what others print, above the line."""
        with self._turn:
            self._clear()
            written = stream.write(text)
            if text:
                self._broken = not text.endswith("\n")
            if self._proxies:
                stream.flush()
                self._draw()
            return written


class _Above:
    """Stands for one of the standard streams while there is a line below what is printed."""

    def __init__(self, phases: Phases, name: str) -> None:
        self._phases, self._name, self._stream = phases, name, getattr(sys, name)
        setattr(sys, name, self)

    def write(self, text: str) -> int:
        return self._phases.above(self._stream, text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def leave(self) -> None:
        if getattr(sys, self._name) is self:  # nobody has put another one there
            setattr(sys, self._name, self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
