"""The strangest rows, as a table in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from straylight.console import Plain
from straylight.files.words import is_number

DIGITS = 9  # of a number as a file has it
NARROW = 24  # characters of a text
WIDE = 400  # of a line where nobody looks at it on a screen


def show_top(rows: Sequence[Mapping[str, Any]], *, error: bool = False) -> None:
    """Print rows of a table of scores, first the strangest."""
    names = [name for name in rows[0] if any(row.get(name) is not None for row in rows)]
    names = [*(["rank"] if "rank" in names else []), *(name for name in names if name != "rank")]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        numeric = all(isinstance(row.get(name), int | float | None) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    out = sys.stderr if error else sys.stdout
    Plain(file=out, highlight=False, width=None if out.isatty() else WIDE).print(table)


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else ""
        case float():
            return f"{value:.4g}"
        case str() if is_number(value):
            return f"{float(value):.4g}" if len(value) > DIGITS else value
        case _:
            text = str(value)
            return text if len(text) <= NARROW else f"{text[: NARROW - 1]}…"
