"""One class for each format of files; `open_file` takes the one that suits.

`N` rows, `n` of them read at a time, `*shape` one event.
"""

from __future__ import annotations

import csv
import gzip
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from straylight.errors import DataError
from straylight.files.source import BYTES, Source, arrow, listed
from straylight.files.table import is_number, numbers
from straylight.rows.mapped import Mapped

if TYPE_CHECKING:
    import pyarrow as pa


class Text(Source):
    """CSV, or TSV, with the columns' names in the first line; `.gz` too."""

    what = "a table in text"

    def __init__(self, path: Path, empty_text: bool) -> None:
        self.empty_text = empty_text
        super().__init__(path)

    def _look(self) -> None:
        names = self._header()
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{self.path} has more than one column {twice[0]!r}; give each a name of its own.")
        if all(map(is_number, names)) and names != [str(i) for i in range(len(names))]:
            raise DataError(
                f"{self.path} has numbers in its first line ({listed(names[:3])}), where the columns' names must be."
            )
        if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
            raise DataError(f"{self.path} has one column {names[0]!r}; separate columns by commas, or by tabs in .tsv.")
        self._table = self._read()
        self.columns = dict.fromkeys(self._table.column_names, self._table.num_rows)

    def _columns(self, names: Sequence[str]) -> pa.Table:
        return self._table.select(names)

    @property
    def _delimiter(self) -> str:
        return "\t" if set(self.path.suffixes) & {".tsv", ".tab"} else ","

    def _header(self) -> list[str]:
        opened = gzip.open if self.path.suffix == ".gz" else open
        with opened(self.path, "rt", encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file, delimiter=self._delimiter), [])

    def _read(self) -> pa.Table:
        import pyarrow as pa
        import pyarrow.csv

        # what a column holds is found out from the first block; if a later one does not fit, from all of them
        whole = min(2**31 - 1, 1032 * self.path.stat().st_size)  # gzip packs no better than that
        for block in (2**22, max(2**22 + 1, whole)):
            try:
                return pyarrow.csv.read_csv(
                    self.path,
                    pyarrow.csv.ReadOptions(block_size=block),
                    pyarrow.csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
                    pyarrow.csv.ConvertOptions(strings_can_be_null=self.empty_text),
                )
            except pa.ArrowInvalid as error:
                if "conversion error" not in str(error) or block > 2**22:
                    raise
        raise AssertionError


class Parquet(Source):
    """Parquet, with plain columns."""

    what = "Parquet"
    convertible = True

    def _look(self) -> None:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            names, rows = file.schema_arrow.names, file.metadata.num_rows
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise DataError(f"{self.path} has more than one column {twice[0]!r}; give each a name of its own.")
        self.columns = dict.fromkeys(names, rows)

    def _columns(self, names: Sequence[str]) -> pa.Table:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            return file.read(columns=list(names))

    def numeric(self, names: Sequence[str]) -> bool:
        """Whether columns hold numbers, as their types say."""
        import pyarrow.parquet
        import pyarrow.types as types

        with pyarrow.parquet.ParquetFile(self.path) as file:
            kinds = [file.schema_arrow.field(name).type for name in names]
        return all(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) for kind in kinds)

    def _chunks(self, names: Sequence[str]) -> Iterator[NDArray]:
        import pyarrow as pa
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            rows = max(1, BYTES // (8 * len(names)))
            for batch in file.iter_batches(batch_size=rows, columns=list(names)):
                table = pa.Table.from_batches([batch])
                yield np.stack([numbers(table[name], name) for name in names], 1)


class Arrays(Source):
    """NPZ: arrays by their names."""

    what = "an .npz file of plain arrays"

    def _look(self) -> None:
        if not zipfile.is_zipfile(self.path):  # numpy would advise to trust what is none
            raise DataError(f"{self.path} is no .npz file, or a damaged one.")
        with np.load(self.path, allow_pickle=False) as file:
            self._held = {name: file[name] for name in file.files}
        for name, array in self._held.items():
            self._found(name, array.shape)

    def _columns(self, names: Sequence[str]) -> pa.Table:
        return _table({name: self._held[name] for name in names})

    def _array(self, name: str) -> Any:
        return _numeric(self._held[name], name, self.path)


class OneArray(Source):
    """NPY: one array, which stays on disk; its columns are called `0`, `1` and so on, or as its fields are."""

    what = "an .npy file of a plain array"

    def _look(self) -> None:
        array = self._mapped()
        if array.dtype.names:
            self.columns = dict.fromkeys(array.dtype.names, len(array))
        else:
            self._found("0" if array.ndim == 1 else "", array.shape)

    def _mapped(self) -> NDArray:
        # numpy looks for an array that is not plain in a file that is none, and advises to trust it
        with self.path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise DataError(f"{self.path} is no .npy file.")
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def _columns(self, names: Sequence[str]) -> pa.Table:
        array = self._mapped() if names else None
        return _table({name: np.array(array[name] if array.dtype.names else array) for name in names})  # type: ignore[union-attr,index]

    def _array(self, name: str) -> Any:
        array = _numeric(self._mapped(), "its array", self.path)
        if not array.dtype.isnative or array.dtype.itemsize > 8:
            return array
        return Mapped.open(self.path)


class HDF5(Source):
    """HDF5: data sets by their paths; the fields of a compound one are columns."""

    what = "HDF5"
    convertible = True

    def _look(self) -> None:
        import h5py

        self._fields: dict[str, str] = {}

        def look(path: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.shape:
                for field in item.dtype.names or ():
                    self._fields[field] = path
                    self._found(field, item.shape[:1])
                if not item.dtype.names:
                    self._found(path, item.shape)

        with h5py.File(self.path) as file:
            file.visititems(look)

    def _columns(self, names: Sequence[str]) -> pa.Table:
        import h5py

        def read(file: h5py.File, name: str) -> NDArray:
            if name in self._fields:
                return file[self._fields[name]][name]
            return file[name].asstr()[()] if h5py.check_string_dtype(file[name].dtype) else file[name][()]

        with h5py.File(self.path) as file:
            return _table({name: read(file, name) for name in names})

    def _array(self, name: str) -> Any:
        import h5py

        with h5py.File(self.path) as file:
            return _numeric(file[name][()], name, self.path)

    def _array_columns(self, name: str, places: Sequence[int]) -> NDArray:
        return np.concatenate([chunk[:, places] for chunk in self._chunks([name])])

    def numeric(self, names: Sequence[str]) -> bool:
        """Whether columns hold numbers, and can be read in pieces."""
        import h5py

        with h5py.File(self.path) as file:
            return all(name not in self._fields and file[name].dtype.kind in "biuf" for name in names)

    def _chunks(self, names: Sequence[str]) -> Iterator[NDArray]:
        import h5py

        with h5py.File(self.path) as file:
            parts = [file[name] for name in names]
            whole = max(part.chunks[0] if part.chunks else 1 for part in parts)
            # chunks are read whole: one that is touched twice is decompressed twice
            rows = max(1, BYTES // (8 * sum(math.prod(part.shape[1:]) for part in parts)))
            rows = max(whole, rows // whole * whole)
            for start in range(0, len(parts[0]), rows):
                read = [_numeric(part[start : start + rows], part.name, self.path) for part in parts]
                yield np.stack(read, 1) if read[0].ndim == 1 else read[0]


FORMATS = {
    ".csv": Text,
    ".tsv": Text,
    ".tab": Text,
    ".parquet": Parquet,
    ".pq": Parquet,
    ".npz": Arrays,
    ".npy": OneArray,
    ".h5": HDF5,
    ".hdf5": HDF5,
}


def open_file(path: Path | str, *, empty_text: bool = True) -> Source:
    """What a file holds, by its ending.

    Args:
        path: `.csv` or `.tsv`, also with `.gz`; `.parquet`; `.npz`; `.npy`; `.h5` or `.hdf5`.
        empty_text: whether text that is empty, or stands for nothing, such as `NA`, is missing.

    Raises:
        DataError: if the file is missing, damaged, empty or of another format.
    """
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    ending = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    kind = FORMATS.get(ending)
    if kind is None or (suffixes[-1:] == [".gz"] and kind is not Text):
        raise DataError(f"{path} is of no format that is known here; give data.path one of {', '.join(FORMATS)}.")
    if not path.is_file():
        raise DataError(f"there is no file {path}.")
    if not path.stat().st_size:
        raise DataError(f"{path} is empty.")
    return Text(path, empty_text) if kind is Text else kind(path)


def stem(path: Path) -> str:
    """A file's name without what says its format.

    Example:
        >>> stem(Path("flows/monday.csv.gz"))
        'monday'
    """
    name = path.name.removesuffix(".gz")
    return name[: -len(Path(name).suffix)] if Path(name).suffix else name


def _table(columns: Mapping[str, NDArray]) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: pa.chunked_array([arrow(values)]) for name, values in columns.items()})


def _numeric(values: NDArray, name: str, path: Path) -> NDArray:
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path} must hold numbers in {name}, not {values.dtype}.")
    return values
