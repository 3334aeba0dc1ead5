"""The rules that the axes of every figure keep: where they start, how far they zoom, and which ticks have a label.

* A logarithmic axis has three labelled ticks or more, whatever it spans, and none of them covers another.
* An axis of qualities that are close to each other is not zoomed into further than their intervals bear out.
* A bar starts at zero, or where chance is.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axis import Axis, XAxis
from matplotlib.ticker import Formatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.ticker import SymmetricalLogLocator as Symmetric

from straylight.report.figures.span import short

LABELLED = 3  # ticks, at least
SPREAD = 2.0  # the least ratio of the ends of a logarithmic axis that finds its own
WIDTHS = 6  # widths of an interval that an axis of qualities spans at least
CLOSEST = 0.02  # and that without an interval
CHANCE = {"auroc": 0.5}  # of a ranking; other qualities start at zero
GLYPH, LINE = 0.66, 1.3  # of a label, in font sizes: how wide a digit is, and how tall a line
SUBS: tuple[tuple[float, ...], ...] = ((1, 3), (1, 2, 5), (1, 2, 3, 5), (1, 1.5, 2, 3, 5, 7))


def logarithmic(*axes: Axis) -> None:
    """Make axes logarithmic, after all is drawn: three labelled ticks or more, grey lines at the multiples of ten.

    An axis that finds its own ends spans a factor of two at least.

    Example:
        >>> from matplotlib.figure import Figure
        >>> panel = Figure().subplots()
        >>> _ = panel.plot([205, 480], [1, 2])
        >>> logarithmic(panel.xaxis)
        >>> [tick.get_text() for tick in panel.get_xticklabels()]
        ['200', '300', '500']
    """
    for axis in axes:
        across = isinstance(axis, XAxis)
        panel = axis.axes
        own = panel.get_autoscalex_on() if across else panel.get_autoscaley_on()
        (panel.set_xscale if across else panel.set_yscale)("log")
        if own:
            low, high = sorted(axis.get_view_interval())
            if low > 0 and high < SPREAD * low:
                middle = (low * high) ** 0.5
                ends = middle / SPREAD**0.5, middle * SPREAD**0.5
                panel.set_xlim(*ends) if across else panel.set_ylim(*ends)
        axis.set_major_locator(Labelled())
        axis.set_major_formatter(Plain())
        axis.set_minor_locator(LogLocator(subs=tuple(range(1, 10)), numticks=200))
        axis.set_minor_formatter(NullFormatter())


class Labelled(LogLocator):
    """Ticks of a logarithmic axis that all have a label: powers of ten where there are three, else numbers between."""

    def __call__(self) -> Sequence[float]:
        return self.tick_values(*self.axis.get_view_interval())  # type: ignore[union-attr]

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        low, high = sorted((vmin, vmax))
        if not 0 < low < high < np.inf:
            return []
        best: list[float] = []
        for ticks in _choices(low, high):
            if len(ticks) >= LABELLED:
                if self._room(ticks, low, high) >= 0:
                    return ticks
                if not best or self._room(ticks, low, high) > self._room(best, low, high):
                    best = ticks
        return best

    def _room(self, ticks: Sequence[float], low: float, high: float) -> float:
        """The least gap between two labels, in points."""
        length, size, across = _measured(self.axis)
        at = np.log(np.asarray(ticks) / low) / np.log(high / low) * length
        if across:
            sizes = np.array([_long(text) for text in labels(ticks)]) * GLYPH * size
            return float((np.diff(at) - (sizes[1:] + sizes[:-1]) / 2).min()) - size / 2
        return float(np.diff(at).min()) - LINE * size


class Plain(Formatter):
    """Powers of ten as such where all ticks are, else short numbers."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return short(x)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        return labels(values)


def labels(ticks: Sequence[float]) -> list[str]:
    """What stands at the ticks of a logarithmic axis.

    Example:
        >>> labels([0.1, 1, 10]), labels([200, 3e6]), labels([3e-5, 1e-4])
        (['0.1', '1', '10'], ['200', '3e6'], ['3e-5', '1e-4'])
    """
    if not _powers(ticks) or (min(ticks) >= 0.01 and max(ticks) <= 1000):
        return [short(tick) if tick >= 0.01 or min(ticks) >= 0.001 else _scientific(tick) for tick in ticks]
    return [f"$\\mathdefault{{10^{{{round(np.log10(tick))}}}}}$" for tick in ticks]


def _scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _long(label: str) -> float:
    """Glyphs of a label; an exponent's are smaller."""
    return 2 + 0.7 * (len(label) - len("$\\mathdefault{10^{}}$")) if label.startswith("$") else len(label)


def symmetric(axis: Axis, width: float = 1.0) -> None:
    """Make an axis linear within so far of zero and logarithmic beyond, zero and few powers of ten at its ticks."""
    (axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale)("symlog", linthresh=width)
    low, high = sorted(axis.get_view_interval())
    if low >= -width and high <= width:  # all of it is linear
        axis.set_major_locator(MaxNLocator(5))
        return
    axis.set_major_locator(Symmetric(base=10, linthresh=width))
    axis.get_major_locator().set_params(numticks=7)  # type: ignore[call-arg]


def quality(values: Iterable[float], widths: Iterable[float] = (), best: float = 1.0) -> tuple[float, float]:
    """The ends of an axis of qualities such as the AUROC: all of them, and no closer than their intervals bear out.

    Six times as wide as their median interval at least; where no interval is known 0.02.

    Args:
        values: means and the ends of their bars.
        widths: of the intervals that are known.
        best: what no value lies above.

    Example:
        >>> low, high = quality([0.9985, 0.9996], [0.002])
        >>> round(low, 3), round(high, 3)
        (0.988, 1.0)
    """
    found = np.array(list(values), np.float64)
    found = found[np.isfinite(found)]
    if not len(found):
        return 0.0, best
    known = [width for width in widths if width > 0]
    span = float(np.ptp(found))
    least = WIDTHS * float(np.median(known)) if known else CLOSEST
    whole = min(max(1.1 * span, least), best - min(0.0, float(found.min())))
    middle = float(found.max() + found.min()) / 2
    low, high = middle - whole / 2, middle + whole / 2
    top = best + whole / 25  # room for a marker that lies at the best
    if high > top:
        low, high = top - whole, top
    return max(low, min(0.0, float(found.min())) - whole / 25), high


def _choices(low: float, high: float) -> Iterator[list[float]]:
    """Ticks between two numbers, the plainest first."""
    first, last = int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9))
    for step in range(1, max(2, (last - first) // (LABELLED - 1) + 1)):
        yield [10.0**k for k in range(-(-first // step) * step, last + 1, step)]
        yield [10.0**k for k in range(first, last + 1, step)]
    for subs in SUBS:
        every = [float(f"{sub}e{k}") for k in range(first - 1, last + 1) for sub in subs]
        yield [tick for tick in every if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    for bins in (3, 4, 5, 6, 8):
        even = [float(tick) for tick in MaxNLocator(bins).tick_values(low, high) if low <= tick <= high]
        yield even
        yield even[::2]


def _measured(axis: Any) -> tuple[float, float, bool]:
    """The length of an axis and the size of its labels, in points, and whether it lies across."""
    box, dpi = axis.axes.get_window_extent(), axis.get_figure(root=True).dpi
    across = isinstance(axis, XAxis)
    size = float(axis.get_major_ticks(1)[0].label1.get_fontsize())
    return max(1.0, box.width if across else box.height) * 72 / dpi, size, across


def _powers(ticks: Sequence[float]) -> bool:
    return bool(len(ticks)) and all(tick > 0 and abs(np.log10(tick) - round(np.log10(tick))) < 1e-9 for tick in ticks)
