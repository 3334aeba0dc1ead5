"""The ADBench collection: one `.npz` file with arrays `X` and `y` per data set."""

from pathlib import Path
from typing import Any

import numpy as np

from straylight.data.stored import Remote, Stored
from straylight.errors import DataError
from straylight.rows.batch import Events, Splits
from straylight.rows.origin import Origin

SOURCE = "https://github.com/Minqi824/ADBench/raw/3dac8221081e190f157d78e93bfa8867f90d0965/adbench/datasets/Classical/"


class ADBench(Stored):
    """A tabular data set of the ADBench collection, or any `.npz` with `X` of shape (N, D) and `y` of shape (N,).

    By the collection's one-class protocol: half of the nominal rows train and validate, all others are tested. Shape
    (D,). `protocol=dte` has the rows of published tables; see `straylight.data.steps.dte`.

    References:
        S. Han et al., ADBench: anomaly detection benchmark, NeurIPS 2022, arXiv:2206.09426

    Args:
        name: the file's name without `.npz`, with or without its number: `6_cardio` or `cardio`.
        root: the folder of the files.
        path: a file, instead of name and root.
        download: fetch the data set if it is missing and one of those in `adbench.sha256`.
        max_rows: more rows than these are drawn from by seed; `None` keeps all.
        common: see `AnomalyDataModule`.

    Raises:
        DataError: if the file is missing or is no such `.npz`, or a label is neither 0 (nominal) nor positive.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        root: str | None = None,
        path: str | None = None,
        max_rows: int | None = 50_000,
        **common: Any,
    ) -> None:
        if path is None and (name is None or root is None):
            raise DataError(
                "say which data set: data.name=6_cardio (a file in paths.data/adbench), or data.path=FILE.npz."
            )
        if max_rows is not None and max_rows < 2:
            raise DataError(f"data.max_rows must be null or at least 2, not {max_rows}.")
        self.path = Path(path) if path is not None else _find(Path(str(root)), str(name))
        self.max_rows = max_rows
        super().__init__(root=str(self.path.parent), **common)
        if path is None:
            self.remotes = [Remote(SOURCE + file, file, f"sha256:{digest}") for file, digest in _sums().items()]

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.path.stem

    @property
    def fetched_as(self) -> str:
        return f"adbench data.name={self.name}"

    def files(self) -> list[Path]:
        return [self.path]

    def load(self) -> Splits:
        self.require()
        x, y = _read(self.path)
        origin = Origin.of(self.path, len(x))
        if self.max_rows is not None and len(x) > self.max_rows and self.protocol != "dte":  # which draws by itself
            rows = np.sort(np.random.default_rng([self.seed, 3]).permutation(len(x))[: self.max_rows])
            x, y, origin = x[rows], y[rows], origin.take(rows)
        if y.max(initial=0) > 1:
            self.kinds = ("nominal", *(str(k) for k in range(1, int(y.max()) + 1)))
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and named as such
            x = x.astype(np.float32)
        return self.split(Events.of(x, y, origin=origin))


def _find(root: Path, name: str) -> Path:
    present = {path.stem: path for path in sorted(root.glob("*.npz"))}
    known = {file.removesuffix(".npz"): root / file for file in _sums()} | present
    if name in known:
        return known[name]
    for stem, path in known.items():
        if stem.partition("_")[2].lower() == name.lower():
            return path
    if name == "all" and present:
        raise DataError(f"data.name=all takes every data set of {root}, one after the other: add -m.")
    if name == "all":
        raise DataError(f"data.name=all: no .npz file is in {root}; set paths.data to the folder that holds adbench/.")
    here = f"it holds {', '.join(present)}" if present else "no .npz file is there"
    raise DataError(
        f"ADBench data set {name!r} is not in {root} ({here}); put {name}.npz there, set paths.data to the folder that "
        "holds adbench/, or give data.path=FILE.npz."
    )


def _sums() -> dict[str, str]:
    """The checksum of each file that can be fetched."""
    lines = Path(__file__).with_name("adbench.sha256").read_text(encoding="utf-8").splitlines()
    return {file: digest for digest, file in (line.split() for line in lines)}


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged archive fails in many ways, and numpy's advice to trust it is bad
        raise DataError(f"{path} cannot be read as an .npz file of plain arrays ({type(error).__name__}).") from error
    for wanted, what in (("X", "features"), ("y", "labels")):
        if wanted not in arrays:
            raise DataError(
                f"{path} has no array {wanted!r} for the {what}; it holds {', '.join(arrays) or 'nothing'}."
            )
    x, y = arrays["X"], arrays["y"].ravel()
    if x.ndim != 2 or not x.shape[1] or len(x) != len(y):
        raise DataError(
            f"{path} must hold X of shape (N, D) and y of shape (N,), not {x.shape} and {arrays['y'].shape}."
        )
    if x.dtype.kind not in "biuf" or y.dtype.kind not in "biuf":
        raise DataError(f"{path} must hold numbers, not X of {x.dtype} and y of {y.dtype}.")
    if not np.isfinite(y).all() or (y != np.floor(y)).any() or (y < 0).any():
        raise DataError(f"{path} must label nominal rows 0 and anomalies 1 (or 1..K), not {np.unique(y)[:5].tolist()}.")
    return x, y.astype(np.int64)
