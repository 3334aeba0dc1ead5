"""A file of the user's own, or several that are one: CSV, Parquet, NPZ, NPY, HDF5, MAT or ARFF."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor

from straylight import checks
from straylight.data.base import AnomalyDataModule
from straylight.data.steps.regions import Region, chosen, inside, limits, refuse_copies
from straylight.data.steps.splits import Places, nominal_only
from straylight.data.steps.telling import telling
from straylight.errors import DataError
from straylight.files.dialect import Dialect
from straylight.files.fitting import Rules, Tally, Unseen
from straylight.files.recipe import Recipe
from straylight.files.resolution import LOOKED_AT, VALUES, Centre, of_columns, sampled
from straylight.files.roles import Roles, Value, assign, complete, labels
from straylight.files.several import Given, Several, called, check_same, known_parts, open_files, shown
from straylight.files.source import Source, about, listed
from straylight.files.table import numbers
from straylight.rows.batch import HIDDEN, Events, Splits
from straylight.rows.mapped import CHUNK, Mapped
from straylight.rows.origin import plain
from straylight.rows.resonance import Resonance

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

Names = str | int | Sequence[str | int]


class File(AnomalyDataModule):
    """Rows of a file, split by the protocol; or two files, the second of which is tested as it is.

    A table's columns are features unless they have another role; text is one-hot encoded with the categories of
    training rows. Of NPZ and HDF5 an array of shape (N, D) holds the features, its columns called `X[0]` and so on, or
    one of shape (N, *shape) the events; arrays of shape (N,) are columns. The columns of NPY are called `0`, `1` and so
    on. NPY stays on disk, and so does a copy of Parquet of numbers and of HDF5 if they take more than `memory_mb`.

    Where a second file is tested, rows of the first train and validate, its anomalies among those that train unless
    `contamination` says otherwise. Without labels nothing is ranked, and `train_fraction` of the rows train. Nothing is
    ever unpickled.

    Several files of the same columns are one data set, whose rows follow each other in the order of the sorted paths.
    If they stay on disk, each of several processes that train together reads the rows of its own files; see
    `straylight.rows.stretches`.

    With a `resonance` all rows that are where `region` says train as found, and those in the signal region are tested,
    as by `protocol=unsupervised`; of a second file, those of it.

    Args:
        path: `.csv` or `.tsv`, also packed as `.gz`, `.xz`, `.bz2` or `.zip`, whose first line names the columns;
            `.parquet`, `.npz`, `.npy`, `.h5`, `.mat`, `.arff`; or a pattern such as `part-*.parquet`, a folder, or a
            list of these.
        test_path: a second file, or several, of the same columns; one of the two may lack the label.
        features: columns, or the array that holds the features or events; `None` takes all without another role.
        label: the column that says which rows are nominal; `None` if nobody knows.
        nominal: the label, or labels, of nominal rows; each other one is a kind of anomaly.
        context: columns that a density is conditioned on.
        resonance: a column of numbers in which a signal is narrow; a further column of context, and no feature.
        signal_region: its limits, where a signal is looked for.
        region: where training and validation rows are from, if there is a resonance: `signal`, `sidebands`, or `both`.
        weight: the column of event weights.
        group: the column that tells which rows stay on one side of a split.
        meta: columns that are kept beside the scores and that no detector sees: ids, times, names, of any type with one
            value a row, or none. The first in which no two rows are alike says what a row is called in figures.
        categorical: columns of numbers that are one-hot encoded like text.
        unseen: what is done about a row of the second file with a category that no training row has; see
            `straylight.files.fitting.Rules`.
        csv: how a table in text is written; the settings of `straylight.files.dialect.Dialect`.
        common: see `AnomalyDataModule`.

    Raises:
        DataError: if a file is missing, damaged or empty, a column is missing or has two roles, holds what cannot be a
            feature, or is called like a label and has no role; or if there is no row in a region, or the resonance is
            among the features.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> rows = ["bytes,service,attack", *(f"{i},{'http' if i % 2 else 'dns'},{int(i > 7)}" for i in range(10))]
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "mine.csv")
        ...     _ = path.write_text("\\n".join(rows))
        ...     data = File(path=str(path), label="attack", train_fraction=0.75)
        ...     data.setup()
        >>> data.name, data.columns, [len(part) for part in data.splits]
        ('mine', ['bytes', 'service=dns', 'service=http'], [5, 1, 4, 0])
    """

    def __init__(
        self,
        *,
        path: str | Sequence[str] | None = None,
        test_path: str | Sequence[str] | None = None,
        features: Names | None = None,
        label: str | int | None = None,
        nominal: Value | Sequence[Value] = 0,
        context: Names = (),
        resonance: str | int | None = None,
        signal_region: Sequence[float] | None = None,
        region: Region = "both",
        weight: str | int | None = None,
        group: str | int | None = None,
        meta: Names = (),
        categorical: Names = (),
        unseen: Unseen = "other",
        csv: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if path is None:
            raise DataError("say which file: data.path=FILE, of .csv, .tsv, .parquet, .npz, .npy, .h5, .mat or .arff.")
        self._given: Given = path
        self.path, self.test_path = shown(path), None if test_path is None else shown(test_path)
        self._files = {self.path: path} if test_path is None else {self.path: path, self.test_path: test_path}
        self._parts: list[dict[str, Any]] = []
        if self.test_path and self.protocol == "unsupervised":
            raise DataError("data.protocol=unsupervised tests the rows that train; leave data.test_path out.")
        if self.test_path and self.protocol == "dte":
            raise DataError("data.protocol=dte draws the rows that are tested itself; leave data.test_path out.")
        self.features = features if features is None else _names(features)
        self._dialect = Dialect.of(csv)
        self._recipe = Recipe(Roles())
        self.nominal, self.categorical, self.unseen = nominal, _names(categorical), unseen
        Rules.of(None, unseen)
        self.region = region
        columns = self._with_resonance(_name(resonance), signal_region, _names(context))
        self.roles = Roles((), None, _name(label), _name(weight), _name(group), columns, _names(meta))

    @property
    def name(self) -> str:  # type: ignore[override]
        return called(self._given)

    def load(self) -> Splits:
        source = self._source(self.path)
        tested = None if self.test_path is None else self._source(self.test_path)
        self.by_parts = isinstance(source, Several)
        self._parts = [part for file in (source, tested) if isinstance(file, Several) for part in known_parts(file)]
        for file in (source, tested):
            if isinstance(file, Several) and file.empty:
                self.notice(f"{len(file.empty):,} of the files of {file.path} hold no rows.")
        asked = self.roles
        if tested and asked.label is not None and asked.label in tested.names and asked.label not in source.names:
            asked = asked._replace(label=None)  # nobody knows of the rows that train
        roles, left = assign(source, asked, self.features)
        self.roles = roles._replace(label=self.roles.label)
        if left:
            self.notice(
                f"{listed([repr(name) for name in left])} of {self.path.name} ha{'ve' if left[1:] else 's'} no "
                f"role, and no detector sees it; data.meta=[{','.join(left[:3])}] keeps it beside the scores."
            )
        for file in filter(None, (source, tested)):
            file.check_rows(list(roles.features) or [str(roles.array)], self.memory_mb * 2**20)
        table = source.table(roles.others) if roles.others else None
        others = None if tested is None else self._others_tested(tested)
        y, y_tested = self._labels(source, table, tested, others)
        bare = self._bare(source, table, y)
        places = self._places(source, table, bare, tested)
        x = self._features(source, places.train)
        self._centre_context(table, places.train)
        context = self._context(source, table, len(bare))
        if self.resonance is not None:
            refuse_copies(list(self.columns), x, context, self.resonance)
        splits = places.of(replace(bare, x=x, context=context))
        if tested is None:
            return self._looked_at(splits, x)
        test = self._bare(tested, others, y_tested)
        test = replace(test, context=self._context(tested, others, len(test)))
        self._shared_groups(bare, test)
        x_tested, kept = self._tested_features(tested, x)
        test = replace(test, x=x_tested)
        test = test if kept is None else test.take(kept)
        if self.resonance is not None:
            test = test.take(chosen(inside(test.context, self.resonance, "signal", str(tested.path)), "signal"))
        return self._looked_at(splits._replace(test=test), x)

    def recipe(self) -> dict[str, Any]:
        """What turns another file of this kind into events, as plain values: see `Recipe`."""
        self.splits  # noqa: B018, of which the recipe is
        nominal = self.nominal if isinstance(self.nominal, Value) else list(self.nominal)
        recipe = replace(
            self._recipe,
            roles=self.roles,
            medians=self._medians(),
            filled=dict(self.filled),
            columns=list(self.columns),
            csv={name: list(v) if isinstance(v, tuple) else v for name, v in vars(self._dialect).items()},
            nominal=nominal,
            kinds=list(self.kinds),
        ).to_json()
        return {**recipe, "parts": self._parts} if self._parts else recipe

    def check_same(self, kept: Mapping[str, Any]) -> None:
        self.splits  # noqa: B018, of which the parts are
        check_same(kept.get("parts") or [], self._parts)

    def _medians(self) -> dict[str, float]:
        """Those of training rows, by which new rows may be filled in even if no training row lacks a value."""
        if self.medians:
            return dict(self.medians)
        x, _ = self.training_sample(max(1, min(LOOKED_AT, VALUES // math.prod(self.shape))))
        return {self.feature(i): value for i, value in enumerate(np.median(x.flatten(1), 0).tolist())}

    # parts of load

    def _source(self, path: Path) -> Source:
        named = (self.roles.label, self.roles.group, *self.roles.meta, *self.categorical)
        return open_files(
            self._files[path], dialect=self._dialect, as_text=[name for name in named if name is not None]
        )

    def _with_resonance(
        self, name: str | None, signal_region: Sequence[float] | None, context: tuple[str, ...]
    ) -> tuple[str, ...]:
        """The columns of context, the resonance among them."""
        if name is None:
            if signal_region is not None or self.region != "both":
                raise DataError(
                    "data.signal_region and data.region are of a resonance; say in which column it is: "
                    "data.resonance=COLUMN."
                )
            return context
        if signal_region is None:
            raise DataError(
                f"data.resonance={name} needs the limits between which a signal is looked for: "
                "data.signal_region=[LOW,HIGH]."
            )
        checks.one_of("data", Region, region=self.region)
        if self.features and name in self.features:
            raise DataError(
                f"data.features names {name!r}, the resonance, by which a classifier would see the signal region "
                "itself; leave it out of data.features."
            )
        if self.protocol == "dte":
            raise DataError(
                "data.protocol=dte draws rows for training, and with data.resonance all train; leave it out."
            )
        context = context if name in context else (*context, name)
        self.resonance = Resonance.within(signal_region, name, context.index(name))
        if self.test_path is None:  # rows of the sidebands train, and are not tested
            self.protocol = "nominal_only" if self.region == "sidebands" else "unsupervised"
        return context

    def _places(self, source: Source, table: pa.Table | None, bare: Events, tested: Source | None) -> Places:
        """Which rows of the first file go where."""
        if self.resonance is None:
            return self._all_but_tested(bare) if tested else self.divide(bare.y, bare.meta.get("group"))
        with about(source.path):
            context = Recipe(self.roles).context(cast("pa.Table", table))
        there = inside(torch.from_numpy(context), self.resonance, self.region, str(source.path))
        wanted, everyone = chosen(there, self.region), np.arange(len(there))
        if tested:
            # validation is of the law that trains, whatever the labels
            places = self._all_but_tested(replace(bare, y=_unknown(len(bare))))
            return places._replace(train=np.intersect1d(places.train, wanted), val=np.intersect1d(places.val, wanted))
        self._divided = True
        places = Places(wanted, everyone[:0], chosen(there, "signal"), everyone[:0])
        of_region = {"signal": "of the signal region", "sidebands": "of the sidebands", "both": "of the file"}
        self.notice(
            f"all {len(wanted):,} rows {of_region[self.region]} train as found, and the {len(places.test):,} with "
            f"{self.resonance.name} within {limits(self.resonance)} are tested"
            f"{'' if self.region == 'sidebands' else ', which a detector without folds has seen in training'}."
        )
        return places

    def _others_tested(self, tested: Source) -> pa.Table | None:
        """What is no feature of the second file, whose rows may have no labels."""
        label = self.roles.label
        if label is not None and label not in tested.names:
            self.notice(f"{tested.path.name} has no column {label!r}: its rows are scored, and nothing is ranked.")
        names = [name for name in self.roles.others if name != label or name in tested.names]
        return tested.table(names) if names else None

    def _labels(
        self, source: Source, table: pa.Table | None, tested: Source | None, others: pa.Table | None
    ) -> tuple[NDArray | None, NDArray | None]:
        label = self.roles.label
        if label is None:
            return None, None
        held = [(s, t) for s, t in ((source, table), (tested, others)) if s and t and label in t.column_names]
        for s, t in held:
            with about(s.path):
                complete(t[label], label, "label")
        with about(self.path):
            y, kinds = labels([t[label] for _, t in held], label, self.nominal, self.notice)
        self.kinds = tuple(kinds)
        return (y[0], y[1] if len(y) > 1 else None) if held[0][0] is source else (None, y[0])

    def _bare(self, source: Source, table: pa.Table | None, y: NDArray | None) -> Events:
        """What the rows are but for their features."""
        r = self.roles
        of = r.features[0] if r.features else str(r.array)
        rows = source.rows_of(of)
        with about(source.path):
            names = [] if table is None else [name for name in r.meta if name in table.column_names]
            origin = source.origin(of, None if table is None else table.select(names), r.features)
        if table is None:
            return Events.of(np.empty((rows, 0)), _unknown(rows), origin=origin)
        if table.num_rows != rows:
            raise DataError(
                f"{source.path}: {table.column_names[0]!r} has {table.num_rows:,} rows, and the features have {rows:,}."
            )
        with about(source.path):
            meta = {} if r.group is None else {"group": plain(complete(table[r.group], r.group, "group"))}
            weight = None if r.weight is None else numbers(complete(table[r.weight], r.weight, "weight"), r.weight)
            return Events.of(
                np.empty((rows, 0)),
                _unknown(rows) if y is None else y.astype(np.int8) if y.max(initial=0) < 128 else y,
                None,
                None if weight is None else np.array(weight),
                meta,
                origin,
            )

    def _centre_context(self, table: pa.Table | None, train: NDArray) -> None:
        if table is None or not self.roles.context:
            return
        few = np.concatenate(sampled(train, len(self.roles.context)))
        # the resonance stays in its units, in which the signal region is
        names = [n for n in self.roles.context if self.resonance is None or n != self.resonance.name]
        with about(self.path):
            values = {n: numbers(complete(table[n], n, "context").take(few), n, "float64") for n in names}
        centres = {**self._recipe.centres, **of_columns(values, self.notice)}
        self._recipe = replace(self._recipe, centres=centres)

    def _context(self, source: Source, table: pa.Table | None, rows: int) -> Tensor:
        with about(source.path):
            held = None if table is None else self._recipe.context(table)
        return torch.empty(rows, 0) if held is None else torch.from_numpy(held)

    def _all_but_tested(self, bare: Events) -> Places:
        places = nominal_only(
            bare.y,
            seed=self.seed,
            train=1.0,
            val=self.validating(int((np.asarray(bare.y) <= 0).sum())),
            reserve=self.reserve_fraction,
            group=bare.meta.get("group"),
        )
        return places._replace(train=np.sort(np.concatenate([places.train, places.test])), test=np.arange(0))

    def _shared_groups(self, rows: Events, tested: Events) -> None:
        if "group" not in rows.meta:
            return
        shared = len(np.intersect1d(rows.meta["group"], tested.meta["group"]))
        if shared:
            self.notice(f"{shared:,} groups have rows in both data.path and data.test_path.")

    def _features(self, source: Source, train: NDArray) -> Tensor | Mapped:
        """The features of all rows, of which those that train say how they are made."""
        names = self.columns = self.roles.features
        self._recipe = Recipe(self.roles, missing=self.missing_values)
        if not self._encoded(source):
            self._recipe = replace(self._recipe, centres=self._centres(source, train))
            return self._values(source)
        table = source.table(names)
        with about(source.path):
            self._recipe = Recipe.fit(
                table, self.roles, train, categorical=self.categorical, missing=self.missing_values, notice=self.notice
            )
            self.columns = self._recipe.names
            return self._recipe.features([table], self.notice)

    def _tested_features(self, tested: Source, x: Tensor | Mapped) -> tuple[Tensor | Mapped, NDArray | None]:
        """The features of all rows of the second file, as those of the first, `x`, were made; and which are tested."""
        if self._recipe.types:
            tally = Tally()
            rules = Rules.of(None, self.unseen, self.missing_values)
            with about(tested.path):
                found = self._recipe.tested(tested.chunks(self.roles.features, CHUNK), rules, tally)
            tally.tell(self.notice)
            return found
        values = self._values(tested)
        if values.shape[1:] != x.shape[1:]:
            shapes = tuple(values.shape[1:]), tuple(x.shape[1:])
            raise DataError(f"events of {self.test_path} have the shape {shapes[0]}, and of {self.path} {shapes[1]}.")
        return values, None

    def _looked_at(self, splits: Splits, x: Tensor | Mapped) -> Splits:
        """The splits, once it is said what the file's columns are for, and which of them look like something else."""
        if getattr(rank_zero_only, "rank", 0):
            return splits
        for line in self._said():
            log.info(f"{self.name}: {line}")
        if x.ndim == 2:
            names = [self.feature(i) for i in range(x.shape[1])]
            telling(names, x, splits.train.x, splits.test.x, splits.test.y, self.notice)
        return splits

    def _said(self) -> Iterator[str]:
        roles, encoded = self.roles, self._recipe.categories
        numbers = [name for name in roles.features if name not in encoded]
        if roles.array is not None and not roles.features:
            yield f"events {roles.array}"
        if numbers:
            yield f"{len(numbers)} feature{'s' * (len(numbers) > 1)} {listed(numbers)}"
        if encoded:
            counted = [f"{name} ({len(values)})" for name, values in encoded.items()]
            yield f"{sum(map(len, encoded.values()))} features of categories {listed(counted)}"
        given = {"label": roles.label, "weight": roles.weight, "group": roles.group}
        for role, name in {**given, "context": roles.context, "meta": roles.meta}.items():
            if name:
                yield f"{role} {name if isinstance(name, str) else listed(name)}"
        if self.resonance is not None:
            yield f"resonance {self.resonance.name}, signal region {limits(self.resonance)}"

    def _encoded(self, source: Source) -> bool:
        """Whether columns become features one by one; otherwise they are one array, maybe on disk."""
        names, array = self.roles.features, self.roles.array
        if strange := [name for name in self.categorical if name not in names]:
            raise DataError(f"data.categorical names {strange[0]!r}, which is no column among the features.")
        if self.categorical or array is not None:
            return bool(self.categorical)
        large = 4 * source.rows_of(names[0]) * len(names) > self.memory_mb * 2**20
        return not (large and source.convertible and source.numeric(names))

    def _centres(self, source: Source, train: NDArray) -> dict[str, Centre]:
        """The centres of what is read as one array, or as columns into one."""
        array, names = self.roles.array, self.roles.features
        width = len(names) if array is None else math.prod(source.arrays[array][1:])
        runs = sampled(train, width)
        held = source.sample(names if array is None else [array], runs)
        held = held.reshape(len(held), width)
        called = names if array is None else self._called(source, array)
        wanted = set(names or called)
        return of_columns({n: held[:, i] for i, n in enumerate(called) if n in wanted}, self.notice)

    def _called(self, source: Source, array: str) -> list[str]:
        """The names of an array's numbers in an event."""
        return source.array_columns(array) or [str(i) for i in range(math.prod(source.arrays[array][1:]))]

    def _values(self, source: Source) -> Tensor | Mapped:
        array, names, centres = self.roles.array, self.roles.features, self._recipe.centres
        if array is None:
            centre = Centre.of(centres, names, [len(names)])
            return source.on_disk(names, (source.rows_of(names[0]), len(names)), centre)
        centre = Centre.of(centres, self._called(source, array), source.arrays[array][1:])
        x = source.events(array, self.memory_mb * 2**20, centre)
        if list(names) == source.array_columns(array):
            return x
        keep = torch.tensor([source.find(name)[1] for name in names])

        def pick(x: Tensor) -> Tensor:
            return x[:, keep]

        return x.map(pick) if isinstance(x, Mapped) else pick(x)


def _name(given: str | int | None) -> str | None:
    return None if given is None else str(given)


def _unknown(rows: int) -> Tensor:
    """Labels that nobody knows, in the room of one."""
    return torch.full((1,), HIDDEN, dtype=torch.int8).expand(rows)


def _names(given: Names) -> tuple[str, ...]:
    return tuple(map(str, [given] if isinstance(given, str | int) else given))
