"""A file is there whole or not at all, whoever else writes it and whenever the power goes."""

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

RUN = "straylight.run"  # in the metadata of a table


@contextmanager
def replacing(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """A file to write in the place of `path`, of the same ending and in the same folder, which is made if need be.

    It takes the place when the block ends, after it has reached the disk; if the block fails, what was there stays.
    Each writer has a file of its own, so that of several at once one wins and none is mixed with another. What can be
    made again need not be `durable`, that is wait for the disk.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with replacing(f"{folder}/it.txt") as aside:
        ...         _ = aside.write_text("whole")
        ...     [(path.name, path.read_text()) for path in Path(folder).iterdir()]
        [('it.txt', 'whole')]
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{secrets.token_hex(6)}{path.suffix}")
    try:
        yield aside
        take_place(aside, path, durable=durable)
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(path)  # which a write that fails does not tell
        raise
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()


@contextmanager
def replacing_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to write in the place of another, which it takes when the block ends; one that fails leaves nothing.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as place:
        ...     for text in ("one", "two"):
        ...         with replacing_folder(f"{place}/it") as aside:
        ...             _ = (aside / "what.txt").write_text(text)
        ...     [path.name for path in Path(place).iterdir()], Path(place, "it", "what.txt").read_text()
        (['it'], 'two')
    """
    path = Path(folder).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(6)
    aside, before = path.with_name(f".{path.name}.{token}"), path.with_name(f".{path.name}.{token}.before")
    aside.mkdir()
    try:
        yield aside
        with suppress(FileNotFoundError):
            path.replace(before)
        try:
            aside.replace(path)
        except OSError:
            with suppress(OSError):
                before.replace(path)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def take_place(aside: Path, path: Path, *, durable: bool = True) -> None:
    """Let a file that is whole take its place, in whose file system it is, once it has reached the disk if it must."""
    if durable:
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
    aside.replace(path)


def write_json(path: str | Path, value: Mapping[str, Any], *, durable: bool = True) -> None:
    """Write plain values; a number that JSON does not have, a NaN or an infinity, becomes null."""
    with replacing(path, durable=durable) as aside:
        aside.write_text(json.dumps(_plain(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_table(path: str | Path, columns: Mapping[str, Any], run: str | None = None) -> None:
    """Write columns as Parquet; `run` is kept in its metadata and read back by `table_run`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(dict(columns))
    if run is not None:
        table = table.replace_schema_metadata({RUN: run})
    with replacing(path) as aside:
        pq.write_table(table, aside, compression="zstd")


def table_run(table: Any) -> str | None:
    """The run that a table read from Parquet was written by; `None` if it does not say."""
    said = (table.schema.metadata or {}).get(RUN.encode())
    return None if said is None else said.decode()


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value
