"""What a file holds, whatever its format: columns by their names, and arrays of events.

`N` rows, `n` of them read at a time, `*shape` one event.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight.atomic import write_json
from straylight.errors import DataError
from straylight.files.budget import check
from straylight.files.cache import converted
from straylight.files.resolution import Centre
from straylight.files.table import is_numeric, numbers
from straylight.rows.mapped import CHUNK, Mapped
from straylight.rows.origin import Origin, kept, single_valued

if TYPE_CHECKING:
    import pyarrow as pa

    from straylight.rows.origin import Column

BYTES = 2**25  # of a file that are read together where it is read in pieces
ORDER = 90  # bytes that a row takes beside its features while it is split, as measured
COPY, FINITE = "x.npy", "finite.json"  # in the folder of what was made of a file
SHOWN = 20  # names that are listed in an error


class NoRows(DataError):
    """A file that is whole, and holds no rows."""


class Source:
    """What one file holds, read when it is asked for. Column i of an array `X` of shape (N, D) is called `X[i]`.

    Args:
        path: the file.

    Attributes:
        columns: the names of its columns, with their rows; `None` of text, whose rows are counted when it is read.
        arrays: the names of its arrays of two axes or more, with their shapes.
        index: the columns that number its rows, where it says so.
        ranges: numbers of its rows that it has no column of, but says, by their names.
        types: what columns and arrays hold, as Arrow has it, where that is known without reading them.

    Raises:
        DataError: if it cannot be read.
    """

    what = "a file"
    or_number = ""  # what else may be done about names that stand twice
    bytes_each = 8  # that a number takes while it is read
    convertible = False  # to a copy that is read where it lies, if it takes too much memory

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: dict[str, int | None] = {}
        self.arrays: dict[str, tuple[int, ...]] = {}
        self.index: frozenset[str] = frozenset()
        self.ranges: dict[str, range] = {}
        self.types: dict[str, pa.DataType] = {}
        with self._damage_named():
            self._look()
        self._places = {
            name: {f"{name}[{i}]" if name else str(i): i for i in range(shape[1])} if len(shape) == 2 else {}
            for name, shape in self.arrays.items()
        }
        if not self.arrays and all(rows == 0 for rows in self.columns.values()):
            raise NoRows(f"{path} holds no rows of data.")

    # what a format writes

    def _look(self) -> None:
        """Find the names and shapes of what is there."""
        raise NotImplementedError

    def _pieces(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Read columns, those of arrays too, and arrays as columns of tensors, as many rows at a time as suits it."""
        raise NotImplementedError

    # what is written once

    def array_columns(self, name: str) -> list[str]:
        """The names of an array's columns; none, if it has more than two axes."""
        return list(self._places[name])

    @property
    def names(self) -> list[str]:
        """All names of columns, those of arrays among them."""
        return [*self.columns, *(column for name in self.arrays for column in self.array_columns(name))]

    def find(self, name: str) -> tuple[str, int | None]:
        """Where a column is: under its own name, as is an array, or in an array, at a place.

        Raises:
            DataError: if there is no such column, with one that is called almost so.
        """
        if name in self.columns or name in self.arrays:
            return name, None
        for array, places in self._places.items():
            if name in places:
                return array, places[name]
        named = [*self.columns, *(name for name in self.arrays if name)] or self.names
        raise DataError(f"{self.path} has no column {name!r}{meant(name, self.names)}; it has {listed(named)}.")

    def rows_of(self, name: str) -> int:
        """The rows of a column or an array."""
        rows = self.known_rows(name)
        return self.table([name]).num_rows if rows is None else rows

    def known_rows(self, name: str) -> int | None:
        """The same where it is known without reading them."""
        own, _ = self.find(name)
        return self.columns[own] if own in self.columns else self.arrays[own][0]

    def table(self, names: Sequence[str]) -> pa.Table:
        """Columns in memory, in this order; those of arrays too."""
        import pyarrow as pa

        self._check_rows(names)
        self._check_budget(names, lambda rows, width: 8 * rows * width)
        with self._damage_named():
            return pa.concat_tables(self._pieces(names))

    def naming(self, table: pa.Table | None, features: Sequence[str] = ()) -> dict[str, Column]:
        """What names the rows: columns that were read of it, and those by which the file itself numbers its rows.

        Args:
            table: the columns, in memory; `None` if there are none.
            features: columns that say something else already.

        Raises:
            DataError: if one of the columns holds what cannot stand beside a score.
        """
        read = {} if table is None else {name: kept(name, table[name]) for name in table.column_names}
        found: dict[str, Column] = dict(self._as_written(read))
        for name in [name for name in self.columns if name in self.index and name not in found]:
            if name not in features and single_valued((column := self.table([name])[name]).type):
                found[name] = kept(name, column)
        return {**found, **{name: numbers for name, numbers in self.ranges.items() if name not in found}}

    def origin(self, name: str, table: pa.Table | None, features: Sequence[str] = ()) -> Origin:
        """Where the rows of a column or an array come from; see `naming`."""
        return Origin.of(self.path, self.rows_of(name), self.naming(table, features))

    def _as_written(self, columns: dict[str, pa.ChunkedArray]) -> dict[str, pa.ChunkedArray]:
        """Columns without what was lost while they were read."""
        return columns

    def chunks(self, names: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Columns, those of arrays too, and whole arrays as columns of tensors, so many rows at a time.

        Of CSV all columns are text as it stands in the file, since no part of it says what the others hold.
        """
        import pyarrow as pa

        self._check_rows(names)
        held: pa.Table | None = None
        with self._damage_named():
            for piece in self._pieces(names):
                held = piece if held is None else pa.concat_tables([held, piece])
                while len(held) > rows:
                    yield held.slice(0, rows)
                    held = held.slice(rows)
        if held is None:
            raise DataError(f"{self.path} holds no rows of data.")
        yield held

    def numeric(self, names: Sequence[str]) -> bool:
        """Whether columns hold numbers, as their first rows say."""
        with self._damage_named():
            return all(map(is_numeric, next(self._pieces(names)).schema.types))

    def sample(self, names: Sequence[str], runs: Sequence[NDArray]) -> NDArray:
        """Some rows of an array, or of columns of numbers as one, as they stand there, `(n, *shape)` float64.

        Args:
            names: the array, or the columns.
            runs: positions of the rows, in increasing order.
        """
        return self._at(names, self._looked_into(runs))

    def _looked_into(self, runs: Sequence[NDArray]) -> Sequence[NDArray]:
        """Those runs of rows that a sample takes where reading them all would take long."""
        return runs

    def _at(self, names: Sequence[str], runs: Sequence[NDArray]) -> NDArray:
        """All rows of these runs."""
        wanted, start, found = np.concatenate(runs), 0, []
        with self._damage_named():
            for piece in self._pieces(names):
                low, high = np.searchsorted(wanted, [start, start + len(piece)])
                found.append(self._numbers(piece.take(wanted[low:high] - start), names, "float64"))
                start += len(piece)
                if high == len(wanted):
                    break
        return np.concatenate(found)

    def events(self, array: str, memory: float, centre: Centre | None = None) -> Tensor | Mapped:
        """An array as float32; on disk if it takes more bytes than `memory` and its format can be read in pieces."""
        shape = self.arrays[array]
        if self.convertible and 4 * math.prod(shape) > memory:
            return self.on_disk([array], shape, centre)
        self._check_budget([array], lambda rows, width: 4 * rows * width)
        whole = np.empty(shape, dtype=np.float32)
        with self._damage_named():
            self._write(whole, [array], centre)
        return torch.from_numpy(whole)

    def on_disk(self, names: Sequence[str], shape: Sequence[int], centre: Centre | None = None) -> Mapped:
        """An array, or columns of numbers as one, of this shape, from a copy on disk that is made at the first time."""
        with self._damage_named():
            folder = self.copied(names, shape, centre)
            return Mapped.open(folder / COPY, finite=known_finite(folder))

    def copied(self, names: Sequence[str], shape: Sequence[int], centre: Centre | None = None) -> Path:
        """The folder with such a copy, `COPY`, and whether all of its numbers are finite."""

        def make(folder: Path) -> None:
            self._check_budget(names, lambda rows, width: 4 * rows * width, on_disk=True)
            whole = np.lib.format.open_memmap(folder / COPY, mode="w+", dtype=np.float32, shape=tuple(shape))
            self._write(whole, names, centre)
            whole.flush()
            tell_finite(folder, whole)

        with self._damage_named():
            return converted(self.path, f"float32-{digest_of(len(shape), names, centre)}-1", make)

    def _write(self, whole: NDArray[np.float32], names: Sequence[str], centre: Centre | None) -> None:
        start = 0
        for piece in self._pieces(names):
            held = self._numbers(piece, names, "float64" if centre else "float32")
            whole[start : start + len(piece)] = centre(held) if centre else held
            start += len(piece)

    def _numbers(self, piece: pa.Table, names: Sequence[str], dtype: str) -> NDArray:
        if names[0] in self.arrays:
            return tensors(piece[names[0]], dtype)
        return np.stack([numbers(piece[n], n, dtype) for n in names], 1)

    def _found(self, name: str, shape: tuple[int, ...]) -> None:
        if len(shape) == 1:
            self.columns[name] = shape[0]
        elif len(shape) > 1 and all(shape):
            self.arrays[name] = shape

    def _check_names(self, names: Sequence[str]) -> None:
        if twice := sorted(name for name, times in Counter(names).items() if times > 1):
            raise DataError(
                f"{self.path} has more than one column {twice[0]!r}; give each a name of its own{self.or_number}."
            )

    def _check_rows(self, names: Sequence[str]) -> None:
        """Make sure that columns are there and have equally many rows."""
        sizes = {name: self.known_rows(name) or 0 for name in names}
        if len(set(sizes.values())) > 1:
            few, many = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
            raise DataError(f"{self.path}: {few!r} has {sizes[few]:,} rows, and {many!r} has {sizes[many]:,}.")

    def check_rows(self, names: Sequence[str], memory: float) -> None:
        """Make sure that so many rows of columns, or of an array, can be in the file, and be split in memory.

        Args:
            names: the columns, or the array.
            memory: bytes that the rows themselves may take there.
        """
        self._check_budget(names, lambda rows, width: ORDER * rows + min(4 * rows * width, int(memory)))

    def _check_budget(self, names: Sequence[str], held: Callable[[int, int], int], on_disk: bool = False) -> None:
        """Make sure that columns or arrays can be in the file, and that there is room for what rows and width take."""
        rows = self.known_rows(names[0])
        if rows is None:
            return
        width = sum(math.prod(self.arrays.get(name, ())[1:]) for name in names)
        where, size = self._told_of(names)
        what = f"{rows:,} rows of {width:,} number{'s' * (width > 1)} {where}"
        check(self.path, what, 8 * rows * width, held(rows, width), on_disk=on_disk, size=size)

    def _told_of(self, names: Sequence[str]) -> tuple[str, int | None]:
        """What tells these numbers from others, in words, and how many bytes hold them, if not the one file's."""
        return f"({listed(names[:3])}{', ...' * (len(names) > 3)})", None

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # damaged files fail in as many ways as there are libraries
            said = " ".join(str(error).split()).replace(". ", ", ").rstrip(".")[:200]
            raise DataError(
                f"{self.path} cannot be read as {self.what} ({said or type(error).__name__}); it may be damaged, or "
                "not what its name says."
            ) from error


def digest_of(axes: int, names: Sequence[str], centre: Centre | None) -> str:
    """Twelve hex digits that tell what is made of a file."""
    centred = [] if centre is None else [str(part.tolist()) for part in centre]
    return hashlib.sha256("\n".join([str(axes), *names, *centred]).encode()).hexdigest()[:12]


def tell_finite(folder: Path, whole: Any) -> None:
    """Keep whether all numbers of an array, `(N, ...)`, are finite, so that nobody has to read them for it again."""
    chunks = (np.asarray(whole[start : start + CHUNK]) for start in range(0, len(whole), CHUNK))
    write_json(folder / FINITE, {"finite": all(bool(np.isfinite(chunk).all()) for chunk in chunks)})


def known_finite(folder: Path) -> bool:
    """Whether it was kept of a copy that all of its numbers are finite."""
    try:
        return json.loads((folder / FINITE).read_text(encoding="utf-8"))["finite"] is True
    except (OSError, ValueError, KeyError, TypeError):  # of a copy that an earlier version made
        return False


@contextmanager
def about(path: Path) -> Iterator[None]:
    """What is wrong with the data of a file is said with its name."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def meant(name: str, options: Iterable[str]) -> str:
    """The name that is almost the same, if there is one, as a question in parentheses."""
    options = list(options)
    lower = {option.lower(): option for option in reversed(options)}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return f" (did you mean {lower[close[0]]!r}?)" if close else ""


def listed(names: Sequence[str]) -> str:
    """Names for an error, the first of them if they are many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(str, names[:SHOWN])) + more


def arrow(values: NDArray) -> pa.Array:
    """Values in one column, `(N,)`, or tensors, `(N, *shape)`, of float32 if that holds them and else of float64."""
    import pyarrow as pa

    if values.ndim > 1:
        kind = np.float32 if single(values.dtype) else np.float64
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values, dtype=kind))
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return pa.array(np.ascontiguousarray(values))


def single(dtype: np.dtype) -> bool:
    """Whether single precision holds every number of a type."""
    return dtype.itemsize <= (4 if dtype.kind == "f" else 2)


def tensors(column: pa.ChunkedArray, dtype: str = "float32") -> NDArray:
    """A column of tensors as they were, `(N, *shape)`."""
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and named as such
        return column.combine_chunks().to_numpy_ndarray().astype(dtype, copy=False)
