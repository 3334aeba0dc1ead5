"""The strangest rows of a run's test, by what they are called."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.text import Text

from straylight.errors import ConfigError
from straylight.folder import RunFolder
from straylight.report.details import Part, number
from straylight.report.kept import WEIGHT
from straylight.report.sheet import Column, Sheet
from straylight.rows.origin import FILE, ROW, written

LISTED = 10
OURS = ("index", "score", "y", "kind", FILE, ROW, WEIGHT)


def strangest(folder: Path, most: int = LISTED) -> Iterator[Part]:
    """A table of so many rows of the largest scores: their kind, the file if there are several, the row, their names.

    Of data that do not say where they come from, and in folders of earlier versions, a row is its number in the test
    split, `index`, from 0.
    """
    place = RunFolder(folder)
    if not place.scores.is_file():
        return
    try:
        table = place.table(place.scores)
    except ConfigError as error:
        yield str(error)
        return
    scores = table["score"].to_numpy()
    n = int((~np.isnan(scores)).sum())
    first = np.argsort(-scores, kind="stable")[: min(most, n)]
    if not len(first):
        return
    shown = table.take(first)
    names = [name for name in shown.column_names if name not in OURS and not name.startswith("member_")]
    if FILE in shown.column_names and len(table[FILE].unique()) > 1:
        names.insert(0, FILE)
    numbered = ROW if ROW in shown.column_names else "index"
    out = Sheet(
        [
            Column("strangest", text=True),
            Column("score"),
            Column("kind", text=True),
            Column(numbered),
            *(Column(name, name, rank, text=True) for rank, name in enumerate(names, 1)),
        ],
        f"see {place.scores.name}",
    )
    kinds = shown["kind"].to_pylist() if "kind" in shown.column_names else [""] * len(shown)
    columns = [shown[name].to_pylist() for name in names]
    for i, (score, kind, row) in enumerate(
        zip(shown["score"].to_pylist(), kinds, shown[numbered].to_pylist(), strict=True)
    ):
        called = (Text("" if column[i] is None else written(column[i])) for column in columns)
        out.add_row(str(i + 1), number(score), Text(kind), str(row), *called)
    yield out
