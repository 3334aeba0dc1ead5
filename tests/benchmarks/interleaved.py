"""Two ways of doing the same work, timed in turns in one process on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def compare(ours: Callable[[], object], bare: Callable[[], object], rounds: int, what: str) -> float:
    """Print a table of CPU seconds and, as the last line, the median over rounds of ours / bare.

    Both run once before, so that nothing is imported or allocated for the first time under the clock; the order
    alternates.
    """
    ours(), bare()
    ratios = []
    print(f"{what}\nround  ours, CPU s  bare, CPU s  ratio")
    for number in range(rounds):
        seconds = {}
        for name, call in (("ours", ours), ("bare", bare))[:: 1 if number % 2 else -1]:
            start = time.process_time()
            call()
            seconds[name] = time.process_time() - start
        ratios.append(seconds["ours"] / seconds["bare"])
        print(f"{number:5}  {seconds['ours']:11.3f}  {seconds['bare']:11.3f}  {ratios[-1]:5.2f}")
    ratio = statistics.median(ratios)
    print(f"ratio: {ratio:.2f}")
    return ratio
