"""Columns into Arrow and out of it by their buffers: Arrow's own ways load pandas first, which takes a while."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


def array(values: Sequence[Any]) -> pa.Array:
    """Values of one type, and None where there is none, as `pyarrow.array` has them.

    Example:
        >>> array(["a", None, "bc"]).to_pylist(), array([1, None]).type, array([True, None, False]).to_pylist()
        (['a', None, 'bc'], DataType(int64), [True, None, False])
    """
    import pyarrow as pa

    types = {type(value) for value in values if value is not None}
    there = np.array([value is not None for value in values], bool)
    known = None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little"))
    if not types:
        return pa.nulls(len(values))
    try:
        if types == {str}:
            texts = [b"" if value is None else value.encode() for value in values]
            ends = np.fromiter(chain([0], map(len, texts)), np.int64, len(texts) + 1).cumsum()
            buffers = [pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(texts))]
            if ends[-1] <= np.iinfo(np.int32).max:
                return pa.Array.from_buffers(pa.string(), len(values), [known, *buffers])
        elif types in ({float}, {int}):
            held = np.array([0 if value is None else value for value in values], float if float in types else np.int64)
            return pa.Array.from_buffers(pa.from_numpy_dtype(held.dtype), len(held), [known, pa.py_buffer(held)])
        elif types == {bool}:
            bits = np.packbits(np.array([value is True for value in values]), bitorder="little")
            return pa.Array.from_buffers(pa.bool_(), len(values), [known, pa.py_buffer(bits)])
    except (UnicodeEncodeError, OverflowError):
        pass  # Arrow says what it cannot hold
    return pa.array(values)


def numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """What `column.to_numpy()` is.

    Example:
        >>> import pyarrow as pa
        >>> numbers(pa.chunked_array([[1.0, 2.0], [3.0]])).tolist()
        [1.0, 2.0, 3.0]
    """
    import pyarrow as pa

    plain = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if plain and not column.null_count and column.num_chunks:
        return np.concatenate([np.from_dlpack(chunk) for chunk in column.chunks])
    found: NDArray[Any] = column.to_numpy()
    return found
