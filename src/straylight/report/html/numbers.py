"""What a figure shows, as tables of numbers, for who cannot see it or wants to go on from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from straylight.report.figures.about import shown_by
from straylight.report.html.tables import Heading, Table

MOST = 25  # points of a series
ROWS = 400  # of a table
UNNAMED = ("_", "chance")  # how the labels of lines begin that are no series


def tables(figure: Figure) -> list[Table]:
    """A table for each panel that has numbers: points of its series, the values of an image, or the heights of bars.

    Of a series of many points 25 are listed, evenly spaced among them, the first and the last included, which the
    caption says.

    Example:
        >>> figure = Figure()
        >>> _ = figure.subplots().plot([1, 2], [0.5, 0.75], label="knn")
        >>> (table,) = tables(figure)
        >>> table.rows
        [['knn', '1', '0.5'], ['knn', '2', '0.75']]
    """
    found = []
    for panel in figure.axes:
        if not panel.get_visible() or panel.get_label() == "<colorbar>":
            continue
        made = _image(panel) if panel.images else _series(panel) or _texts(panel)
        if made is not None:
            found.append(made)
    return found


def number(value: float) -> str:
    """To five digits.

    Example:
        >>> number(0.98765432), number(1e-6), number(12345678.0)
        ('0.98765', '1e-06', '1.2346e+07')
    """
    return f"{value:.5g}"


def _image(panel: Axes) -> Table:
    values = np.ma.filled(np.ma.asarray(panel.images[0].get_array()).astype(float), np.nan)
    across, down = (
        _named(axis, length) for axis, length in ((panel.xaxis, values.shape[1]), (panel.yaxis, len(values)))
    )
    rows = [[name, *("" if np.isnan(v) else number(v) for v in row)] for name, row in zip(down, values, strict=True)]
    return Table(panel.get_title(), [Heading("", text=True), *map(Heading, across)], rows[:ROWS])


def _named(axis: Any, length: int) -> list[str]:
    """The labels along an axis of an image, one for each of its cells, or their numbers."""
    labels = [label.get_text() for label in axis.get_ticklabels()]
    return labels if len(labels) == length else [str(i) for i in range(length)]


def _series(panel: Axes) -> Table | None:
    rows: list[list[str]] = []
    thinned = False
    for name, x, y in _drawn(panel):
        keep = np.unique(np.linspace(0, len(x) - 1, min(MOST, len(x))).round().astype(int))
        thinned |= len(keep) < len(x)
        rows += [[name, x[i], y[i]] for i in keep.tolist()]
    if not rows:
        return None
    caption = panel.get_title()
    if thinned or len(rows) > ROWS:
        caption = f"{caption} (some of the points)".strip()
    headings = [Heading("series", text=True), Heading(panel.get_xlabel()), Heading(panel.get_ylabel())]
    return Table(caption, headings, rows[:ROWS])


def _drawn(panel: Axes) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each series: what it is called, and its points as text."""
    marks = _ticks(panel)
    for line in panel.lines:
        what = shown_by(line)
        name = str(what.get("detector") or what.get("kind") or line.get_label())
        x, y = (np.asarray(along, float) for along in line.get_data())
        if len(x) and (what or not name.startswith(UNNAMED)):
            yield name, *_texts_of(x, y, marks)
    for dots in panel.collections:
        if isinstance(dots, PathCollection) and not str(dots.get_label()).startswith(UNNAMED):
            points = np.ma.filled(np.ma.asarray(dots.get_offsets()), np.nan).astype(float)
            yield str(dots.get_label()), *_texts_of(points[:, 0], points[:, 1], marks)
    for bars in panel.containers:
        if isinstance(bars, BarContainer):
            left = np.array([bar.get_x() + bar.get_width() / 2 for bar in bars])
            tops = np.array([bar.get_y() + bar.get_height() for bar in bars])
            of = [str(shown_by(bar).get("detector") or "") for bar in bars]
            names = [name or text for name, text in zip(of, _texts_of(left, tops, marks)[0], strict=True)]
            yield str(bars.get_label()), names, [number(top) for top in tops]
    for stairs in (patch for patch in panel.patches if isinstance(patch, StepPatch)):
        if not str(stairs.get_label()).startswith(UNNAMED):
            values, edges, _ = stairs.get_data()
            yield str(stairs.get_label()), [f"from {number(e)}" for e in edges[:-1]], [number(v) for v in values]


def _ticks(panel: Axes) -> dict[float, str]:
    """Names at the places of an axis, where these are names."""
    places = np.asarray(panel.yaxis.get_majorticklocs(), float).tolist()
    labels = [label.get_text() for label in panel.yaxis.get_ticklabels()]
    return {p: text for p, text in zip(places, labels, strict=False) if text and not _is_number(text)}


def _is_number(text: str) -> bool:
    try:
        float(text.replace("\N{MINUS SIGN}", "-"))
    except ValueError:
        return text.startswith("$")
    return True


def _texts_of(x: np.ndarray, y: np.ndarray, marks: dict[float, str]) -> tuple[list[str], list[str]]:
    known = ~(np.isnan(x) | np.isnan(y))
    return [number(v) for v in x[known]], [marks.get(v, number(v)) for v in y[known]]


def _texts(panel: Axes) -> Table | None:
    """What is written in a panel without series, such as names at their ranks."""
    said = [" ".join(text.get_text().split()) for text in panel.texts]
    rows: Sequence[list[str]] = [[text] for text in said if text]
    return Table(panel.get_title(), [Heading(panel.get_xlabel(), text=True)], list(rows)[:ROWS]) if rows else None
