"""What a run or a sweep reached, as tables in a terminal."""

import gc
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from straylight.console import Plain
from straylight.folder import RunFolder, SweepFolder
from straylight.report.answer import legend, ranks, troubles
from straylight.report.compared import draw, over_sets
from straylight.report.details import BRIEF, FULL, large, timed
from straylight.report.leaderboard import NOT_RESOLVABLE, POINTS, TIMED, Row, Spread, grouped, rows, write_csv
from straylight.report.over_density import marked
from straylight.report.runs import write_parquet
from straylight.report.scan import SENTENCE, scans, sheet
from straylight.report.selection import Selection
from straylight.report.sheet import Cell, Column, Sheet, ranged
from straylight.report.strangest import strangest
from straylight.runtimes import BEST

SHOWN = POINTS[:2]


WIDER = "see leaderboard.csv, or widen the terminal"


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for circles that nobody holds any more: what a report makes, by the million, it holds to its end."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@uncollected()
def report(folder: Path, console: Console | None = None, runtime: str = BEST, html: Path | None = None) -> list[Row]:
    """Print the leaderboard of all runs below a folder, and write `leaderboard.csv` and the figures there.

    Args:
        console: printed to.
        runtime: whose times it has, see `straylight.runtimes`.
        html: a file to write all of it to, as one page.
    """
    say = _teller(console)
    place = SweepFolder(folder)
    results, waiting = place.results(), place.unfinished()
    selection = Selection(results)
    table = selection.marked(rows(results, runtime))
    chosen = selection.parts()
    if table:
        leaderboard(table, console)
        if compared := over_sets(grouped(results)):
            for part in ranks(*compared, {row.detector for row in table if row.truth}):
                say(part, **({"style": "dim"} if isinstance(part, str) else {}))
        if scanned := scans(results):
            say(sheet(scanned))
            say(SENTENCE, style="dim")
        for part in chosen:
            say(part, **({"style": "dim"} if isinstance(part, str) else {}))
    if results:
        write_csv(table, results, place.leaderboard)
        write_parquet(results, place.table)
        page = _page(folder, html)
        pictures = draw(results, table, folder, page.keep if page else None)
        say(f"\nWritten to {folder}: {', '.join([place.leaderboard.name, place.table.name, *pictures])}")
        if page:
            page.write(results, table, chosen, waiting)
            say(f"To open in a browser, or to send: {page.path}")
        elif place.page.is_file():
            say(f"{place.page} is of an earlier report; --html writes it anew.")
    for trouble in troubles(results, waiting):
        say(trouble)
    return table


def _page(folder: Path, html: Path | None) -> Any:
    """What writes the page, which takes a while to load."""
    if html is None:
        return None
    from straylight.report.html.sweep import SweepPage

    return SweepPage(folder, html)


def leaderboard(table: Sequence[Row], console: Console | None = None) -> None:
    """Print the leaderboard, a table for each data set."""
    say = _teller(console)
    for data in dict.fromkeys(row.data for row in table):
        say(data, style="bold", soft_wrap=False)
        say(_table([row for row in table if row.data == data]))
    for note in legend(table):
        say(note, style="dim", soft_wrap=False)


def show_run(folder: Path, console: Console | None = None, details: bool = False) -> None:
    """Print the numbers of one run; with `details`, all of them."""
    say = _teller(console)
    result: Any = RunFolder(folder).read()
    say(f"{result.get('detector')} on {result.get('data')}, seed {result.get('seed')}: {result['status']}")
    if result.get("reason"):
        say(f"  {result['reason']}")
    for part in FULL if details else BRIEF:
        for shown in part(result):
            say(shown)
            if details:
                say("")
    for shown in strangest(folder) if details else ():
        say(shown)
        say("")
    for key, label in (("parameters", "parameters"), ("duration_s", "seconds"), ("command", "command")):
        if key in result:
            say(f"{label}: {result[key]}")
    for notice in result.get("notices") or []:
        say(f"note: {notice}")
    if not details and result["status"] == "ok":
        say(f"more: straylight report --details {shlex.quote(str(folder))}", style="dim")


#: Of the leaderboard, in the order in which they stand; those of the largest rank leave a narrow terminal first.
COLUMNS = (
    Column("detector", text=True),
    Column("AUROC"),
    Column("AP", "AP", 4),
    Column("TPR\n@FPR 1e-1", "TPR @FPR 1e-1", 2, narrow="TPR\n@FPR\n1e-1"),
    Column("TPR\n@FPR 1e-2", "TPR @FPR 1e-2", 3, narrow="TPR\n@FPR\n1e-2"),
    Column("p50 us\nbatch 1", "p50 us", 1, narrow="p50 us\nbatch\n1"),
    Column("events/s\nbatch 1024", "events/s", 6, narrow="events/s\nbatch\n1024"),
    Column("para-\nmeters", "parameters", 7),
    Column("seconds", "seconds", 8),
    Column("seeds", "seeds", 5),
)


def _table(table: Sequence[Row]) -> Sheet:
    out = Sheet(COLUMNS, WIDER)
    for row in table:
        n = row.numbers
        spreads = [_spread(n["auroc"], "", 4), _spread(n["ap"], "", 4)]
        without = NOT_RESOLVABLE if n["auroc"].mean is not None else ""  # nothing was ranked
        spreads += [_spread(n[name], without, 3) for name in SHOWN]
        times = [f"{timed(n[name].mean, row.shared)}\n{row.runtimes.get(name, '')}".rstrip() for name in TIMED]
        seconds = "" if (mean := n["duration_s"].mean) is None else f"{mean:.1f}"
        out.add_row(
            marked(row.detector, row.truth, row.chosen),
            *spreads,
            *times,
            large(n["parameters"].mean),
            seconds,
            str(row.seeds),
        )
    return out


def _spread(spread: Spread, without: str, digits: int) -> str | Cell:
    if spread.mean is None or spread.low is None or spread.high is None:
        return without
    mean, low, high = (f"{value:.{digits}f}" for value in spread)
    return mean if spread.low == spread.high else ranged(mean, low, high)


def _teller(console: Console | None) -> Callable[..., None]:
    """Print without markup, since a name or a reason may hold brackets; sentences are left to the terminal to fold."""
    # a table squeezed into a pipe's 80 columns is unreadable; it takes no more than it needs
    console = console or (Plain() if sys.stdout.isatty() else Plain(width=200))

    def say(what: Sheet | str, soft_wrap: bool = True, **style: Any) -> None:
        shown = what if isinstance(what, Sheet) else Text(what, overflow="fold")
        console.print(shown, highlight=False, soft_wrap=soft_wrap and not isinstance(what, Sheet), **style)

    return say
