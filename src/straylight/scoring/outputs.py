"""Tables of scores as files: Parquet, CSV and NPZ, written some rows at a time.

`N` rows.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from straylight.errors import ConfigError
from straylight.files.dialect import PACKED
from straylight.scoring.columns import P_VALUE, RANK, ROW

if TYPE_CHECKING:
    import pyarrow as pa

#: A table from its first row on, in parts, with all columns or some.
Parts = Callable[[Sequence[str] | None], Iterator["pa.Table"]]
ENDINGS = (".parquet", ".csv", ".csv.gz", ".npz")


def ending_of(path: Path) -> str:
    """The ending by which a file is written; empty if it has none that is known.

    Example:
        >>> ending_of(Path("a/scores.csv.gz")), ending_of(Path("scores"))
        ('.csv.gz', '')
    """
    name = path.name.lower()
    return next((ending for ending in sorted(ENDINGS, key=len, reverse=True) if name.endswith(ending)), "")


def check(path: Path) -> None:
    """See that a file can be written by its ending.

    Raises:
        ConfigError: if not.
    """
    if not ending_of(path):
        packed = f" ({', '.join(PACKED)} for input alone)" if path.suffix.lower() in PACKED else ""
        raise ConfigError(f"{path} must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}{packed}, or be a folder.")


def write(path: Path, ending: str, parts: Parts, rows: int) -> None:
    """Write a table.

    Args:
        path: of the file.
        ending: one of `ENDINGS`.
        parts: see `Parts`.
        rows: N.
    """
    {".parquet": _parquet, ".csv": _csv, ".csv.gz": _csv_packed, ".npz": _npz}[ending](path, parts, rows)


def _parquet(path: Path, parts: Parts, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for table in parts(None):
        if writer is None:
            # rows follow each other, ranks never repeat, and few p-values and texts are different
            few = [f.name for f in table.schema if f.name == P_VALUE or not pa.types.is_primitive(f.type)]
            counts = {name: "DELTA_BINARY_PACKED" for name in (ROW, RANK) if name in table.column_names}
            writer = pq.ParquetWriter(
                path, table.schema, use_dictionary=few, compression="zstd", compression_level=1, column_encoding=counts
            )
        writer.write_table(table)
    assert writer is not None
    writer.close()


def _csv(path: Path, parts: Parts, rows: int) -> None:
    with path.open("wb") as file:
        write_csv(file, parts)


def _csv_packed(path: Path, parts: Parts, rows: int) -> None:
    import pyarrow as pa

    with pa.CompressedOutputStream(str(path), "gzip") as file:
        write_csv(file, parts)


def write_csv(file: IO[bytes] | Any, parts: Parts) -> None:
    """Write a table as text, with the columns' names in the first line."""
    import pyarrow.csv

    writer = None
    for table in parts(None):
        plain = _decoded(table)
        if writer is None:
            writer = pyarrow.csv.CSVWriter(file, plain.schema)
        writer.write_table(plain)
    assert writer is not None
    writer.close()


def _npz(path: Path, parts: Parts, rows: int) -> None:
    """Columns one after the other, each read again: text is as wide as its longest."""
    schema = next(parts(None)).schema
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True, compresslevel=1) as archive:
        for name in schema.names:
            # whole numbers, of which some are missing among other rows, are floats there
            dtype = reduce(np.promote_types, (_plain(table, name).dtype for table in parts([name])))
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows,)}
                np.lib.format.write_array_header_1_0(file, header)
                for table in parts([name]):
                    file.write(np.ascontiguousarray(_plain(table, name).astype(dtype)).tobytes())


def _plain(table: pa.Table, name: str) -> np.ndarray:
    """A column as numpy keeps it without pickling; what is missing is NaN, an empty text, or False."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _decoded(table)[name]
    kind = column.type
    if pa.types.is_boolean(kind):
        return column.fill_null(False).to_numpy().astype(bool)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column.to_numpy() if not column.null_count else pc.cast(column, pa.float64()).to_numpy()
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        return (
            column.to_numpy().astype("M8[ns]")
            if pa.types.is_timestamp(kind) or pa.types.is_date(kind)
            else (pc.cast(column, pa.string()).fill_null("").to_numpy(zero_copy_only=False).astype("U"))
        )
    texts = pc.cast(column, pa.string()).fill_null("")
    return texts.to_numpy(zero_copy_only=False).astype("U") if len(texts) else np.empty(0, "U1")


def _decoded(table: pa.Table) -> pa.Table:
    """Columns of categories as what they stand for."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table[field.name].cast(field.type.value_type))
    return table
