"""Columns of a table as numpy has them: numbers, texts, or the categories that they hold.

`N` rows, `K` different values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from straylight.errors import DataError
from straylight.files.words import is_number, otherwise

if TYPE_CHECKING:
    import pyarrow as pa

MANY = 1000  # different texts that a column has at most, unless it was said to hold categories


def numbers(column: pa.ChunkedArray, name: str, dtype: str = "float32") -> NDArray:
    """A column of numbers, `(N,)`, NaN where one is missing.

    Large whole numbers pass through float64, as text does, so that a number has the same bits however it was stored.

    Raises:
        DataError: if it holds something else.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    check_number(name, column.type)
    if pa.types.is_decimal(column.type) or (pa.types.is_integer(column.type) and column.type.bit_width == 64):
        column = pc.cast(column, pa.float64(), safe=False)
    wanted = getattr(pa, dtype)()
    return (column if column.type == wanted else pc.cast(column, wanted, safe=False)).to_numpy(zero_copy_only=False)


def parsed(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column of numbers that may be written as text, `true` and `false` being 1 and 0.

    Raises:
        DataError: with the first text that is no number.

    Example:
        >>> import pyarrow as pa
        >>> parsed(pa.chunked_array([["7", " 0.5", None]]), "x").to_pylist()
        [7.0, 0.5, None]
    """
    values, bad = readable(column)
    for word in bad.values():
        raise DataError(f"column {name!r} must hold numbers, as training rows do, and holds {word!r}.")
    return values


def readable(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, dict[int, str]]:
    """As `parsed`, with nothing where a text is no number, and these texts by their rows.

    Each is read by itself: what stands in other rows changes nothing.

    Example:
        >>> import pyarrow as pa
        >>> values, bad = readable(pa.chunked_array([["7", "x", None, "true"]]))
        >>> values.to_pylist(), bad
        ([7.0, None, None, 1.0], {1: 'x'})
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not is_text(column.type):
        return column, {}
    words = pc.utf8_trim(pc.cast(column, pa.string()), " \t")
    with suppress(pa.ArrowInvalid):
        return pc.cast(words, pa.float64()), {}
    different, codes = coded(words)
    numbers = [_number(word) for word in different]
    found = pa.array(numbers, pa.float64()).take(pa.array(codes, mask=codes < 0))
    wrong = np.array([*(number is None for number in numbers), False], dtype=bool)
    return pa.chunked_array([found]), {int(i): different[codes[i]] for i in np.flatnonzero(wrong[codes])}


def _number(word: str) -> float | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    for kind in (pa.float64(), pa.int64(), pa.bool_()):  # whole numbers may be hexadecimal
        with suppress(pa.ArrowInvalid):
            return float(pc.cast(pa.scalar(word), kind).as_py())
    return None


def texts(column: pa.ChunkedArray) -> NDArray:
    """A column of any type as text, `(N,)` objects, None where one is missing."""
    values, codes = coded(column)
    return np.array([*values, None], dtype=object)[codes]


def coded(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """Its K different values in increasing order, as text, and where each row's is, `(N,)`; -1 where it is missing."""
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
        raise DataError(
            "text that is not UTF-8 cannot be told apart; write the file in UTF-8, or say data.csv.encoding."
        ) from error


def type_name(column: pa.ChunkedArray) -> str:
    """The type of what a column holds, `int64` or `string`, as `written_as` takes it."""
    import pyarrow.types as types

    return str(column.type.value_type if types.is_dictionary(column.type) else column.type)


def written_as(values: Sequence[str], kind: str) -> list[str]:
    """Texts as a column of some type writes the same values; one that is no such value stays as it is.

    Example:
        >>> written_as(["007", "7.0", "x"], "int64"), written_as(["007", "True"], "bool"), written_as(["007"], "string")
        (['7', '7', 'x'], ['007', 'true'], ['007'])
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    zoned = re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", kind)
    try:
        wanted = pa.timestamp(*zoned.groups()) if zoned else pa.type_for_alias(kind)
        if is_text(wanted):
            return list(values)
        words = pa.array([value.strip(" \t") for value in values], pa.string())
        return pc.cast(pc.cast(words, wanted), pa.string()).to_pylist()
    except ValueError:  # pyarrow's, too, of which some values are none of this type
        if len(values) != 1:
            return [text for value in values for text in written_as([value], kind)]
    (value,) = values
    whole = "int" in kind and is_number(value) and float(value).is_integer()
    return [str(int(float(value))) if whole else value]


@cache
def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of text."""
    import pyarrow.types as t

    kind = kind.value_type if t.is_dictionary(kind) else kind
    kinds = (t.is_string, t.is_large_string, t.is_string_view, t.is_binary, t.is_large_binary)
    return any(is_it(kind) for is_it in kinds)


@cache
def is_numeric(kind: pa.DataType) -> bool:
    """Whether a type is one of numbers."""
    import pyarrow.types as t

    return any(is_it(kind) for is_it in (t.is_integer, t.is_floating, t.is_boolean, t.is_decimal))


def check_number(name: str, kind: pa.DataType) -> None:
    """Make sure that a column of some type holds numbers.

    Raises:
        DataError: if it holds something else.
    """
    import pyarrow.types as types

    if types.is_temporal(kind):
        raise DataError(
            f"column {name!r} holds dates or times ({kind}), which are no features: turn it into numbers, such as "
            "seconds or the hour of the day, or leave it out, by listing the others in data.features or by "
            f"data.meta=[{name}]."
        )
    if is_text(kind):
        raise DataError(f"column {name!r} must hold numbers, and holds text.")
    if not is_numeric(kind) and not types.is_null(kind):
        raise DataError(
            f"column {name!r} holds {kind}, and not a number or a text in each row; leave it out, by listing the "
            "others in data.features."
        )


def check_categories(name: str, values: Sequence[str], codes: NDArray) -> None:
    """Make sure that texts are categories: not numbers with a word among them, and not different in every row.

    Raises:
        DataError: if they are not.
    """
    if said := otherwise(name, values):
        raise DataError(said)
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
