"""What is printed: of names and sentences that come from files no terminal takes a command."""

import logging
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from straylight.streams import plain


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
