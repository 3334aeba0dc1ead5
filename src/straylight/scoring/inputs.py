"""Which files are to be scored: paths, patterns, folders, and standard input."""

from __future__ import annotations

import glob
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from straylight.errors import DataError
from straylight.files.dialect import PACKED
from straylight.files.formats import FORMATS, stem

STDIN = "-"
#: How a file of each format begins; anything else is a table in text.
BEGINS = {
    b"PAR1": ".parquet",
    b"\x93NUMPY": ".npy",
    b"PK\x03\x04": ".npz",
    b"\x89HDF\r\n": ".h5",
    b"\x1f\x8b": ".csv.gz",
}


class Input(NamedTuple):
    """A file to score.

    Attributes:
        path: where it is read.
        shown: what it is called.
        name: below an output folder, without an ending.
    """

    path: Path
    shown: str
    name: str

    def identity(self) -> list[object]:
        """What tells it from the same path with other contents."""
        known = self.path.stat()
        return [self.shown, known.st_size, known.st_mtime_ns]


def gathered(given: Sequence[str], stdin: IO[bytes], scratch: Path, but: Path | None = None) -> list[Input]:
    """The files that are meant, in their order, each once.

    Args:
        given: paths, patterns such as `days/*.parquet`, folders, of which all files of known formats are meant, below
            them, too, and `-`.
        stdin: what `-` is read from.
        scratch: a folder into which it is copied.
        but: an output folder, whose files are none of them.

    Raises:
        DataError: if there is no such file, or two would be written to one name.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = [Path(folder, name).write_text("a\\n1\\n") for name in ("one.csv", "two.csv", "notes.txt")]
        ...     [found.name for found in gathered([folder], None, None)]
        ['one', 'two']
    """
    found: dict[str, Input] = {}
    for text in given:
        if text == STDIN:
            path = _copied(stdin, scratch)
            found[STDIN] = Input(path, STDIN, "stdin")
            continue
        path = Path(text)
        if path.is_dir():
            inside = [one for one in sorted(path.rglob("*")) if _known(one) and not (but and one.is_relative_to(but))]
            if not inside:
                raise DataError(f"{path} holds no file of a known format; they are {', '.join(FORMATS)}.")
            found |= {str(one): Input(one, str(one), _named(one.relative_to(path))) for one in inside}
        elif path.exists() or not glob.has_magic(text):
            if not path.is_file():
                raise DataError(f"there is no file {path}.")
            found[str(path)] = Input(path, str(path), stem(path))
        else:
            found_here = glob.glob(text, recursive=True)  # noqa: PTH207, whatever its root is
            matching = [Path(one) for one in sorted(found_here)]
            files = [one for one in matching if one.is_file() and not (but and one.is_relative_to(but))]
            if not files:
                raise DataError(f"no file is called like {text}.")
            root = _root(text)
            found |= {str(one): Input(one, str(one), _named(one.relative_to(root))) for one in files}
    inputs = list(found.values())
    if twice := [name for name, times in Counter(one.name for one in inputs).items() if times > 1]:
        same = [one.shown for one in inputs if one.name == twice[0]]
        raise DataError(
            f"{same[0]} and {same[1]} are both called {twice[0]!r}, and their scores would be; give the folder above "
            "them, or score one after the other."
        )
    return inputs


def _known(path: Path) -> bool:
    ending = Path(path.name.removesuffix(path.suffix)).suffix if path.suffix.lower() in PACKED else path.suffix
    hidden = any(part.startswith(".") for part in path.parts if part not in (".", ".."))
    return path.is_file() and ending.lower() in FORMATS and not hidden


def _root(pattern: str) -> Path:
    """The folders before the first part with a mark."""
    parts = Path(pattern).parts
    plain = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:plain])


def _named(path: Path) -> str:
    return str(path.with_name(stem(path)))


def _copied(stdin: IO[bytes], scratch: Path) -> Path:
    """Standard input as a file, whose format is known by how it begins."""
    scratch.mkdir(parents=True, exist_ok=True)
    first = stdin.read(8)
    ending = next((ending for mark, ending in BEGINS.items() if first.startswith(mark)), ".csv")
    path = scratch / f"stdin{ending}"
    with path.open("wb") as file:
        file.write(first)
        shutil.copyfileobj(stdin, file, 2**20)
    if not path.stat().st_size:
        raise DataError("standard input is empty.")
    return path
