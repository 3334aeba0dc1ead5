"""What is made of a file once, and kept for the next time."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from straylight.atomic import write_json
from straylight.errors import DataError

log = logging.getLogger(__name__)
STAMP = "source.json"


def converted(path: Path, made_as: str, make: Callable[[Path], None]) -> Path:
    """The folder with what `make` writes of a file; made anew when the file has changed since.

    It lies in `.straylight` beside the file, or, where nothing can be written there, in the user's cache folder
    (`STRAYLIGHT_CACHE`, otherwise `~/.cache/straylight` on Linux). Beside what was made stands the file's SHA-256,
    which is computed again only if the file's size or time of change differ. An interrupted conversion leaves
    nothing, and of two at once one is kept.

    Args:
        path: the file.
        made_as: what is made of it, with a number that changes when the way of making it does.
        make: writes into the folder that it is given.

    Raises:
        DataError: if nothing can be written, neither beside the file nor in the cache folder.
    """
    from filelock import FileLock

    place = _place(path) / f"{path.name}.{made_as}"
    if _made_of(path, place):
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f".{place.name}.lock")):  # the system's: it ends with the process
            if not _made_of(path, place):  # by whoever held it before
                log.info(f"{path} is converted to {place}, once.")
                _convert(path, place, make)
    except OSError as error:
        if error.filename in (None, str(path)):
            raise
        raise DataError(
            f"{path} has to be converted once, but {place.parent} cannot be written to ({error.strerror}); set "
            "STRAYLIGHT_CACHE to a folder that can."
        ) from error
    return place


def _convert(path: Path, place: Path, make: Callable[[Path], None]) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        before = path.stat()
        made = temporary / "made"
        made.mkdir()
        make(made)
        _stamp(made, before, sha256(path))
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise DataError(f"{path} changed while it was being converted; try again when it is whole.")
        if place.exists():
            place.rename(temporary / "old")  # whoever reads it still can
        made.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _stamp(folder: Path, source: os.stat_result, digest: str) -> None:
    stamp = {"size": source.st_size, "mtime_ns": source.st_mtime_ns, "sha256": digest}
    write_json(folder / STAMP, stamp)


def sha256(path: Path) -> str:
    """The checksum of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _made_of(path: Path, place: Path) -> bool:
    try:
        stamp = json.loads((place / STAMP).read_text(encoding="utf-8"))
        now = path.stat()
        if (now.st_size, now.st_mtime_ns) == (stamp["size"], stamp["mtime_ns"]):
            return True
        if now.st_size != stamp["size"] or sha256(path) != stamp["sha256"]:
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    with contextlib.suppress(OSError):  # a stamp of another time costs the next one a checksum
        _stamp(place, now, stamp["sha256"])
    return True


def _place(path: Path) -> Path:
    chosen = os.environ.get("STRAYLIGHT_CACHE")
    beside = path.parent / ".straylight"
    if not chosen and os.access(beside if beside.exists() else path.parent, os.W_OK):  # another may make it now
        return beside
    import pooch

    folder = hashlib.sha256(str(path.parent.resolve()).encode()).hexdigest()[:12]
    return Path(chosen or pooch.os_cache("straylight")).expanduser() / folder
