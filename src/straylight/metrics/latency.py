"""How long one call takes: warmed up, synchronised, repeated within a budget."""

import time
from collections.abc import Callable, Sequence

import numpy as np


def measure(
    call: Callable[[], object],
    *,
    events: int,
    budget_s: float = 0.3,
    warmup: int = 3,
    repeats: tuple[int, int] = (5, 1000),
    synchronise: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float | None]:
    """Percentiles of the time of one call, and the events per second that its median makes.

    A percentile that no call need lie above is none: the 95th is given from 20 repeats on, the 99th from 100.

    Args:
        call: scores one batch.
        events: the number of events in that batch.
        budget_s: seconds after which no further call is started, once the least number of repeats is reached. Where a
            call takes longer than that when made a second time, this one counts, and the least number is as many as
            take ten budgets: a call that takes ten times as long as the budget is timed that once.
        warmup: calls before those that count.
        repeats: the least and the largest number of timed calls.
        synchronise: waits until the device has finished; called before each reading of the clock.
        clock: seconds; replaced in tests.

    Returns:
        `p50_us`, `p95_us`, `p99_us`, `mean_us` in microseconds per call, `events_per_s`, `repeats`.

    Example:
        >>> ticks = iter(range(1000))
        >>> measure(lambda: None, events=2, clock=lambda: next(ticks))["events_per_s"]
        2.0
    """
    least, most = repeats

    def timed() -> float:
        start = clock()
        call()
        synchronise()
        return clock() - start

    seconds: list[float] = []
    for number in range(warmup):
        if (took := timed()) > budget_s and number:  # the first may compile
            seconds, least = [took], min(least, int(10 * budget_s / took))
            break
    spent = sum(seconds)
    while len(seconds) < least or (spent < budget_s and len(seconds) < most):
        seconds.append(timed())
        spent += seconds[-1]
    p50 = float(np.median(seconds))
    return {
        "p50_us": p50 * 1e6,
        "p95_us": percentile(seconds, 95),
        "p99_us": percentile(seconds, 99),
        "mean_us": float(np.mean(seconds) * 1e6),
        "events_per_s": events / p50 if p50 > 0 else float("inf"),
        "repeats": len(seconds),
    }


def percentile(seconds: Sequence[float], percent: int) -> float | None:
    """In microseconds; None where fewer repeats were made than one of them is expected to lie beyond.

    Example:
        >>> percentile([1.0] * 99, 99), percentile([1.0] * 100, 99)
        (None, 1000000.0)
    """
    return float(np.percentile(seconds, percent) * 1e6) if len(seconds) * (100 - percent) >= 100 else None
