"""What a sweep looks like while it runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from straylight.console import Plain
from straylight.engines.base import Running

TAIL = 12  # jobs that have ended, and that are shown
MOST = 40  # that have not


class _Shown(NamedTuple):
    """A job that runs: what it is, since when, and what its engine says of it."""

    what: str
    since: float
    state: Running


class Board:
    """Tells of jobs as they start and end.

    Args:
        total: how many jobs there are.
        console: where to; standard output by default.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.total = total
        self.console = console or (Plain() if sys.stdout.isatty() else Plain(width=400, soft_wrap=True))
        self._running: dict[int, _Shown] = {}
        self._ended: list[tuple[int, str, str]] = []
        self._count: dict[str, int] = {}
        self._live = Live(console=self.console, refresh_per_second=4, get_renderable=self.table)
        self._shown = self.console.is_terminal

    def __enter__(self) -> Board:
        if self._shown:
            self._live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._shown:
            self._live.stop()

    def start(self, number: int, what: str, *, queued: bool = False) -> None:
        """A job starts, or is given to who starts it in its turn."""
        self._running[number] = _Shown(what, time.monotonic(), Running(queued=queued))
        if not self._shown:
            self.say(f"#{number} {'queued' if queued else 'started'}: {what}")

    def progress(self, number: int, state: Running) -> None:
        """How far a job is, and where, or that it waits for its turn."""
        if (shown := self._running.get(number)) is None or shown.state == state:
            return
        if shown.state.queued == state.queued:
            state = state._replace(line=state.line or shown.state.line)
            self._running[number] = shown._replace(state=state)
            return
        self._running[number] = shown._replace(since=time.monotonic(), state=state)
        if not self._shown:
            place = f" on {state.place}" if state.place else ""
            self.say(f"#{number} {'queued again' if state.queued else f'started{place}'}")

    def end(self, number: int, status: str, headline: str) -> None:
        """A job has ended: `ok`, `failed`, `interrupted`, `again` if it is tried again, or `known` from before."""
        self._running.pop(number, None)
        self._count[status] = self._count.get(status, 0) + 1
        self._ended.append((number, status, headline))
        if not self._shown:
            self.say(f"#{number} {headline}" if status in ("ok", "known") else f"#{number} {status}: {headline}")

    def say(self, line: str) -> None:
        """A line of its own."""
        self.console.print(Text(line), highlight=False, soft_wrap=True)

    def summary(self) -> str:
        """How many jobs are where."""
        count = dict(self._count)  # another thread draws
        states = [shown.state.queued for shown in list(self._running.values())]
        waiting = self.total - len(states) - sum(n for s, n in count.items() if s != "again")
        queued = sum(states)
        parts = {"running": len(states) - queued, "queued": queued, "waiting": waiting, **count}
        return ", ".join(f"{n} {name}" for name, n in parts.items() if n)

    def table(self) -> Table:
        """The jobs that run, and the last that have ended."""
        out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=Text(self.summary()), title_justify="left")
        out.add_column("job", justify="right")
        out.add_column("status")
        out.add_column("what", overflow="ellipsis", no_wrap=True)
        colours: Mapping[str, str] = {"ok": "green", "known": "green", "failed": "red", "interrupted": "yellow"}
        for number, status, headline in self._ended[-TAIL:]:
            out.add_row(str(number), Text(status, style=colours.get(status, "")), Text(headline))
        running = sorted(self._running.items(), key=lambda item: item[1].state.queued)
        for number, (what, since, state) in running[:MOST]:
            passed = f"{time.monotonic() - since:.0f} s"
            told = Text(f"queued {passed}", style="dim") if state.queued else Text(passed, style="cyan")
            where = f"{state.place}  " if state.place else ""
            out.add_row(str(number), told, Text(f"{what}  {where}{state.line}"))
        return out
