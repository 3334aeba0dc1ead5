"""Which runtime's times stand in a report, and whether others disturbed them.

A record holds times in `eager` torch, in torch `compiled`, which says `agrees: false` where its scores are others, and
in `onnx`, this only where its scores were seen to agree with torch's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

BEST = "best"
#: What can be asked for, and what a record calls it: torch is either the one or the other.
RUNTIMES = {BEST: (), "eager": ("eager",), "compile": ("compiled",), "onnx": ("onnx",)}
#: Before a time that was taken while others used the machine.
MARK = "~"
SHARED = "taken while others used the machine"

Run = Mapping[str, Any]


class Timed(NamedTuple):
    """A measured time or rate of every run, and the runtime, which is empty where there is none."""

    values: tuple[float, ...]
    runtime: str


def timing(runs: Sequence[Run], batch: int, key: str, runtime: str = BEST) -> Timed:
    """Times of a batch in one runtime, the same for all runs: the one asked for, or the fastest that all of them have.

    Args:
        runs: the records.
        batch: its size.
        key: which time, `p50_us`, or a rate, `events_per_s`.
        runtime: of `RUNTIMES`.

    Example:
        >>> times = [("eager", 80.0), ("onnx", 19.0)]
        >>> run = {"latency": [{"batch": 1, "runtime": name, "p50_us": p50} for name, p50 in times]}
        >>> timing([run], 1, "p50_us"), timing([run], 1, "p50_us", "eager").values
        (Timed(values=(19.0,), runtime='onnx'), (80.0,))
    """
    found = [_of(run, batch, key, runtime == BEST) for run in runs]
    there = [name for name in dict.fromkeys(n for own in found for n in own) if all(name in own for own in found)]
    if runtime != BEST:
        there = [name for name in there if name in RUNTIMES[runtime]]
    every = [Timed(tuple(own[name] for own in found), name) for name in there]
    if not every:
        return Timed((), "")
    return (max if key == "events_per_s" else min)(every, key=lambda timed: sum(timed.values))


def shared(run: Run) -> bool:
    """Whether others used the machine while a run was timed."""
    return bool(((run.get("cost") or {}).get("shared") or {}).get("others"))


def _of(run: Run, batch: int, key: str, alike: bool) -> dict[str, float]:
    """By runtime; those alone whose scores agree with torch, if asked for."""
    entries = (e for e in run.get("latency") or [] if e["batch"] == batch and e.get("scaling", True))
    return {
        entry["runtime"]: entry[key]
        for entry in entries
        if entry.get(key) is not None and (entry.get("agrees", True) or not alike)
    }
