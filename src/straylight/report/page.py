"""`straylight report FOLDER`: what a run or a sweep reached."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from straylight.metrics.ranking import RESOLVABLE
from straylight.report.leaderboard import NOT_RESOLVABLE, Row, Spread, rows, write_csv
from straylight.report.results import find, read, unfinished


def main(arguments: list[str]) -> None:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(
        prog="straylight report",
        description="The leaderboard of a sweep, or of all runs below a folder: a row for each detector on each data "
        "set, mean and range over seeds; written to leaderboard.csv and pareto.png there too. For the folder of one "
        "run, its numbers.",
    )
    parser.add_argument("folder", type=Path, help="of a run, of a sweep, or above several of them")
    folder = parser.parse_args(arguments).folder
    if not folder.is_dir():
        sys.exit(_refusal(f"there is no folder {folder}."))
    if (folder / "result.json").is_file():
        show_run(folder)
    elif not any(folder.rglob("result.json")):
        sys.exit(_refusal(f"{folder} holds no result.json, in it or below: no run in it has ended."))
    else:
        report(folder)


def _refusal(sentence: str) -> int:
    print(f"Error: {sentence}", file=sys.stderr)
    return 1


def report(folder: Path, console: Console | None = None) -> list[Row]:
    """Print the leaderboard of all runs below a folder and write `leaderboard.csv` and `pareto.png` into it."""
    say = _teller(console)
    results = find(folder)
    table = rows(results)
    if table:
        for data in dict.fromkeys(row.data for row in table):
            say(_table(data, [row for row in table if row.data == data]))
        if any(s.mean is None for row in table for n, s in row.numbers.items() if n.startswith("tpr")):
            say(f"{NOT_RESOLVABLE}: not resolvable, fewer than ten nominal rows lie above the threshold", style="dim")
        write_csv(table, folder / "leaderboard.csv")
        _figure(table, folder / "pareto.png")
        say(f"\nWritten: {folder / 'leaderboard.csv'} and {folder / 'pareto.png'}")
    for result in results:
        if result["status"] != "ok":
            what = f"{result.get('detector')} on {result.get('data')}, seed {result.get('seed')}"
            say(f"{result['status']}: {result['folder']} ({what}) {result.get('reason') or ''}")
    if waiting := unfinished(folder):
        say(f"{len(waiting)} more without a result: running, or killed ({waiting[0]})")
    return table


def show_run(folder: Path, console: Console | None = None) -> None:
    """Print the numbers of one run."""
    say = _teller(console)
    result: dict[str, Any] = read(folder) or {}
    say(f"{result.get('detector')} on {result.get('data')}, seed {result.get('seed')}: {result['status']}")
    if result.get("reason"):
        say(f"  {result['reason']}")
    metrics = {k.removeprefix("test/"): v for k, v in result.get("metrics", {}).items()}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "AUROC", "AP", "TPR @ 1e-1", "TPR @ 1e-2"):
        table.add_column(heading, justify="left" if not heading else "right")
    for kind in ["", *(k.removeprefix("auroc") for k in metrics if k.startswith("auroc/"))]:
        if f"auroc{kind}" in metrics:
            cells = [_number(metrics[f"{name}{kind}"]) for name in ("auroc", "ap")]
            for fpr in ("0.1", "0.01"):
                enough = metrics.get(f"nominal_above@fpr={fpr}", 0) >= RESOLVABLE
                cells.append(_number(metrics.get(f"tpr@fpr={fpr}{kind}")) if enough else NOT_RESOLVABLE)
            table.add_row(Text(kind[1:] or "all anomalies"), *cells)
    if table.row_count:
        say(table)
    if result.get("latency"):
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("batch", "p50 us", "p95 us", "p99 us", "events/s"):
            table.add_column(heading, justify="right")
        for e in result["latency"]:
            table.add_row(str(e["batch"]), *(_large(e[k]) for k in ("p50_us", "p95_us", "p99_us", "events_per_s")))
        say(table)
    for key, label in (("parameters", "parameters"), ("duration_s", "seconds"), ("command", "command")):
        if key in result:
            say(f"{label}: {result[key]}")


def _table(data: str, table: list[Row]) -> Table:
    out = Table(
        title=Text(data), title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    out.add_column("detector", no_wrap=True)
    headings = (
        "AUROC",
        "AP",
        "TPR\n@FPR 1e-1",
        "TPR\n@FPR 1e-2",
        "p50 us\nbatch 1",
        "events/s\nbatch 1024",
        "para-\nmeters",
    )
    for heading in (*headings, "seconds", "seeds"):
        out.add_column(heading, justify="right")
    for row in table:
        n = row.numbers
        spreads = [_spread(n["auroc"], "", 4), _spread(n["ap"], "", 4)]
        spreads += [_spread(n[name], NOT_RESOLVABLE, 3) for name in ("tpr@fpr=0.1", "tpr@fpr=0.01")]
        large = [_large(n[name].mean) for name in ("p50_us", "events_per_s", "parameters")]
        seconds = "" if n["duration_s"].mean is None else f"{n['duration_s'].mean:.1f}"
        out.add_row(Text(row.detector), *spreads, *large, seconds, str(row.seeds))
    return out


def _spread(spread: Spread, without: str, digits: int) -> str:
    if spread.mean is None or spread.low is None or spread.high is None:
        return without
    mean, low, high = (f"{value:.{digits}f}" for value in spread)
    return mean if spread.low == spread.high else f"{mean}\n{low}-{high}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _large(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _figure(table: list[Row], path: Path) -> None:
    from straylight.report.figures import pareto

    temporary = path.with_suffix(".part.png")
    pareto(table).savefig(temporary, dpi=150)
    temporary.replace(path)


def _teller(console: Console | None) -> Callable[..., None]:
    """Print without markup: a name or a reason may hold brackets."""
    # a table squeezed into a pipe's 80 columns is unreadable; it takes no more than it needs
    console = console or (Console() if sys.stdout.isatty() else Console(width=200))
    return lambda what, **style: console.print(
        what if isinstance(what, Table) else Text(what), highlight=False, soft_wrap=not isinstance(what, Table), **style
    )
