"""Files of particles: HDF5 of the ADC2021 challenge, read once in whole chunks and kept as memory maps.

`N` events; `P` = 19 particles of `F` = 3 features, pT [GeV], eta and phi.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from straylight.errors import DataError
from straylight.files.cache import converted
from straylight.files.hdf5 import own
from straylight.rows.batch import Events
from straylight.rows.mapped import Mapped
from straylight.rows.origin import Origin

LAYOUT = (("MET", 1), ("electron", 4), ("muon", 4), ("jet", 10))
PARTICLES = tuple(f"{kind} {n}" if most > 1 else kind for kind, most in LAYOUT for n in range(1, most + 1))
FEATURES = ("pT", "eta", "phi")
ROWS = 65536  # events read together, in whole chunks of the file
#: Arrays that a file may hold, and which part of the data each is.
PARTS = {"Particles": "all", "Data": "all", "X_train": "train", "X_val": "val", "X_test": "test"}
#: Columns beside `Particles` that become `meta`.
COLUMNS = {"Group": "group", "Process": "process"}


def particles(path: Path) -> dict[str, Events]:
    """The events of a file by their part: `all`, or `train`, `val` and `test` where it was split before.

    `Particles` is (N, 19, 4), pT, eta, phi and a class that is left out; files that were split before hold `X_train`,
    `X_val` and `X_test`, or `Data`, of 57 columns or (19, 3). Events are `(19, 3)`, nominal, and stay on disk.

    Raises:
        DataError: if the file is damaged or of another layout.
    """
    folder = converted(path, "particles-1", lambda target: _convert(path, target))
    found = {}
    for part in dict.fromkeys(PARTS.values()):
        if (folder / f"{part}.npy").is_file():
            names = {name for name in COLUMNS.values() if (folder / f"{part}.{name}.npy").is_file()}
            meta = {name: np.load(folder / f"{part}.{name}.npy") for name in sorted(names)}
            x = Mapped.open(folder / f"{part}.npy")
            found[part] = Events.of(x, meta=meta, origin=Origin.of(path, len(x)))
    if len(found) > 1:  # the rows of each part are counted by themselves
        arrays = {part: name for name, part in PARTS.items()}
        found = {p: replace(e, origin=Origin.of(f"{path}/{arrays[p]}", len(e))) for p, e in found.items()}
    return found


def padding(x: Tensor) -> Tensor:
    """Which slots are empty, `(B, ..., P * 3)` or `(B, ..., P, 3)` to `(B, P)`: all three features are zero.

    Example:
        >>> import torch
        >>> padding(torch.tensor([[20., 0.1, 2., 0., 0., 0.]])).tolist()
        [[False, True]]
    """
    return (x.flatten(1).unflatten(1, (-1, len(FEATURES))) == 0).all(2)


def _convert(path: Path, target: Path) -> None:
    import h5py

    try:
        with h5py.File(path) as file:
            arrays = _arrays(path, file)
            for name, array in arrays.items():
                _copy(array, target / f"{PARTS[name]}.npy")
            for name, column in COLUMNS.items():
                if name in file and "Particles" in arrays:
                    _check_column(path, name, own(file, file[name]), len(arrays["Particles"]))
                    np.save(target / f"all.{column}.npy", file[name][:])
    except (OSError, RuntimeError, KeyError) as error:  # what h5py raises of a damaged file
        if isinstance(error, OSError) and error.errno is not None and error.filename != str(path):
            raise  # nothing of the file's: a full disk
        said = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as an HDF5 file ({said}): it may be damaged.") from error


def _arrays(path: Path, file: Any) -> dict[str, Any]:
    """The arrays of events in a file: one of all events, or one for each part."""
    arrays = {name: own(file, file[name]) for name in PARTS if name in file and hasattr(file[name], "shape")}
    if not arrays:
        raise DataError(
            f"{path} holds no array Particles of shape (N, 19, 4), nor X_train, X_val, X_test or Data of 57 columns; "
            f"it holds {', '.join(file) or 'nothing'}."
        )
    if {"Particles", "Data"} <= set(arrays):
        raise DataError(f"{path} holds both Particles and Data, so that it is not clear which are its events.")
    if "Particles" in arrays:  # parts beside it are of the same events
        arrays = {"Particles": arrays["Particles"]}
    for name, array in arrays.items():
        _check_shape(path, name, array)
    return arrays


def _check_column(path: Path, name: str, column: Any, events: int) -> None:
    if getattr(column, "shape", None) != (events,) or column.dtype.kind not in "iu":
        of = f"{column.dtype} of shape {column.shape}" if hasattr(column, "dtype") else "no array"
        if getattr(column, "shape", None) and len(column.shape) == 1:
            of = f"{len(column)} of {name}, {column.dtype}"
        raise DataError(f"{path} holds {events} events and must hold a whole number of {name} for each, not {of}.")


def _check_shape(path: Path, name: str, array: Any) -> None:
    slots = len(PARTICLES)
    wanted = ((slots, 4),) if name == "Particles" else ((slots * 3,), (slots, 3), (slots, 3, 1))
    shape = array.shape
    if shape is None or shape[1:] not in wanted or array.dtype.kind not in "iuf":
        raise DataError(
            f"{path} must hold {name}, numbers of shape {' or '.join(f'(N, {str(w)[1:]}' for w in wanted)}, not "
            f"{array.dtype} of shape {shape}."
        )


def _copy(array: Any, target: Path) -> None:
    """Read whole chunks, as many as make some 65,536 events, and write the three features of each particle."""
    out = np.lib.format.open_memmap(target, "w+", np.float32, (len(array), len(PARTICLES), 3))
    chunk = array.chunks[0] if array.chunks else 1
    step = chunk * max(1, ROWS // chunk)
    for start in range(0, len(array), step):
        block = array[start : start + step]
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and named as such
            out[start : start + step] = block.reshape(len(block), len(PARTICLES), -1)[..., :3]
    out.flush()
