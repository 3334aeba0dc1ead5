"""Tables as the templates take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from straylight.report.details import Part
from straylight.report.sheet import Sheet


class Heading(NamedTuple):
    """The head of a column: its name, whether it holds names or words, and what it means, where that is not plain."""

    name: str
    text: bool = False
    meaning: str = ""


@dataclass
class Table:
    """Rows of texts below headings."""

    caption: str
    headings: list[Heading]
    rows: list[list[str]] = field(default_factory=list)


def of(parts: Iterable[Part]) -> Iterator[Table | str]:
    """Tables and sentences of the console, for a page.

    Example:
        >>> from straylight.report.details import headed
        >>> sheet = headed("kind", "AUROC")
        >>> sheet.add_row("noise", "0.98")
        >>> made = [*of([sheet, "A sentence."])]
        >>> made[0].rows, made[1]
        ([['noise', '0.98']], 'A sentence.')
    """
    for part in parts:
        yield _table(part) if isinstance(part, Sheet) else part


def _table(sheet: Sheet) -> Table:
    headings = [Heading(" ".join(column.heading.split()), column.text) for column in sheet.columns]
    return Table("", headings, [[cell.wide for cell in row] for row in sheet.rows])
