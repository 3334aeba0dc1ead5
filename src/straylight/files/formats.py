"""One class for each format of files; `open_file` takes the one that suits.

`N` rows, `n` of them read at a time, `*shape` one event.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from straylight.errors import DataError
from straylight.files import arff, matlab
from straylight.files.budget import counted
from straylight.files.dialect import PACKED, PLAIN, Dialect, opened
from straylight.files.hdf5 import own
from straylight.files.resolution import Centre
from straylight.files.source import BYTES, Source, arrow, single
from straylight.files.words import setting
from straylight.rows.mapped import Mapped

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


BLOCK = 2**22  # of text that is read together
SPOILED_WHOLE = r"^\s*[+-]?0[0-9xX]"  # of a name that was read as a whole number
SPOILED = r"^\s*[+-]?(0[0-9][0-9]*|[0-9]{16,})\s*$"  # and as a number
GROUPS = 4  # of rows of Parquet that are looked into for a sample


class Text(Source):
    """CSV, or TSV, also packed, with the columns' names in the first line, or as a dialect says.

    What a column of a table in memory holds is found out from all of its rows; in pieces every one is text.
    """

    what = "a table in text"
    or_number = ", or set data.csv.repeated=number"
    bytes_each = 32  # as text
    comment = ""  # with which a line begins that is none of the table

    def __init__(self, path: Path, empty_text: bool, dialect: Dialect) -> None:
        self.empty_text, self.dialect = empty_text, dialect
        super().__init__(path)

    def _look(self) -> None:
        try:
            names, self._before = self._head()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path} is not written in {self.dialect.encoding}; say what it is, as by "
                "data.csv.encoding=latin-1."
            ) from error
        self._check_names(names)
        self.columns = dict.fromkeys(names)

    def _head(self) -> tuple[list[str], int]:
        """The columns' names, and how many lines stand before the first row of data."""
        names, before = self.dialect.names(self.path)
        if len(names) == 1 and (mark := next((mark for mark in ";\t|" if mark in names[0]), "")):
            raise DataError(
                f"{self.path} has one column {names[0]!r}; separate columns by commas, or by tabs in .tsv, or set "
                f"{setting('separator', mark)}."
            )
        return names, before

    def table(self, names: Sequence[str]) -> pa.Table:
        self._check_rows(names)
        return self._whole.select(names)

    @cached_property
    def _whole(self) -> pa.Table:
        import pyarrow as pa

        table = self._read()
        if self.dialect.tidies:  # `1.234` may be a thousand and more: as it stands there
            table = self.dialect.tidied_table(table, pa.concat_tables(self._pieces(self.names)))
        return table

    def _read(self) -> pa.Table:
        import pyarrow as pa
        import pyarrow.csv

        # what a column holds is found out from the first block; if a later one does not fit, from all of them
        whole = min(2**31 - 1, 1032 * self.path.stat().st_size)  # gzip packs no better than that
        with self._damage_named():
            try:
                with opened(self.path) as file, counted(file, self.path) as bounded:
                    table = pyarrow.csv.read_csv(bounded, *self._options(BLOCK))
            except pa.ArrowInvalid as error:
                if "conversion error" not in str(error):
                    raise
                with opened(self.path) as file, counted(file, self.path) as bounded:
                    table = pyarrow.csv.read_csv(bounded, *self._options(max(BLOCK + 1, whole)))
        if not table.num_rows:
            raise DataError(f"{self.path} holds no rows of data.")
        return self._tidied(table)

    def _tidied(self, table: pa.Table) -> pa.Table:
        """A table as it was read, with texts as they are meant."""
        return table

    def _as_written(self, columns: dict[str, pa.ChunkedArray]) -> dict[str, pa.ChunkedArray]:
        import pyarrow as pa
        import pyarrow.compute as pc

        # `007` and a whole number that float64 does not hold are names and no numbers
        lost = {name: SPOILED_WHOLE for name, held in columns.items() if pa.types.is_integer(held.type)}
        lost |= {name: SPOILED for name, held in columns.items() if pa.types.is_floating(held.type)}
        if not lost:
            return columns
        text = pa.concat_tables(self._pieces(list(lost)))
        spoiled = [n for n, p in lost.items() if pc.any(pc.match_substring_regex(text[n], p)).as_py()]
        return {**columns, **{name: text[name] for name in spoiled}}

    def _pieces(self, names: Sequence[str]) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.csv

        with opened(self.path) as file, pyarrow.csv.open_csv(file, *self._options(BLOCK, names)) as reader:
            for batch in reader:
                if batch.num_rows:
                    table = self._tidied(pa.Table.from_batches([batch]))
                    if self.dialect.tidies:
                        table = pa.table({name: self.dialect.tidied(table[name]) for name in table.column_names})
                    yield table

    def _comments(self, row: Any) -> str:
        return "skip" if row.text.startswith(self.comment) else "error"

    def _options(self, block: int, names: Sequence[str] = ()) -> tuple[Any, Any, Any]:
        import pyarrow as pa
        import pyarrow.csv

        dialect = self.dialect
        usual = pyarrow.csv.ConvertOptions().null_values
        return (
            pyarrow.csv.ReadOptions(
                block_size=block, encoding=dialect.encoding, skip_rows=self._before, column_names=list(self.columns)
            ),
            pyarrow.csv.ParseOptions(
                delimiter=dialect.delimiter(self.path),
                quote_char=dialect.quote,
                newlines_in_values=True,
                invalid_row_handler=self._comments if self.comment else None,
            ),
            pyarrow.csv.ConvertOptions(
                strings_can_be_null=self.empty_text,
                include_columns=list(names),
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[*usual, *dialect.null_values],
            ),
        )


def _ranges(index: Sequence[Any], rows: int) -> dict[str, range]:
    """What pandas says of numbers of rows that it has written no column of; nothing of plain ones, from 0 on."""
    found = {}
    for level, said in enumerate(index):
        if isinstance(said, dict) and {"start", "stop", "step"} <= said.keys() and said["step"]:
            numbers = range(*(int(said[key]) for key in ("start", "stop", "step")))
            if len(numbers) == rows and (said.get("name") or numbers != range(rows)):
                found[said.get("name") or f"__index_level_{level}__"] = numbers
    return found


class Parquet(Source):
    """Parquet, with plain columns."""

    what = "Parquet"
    convertible = True

    def _look(self) -> None:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
        names, said = schema.names, schema.pandas_metadata
        index = (said or {}).get("index_columns", [])
        self.index = frozenset(name for name in index if isinstance(name, str))
        self.ranges = _ranges(index, rows)
        self._check_names(names)
        self.columns = dict.fromkeys(names, rows)
        self.types = dict(zip(names, schema.types, strict=True))

    def _pieces(self, names: Sequence[str]) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.parquet

        # a file that is buffered before it is read is held whole in the end
        with pyarrow.parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20) as file:
            rows = max(1, BYTES // (8 * len(names)))
            for batch in file.iter_batches(batch_size=rows, columns=list(names)):
                yield pa.Table.from_batches([batch]).select(names)

    def _looked_into(self, runs: Sequence[NDArray]) -> Sequence[NDArray]:
        return runs if len(runs) == 1 else runs[:: -(-len(runs) // GROUPS)]  # a group is read from its first row on

    def _at(self, names: Sequence[str], runs: Sequence[NDArray]) -> NDArray:
        import pyarrow as pa
        import pyarrow.parquet

        if len(runs) == 1:  # of few rows
            return super()._at(names, runs)
        found = []
        with self._damage_named(), pyarrow.parquet.ParquetFile(self.path, buffer_size=2**20) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            ends = np.cumsum(sizes)
            for run in runs:
                first = int(np.searchsorted(ends, run[0], "right"))
                start = int(ends[first]) - sizes[first]
                groups = list(range(first, int(np.searchsorted(ends, run[-1], "right")) + 1))
                for batch in file.iter_batches(batch_size=2**14, row_groups=groups, columns=list(names)):
                    low, high = np.searchsorted(run, [start, start + len(batch)])
                    piece = pa.Table.from_batches([batch]).take(run[low:high] - start)
                    found.append(self._numbers(piece, names, "float64"))
                    start += len(batch)
                    if high == len(run):
                        break
        return np.concatenate(found)


class ArraySource(Source):
    """Arrays by their names, of which rows are read by slices. A format writes `_opened`."""

    anywhere = False  # whether slices are read in any order

    def _opened(self) -> AbstractContextManager[Mapping[str, Any]]:
        """What is read by slices, from the first row to the last, by its name."""
        raise NotImplementedError

    def _at(self, names: Sequence[str], runs: Sequence[NDArray]) -> NDArray:
        with self._damage_named(), self._opened() as held:
            own = [held[self.find(name)[0]] for name in names]
            if all(single(array.dtype) or array.dtype.kind not in "biuf" for array in own):
                return np.empty((0, *(own[0].shape[1:] if names[0] in self.arrays else [len(own)])))
            if self.anywhere:
                each = [[a[int(run[0]) : int(run[-1]) + 1][run - run[0]] for run in runs if len(run)] for a in own]
                joined = [np.concatenate(parts).astype(np.float64) for parts in each]
                return joined[0] if names[0] in self.arrays else np.stack(joined, 1)
        return super()._at(names, runs)

    def _look(self) -> None:
        with self._opened() as held:
            for name, array in held.items():
                self._found(name, array.shape)
                if (kind := _type(array.dtype)) is not None:
                    self.types[name] = kind
        if len(self.arrays) > 1:  # labels that are one column each, beside the features
            for name in [name for name, shape in self.arrays.items() if shape[1:] == (1,)]:
                self.columns[name] = self.arrays.pop(name)[0]

    def _pieces(self, names: Sequence[str]) -> Iterator[pa.Table]:
        import pyarrow as pa

        places = {name: self.find(name) for name in names}
        with self._opened() as held:
            own = {array: held[array] for array, _ in places.values()}
            # chunks of HDF5 are read whole: one that is touched twice is decompressed twice
            whole = max((getattr(array, "chunks", None) or (1,))[0] for array in own.values())
            width = sum(math.prod(self.arrays.get(name, ())[1:]) for name in own)
            step = max(whole, BYTES // (8 * width) // whole * whole)
            for start in range(0, self.rows_of(names[0]), step):
                read = {name: array[start : start + step] for name, array in own.items()}
                for name in read.keys() & self.arrays.keys():
                    if read[name].dtype.kind not in "biuf":
                        raise DataError(
                            f"{self.path} must hold numbers in {name or 'its array'}, not {read[name].dtype}."
                        )
                for name in read.keys() - self.arrays.keys():
                    read[name] = read[name].reshape(len(read[name]))  # one of (N, 1)
                values = {n: read[own] if i is None else read[own][:, i] for n, (own, i) in places.items()}
                yield pa.table({name: pa.chunked_array([arrow(part)]) for name, part in values.items()})


class Arrays(ArraySource):
    """NPZ: arrays by their names."""

    what = "an .npz file of plain arrays"

    @contextmanager
    def _opened(self) -> Iterator[Mapping[str, Any]]:
        if not zipfile.is_zipfile(self.path):  # numpy would advise to trust what is none
            raise DataError(f"{self.path} is no .npz file, or a damaged one.")
        with zipfile.ZipFile(self.path) as archive, ExitStack() as stack:
            files = {name: stack.enter_context(archive.open(name)) for name in archive.namelist()}
            yield {name.removesuffix(".npy"): Member(file) for name, file in files.items()}


class Member:
    """An array of an .npz file, unpacked as it is read, from the first row to the last.

    One that is laid out by columns, or whose header is of an unusual version, is unpacked whole.

    Args:
        file: the member, opened.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
            np.lib.format.read_magic(file)
        )
        self._by_rows = False
        if header is None:
            self._unpack()
            return
        self.shape, by_columns, self.dtype = header(file)
        self._by_rows = not by_columns and not self.dtype.hasobject

    def __getitem__(self, rows: slice) -> NDArray:
        if not self._by_rows:
            return self._unpack()[rows]
        start, stop, _ = rows.indices(self.shape[0])
        shape = (stop - start, *self.shape[1:])
        read = self._file.read(math.prod(shape) * self.dtype.itemsize)
        return np.frombuffer(read, self.dtype).reshape(shape)

    def _unpack(self) -> NDArray:
        if not isinstance(self._file, np.ndarray):
            self._file.seek(0)
            self._file = np.lib.format.read_array(self._file, allow_pickle=False)
            self.shape, self.dtype = self._file.shape, self._file.dtype
        return self._file


class OneArray(ArraySource):
    """NPY: one array, which stays on disk; its columns are called `0`, `1` and so on, or as its fields are."""

    what = "an .npy file of a plain array"
    anywhere = True

    def _opened(self) -> AbstractContextManager[Mapping[str, Any]]:
        # numpy looks for an array that is not plain in a file that is none, and advises to trust it
        with self.path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise DataError(f"{self.path} is no .npy file.")
        array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        fields = array.dtype.names
        return nullcontext(
            {name: array[name] for name in fields} if fields else {"0" if array.ndim == 1 else "": array}
        )

    def events(self, array: str, memory: float, centre: Centre | None = None) -> Tensor | Mapped:
        if self.plain:
            with self._damage_named():
                return Mapped.open(self.path, None if centre is None else centre.__call__)
        return super().events(array, memory, centre)

    @property
    def plain(self) -> bool:
        """Whether it is one array that can be read where it lies."""
        with self._damage_named(), self._opened() as held:
            dtype = held[""].dtype if "" in held else None
        return dtype is not None and dtype.isnative and dtype.itemsize <= 8 and dtype.kind in "biuf"


class HDF5(ArraySource):
    """HDF5: data sets by their paths; the fields of a compound one are columns, with its path where names are equal."""

    what = "HDF5"
    convertible = True
    anywhere = True

    @contextmanager
    def _opened(self) -> Iterator[Mapping[str, Any]]:
        import h5py

        found: list[tuple[str, str, Any]] = []  # by its short name and by its path

        def look(path: str, item: Any) -> None:
            if not isinstance(item, h5py.Dataset) or not item.shape:
                return
            own(file, item)
            if names := item.dtype.names:
                found.extend((n, f"{path}/{n}", DataSet(item, item.fields(n), item.dtype[n])) for n in names)
            else:
                view = item.asstr() if h5py.check_string_dtype(item.dtype) else item
                found.append((path, path, DataSet(item, view, item.dtype)))

        with h5py.File(self.path) as file:
            file.visititems(look)
            times = Counter(short for short, _, _ in found)
            yield {short if times[short] == 1 else whole: held for short, whole, held in found}


class DataSet:
    """A data set of an HDF5 file, or a field of a compound one, read by slices.

    Args:
        item: the data set.
        view: of it, that gives what is wanted.
        dtype: of that.
    """

    def __init__(self, item: Any, view: Any, dtype: np.dtype) -> None:
        self.shape, self.chunks, self.dtype, self._view = item.shape, item.chunks, dtype, view

    def __getitem__(self, rows: slice) -> NDArray:
        return self._view[rows]


class Matlab(ArraySource):
    """MAT files, of any version."""

    what = "a .mat file of plain arrays"

    def _opened(self) -> AbstractContextManager[Mapping[str, Any]]:
        return matlab.arrays(self.path)


class ARFF(Text):
    """ARFF, whose rows are a table in text."""

    what = "ARFF"
    or_number = ""
    comment = "%"

    def _head(self) -> tuple[list[str], int]:
        self.dialect = replace(self.dialect, quote="'", separator=",", null_values=(*self.dialect.null_values, "?"))
        with opened(self.path) as file, io.TextIOWrapper(file, encoding=self.dialect.encoding, newline="") as text:
            return arff.head(text, self.path)

    def _tidied(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        for i, name in enumerate(table.column_names):
            if pa.types.is_string(table[name].type):  # a blank before a quotation mark makes it a part of the text
                plain = pc.utf8_trim(pc.utf8_trim_whitespace(table[name]), "'\"")
                table = table.set_column(i, name, pc.if_else(pc.equal(plain, "?"), None, plain))
        return table


FORMATS: dict[str, type[Any]] = {
    ".csv": Text,
    ".tsv": Text,
    ".tab": Text,
    ".parquet": Parquet,
    ".pq": Parquet,
    ".npz": Arrays,
    ".npy": OneArray,
    ".h5": HDF5,
    ".hdf5": HDF5,
    ".mat": Matlab,
    ".arff": ARFF,
}


def _type(dtype: np.dtype) -> pa.DataType | None:
    """What a column of numbers or texts is as `arrow` makes it."""
    import pyarrow as pa

    if dtype.kind in "SUO":
        return pa.string()
    if dtype.kind not in "biuf":
        return None
    return pa.float64() if dtype.kind == "f" and dtype.itemsize > 8 else pa.from_numpy_dtype(dtype.newbyteorder("="))


def format_of(path: Path) -> type[Any] | None:
    """What reads a file, by its ending, in any case; `None` where nothing does.

    Example:
        >>> format_of(Path("a.CSV.gz")) is format_of(Path("b.tsv")), format_of(Path("notes.txt"))
        (True, None)
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] != [] and suffixes[-1] in PACKED
    ending = suffixes[-2] if packed and len(suffixes) > 1 else "".join(suffixes[-1:])
    kind = FORMATS.get(ending)
    return None if kind is None or (packed and not issubclass(kind, Text)) else kind


def open_file(path: Path | str, *, empty_text: bool = True, dialect: Dialect = PLAIN) -> Source:
    """What a file holds, by its ending, in any case.

    Args:
        path: `.csv` or `.tsv`, also with `.gz`, `.xz`, `.bz2` or `.zip`; `.parquet`; `.npz`; `.npy`; `.h5` or `.hdf5`;
            `.mat`; `.arff`.
        empty_text: whether text that is empty, or stands for nothing, such as `NA`, is missing.
        dialect: how a table in text is written.

    Raises:
        DataError: if the file is missing, damaged, empty or of another format.
    """
    path = Path(path)
    kind = format_of(path)
    if kind is None:
        raise DataError(
            f"{path} is of no format that is known here; give data.path one of {', '.join(FORMATS)}, or a table in "
            f"text packed as {', '.join(PACKED)}."
        )
    if not path.is_file():
        raise DataError(f"there is no file {path}.")
    if not path.stat().st_size:
        raise DataError(f"{path} is empty.")
    return kind(path, empty_text, dialect) if issubclass(kind, Text) else kind(path)


def stem(path: Path) -> str:
    """A file's name without what says its format.

    Example:
        >>> stem(Path("flows/monday.csv.gz"))
        'monday'
    """
    plain = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return plain.stem
