"""The rank of each of many scores, in memory that does not depend on how many they are.

`N` scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FEW = 2**20  # that are sorted in memory
KEYS = 128  # halves of numbers, of 65,536 numbers each, that are counted together


def ranks(parts: Callable[[], Iterable[NDArray[np.float32]]], n: int, path: Path) -> NDArray[np.int64]:
    """Each score's rank from the top, `(N,)`: 1 of the largest, the same of equal ones, 0 of a NaN.

    A rank is one more than how many scores are larger. Numbers are told apart by their bits: the upper half of these is
    counted first, and then the lower half of some upper ones at a time, so that it takes no sorting, and 64 MiB.

    Args:
        parts: gives the scores, in their order, from the start each time.
        n: N.
        path: a file that holds the ranks if they are many.

    Example:
        >>> ranks(lambda: [np.float32([3, 9]), np.float32([np.nan, 3])], 4, Path("unused")).tolist()
        [2, 1, 0, 2]
    """
    if n <= FEW:
        scores = np.concatenate([np.empty(0, np.float32), *parts()])
        order = np.argsort(scores)[: n - int(np.isnan(scores).sum())]  # a NaN is last
        values = scores[order]
        last = np.flatnonzero(np.append(values[1:] != values[:-1], np.ones(min(1, len(values)), dtype=bool)))
        found = np.zeros(n, dtype=np.int64)
        found[order] = np.repeat(len(values) - last, np.diff(last, prepend=-1))
        return found
    upper = np.zeros(2**16, dtype=np.int64)
    for _, key in _keys(parts):
        upper += np.bincount(key >> 16, minlength=2**16)
    larger = np.append(np.cumsum(upper[::-1])[::-1], 0)  # scores with at least this upper half
    held = np.flatnonzero(upper)
    whole = np.lib.format.open_memmap(path, mode="w+", dtype=np.int64, shape=(n,))
    for some in (held[start : start + KEYS] for start in range(0, len(held), KEYS)):
        place = np.full(2**16, -1, dtype=np.int64)
        place[some] = np.arange(len(some))
        lower = np.zeros(len(some) << 16, dtype=np.int64)
        for _, key in _keys(parts):
            mine = _of(place, key)
            lower += np.bincount(mine[mine >= 0], minlength=len(lower))
        table = lower.reshape(len(some), -1)
        rank = np.cumsum(table[:, ::-1], 1)[:, ::-1] - table + larger[some + 1][:, None] + 1
        flat, start = rank.reshape(-1), 0
        for there, key in _keys(parts):
            mine = _of(place, key)
            rows = start + np.flatnonzero(there)[mine >= 0]
            whole[rows] = flat[mine[mine >= 0]]
            start += len(there)
    whole.flush()
    return whole


def _keys(parts: Callable[[], Iterable[NDArray[np.float32]]]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
    """Which scores are numbers, and of these whole numbers in the same order."""
    for scores in parts():
        there = ~np.isnan(scores)
        bits = (scores[there] + np.float32(0)).view(np.uint32).astype(np.int64)  # 0 and -0 are equal
        yield there, np.where(bits >> 31, 2**32 - 1 - bits, bits + 2**31)


def _of(place: NDArray[np.int64], key: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in the table of some upper halves each number is counted; negative where it is not."""
    own = place[key >> 16]
    return np.where(own < 0, -1, (own << 16) | (key & 0xFFFF))
