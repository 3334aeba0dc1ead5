"""Every run below a folder as a row: what it was configured to, and what it reached."""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from straylight.atomic import write_table
from straylight.documents import in_parts, parsed
from straylight.folder import RunFolder
from straylight.report.arrow import array
from straylight.runtimes import shared

log = logging.getLogger(__name__)
SAID = ("folder", "status", "reason")  # of how it went
FIELDS = (*SAID, "detector", "data", "seed", "config_hash", "variant", "duration_s", "parameters", "truth")
TIMES = ("p50_us", "p99_us", "events_per_s")


def write_parquet(results: Iterable[Mapping[str, Any]], path: Path) -> None:
    """`runs.parquet`: of every run its folder, seen from the file, its fields, `config.*` as composed, `metrics.*`, and
    `latency.RUNTIME.*` of each batch; `shared` says whether others used the machine while it was timed.

    A column whose values differ in type holds them as JSON.
    """
    columns: dict[str, list[Any]] = {}
    runs = 0
    for result in results:
        for name, value in _row(result, _text(os.path.relpath(result["folder"], path.parent))).items():
            columns.setdefault(name, []).extend([None] * (runs - len(columns[name])) + [value])
        runs += 1
    write_table(path, {name: array(_column(found + [None] * (runs - len(found)))) for name, found in columns.items()})


def _row(result: Mapping[str, Any], folder: str) -> dict[str, Any]:
    row = {name: result.get(name) for name in FIELDS} | {"folder": folder}
    saved = RunFolder(result["folder"]).config
    if saved.is_file():
        try:
            row |= _config(saved.read_bytes())
        except (OSError, ValueError) as error:
            log.warning(f"{saved} cannot be read: {error}.")
    row |= {f"metrics.{name}": value for name, value in result.get("metrics", {}).items()}
    for entry in result.get("latency", []):
        if entry.get("scaling", True):
            row |= {f"latency.{entry['runtime']}.{name}@{entry['batch']}": entry.get(name) for name in TIMES}
            row["shared"] = shared(result)
    return row


def _config(text: bytes) -> Mapping[str, Any]:
    """A config, flat. Hundreds of them have most of their parts in common, which are read once."""
    try:
        parts = [_part(part) for part in in_parts(text)]
    except ValueError:
        parts = []
    keys = [key for own, _ in parts for key in own]
    if all(len(own) == 1 for own, _ in parts) and len({*keys}) == len(parts) > 0:
        return {name: value for _, flat in parts for name, value in flat.items()}
    return _flat("config", parsed(text))


@lru_cache(maxsize=4096)
def _part(text: bytes) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The keys at the top of a part of a config, and all of it, flat."""
    said = parsed(text)
    return (tuple(said), _flat("config", said)) if isinstance(said, Mapping) else ((), {})


def _text(folder: str) -> str:
    """Which may have any bytes."""
    return folder.encode(errors="backslashreplace").decode()


def _flat(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for name, item in value.items() for k, v in _flat(f"{key}.{name}", item).items()}
    return {key: json.dumps(value) if isinstance(value, list) else value}


def _column(values: list[Any]) -> list[Any]:
    types = {type(value) for value in values if value is not None}
    if types <= {int, float} and float in types:
        return [None if value is None else float(value) for value in values]
    if len(types) > 1:
        return [None if value is None else json.dumps(value) for value in values]
    return values
