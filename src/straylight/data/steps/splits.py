"""Who trains, who selects, who is tested: seeded, disjoint, and decided before anything is fitted.

`N` rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from straylight.errors import DataError
from straylight.rows.batch import Events, Splits


class Places(NamedTuple):
    """The rows of the four splits by their number, each in increasing order but by `dte`; see `Splits`."""

    train: NDArray
    val: NDArray
    test: NDArray
    reserve: NDArray

    def of(self, events: Events) -> Splits:
        """The events at these places."""
        return Splits(*(events if _all(rows, len(events)) else events.take(rows) for rows in self))


def nominal_only(
    y: ArrayLike,
    *,
    seed: int,
    train: float = 0.5,
    val: float = 0.1,
    reserve: float = 0.0,
    group: ArrayLike | None = None,
) -> Places:
    """The benchmarks' one-class protocol: some nominal rows train, all others and every anomaly are tested.

    Rows of one group stay together. A group that holds an anomaly is tested as a whole, or, if it is set aside, its
    anomalies are in reserve and its nominal rows train.

    Args:
        y: labels, `(N,)`; above 0 is anomalous. Rows of which nobody knows, -1, are dealt out like nominal ones.
        seed: of the permutation.
        train: the fraction of nominal rows that does not go to the test, training and validation together.
        val: the fraction of those that validates.
        reserve: the fraction of anomalies set aside for `contamination`.
        group: which rows belong together, `(N,)`; none do, if left out.

    Raises:
        DataError: if a fraction is not between 0 and 1.

    References:
        S. Han et al., ADBench: anomaly detection benchmark, NeurIPS 2022, arXiv:2206.09426

    Example:
        >>> places = nominal_only([0] * 90 + [1] * 10, seed=0)
        >>> [len(rows) for rows in places]
        [41, 4, 55, 0]
    """
    for name, value in {"train_fraction": train, "val_fraction": val, "reserve_fraction": reserve}.items():
        if not 0 <= value <= 1:
            raise DataError(f"data.{name} must be between 0 and 1, not {value}.")
    strange = np.asarray(y) > 0
    if group is not None:
        return _by_group(strange, np.asarray(group), seed, train, val, reserve)
    # the draws of permutation(n), which of fewer than 2^31 rows need no more than four bytes each
    order = np.random.default_rng(seed).permutation(np.arange(len(strange), dtype=_small(len(strange))))
    nominal, anomalous = order[~strange[order]], order[strange[order]]
    train_val = round(train * len(nominal))
    n_val = round(val * train_val)
    n_reserve = round(reserve * len(anomalous))
    test = np.concatenate([nominal[train_val:], anomalous[n_reserve:]])
    return Places(*map(np.sort, (nominal[n_val:train_val], nominal[:n_val], test, anomalous[:n_reserve])))


def unsupervised(n: int) -> Places:
    """The benchmarks' other protocol: all rows train, anomalies among them, and the same rows are tested.

    Example:
        >>> [len(rows) for rows in unsupervised(5)]
        [5, 0, 5, 0]
    """
    everyone, nobody = np.arange(n), np.arange(0)
    return Places(everyone, nobody, everyone, nobody)


def halves(events: Events, seed: int) -> tuple[Events, Events]:
    """Two disjoint halves by seed; the first has the odd row, or the odd group."""
    rng = np.random.default_rng([seed, 2])
    group = events.meta.get("group")
    if group is None:
        order = rng.permutation(len(events))
        cut = (len(order) + 1) // 2
        return events.take(np.sort(order[:cut])), events.take(np.sort(order[cut:]))
    number, sizes = _numbered(group)
    first = _up_to((len(number) + 1) // 2, rng.permutation(len(sizes)), sizes)[number]
    return events.take(np.flatnonzero(first)), events.take(np.flatnonzero(~first))


def one_class_name(name: str, nominal: int | str | Sequence[int | str]) -> str:
    """What a data set of classes is called: with each choice of nominal classes it is another problem.

    Example:
        >>> one_class_name("mnist", 3), one_class_name("mnist", [0, 1])
        ('mnist_3', 'mnist_0+1')
    """
    return f"{name}_{'+'.join(map(str, [nominal] if isinstance(nominal, int | str) else nominal))}"


def one_class(labels: ArrayLike, nominal: int | Sequence[int], names: Sequence[str]) -> tuple[NDArray, tuple[str, ...]]:
    """Class labels as kinds of anomaly: the nominal classes become 0, the others 1..K in their order.

    Args:
        labels: `(N,)`, positions in `names`.
        nominal: the class, or classes, that are nominal.
        names: of all classes.

    Returns:
        `y`, `(N,)`, and the kinds' names with `"nominal"` first.

    Raises:
        DataError: if a nominal class does not exist, or no class is left to be anomalous.

    Example:
        >>> one_class([0, 1, 2], 1, "abc")
        (array([1, 0, 2]), ('nominal', 'a', 'c'))
    """
    wanted = set(np.atleast_1d(np.asarray(nominal)).tolist())
    if not wanted or not wanted <= set(range(len(names))):
        raise DataError(f"data.nominal={nominal} must name one or more of the classes 0 to {len(names) - 1}.")
    strange = [c for c in range(len(names)) if c not in wanted]
    if not strange:
        raise DataError("data.nominal names every class, so that none is left to be anomalous.")
    code = np.zeros(len(names), dtype=np.int64)
    code[strange] = np.arange(1, len(strange) + 1)
    return code[np.asarray(labels)], ("nominal", *(names[c] for c in strange))


def _by_group(strange: NDArray, group: NDArray, seed: int, train: float, val: float, reserve: float) -> Places:
    rng = np.random.default_rng(seed)
    number, sizes = _numbered(group)
    anomalies = np.bincount(number[strange], minlength=len(sizes))
    order = rng.permutation(len(sizes))
    aside = _up_to(round(reserve * strange.sum()), order[anomalies[order] > 0], anomalies)
    tested = (anomalies > 0) & ~aside
    nominal = sizes - anomalies
    free = order[anomalies[order] == 0]
    train_val = round(train * nominal.sum())
    n_val = round(val * train_val)
    selects = _up_to(n_val, free, nominal)
    trains = aside | _up_to(train_val - n_val - int(nominal[aside].sum()), free[~selects[free]], nominal)
    tested |= ~(selects | trains)
    # of a group set aside, the anomalies are in reserve and the others train
    parts = (trains[number] & ~strange, selects[number], tested[number], aside[number] & strange)
    return Places(*map(np.flatnonzero, parts))


def _numbered(group: NDArray) -> tuple[NDArray, NDArray]:
    """Each row's group as a number from 0, and how many rows each has."""
    _, number, sizes = np.unique(group, return_inverse=True, return_counts=True)
    return number.reshape(-1), sizes


def _up_to(rows: int, order: NDArray, sizes: NDArray) -> NDArray:
    """Which groups, taken in order, come nearest to so many rows; a mask over all groups."""
    ends = np.concatenate([[0], np.cumsum(sizes[order])])
    taken = np.zeros(len(sizes), dtype=bool)
    taken[order[: int(np.abs(ends - max(0, rows)).argmin())]] = True
    return taken


def _all(rows: NDArray, n: int) -> bool:
    """Whether these are all of n rows, each once; as many may be drawn with replacement."""
    return len(rows) == n and bool((rows[1:] > rows[:-1]).all())


def _small(n: int) -> type:
    return np.int32 if n < 2**31 else np.int64
