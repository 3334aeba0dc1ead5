"""What depends on all rows together: ranks, what a false-discovery rate flags, and the strangest rows.

Pieces become a table: file, row, what names the row, score, p-value, flags, rank, and the rest.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from straylight.metrics.conformal import discovered
from straylight.metrics.judge import Cut
from straylight.scoring.columns import FILE, P_VALUE, RANK, ROW, SCORE
from straylight.scoring.pieces import Told, batches, schema_of, scores
from straylight.scoring.ranks import ranks
from straylight.scoring.wanted import Wanted

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Piece:
    """The scores of a file, aside, or of some of its rows.

    Attributes:
        path: of the piece.
        file: what the file is called.
        told: what is known of all rows of the file.
        rows: of the piece, if they are not all of them.
    """

    path: Path
    file: str
    told: Told
    rows: range | None = None

    @property
    def count(self) -> int:
        """How many rows it has."""
        return self.told.rows if self.rows is None else len(self.rows)


@dataclass
class Whole:
    """Pieces that make one table.

    Args:
        pieces: in their order.
        wanted: what is wanted of each row.
        scratch: a folder for the ranks of many rows.
        named: whether each row says its file.
    """

    pieces: Sequence[Piece]
    wanted: Wanted
    scratch: Path
    named: bool

    def __post_init__(self) -> None:
        self.rows = sum(piece.count for piece in self.pieces)
        self._columns = joined([schema_of(piece.path) for piece in self.pieces])
        self._ranks = ranks(self._scores, self.rows, self.scratch / "ranks.npy")
        self._cuts = [cut if cut.fdr is None else self._by_p(cut, cut.fdr) for cut in self.wanted.cuts]

    def look(self) -> list[dict[str, Any]]:
        """Count how many rows of each piece a threshold flags; the strangest rows, first the strangest."""
        best: list[tuple[int, int, dict[str, Any]]] = []
        start = 0
        for piece, table in self._each():
            for cut in self.wanted.cuts:
                flags = np.asarray(table[self.wanted.flag(cut)].fill_null(False))
                piece.told.flagged[cut.name] = piece.told.flagged.get(cut.name, 0) + int(flags.sum())
            own = table[RANK].fill_null(2**62).to_numpy()
            near = np.flatnonzero(own <= self.wanted.top)
            for i in near[np.argsort(own[near], kind="stable")][: self.wanted.top].tolist():
                best.append((int(own[i]), start + i, table.slice(i, 1).to_pylist()[0]))
            best = heapq.nsmallest(self.wanted.top, best, key=lambda one: one[:2])
            start += len(table)
        return [row for _, _, row in best]

    def parts(self, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The table, some rows at a time, with all columns or some."""
        for _, table in self._each():
            yield table if names is None else table.select(list(names))

    def _each(self) -> Iterator[tuple[Piece, pa.Table]]:
        start = 0
        for piece in self.pieces:
            row = 1 if piece.rows is None else piece.rows.start + 1
            for part in batches(piece.path):
                table = part if part.schema.equals(self._columns) else fitted(part, self._columns)
                yield piece, self._finished(table, piece, row, self._ranks[start : start + len(table)])
                row += len(table)
                start += len(table)

    def _scores(self) -> Iterator[Any]:
        for piece in self.pieces:
            yield from scores(piece.path)

    def _by_p(self, cut: Cut, rate: float) -> Cut:
        """A false-discovery rate as the p-value that it comes to, of all rows; of p-values there are few different."""
        counts: Counter[float] = Counter()
        for piece in self.pieces:
            for table in batches(piece.path, [P_VALUE]):
                values, times = np.unique(table[P_VALUE].drop_null().to_numpy(), return_counts=True)
                counts.update(dict(zip(values.tolist(), times.tolist(), strict=True)))
        different = sorted(counts)
        return cut._replace(fdr=None, p=discovered(different, [counts[value] for value in different], rate))

    def _finished(self, table: pa.Table, piece: Piece, row: int, rank: Any) -> pa.Table:
        import pyarrow as pa

        n = len(table)
        gone = np.asarray(rank) == 0
        columns: dict[str, Any] = {}
        if self.named:
            columns[FILE] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([piece.file]))
        columns[ROW] = pa.array(np.arange(row, row + n))
        at = table.column_names.index(SCORE)
        for name in table.column_names[: at + 1]:
            columns[name] = table[name]
        if P_VALUE in table.column_names:
            columns[P_VALUE] = table[P_VALUE]
        scores = table[SCORE].to_numpy()
        p = table[P_VALUE].to_numpy() if P_VALUE in columns else None
        for cut in self._cuts:
            columns[self.wanted.flag(cut)] = pa.array(cut.flags(scores, p), mask=gone)
        columns[RANK] = pa.array(np.asarray(rank), mask=gone)
        for name in table.column_names[at + 1 :]:
            columns.setdefault(name, table[name])
        return pa.table(columns)


def joined(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Columns that hold those of several pieces: of a name that is of several types, text.

    Those that name rows stand first, in every piece, up to the score.

    Example:
        >>> import pyarrow as pa
        >>> one = pa.schema({"id": pa.int64(), "score": pa.float32()})
        >>> other = pa.schema({"id": pa.string(), "day": pa.string(), "score": pa.float32()})
        >>> joined([one, other]).names, str(joined([one, other]).field("id").type)
        (['id', 'day', 'score'], 'string')
    """
    import pyarrow as pa

    kinds: dict[str, dict[str, Any]] = {"before": {}, "after": {}}
    for schema in schemas:
        where = "before"
        for field in schema:
            where = "after" if field.name == SCORE else where
            known = kinds[where].get(field.name, field.type)
            kinds[where][field.name] = known if known == field.type else pa.string()
    return pa.schema({**kinds["before"], **kinds["after"]})


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with these columns, of which those that it lacks are empty."""
    import pyarrow as pa

    there = table.column_names
    return pa.table(
        {f.name: table[f.name].cast(f.type) if f.name in there else pa.nulls(len(table), f.type) for f in schema}
    )
