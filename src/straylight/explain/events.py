"""Which events are explained, and what they are called: rows of a file by their number, or the strangest of it.

`N` events, `n` rows of a part of a file.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight.errors import DataError
from straylight.rows.origin import FILE, ROW, column_name


@dataclass(frozen=True)
class Named:
    """Events and what names them.

    Attributes:
        x, context: `(N, *shape)` and `(N, C)`.
        names: columns of `N` plain values, `file` and `row`, as a person counts, first.
    """

    x: Tensor
    context: Tensor
    names: Mapping[str, Sequence[Any]]

    def called(self, i: int) -> str:
        """What an event is called in one line.

        Example:
            >>> Named(torch.zeros(1, 2), torch.zeros(1, 0), {"file": ["in/a.csv"], "row": [3], "id": ["x7"]}).called(0)
            'row 3 of a.csv, id x7'
        """
        file, row, *others = self.names
        more = "".join(f", {name} {self.names[name][i]}" for name in others)
        return f"row {self.names[row][i]} of {Path(str(self.names[file][i])).name}{more}"


def chosen(
    parts: Iterable[tuple[Any, NDArray[Any]]], rows: Sequence[int] | None, top: int, file: str, also: Sequence[str]
) -> Named:
    """The rows of these numbers, in this order, or the `top` strangest, of the parts of a file as they come.

    Args:
        parts: of `Run.parts`, each with its scores, `(n,)`; NaN of rows that cannot be scored.
        rows: numbers from 1.
        top: how many.
        file: what the file is called.
        also: columns of the parts' tables that name rows.

    Raises:
        DataError: if there is no such row, or it cannot be scored.
    """
    wanted = None if rows is None else dict.fromkeys(rows)
    held: dict[int, tuple[Tensor, Tensor, list[Any]]] = {}
    best: list[tuple[float, int]] = []
    count, reasons = 0, {}
    for part, scores in parts:
        places = np.arange(part.rows) if part.kept is None else part.kept
        at = {int(place): i for i, place in enumerate(places)}
        count = part.start + part.rows
        if wanted is None:
            finite = np.flatnonzero(~np.isnan(scores[places]))
            few = finite[np.argsort(-scores[places][finite], kind="stable")[:top]]
            for i in few.tolist():
                row = part.start + int(places[i]) + 1
                heapq.heappush(best, (float(scores[places[i]]), -row))
                held[row] = _taken(part, i, int(places[i]), also)
            while len(best) > top:
                held.pop(-heapq.heappop(best)[1])
            continue
        for row in [row for row in wanted if part.start < row <= count]:
            place = row - part.start - 1
            if place in at:
                held[row] = _taken(part, at[place], place, also)
            else:
                reasons[row] = part.reasons.get(place, "it does not fit")
    order = [-row for _, row in sorted(best, reverse=True)] if wanted is None else list(wanted)
    for row in order if wanted is not None else ():
        if row in reasons:
            raise DataError(f"row {row:,} of {file} cannot be scored: {reasons[row]}.")
        if row not in held:
            raise DataError(f"{file} has no row {row:,}, but {count:,} rows, of which the first is row 1.")
    if not order:
        raise DataError(f"{file} has no row that can be scored.")
    found = [held[row] for row in order]
    names: dict[str, list[Any]] = {FILE: [file] * len(order), ROW: order}
    names |= {column_name(name): [one[2][k] for one in found] for k, name in enumerate(also)}
    return Named(torch.stack([one[0] for one in found]), torch.stack([one[1] for one in found]), names)


def _taken(part: Any, i: int, place: int, also: Sequence[str]) -> tuple[Tensor, Tensor, list[Any]]:
    return part.x[i].clone(), part.context[i].clone(), [part.table[name][place].as_py() for name in also]


def tested(data: Any, index: NDArray[Any], score: NDArray[Any], rows: Sequence[int] | None, top: int) -> Named:
    """Test rows of a data set: those of these numbers, or the strangest by the scores that a run kept.

    Args:
        data: the data set.
        index, score: of the rows that were tested, `(n,)`.
        rows: numbers of rows in the file that they come from; of data that come from none, among the test rows.
        top: how many.

    Raises:
        DataError: if a row is none of the test's.
    """
    test = data.splits.test
    named = getattr(test, "named", None)
    names = named() if rows is not None and callable(named) else {}
    if rows is None:
        places = index[np.argsort(-score, kind="stable")[:top]]
    else:
        own = np.asarray(names[ROW]) if ROW in names else np.arange(1, len(test) + 1)
        found = [np.flatnonzero(own == row) for row in rows]
        if gone := [row for row, at in zip(rows, found, strict=True) if not len(at)]:
            what = "rows, which bear the numbers that they have in its file" if ROW in names else "rows, from row 1"
            raise DataError(f"{data.name} has no test row {gone[0]:,}, but {len(test):,} test {what}.")
        places = np.concatenate(found)
    at = torch.from_numpy(places.astype(np.int64))
    names = {k: v.to_pylist() for k, v in named(places).items()} if callable(named) else {}
    if not {FILE, ROW} <= set(names):
        meta = {column_name(k): np.asarray(v)[places].tolist() for k, v in test.meta.items() if np.ndim(v) == 1}
        names = {FILE: [f"the test rows of {data.name}"] * len(places), ROW: (places + 1).tolist(), **meta}
    names = {FILE: names.pop(FILE), ROW: names.pop(ROW), **names}
    return Named(test.x.index_select(0, at), test.context.index_select(0, at), names)


def scored(parts: Iterable[Any], score: Any) -> Iterator[tuple[Any, NDArray[Any]]]:
    """Each part with the scores of its rows, of which `score` makes those of the ones that fit."""
    for part in parts:
        yield part, part.spread(np.asarray(score(part)))
