"""The leaderboard of a page: a row for each detector on each data set, overall and for each kind of anomaly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from straylight.report.answer import UNRESOLVED, legend
from straylight.report.compared import followed
from straylight.report.details import large, timed
from straylight.report.html.tables import Heading
from straylight.report.leaderboard import NOT_RESOLVABLE, POINTS, RANKED, TIMED, Groups, Row, Run, Spread, of_kinds
from straylight.report.over_density import marked

SHOWN = (*RANKED, *POINTS[:2])
HEADINGS = (
    Heading("detector", text=True),
    Heading("data set", text=True),
    Heading("kind", text=True, meaning="of anomaly, against all nominal events"),
    Heading("AUROC", meaning="area under the ROC curve"),
    Heading("AP", meaning="average precision"),
    Heading("TPR @ FPR 1e-1", meaning="true-positive rate where one nominal event in 10 is flagged"),
    Heading("TPR @ FPR 1e-2", meaning="true-positive rate where one nominal event in 100 is flagged"),
    Heading("p50 us, batch 1", meaning="median latency of one event, in microseconds"),
    Heading("events/s, batch 1024", meaning="throughput"),
    Heading("parameters"),
    Heading("seconds", meaning="of the whole run"),
    Heading("seeds"),
)


class Cell(NamedTuple):
    """What stands in a place, the number that it is sorted by, and what it means, where that is not plain."""

    shown: str
    value: float | None = None
    meaning: str = ""
    text: bool = False


class Line(NamedTuple):
    """A row of the table."""

    detector: str
    data: str
    kind: str
    shown: str
    follow: str
    cells: list[Cell]


@dataclass
class Board:
    """The table, and what can be chosen from it."""

    rows: list[Line]
    headings: Sequence[Heading] = HEADINGS
    notes: list[str] = field(default_factory=list)

    @property
    def detectors(self) -> list[str]:
        return sorted({row.detector for row in self.rows})

    @property
    def sets(self) -> list[str]:
        return sorted({row.data for row in self.rows})

    @property
    def kinds(self) -> list[str]:
        return sorted({row.kind for row in self.rows if row.kind})


def board(table: Sequence[Row], groups: Groups) -> Board:
    """Of the rows of the console's leaderboard, and the runs behind them."""
    lines = [line for row in table for line in _lines(row, groups[row.data, row.detector])]
    notes = [
        "AUROC and AP: the mean over seeds with its 95 % interval, by Student's t over the seeds, or over the test "
        "rows of a single run. TPR: the mean, and the range over seeds."
    ]
    return Board(lines, notes=[*notes, *legend(table)])


def _lines(row: Row, runs: Sequence[Run]) -> Iterator[Line]:
    n = row.numbers
    times = [
        Cell(f"{timed(n[key].mean, row.shared)}\n{row.runtimes.get(key, '')}".rstrip(), n[key].mean) for key in TIMED
    ]
    seconds = n["duration_s"].mean
    cost = [
        *times,
        Cell(large(n["parameters"].mean), n["parameters"].mean),
        Cell("" if seconds is None else f"{seconds:.1f}", seconds),
        Cell(str(row.seeds), row.seeds),
    ]
    shown, follow = marked(row.detector, row.truth, row.chosen), followed(row.detector)
    every: list[tuple[str, Mapping[str, Spread]]] = [("", n), *of_kinds(runs).items()]
    for kind, numbers in every:
        limits = row.intervals if not kind else {}
        ranked = [_quality(name, numbers[name], kind, runs, limits.get(name)) for name in SHOWN]
        names = [Cell(row.data, text=True), Cell(kind or "all", text=True)]
        yield Line(row.detector, row.data, kind, shown, follow, [*names, *ranked, *cost])


def _quality(name: str, spread: Spread, kind: str, runs: Sequence[Run], limits: tuple[float, float] | None) -> Cell:
    """A mean with its interval; that of a single run is over its test rows."""
    mean, low, high = spread
    if mean is None or low is None or high is None:
        ranked = name in RANKED or all(run.get("metrics", {}).get("test/auroc") is None for run in runs)
        return Cell("") if ranked else Cell(NOT_RESOLVABLE, meaning=UNRESOLVED)
    ending = f"/{kind}" if kind else ""
    digits = 4 if name in RANKED else 3
    over = f"mean over {len(runs)} seeds, from {low:.4f} to {high:.4f}" if len(runs) > 1 else "one seed"
    if len(runs) == 1 and (own := (runs[0].get("intervals") or {}).get(f"test/{name}{ending}")):
        return Cell(f"{mean:.{digits}f}\n[{own[0]:.3f}, {own[1]:.3f}]", mean, f"{over}; 95 % interval over test rows")
    if limits:
        between = f"[{max(0.0, limits[0]):.3f}, {min(1.0, limits[1]):.3f}]"
        return Cell(f"{mean:.{digits}f}\n{between}", mean, f"{over}; 95 % interval of the mean by Student's t")
    return Cell(f"{mean:.{digits}f}" + (f"\n{low:.3f} to {high:.3f}" if len(runs) > 1 else ""), mean, over)
