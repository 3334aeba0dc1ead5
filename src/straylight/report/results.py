"""Writing, finding and reading the `result.json` of runs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Write `result.json` whole or not at all; a number that JSON does not have becomes null."""
    path = folder / "result.json"
    temporary = folder / f".result.{os.getpid()}.json"
    temporary.write_text(json.dumps(_plain(result), indent=2, allow_nan=False) + "\n")
    temporary.replace(path)


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


def read(folder: Path) -> dict[str, Any] | None:
    """What `result.json` in this folder says; `None` if it is not there. An unreadable one is a failed run."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text())
        if not isinstance(result, dict) or "status" not in result:
            raise ValueError("it has no status")
        if not all(value is None or isinstance(value, int | float) for value in result.get("metrics", {}).values()):
            raise ValueError("a metric is not a number")
        if not all({"batch", "runtime"} <= set(entry) for entry in result.get("latency", [])):
            raise ValueError("a latency has no batch or runtime")
        if not isinstance(result.get("seed"), int | None):
            raise ValueError("the seed is not a number")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return {"status": "failed", "reason": f"{path} cannot be read ({error})", "folder": str(folder)}
    return result | {"folder": str(folder)}


def find(folder: Path) -> list[dict[str, Any]]:
    """The results of all runs in a folder and below it, in the order of their names, numbers by value."""
    folders = sorted((p.parent for p in folder.rglob("result.json")), key=_natural)
    return [result for f in folders if (result := read(f)) is not None]


def unfinished(folder: Path) -> list[Path]:
    """Run folders below this one that hold a config but no result: still running, or killed."""
    runs = (p.parent.parent for p in folder.rglob(".hydra/config.yaml"))
    return sorted((f for f in runs if not (f / "result.json").is_file()), key=_natural)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in path.parts]
