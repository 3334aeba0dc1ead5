"""What is recorded of a job whose processes are over, where they could not do so themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from straylight.launcher.pool import Running
from straylight.report.results import read, write_result

#: What a rank says that has lost another one.
LOST = re.compile(r"gloo|nccl|processgroup|tcpstore|Dist\w*Error|connection (closed|reset|refused)|broken pipe", re.I)


def settle(
    folder: Path, fields: Mapping[str, Any], ended: Running, reason: str | None = None, stopped: bool = False
) -> dict[str, Any]:
    """What `result.json` says, put right first where that is needed: a job that was killed says nothing.

    Args:
        folder: the job's.
        fields: more fields for what is written.
        ended: its processes.
        reason: why it failed, if the launcher knows.
        stopped: whether it was told to stop before its end.
    """
    found = read(folder)
    several = len(ended.workers) > 1
    if found is not None and (found["status"] == "ok" or (reason is None and found["status"] == "interrupted")):
        return found
    if reason is None and found is not None and not several:
        return found
    status: str = "failed"
    if reason is None and stopped:
        status = "interrupted"
    elif reason is None:
        own = " ".join(str((found or {}).get("reason") or "").split())
        reason = _several(ended, own, folder) if several else f"{ended.died(0)}; see {log_file(folder, 0)}."
    known = {key: value for key, value in (found or {}).items() if key != "folder"}
    write_result(folder, {"metrics": {}, "latency": [], **fields, **known, "status": status, "reason": reason})
    return read(folder) or {"status": status, "reason": reason}


def log_file(folder: Path, rank: int) -> Path:
    """What a rank's process prints."""
    return folder / (f"output.{rank}.log" if rank else "output.log")


def _several(ended: Running, own: str, folder: Path) -> str:
    """Which of several ranks is to blame: one that was killed, rank 0 where it knows why, or the first to end."""
    dead = ended.first_dead or 0
    own = "" if LOST.search(own) else own
    if own and not ended.status.get(dead, 0) < 0:
        return f"Rank 0: {own}"
    return f"{ended.died(dead)}; see {log_file(folder, dead)}." + (f" Rank 0 said: {own[:300]}" if own else "")
