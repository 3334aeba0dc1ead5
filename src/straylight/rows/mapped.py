"""Rows that stay where they are, on disk or in memory, until they are asked for.

`N` rows, `*shape` one event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from straylight.errors import DataError

CHUNK = 65536  # rows read together when all are
OPEN = 256  # files of many that stay mapped


class Mapped:
    """Rows picked from tensors laid end to end, read when asked for: as much of a tensor as events need.

    The tensors are usually memory maps, so that a split of more rows than fit in memory takes no more than their
    positions. Whatever order rows are asked for in, they are read in that of the file.

    Args:
        sources: tensors of any float type, or `Lying`, of equal shapes but for the first axis.
        rows: positions in them, `(N,)` integers; `None` for all.
        then: what is done with rows as they are read, `(n, *shape)` float32 to `(n, *other)`, one after the other, each
            row by itself.
        single: what makes rows float32, `(n, *shape)` of any type.
        finite: whether it is known that no number of all rows is a NaN or an infinity.

    Example:
        >>> rows = Mapped([torch.eye(3), torch.zeros(2, 3)]).take([1, 4])
        >>> rows.shape, rows[:1]
        (torch.Size([2, 3]), tensor([[0., 1., 0.]]))
    """

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(
        self,
        sources: Sequence[Any],
        rows: Any = None,
        then: Sequence[Callable[[Tensor], Tensor]] = (),
        single: Callable[[Tensor], Tensor] | None = None,
        finite: bool = False,
    ) -> None:
        self.sources, self.rows, self._then, self._single = list(sources), rows, tuple(then), single or _float32
        self.finite = finite
        ends = np.cumsum([len(source) for source in sources])
        #: Where each source begins among the positions, and where the last one ends.
        self.starts = np.concatenate([[0], ends])
        self._event = self._read(np.empty(0, np.int64)).shape[1:]

    @classmethod
    def open(cls, path: Any, single: Callable[[Tensor], Tensor] | None = None, *, finite: bool = False) -> Mapped:
        """All rows of an `.npy` file, memory-mapped.

        Raises:
            ValueError: if the file is damaged or holds anything but rows of real numbers.
            OSError: if it cannot be read.
        """
        return cls([_opened(path)], single=single, finite=finite)

    @classmethod
    def cat(cls, parts: Sequence[Tensor | Mapped]) -> Mapped:
        """The rows of several, one after the other; sources that all of them are of are laid down once.

        Raises:
            ValueError: if something different is done with their rows.
        """
        lazy = [part if isinstance(part, Mapped) else cls([part]) for part in parts if len(part)] or [cls([parts[0]])]
        if len({part._then for part in lazy}) > 1 or len({id(part._single) for part in lazy}) > 1:
            raise ValueError("rows that are prepared differently cannot be joined")
        first, finite = lazy[0], all(part.finite for part in lazy)
        if same_sources(lazy):
            joined = np.concatenate([part.places() for part in lazy])
            return cls(first.sources, joined, first._then, first._single, finite)
        places, start = [], 0
        for part in lazy:
            places.append(part.places().astype(np.int64) + start)
            start += int(part.starts[-1])
        sources = [source for part in lazy for source in part.sources]
        return cls(sources, np.concatenate(places), first._then, first._single, finite)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), *self._event))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """What the rows take in memory, in bytes."""
        return 4 * math.prod(self.shape)

    def __len__(self) -> int:
        return int(self.starts[-1]) if self.rows is None else len(self.rows)

    def places(self) -> np.ndarray:
        """The rows' positions in the sources, `(N,)`."""
        return np.arange(len(self)) if self.rows is None else self.rows

    def take(self, rows: Any) -> Mapped:
        """The rows at these positions, still unread."""
        chosen = np.asarray(rows)
        chosen = chosen if len(chosen) else chosen.astype(np.int64)
        self._check(chosen)
        small = np.int32 if self.starts[-1] < 2**31 else np.int64
        places = (chosen if self.rows is None else self.rows[chosen]).astype(small)
        return Mapped(self.sources, places, self._then, self._single, self.finite)

    def map(self, then: Callable[[Tensor], Tensor]) -> Mapped:
        """The same rows with something more done to them as they are read."""
        return Mapped(self.sources, self.rows, (*self._then, then), self._single)

    def index_select(self, axis: int, index: Tensor) -> Tensor:
        """Read the rows at these positions, `(n,)` to `(n, *shape)`; the axis is 0."""
        if axis != 0:
            raise ValueError(f"rows are selected along axis 0, not {axis}")
        chosen = index.cpu().numpy()
        self._check(chosen)
        return self._read(chosen if self.rows is None else self.rows[chosen])

    def __getitem__(self, part: slice) -> Tensor:
        start, stop, step = part.indices(len(self))
        return self._read(np.arange(start, stop, step) if self.rows is None else self.rows[start:stop:step])

    def split(self, size: int) -> Iterator[Tensor]:
        """Read all rows, so many at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def to(self, device: Any) -> Tensor:
        """All rows, read onto a device in chunks."""
        whole = torch.empty(self.shape, device=device)
        for start in range(0, len(self), CHUNK):
            whole[start : start + CHUNK] = self[start : start + CHUNK].to(device)
        return whole

    def _read(self, places: np.ndarray) -> Tensor:
        ordered = len(places) < 2 or bool((places[1:] >= places[:-1]).all())
        order = None if ordered else np.argsort(places, kind="stable")
        places = places if order is None else places[order]
        cuts = np.searchsorted(places, self.starts)
        parts = []
        for i in np.flatnonzero(cuts[1:] > cuts[:-1]).tolist():  # of thousands of sources, those that are read
            here = (places[cuts[i] : cuts[i + 1]] - self.starts[i]).astype(np.int64)
            parts.append(self._single(self.sources[i].index_select(0, torch.from_numpy(here))))
        read = parts[0] if len(parts) == 1 else torch.cat(parts) if parts else self.sources[0][:0].float()
        if order is not None:
            back = torch.empty_like(read)
            back[torch.from_numpy(order)] = read
            read = back
        for then in self._then:
            read = then(read)
        return read

    def _check(self, rows: np.ndarray) -> None:
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"there are {len(self)} rows, and none at {rows.min()} or {rows.max()}")


class Lying:
    """Rows of an `.npy` file that is mapped when they are read: a source of `Mapped`, of which a few hundred stay open.

    Args:
        path: the file.
        shape: that it has, `(N, *shape)`.

    Raises:
        DataError: where rows are read, if the file is gone, damaged or of another shape.
    """

    def __init__(self, path: Path, shape: Sequence[int]) -> None:
        self.path, self.shape = path, torch.Size(shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        return torch.empty(0, *self.shape[1:]) if rows == slice(0) else self._whole()[rows]

    def index_select(self, axis: int, index: Tensor) -> Tensor:
        """As of a tensor."""
        return self._whole().index_select(axis, index)

    def _whole(self) -> Tensor:
        try:
            known = self.path.stat()
            whole = _kept_open(self.path, known.st_size, known.st_mtime_ns)
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or error
            raise DataError(f"{self.path} cannot be read any more ({said}); start again when it is there.") from error
        if whole.shape != self.shape:
            raise DataError(f"{self.path} changed while it was in use; start again when it is whole.")
        return whole


def same_sources(parts: Sequence[Mapped]) -> bool:
    """Whether rows are of the very same sources."""
    first = parts[0].sources
    return all(
        len(part.sources) == len(first) and all(a is b for a, b in zip(part.sources, first, strict=True))
        for part in parts[1:]
    )


@lru_cache(maxsize=OPEN)
def _kept_open(path: Path, size: int, time: int) -> Tensor:
    """The rows of a file as it is now."""
    return _opened(path)


def _opened(path: Any) -> Tensor:
    try:
        # copy on write: torch warns of arrays that it may not write to
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (EOFError, TypeError) as error:
        raise ValueError(f"{path} holds no array of numbers ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or not array.ndim:
        raise ValueError(f"{path} holds no rows of real numbers")
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(native.view(np.ndarray))


def _float32(rows: Tensor) -> Tensor:
    """As `straylight.files.table.numbers` has it: large whole numbers have the same bits as where they are text."""
    return rows.float() if rows.is_floating_point() or rows.dtype.itemsize < 8 else rows.double().float()
