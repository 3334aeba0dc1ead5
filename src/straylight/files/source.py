"""What a file holds, whatever its format: columns by their names, and arrays of events.

`N` rows, `n` of them read at a time, `*shape` one event.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight.errors import DataError
from straylight.files.cache import converted
from straylight.rows.mapped import Mapped

if TYPE_CHECKING:
    import pyarrow as pa

BYTES = 2**25  # of a file that are read together where it is converted
SHOWN = 20  # names that are listed in an error


class Source:
    """What one file holds, read when it is asked for. Column i of an array `X` of shape (N, D) is called `X[i]`.

    Args:
        path: the file.

    Attributes:
        columns: the names of its columns, with their rows.
        arrays: the names of its arrays of two axes or more, with their shapes.

    Raises:
        DataError: if it cannot be read.
    """

    what = "a file"
    convertible = False  # to a copy that is read where it lies, if it takes too much memory

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: dict[str, int] = {}
        self.arrays: dict[str, tuple[int, ...]] = {}
        with self._reading():
            self._look()
        self._places = {
            name: {f"{name}[{i}]" if name else str(i): i for i in range(shape[1])} if len(shape) == 2 else {}
            for name, shape in self.arrays.items()
        }
        if not any(self.columns.values()) and not self.arrays:
            raise DataError(f"{path} holds no rows of data.")

    # what a format writes

    def _look(self) -> None:
        """Find the names and shapes of what is there."""
        raise NotImplementedError

    def _columns(self, names: Sequence[str]) -> pa.Table:
        """Read columns."""
        raise NotImplementedError

    def _array(self, name: str) -> Any:
        """Read an array, or open it; numpy's, or `Mapped`."""
        raise NotImplementedError

    def _array_columns(self, name: str, places: Sequence[int]) -> NDArray:
        """Read columns of an array, `(N, k)`; of one on disk no more than these are held in memory."""
        values = self._array(name)
        if not isinstance(values, Mapped):
            return values[:, places]
        (source,) = values.sources
        return np.concatenate([part[:, places].numpy() for part in source.split(BYTES // (8 * source.shape[1]) + 1)])

    def _chunks(self, names: Sequence[str]) -> Iterator[NDArray]:
        """Read columns, or one array, in pieces of `(n, *shape)`."""
        raise NotImplementedError

    def numeric(self, names: Sequence[str]) -> bool:
        """Whether columns hold numbers and can be read in pieces."""
        return False

    # what is written once

    def array_columns(self, name: str) -> list[str]:
        """The names of an array's columns; none, if it has more than two axes."""
        return list(self._places[name])

    @property
    def names(self) -> list[str]:
        """All names of columns, those of arrays among them."""
        return [*self.columns, *(column for name in self.arrays for column in self.array_columns(name))]

    def rows_of(self, name: str) -> int:
        """The rows of a column or an array.

        Raises:
            DataError: if there is no such column, with one that is called almost so.
        """
        if name in self.columns or name in self.arrays:
            return self.columns[name] if name in self.columns else self.arrays[name][0]
        for array, shape in self.arrays.items():
            if name in self._places[array]:
                return shape[0]
        named = [*self.columns, *(name for name in self.arrays if name)] or self.names
        raise DataError(f"{self.path} has no column {name!r}{meant(name, self.names)}; it has {listed(named)}.")

    def table(self, names: Sequence[str]) -> pa.Table:
        """Columns in memory, in this order; those of arrays too."""
        import pyarrow as pa

        sizes = {name: self.rows_of(name) for name in names}
        if len(set(sizes.values())) > 1:
            few, many = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
            raise DataError(f"{self.path}: {few!r} has {sizes[few]:,} rows, and {many!r} has {sizes[many]:,}.")
        with self._reading():
            plain = self._columns([name for name in names if name in self.columns])
            read = {name: plain[name] for name in names if name in self.columns}
            for array, places in self._places.items():
                if own := {name: places[name] for name in names if name in places and name not in read}:
                    read |= zip(own, map(arrow, self._array_columns(array, list(own.values())).T), strict=True)
            return pa.table({name: read[name] for name in names})

    def events(self, array: str, memory: float) -> Tensor | Mapped:
        """An array as float32; on disk if it takes more bytes than `memory` and its format can be read in pieces."""
        shape = self.arrays[array]
        if self.convertible and 4 * math.prod(shape) > memory:
            return self.on_disk([array], shape)
        with self._reading():
            values = self._array(array)
        return values if isinstance(values, Mapped) else torch.from_numpy(_float32(values))

    def on_disk(self, names: Sequence[str], shape: Sequence[int]) -> Mapped:
        """An array, or columns of numbers as one, of this shape, from a copy on disk that is made at the first time."""

        def make(folder: Path) -> None:
            whole = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.float32, shape=tuple(shape))
            start = 0
            for chunk in self._chunks(names):
                whole[start : start + len(chunk)] = _float32(chunk)
                start += len(chunk)
            whole.flush()

        recipe = hashlib.sha256("\n".join([str(len(shape)), *names]).encode()).hexdigest()[:12]
        with self._reading():
            return Mapped.open(converted(self.path, f"float32-{recipe}-1", make) / "x.npy")

    def _found(self, name: str, shape: tuple[int, ...]) -> None:
        if len(shape) == 1:
            self.columns[name] = shape[0]
        elif len(shape) > 1 and all(shape):
            self.arrays[name] = shape

    @contextmanager
    def _reading(self) -> Iterator[None]:
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
    """Values in one column."""
    import pyarrow as pa

    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return pa.array(np.ascontiguousarray(values))


def _float32(values: NDArray) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and named as such
        return np.ascontiguousarray(values, dtype=np.float32)
