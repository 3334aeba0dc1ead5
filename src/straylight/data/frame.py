"""A table or an array in memory: of pandas, polars, pyarrow or numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from straylight.data.file import File
from straylight.errors import DataError
from straylight.files.held import HeldTable, held
from straylight.files.source import Source
from straylight.rows.mapped import Mapped

LABEL = "label"  # what labels are called that stand beside the rows


class Frame(File):
    """Rows that are in memory, split and encoded as those of a file are; see `File`.

    Columns of categories (pandas' `category`, polars' `Enum`) are one-hot encoded, whatever they hold. The columns of
    an array are called `0`, `1` and so on. Several arrays by their names are read as those of NPZ.

    Args:
        frame: a table of pandas, polars or pyarrow; an array of numpy, `(N, D)` or `(N, *shape)`; or arrays by names.
        test: a second one of the same columns, tested as it is.
        name: what the data set is called in tables.
        label: the column that says which rows are nominal, or the labels themselves, `(N,)`.
        roles: what else `File` takes, such as `nominal`, `meta`, `features` and `categorical`.

    Raises:
        DataError: see `File`, and if it is of another kind.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> rows, bad = random.normal(size=(100, 3)), np.arange(100) > 89
        >>> data = Frame(rows, label=bad, seed=0)
        >>> data.setup()
        >>> data.shape, data.kinds, len(data.splits.test)
        ((3,), ('nominal', 'anomaly'), 55)
    """

    def __init__(self, frame: Any, *, test: Any = None, name: str = "frame", label: Any = None, **roles: Any) -> None:
        beside = label is not None and not isinstance(label, str | int)
        if beside and test is not None:
            raise DataError("where a second table is tested, label must be the name of a column, not the labels.")
        if strange := roles.keys() & {"path", "test_path", "csv"}:
            raise DataError(f"{min(strange)} is of files; give their path in the place of the frame.")
        super().__init__(
            path="the frame",
            test_path=None if test is None else "the tested frame",
            label=LABEL if beside else label,
            **roles,
        )
        self._sources = {"the frame": held(frame, "the frame", {LABEL: label} if beside else None)}
        if test is not None:
            self._sources["the tested frame"] = held(test, "the tested frame")
        self._named = name

    @property
    def name(self) -> str:  # type: ignore[override]
        return self._named

    def _source(self, path: Path) -> Source:
        return self._sources[str(path)]

    def _features(self, source: Source, train: NDArray) -> Tensor | Mapped:
        if isinstance(source, HeldTable):
            declared = [n for n in source.categories if n in self.roles.features and n not in self.categorical]
            self.categorical = (*self.categorical, *declared)
        return super()._features(source, train)
