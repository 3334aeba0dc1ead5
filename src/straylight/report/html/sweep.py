"""The page of many runs: what was asked and found, the leaderboard, the figures, every run, and how it was made."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from straylight.report.answer import answer, ranks, troubles, unresolved
from straylight.report.compared import PICTURES, followed, over_sets
from straylight.report.details import Part, large, number
from straylight.report.html.board import Cell, board
from straylight.report.html.drawn import Drawn, drawn
from straylight.report.html.page import plain, write
from straylight.report.html.tables import Heading, Table, of
from straylight.report.leaderboard import Row, Run, grouped
from straylight.report.scan import SENTENCE, scans, sheet
from straylight.result import outcome

RUNS = (
    Heading("run", text=True),
    Heading("detector", text=True),
    Heading("data set", text=True),
    Heading("seed"),
    Heading("status", text=True),
    Heading("AUROC"),
    Heading("AP"),
    Heading("seconds"),
    Heading("command", text=True),
)


class Shown(NamedTuple):
    """A run in the table of runs."""

    folder: str
    detector: str
    data: str
    shown: str
    cells: list[Cell]
    command: str


class SweepPage:
    """Takes figures as they are drawn, and writes the page when all are there.

    Args:
        folder: that the runs lie below.
        path: of the page.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder, self.path = folder, path
        self.figures: list[Drawn] = []

    def keep(self, name: str, figure: Any) -> None:
        """One of the `PICTURES`."""
        picture = PICTURES[name]
        key = name.removesuffix(".png").replace("_", "")
        self.figures.append(drawn(figure, key, picture.title, picture.sentence, self._called))

    def _called(self, what: Mapping[str, Any]) -> dict[str, Any]:
        """What a page says of an artist: whom it follows, and a run by its folder, seen from here."""
        said: dict[str, Any] = {name: plain(value) for name, value in what.items() if isinstance(value, str)}
        if "detector" in said:
            said["follow"] = plain(followed(what["detector"]))
        if "run" in what:
            said["run"] = [plain(self._seen(folder)) for folder in what["run"]]
        return said

    def _seen(self, folder: str) -> str:
        return os.path.relpath(folder, self.folder)

    def write(
        self, results: Sequence[Run], table: Sequence[Row], chosen: Sequence[Part], waiting: Sequence[Path] = ()
    ) -> None:
        """Write the page of these runs, with what was chosen of them, and name those that have no result."""
        groups = grouped(results)
        shown = board(table, groups)
        names = {str(run["folder"]): name for (_, name), runs in groups.items() for run in runs}
        compared = [*_compared(results, table)]
        sections = {"answer": "Answer", "leaderboard": "Leaderboard"}
        sections |= {"figures": "Figures"} if self.figures else {}
        sections |= {"compared": "Over data sets"} if compared else {}
        sections |= {"chosen": "Chosen without labels"} if chosen else {}
        sections |= {"runs": "Runs", "made-by": "How it was made"}
        write(
            self.path,
            "sweep.html",
            self.folder.resolve().name,
            {
                "facts": [*_facts(results)],
                "sections": sections.items(),
                "answer": [*answer(results, table), *unresolved(results)],
                "troubles": troubles(results, waiting),
                "board": shown,
                "figures": self.figures,
                "compared": [*of(compared)],
                "chosen": [*of(chosen)],
                "runs": {"headings": RUNS, "rows": [self._run(result, names) for result in results]},
                "conditions": [*conditions(results)],
            },
        )

    def _run(self, result: Run, names: Mapping[str, str]) -> Shown:
        metrics, folder = result.get("metrics") or {}, self._seen(str(result["folder"]))
        seconds, seed = result.get("duration_s"), result.get("seed")
        cells = [
            Cell(str(result.get("detector") or ""), text=True),
            Cell(str(result.get("data") or ""), text=True),
            Cell("" if seed is None else str(seed), seed if isinstance(seed, int) else None),
            Cell(outcome(result), text=True),
            *(Cell(number(metrics.get(key)), metrics.get(key)) for key in ("test/auroc", "test/ap")),
            Cell("" if seconds is None else f"{seconds:.1f}", seconds),
        ]
        named = names.get(str(result["folder"]), str(result.get("detector") or ""))
        return Shown(folder, named, str(result.get("data") or ""), folder, cells, str(result.get("command") or ""))


def _compared(results: Sequence[Run], table: Sequence[Row]) -> Iterator[Part]:
    """What the console says below its leaderboard."""
    if found := over_sets(grouped(results)):
        yield from ranks(*found, {row.detector for row in table if row.truth})
    if scanned := scans(results):
        yield sheet(scanned)
        yield SENTENCE


def _facts(results: Sequence[Run]) -> Iterator[str]:
    for key, what in (("detector", "detector"), ("data", "data set"), ("seed", "seed")):
        if n := len({str(result.get(key)) for result in results if result.get(key) is not None}):
            yield f"{n} {what}{'s' * (n > 1)}"
    yield f"{len(results):,} runs"


def conditions(results: Sequence[Run]) -> Iterator[Table | str]:
    """What runs were made with and on, and how long they took: of each thing all that there was, most often first."""
    found: dict[str, Counter[str]] = {}
    for result in results:
        said = {**(result.get("versions") or {}), "device": result.get("device")}
        for what, value in said.items():
            if value is not None:
                found.setdefault(str(what), Counter())[str(value)] += 1
    rows = [[what, ", ".join(value for value, _ in counted.most_common())] for what, counted in found.items()]
    if rows:
        yield Table("", [Heading("what", text=True), Heading("of the runs", text=True)], rows)
    for what, counted in found.items():
        if len(counted) > 1:
            each = ", ".join(f"{value} ({n:,} runs)" for value, n in counted.most_common())
            yield f"Not all runs had the same {what}: {each}."
    seconds = [result["duration_s"] for result in results if result.get("duration_s") is not None]
    if seconds:
        yield f"{len(seconds):,} run{'s' * (len(seconds) > 1)} took {large(sum(seconds))} seconds together."
