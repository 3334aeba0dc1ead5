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
from straylight.files.formats import open_file
from straylight.files.resolution import LOOKED_AT, Centre, of_columns, sampled
from straylight.files.roles import Roles, Value, complete
from straylight.files.source import BYTES, about, listed, meant, tensors
from straylight.files.table import check_categories, coded, is_text, numbers, parsed, type_name, written_as
from straylight.files.words import is_number
from straylight.rows.batch import HIDDEN, Events
from straylight.rows.missing import Missing, filling

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How columns become events: a number is one feature, a column of K categories is K, one of which is 1.

    A category that no training row holds, and one that is missing, are K zeros. Features that are missing get the
    median of training rows. A row becomes the same event alone, in whatever chunk, and in a file of another format.

    Args:
        roles: which columns are features, in their order, or which array, and which are context.
        types: what the columns of features held where training rows are.
        centres: offset and scale of columns that single precision would not resolve; see `straylight.files.resolution`.
        categories: of those columns that have some, in their order.
        missing: what is done about a value that is missing; see `AnomalyDataModule`.
        medians: of all features by their names, if what is missing is filled in.
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
        >>> [events.x.tolist() for events in recipe.apply([new], notice=print)]
        1 row holds a category of column 'service' that no training row has, which is 0 in all of its features.
        [[[7.0, 0.0, 1.0], [9.5, 0.0, 0.0]]]
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
        parts = [x for _, x in self._encoded(chunks, notice)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def apply(self, chunks: Iterable[pa.Table], notice: Callable[[str], None] = log.warning) -> Iterator[Events]:
        """Features and context as training had them, complete, a chunk at a time.

        Args:
            chunks: tables of `n` rows with the columns of features and context; numbers may be written as text.
            notice: is told of categories that no training row has, at the end.
        """
        for chunk, x in self._encoded(chunks, notice):
            names = self.names or [str(i) for i in range(x[0].numel())]
            values = torch.tensor([self.medians.get(name, float("nan")) for name in names])
            indicate = None
            if self.missing == "indicator" and self.filled:
                indicate = torch.tensor([name in self.filled for name in names])
            x = filling(values.view(x.shape[1:]), indicate)(x)
            if gone := x.flatten(1).isnan().any(0).nonzero().flatten().tolist():
                raise _lacks(names[gone[0]])
            yield Events.of(x, np.full(len(x), HIDDEN), self.context(chunk))

    def context(self, chunk: pa.Table) -> NDArray[np.float32] | None:
        """The columns of context of some rows, `(n, C)`; `None` if there are none."""
        columns = [self._number(chunk, name, "context") for name in self.roles.context]
        return np.stack(columns, 1) if columns else None

    def read(self, path: Path | str, multiple: int = 1) -> Iterator[Events]:
        """What `apply` makes of a file, a chunk of bounded memory at a time; nothing else of it is needed or read.

        Args:
            path: a file as `File` takes it, with the same columns, in any order.
            multiple: of which the rows of a chunk are, where so many are not too large.
        """
        path = Path(path)
        wanted = [*(self.roles.features or [str(self.roles.array)]), *self.roles.context]
        with about(path):
            source = open_file(path, dialect=Dialect.of(self.csv))
            for name in wanted:
                source.find(name)
            width = max(len(self.columns), sum(math.prod(source.arrays.get(name, ())[1:]) for name in wanted))
            rows = max(1, BYTES // (32 * width))  # a number takes so many bytes while it is text
            chunks = source.chunks(wanted, rows // multiple * multiple or rows)
            yield from self.apply(chunks, lambda sentence: log.warning(f"{path}: {sentence}"))

    def table(self, frame: Any) -> pa.Table:
        """The columns of features and context of a table of pandas, polars or pyarrow, by their names.

        Raises:
            DataError: if one is not there.
        """
        import pyarrow as pa

        try:
            held = frame if isinstance(frame, pa.Table) else pa.table(frame)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(f"the table cannot be read ({' '.join(str(error).split())[:200].rstrip('.')}).") from error
        wanted = [*self.roles.features, *self.roles.context]
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

    def _encoded(self, chunks: Iterable[pa.Table], notice: Callable[[str], None]) -> Iterator[tuple[pa.Table, Tensor]]:
        """Each chunk with its features, `(n, D)` or `(n, *shape)`, NaN where a number is missing."""
        unseen: Counter[str] = Counter()
        for chunk in chunks:
            if not self.roles.features:
                x = tensors(chunk[self.roles.array], "float64" if self.centres else "float32")
                names = [str(i) for i in range(x[0].size)]
                centre = Centre.of(self.centres, names, x.shape[1:])
                yield chunk, torch.tensor(centre(x) if centre else x)
                continue
            x = np.zeros((chunk.num_rows, len(self.names)), dtype=np.float32)
            start = 0
            for name in self.roles.features:
                if name not in self.categories:
                    x[:, start] = self._number(chunk, name)
                    start += 1
                    continue
                place = self._places(chunk[name], name)
                known = np.flatnonzero(place >= 0)
                x[known, start + place[known]] = 1
                start += len(self.categories[name])
                unseen[name] += int((place == -1).sum())
            yield chunk, torch.from_numpy(x)
        for name, count in unseen.items():
            if count:
                notice(
                    f"{count:,} row{'s' if count > 1 else ''} hold{'' if count > 1 else 's'} a category of column "
                    f"{name!r} that no training row has, which is 0 in all of its features."
                )

    def _number(self, chunk: pa.Table, name: str, role: str = "") -> NDArray[np.float32]:
        column = parsed(chunk[name], name)
        column = complete(column, name, role) if role else column
        if name in self.centres:
            return Centre(*self.centres[name])(numbers(column, name, "float64"))
        return numbers(column, name)

    def _places(self, column: pa.ChunkedArray, name: str) -> NDArray[np.int64]:
        """Where among its categories each row's is, `(n,)`; -1 if it is not there, -2 if it is missing."""
        values, codes = coded(column)
        if self.missing == "error" and (codes == -1).any():
            raise _lacks(name)
        if type_name(column) != self.types[name]:
            values = written_as(values, self.types[name])
        place = {category: i for i, category in enumerate(self.categories[name])}
        return np.array([*(place.get(value, -1) for value in values), -2])[codes]


def _lacks(name: str) -> DataError:
    return DataError(
        f"the file lacks values of column {name!r}; fill them in, or train with data.missing=median, which does so."
    )


def _type(categories: Sequence[str]) -> str:
    """What a column of categories held, as far as these tell."""
    whole = all(value.removeprefix("-").isdigit() for value in categories)
    return "int64" if whole else "double" if all(map(is_number, categories)) else "string"
