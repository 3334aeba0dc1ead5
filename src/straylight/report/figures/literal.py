"""Names are shown as they are: a dollar in one begins no formula, and a letter that the font lacks is no news."""

import warnings
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter


def literal(figure: Figure) -> Figure:
    """Take all texts for what they are, but for ticks of numbers, which alone have formulas; returns the figure.

    Example:
        >>> figure = Figure()
        >>> title = figure.subplots().set_title("$cost$")
        >>> literal(figure).axes[0].title.get_parse_math()
        False
    """
    numbers: set[Text] = set()
    for axis in [own for panel in figure.axes for own in (panel.xaxis, panel.yaxis)]:
        labels = axis.get_ticklabels(which="both")
        if not isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter):  # those of names
            numbers.update(labels)
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text not in numbers:
            text.set_parse_math(False)
    return figure


def save(figure: Figure, file: Any, **options: Any) -> None:
    """Write a figure as `Figure.savefig` does, its names as they are.

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
        literal(figure).savefig(file, **options)
