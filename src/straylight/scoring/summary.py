"""What the summary of all files needs of each, kept by the worker that scored it: rows that stand out, and drift."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from straylight.atomic import replacing

if TYPE_CHECKING:
    import pyarrow as pa


class Summary:
    """That of one file.

    Args:
        folder: where it is kept.
        key: what its files are called.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._top, self._counts = folder / f"{key}.top.arrow", folder / f"{key}.counts.npz"

    def keep(self, top: list[dict[str, Any]], schema: pa.Schema, counts: NDArray[np.int64] | None) -> None:
        """Keep the strangest rows, of a table with such columns, and how its scores lie between those of calibration.

        Few of the counts are not zero where a file has fewer rows than there are calibration rows.
        """
        import pyarrow as pa

        if top:
            table = pa.Table.from_pylist(top, schema)
            with replacing(self._top, durable=False) as aside, pa.ipc.new_file(str(aside), schema) as writer:
                writer.write_table(table)
        if counts is not None:
            there = np.flatnonzero(counts)
            with replacing(self._counts, durable=False) as aside:
                np.savez(aside, at=there, count=counts[there], size=len(counts))

    @property
    def top(self) -> list[dict[str, Any]]:
        """The strangest rows, first the strangest."""
        import pyarrow as pa

        if not self._top.is_file():
            return []
        with pa.ipc.open_file(self._top.read_bytes()) as reader:
            return reader.read_all().to_pylist()

    @property
    def counts(self) -> NDArray[np.int64] | None:
        """How its scores lie between those of calibration; `None` where there are none of these."""
        if not self._counts.is_file():
            return None
        with np.load(self._counts) as held:
            counts = np.zeros(int(held["size"]), dtype=np.int64)
            counts[held["at"]] = held["count"]
        return counts
