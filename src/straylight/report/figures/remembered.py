"""What matplotlib asks a figure for again and again until a picture is there, remembered while it cannot change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

Ticks = Callable[[Axis], list[Any]]


@contextmanager
def remembered(figure: Figure, ticks: Ticks) -> Iterator[None]:
    """Within it nothing in a figure changes but the places and the ends of its panels.

    Args:
        ticks: finds those of an axis that are in view, where all have one style.
    """
    panels: list[Any] = [panel for panel in figure.axes if panel.name == "rectilinear"]
    axes: list[Any] = [axis for panel in panels for axis in (panel.xaxis, panel.yaxis)]
    written = [*texts(figure)]
    for text in written:
        once_for_each(text)
    for panel in panels:
        panel.get_default_bbox_extra_artists = cache(panel.get_default_bbox_extra_artists)
    for axis in axes:
        vars(axis).update(_by_place(axis, ticks))
    try:
        yield
    finally:
        for axis in axes:
            for name in OF_AXES:
                delattr(axis, name)
        for panel in panels:
            del panel.get_default_bbox_extra_artists
        for text in written:
            del text._get_layout  # type: ignore[attr-defined]


def can_be() -> bool:
    """Whether matplotlib has all that is taken the place of, which it may name otherwise in another version.

    Example:
        >>> can_be()
        True
    """
    return all(callable(getattr(Axis, name, None)) for name in OF_AXES) and hasattr(Text, "_get_layout")


def texts(artist: Artist) -> Iterator[Text]:
    """All texts but those of ticks, none of which is made for it.

    Example:
        >>> [text.get_text() for text in texts(Figure().subplots().set_title("a title"))]
        ['a title']
    """
    if isinstance(artist, Text):
        yield artist
    for part in (artist.label, artist.offsetText) if isinstance(artist, Axis) else artist.get_children():
        yield from texts(part)


def once_for_each(text: Any) -> None:
    """Let a text find once how it is laid out, for each thing that it says."""
    vars(text).pop("_get_layout", None)  # of what it was copied from
    found, laid_out = {}, text._get_layout

    def known(renderer: Any) -> Any:
        key = (text.get_text(), text.get_figure(root=True).dpi, type(renderer))
        if key not in found:
            found[key] = laid_out(renderer)
        return found[key]

    text._get_layout = known


OF_AXES = ("_update_ticks", "_get_ticklabel_bboxes", "_update_label_position", "get_tightbbox")


def _by_place(axis: Any, in_view: Ticks) -> dict[str, Callable[..., Any]]:
    """Methods of an axis by their names, that do once for each place what they do: ticks, and all that goes by them."""
    every, boxes_of, put_label, box_of = (getattr(axis, name) for name in OF_AXES)
    known: dict[Any, Any] = {}

    def here() -> dict[Any, Any]:
        place = (*axis.get_view_interval(), *axis.axes.bbox.bounds)
        if known.get("place") != place:
            known.clear()
            known["place"] = place
        return known

    def ticks() -> list[Any]:
        if "ticks" not in here():
            alone = len(axis.majorTicks) < 2 and len(axis.minorTicks) < 2  # else each may have its own style
            known["ticks"] = in_view(axis) if alone else every()
        found: list[Any] = known["ticks"]
        return found

    def boxes(asked: list[Any], renderer: Any) -> tuple[list[Any], list[Any]]:
        if "boxes" not in here():
            known["boxes"] = boxes_of(asked, renderer)
        first, second = known["boxes"]
        return [*first], [*second]

    def label(renderer: Any) -> None:
        if "label" not in here():
            known["label"] = put_label(renderer)

    def box(renderer: Any = None, *, for_layout_only: bool = False) -> Any:
        if (key := ("box", for_layout_only)) not in here():
            known[key] = box_of(renderer, for_layout_only=for_layout_only)
        return known[key]

    return dict(zip(OF_AXES, (ticks, boxes, label, box), strict=True))
