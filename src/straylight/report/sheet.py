"""A table that fits the terminal: names fold, ranges fold, columns leave or follow below, and no number is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 2  # blanks between two columns
NAME = 16  # cells that a column of names keeps before others leave


class Cell(NamedTuple):
    """What stands in a place of a table: its lines, and lines for where there is little room."""

    wide: str
    narrow: str

    @classmethod
    def of(cls, content: str | Text | Cell) -> Cell:
        if isinstance(content, Cell):
            return content
        text = content.plain if isinstance(content, Text) else content
        return cls(text, text)


def ranged(number: str, low: str, high: str) -> Cell:
    """A number over its range; with little room the range takes two lines.

    Example:
        >>> ranged("0.95", "0.90", "0.97")
        Cell(wide='0.95\\n0.90-0.97', narrow='0.95\\n0.90-\\n0.97')
    """
    return Cell(f"{number}\n{low}-{high}", f"{number}\n{low}-\n{high}")


class Column(NamedTuple):
    """A column of a `Sheet`.

    Attributes:
        heading: its lines; `narrow` ones for where there is little room.
        name: what it is called where it was left out.
        rank: columns of the largest leave first; None never leaves.
        text: whether it holds names or words, which stand to the left and may fold.
    """

    heading: str
    name: str = ""
    rank: int | None = None
    text: bool = False
    narrow: str | None = None


class Sheet:
    """Rows under headings, printed at any width.

    Where a table is too wide, in this order: names fold to 16 cells; headings and ranges take more lines; columns that
    have a rank leave, which a line below the table says; the others follow in a table below the first, which repeats
    its first column. A number is never shortened.

    Args:
        columns: from left to right.
        without: how to see what was left out.

    Example:
        >>> sheet = Sheet([Column("detector", text=True), Column("AUROC"), Column("seconds", "seconds", rank=1)])
        >>> sheet.add_row("autoencoder", "0.9876", "12.5")
        >>> Console(width=24).print(sheet)
        detector      AUROC
        autoencoder  0.9876
        left out: seconds
    """

    def __init__(self, columns: Sequence[Column], without: str = "") -> None:
        self.columns, self.without = list(columns), without
        self.rows: list[list[Cell]] = []

    @property
    def row_count(self) -> int:
        return len(self.rows)

    def add_row(self, *cells: str | Text | Cell) -> None:
        """A cell for each column, as in rich; those that are missing are blank."""
        found = [Cell.of(cell) for cell in cells]
        self.rows.append(found + [Cell("", "")] * (len(self.columns) - len(found)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts, left_out = self.laid_out(options.max_width)
        yield from parts
        if left_out:
            names = ", ".join(left_out)
            yield Text(f"left out: {names}" + (f"; {self.without}" if self.without else ""), style="dim")

    def laid_out(self, width: int) -> tuple[list[Table], list[str]]:
        """The tables that a terminal of so many cells is given, and the names of the columns that have left."""
        every = list(range(len(self.columns)))
        for narrow in (False, True):
            if self._least(every, narrow) <= width:
                return [self._table(every, narrow, width)], []
        staying = list(every)
        leaving = sorted(
            (i for i in every if self.columns[i].rank is not None), key=lambda i: self.columns[i].rank or 0
        )
        while leaving and self._least(staying, True) > width:
            staying.remove(leaving.pop())
        left_out = [
            self.columns[i].name or " ".join(self.columns[i].heading.split()) for i in every if i not in staying
        ]
        narrow = self._least(staying, False) > width
        return [self._table(part, narrow, width) for part in self._parts(staying, narrow, width)], left_out

    def _parts(self, columns: list[int], narrow: bool, width: int) -> Iterator[list[int]]:
        """Columns in as many tables as it takes, the first of them in each."""
        part = columns[:1]
        for i in columns[1:]:
            if len(part) > 1 and self._least([*part, i], narrow) > width:
                yield part
                part = columns[:1]
            part = [*part, i]
        yield part

    def _lines(self, i: int, narrow: bool) -> Iterator[str]:
        column = self.columns[i]
        yield from (column.narrow if narrow and column.narrow is not None else column.heading).split("\n")
        for row in self.rows:
            yield from (row[i].narrow if narrow else row[i].wide).split("\n")

    def _natural(self, i: int, narrow: bool) -> int:
        return max(map(cell_len, self._lines(i, narrow)), default=0)

    def _least(self, columns: Sequence[int], narrow: bool) -> int:
        """Cells that these columns need, their names folded."""
        needed = (
            min(self._natural(i, narrow), NAME) if self.columns[i].text else self._natural(i, narrow) for i in columns
        )
        return sum(needed) + GAP * (len(columns) - 1)

    def _table(self, columns: list[int], narrow: bool, width: int) -> Table:
        widths = {i: self._natural(i, narrow) for i in columns}
        words = [i for i in columns if self.columns[i].text]
        spare = max(0, width - self._least(columns, narrow))
        lacking = max(0, self._least(columns, narrow) - width)
        for i in words:  # what is left goes to the names, and what is lacking comes from them
            least = min(widths[i], NAME)
            wanted = min(widths[i], least + spare)
            spare -= wanted - least
            widths[i] = max(1, wanted - lacking)
            lacking -= wanted - widths[i]
        whole = sum(widths.values()) + GAP * (len(columns) - 1)
        out = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), width=whole)
        for i in columns:
            column = self.columns[i]
            out.add_column(
                Text(column.narrow if narrow and column.narrow is not None else column.heading),
                justify="left" if column.text else "right",
                width=widths[i],
                overflow="fold",
                no_wrap=not column.text,
            )
        for row in self.rows:
            out.add_row(*(Text(row[i].narrow if narrow else row[i].wide) for i in columns))
        return out
