"""A figure with what stands around it on a page."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from straylight.report.html.tables import Table
from straylight.report.html.vector import Called, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Drawn:
    """A figure, what it shows in a sentence, and its numbers."""

    key: str
    title: str
    sentence: str
    drawing: Markup
    tables: list[Table] = field(default_factory=list)
    note: str = ""
    is_picture: bool = False  # as the run drew it


def drawn(figure: Figure, key: str, title: str, sentence: str, called: Called = dict) -> Drawn:
    """A figure as lines that stay sharp, with its numbers; see `straylight.report.html.vector.svg`."""
    from straylight.report.html.numbers import tables

    drawing = Markup(svg(figure, key, f"{title}. {sentence}", called))
    return Drawn(key, title, sentence, drawing, tables(figure))


def picture(path: Path, key: str, title: str, sentence: str) -> Drawn:
    """A picture that is there, as it is."""
    data = base64.b64encode(path.read_bytes()).decode()
    return Drawn(
        key,
        title,
        sentence,
        Markup('<img alt="{}" src="data:image/png;base64,{}">').format(sentence, data),
        is_picture=True,
    )
