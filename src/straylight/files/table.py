"""Columns of a table as numbers: categories become ones and zeros, and only those of training rows do.

`N` rows, `n` of them encoded, `D` features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from straylight.data.base import AnomalyDataModule
from straylight.data.steps.splits import Places
from straylight.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

MANY = 1000  # different texts that a column has at most, unless it was said to hold categories


@dataclass(frozen=True)
class Coding:
    """How columns become features: a number is one, a column of K categories is K of them, one of which is 1.

    A category that no training row holds, and one that is missing, are K zeros.

    Args:
        columns: in their order.
        categories: of those columns that have some, in their order.

    Raises:
        DataError: if a column holds neither numbers nor categories, or text where training rows hold numbers.

    Example:
        >>> import pyarrow as pa
        >>> table = pa.table({"bytes": [5, 7, 9], "service": ["http", "smtp", "dns"]})
        >>> coding = Coding.fit(table, table.column_names, rows=[0, 1])
        >>> coding.names
        ['bytes', 'service=http', 'service=smtp']
        >>> coding.encode(table, [1, 2]).tolist()
        [[7.0, 0.0, 1.0], [9.0, 0.0, 0.0]]
    """

    columns: tuple[str, ...]
    categories: Mapping[str, Sequence[str]]

    @classmethod
    def fit(cls, table: pa.Table, columns: Sequence[str], rows: Any, categorical: Sequence[str] = ()) -> Coding:
        """The categories that some rows hold.

        Args:
            table: with `N` rows.
            columns: that become features, in this order.
            rows: positions of training rows.
            categorical: columns of numbers that are categories nevertheless; those of text are so anyway.
        """
        categories = {}
        for name in columns:
            if name in categorical or _is_text(table[name].type):
                values, codes = _codes(table[name])
                if name not in categorical:
                    _check_text(name, values, codes)
                held = np.zeros(len(values) + 1, dtype=bool)
                held[codes[np.asarray(rows, dtype=np.int64)]] = True
                categories[name] = [value for value, there in zip(values, held[:-1], strict=True) if there]
            else:
                _check_number(name, table[name].type)
        return cls(tuple(columns), categories)

    @property
    def names(self) -> list[str]:
        """The features' names, `service=http` for a category."""
        return [
            feature
            for name in self.columns
            for feature in ([f"{name}={c}" for c in self.categories[name]] if name in self.categories else [name])
        ]

    def encode(self, table: pa.Table, rows: Any = None) -> NDArray[np.float32]:
        """Some rows, or all of them, as features, `(n, D)`; a number that is missing is NaN."""
        places = slice(None) if rows is None else np.asarray(rows, dtype=np.int64)
        n = table.num_rows if rows is None else len(rows)
        x = np.zeros((n, len(self.names)), dtype=np.float32)
        start = 0
        for name in self.columns:
            if name not in self.categories:
                x[:, start] = numbers(table[name], name)[places]
                start += 1
                continue
            place = self._places(name, table[name])[places]
            known = np.flatnonzero(place >= 0)
            x[known, start + place[known]] = 1
            start += len(self.categories[name])
        return x

    def unknown(self, table: pa.Table, rows: NDArray, name: str) -> int:
        """How many of some rows hold a category of a column that the coding does not have."""
        return int((self._places(name, table[name])[rows] == -1).sum())

    def _places(self, name: str, column: pa.ChunkedArray) -> NDArray[np.int64]:
        """Where among its categories each row's is; -1 if it is not there, -2 if it is missing."""
        values, codes = _codes(column)
        place = {category: i for i, category in enumerate(self.categories[name])}
        return np.array([*(place.get(value, -1) for value in values), -2])[codes]


def features_of(
    data: AnomalyDataModule,
    table: pa.Table,
    columns: Sequence[str],
    places: Places,
    *,
    categorical: Sequence[str] = (),
    tested: pa.Table | None = None,
) -> tuple[list[NDArray[np.float32]], Coding]:
    """The features of each split, with categories of training rows; says what else was found, and names the columns.

    Args:
        data: the data set, whose `columns` are set.
        table: with `N` rows.
        columns: that become features.
        places: which rows go where.
        categorical: see `Coding.fit`.
        tested: another table, all rows of which are tested; `places.test` is then of no account.

    Returns:
        what `places` has, `(n, D)` each, the same array for the same rows, and the coding.

    Raises:
        DataError: as `Coding` does, and if a category is missing and `data.missing=error`.
    """

    def said(error: DataError, part: pa.Table) -> DataError:
        return DataError(f"{data.name if part is table else 'data.test_path'}: {error}")

    try:
        coding = Coding.fit(table, columns, places.train, categorical)
    except DataError as error:
        raise said(error, table) from error
    data.columns = coding.names
    parts = [(table, rows) for rows in places]
    if tested is not None:
        parts[2] = (tested, np.arange(tested.num_rows))
    for name in coding.categories:
        missing = sum(part[name].null_count for part in (table, tested) if part is not None)
        if missing and data.missing_values == "error":
            raise DataError(
                f"{data.name}: column {name!r} lacks {missing:,} value{'s' if missing > 1 else ''}; fill in, or set "
                "data.missing=median, by which a missing category is like one that no training row holds."
            )
        count = sum(coding.unknown(part, rows, name) for part, rows in parts[1:] if rows is not places.train)
        if count:
            data.notice(
                f"{count:,} row{'s' if count > 1 else ''} hold{'' if count > 1 else 's'} a category of column {name!r} "
                "that no training row has, which is 0 in all of its features."
            )
    made: dict[int, NDArray[np.float32]] = {}
    for part, rows in parts:
        if id(rows) not in made:
            try:
                made[id(rows)] = coding.encode(part, rows)
            except DataError as error:
                raise said(error, part) from error
    return [made[id(rows)] for _, rows in parts], coding


def numbers(column: pa.ChunkedArray, name: str, dtype: str = "float32") -> NDArray:
    """A column of numbers, `(N,)`, NaN where one is missing.

    Raises:
        DataError: if it holds something else.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    _check_number(name, column.type)
    if pa.types.is_decimal(column.type):
        column = pc.cast(column, pa.float64())
    return pc.cast(column, getattr(pa, dtype)(), safe=False).to_numpy(zero_copy_only=False)


def texts(column: pa.ChunkedArray) -> NDArray:
    """A column of any type as text, `(N,)` objects, None where one is missing."""
    values, codes = _codes(column)
    return np.array([*values, None], dtype=object)[codes]


def _codes(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """Its different values in increasing order, as text, and where each row's is; -1 where it is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    encoded = column.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order) + 1, dtype=np.int64)
    rank[order], rank[-1] = np.arange(len(order)), -1
    codes = encoded.indices.fill_null(len(order)).to_numpy(zero_copy_only=False)
    try:
        return pc.cast(encoded.dictionary.take(order), pa.string()).to_pylist(), rank[codes]
    except pa.ArrowInvalid as error:
        raise DataError("text that is not UTF-8 cannot be told apart; write the file in UTF-8.") from error


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(is_it(kind) for is_it in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)) or (
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )


def _check_number(name: str, kind: pa.DataType) -> None:
    import pyarrow as pa

    if pa.types.is_temporal(kind):
        raise DataError(
            f"column {name!r} holds dates or times ({kind}), which are no features: turn it into numbers, such as "
            "seconds or the hour of the day, or leave it out, by listing the others in data.features or by "
            f"data.meta=[{name}]."
        )
    if _is_text(kind):
        raise DataError(f"column {name!r} must hold numbers, and holds text.")
    if not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        raise DataError(
            f"column {name!r} holds {kind}, and not a number or a text in each row; leave it out, by listing the "
            "others in data.features."
        )


def _check_text(name: str, values: Sequence[str], codes: NDArray) -> None:
    """Numbers with a word among them, and texts that are different in every row, are no categories."""
    number = np.array([*map(is_number, values), False], dtype=bool)
    rows = int((codes >= 0).sum())
    if number[codes].sum() * 2 >= max(rows, 1):
        words = [value for value, is_one in zip(values, number, strict=False) if not is_one]
        raise DataError(
            f"column {name!r} holds numbers in most rows, and {', '.join(map(repr, words[:3]))}"
            f"{' and more' if len(words) > 3 else ''} in others; mend these, leave them empty, or list {name} in "
            "data.categorical."
            if words
            else f"column {name!r} holds numbers written as text; write them as numbers, or list {name} in "
            "data.categorical."
        )
    if len(values) > MANY:
        raise DataError(
            f"column {name!r} holds {len(values):,} different texts, too many to be categories; leave it out, by "
            f"listing the others in data.features, or list {name} in data.categorical."
        )


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
