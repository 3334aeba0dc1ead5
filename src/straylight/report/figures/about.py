"""What the artists of a figure show, for a page that answers the mouse; a PNG is the same without."""

import json
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.container import Container
from matplotlib.legend import Legend

ABOUT = "about:"  # before what an artist is said to show


def about(*artists: Artist | Container, **what: str | Sequence[str]) -> None:
    """Say which detector, data set, kind or run artists show; a sequence says it of each marker of a line.

    Example:
        >>> from matplotlib.lines import Line2D
        >>> line = Line2D([0, 1], [0, 1])
        >>> about(line, detector="knn")
        >>> shown_by(line)
        {'detector': 'knn'}
    """
    for artist in artists:
        for part in artist.get_children() if isinstance(artist, Container) else [artist]:
            part.set_gid(ABOUT + json.dumps({**shown_by(part), **what}))


def shown_by(artist: Artist) -> dict[str, Any]:
    """What an artist is said to show; empty of one of which nothing is said."""
    said = artist.get_gid() or ""
    found: dict[str, Any] = json.loads(said.removeprefix(ABOUT)) if said.startswith(ABOUT) else {}
    return found


def passed_on(handles: Sequence[Any], legend: Legend) -> None:
    """Say of what stands in a legend which detector or kind it is of, as is said of what it was made for."""
    for handle, drawn, text in zip(handles, legend.legend_handles, legend.get_texts(), strict=True):
        of = handle.get_children()[0] if isinstance(handle, Container) and handle.get_children() else handle
        found = {} if isinstance(of, Container) else shown_by(of)
        if what := {name: found[name] for name in ("detector", "kind") if isinstance(found.get(name), str)}:
            about(*([drawn] if drawn is not None else []), text, **what)
