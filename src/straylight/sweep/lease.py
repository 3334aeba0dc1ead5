"""Whose a folder is while a run or a sweep goes on in it, as every machine that sees the folder can tell."""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from straylight.atomic import write_json
from straylight.errors import ConfigError

RENEWED_S = 15.0  # between two signs of life
SILENT_S = 90.0  # after which a holder on another machine counts as dead


@contextmanager
def leased(folder: Path, alone: bool, what: str = "sweep") -> Iterator[None]:
    """Hold the folder of a sweep or a run: new sweeps share one, since each job takes a folder of its own in it; a run,
    and a sweep that is resumed, have theirs `alone`, so that nothing is gone on with that still runs.

    A holder is a file in the folder whose time is renewed. One that has died is known by its process on the same
    machine, and by its silence on another; its jobs may live on, and are asked for by their ids.

    Raises:
        ConfigError: if something that does not go together with this runs in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mine = folder / f".lease.{secrets.token_hex(6)}"
    me = {"host": socket.gethostname(), "pid": os.getpid(), "born": psutil.Process().create_time(), "alone": alone}
    write_json(mine, me, durable=False)
    now = mine.stat().st_mtime  # by the clock of who keeps the files
    for other in folder.glob(".lease.*"):  # two that begin at once see each other, and both give up
        if other.name == mine.name:
            continue
        if not _alive(other, now):
            other.unlink(missing_ok=True)
        elif alone or _read(other).get("alone"):
            mine.unlink()
            raise ConfigError(f"A {what} is running in {folder}; wait for its end, or end it, before another.")
    over = threading.Event()
    renewing = threading.Thread(target=_renew, args=(mine, over), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()
        with suppress(OSError):
            mine.unlink()


def held(folder: Path) -> bool:
    """Whether somebody holds a folder."""
    return any(_alive(lease, time.time()) for lease in folder.glob(".lease.*"))


def _renew(lease: Path, over: threading.Event) -> None:
    while not over.wait(RENEWED_S):
        with suppress(OSError):  # another time
            os.utime(lease)


def _read(lease: Path) -> dict:
    try:
        return dict(json.loads(lease.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _alive(lease: Path, now: float) -> bool:
    held = _read(lease)
    if held.get("host") == socket.gethostname():
        try:
            return abs(psutil.Process(held["pid"]).create_time() - held["born"]) < 1
        except (psutil.Error, KeyError, TypeError):
            return False
    try:
        return now - lease.stat().st_mtime < SILENT_S
    except OSError:
        return False
