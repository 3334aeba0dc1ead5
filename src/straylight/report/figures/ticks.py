"""Ticks that cost little to draw.

Matplotlib makes five artists of every tick. Here all but the first of an axis are drawn at one go: a line for their
marks, one for the grid, and a text that is written at each of them in turn. The picture is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axis import Axis, Tick
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray

from straylight.report.figures.remembered import once_for_each

CLOSE = 1e-10  # of a view, by which a tick may lie outside of it


def in_view(axis: Axis) -> list[Any]:
    """The ticks in view, of one style: of the major and of the minor ones the first, and those after it as `_Further`.

    Example:
        >>> from matplotlib.figure import Figure
        >>> panel = Figure().subplots()
        >>> len(in_view(panel.xaxis)), len(panel.xaxis.majorTicks)  # six of them, and one for the marks of five
        (7, 1)
    """
    found: list[Any] = []
    for places, formatter, make in (
        (axis.get_majorticklocs(), axis.get_major_formatter(), axis.get_major_ticks),
        (axis.get_minorticklocs(), axis.get_minor_formatter(), axis.get_minor_ticks),
    ):
        names = formatter.format_ticks(places)  # type: ignore[arg-type]
        inside = _inside(axis, np.asarray(places, float))
        if not len(inside):
            continue
        (first,) = make(1)
        first.update_position(places[inside[0]])
        for text in (first.label1, first.label2):
            text.set_text(names[inside[0]])
        found.append(first)
        if len(inside) > 1:
            others = inside[1:]
            found += _further(axis, first, np.asarray(places, float)[others], [names[i] for i in others])
    return found


def _inside(axis: Axis, places: NDArray[np.float64]) -> NDArray[np.intp]:
    """Which places are in view."""
    if not len(places):
        return np.empty(0, np.intp)
    low, high = np.sort(axis.get_transform().transform(np.sort(axis.get_view_interval())))
    at, room = axis.get_transform().transform(places), CLOSE * (high - low)
    return np.flatnonzero((low - room <= at) & (at <= high + room))


class _Further:
    """What matplotlib asks of a tick, of one that is written by what was made for another, or of the marks of many."""

    def __init__(self, drawn: Sequence[Any], first: Any, second: Any) -> None:
        self.drawn, self.label1, self.label2 = drawn, first, second

    def draw(self, renderer: Any) -> None:
        for artist in self.drawn:
            artist.draw(renderer)


class _Written:
    """A text at a place of its own, written by one that many share."""

    def __init__(self, shared: Text, place: tuple[float, float], said: str) -> None:
        self.shared, self.place, self.said = shared, place, said

    def _put(self) -> Text:
        self.shared.set_position(self.place)
        self.shared.set_text(self.said)
        return self.shared

    def get_visible(self) -> bool:
        return bool(self.said)

    def get_in_layout(self) -> bool:
        return self.shared.get_in_layout()

    def get_window_extent(self, renderer: Any) -> Any:
        return self._put().get_window_extent(renderer)

    def draw(self, renderer: Any) -> None:
        self._put().draw(renderer)


def _further(axis: Axis, first: Tick, places: NDArray[np.float64], names: Sequence[str]) -> list[_Further]:
    """Ticks at these places that look as the first does."""
    across = axis.axis_name == "x"  # type: ignore[attr-defined]
    marks: list[Artist] = []
    for line in (first.gridline, first.tick1line, first.tick2line):
        if line.get_visible():
            marks.append(_many(line, places, across))
    absent = Text(visible=False)
    found = [_Further(marks, absent, absent)]
    written = [
        _each(text, places, names, across) if text.get_visible() else None for text in (first.label1, first.label2)
    ]
    for one, two in zip(*(texts or [absent] * len(places) for texts in written), strict=True):
        found.append(_Further([text for text in (one, two) if text.get_visible()], one, two))
    return [found[0], *(tick for tick in found[1:] if tick.drawn)]


def _many(line: Line2D, places: NDArray[np.float64], across: bool) -> Line2D:
    """A line of a tick, at all of these places: its ends, and a gap before the next."""
    other = np.atleast_1d(np.asarray(line.get_ydata() if across else line.get_xdata(), float))
    if len(other) > 1:
        other = np.append(other, np.nan)
    along, beside = np.repeat(places, len(other)), np.tile(other, len(places))
    many = copy(line)
    many.set_data(*((along, beside) if across else (beside, along)))
    return many


def _each(text: Text, places: NDArray[np.float64], names: Sequence[str], across: bool) -> list[Any]:
    """A label of a tick, at each of these places."""
    x, y = text.get_position()
    shared = copy(text)
    once_for_each(shared)
    return [
        _Written(shared, (place, y) if across else (x, place), name)
        for place, name in zip(places.tolist(), names, strict=True)
    ]
