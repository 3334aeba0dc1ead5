"""Rows of a large Parquet file that follow each other, as a file of their own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from straylight.files.formats import Parquet

if TYPE_CHECKING:
    import pyarrow as pa

READ = 2**16  # rows that are read together


class Rows(Parquet):
    """The rows of a Parquet file in a range, read from the row groups that hold them.

    Args:
        path: the file.
        rows: the range.
    """

    def __init__(self, path: Path, rows: range) -> None:
        self.rows = rows
        super().__init__(path)

    def _look(self) -> None:
        super()._look()
        self.columns = dict.fromkeys(self.columns, len(self.rows))

    def _pieces(self, names: Sequence[str]) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20) as file:
            ends = ends_of(file.metadata)
            first, last = bisect_right(ends, self.rows.start), bisect_right(ends, self.rows.stop - 1)
            start = ends[first - 1] if first else 0
            groups = list(range(first, last + 1))
            for batch in file.iter_batches(batch_size=READ, row_groups=groups, columns=list(names)):
                low, high = max(0, self.rows.start - start), min(len(batch), self.rows.stop - start)
                start += len(batch)
                if low < high:
                    yield pa.Table.from_batches([batch.slice(low, high - low)]).select(names)


def ends_of(metadata: Any) -> list[int]:
    """The row behind each row group of a file."""
    ends = [0]
    for i in range(metadata.num_row_groups):
        ends.append(ends[-1] + metadata.row_group(i).num_rows)
    return ends[1:]


def cuts(metadata: Any, chunk: int, size: int) -> list[range]:
    """A file's rows in ranges of about so many bytes on the disk, each of which ends near the end of a row group.

    Args:
        metadata: of the file.
        chunk: rows that are scored together; no range ends within a chunk, so that every row is scored beside the very
            rows that it is beside where the file is scored whole, and has the same score to the last bit.
        size: bytes of a range.
    """
    starts, held, row = [0], 0, 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        row += group.num_rows
        held += sum(group.column(k).total_compressed_size for k in range(group.num_columns))
        if held >= size and (cut := row // chunk * chunk) > starts[-1] and cut < metadata.num_rows:
            starts.append(cut)
            held = 0
    return [range(low, high) for low, high in zip(starts, [*starts[1:], metadata.num_rows], strict=True)]
