"""Pictures of a latent space that answer the mouse, in a notebook: a cloud to turn, and sliders that move a code.

They need plotly and ipywidgets, which `pip install 'straylight[notebooks]'` installs.

Shapes: `N` events, `Z` latent dimensions; images are `(C, H, W)` with one channel or three.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.image import imsave
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures.events import is_image
from straylight.report.figures.latent import Classes, checked, views
from straylight.report.figures.projection import components, projected
from straylight.report.figures.style import Look, Names, subsampled

if TYPE_CHECKING:
    from ipywidgets import HBox
    from plotly.graph_objects import Figure

# plotly knows eight symbols in three dimensions
SYMBOLS = {"s": "square", "D": "diamond", "^": "diamond-open", "v": "square-open", "P": "cross", "*": "circle-open"}
SYMBOLS |= {"X": "x"}
SIDE = 280  # pixels of a picture on the screen
STEP = 0.1  # standard deviations
Decode = Callable[[NDArray[np.float32]], ArrayLike]


def scatter_3d(
    z: ArrayLike, y: ArrayLike, kinds: Names = (), classes: Classes = None, class_name: str = "class"
) -> Figure:
    """Codes in three dimensions, to be turned with the mouse: by kind, and by class at the press of a button.

    Codes of more dimensions are shown along their first three principal components. Of each kind at most 3,000 are
    shown. Colours are those of all other figures.

    Args:
        z, y, kinds, classes, class_name: see `straylight.report.figures.latent_3d`; Z is at least 3.

    Raises:
        ValueError: if the shapes do not fit, a code is not finite or has fewer than three dimensions.
        ModuleNotFoundError: if plotly is missing, with how to install it.

    Example:
        >>> figure = scatter_3d(np.eye(4)[:, :3], [0, 0, 1, 1], ("nominal", "far"))
        >>> [cloud.name for cloud in figure.data]
        ['nominal', 'far']
    """
    go = _needed("plotly.graph_objects")
    codes, labels, rows = checked(z, y)
    if codes.shape[1] < 3:
        raise ValueError(f"codes of {codes.shape[1]} dimensions are no cloud in three; see figures.latent_2d")
    points, names = projected(codes, 3)
    figure, seen = go.Figure(), views(labels, kinds, classes, class_name)
    for view, groups in seen.items():
        for chosen, drawn in groups:
            own = rows[chosen[rows]]
            figure.add_trace(_cloud(go, points[own].astype(np.float32), drawn, own, visible=view == "kind"))
    owners = [view for view, groups in seen.items() for _ in groups]
    buttons = [
        {"label": f"by {view}", "method": "restyle", "args": [{"visible": [owner == view for owner in owners]}]}
        for view in seen
    ]
    menu = {"type": "buttons", "direction": "right", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"}
    figure.update_layout(
        template="plotly_white",
        height=600,
        margin={"l": 0, "r": 0, "t": 60, "b": 0},
        title={"text": subsampled(len(codes), len(rows)), "x": 0.5, "font": {"size": 13}},
        scene={f"{axis}axis": {"title": {"text": name}} for axis, name in zip("xyz", names, strict=True)},
        legend={"itemsizing": "constant"},
        updatemenus=[{**menu, "buttons": buttons}] if len(seen) > 1 else [],
    )
    return figure


def _cloud(go: Any, points: NDArray[np.float32], drawn: Look, rows: NDArray[np.intp], visible: bool) -> Any:
    return go.Scatter3d(
        **dict(zip("xyz", points.T, strict=True)),
        mode="markers",
        marker={"size": 3, "color": drawn.colour, "symbol": SYMBOLS.get(drawn.marker, "circle"), "opacity": 0.8},
        name=drawn.name,
        customdata=rows,
        hovertemplate=f"event %{{customdata}}, {drawn.name}<extra></extra>",
        visible=visible,
    )


def sliders(codes: ArrayLike, decode: Decode, *, span: float = 3.0, most: int = 8) -> HBox:
    """A slider for each principal component of the codes, and beside them the image that is decoded there.

    With the sliders at s the code is z = m + sum_k s_k sigma_k v_k: m the mean of the codes, v_k their k-th principal
    direction, sigma_k the standard deviation along it. All images have one scale of brightness.

    Args:
        codes: of nominal events, say, `(N, Z)` with N at least 2.
        decode: codes `(1, Z)` to an image, `(H, W)`, `(C, H, W)` or `(1, C, H, W)`.
        span: standard deviations that a slider goes to either side.
        most: sliders; components beyond them stay at the mean.

    Returns:
        A box of two: the column of sliders, below them a button that puts all to 0 and the code, and the picture.

    Raises:
        ValueError: if the shapes do not fit, a code is not finite or what is decoded is no image.
        ModuleNotFoundError: if ipywidgets is missing, with how to install it.

    Example:
        >>> box = sliders(np.eye(3), lambda z: np.full((4, 4), z[0, 0]))
        >>> column, picture = box.children
        >>> before, column.children[0].value = picture.value, 2.0
        >>> picture.value != before
        True
    """
    widgets = _needed("ipywidgets")
    given = np.asarray(codes, np.float64)
    given, _, _ = checked(given, np.zeros(len(given), np.int64))
    if len(given) < 2:
        raise ValueError("principal components are those of two codes or more")
    found = components(given)
    steps = (found.spread * found.directions).T[:most]  # (k, Z), one standard deviation each
    low, high = _brightness([_image(decode, found.mean + s * step) for step in steps for s in (-span, 0, span)])

    style = {"style": {"description_width": "initial"}, "readout_format": ".1f"}
    moved = [
        widgets.FloatSlider(value=0, min=-span, max=span, step=STEP, description=name, **style)
        for name in found.names[: len(steps)]
    ]
    centre, where = widgets.Button(description="to the mean"), widgets.Label()
    picture = widgets.Image(format="png", width=SIDE, height=SIDE)

    def show(_: object = None) -> None:
        z = found.mean + np.array([slider.value for slider in moved]) @ steps
        where.value = f"z = ({', '.join(f'{number:.2f}' for number in z[:most])}{', …' if len(z) > most else ''})"
        picture.value = _png(_image(decode, z), low, high)

    def reset(_: object) -> None:
        for slider in moved:
            slider.value = 0

    for slider in moved:
        slider.observe(show, "value")
    centre.on_click(reset)
    show()
    return widgets.HBox([widgets.VBox([*moved, centre, where]), picture])


def _needed(module: str) -> Any:
    """A module of the extra `notebooks`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = module.partition(".")[0]
        raise ModuleNotFoundError(
            f"This needs {name}, which is not installed: pip install 'straylight[notebooks]'."
        ) from error


def _image(decode: Decode, z: NDArray[np.float64]) -> NDArray[np.float64]:
    made = np.asarray(decode(z[None].astype(np.float32)), np.float64)
    image = made[None] if made.ndim == 2 else made[0] if made.ndim == 4 and len(made) == 1 else made
    if not is_image(image.shape):
        raise ValueError(f"what is decoded must be an image, (H, W) or (C, H, W), not of shape {made.shape}")
    return image


def _brightness(images: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """What is drawn black and what white."""
    low, high = float(min(image.min() for image in images)), float(max(image.max() for image in images))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def _png(image: NDArray[np.float64], low: float, high: float) -> bytes:
    """Of `(C, H, W)`, each pixel a square of some, so that a browser blurs none."""
    shades = np.clip((image - low) / ((high - low) or 1.0), 0, 1).transpose(1, 2, 0)
    shades = np.repeat(shades, 3, 2) if shades.shape[2] == 1 else shades
    times = max(1, SIDE // max(shades.shape[:2]))
    file = io.BytesIO()
    imsave(file, shades.repeat(times, 0).repeat(times, 1), format="png")
    return file.getvalue()
