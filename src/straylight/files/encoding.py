"""The columns of some rows as the numbers that a detector takes, and which rows do not fit.

`n` rows, `D` features, `*shape` one event, `C` columns of context.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight.files.fitting import Misfits
from straylight.files.resolution import Centre
from straylight.files.roles import complete
from straylight.files.source import tensors
from straylight.files.table import coded, numbers, parsed, readable, type_name, written_as

if TYPE_CHECKING:
    import pyarrow as pa

    from straylight.files.recipe import Recipe

MISSING, UNKNOWN = -2, -1  # places of categories
FILL = "say missing=median, which fills in, or missing=skip."
MEND = "mend it, or say missing=skip, which leaves such rows without a score."


def encoded(recipe: Recipe, chunk: pa.Table, misfits: Misfits | None, unseen: Counter[str] | None = None) -> Tensor:
    """The features of a chunk, `(n, D)` or `(n, *shape)`, NaN where a number is missing.

    Args:
        recipe: how.
        chunk: with the columns of features.
        misfits: is told of categories that are missing or unseen, and of what is no number; if there are none, these
            are the rows that a recipe is learnt of: what is no number is an error, and a category that is missing is 0
            in all of its features, or NaN in the first if such rows are to be left out.
        unseen: is told, in that case, in how many rows a column has a category that no training row has.
    """
    if not recipe.roles.features:
        x = tensors(chunk[recipe.roles.array], "float64" if recipe.centres else "float32")
        centre = Centre.of(recipe.centres, [str(i) for i in range(x[0].size)], x.shape[1:])
        return torch.tensor(centre(x) if centre else x)
    shape = (chunk.num_rows, len(recipe.names))
    x = np.zeros(shape, dtype=np.float32) if recipe.categories else np.empty(shape, dtype=np.float32)
    start = 0
    for name in recipe.roles.features:
        if name not in recipe.categories:
            x[:, start] = number(recipe, chunk, name, misfits)
            start += 1
            continue
        place, words = _places(recipe, chunk[name], name)
        known = np.flatnonzero(place >= 0)
        if len(known) < len(place):
            if misfits is not None:
                _unfit(name, place, words, misfits)
            elif recipe.missing == "skip":
                x[place == MISSING, start] = np.nan
            if unseen is not None:
                unseen[name] += int((place == UNKNOWN).sum())
        x[known, start + place[known]] = 1
        start += len(recipe.categories[name])
    return torch.from_numpy(x)


def number(recipe: Recipe, chunk: pa.Table, name: str, misfits: Misfits | None) -> NDArray[np.float32]:
    """A column of numbers, `(n,)`, NaN where one is missing, or where a text is none and its row is left out."""
    if misfits is None:
        column = parsed(chunk[name], name)
    else:
        column, words = readable(chunk[name])

        def reason(i: int) -> str:
            return f"column {name!r} holds {words[i]!r}, which is no number, as training rows have there"

        if words:
            misfits.leave(np.array([*words], dtype=np.int64), reason, MEND, misfits.rules.missing != "skip")
    if name in recipe.centres:
        return Centre(*recipe.centres[name])(numbers(column, name, "float64"))
    return numbers(column, name)


def context(recipe: Recipe, chunk: pa.Table, misfits: Misfits | None = None) -> NDArray[np.float32] | None:
    """The columns of context of some rows, `(n, C)`; `None` if there are none. Nothing stands for one that is missing.

    Raises:
        DataError: if a value is missing, and its row is not left out.
    """
    columns = []
    for name in recipe.roles.context:
        if misfits is None:
            complete(parsed(chunk[name], name), name, "context")
        values = number(recipe, chunk, name, misfits)
        if misfits is not None:
            gone = np.flatnonzero(~np.isfinite(values))
            advice = "a density is conditioned on it: fill it in, or say missing=skip."
            misfits.leave(gone, partial(_missing, name), advice, misfits.rules.missing != "skip")
        columns.append(values)
    return np.stack(columns, 1) if columns else None


def _missing(name: str, row: int) -> str:
    return f"{name!r} is missing"


def _places(recipe: Recipe, column: pa.ChunkedArray, name: str) -> tuple[NDArray[np.int64], _Words]:
    """Where among its categories each row's is, `(n,)`, or `UNKNOWN` or `MISSING`; and the texts, on demand."""
    values, codes = coded(column)
    if type_name(column) != recipe.types[name]:
        values = written_as(values, recipe.types[name])
    place = {category: i for i, category in enumerate(recipe.categories[name])}
    found = np.array([*(place.get(value, UNKNOWN) for value in values), MISSING])[codes]
    return found, _Words(values, codes)


class _Words:
    """The text of each row, which only those that do not fit are asked for."""

    def __init__(self, values: list[str], codes: NDArray[np.int64]) -> None:
        self._values, self._codes = values, codes

    def __getitem__(self, i: int) -> str:
        return self._values[self._codes[i]]


def _unfit(name: str, place: NDArray[np.int64], words: _Words, misfits: Misfits) -> None:
    """Tell of the rows whose category is missing or unseen."""
    missing, unseen = (np.flatnonzero(place == what) for what in (MISSING, UNKNOWN))
    if misfits.rules.missing == "median":
        misfits.fill(missing)
    else:
        misfits.leave(missing, partial(_missing, name), FILL, misfits.rules.missing == "error")
    if len(unseen):
        misfits.unseen(name, unseen, words.__getitem__)
