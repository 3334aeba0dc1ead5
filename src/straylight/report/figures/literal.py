"""Names are shown as they are: a dollar in one begins no formula; but a very long one is cut."""

import warnings
from contextlib import nullcontext
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FuncFormatter

from straylight.report.figures.remembered import can_be, remembered, texts
from straylight.report.figures.ticks import in_view

LONG = 120  # characters of a line
DIRECTIONS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # which turn what stands after them
UNDRAWN = {*range(32), *range(127, 160), *range(0xD800, 0xE000), *DIRECTIONS} - {ord("\n")}
CONTROL = dict.fromkeys(UNDRAWN, "\ufffd")


def legible(text: str, most: int = LONG) -> str:
    """A text as a figure has it, its lines of at most so many characters.

    Example:
        >>> len(legible("x" * 10_000)), legible("a\\x00b") == "a\\ufffdb", legible("one\\ntwo") == "one\\ntwo"
        (120, True, True)
    """
    lines = text.translate(CONTROL).split("\n")
    return "\n".join(line if len(line) <= most else f"{line[: most - 1]}…" for line in lines)


def literal(figure: Figure) -> Figure:
    """Take all texts for what they are, but for ticks of numbers, which alone have formulas; returns the figure.

    Example:
        >>> figure = Figure()
        >>> title = figure.subplots().set_title("$cost$")
        >>> literal(figure).axes[0].title.get_parse_math()
        False
    """
    for text in texts(figure):
        text.set_parse_math(False)
        text.set_text(legible(text.get_text()))
    for axis in [own for panel in figure.axes for own in (panel.xaxis, panel.yaxis)]:
        if isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter):  # those of names
            for tick in axis.get_major_ticks(1 if len(axis.majorTicks) < 2 else None):  # the first stands for all
                for text in (tick.label1, tick.label2):
                    text.set_parse_math(False)
    return figure


def save(figure: Figure, file: Any, **options: Any) -> None:
    """Write a figure as `Figure.savefig` does, its names as they are; a letter that the font lacks is a box, no news.

    It is laid out once, and stays so.

    Example:
        >>> import io
        >>> figure, file = Figure(), io.BytesIO()
        >>> _ = figure.subplots().set_title("bell \\a")
        >>> save(figure, file, format="png")
        >>> file.getvalue()[:4]
        b'\\x89PNG'
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        with remembered(literal(figure), in_view) if can_be() else nullcontext(literal(figure)):
            _lay_out(figure, options.get("dpi"))
            figure.savefig(file, **options)


def _lay_out(figure: Figure, dpi: float | None) -> None:
    """Put everything in its place, as a figure that is saved without would be by a drawing that nobody sees."""
    if (engine := figure.get_layout_engine()) is None:
        return
    own = figure.dpi
    if dpi is not None:
        figure.dpi = dpi
    FigureCanvasAgg(figure)
    engine.execute(figure)
    figure.set_layout_engine(None)
    figure.dpi = own
