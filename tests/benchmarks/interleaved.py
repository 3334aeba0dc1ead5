"""Two ways of doing the same work, timed in turns in one process on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def compare(
    ours: Callable[[], object],
    bare: Callable[[], object],
    rounds: int,
    what: str,
    *,
    units: tuple[int, int] = (1, 1),
    clock: Callable[[], float] = time.process_time,
    warm: bool = False,
) -> float:
    """Print a table of CPU seconds and, as the last line, the median over rounds of ours / bare.

    Both run once before, so that nothing is imported or allocated for the first time under the clock; the order
    alternates.

    Args:
        ours, bare: the two ways.
        rounds: how often each is timed.
        what: the head of the table.
        units: of work, such as images, that a call of each does; seconds are per unit.
        clock: CPU seconds, or the wall's where threads are compared.
        warm: whether both have run before, on less.
    """
    if not warm:
        ours(), bare()
    ratios = []
    print(f"{what}\nround  ours, s  bare, s  ratio")
    for number in range(rounds):
        seconds = {}
        for name, call, unit in (("ours", ours, units[0]), ("bare", bare, units[1]))[:: 1 if number % 2 else -1]:
            start = clock()
            call()
            seconds[name] = (clock() - start) / unit
        ratios.append(seconds["ours"] / seconds["bare"])
        print(f"{number:5}  {seconds['ours']:7.4g}  {seconds['bare']:7.4g}  {ratios[-1]:5.3g}", flush=True)
    ratio = statistics.median(ratios)
    print(f"ratio: {ratio:.3g}", flush=True)
    return ratio
