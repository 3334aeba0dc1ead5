"""Who leads on a data set, and who cannot be told apart from the leader."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from straylight.report.leaderboard import Groups, Row, Run, interval

METRIC = "test/auroc"


class Leader(NamedTuple):
    """The detector of the best mean AUROC on a data set.

    Attributes:
        interval: of its AUROC, by `reach`; None where nothing says how well it is known.
        alike: those which cannot be told apart from it, best first.
        unknown: those of which nothing says whether they can.
        others: how many there are beside it.
    """

    data: str
    detector: str
    auroc: float
    interval: tuple[float, float] | None
    alike: tuple[str, ...]
    unknown: tuple[str, ...]
    others: int


def leaders(table: Sequence[Row], groups: Groups) -> list[Leader]:
    """The leader of each data set, among detectors that have not read the truth.

    Two detectors are told apart where the 95 % interval of the difference of their AUROCs leaves zero out. It has two
    parts, added in squares: how the difference scatters over the seeds that both have (Student's t), and how well each
    AUROC is known from its test rows (DeLong's interval, taken as if the two saw different rows, which is on the safe
    side). Where there is neither part, it is not known.

    Args:
        table: the rows of the leaderboard, best first on each data set.
        groups: the runs behind them.
    """
    found = []
    for data in dict.fromkeys(row.data for row in table):
        ranked = [row for row in table if row.data == data and row.numbers["auroc"].mean is not None and not row.truth]
        if not ranked:
            continue
        best, *others = ranked
        runs = groups[data, best.detector]
        apart = {row.detector: differs(runs, groups[data, row.detector]) for row in others}
        auroc = best.numbers["auroc"].mean or 0.0
        found.append(
            Leader(
                data,
                best.detector,
                auroc,
                limits(runs, auroc),
                tuple(name for name, is_apart in apart.items() if is_apart is False),
                tuple(name for name, is_apart in apart.items() if is_apart is None),
                len(others),
            )
        )
    return found


def differs(runs: Sequence[Run], others: Sequence[Run]) -> bool | None:
    """Whether the mean AUROCs of two detectors differ by more than chance; None where nothing says so.

    Example:
        >>> def runs(*values):
        ...     intervals = {"test/auroc": (0.0, 0.02)}  # its width alone counts
        ...     return [{"seed": s, "metrics": {"test/auroc": v}, "intervals": intervals} for s, v in enumerate(values)]
        >>> differs(runs(0.95, 0.96), runs(0.80, 0.81)), differs(runs(0.95, 0.96), runs(0.94, 0.97))
        (True, False)
    """
    ours, theirs = _by_seed(runs), _by_seed(others)
    both = sorted(ours.keys() & theirs.keys(), key=str)
    differences = [ours[seed] - theirs[seed] for seed in both]
    if not both:
        differences = [sum(ours.values()) / len(ours) - sum(theirs.values()) / len(theirs)]
    scatter = interval(differences)
    parts = [(scatter[1] - scatter[0]) / 2] if scatter else []
    rows = [width for side in (runs, others) if (width := _of_rows(side)) is not None]
    if len(rows) == 2:
        parts += rows
    elif not parts:
        return None
    return abs(sum(differences) / len(differences)) > math.hypot(*parts)


def limits(runs: Sequence[Run], auroc: float) -> tuple[float, float] | None:
    """The interval of a mean AUROC, by `reach`; None where nothing says how well it is known."""
    width = reach(runs)
    return None if width is None else (max(0.0, auroc - width), min(1.0, auroc + width))


def reach(runs: Sequence[Run]) -> float | None:
    """Half the 95 % interval of a mean AUROC: over its seeds and its test rows, added in squares; None if unknown."""
    scatter = interval([*_by_seed(runs).values()])
    parts = [(scatter[1] - scatter[0]) / 2] if scatter else []
    if (rows := _of_rows(runs)) is not None:
        parts.append(rows)
    return math.hypot(*parts) if parts else None


def _by_seed(runs: Sequence[Run]) -> dict[object, float]:
    return {run.get("seed"): run["metrics"][METRIC] for run in runs if run["metrics"].get(METRIC) is not None}


def _of_rows(runs: Sequence[Run]) -> float | None:
    """Half the interval of an AUROC over test rows, the widest of those that runs know."""
    known: list[Mapping[str, Sequence[float]]] = [run.get("intervals") or {} for run in runs]
    widths = [pair[1] - pair[0] for found in known if (pair := found.get(METRIC))]
    return max(widths) / 2 if widths else None
