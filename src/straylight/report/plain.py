"""What a report says, for programs."""

import json
from pathlib import Path

from rich.console import Console

from straylight.folder import RunFolder, SweepFolder
from straylight.report.leaderboard import Row
from straylight.report.page import report
from straylight.report.scan import scans
from straylight.runtimes import BEST


def as_json(folder: Path, runtime: str = BEST) -> str:
    """The record of a run; of a sweep, or of all runs below a folder, the leaderboard, the record of each run, and
    scans of signal regions if there are some.

    What the report writes beside it, it writes, too.

    Args:
        folder: of a run, of a sweep, or above several.
        runtime: see `straylight.report.page.report`.
    """
    if RunFolder(folder).result.is_file():
        return json.dumps(RunFolder(folder).read(), default=str)
    rows = report(folder, Console(quiet=True), runtime)
    results = SweepFolder(folder).results()
    found: dict[str, object] = {"leaderboard": [_plain(row) for row in rows], "runs": results}
    if scanned := scans(results):
        found["scans"] = [scan._asdict() for scan in scanned]
    return json.dumps(found, default=str)


def _plain(row: Row) -> dict[str, object]:
    numbers = {name: spread._asdict() for name, spread in row.numbers.items()}
    return row._asdict() | {
        "numbers": numbers,
        **{n: dict(getattr(row, n)) for n in ("intervals", "widths", "runtimes")},
    }
