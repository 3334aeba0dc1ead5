"""Where rows lie and what their columns hold, as far as rows without labels tell.

`n` rows, `D` columns, `K` components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

SPARSE = 0.05  # share of zeros from which on a column's zeros mean that nothing is there
MOST = 5  # components
EACH = 50  # rows of a component, at least
STEPS = 10  # of Lloyd's
FILLED = 0.99  # share of rows that have one of the categories of a group


@dataclass(frozen=True, eq=False)
class Layout:
    """What made rows must look like.

    Attributes:
        low, high: the least and the largest value of each column, `(D,)`.
        mean: of each column, `(D,)`.
        scale: standard deviation of each column, one where it is constant, `(D,)`.
        centres: means of components, `(K, D)`.
        fixed: columns of two values or one, `(D,)`: a category, one of several, or a constant.
        whole: other columns of whole numbers, `(D,)`.
        sparse: columns, none of these, whose zeros mean that nothing is there, as padding and background, `(D,)`.
        groups: columns that go together, two or more, as the categories of one column do.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    centres: NDArray[np.float64]
    fixed: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    sparse: NDArray[np.bool_]
    groups: tuple[NDArray[np.intp], ...]

    @classmethod
    def of(cls, rows: ArrayLike, seed: int = 0) -> Layout:
        """Learn it from rows, `(n, D)`.

        Raises:
            ValueError: if there is no row.

        Example:
            >>> found = Layout.of([[1.5, 1, 0], [2.5, 0, 1], [0.5, 0, 1]])
            >>> [group.tolist() for group in found.groups], found.fixed.tolist()
            ([[1, 2]], [False, True, True])
        """
        x = np.asarray(rows, np.float64)
        if x.ndim != 2 or not len(x):
            raise ValueError(f"a layout is learned from rows of shape (n, D), not {x.shape}")
        low, high, scale = x.min(0), x.max(0), x.std(0)
        scale = np.where(scale > 0, scale, 1.0)
        fixed = ((x == low) | (x == high)).all(0)
        whole = (x == np.round(x)).all(0) & ~fixed
        sparse = ((x == 0).mean(0) >= SPARSE) & ~fixed
        components = int(np.clip(len(x) // EACH, 1, MOST))
        centres = _centres(x / scale, components, np.random.default_rng([seed, 0])) * scale
        return cls(low, high, x.mean(0), scale, centres, fixed, whole, sparse, _groups(x, fixed))

    @property
    def varying(self) -> int:
        """How many columns, or groups of them, hold more than one value."""
        varies = self.low < self.high
        return int(varies.sum()) - sum(int(varies[group].sum()) - 1 for group in self.groups)

    def component(self, rows: NDArray[np.float64]) -> NDArray[np.intp]:
        """The component whose mean is nearest, in units of each column's scale, `(n, D)` to `(n,)`."""
        return _nearest(rows / self.scale, self.centres / self.scale)

    def kept_to(self, rows: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows that were moved, with what cannot move as it is in the rows that they were made of, `(n, D)` each.

        Categories stay, whole numbers stay whole and do not become negative where none is, and the zeros of sparse
        columns stay zeros.
        """
        rows = np.where(self.whole, np.round(rows), rows)
        rows = np.where(self.whole & (self.low >= 0), np.maximum(rows, 0), rows)
        return np.where(self.fixed | (self.sparse & (base == 0)), base, rows)


def _groups(x: NDArray[np.float64], fixed: NDArray[np.bool_]) -> tuple[NDArray[np.intp], ...]:
    """Neighbouring columns of zeros and ones of which each row has at most one, and nearly each has one.

    A category that no training row held is a row of zeros.
    """
    binary = fixed & ((x == 0) | (x == 1)).all(0)
    groups, start = [], 0
    while start < x.shape[1]:
        stop = start + 1
        if binary[start]:
            held = x[:, start].copy()
            while not held.all() and stop < x.shape[1] and binary[stop] and (held + x[:, stop]).max() <= 1:
                held += x[:, stop]
                stop += 1
            if stop > start + 1 and held.mean() >= FILLED:
                groups.append(np.arange(start, stop))
            else:
                stop = start + 1
        start = stop
    return tuple(groups)


def _centres(x: NDArray[np.float64], components: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Means of components by k-means, each of them the mean of some rows."""
    centres = x[rng.choice(len(x), components, replace=False)] if components > 1 else x.mean(0, keepdims=True)
    for _ in range(STEPS if components > 1 else 0):
        nearest = _nearest(x, centres)
        counts = np.bincount(nearest, minlength=len(centres))
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, x)
        moved = sums[counts > 0] / counts[counts > 0, None]
        if len(moved) == len(centres) and np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _nearest(x: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.intp]:
    return ((centres**2).sum(1) - 2 * x @ centres.T).argmin(1)
