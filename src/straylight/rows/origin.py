"""Where rows come from: which file, which row of it, and what the file itself calls them.

A file's rows are named once, by columns of the whole file; a split keeps the positions of its own rows and looks names
up when somebody asks. Positions that rise take a bit for each row of the file, others four bytes a row; of rows that
lie on disk they are those by which they are read anyway, and take nothing.

What is written of a row stands in columns of these names, in `scores.parquet`, `calibration.parquet`, `results.h5`,
`extremes.csv` and in what `straylight score` writes:

* `file`: the path, as the data module was given it; `PATH/ARRAY` of an HDF5 file with several arrays of events.
* `row`: the number of the row in the file, as a person counts: 1 is the first row of data.
* the columns of `data.meta` and those by which a Parquet file of pandas numbers its rows, under their own names. One
  that is called like a column of ours, see `column_name`, or whose name begins with `meta.`, is called `meta.NAME`:
  no two columns can end with one name.

`N` rows of a split, `n` of them asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from straylight.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    #: A column of all rows of a file; numbers that follow each other need no room.
    Column: TypeAlias = pa.ChunkedArray | range

FILE, ROW = "file", "row"
PREFIX = "meta."
#: Columns of ours in tables of scores, in those of new rows, too.
OURS = re.compile(
    "index|score|y|kind|file|row|weight|fold|rank|reason|end|p_value|member_.*|flag([ _@=:.].*)?|"
    "(feature|value|contribution)(_[0-9]+)?"
)
LONGEST = 32  # characters of a name in a figure


def column_name(name: str) -> str:
    """What a column of a file is called beside scores.

    Example:
        >>> [column_name(name) for name in ("time", "score", "member_3", "meta.score")]
        ['time', 'meta.score', 'meta.member_3', 'meta.meta.score']
    """
    return PREFIX + name if OURS.fullmatch(name) or name.startswith(PREFIX) else name


class Rows:
    """All rows of one file, or of several that are one.

    Args:
        file: its path, as a person is to read it.
        count: how many rows it has.
        columns: what names them beside their number, `(count,)` each, those of `data.meta` first.
        parts: paths and rows of the files that it consists of; it alone, if left out.
    """

    def __init__(
        self, file: str, count: int, columns: Mapping[str, Column] | None = None, parts: Sequence[tuple[str, int]] = ()
    ) -> None:
        self.file, self.count, self.columns = file, count, dict(columns or {})
        self.parts = list(parts) or [(file, count)]
        for name, column in self.columns.items():
            if len(column) != count:
                raise DataError(f"{file}: {name!r} has {len(column):,} rows, and the features have {count:,}.")

    @cached_property
    def telling(self) -> list[str]:
        """The columns in which no two rows have the same value, in their order; it takes a while to find out."""
        return [name for name, column in self.columns.items() if _differs(column)]


class Origin:
    """Where the rows of a split come from.

    Args:
        files: laid end to end.
        places: positions of the split's rows in them, `(N,)` integers; `None` for all.
        shared: whether somebody else keeps these positions anyway.

    Example:
        >>> import pyarrow as pa
        >>> mine = Rows("mine.csv", 3, {"id": pa.chunked_array([["a", "b", "c"]]), "score": range(10, 13)})
        >>> origin = Origin([mine]).take([2, 0])
        >>> {name: column.to_pylist() for name, column in origin.columns().items()}
        {'file': ['mine.csv', 'mine.csv'], 'row': [3, 1], 'id': ['c', 'a'], 'meta.score': [12, 10]}
        >>> origin.called([0]), Origin.of("mine.csv", 3).called([0])
        (['id c'], ['row 1'])
    """

    def __init__(self, files: Sequence[Rows], places: NDArray[Any] | None = None, *, shared: bool = False) -> None:
        self.files = tuple(files)
        self._starts = _starts(file.count for file in files)
        self._len = int(self._starts[-1]) if places is None else len(places)
        self._bits = None if places is None or shared else _packed(places, int(self._starts[-1]))
        self._places = places if self._bits is None else None

    @property
    def places(self) -> NDArray[Any] | None:
        """Positions of the rows in the files laid end to end, `(N,)`; `None` for all."""
        if self._bits is None:
            return self._places
        there = np.unpackbits(self._bits, count=int(self._starts[-1])).view(bool)
        return np.flatnonzero(there).astype(_small(len(there)), copy=False)

    @classmethod
    def of(cls, file: Path | str, count: int, columns: Mapping[str, Column] | None = None) -> Origin:
        """All rows of one file."""
        return cls([Rows(str(file), count, columns)])

    @classmethod
    def cat(cls, parts: Sequence[Origin], places: NDArray[Any] | None = None) -> Origin:
        """The rows of several, one after the other; `places` if they are known. Files that all of them are of are laid
        down once."""
        files = [file for part in parts for file in part.files]
        shared = places is not None
        if once := same_files(parts):
            files = list(parts[0].files)
        if places is None:
            small, start, found = _small(sum(file.count for file in files)), 0, []
            for part in parts:
                known = part.places
                own = np.arange(len(part), dtype=small) if known is None else known
                found.append((own + start).astype(small, copy=False))
                start += 0 if once else int(part._starts[-1])
            places = np.concatenate(found)
        return cls(files, places, shared=shared)

    def __len__(self) -> int:
        return self._len

    def take(self, rows: ArrayLike, places: NDArray[Any] | None = None) -> Origin:
        """The rows at these positions of the split, in this order; `places` if they are known."""
        if places is not None:
            return Origin(self.files, places, shared=True)
        chosen, known = np.asarray(rows), self.places
        chosen = chosen if len(chosen) else chosen.astype(np.int64)
        own = chosen if known is None else known[chosen]
        return Origin(self.files, own.astype(_small(int(self._starts[-1])), copy=False))

    # what rows are called

    @property
    def names(self) -> list[str]:
        """The names in the files of the columns that name rows, each once."""
        return list(dict.fromkeys(name for file in self.files for name in file.columns))

    def rows(self, index: ArrayLike | None = None) -> NDArray[np.int64]:
        """The numbers of rows in their files, from 1, `(n,)`.

        Args:
            index: positions of the rows in the split; `None` for all.
        """
        at, _ = self._found(index)
        _, starts = self._parts
        return at - starts[np.searchsorted(starts, at, side="right") - 1] + 1

    def file(self, index: ArrayLike | None = None) -> pa.DictionaryArray:
        """The files of rows, `(n,)`."""
        import pyarrow as pa

        at, _ = self._found(index)
        names, starts = self._parts
        number = {name: i for i, name in enumerate(dict.fromkeys(names))}
        of = np.array([number[name] for name in names], dtype=np.int32)
        part = np.searchsorted(starts, at, side="right") - 1
        return pa.DictionaryArray.from_arrays(pa.array(of[part]), pa.array([*number], pa.string()))

    def column(self, name: str, index: ArrayLike | None = None) -> pa.ChunkedArray:
        """A column of the files for these rows, `(n,)`, of its own type; missing in a file that has no such column.

        Raises:
            DataError: if files have the column in types that do not go together.
        """
        import pyarrow as pa

        at, file = self._found(index)
        parts, order = [], []
        for number, own in enumerate(self.files):
            chosen = np.flatnonzero(file == number) if len(self.files) > 1 else None
            here = at if chosen is None else at[chosen]
            column = own.columns.get(name)
            if chosen is None and column is not None:
                return _taken(column, here)
            if len(here):
                taken = (
                    pa.chunked_array([pa.nulls(len(here))])
                    if column is None
                    else _taken(column, here - self._starts[number])
                )
                parts.append(pa.table({name: taken}))
                order.append(np.arange(len(here)) if chosen is None else chosen)
        if not parts:
            first = next((own.columns[name] for own in self.files if name in own.columns), range(0))
            return _taken(first, np.empty(0, np.int64))
        try:
            joined = pa.concat_tables(parts, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                f"column {name!r} holds {' and '.join(dict.fromkeys(str(part.schema.types[0]) for part in parts))} in "
                "files that are joined; give it one type."
            ) from error
        back = np.empty(len(at), dtype=np.int64)
        back[np.concatenate(order)] = np.arange(len(at))
        return joined.unify_dictionaries()[name].take(pa.array(back))

    def columns(self, index: ArrayLike | None = None) -> dict[str, Any]:
        """All that names these rows, under the names of tables of scores, `(n,)` each."""
        import pyarrow as pa

        rows = None if index is None else np.asarray(index)
        found = {column_name(name): self.column(name, rows) for name in self.names}
        return {FILE: self.file(rows), ROW: pa.array(self.rows(rows)), **found}

    def called(self, index: ArrayLike) -> list[str]:
        """What a person calls these rows: `id a17`, by the first column of which each row has a value of its own.

        Where there is none, or it lacks this row's value, `row 17`, with the file if there are several.
        """
        rows = np.asarray(index)
        numbers = [f"row {row}" for row in self.rows(rows).tolist()]
        if len(set(self._parts[0])) > 1:
            files = [Path(file).name for file in self.file(rows).to_pylist()]
            numbers = [f"{number} of {file}" for number, file in zip(numbers, files, strict=True)]
        name = self.identifier
        if name is None:
            return numbers
        values = self.column(name, rows).to_pylist()
        pairs = zip(values, numbers, strict=True)
        return [number if value is None else shortened(f"{name} {written(value)}") for value, number in pairs]

    @cached_property
    def identifier(self) -> str | None:
        """The first column in which no two rows of a file have the same value."""
        shared = [name for name in self.names if all(name in own.columns for own in self.files)]
        return next((name for name in shared if all(name in own.telling for own in self.files)), None)

    @cached_property
    def _parts(self) -> tuple[list[str], NDArray[np.int64]]:
        """The names of all files, each part by itself, and where they begin."""
        named = [part for file in self.files for part in file.parts]
        return [name for name, _ in named], _starts(rows for _, rows in named)[:-1]

    def _found(self, index: ArrayLike | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of rows in the files laid end to end, and the number of the file of each."""
        known = self.places
        if index is None:
            at = np.arange(len(self)) if known is None else known.astype(np.int64)
        else:
            at = np.asarray(index, dtype=np.int64)
            at = at if known is None else known[at].astype(np.int64)
        if len(self.files) == 1:
            return at, np.broadcast_to(np.int64(0), at.shape)
        return at, np.searchsorted(self._starts, at, side="right") - 1


class Beside(Mapping[str, NDArray[Any]]):
    """Columns beside the rows of a split as numpy has them: its own, and those of the files, looked up when asked for.

    Args:
        own: `(N,)` each.
        origin: of the rows.
    """

    def __init__(self, own: Mapping[str, NDArray[Any]], origin: Origin) -> None:
        self.own, self._origin = own, origin

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name in self.own:
            return self.own[name]
        if name not in self._origin.names:
            raise KeyError(name)
        return plain(self._origin.column(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._origin.names, *self.own)))

    def __len__(self) -> int:
        return len(list(iter(self)))


def own(meta: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """Those of the columns beside rows that are looked up nowhere."""
    return meta.own if isinstance(meta, Beside) else meta


def beside(meta: Mapping[str, NDArray[Any]], origin: Origin | None) -> Mapping[str, NDArray[Any]]:
    """Columns of a split's own, and those that its origin knows."""
    return meta if origin is None or not origin.names else Beside(own(meta), origin)


def plain(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """A column as numpy has it: numbers and times as they are, text and what float64 does not hold as objects."""
    import pyarrow as pa

    values = _plain(column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column]))
    return values if values.flags.writeable else values.copy()  # torch takes no array that it may not write to


def _plain(column: pa.ChunkedArray) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    kind = column.type
    if column.null_count and types.is_integer(kind):
        return np.array(column.to_pylist(), dtype=object)
    if types.is_temporal(kind) or types.is_boolean(kind) or types.is_integer(kind):
        return column.to_numpy()
    if types.is_floating(kind):
        return pc.cast(column, pa.float64()).to_numpy()
    values = column.cast(kind.value_type) if types.is_dictionary(kind) else column
    try:
        return values.cast(pa.string()).to_numpy()
    except pa.ArrowInvalid:  # bytes that are no text
        return np.array([written(value.as_py()) if value.is_valid else None for value in values], dtype=object)


def kept(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column that may name rows: numbers, text, times and categories, with missing values, in their own types.

    Raises:
        DataError: if a row holds several values, or something that Parquet has no type for.
    """
    import pyarrow as pa
    import pyarrow.types as types

    kind = column.type
    if not single_valued(kind):
        raise DataError(
            f"column {name!r} of data.meta holds {kind}, and not one number, text or time in each row, which is what "
            "can stand beside a score; leave it out of data.meta, or turn it into several columns."
        )
    if types.is_string_view(kind):
        column = column.cast(pa.string())
    elif types.is_binary_view(kind):
        column = column.cast(pa.binary())
    return column.unify_dictionaries() if types.is_dictionary(kind) else column


def single_valued(kind: pa.DataType) -> bool:
    """Whether a type has one value a row, which Parquet has a type for."""
    import pyarrow as pa
    import pyarrow.types as types

    held = kind.value_type if types.is_dictionary(kind) else kind
    odd = (types.is_nested, types.is_union, types.is_interval, types.is_run_end_encoded)
    return not isinstance(held, pa.BaseExtensionType) and not any(is_it(held) for is_it in odd)


def written(value: Any) -> str:
    """A value in a line of text.

    Example:
        >>> written("a\\n b"), written(b"\\xff"), written(2.0)
        ('a b', 'ff', '2.0')
    """
    return value.hex() if isinstance(value, bytes) else " ".join(str(value).split())


def shortened(text: str) -> str:
    """A name as a figure has room for it."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _starts(counts: Iterable[int]) -> NDArray[np.int64]:
    """Where each of several begins that are laid end to end, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(list(counts), dtype=np.int64)])


def same_files(parts: Sequence[Origin]) -> bool:
    """Whether rows come from the very same files."""
    first = parts[0].files
    return all(
        len(part.files) == len(first) and all(a is b for a, b in zip(part.files, first, strict=True))
        for part in parts[1:]
    )


def _differs(column: Column) -> bool:
    """Whether no two rows have the same value, those without one aside."""
    if isinstance(column, range):
        return True
    there = column.drop_null()
    return len(there) > 0 and len(there.unique()) == len(there)


def _taken(column: Column, at: NDArray[np.int64]) -> pa.ChunkedArray:
    import pyarrow as pa

    if isinstance(column, range):
        return pa.chunked_array([pa.array(column.start + column.step * at)])
    return column.take(pa.array(at))


def _packed(places: NDArray[Any], rows: int) -> NDArray[np.uint8] | None:
    """Positions among so many rows as a bit for each of these; `None` if they do not rise, or take less as they are."""
    if 8 * places.nbytes <= rows or not (places[1:] > places[:-1]).all():
        return None
    there = np.zeros(rows, dtype=bool)
    there[places] = True
    return np.packbits(there)


def _small(n: int) -> type[np.int32] | type[np.int64]:
    return np.int32 if n < 2**31 else np.int64
