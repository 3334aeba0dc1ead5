"""Anomalies made of rows, of kinds that are known, in the rows' own units.

`n` rows, `N` made ones, `D` numbers in a row, `*shape` one event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from straylight.criteria.layout import Layout

INFLATED = 5.0  # what the covariance of a component is multiplied by
BEYOND = 1.1  # what the box of rows is stretched by about its middle
FAR = 2.0  # how far from the mean clusters lie, as multiples of the distance of a row
CLUSTERS = 3
PAIRS = 8  # of blocks that are looked at; the two that differ most are swapped

Rows = NDArray[np.float64]


class Made(NamedTuple):
    """Rows of one kind.

    Attributes:
        x: `(N, *shape)` float32.
        base: the row that each was made of, `(N,)`: its context and weight go with it.
    """

    x: NDArray[np.float32]
    base: NDArray[np.intp]


class _Asked(NamedTuple):
    """What is to be made: of which rows, `(n, D)`; which of them each is made of, `(N,)`; like what."""

    rows: Rows
    base: NDArray[np.intp]
    layout: Layout
    shape: tuple[int, ...]
    rng: np.random.Generator


def _local(asked: _Asked) -> Rows:
    """Rows moved away from the mean of their component until its covariance is `INFLATED` times what it was.

    Each row once is moved along its own direction. More rows than there are mix the directions of two of a component.
    """
    rows, base, layout, _, rng = asked
    component = layout.component(rows)
    own = (rows - layout.centres[component])[base]
    later = np.arange(len(base)) >= len(rows)
    angle = np.where(later, rng.uniform(0, np.pi / 2, len(base)), 0.0)[:, None]
    other = np.empty(len(base), np.intp)
    for k in np.unique(component):
        members, places = np.flatnonzero(component == k), np.flatnonzero(component[base] == k)
        other[places] = rng.choice(members, len(places))
    mixed = np.cos(angle) * own + np.sin(angle) * (rows - layout.centres[component])[other]
    return layout.centres[component[base]] + math.sqrt(INFLATED) * mixed


def uniform(layout: Layout, n: int, rng: np.random.Generator, beyond: float = BEYOND) -> Rows:
    """Rows drawn from the box that rows lie in, `(n, D)`: of a category any, whole numbers where there are no others.

    Args:
        layout: of rows.
        n: rows.
        rng: draws them.
        beyond: what the box is stretched by about its middle.
    """
    middle, half = (layout.low + layout.high) / 2, (layout.high - layout.low) / 2
    drawn = middle + beyond * half * rng.uniform(-1, 1, (n, len(middle)))
    drawn = np.where(layout.whole, np.round(np.clip(drawn, layout.low, layout.high)), drawn)
    fixed = layout.fixed
    drawn[:, fixed] = np.where(rng.random((n, int(fixed.sum()))) < 0.5, layout.low[fixed], layout.high[fixed])
    for group in layout.groups:
        drawn[:, group] = np.eye(len(group))[rng.integers(0, len(group), n)]
    return drawn


def _global(asked: _Asked) -> Rows:
    """Rows drawn uniformly from the box that rows lie in, stretched a little."""
    return uniform(asked.layout, len(asked.base), asked.rng)


def _clustered(asked: _Asked) -> Rows:
    """Rows as of one component about a few places, each as far beyond a row as that is from the mean."""
    rows, base, layout, _, rng = asked
    places = layout.mean + FAR * (rows[rng.integers(0, len(rows), CLUSTERS)] - layout.mean)
    own = (rows - layout.centres[layout.component(rows)])[base]
    return places[np.arange(len(base)) % CLUSTERS] + own


def _dependency(asked: _Asked) -> Rows:
    """Features of other rows each: what each holds is as it was, and what they have to do with each other is lost."""
    rows = asked.rows[asked.base]
    permuted = asked.rng.permuted(rows, axis=0)
    for group in asked.layout.groups:
        permuted[:, group] = rows[asked.rng.permutation(len(rows))][:, group]
    return permuted


def _blocks(asked: _Asked) -> Rows:
    """Images of which two blocks, a quarter of each side, have changed places: of pairs that which differs most."""
    height, width = asked.shape[-2:]
    tall, wide = height // 4, width // 4
    down, across = height // tall, width // wide
    images = asked.rows[asked.base].reshape(-1, math.prod(asked.shape[:-2]), height, width)
    inside = images[:, :, : down * tall, : across * wide]
    cells = inside.reshape(len(images), -1, down, tall, across, wide).transpose(0, 2, 4, 1, 3, 5)
    blocks = cells.reshape(len(images), down * across, -1)
    first = asked.rng.integers(0, down * across, (len(images), PAIRS))
    second = (first + asked.rng.integers(1, down * across, first.shape)) % (down * across)
    line = np.arange(len(images))
    differ = ((blocks[line[:, None], first] - blocks[line[:, None], second]) ** 2).sum(2).argmax(1)
    one, other = first[line, differ], second[line, differ]
    swapped = blocks.copy()
    swapped[line, one], swapped[line, other] = blocks[line, other], blocks[line, one]
    out = images.copy()
    out[:, :, : down * tall, : across * wide] = (
        swapped.reshape(cells.shape).transpose(0, 3, 1, 4, 2, 5).reshape(inside.shape)
    )
    return out.reshape(len(out), -1)


def _shift(asked: _Asked) -> Rows:
    """Series of which a stretch is masked, by what came before it, or shifted in time, one row after the other."""
    length = asked.shape[0]
    series = asked.rows[asked.base].reshape(-1, *asked.shape)
    for i, one in enumerate(series):
        long = int(asked.rng.integers(max(2, length // 8), max(3, length // 2 + 1)))
        start = int(asked.rng.integers(0, length - long + 1))
        if i % 2:
            by = int(asked.rng.integers(1, long))
            one[start : start + long] = np.roll(one[start : start + long], by, axis=0)
        else:
            one[start : start + long] = one[max(start - 1, 0)]
    return series.reshape(len(series), -1)


class _Kind(NamedTuple):
    make: Callable[[_Asked], Rows]
    moves: bool  # rather than draws or rearranges values


#: By their names; the place of each in this order is of the seed that it is drawn by.
KINDS: dict[str, _Kind] = {
    "local": _Kind(_local, True),
    "global": _Kind(_global, False),
    "clustered": _Kind(_clustered, True),
    "dependency": _Kind(_dependency, False),
    "blocks": _Kind(_blocks, False),
    "shift": _Kind(_shift, False),
}


def kinds_for(shape: Sequence[int], layout: Layout, series: bool = False) -> tuple[str, ...]:
    """Which kinds can be made of such rows.

    Args:
        shape: of one event; `(C, H, W)` is an image.
        layout: of the rows.
        series: whether the first axis is time.

    Example:
        >>> kinds_for((2,), Layout.of([[0.0, 1.0], [2.0, 3.0], [5.0, 4.0]]))
        ('local', 'global', 'clustered', 'dependency')
    """
    possible = {
        "local": not layout.fixed.all(),
        "global": layout.varying > 0,
        "clustered": not layout.fixed.all(),
        "dependency": layout.varying > 1,
        "blocks": len(shape) == 3 and min(shape[-2:]) >= 4,
        "shift": series and len(shape) <= 2 and shape[0] >= 4,
    }
    return tuple(kind for kind in KINDS if possible[kind])


def made(
    rows: ArrayLike, layout: Layout, kind: str, *, seed: int, count: int | None = None, shape: Sequence[int] = ()
) -> Made:
    """Anomalies of one kind, made of rows.

    `local`, `global`, `clustered` and `dependency` are the four of ADBench, with rows in the place of mixtures and
    copulas that would have to be fitted, so that they can be made of few rows in many columns, and keep to what
    columns hold: categories, whole numbers, padding. Images keep to the range of their pixels.

    References:
        S. Han et al., ADBench: anomaly detection benchmark, NeurIPS 2022, arXiv:2206.09426

    Args:
        rows: `(n, *shape)`.
        layout: what they look like.
        kind: one of `KINDS`.
        seed: they are drawn by, together with the kind; whatever other kinds are made.
        count: how many; as many as there are rows where it is left out.
        shape: of one event, where rows are given flat.

    Raises:
        ValueError: if there is no row, or no such kind.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> found = made(rows, Layout.of(rows), "dependency", seed=0)
        >>> bool((np.sort(found.x, 0) == np.sort(rows.astype("float32"), 0)).all())
        True
    """
    given = np.asarray(rows)
    if kind not in KINDS or not len(given):
        raise ValueError(f"{kind!r} cannot be made of {len(given)} rows; there is {', '.join(KINDS)}")
    event = tuple(shape) or given.shape[1:]
    flat = given.reshape(len(given), -1).astype(np.float64)
    rng = np.random.default_rng([seed, 1 + list(KINDS).index(kind)])
    base = _based(len(flat), len(flat) if count is None else count, rng)
    found = KINDS[kind].make(_Asked(flat, base, layout, event, rng))
    if KINDS[kind].moves:
        found = layout.kept_to(found, flat[base])
    if len(event) == 3:
        found = np.clip(found, layout.low.min(), layout.high.max())
    return Made(found.astype(np.float32).reshape(-1, *event), base)


def _based(n: int, count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Which rows are taken: all of them in their order as often as it goes, and of the rest each at most once."""
    turns, rest = divmod(count, n)
    return np.concatenate([np.tile(np.arange(n), turns), np.sort(rng.permutation(n)[:rest])])
