"""The rank of each of many scores, in memory that does not depend on how many they are.

`N` scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FEW = 2**22  # scores that are sorted together

Parts = Callable[[], Iterable[NDArray[np.float32]]]
Keys = NDArray[np.int64]


def ranks(parts: Parts, n: int, path: Path) -> NDArray[np.int64]:
    """Each score's rank from the top, `(N,)`: 1 of the largest, the same of equal ones, 0 of a NaN.

    A rank is one more than how many scores are larger. Of more than four million, ranges of scores are sorted one after
    the other, which the upper halves of their bits, counted first, tell apart; within a range that is one such half
    and still too large, the lower halves are counted.

    Args:
        parts: gives the scores, in their order, from the start each time.
        n: N.
        path: a file that holds the ranks if they are many.

    Example:
        >>> ranks(lambda: [np.float32([3, 9]), np.float32([np.nan, 3])], 4, Path("unused")).tolist()
        [2, 1, 0, 2]
    """
    if n <= FEW:
        found = np.zeros(n, dtype=np.int64)
        scores = np.concatenate([np.empty(0, np.float32), *parts()])
        order = np.argsort(scores)[: n - int(np.isnan(scores).sum())]  # a NaN is last
        found[order] = _of_sorted(scores[order])
        return found
    upper = np.zeros(2**16, dtype=np.int64)
    for _, key in _keys(parts):
        upper += np.bincount(key >> 16, minlength=2**16)
    larger = np.append(np.cumsum(upper[::-1])[::-1], 0)  # scores with at least this upper half
    whole = np.lib.format.open_memmap(path, mode="w+", dtype=np.int64, shape=(n,))
    for first, end in _ranges(upper):
        if larger[first] - larger[end] <= FEW:
            _sorted_into(whole, *_between(parts, first, end), int(larger[end]))
        else:
            _counted_into(whole, parts, first, int(larger[end]))
    whole.flush()
    return whole


def _ranges(upper: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of upper halves with few enough scores each, or of one alone."""
    first = held = 0
    for i, count in enumerate(upper.tolist()):
        if held and held + count > FEW:
            yield first, i
            first = held = 0
        if count and not held:
            first = i
        held += count
    if held:
        yield first, len(upper)


def _sorted_into(found: NDArray[np.int64], rows: Keys, keys: Keys, larger: int) -> None:
    """Ranks of some rows, of which so many others are larger."""
    order = np.argsort(keys.astype(np.uint32))
    found[rows[order]] = larger + _of_sorted(keys[order])


def _of_sorted(values: NDArray) -> NDArray[np.int64]:
    """The ranks of values in increasing order, which fall."""
    last = np.flatnonzero(np.append(values[1:] != values[:-1], np.ones(min(1, len(values)), dtype=bool)))
    return np.repeat(len(values) - last, np.diff(last, prepend=-1))


def _counted_into(found: NDArray[np.int64], parts: Parts, upper: int, larger: int) -> None:
    """The same of all rows with one upper half, however many they are."""
    counts = np.zeros(2**16, dtype=np.int64)
    for _, key in _keys(parts):
        counts += np.bincount(key[key >> 16 == upper] & 0xFFFF, minlength=2**16)
    rank = larger + 1 + np.cumsum(counts[::-1])[::-1] - counts
    start = 0
    for there, key in _keys(parts):
        own = key >> 16 == upper
        found[start + np.flatnonzero(there)[own]] = rank[key[own] & 0xFFFF]
        start += len(there)


def _between(parts: Parts, first: int, end: int) -> tuple[Keys, Keys]:
    """The rows whose upper halves lie in a range, and their keys."""
    rows, keys, start = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for there, key in _keys(parts):
        own = (key >> 16 >= first) & (key >> 16 < end)
        rows.append(start + np.flatnonzero(there)[own])
        keys.append(key[own])
        start += len(there)
    return np.concatenate(rows), np.concatenate(keys)


def _keys(parts: Parts) -> Iterator[tuple[NDArray[np.bool_], Keys]]:
    """Which scores are numbers, and of these whole numbers in the same order."""
    for scores in parts():
        there = ~np.isnan(scores)
        bits = (scores[there] + np.float32(0)).view(np.uint32).astype(np.int64)  # 0 and -0 are equal
        yield there, np.where(bits >> 31, 2**32 - 1 - bits, bits + 2**31)
