"""Whose a sweep's folder is while a sweep runs in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from straylight.errors import ConfigError


@contextmanager
def held(folder: Path, alone: bool) -> Iterator[None]:
    """Hold a sweep's folder: new sweeps share one, since each job takes a folder of its own in it; one that is resumed
    has it `alone`, so that no job is gone on with that still runs. The kernel lets go for a process that dies.

    Raises:
        ConfigError: if a sweep that does not go together with this runs in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise ConfigError(f"A sweep is running in {folder}; wait for its end, or end it, before another.") from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(file)
