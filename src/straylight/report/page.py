"""What a run or a sweep reached, as tables in a terminal."""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from straylight.console import Plain
from straylight.folder import RunFolder, SweepFolder
from straylight.metrics.across import Across
from straylight.report.compared import draw, over_sets
from straylight.report.details import BRIEF, FULL, headed, large
from straylight.report.leaderboard import NOT_RESOLVABLE, Row, Spread, grouped, rows, write_csv
from straylight.report.runs import write_parquet

SHOWN = ("tpr@fpr=0.1", "tpr@fpr=0.01")


def report(folder: Path, console: Console | None = None) -> list[Row]:
    """Print the leaderboard of all runs below a folder, and write `leaderboard.csv` and the figures there."""
    say = _teller(console)
    place = SweepFolder(folder)
    results = place.results()
    table = rows(results)
    if table:
        leaderboard(table, console)
        if compared := over_sets(grouped(results)):
            _compare(say, *compared)
    if results:
        write_csv(table, results, place.leaderboard)
        write_parquet(results, place.table)
        pictures = draw(results, table, folder)
        say(f"\nWritten to {folder}: {', '.join([place.leaderboard.name, place.table.name, *pictures])}")
    for result in results:
        if result["status"] != "ok":
            what = f"{result.get('detector')} on {result.get('data')}, seed {result.get('seed')}"
            say(f"{result['status']}: {result['folder']} ({what}) {result.get('reason') or ''}")
    if waiting := place.unfinished():
        say(f"{len(waiting)} more without a result: running, or killed ({waiting[0]})")
    return table


def leaderboard(table: Sequence[Row], console: Console | None = None) -> None:
    """Print the leaderboard, a table for each data set."""
    say = _teller(console)
    for data in dict.fromkeys(row.data for row in table):
        say(_table(data, [row for row in table if row.data == data]))
    if any(row.numbers["auroc"].mean is not None and row.numbers[n].mean is None for row in table for n in SHOWN):
        say(f"{NOT_RESOLVABLE}: not resolvable, fewer than ten nominal rows lie above the threshold", style="dim")


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
    for key, label in (("parameters", "parameters"), ("duration_s", "seconds"), ("command", "command")):
        if key in result:
            say(f"{label}: {result[key]}")
    for notice in result.get("notices") or []:
        say(f"note: {notice}")
    if not details and result["status"] == "ok":
        say(f"more: straylight report --details {shlex.quote(str(folder))}", style="dim")


def _table(data: str, table: list[Row]) -> Table:
    reached = ("AUROC", "AP", "TPR\n@FPR 1e-1", "TPR\n@FPR 1e-2")
    taken = ("p50 us\nbatch 1", "events/s\nbatch 1024", "para-\nmeters", "seconds", "seeds")
    out = headed("detector", *reached, *taken, title=Text(data), title_justify="left", title_style="bold")
    for row in table:
        n = row.numbers
        spreads = [_spread(n["auroc"], "", 4), _spread(n["ap"], "", 4)]
        without = NOT_RESOLVABLE if n["auroc"].mean is not None else ""  # nothing was ranked
        spreads += [_spread(n[name], without, 3) for name in SHOWN]
        sizes = [large(n[name].mean) for name in ("p50_us", "events_per_s", "parameters")]
        seconds = "" if (mean := n["duration_s"].mean) is None else f"{mean:.1f}"
        out.add_row(Text(row.detector), *spreads, *sizes, seconds, str(row.seeds))
    return out


def _compare(say: Callable[..., None], found: Across, names: Sequence[str]) -> None:
    out = headed("detector", "average rank")
    for rank, name in sorted(zip(found.average_ranks.tolist(), names, strict=True)):
        out.add_row(Text(name), f"{rank:.2f}")
    say(out)
    say(found.sentence, style="dim")


def _spread(spread: Spread, without: str, digits: int) -> str:
    if spread.mean is None or spread.low is None or spread.high is None:
        return without
    mean, low, high = (f"{value:.{digits}f}" for value in spread)
    return mean if spread.low == spread.high else f"{mean}\n{low}-{high}"


def _teller(console: Console | None) -> Callable[..., None]:
    """Print without markup: a name or a reason may hold brackets."""
    # a table squeezed into a pipe's 80 columns is unreadable; it takes no more than it needs
    console = console or (Plain() if sys.stdout.isatty() else Plain(width=200))
    return lambda what, **style: console.print(
        what if isinstance(what, Table) else Text(what), highlight=False, soft_wrap=not isinstance(what, Table), **style
    )
