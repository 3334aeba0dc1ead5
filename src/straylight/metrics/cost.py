"""What scoring costs beside time, and what it costs others: energy, and who else is on the processor."""

from typing import NamedTuple

#: Cores kept busy by others from which on a measured time is no longer ours alone.
NOTICEABLE = 0.25
#: Seconds of others' work below which nothing is said: processors count theirs in hundredths.
RESOLUTION = 0.05
#: Ticks of a counter of energy that a measurement lasts, or more: it is then known to a tenth, and not to a tick.
TICKS = 10


class Busy(NamedTuple):
    """A reading of the processors: the clock, what all processes have used so far, and what ours have, in seconds."""

    clock: float
    everyone: float
    ours: float


def cores_of_others(before: Busy, after: Busy) -> float:
    """How many cores other processes kept busy between two readings, on average.

    Example:
        >>> cores_of_others(Busy(0.0, 100.0, 10.0), Busy(2.0, 105.0, 12.0))
        1.5
    """
    spent = (after.everyone - before.everyone) - (after.ours - before.ours)
    elapsed = after.clock - before.clock
    return max(0.0, spent) / elapsed if elapsed > 0 and spent >= RESOLUTION else 0.0


def joules_per_million(before_mj: float, after_mj: float, events: int) -> float:
    """Energy per million events in joules, from two readings of a counter of millijoules.

    Example:
        >>> joules_per_million(1000.0, 3000.0, 500_000)
        4.0
    """
    return (after_mj - before_mj) / 1e3 / events * 1e6
