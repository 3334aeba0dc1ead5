"""The journal of a search: all that its trials are and reach, in one file that several processes write to.

Who searches asks for trials and is told of them here; a run that may be pruned reports what its validation reads, from
whichever process or machine that sees the file.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection

from straylight.checks import meant
from straylight.errors import ConfigError

NAME = "search.journal"
STUDY = "search"
BROKEN_S = 30.0  # after which a lock that nobody has renewed is one of a process that has died
LONGEST_S = 120.0  # to wait for others in all
PRUNERS: Mapping[str, Any] = {"asha": optuna.pruners.SuccessiveHalvingPruner, "median": optuna.pruners.MedianPruner}

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Lock(JournalFileSymlinkLock):
    """A link beside the journal while one process writes; making one is atomic on shared disks, too.

    Args:
        path: of the journal.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, path.with_name(f"{path.name}.lock")

    def acquire(self) -> bool:
        """Wait for the others.

        Raises:
            ConfigError: if they do not come to an end.
        """
        began = since = time.monotonic()
        seen, pause = None, 0.001
        while True:
            try:
                self.lock.symlink_to(self.path.name)
                return True
            except FileExistsError:
                pass
            now = time.monotonic()
            if (found := self._made()) != seen:
                seen, since = found, now
            elif now - since > BROKEN_S:
                with suppress(OSError):
                    self.release()
            if now - began > LONGEST_S:
                raise ConfigError(
                    f"{self.path} is locked by another process; end it, or remove {self.lock} if there is none, and "
                    f"go on with straylight train -m resume={self.path.parent}."
                )
            time.sleep(pause)
            pause = min(2 * pause, 0.1)

    def release(self) -> None:
        self.lock.unlink(missing_ok=True)

    def _made(self) -> int | None:
        try:
            return self.lock.lstat().st_mtime_ns
        except OSError:
            return None


class Backend(JournalFileBackend):
    """The file, written without waiting for the disk at each of the lines that a trial takes; what a process that was
    killed has left of a line is taken away by the next that writes one.

    A process that is killed loses nothing by that; for where a machine is, there is `settle`.

    Args:
        path: of the journal.
        lock: that of all who write to it.
    """

    def __init__(self, path: Path, lock: Lock) -> None:
        super().__init__(str(path), lock)
        self.path, self.lock = path, lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self.lock.acquire()
        try:
            with self.path.open("r+b") as file:
                file.seek(self._whole(file))
                file.truncate()
                file.write(lines.encode())
        finally:
            self.lock.release()

    @staticmethod
    def _whole(file: BinaryIO) -> int:
        """Where the last line ends: what stands behind it was being written when its writer was killed."""
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read(1) in (b"\n", b""):
            return size
        file.seek(0)
        return file.read().rfind(b"\n") + 1

    def settle(self) -> None:
        """Wait until the disk has all that was written."""
        with self.path.open("ab") as file:
            os.fsync(file.fileno())


class Journal(JournalStorage):
    """A journal as Optuna takes it.

    Args:
        backend: its file.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.settle = backend.settle


def opened(path: Path) -> Journal:
    """The journal, made if it is not there.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        return Journal(Backend(path, Lock(path)))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no journal of a search, or damaged: {' '.join(str(error).split())}") from error


def study(journal: Journal, *, directions: list[StudyDirection] | None = None, pruner: Any = None) -> optuna.Study:
    """The search of a journal; if directions are given and there is none, it is begun.

    Raises:
        ConfigError: if the journal holds none.
    """
    pruner = pruner or optuna.pruners.NopPruner()
    if directions is not None:
        return optuna.create_study(
            storage=journal, study_name=STUDY, directions=directions, pruner=pruner, load_if_exists=True
        )
    try:
        return optuna.load_study(storage=journal, study_name=STUDY, pruner=pruner)
    except KeyError as error:
        raise ConfigError("The journal holds no search.") from error


def pruner_of(name: str | None, options: Mapping[str, Any]) -> Any:
    """What ends trials that fall behind others; `None` if nothing does.

    Raises:
        ConfigError: if there is none of that name, or it does not take an option.

    Example:
        >>> type(pruner_of("median", {"n_startup_trials": 3})).__name__
        'MedianPruner'
    """
    if name is None:
        return None
    return of("hydra.sweeper.pruner", PRUNERS, name, options)


def of(key: str, known: Mapping[str, Any], name: str, options: Mapping[str, Any], **given: Any) -> Any:
    """One of Optuna's classes by the name that it has here, with its options.

    Args:
        key: where it was asked for.
        known: the classes by name.
        name: of one.
        options: as typed.
        given: what it is given besides.

    Raises:
        ConfigError: if there is none of that name, or it does not take an option or its value.
    """
    if name not in known:
        raise ConfigError(f"{key} is one of {', '.join(known)}, not {name!r}{meant(str(name), known)}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return known[name](**given, **options)
    except (TypeError, ValueError) as error:
        said = " ".join(str(error).split()).rpartition("__init__() ")[2]
        raise ConfigError(f"{key}={name} does not take {key}_options={dict(options)!r}: {said}.") from error
