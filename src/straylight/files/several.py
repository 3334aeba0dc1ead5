"""Several files of the same columns, which are one: a list of them, a pattern such as `part-*.parquet`, or a folder.

Their rows follow each other in the order of the sorted paths, and are what the same rows in one file would be.

`N` rows of all files, `D` features, `*shape` one event.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from straylight.errors import DataError
from straylight.files.cache import converted
from straylight.files.dialect import PLAIN, Dialect
from straylight.files.formats import FORMATS, OneArray, Text, format_of, open_file, stem
from straylight.files.resolution import Centre
from straylight.files.source import (
    COPY,
    NoRows,
    Source,
    arrow,
    digest_of,
    known_finite,
    listed,
    single,
    tell_finite,
    tensors,
)
from straylight.files.table import is_numeric, is_text
from straylight.rows.mapped import Lying, Mapped
from straylight.rows.origin import Origin, Rows

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

MOST = 20_000  # files, each of which is opened by every process
Given = str | Path | Sequence[str | Path]


def files_of(given: Given) -> list[Path]:
    """The files that are meant, in the order of their paths, each once.

    Args:
        given: a path; a pattern, if there is no file that is called so; a folder, of which all files of known formats
            are meant, below it, too, hidden ones aside; or a list of these.

    Raises:
        DataError: if there is none, there are too many, or they are of several formats.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = [Path(folder, name).write_text("a\\n1\\n") for name in ("b.csv", "a.csv", "notes.txt")]
        ...     [path.name for path in files_of(folder)], [path.name for path in files_of(f"{folder}/b*.csv")]
        (['a.csv', 'b.csv'], ['b.csv'])
    """
    each = [given] if isinstance(given, str | Path) else list(given)
    if not each:
        raise DataError("data.path is an empty list: name a file, or several.")
    found = sorted({path for one in each for path in _meant(Path(one))})
    if len(found) == 1:
        return found
    if len(found) > MOST:
        raise DataError(
            f"{shown(given)} names {len(found):,} files, and at most {MOST:,} can be one data set, since each process "
            "opens them all: join some, as `duckdb` or `pyarrow` do, or give a narrower pattern."
        )
    if strange := [path for path in found if format_of(path) is None]:
        raise DataError(
            f"{shown(given)} names {strange[0]}, which is of no format that is known here; narrow the pattern to files "
            f"of one format, such as {', '.join(list(FORMATS)[:4])}."
        )
    first = found[0]
    if other := next((path for path in found if format_of(path) is not format_of(first)), None):
        raise DataError(
            f"{shown(given)} names {first.name} and {other.name}, which are of two formats; narrow it to files of one."
        )
    return found


def _meant(path: Path) -> list[Path]:
    if path.is_dir():
        below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        inside = [
            one
            for one in below
            if format_of(one) and not any(part.startswith(".") for part in one.relative_to(path).parts)
        ]
        if not inside:
            raise DataError(f"the folder {path} holds no file of a known format; they are {', '.join(FORMATS)}.")
        return inside
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    root = next(above for above in path.parents if above.exists() or not glob.has_magic(str(above)))
    names = glob.glob(str(path.relative_to(root)), root_dir=root, recursive=True)  # noqa: PTH207, whatever its root is
    matching = [root / name for name in names if (root / name).is_file()]
    if not matching:
        raise DataError(f"no file is called like {path}; correct data.path, or the folder that it is meant from.")
    return matching


def shown(given: Given) -> Path:
    """What several files are called in a sentence, as a path."""
    if isinstance(given, str | Path):
        return Path(given)
    first, *others = [Path(one) for one in given] or [Path("[]")]
    return first.with_name(f"{first.name} and {len(others)} more") if others else first


def called(given: Given) -> str:
    """What a data set of them is called.

    Example:
        >>> called("days/flows-*.parquet"), called("days/"), called(["mon.csv", "tue.csv"]), called("*.csv")
        ('flows', 'days', 'mon+1', 'files')
    """
    if not isinstance(given, str | Path):
        names = [called(one) for one in given]
        return f"{names[0]}+{len(names) - 1}" if names[1:] else "".join(names)
    path = Path(given)
    if path.is_dir() or path.exists() or not glob.has_magic(path.name):
        return stem(path)
    plain = "".join(part for part in stem(path).replace("[", "*").replace("?", "*").split("*")[:1])
    return plain.rstrip("-_. ") or "files"


def open_files(given: Given, *, dialect: Dialect = PLAIN, as_text: Sequence[str] = ()) -> Source:
    """What files hold together; see `files_of`.

    Args:
        given: see there.
        dialect: see `open_file`.
        as_text: columns that may be numbers in one table in text and words in another, and are text then.

    Raises:
        DataError: with the name of a file that cannot be read, or has other columns than the first.
    """
    paths = files_of(given)
    if len(paths) == 1:
        return open_file(paths[0], dialect=dialect)
    found, empty = list[Source](), list[Path]()
    for path in paths:
        try:
            found.append(open_file(path, dialect=dialect))
        except NoRows:
            empty.append(path)
    if not found:
        raise DataError(f"none of the {len(paths):,} files of {shown(given)} holds a row of data.")
    return Several(shown(given), found, empty, as_text)


class Several(Source):
    """Files of one format, whose rows follow each other.

    Args:
        path: what they are called.
        parts: the files.
        empty: further ones, which hold no rows.
        as_text: see `open_files`.

    Attributes:
        parts, empty: the same.
    """

    what = "files of one format"

    def __init__(self, path: Path, parts: Sequence[Source], empty: Sequence[Path] = (), as_text: Sequence[str] = ()):
        self.parts, self.empty, self._as_text = list(parts), list(empty), frozenset(as_text)
        first = self.parts[0]
        self.convertible, self.bytes_each = first.convertible, first.bytes_each
        super().__init__(path)

    def _look(self) -> None:
        first, *others = self.parts
        for part in others:
            self._agree(first, part)
        for name in first.columns:
            each = [part.columns[name] for part in self.parts]
            self.columns[name] = None if None in each else sum(rows for rows in each if rows is not None)
        for name, shape in first.arrays.items():
            self.arrays[name] = (sum(part.arrays[name][0] for part in self.parts), *shape[1:])
        self.index = frozenset.intersection(*(part.index for part in self.parts))
        for name in first.types:
            self.types[name] = self._common(name, [part.types.get(name) for part in self.parts])

    def _agree(self, first: Source, part: Source) -> None:
        """Make sure that a file has the columns and arrays of the first."""
        for has, lacks in ((first, part), (part, first)):
            if missing := [n for n in (*has.columns, *has.arrays) if n not in lacks.columns and n not in lacks.arrays]:
                what = listed([repr(name) for name in missing])
                raise DataError(f"{lacks.path} lacks {what}, which {has.path.name} has; all files must have the same.")
        for name, shape in first.arrays.items():
            other = part.arrays.get(name)
            if other is None or other[1:] != shape[1:]:
                has_shape = (len(part.columns),) if other is None else other
                raise DataError(
                    f"{part.path} holds {name or 'an array'} of shape {has_shape}, and {first.path.name} of {shape}; "
                    "all but the number of rows must be the same."
                )
        if strange := [name for name in first.columns if name in part.arrays]:
            raise DataError(f"{part.path} holds an array {strange[0]!r}, which is a column in {first.path.name}.")

    def _common(self, name: str, types: Sequence[Any]) -> Any:
        """The type that holds what each file has in a column."""
        import pyarrow as pa

        different = dict.fromkeys(kind for kind in types if kind is not None and not pa.types.is_null(kind))
        found = next(iter(different), types[0])
        for kind in list(different)[1:]:
            if (joined := _joined(found, kind)) is None:
                part = self.parts[list(types).index(kind)]
                raise DataError(
                    f"{part.path} has {_said(kind)} in column {name!r}, and {self.parts[0].path.name} {_said(found)}; "
                    "all files must have the same."
                )
            found = joined
        return found

    # what a format writes

    def _pieces(self, names: Sequence[str]) -> Iterator[pa.Table]:
        for part in self.parts:
            with part._damage_named():
                pieces = part._pieces(names)
            while (piece := self._next(part, pieces)) is not None:
                yield self._as_all(piece)

    @staticmethod
    def _next(part: Source, pieces: Iterator[pa.Table]) -> pa.Table | None:
        with part._damage_named():
            return next(pieces, None)

    def _as_all(self, piece: pa.Table) -> pa.Table:
        """Columns in the type that they have in all files together."""
        import pyarrow as pa

        for i, name in enumerate(piece.column_names):
            wanted, column = self.types.get(self.find(name)[0]), piece[name]
            if wanted is None or isinstance(self.parts[0], Text):
                continue
            if isinstance(column.type, pa.FixedShapeTensorType):
                kind = "float32" if single(np.dtype(wanted.to_pandas_dtype())) else "float64"
                if str(column.type.value_type) != {"float32": "float", "float64": "double"}[kind]:
                    piece = piece.set_column(i, name, pa.chunked_array([arrow(tensors(column, kind))]))
            elif column.type != wanted:
                piece = piece.set_column(i, name, column.cast(wanted, safe=False))
        return piece

    # what is of all files

    def table(self, names: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        self._check_rows(names)
        self._check_budget(names, lambda rows, width: 8 * rows * width)
        if not isinstance(self.parts[0], Text):
            return pa.concat_tables(self._as_all(part.table(names)) for part in self.parts)
        tables = [part.table(names) for part in self.parts]
        columns = {}
        for name in names:
            types = [table[name].type for table in tables]
            apart = name in self._as_text and len({is_text(kind) for kind in types if not pa.types.is_null(kind)}) > 1
            if apart:
                columns[name] = pa.concat_tables(self._pieces([name]))[name]
                continue
            wanted = self._common(name, types)
            chunks = (table[name].cast(wanted, safe=False).chunks for table in tables)
            columns[name] = pa.chunked_array([chunk for each in chunks for chunk in each], wanted)
        return pa.table(columns)

    def numeric(self, names: Sequence[str]) -> bool:
        return all(is_numeric(self.types[self.find(name)[0]]) for name in names)

    def _as_written(self, columns: dict[str, pa.ChunkedArray]) -> dict[str, pa.ChunkedArray]:
        return Text._as_written(self, columns) if isinstance(self.parts[0], Text) else columns  # type: ignore[arg-type]

    def origin(self, name: str, table: pa.Table | None, features: Sequence[str] = ()) -> Origin:
        columns = self.naming(table, features)
        for numbered in self.parts[0].ranges:
            if numbered not in columns and all(numbered in part.ranges for part in self.parts):
                columns[numbered] = _numbers([part.ranges[numbered] for part in self.parts])
        rows = self.rows_of_each(name)
        parts = [(str(part.path), count) for part, count in zip(self.parts, rows, strict=True)]
        return Origin([Rows(str(self.path), sum(rows), columns, parts)])

    def rows_of_each(self, name: str) -> list[int]:
        """The rows of a column or an array in each file."""
        return [part.rows_of(name) for part in self.parts]

    def _looked_into(self, runs: Sequence[NDArray]) -> Sequence[NDArray]:
        return self.parts[0]._looked_into(runs)

    def _at(self, names: Sequence[str], runs: Sequence[NDArray]) -> NDArray:
        starts = np.concatenate([[0], np.cumsum(self.rows_of_each(names[0]))])
        held = {self.find(name)[0] for name in names}
        wider = any(part.types.get(name) != self.types.get(name) for part in self.parts for name in held)
        found = []
        for run in runs:
            cuts = np.searchsorted(run, starts)
            for i in np.flatnonzero(cuts[1:] > cuts[:-1]).tolist():
                own, part = [run[cuts[i] : cuts[i + 1]] - starts[i]], self.parts[i]
                found.append(Source._at(part, names, own) if wider else part._at(names, own))
        return np.concatenate(found)

    def events(self, array: str, memory: float, centre: Centre | None = None) -> Tensor | Mapped:
        if not all(isinstance(part, OneArray) and part.plain for part in self.parts):
            return super().events(array, memory, centre)
        kept = f"finite-{digest_of(len(self.arrays[array]), [array], centre)}-1"

        def finite(part: Source) -> bool:
            def make(folder: Path) -> None:
                rows = Mapped.open(part.path, None if centre is None else centre.__call__)
                tell_finite(folder, rows)

            with suppress(DataError), part._damage_named():  # where nothing can be written, whoever asks reads it
                return known_finite(converted(part.path, kept, make))
            return False

        known = self._each(finite)
        lying = [Lying(part.path, part.arrays[array]) for part in self.parts]
        return Mapped(lying, single=None if centre is None else centre.__call__, finite=all(known))

    def on_disk(self, names: Sequence[str], shape: Sequence[int], centre: Centre | None = None) -> Mapped:
        shapes = {id(part): (part.rows_of(names[0]), *shape[1:]) for part in self.parts}
        copies = self._each(lambda part: part.copied(names, shapes[id(part)], centre))
        lying = [Lying(copy / COPY, shapes[id(part)]) for part, copy in zip(self.parts, copies, strict=True)]
        return Mapped(lying, finite=all(map(known_finite, copies)))

    def _each(self, what: Callable[[Source], Any]) -> list[Any]:
        """Something done with each file: by one of several processes that do the same with its own files first."""
        rank, ranks = rank_hint()
        first = rank * len(self.parts) // ranks
        order = [(first + i) % len(self.parts) for i in range(len(self.parts))]
        found = {i: what(self.parts[i]) for i in order}
        return [found[i] for i in range(len(self.parts))]

    def _told_of(self, names: Sequence[str]) -> tuple[str, int | None]:
        return f"in {len(self.parts):,} files", sum(part.path.stat().st_size for part in self.parts)


def known_parts(source: Several) -> list[dict[str, Any]]:
    """What a run keeps of each of its files: the path, and the bytes that it has."""
    return [{"file": str(part.path), "bytes": part.path.stat().st_size} for part in source.parts]


def check_same(before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> None:
    """Make sure that the files of a run that is gone on with are those that it began with.

    Raises:
        DataError: with the first that is gone, new, or of another size.
    """
    if not before:
        return
    was, there = ({part["file"]: part["bytes"] for part in parts} for parts in (before, now))
    for path in [*was, *there]:
        if was.get(path) != there.get(path):
            what = "is gone" if path not in there else "is new" if path not in was else "has another size"
            raise DataError(
                f"{path} {what} since the run began, which cannot go on with other rows: put back what was there, or "
                "start another run."
            )


def rank_hint() -> tuple[int, int]:
    """Which process this is of how many that were started together, as far as the environment says."""
    with suppress(ValueError):
        rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
        if 0 <= rank < ranks:
            return rank, ranks
    return 0, 1


def _joined(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds values of two; `None` if one is of numbers and the other of texts or times."""
    import pyarrow as pa
    import pyarrow.types as t

    one, other = (kind.value_type if t.is_dictionary(kind) else kind for kind in (one, other))
    if one == other:
        return one
    if is_text(one) and is_text(other):
        return pa.string()
    if t.is_boolean(one) or t.is_boolean(other) or not (is_numeric(one) and is_numeric(other)):
        return None
    if t.is_integer(one) and t.is_integer(other):
        with suppress(pa.ArrowInvalid, pa.ArrowTypeError):
            return pa.unify_schemas(
                [pa.schema([("x", one)]), pa.schema([("x", other)])], promote_options="permissive"
            ).types[0]
    return pa.float64()


def _said(kind: pa.DataType) -> str:
    import pyarrow.types as t

    if t.is_boolean(kind):
        return "true and false"
    return "text" if is_text(kind) else "numbers" if is_numeric(kind) else str(kind)


def _numbers(ranges: Sequence[range]) -> pa.ChunkedArray:
    import pyarrow as pa

    return pa.chunked_array([pa.array(np.arange(own.start, own.stop, own.step)) for own in ranges])
