"""What a run does now, as a bar below a notebook's cell."""

from __future__ import annotations

import html
import sys
from typing import Any

from straylight.streams import plain


class Bar:
    """Told what a run does now, it shows it in a notebook, in one place: told as `straylight.phases.Phases` is.

    Epochs fill the bar. When all is done it goes and leaves an empty place, so that nothing of it is saved with the
    notebook's outputs; a widget's place would be, and cannot be shown without its program.

    Args:
        show: displays a text of HTML and returns what has `update`; IPython's by default, replaced in tests.

    Attributes:
        live: that it may be told often.

    Example:
        >>> class Place(list):
        ...     update = list.append
        >>> shown = Place()
        >>> bar = Bar(lambda text: shown.append(text) or shown)
        >>> bar.at(3, 20)
        >>> bar("epoch 3/20  loss 0.412  8 s left")
        >>> bar.done()
        >>> shown
        ['<progress max="20" value="3"></progress> <code>epoch 3/20  loss 0.412  8 s left</code>', '']
    """

    live = True

    def __init__(self, show: Any = None) -> None:
        self._show = show or _below_the_cell
        self._place: Any = None
        self._epoch: tuple[int, int] | None = None

    def at(self, epoch: int, of: int) -> None:
        """So many epochs have ended; shown with what is said next."""
        self._epoch = (epoch, of)

    def __call__(self, text: str) -> None:
        """Say what is done now."""
        shown = f"<code>{html.escape(plain(text))}</code>"
        if self._epoch is not None:
            epoch, of = self._epoch
            shown = f'<progress max="{of}" value="{epoch}"></progress> {shown}'
        if self._place is None:
            self._place = self._show(shown)
        else:
            self._place.update(_Html(shown))

    def keep(self, text: str) -> None:
        """Say what was done; a notebook keeps no line of it."""
        self(text)

    def done(self) -> None:
        """Nothing more is done: the bar goes."""
        if self._place is not None:
            self._place.update(_Html(""))
        self._place = self._epoch = None


class _Html(str):
    """A text that a notebook shows as HTML."""

    def _repr_html_(self) -> str:
        return str(self)


def _below_the_cell(text: str) -> Any:
    from IPython.display import display

    return display(_Html(text), display_id=True)


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook, which shows HTML; a terminal's IPython does not."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
