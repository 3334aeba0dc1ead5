"""MAT files: version 7.3, which is HDF5 with the axes the other way round, and those before it, which scipy reads."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from straylight.files.hdf5 import own

#: What MATLAB calls arrays of numbers.
NUMBERS = {"double": "f8", "single": "f4", "logical": "?"}
NUMBERS |= {name: name for sign in ("", "u") for bits in (8, 16, 32, 64) for name in [f"{sign}int{bits}"]}


class Turned:
    """A data set of version 7.3, read by slices of its last axis, which MATLAB calls the first.

    Args:
        item: the data set, `(*shape, N)` reversed.
    """

    chunks = None

    def __init__(self, item: Any) -> None:
        self._item, self.dtype, self.shape = item, item.dtype, item.shape[::-1]

    def __getitem__(self, rows: slice) -> NDArray:
        return np.asarray(self._item[..., rows]).T


class Whole:
    """An array of a version before 7.3, read whole when it is asked for.

    Args:
        path: the file.
        name, shape, dtype: of the array.
    """

    chunks = None

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self._path, self._name, self.shape, self.dtype = path, name, shape, np.dtype(dtype)

    def __getitem__(self, rows: slice) -> NDArray:
        return self._held[rows]

    @cached_property
    def _held(self) -> NDArray:
        import scipy.io

        return scipy.io.loadmat(self._path, variable_names=[self._name])[self._name]


@contextmanager
def arrays(path: Path) -> Iterator[Mapping[str, Any]]:
    """The arrays of numbers in a MAT file by their names, `(N, *shape)`; cells, structures and texts are left out."""
    import h5py
    import scipy.io

    if not h5py.is_hdf5(path):
        yield {n: Whole(path, n, shape, NUMBERS[k]) for n, shape, k in scipy.io.whosmat(path) if k in NUMBERS}
        return
    with h5py.File(path) as file:
        items = {name: own(file, item) for name, item in file.items() if isinstance(item, h5py.Dataset)}
        words = {name for name, item in items.items() if item.attrs.get("MATLAB_class") in (b"char", b"cell")}
        yield {n: Turned(item) for n, item in items.items() if n not in words and item.dtype.kind in "biuf"}
