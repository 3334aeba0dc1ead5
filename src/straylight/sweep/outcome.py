"""What is recorded of a job whose processes are over, where they could not do so themselves."""

from collections.abc import Mapping
from typing import Any

from straylight.engines.base import Ended
from straylight.folder import RunFolder
from straylight.job.pulse import LOST
from straylight.result import Result


def settled(
    folder: RunFolder, fields: Mapping[str, Any], ended: Ended, reason: str | None = None, stopped: bool = False
) -> Result:
    """What `result.json` says, put right first where that is needed: a job that was killed says nothing.

    Args:
        folder: the job's.
        fields: more fields for what is written.
        ended: how its processes ended.
        reason: why it failed, if the launcher knows.
        stopped: whether it was told to stop before its end.
    """
    found = folder.read()
    several = ended.rank is not None
    # of several, all must have ended well, or as they were asked to
    well = not several or (ended.said is None and (ended.status == 0 or (stopped and ended.signal is None)))
    ended_so = found["status"] if found is not None else None
    if found is not None and ((ended_so == "ok" and well) or (reason is None and ended_so == "interrupted")):
        return found
    if reason is None and found is not None and not several:
        return found
    status = "failed"
    if reason is None and stopped:
        status = "interrupted"
    elif reason is None:
        own = " ".join(str((found or {}).get("reason") or "").split())
        reason = _blamed(ended, own) if several else ended.words + (f"; see {ended.log}." if ended.log else ".")
    written = {"metrics": {}, "latency": [], **fields, **(found or {}), "status": status, "reason": reason}
    folder.write_result(written)
    return folder.read() or {"status": status, "reason": reason}


def _blamed(ended: Ended, own: str) -> str:
    """Which of several ranks is to blame: one that was killed, rank 0 where it knows why, or the first to end."""
    own = "" if LOST.search(own) else own
    lost = ended.said is not None and LOST.search(ended.said)  # the other way round: it lost rank 0
    if own and ended.signal is None and (lost or not ended.rank):
        return f"Rank 0: {own}"
    return f"{ended.words}; see {ended.log}." + (f" Rank 0 said: {own[:300]}" if own else "")
