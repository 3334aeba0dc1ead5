"""What features are called, and which of them are one: the parts of a category, of a particle, of a pixel.

`D` numbers in an event, `K` features, `N` events, `*shape` one event.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

EMPTY = "0"  # a particle that is not there, a black pixel
GONE = " is missing"  # what a column is called that says whether another one was missing


@dataclass(frozen=True)
class Features:
    """The features of an event as a person knows them.

    Attributes:
        names: `(K,)`.
        groups: which of them each number of an event belongs to, `(D,)`.
        kind: `table`, `image`, `particles` or `series`, by which they are drawn.
        shape: of one event.
        categories: of features that are categories, by name.
        centres: offset and scale of columns that were centred, by name.
        indicated: of features that have a number which says whether they were missing, the place of that, by name.

    Example:
        >>> features = features_of((4,), ["bytes", "service=dns", "service=http", "bytes is missing"])
        >>> features.names, features.groups.tolist()
        (('bytes', 'service'), [0, 1, 1, 0])
        >>> features.values(np.array([[7.0, 0.0, 1.0, 0.0], [5.0, 0.0, 0.0, 1.0]]))
        [[7.0, 'http'], [None, None]]
    """

    names: tuple[str, ...]
    groups: NDArray[np.int64]
    kind: str
    shape: tuple[int, ...]
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    centres: Mapping[str, Sequence[float]] = field(default_factory=dict)
    indicated: Mapping[str, int] = field(default_factory=dict)

    def sums(self, numbers: NDArray[Any]) -> NDArray[np.float64]:
        """What belongs together added up, `(N, *shape)` to `(N, K)`."""
        flat = numbers.reshape(len(numbers), -1)
        found = np.zeros((len(flat), len(self.names)))
        np.add.at(found.T, self.groups, flat.T)
        return found

    def values(self, x: NDArray[Any]) -> list[list[Any]]:
        """What each feature is, of events in the units of the data set, `(N, *shape)`, as `K` plain values each.

        A number, in the units of the file; a category; of a particle its numbers, as text; `None` where it is missing,
        or of a category that training rows do not have.
        """
        flat = x.reshape(len(x), -1).astype(np.float64)
        columns = [self._column(k, name, flat) for k, name in enumerate(self.names)]
        return [list(row) for row in zip(*columns, strict=True)]

    def _column(self, k: int, name: str, flat: NDArray[np.float64]) -> list[Any]:
        places = np.flatnonzero(self.groups == k)
        marked = self.indicated.get(name)
        own = flat[:, places[places != marked]] if marked is not None else flat[:, places]
        gone = np.zeros(len(flat), bool) if marked is None else flat[:, marked] > 0.5
        found: list[Any]
        if name in self.categories:
            held = [self.categories[name][i] for i in own.argmax(1)]
            found = [one if most > 0.5 else None for one, most in zip(held, own.max(1), strict=True)]
        elif own.shape[1] == 1:
            offset, scale = self.centres.get(name, (0.0, 1.0))
            found = (own[:, 0] * scale + offset).tolist()
            found = [float(f"{value:.7g}") if not offset else value for value in found]  # it was single precision
        else:
            found = [", ".join(f"{value:.3g}" for value in row) if row.any() else EMPTY for row in own]
        return [None if lost else value for value, lost in zip(found, gone, strict=True)]


def features_of(shape: Sequence[int], columns: Sequence[str] = (), recipe: Mapping[str, Any] | None = None) -> Features:
    """The features of events of this shape.

    Args:
        shape: of one event.
        columns: names of its numbers, where they have some.
        recipe: how columns of a file were encoded, as `shape.json` has it.

    Example:
        >>> features_of((2, 4)).names[:2], features_of((1, 4, 5)).names[5]
        (('channel 0, step 0', 'channel 0, step 1'), 'pixel (1, 0)')
        >>> features_of((57,), ["MET pT", "MET eta", "MET phi"]).names[:2]
        ('MET', 'particle 1')
    """
    shape, recipe = tuple(int(n) for n in shape), recipe or {}
    numbers = math.prod(shape)
    every = np.arange(numbers)
    if of_particles(shape, columns):
        names = [
            columns[3 * i].rpartition(" ")[0] if 3 * i < len(columns) else f"particle {i}" for i in range(numbers // 3)
        ]
        return Features(tuple(names), every // 3, "particles", shape)
    if len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= 4:
        pixels = shape[1] * shape[2]
        names = [f"pixel ({i // shape[2]}, {i % shape[2]})" for i in range(pixels)]
        return Features(tuple(names), every % pixels, "image", shape)
    if len(shape) == 2 and not len(columns):
        names = [f"channel {i // shape[1]}, step {i % shape[1]}" for i in range(numbers)]
        return Features(tuple(names), every, "series", shape)
    if len(shape) > 1 and len(columns) != numbers:
        return Features(tuple(f"{[int(j) for j in np.unravel_index(i, shape)]}" for i in every), every, "series", shape)
    given = [str(columns[i]) if i < len(columns) else f"x{i + 1}" for i in range(numbers)]
    return _of_table(given, shape, recipe)


def of_particles(shape: Sequence[int], columns: Sequence[str] = ()) -> bool:
    """Whether events are particles of pT, eta and phi, of shape (P * 3,), (P, 3) or (1, P, 3).

    Example:
        >>> of_particles((19, 3)), of_particles((57,)), of_particles((57,), ["MET pT"]), of_particles((1, 28, 28))
        (True, False, True, False)
    """
    named = list(columns[:1]) == ["MET pT"] and not math.prod(shape) % 3
    return named or (tuple(shape[-1:]) == (3,) and (len(shape) == 2 or (len(shape) == 3 and shape[0] == 1)))


def _of_table(given: Sequence[str], shape: tuple[int, ...], recipe: Mapping[str, Any]) -> Features:
    known = {f"{name}={one}": (name, one) for name, held in recipe.get("categories", {}).items() for one in held}
    if not known:
        heads = [name.partition("=") for name in given]
        several = {head for head, equals, _ in heads if equals and sum(h[0] == head for h in heads) > 1}
        known = {name: (h[0], h[2]) for name, h in zip(given, heads, strict=True) if h[0] in several and h[1]}
    names: dict[str, int] = {}
    groups: list[int] = []
    categories: dict[str, list[str]] = {}
    indicated: dict[str, int] = {}
    for place, column in enumerate(given):
        base = column.removesuffix(GONE)
        if column.endswith(GONE) and base in names:
            indicated[base] = place
            groups.append(names[base])
            continue
        name, category = known.get(column, (column, None))
        if category is not None:
            categories.setdefault(name, []).append(category)
        groups.append(names.setdefault(name, len(names)))
    centres = {name: centre for name, centre in recipe.get("centres", {}).items() if name in names}
    return Features(tuple(names), np.array(groups), "table", shape, categories, centres, indicated)
