"""What a file says that it holds, compared with the file and with the machine before any of it is read."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from straylight.errors import DataError

PACKED = 2000  # bytes that one byte of a file may stand for; deflate reaches 1,032
SMALL = 2**26  # bytes of which nothing is said
#: Where Linux says what a container may take, takes, and has of that in files that it reads, by both versions.
GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
CACHED = ("inactive_file", "active_file")  # which is given up where it is needed


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of the group that it is limited by."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for group, limit, used in GROUPS:
        try:
            most, now = (int(Path(group, name).read_text(encoding="ascii")) for name in (limit, used))
            lines = (line.split() for line in Path(group, "memory.stat").read_text(encoding="ascii").splitlines())
            cached = sum(int(value) for name, value in lines if name in CACHED)
        except (OSError, ValueError):  # there is none, or it is `max`
            continue
        free = min(free, max(0, most - now + cached))
    return free


def check(path: Path, what: str, declared: int, held: int, *, on_disk: bool = False, size: int | None = None) -> None:
    """Make sure that what a file declares can be true, and that there is room for it.

    Args:
        path: the file.
        what: is read of it, for the error.
        declared: bytes of it in the file, unpacked.
        held: bytes that it takes here.
        on_disk: whether it is copied to the disk, beside the file, and not held in memory.
        size: bytes of the file, or of all files that are one.

    Raises:
        DataError: if a file as small cannot hold it, or it takes more than is free.
    """
    size = path.stat().st_size if size is None else size
    if declared > max(SMALL, PACKED * size):
        raise DataError(
            f"{path} declares {_bytes(declared)} in {what}, which a file of {_bytes(size)} does not hold: it is "
            "damaged, or was never filled."
        )
    free = shutil.disk_usage(path.parent).free if on_disk else free_memory()
    if held > max(SMALL, free):
        where = "on the disk" if on_disk else "in memory"
        raise DataError(
            f"{path} has {what} of {_bytes(held)}, and {_bytes(free)} are free {where}; list fewer columns in "
            "data.features, or take fewer rows."
        )


@contextmanager
def counted(file: IO[bytes], path: Path) -> Iterator[Any]:
    """A file that is unpacked into memory as it is read, as long as there is room for it."""
    yield _Counted(file, path, max(SMALL, free_memory()))


class _Counted:
    """What pyarrow needs of a file.

    Raises:
        DataError: from `read`, once more was read than may be.
    """

    closed = False

    def __init__(self, file: IO[bytes], path: Path, most: int) -> None:
        self._file, self._path, self._most, self._read = file, path, most, 0

    def read(self, size: int = -1) -> bytes:
        part = self._file.read(size)
        self._read += len(part)
        if self._read > self._most:
            raise DataError(
                f"{self._path} unpacks to more than {_bytes(self._most)}, which is all that is free in memory; take "
                "fewer rows, or write it as Parquet, which is read in pieces."
            )
        return part

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
