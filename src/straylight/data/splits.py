"""Who trains, who selects, who is tested: seeded, disjoint, and decided before anything is fitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from straylight.batch import Events, Splits
from straylight.errors import DataError


def nominal_only(events: Events, *, seed: int, train: float = 0.5, val: float = 0.1, reserve: float = 0.0) -> Splits:
    """The benchmarks' one-class protocol: some nominal rows train, all others and every anomaly are tested.

    Args:
        events: all rows.
        seed: of the permutation.
        train: the fraction of nominal rows that does not go to the test, training and validation together.
        val: the fraction of those that validates.
        reserve: the fraction of anomalies set aside for `contamination`.

    Raises:
        DataError: if a fraction is not between 0 and 1.

    References:
        S. Han et al., ADBench: anomaly detection benchmark, NeurIPS 2022, arXiv:2206.09426

    Example:
        >>> splits = nominal_only(Events.of(np.zeros((100, 2)), [0] * 90 + [1] * 10), seed=0)
        >>> [len(part) for part in splits]
        [41, 4, 55, 0]
    """
    for name, value in {"train_fraction": train, "val_fraction": val, "reserve_fraction": reserve}.items():
        if not 0 <= value <= 1:
            raise DataError(f"data.{name} must be between 0 and 1, not {value}.")
    order = np.random.default_rng(seed).permutation(len(events))
    y = events.y.numpy()[order]
    nominal, anomalous = order[y == 0], order[y != 0]
    train_val = round(train * len(nominal))
    n_val = round(val * train_val)
    n_reserve = round(reserve * len(anomalous))
    test = np.sort(np.concatenate([nominal[train_val:], anomalous[n_reserve:]]))
    return Splits(
        train=events.take(np.sort(nominal[n_val:train_val])),
        val=events.take(np.sort(nominal[:n_val])),
        test=events.take(test),
        reserve=events.take(np.sort(anomalous[:n_reserve])),
    )


def contaminate(train: Events, reserve: Events, fraction: float | None, seed: int) -> Events:
    """Training rows with this fraction of anomalies: 0 none, `None` as found.

    Args:
        train: rows as found; its own anomalies are drawn from first-come with those of `reserve`.
        reserve: anomalies set aside.
        fraction: of anomalies among the rows returned, below 1.
        seed: of the draw.

    Raises:
        DataError: if there are not enough anomalies.
    """
    if fraction is None:
        return train
    if not 0 <= fraction < 1:
        raise DataError(f"data.contamination must be null, or at least 0 and below 1, not {fraction}.")
    nominal = train.take(np.flatnonzero(train.y.numpy() == 0)) if bool((train.y != 0).any()) else train
    wanted = round(fraction / (1 - fraction) * len(nominal))
    if not wanted:
        return nominal
    pool = _joined(train.take(np.flatnonzero(train.y.numpy() != 0)), reserve)
    if len(pool) < wanted:
        raise DataError(
            f"data.contamination={fraction} of {len(nominal)} nominal training rows takes {wanted} anomalies, but only "
            f"{len(pool)} are kept in reserve; raise data.reserve_fraction or lower data.contamination."
        )
    drawn = np.random.default_rng([seed, 1]).permutation(len(pool))[:wanted]
    return _joined(nominal, pool.take(drawn))


def halves(events: Events, seed: int) -> tuple[Events, Events]:
    """Two disjoint halves by seed; the first has the odd row."""
    order = np.random.default_rng([seed, 2]).permutation(len(events))
    cut = (len(order) + 1) // 2
    return events.take(np.sort(order[:cut])), events.take(np.sort(order[cut:]))


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


def _joined(a: Events, b: Events) -> Events:
    meta = {name: np.concatenate([a.meta[name], b.meta[name]]) for name in a.meta if name in b.meta}
    even = all(len(part) == 0 or part.weight.stride(0) == 0 for part in (a, b))
    return Events(
        torch.cat([a.x, b.x]),
        torch.cat([a.y, b.y]),
        torch.cat([a.context, b.context]),
        torch.cat([a.weight[:1], b.weight[:1]])[:1].expand(len(a) + len(b))
        if even
        else torch.cat([a.weight, b.weight]),
        meta,
    )
