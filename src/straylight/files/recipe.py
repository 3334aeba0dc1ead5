"""How the columns of a file become events: learnt from training rows, and then the same for every row.

`N` rows, `n` of them in a chunk, `D` features, `*shape` one event, `C` columns of context.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from straylight.errors import DataError
from straylight.files.dialect import Dialect
from straylight.files.encoding import FILL, context, encoded
from straylight.files.fitting import Misfits, Part, Rows, Rules, Tally
from straylight.files.formats import open_file
from straylight.files.resolution import LOOKED_AT, of_columns, sampled
from straylight.files.roles import Roles, Value
from straylight.files.source import BYTES, Source, about, listed, meant
from straylight.files.table import check_categories, coded, is_text, numbers, type_name
from straylight.files.words import is_number
from straylight.rows.missing import Missing, filling

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How columns become events: a number is one feature, a column of K categories is K, one of which is 1.

    A category that no training row holds, and one that is missing, are K zeros, and features that are missing get the
    median of training rows, if `Rules` say so. A row becomes the same event alone, in whatever chunk, and in a file of
    another format.

    Args:
        roles: which columns are features, in their order, or which array, and which are context.
        types: what the columns of features held where training rows are.
        centres: offset and scale of columns that single precision would not resolve; see `straylight.files.resolution`.
        categories: of those columns that have some, in their order.
        missing: what is done about a value that is missing; see `AnomalyDataModule`.
        medians: of all features by their names.
        filled: those of features that some training row lacks.
        columns: names of the features as served.
        csv: how tables in text are written; see `straylight.files.dialect.Dialect`.
        nominal: the label, or labels, of nominal rows.
        kinds: names of the labels.

    Raises:
        DataError: if a column holds neither numbers nor categories, or text where training rows hold numbers, or lacks
            a value that nothing fills in.

    Example:
        >>> import pyarrow as pa
        >>> table = pa.table({"bytes": [5, 7, 9], "service": ["http", "smtp", "dns"]})
        >>> recipe = Recipe.fit(table, Roles(("bytes", "service")), rows=[0, 1])
        >>> recipe.names
        ['bytes', 'service=http', 'service=smtp']
        >>> new = pa.table({"service": ["smtp", "dns"], "bytes": ["7", "9.5"]})
        >>> tally = Tally()
        >>> [part.x.tolist() for part in recipe.parts([new], tally=tally)]
        [[[7.0, 0.0, 1.0], [9.5, 0.0, 0.0]]]
        >>> print(*tally.sentences())
        1 row holds a category of column 'service' that no training row has, which is 0 in all of its features.
    """

    roles: Roles
    types: Mapping[str, str] = field(default_factory=dict)
    centres: Mapping[str, Sequence[float]] = field(default_factory=dict)
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    missing: Missing = "error"
    medians: Mapping[str, float] = field(default_factory=dict)
    filled: Mapping[str, float] = field(default_factory=dict)
    columns: Sequence[str] = ()
    csv: Mapping[str, Any] = field(default_factory=dict)
    nominal: Value | Sequence[Value] = 0
    kinds: Sequence[str] = ()

    @classmethod
    def fit(
        cls,
        table: pa.Table,
        roles: Roles,
        rows: ArrayLike,
        *,
        categorical: Sequence[str] = (),
        missing: Missing = "error",
        notice: Callable[[str], None] = log.warning,
    ) -> Recipe:
        """Learn types, centres and categories; what fills features in is learnt where they are served.

        Args:
            table: with `N` rows and the columns of features.
            roles: see above.
            rows: positions of training rows, of which categories are.
            categorical: columns of numbers that are categories nevertheless; those of text are so anyway.
            missing: see above.
            notice: is told which columns need a centre.
        """
        rows = np.asarray(rows, dtype=np.int64)
        few = np.concatenate(sampled(rows, len(roles.features)))
        little = len(table) <= 2 * LOOKED_AT  # it takes less to pick of numpy's numbers
        categories, values_of = {}, {}
        for name in roles.features:
            if name not in categorical and not is_text(table[name].type):
                column = table[name]
                values_of[name] = (
                    numbers(column, name, "float64")[few] if little else numbers(column.take(few), name, "float64")
                )
                continue
            values, codes = coded(table[name])
            if name not in categorical:
                check_categories(name, values, codes)
            if missing == "error" and (lacks := int((codes == -1).sum())):
                raise DataError(
                    f"column {name!r} lacks {lacks:,} value{'s' if lacks > 1 else ''}; fill in, or set "
                    "data.missing=median, by which a missing category is like one that no training row holds."
                )
            held = np.zeros(len(values) + 1, dtype=bool)
            held[codes[rows]] = True
            categories[name] = [value for value, there in zip(values, held[:-1], strict=True) if there]
        types = {name: type_name(table[name]) for name in roles.features}
        recipe = cls(roles, types, of_columns(values_of, notice), categories, missing)
        if twice := [name for name, times in Counter(recipe.names).items() if times > 1]:
            raise DataError(f"two features are called {twice[0]!r}, of a column and of a category; rename the column.")
        return recipe

    @property
    def names(self) -> list[str]:
        """The features' names before what is missing is filled in, `service=http` for a category."""
        return [
            feature
            for name in self.roles.features
            for feature in ([f"{name}={c}" for c in self.categories[name]] if name in self.categories else [name])
        ]

    def features(self, chunks: Iterable[pa.Table], notice: Callable[[str], None]) -> Tensor:
        """The features of all rows in memory, `(N, D)`, NaN where a number is missing: what a data set serves."""
        tally = Tally()
        parts = [encoded(self, chunk, None, tally.unseen) for chunk in chunks]
        tally.tell(notice)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def tested(self, chunks: Iterable[pa.Table], rules: Rules, tally: Tally) -> tuple[Tensor, Rows | None]:
        """As `features`, of rows that others are learnt of, and positions of those that fit; `None` if all do."""
        parts: list[Tensor] = []
        kept: list[Rows] = []
        start = 0
        for chunk in chunks:
            misfits = Misfits(rules, start, chunk.num_rows, tally)
            parts.append(encoded(self, chunk, misfits))
            fit = misfits.kept()
            kept.append(start + (np.arange(chunk.num_rows) if fit is None else fit))
            start += chunk.num_rows
        fitting = np.concatenate(kept)
        return torch.cat(parts), None if len(fitting) == start else fitting

    def context(self, chunk: pa.Table) -> NDArray[np.float32] | None:
        """The columns of context of some rows, `(n, C)`; `None` if there are none."""
        return context(self, chunk)

    def parts(
        self,
        chunks: Iterable[pa.Table],
        rules: Rules | None = None,
        tally: Tally | None = None,
        also: Sequence[str] = (),
        start: int = 0,
    ) -> Iterator[Part]:
        """Features and context as training had them, complete, a chunk at a time, of the rows that fit.

        Args:
            chunks: tables of `n` rows with the columns of features and context; numbers may be written as text.
            rules: what is done about rows that do not fit; as the run was trained, if left out.
            tally: is told of them.
            also: further columns, as they are.
            start: rows of the file before the first chunk.

        Raises:
            DataError: if a row does not fit, and the rules refuse it.
        """
        tally = Tally() if tally is None else tally
        rules = Rules.of(None, None, self.missing) if rules is None else rules
        names = self.names or None
        fill = None
        for chunk in chunks:
            misfits = Misfits(rules, start, chunk.num_rows, tally)
            x = encoded(self, chunk, misfits)
            columns = context(self, chunk, misfits)
            if names is None:
                names = [str(i) for i in range(x[0].numel())]
            if fill is None:
                fill = self._filling(names, x.shape[1:])
            if not math.isfinite(float(x.sum())):  # which is sooner found out than which of them are not
                self._lacking(x, names, misfits)
                x = fill(x)
            elif self._indicates:
                x = fill(x)
            kept = misfits.kept()
            given = torch.zeros(len(x), 0) if columns is None else torch.from_numpy(columns)
            if kept is not None:
                x, given = x[kept], given[kept]
            yield Part(start, chunk.num_rows, x, given, kept, misfits.reasons, chunk.select(also) if also else None)
            start += chunk.num_rows

    def read(
        self,
        path: Path | str,
        multiple: int = 1,
        rules: Rules | None = None,
        tally: Tally | None = None,
        also: Sequence[str] = (),
    ) -> Iterator[Part]:
        """What `parts` makes of a file, a chunk of bounded memory at a time; nothing else of it is needed or read.

        Args:
            path: a file as `File` takes it, with the same columns, in any order.
            multiple: of which the rows of a chunk are, where so many are not too large.
            rules, tally, also: see `parts`.

        Raises:
            DataError: if it lacks columns, or see `parts`.
        """
        path = Path(path)
        with about(path):
            source = open_file(path, dialect=Dialect.of(self.csv))
            yield from self.of(source, multiple, rules, tally, also)

    def of(
        self,
        source: Source,
        multiple: int = 1,
        rules: Rules | None = None,
        tally: Tally | None = None,
        also: Sequence[str] = (),
        start: int = 0,
    ) -> Iterator[Part]:
        """As `read`, of a file that is open, which may hold the rows from `start` on of a larger one."""
        chunks = source.chunks(self.columns_of(source, also), self.rows_of_chunk(source, multiple, also))
        yield from self.parts(chunks, rules, tally, also, start)

    def rows_of_chunk(self, source: Source, multiple: int = 1, also: Sequence[str] = ()) -> int:
        """How many rows of a file are read together, but for the last."""
        wanted = self.columns_of(source, also)
        width = max(len(self.columns), sum(math.prod(source.arrays.get(name, ())[1:]) for name in wanted))
        rows = max(1, BYTES // (source.bytes_each * width))
        return rows // multiple * multiple or rows

    def columns_of(self, source: Source, also: Sequence[str] = ()) -> list[str]:
        """The columns of a file that are read, and others.

        Raises:
            DataError: if it lacks some.
        """
        names, there = list(dict.fromkeys([*self.wanted, *also])), {*source.names, *source.arrays}
        if len(absent := [name for name in names if name not in there]) > 1:
            raise DataError(
                f"{source.path} lacks {len(absent):,} of the columns that it must have: "
                f"{listed([repr(name) for name in absent])}; it has {listed(source.names)}."
            )
        for name in names:
            source.find(name)
        return names

    @property
    def wanted(self) -> list[str]:
        """The columns that a row must have, or the array."""
        return [*(self.roles.features or [str(self.roles.array)]), *self.roles.context]

    def table(self, frame: Any, also: Sequence[str] = ()) -> pa.Table:
        """The columns of features and context of a table of pandas, polars or pyarrow, by their names, and others.

        Raises:
            DataError: if one is not there.
        """
        import pyarrow as pa

        try:
            held = frame if isinstance(frame, pa.Table) else pa.table(frame)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(f"the table cannot be read ({' '.join(str(error).split())[:200].rstrip('.')}).") from error
        wanted = list(dict.fromkeys([*self.roles.features, *self.roles.context, *also]))
        if not self.roles.features:
            raise DataError("the run was trained on events of more than one axis; give them as an array.")
        for name in wanted:
            if held.column_names.count(name) != 1:
                what = "more than one column" if name in held.column_names else "no column"
                close = "" if name in held.column_names else meant(name, held.column_names)
                raise DataError(f"the table has {what} {name!r}{close}; it has {listed(held.column_names)}.")
        return held.select(wanted)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as a run keeps them."""
        return {
            **{name: list(v) if isinstance(v, tuple) else v for name, v in self.roles._asdict().items()},
            **{name: value for name, value in vars(self).items() if name != "roles"},
            "centres": {name: list(centre) for name, centre in self.centres.items()},
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Recipe:
        """The recipe that a run kept, maybe of a version that kept no types."""
        roles = Roles._make(tuple(v) if isinstance(v := kept[name], list) else v for name in Roles._fields)
        types = {name: _type(held) for name, held in kept["categories"].items()}
        rest = {name: kept[name] for name in cls.__dataclass_fields__ if name in kept}
        return cls(**{"roles": roles, "types": types, **rest})

    @property
    def _indicates(self) -> bool:
        """Whether further features tell what was missing."""
        return self.missing == "indicator" and bool(self.filled)

    def _filling(self, names: Sequence[str], shape: Sequence[int]) -> Callable[[Tensor], Tensor]:
        """What fills in the features of a chunk, `(n, *shape)`."""
        values = torch.tensor([self.medians.get(name, math.nan) for name in names])
        indicate = torch.tensor([name in self.filled for name in names]) if self._indicates else None
        return filling(values.view(*shape), indicate)

    def _lacking(self, x: Tensor, names: Sequence[str], misfits: Misfits) -> None:
        """Tell of the rows that lack a number, in features that are no part of a category."""
        gone = ~x.flatten(1).isfinite().numpy()
        rows = np.flatnonzero(gone.any(1))
        if not len(rows):
            return
        first = gone[rows].argmax(1)
        where = dict(zip(rows.tolist(), first.tolist(), strict=True))

        def reason(i: int) -> str:
            return f"{names[where[i]]!r} is missing"

        if misfits.rules.missing != "median":
            misfits.leave(rows, reason, FILL, misfits.rules.missing == "error")
            return
        if not self.medians:
            raise DataError(
                "medians of training rows are not known, since the run was trained by an earlier version; say "
                "missing=skip, which leaves rows that lack a value without a score."
            )
        misfits.fill(rows)
        known = np.array([name in self.medians for name in names])
        if len(bare := rows[(gone[rows] & ~known).any(1)]):
            misfits.leave(bare, reason, FILL, refuse=True)


def of_arrays(path: Path, kept: Mapping[str, Any], shape: Sequence[int], context: int) -> Recipe:
    """How the events of a file are read for a run whose data set was none: from its one array of such events.

    Args:
        path: the file.
        kept: what the run kept of how values are filled in.
        shape: of an event, as served; without columns that tell what was missing.
        context: columns of context, C, which an array `context` of shape (N, C) holds, or columns of that name.

    Raises:
        DataError: if the file holds no such array, or several.
    """
    source = open_file(path)
    filled, columns = dict(kept.get("filled", {})), list(kept.get("columns", []))
    indicators = len(filled) if kept.get("missing") == "indicator" else 0
    wanted = (shape[0] - indicators, *shape[1:])
    fitting = [name for name, held in source.arrays.items() if tuple(held[1:]) == wanted and name != "context"]
    given = source.array_columns("context") if context and "context" in source.arrays else ["context"] * context
    if len(fitting) != 1 or len(given) != context or (context > 1 and "context" not in source.arrays):
        there = ", ".join(f"{name or 'its array'} {held}" for name, held in source.arrays.items()) or "no array"
        and_context = f" and an array context of shape (N, {context})" if context else ""
        raise DataError(
            f"{path} must hold one array of events of shape (N, {', '.join(map(str, wanted))}){and_context}, since the "
            f"run was not trained on a file (data=file); it has {there}."
        )
    medians = {str(i): value for i, value in enumerate(kept.get("medians", {}).values()) if value is not None}
    numbered = {str(columns.index(name)): value for name, value in filled.items() if name in columns} or filled
    roles = Roles(array=fitting[0], context=tuple(given))
    return Recipe(roles, missing=kept.get("missing", "error"), medians=medians, filled=numbered)


def _type(categories: Sequence[str]) -> str:
    """What a column of categories held, as far as these tell."""
    whole = all(value.removeprefix("-").isdigit() for value in categories)
    return "int64" if whole else "double" if all(map(is_number, categories)) else "string"
