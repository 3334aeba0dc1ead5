"""What somebody holds in memory, read as a file is: tables of pandas, polars and pyarrow, and arrays of numpy.

`N` rows, `D` features, `*shape` one event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from straylight.errors import DataError
from straylight.files.formats import ArraySource
from straylight.files.source import Source

if TYPE_CHECKING:
    import pyarrow as pa


def is_held(data: Any) -> bool:
    """Whether something is of a kind that `held` reads.

    Example:
        >>> is_held(np.zeros((3, 2))), is_held({"X": np.zeros((3, 2))}), is_held("mine.csv")
        (True, True, False)
    """
    table = any(hasattr(data, name) for name in ("__arrow_c_stream__", "__dataframe__", "to_arrow"))
    return table or isinstance(data, np.ndarray) or (isinstance(data, Mapping) and not isinstance(data, str))


def held(data: Any, called: str, extra: Mapping[str, Any] | None = None) -> Source:
    """A source of what is in memory.

    Args:
        data: a table of pandas, polars or pyarrow, whose columns have names; an array of numpy, `(N, D)`, whose columns
            are called `0`, `1` and so on, or `(N, *shape)`; a structured one; or several arrays by their names.
        called: what errors call it.
        extra: more columns by their names, `(N,)` each.

    Raises:
        DataError: if it is of another kind, or cannot be read.

    Example:
        >>> source = held(np.zeros((3, 2)), "the array", {"label": [0, 0, 1]})
        >>> source.names, source.table(["1", "label"]).num_rows
        (['label', '0', '1'], 3)
    """
    if not is_held(data):
        raise DataError(
            f"{called} is a {type(data).__name__}; give a table of pandas, polars or pyarrow, an array of numpy, or "
            "the path of a file."
        )
    more = {str(name): np.asarray(values) for name, values in (extra or {}).items()}
    for name, values in more.items():
        if values.ndim != 1:
            raise DataError(f"{called}: {name!r} must be one value a row, not of shape {values.shape}.")
    if isinstance(data, np.ndarray | Mapping):
        return HeldArrays(Path(called), {**_arrays(data), **more})
    return HeldTable(Path(called), data, more)


class _Held(Source):
    """Rows that are in memory, and need no room there any more."""

    def _check_budget(self, names: Sequence[str], held: Callable[[int, int], int], on_disk: bool = False) -> None:
        pass


class HeldTable(_Held):
    """A table with names. Text is of one type whoever holds it, and categories are what they stand for.

    Attributes:
        categories: columns that are declared to hold categories.
    """

    what = "a table"

    def __init__(self, path: Path, table: Any, more: Mapping[str, Any]) -> None:
        self._given, self._more = table, more
        self.categories: list[str] = []
        super().__init__(path)

    def _look(self) -> None:
        import pyarrow as pa

        given = self._given
        table = given if isinstance(given, pa.Table) else _table(given)
        self._check_names([str(name) for name in table.column_names])
        columns = {str(name): self._plain(str(name), table[i]) for i, name in enumerate(table.column_names)}
        for name, values in self._more.items():
            if name in columns:
                raise DataError(f"{self.path} has a column {name!r} already.")
            columns[name] = pa.chunked_array([pa.array(values)])
        self._table = _joined(columns, self.path)
        said = table.schema.pandas_metadata or {}
        self.index = frozenset(name for name in said.get("index_columns", []) if isinstance(name, str))
        self.columns = dict.fromkeys(columns, self._table.num_rows)

    def _plain(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        import pyarrow as pa
        import pyarrow.types as types

        if types.is_dictionary(column.type):
            self.categories.append(name)
            column = column.cast(column.type.value_type)
        if types.is_large_string(column.type) or types.is_string_view(column.type):
            column = column.cast(pa.string())
        return column

    def _pieces(self, names: Sequence[str]) -> Iterator[pa.Table]:
        yield self._table.select([self.find(name)[0] for name in names])


class HeldArrays(_Held, ArraySource):
    """Arrays by their names; one alone has none, and its columns are numbered."""

    what = "an array"
    anywhere = True

    def __init__(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays
        super().__init__(path)

    def _opened(self) -> AbstractContextManager[Mapping[str, Any]]:
        return nullcontext(self._arrays)


def _arrays(data: Any) -> dict[str, np.ndarray]:
    if isinstance(data, Mapping):
        return {str(name): np.asarray(values) for name, values in data.items()}
    if data.dtype.names:
        return {name: data[name] for name in data.dtype.names}
    return {"0" if data.ndim == 1 else "": np.asarray(data)}


def _table(given: Any) -> pa.Table:
    """A table of pyarrow's; pandas says itself which columns number its rows."""
    import pyarrow as pa

    if type(given).__module__.partition(".")[0] == "pandas":
        columns = [str(name) for name in given.columns]
        return pa.Table.from_pandas(given.set_axis(columns, axis=1))
    return pa.table(given.to_arrow() if hasattr(given, "to_arrow") else given)


def _joined(columns: Mapping[str, Any], path: Path) -> pa.Table:
    import pyarrow as pa

    rows = {name: len(column) for name, column in columns.items()}
    if len(set(rows.values())) > 1:
        few, many = min(rows, key=rows.__getitem__), max(rows, key=rows.__getitem__)
        raise DataError(f"{path}: {few!r} has {rows[few]:,} rows, and {many!r} has {rows[many]:,}.")
    return pa.table(dict(columns))
