"""Numbers that single precision would not tell apart, such as times in milliseconds, are brought to where it does.

`N` rows, `*shape` one event.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LOOKED_AT = 20_000  # training rows of which a column's centre is learnt, at most
VALUES = 2**22  # and numbers of all columns together
RUNS = 32  # of rows that lie together, in which they are read
MERGED = 0.01  # share of different values that may become equal before it is said


class Centre(NamedTuple):
    """What is done to numbers in double precision, (value - offset) / scale, before they become single precision.

    Offset and scale are of a column, or of each number of an event, `(*shape)`.
    """

    offset: Any = 0.0
    scale: Any = 1.0

    def __call__(self, values: Any) -> Any:
        """Numbers of any type, an array or a tensor, as float32."""
        if isinstance(values, Tensor):
            return ((values.double() - torch.as_tensor(self.offset)) / torch.as_tensor(self.scale)).float()
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and named as such
            return ((values.astype(np.float64) - self.offset) / self.scale).astype(np.float32)

    @classmethod
    def of(cls, centres: Mapping[str, Sequence[float]], names: Sequence[str], shape: Sequence[int]) -> "Centre | None":
        """The centres of an event's numbers, called so in their order, as one; `None` if none of them has one."""
        if not any(name in centres for name in names):
            return None
        each = [cls(*centres.get(name, ())) for name in names]
        return cls(*(np.array(part, dtype=np.float64).reshape(shape) for part in zip(*each, strict=True)))


def learnt(values: NDArray) -> tuple[Centre | None, str]:
    """The centre of a column that needs one, and what cannot be told apart even so.

    A column needs one if single precision makes different values equal, and fewer of them once the median is taken
    out. The scale is a power of two, and 1 unless the values leave the range of single precision.

    Args:
        values: of training rows, `(N,)`.

    Example:
        >>> day = 1_700_000_000_000 + np.arange(5) * 1000
        >>> learnt(day), learnt(day.astype(np.float32))
        ((Centre(offset=1700000002000.0, scale=1.0), ''), (None, ''))
    """
    values = values[np.isfinite(values)].astype(np.float64)
    plain = Centre()
    if not len(values) or (plain(values) == values).all():
        return None, ""
    apart = np.unique(values)
    offset = float(apart[len(apart) // 2])
    with np.errstate(over="ignore"):
        spread = float(np.abs(apart - offset).max())
    scale = 1.0 if not 0 < spread < math.inf or 2.0**-96 < spread < 2.0**96 else 2.0 ** math.floor(math.log2(spread))
    centre = Centre(offset, scale)
    kept, before = (len(np.unique(how(apart))) for how in (centre, plain))
    if kept - before < max(1, len(apart) / 1000):
        centre, kept = plain, before
    lost = ""
    if len(apart) - kept > MERGED * len(apart):
        lost = f"holds {len(apart):,} different values in training rows, of which single precision tells {kept:,} apart"
    return (centre if centre != plain else None), lost


def sampled(rows: NDArray, width: int) -> list[NDArray]:
    """Positions of the training rows that are looked at where an event has so many numbers, in runs from all over that
    rise."""
    most = max(1, min(LOOKED_AT, VALUES // max(1, width)))
    rows = np.sort(rows)
    if len(rows) <= most:
        return [rows]
    return [part[: max(1, most // RUNS)] for part in np.array_split(rows, min(RUNS, most))]


def of_columns(columns: Mapping[str, NDArray], notice: Callable[[str], None]) -> dict[str, Centre]:
    """The centres of those columns that need one, from values of training rows; see `learnt`.

    Args:
        columns: values by name.
        notice: is told what is taken out of a column, and of those whose values cannot be told apart.
    """
    found = {}
    for name in _merging(columns):
        centre, lost = learnt(columns[name])
        if centre is not None:
            found[name] = centre
        if lost:
            notice(f"column {name!r} {lost}; if that matters, split it into columns of fewer digits.")
    if found:
        named = ", ".join(f"{c.offset:.15g} of {name!r}" for name, c in list(found.items())[:5])
        notice(
            f"different values would be equal in single precision, so that an offset is taken out of columns first: "
            f"{named}{f' and {len(found) - 5} more' if len(found) > 5 else ''}."
        )
    return found


def _merging(columns: Mapping[str, NDArray]) -> list[str]:
    """Those columns, of equal length, in which single precision makes different values equal."""
    names, found = list(columns), []
    each = max(1, VALUES // max([1, *map(len, columns.values())]))
    for some in (names[start : start + each] for start in range(0, len(names), each)):
        values = np.sort(np.stack([columns[name] for name in some]), 1)
        with np.errstate(over="ignore", invalid="ignore"):
            merged = (values[:, 1:] > values[:, :-1]) & (np.diff(values.astype(np.float32)) == 0)
            merged |= np.isfinite(values[:, 1:]) & np.isinf(values[:, 1:].astype(np.float32))
        found += [name for name, any_of_them in zip(some, merged.any(1), strict=True) if any_of_them]
    return found
