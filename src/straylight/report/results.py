"""Finding and reading the `result.json` of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


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
