"""What flows through the house: `Events` at rest, `Batch` and `Group` on the way in, `Scored` on the way out.

Shapes: `N` rows of a split, `B` rows of a batch, `C` context columns, `*shape` the shape of one event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from straylight.errors import DataError
from straylight.rows.mapped import Mapped, same_sources
from straylight.rows.origin import Origin, beside, column_name, own, same_files

HIDDEN = -1  # the label of a row whose label is not served


class Batch(NamedTuple):
    """What a loader yields.

    Attributes:
        x: events in the data's own units, `(B, *shape)` float32.
        y: 0 nominal, 1..K the kind of anomaly, -1 hidden, `(B,)` int64.
        context: what a density is conditioned on, e.g. the dijet mass, `(B, C)` float32; `C = 0` when there is none.
        weight: event weights, ones when there are none, `(B,)` float32.
        index: the row's number in its split, `(B,)` int64.
    """

    x: Tensor
    y: Tensor
    context: Tensor
    weight: Tensor
    index: Tensor  # type: ignore[assignment]

    def mean(self, values: Tensor) -> Tensor:
        """Weighted mean of one value per event, `(B,)` to a scalar; weights are one on average over the split."""
        return values.mean() if self.even else (values * self.weight).mean()

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; weights that are all one stay a single number."""
        n = len(self.weight)
        weight = self.weight[:1].to(device).expand(n) if self.even and n else self.weight.to(device)
        x, y, context, _, index = self
        return Batch(x.to(device), y.to(device), context.to(device), weight, index.to(device))

    @property
    def even(self) -> bool:
        """Whether all weights are one: they are then a single number, seen B times."""
        return self.weight.stride(0) == 0


class Group:
    """Several mini-batches in one piece, so that the Trainer's cost per step is paid once for all of them.

    The rows are still where they were: a mini-batch is gathered when its turn comes, while it fits the processor's
    cache. It is no tuple on purpose: Lightning looks into those and would convert the whole split at every step.

    Args:
        x, context, weight: columns to draw from, those of the whole split or of this group alone, as in `Batch`.
        places: where in these columns the rows of all mini-batches are, one after the other, on this rank, `(n,)`.
        index: the rows' numbers in the split, `(n,)`.
        sizes: how many of them each mini-batch has on this rank.
        totals: how many rows each mini-batch has over all ranks.

    Example:
        >>> rows = torch.arange(5)
        >>> group = Group(torch.rand(5, 2), torch.empty(5, 0), torch.ones(1).expand(5), rows, rows, (3, 2), (3, 2))
        >>> [len(batch.x) for batch, share in group.minibatches()]
        [3, 2]
    """

    __slots__ = ("_same", "context", "index", "places", "sizes", "totals", "weight", "x")

    def __init__(
        self,
        x: Tensor,
        context: Tensor,
        weight: Tensor,
        places: Tensor,
        index: Tensor,
        sizes: tuple[int, ...],
        totals: tuple[int, ...],
    ) -> None:
        self.x, self.context, self.weight = x, context, weight
        self.places, self.index = places, index
        self.sizes, self.totals = sizes, totals
        self._same: dict[int, tuple[Tensor, Tensor | None, Tensor | None]] = {}

    def minibatches(self, world: int = 1) -> Iterator[tuple[Batch, float]]:
        """Yield each mini-batch with the factor that makes the mean over `world` ranks the mean over all its rows."""
        places = self.places.split(self.sizes)
        index = places if self.index is self.places else self.index.split(self.sizes)
        for i, (size, total) in enumerate(zip(self.sizes, self.totals, strict=True)):
            yield self._gather(places[i], index[i]), size * world / total

    def rows(self) -> Batch:
        """All rows as one batch."""
        return self._gather(self.places, self.index)

    def to(self, device: torch.device) -> Group:
        """The group on a device; only its own rows are sent there."""
        if self.x.device == device:
            if self.places.device == device:
                return self
            places, index = self.places.to(device), self.index.to(device)  # the split is there, its order is not
            return Group(self.x, self.context, self.weight, places, index, self.sizes, self.totals)
        x, _, context, weight, index = self.rows().to(device)
        return Group(x, context, weight, torch.arange(len(index), device=device), index, self.sizes, self.totals)

    def _gather(self, places: Tensor, index: Tensor) -> Batch:
        n = len(places)
        if n not in self._same:  # what mini-batches of one size share
            even, bare = self.weight.stride(0) == 0, not self.context.shape[1]
            y = index.new_full((1,), HIDDEN).expand(n)
            self._same[n] = y, self.context[:n] if bare else None, self.weight[:n] if even else None
        y, context, weight = self._same[n]
        return Batch(
            self.x.index_select(0, places),
            y,
            self.context.index_select(0, places) if context is None else context,
            self.weight.index_select(0, places) if weight is None else weight,
            index,
        )


class Scored(NamedTuple):
    """What validation, test and predict steps return.

    Attributes:
        index: the row's number in its split, so that padded or gathered rows can be told apart, `(B,)` int64.
        score: larger is stranger, unbounded, `(B,)` float32.
        y: the label as served, `(B,)` int64.
        members: the scores of an ensemble's members, `(B, M)` float32; `None` for any other detector.
    """

    index: Tensor  # type: ignore[assignment]
    score: Tensor
    y: Tensor
    members: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Events:
    """One split at rest.

    Attributes:
        x: `(N, *shape)` float32; `Mapped` if it is read when it is needed.
        y: `(N,)` whole numbers, 0 nominal, 1..K the kind of anomaly; -1 in all rows if nobody knows.
        context: `(N, C)` float32.
        weight: `(N,)` float32.
        meta: named columns of `N` values that callbacks and figures look up by index and no detector sees; those that
            a file names its rows by are among them, and are read from it when somebody asks.
        origin: where the rows come from; `None` if they were generated, or nobody said.
    """

    x: Tensor | Mapped
    y: Tensor
    context: Tensor
    weight: Tensor
    meta: Mapping[str, np.ndarray]
    origin: Origin | None = None

    @classmethod
    def of(
        cls,
        x: Any,
        y: Any = None,
        context: Any = None,
        weight: Any = None,
        meta: Mapping[str, np.ndarray] | None = None,
        origin: Origin | None = None,
    ) -> Events:
        """Build from arrays or tensors; what is left out is nominal, without context and of weight one.

        Raises:
            DataError: if the lengths do not fit together, a label is not a whole number from 0, or a weight or a
                context value cannot be used.

        Example:
            >>> Events.of(np.zeros((3, 2))).y.tolist()
            [0, 0, 0]
        """
        x = x if isinstance(x, Mapped) else torch.as_tensor(x, dtype=torch.float32)
        if x.ndim < 2:
            raise DataError(f"Events need a row for each event, of shape (N, D) or more, not {tuple(x.shape)}.")
        n = len(x)
        labels = torch.zeros(1, dtype=torch.int64).expand(n) if y is None else torch.as_tensor(y)
        # a byte a label is enough, and of many rows it is something
        kinds = labels if labels.dtype in (torch.int64, torch.int8) else labels.to(torch.int64)
        context = torch.zeros(n, 0) if context is None else torch.as_tensor(context, dtype=torch.float32)
        weights = torch.ones(1).expand(n) if weight is None else torch.as_tensor(weight, dtype=torch.float32)
        sizes = {"y": labels.shape, "context": context.shape[:-1], "weight": weights.shape}
        if origin is not None:
            sizes["origin"] = torch.Size((len(origin),))
        for name, shape in {**sizes, **{k: np.shape(v)[:1] for k, v in (meta or {}).items()}}.items():
            if shape != (n,):
                raise DataError(f"Events of {n} rows need as many values of {name!r}, not of shape {tuple(shape)}.")
        least = int(kinds.min()) if n else 0
        if (kinds is not labels and (kinds != labels).any()) or least < HIDDEN or (least < 0 and int(kinds.max()) >= 0):
            raise DataError(
                "Labels must be whole numbers: 0 nominal, 1..K the kind of anomaly, or all of them unknown."
            )
        if not context.isfinite().all():
            raise DataError("The context holds a NaN or an infinity.")
        if weight is not None and not (weights.isfinite().all() and (weights >= 0).all() and (not n or weights.any())):
            raise DataError("Event weights must be finite, not negative, and not all zero.")
        return cls(x, kinds, context, weights, beside({} if meta is None else meta, origin), origin)

    @property
    def in_memory(self) -> Tensor:
        """`x` as a tensor, read if it was not."""
        return self.x if isinstance(self.x, Tensor) else self.x.to("cpu")

    def take(self, rows: Any) -> Events:
        """The rows at these positions, in this order."""
        positions = np.asarray(rows, dtype=np.int64)
        places = torch.from_numpy(positions)
        x = self.x.take(positions) if isinstance(self.x, Mapped) else self.x.index_select(0, places)
        origin = self.origin
        if origin is not None:  # where rows lie on disk, one array says which they are and where they come from
            origin = origin.take(rows, x.rows if _same_places(self) and isinstance(x, Mapped) else None)
        return Events(
            x,
            taken(self.y, places),
            self.context.index_select(0, places),
            taken(self.weight, places),
            beside({name: column[positions] for name, column in own(self.meta).items()}, origin),
            origin,
        )

    @classmethod
    def cat(cls, *parts: Events) -> Events:
        """The rows of several, one after the other; of `meta` the columns that all of them have.

        Where they come from is known if it is of all of them.

        Example:
            >>> len(Events.cat(Events.of(np.zeros((3, 2))), Events.of(np.ones((2, 2)))))
            5
        """
        parts = tuple(part for part in parts if len(part)) or parts[:1]
        if len(parts) == 1:
            return parts[0]
        rows = [part.x for part in parts]
        x = Mapped.cat(rows) if any(isinstance(x, Mapped) for x in rows) else torch.cat(rows)  # type: ignore[arg-type]
        known = [part.origin for part in parts if part.origin is not None]
        shared = isinstance(x, Mapped) and all(map(_same_places, parts))
        shared = shared and same_sources(rows) == same_files(known)  # type: ignore[arg-type]
        origin = Origin.cat(known, x.rows if shared else None) if len(known) == len(parts) else None  # type: ignore[union-attr]
        columns = [own(part.meta) if origin is not None else part.meta for part in parts]
        return cls(
            x,
            _column([part.y for part in parts]),
            torch.cat([part.context for part in parts]),
            _column([part.weight for part in parts]),
            beside(
                {
                    name: np.concatenate([column[name] for column in columns])
                    for name in columns[0]
                    if all(name in column for column in columns)
                },
                origin,
            ),
            origin,
        )

    def named(self, index: Any = None) -> dict[str, Any]:
        """What names some rows beside their scores, `(n,)` each, under the names of `straylight.rows.origin`.

        The file and the row in it, where they are known, the columns of `data.meta`, and those of the data set's own,
        such as the digit, that Parquet has a type for; not the group.

        Args:
            index: positions of the rows, `(n,)`; `None` for all.

        Example:
            >>> events = Events.of(np.zeros((3, 2)), meta={"digit": np.array([7, 8, 9]), "y": np.array(list("abc"))})
            >>> {name: column.to_pylist() for name, column in events.named([2, 0]).items()}
            {'digit': [9, 7], 'meta.y': ['c', 'a']}
        """
        import pyarrow as pa

        rows = slice(None) if index is None else np.asarray(index)
        found = {} if self.origin is None else self.origin.columns(index)
        for name, column in own(self.meta).items():
            if name == "group" or np.ndim(column) != 1 or column_name(name) in found:
                continue
            try:
                found[column_name(name)] = pa.array(np.asarray(column)[rows])
            except (pa.ArrowException, TypeError, ValueError):  # of a data set that keeps objects of its own there
                continue
        return found

    def __len__(self) -> int:
        return len(self.x)


def _same_places(events: Events) -> bool:
    """Whether the positions by which rows are read are those that say where they come from."""
    return isinstance(events.x, Mapped) and events.origin is not None and events.x.rows is events.origin.places


def _column(parts: list[Tensor]) -> Tensor:
    """Values one after the other; a single number, seen N times, if it is the same in all."""
    same = all(part.stride(0) == 0 for part in parts) and len({part[0].item() for part in parts}) == 1
    return parts[0][:1].expand(sum(map(len, parts))) if same else torch.cat(parts)


def taken(column: Tensor, places: Tensor) -> Tensor:
    """Some rows of a column; one that is a single number, seen N times, stays so."""
    same = len(column) and column.stride(0) == 0
    return column[:1].expand(len(places)) if same else column.index_select(0, places)


class Splits(NamedTuple):
    """What a data set's `load` returns.

    Attributes:
        train: rows to train on.
        val: rows to select a model and set thresholds with; may be empty.
        test: rows that nothing touches before the test.
        reserve: anomalies kept out of all three, from which `contamination` of the training rows is drawn; may be
            empty. They are set aside whatever the contamination, so that the test split never changes with it.
    """

    train: Events
    val: Events
    test: Events
    reserve: Events
