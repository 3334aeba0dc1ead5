"""What is printed: of names and sentences that come from files no terminal takes a command."""

import logging
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

#: What terminals act on, but for the end of a line and a tab: C0, DEL and C1, and what turns the direction of writing.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """A text whose control characters are shown and not sent.

    Example:
        >>> plain("a\\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str = "", *, error: bool = False) -> None:
    """Print a text; `error` to where errors go."""
    print(plain(text), file=sys.stderr if error else sys.stdout)


class Plain(Console):
    """Rich's console, which styles what it prints and sends the rest of it as it stands."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


class Formatter(logging.Formatter):
    """Of lines in a log."""

    def format(self, record: logging.LogRecord) -> Any:
        return plain(super().format(record))
