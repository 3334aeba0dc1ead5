"""Why the strangest events are strange: what each feature adds to their scores.

`N` events; `D` features; `G` features or groups of them; images are `(C, H, W)`.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures.events import is_image
from straylight.report.figures.mosaic import pixels
from straylight.report.figures.span import short
from straylight.report.figures.style import Look, Names, bare, cut, look, name_features, named, panels, telling

Array = NDArray[np.float64]
TOLD = 2  # features that are named beside each event
#: Of a map: by the square root, so that one pixel does not hide all others.
ROOTS = FuncNorm((lambda v: np.sign(v) * np.sqrt(np.abs(v)), lambda u: np.sign(u) * u**2), -1, 1)
SHADES = colormaps["RdBu_r"].with_extremes(bad="0.8")


def contributions(
    x: ArrayLike,
    parts: ArrayLike,
    scores: ArrayLike,
    y: ArrayLike,
    kinds: Names = (),
    columns: Names = (),
    *,
    rows: Sequence[str] | None = None,
    constant: ArrayLike | None = None,
) -> Figure:
    """By how much the score of each event falls when a feature, or a group of them, is replaced by its nominal median.

    An occlusion: it asks the detector itself, whatever it is, and takes features one by one, so that of two that say
    the same neither may seem to matter. Features that never change in training are left out: what a detector makes of
    one says more about how it was scaled than about the event. Of each event the features are named that matter most,
    with their values. Images are shown beside a map of their pixels; of more than 24 features of a table those are
    shown with the largest contributions.

    References:
        M. D. Zeiler, R. Fergus, Visualizing and understanding convolutional networks, ECCV 2014, arXiv:1311.2901

    Args:
        x: events, `(N, *shape)`.
        parts: the falls, `(N, G)`, in units of the score; for images `(N, D)`, a pixel each.
        columns: names of the features or groups.
        rows: `(N,)`, what each event is called; without them they are rows, counted from 0.
        constant: `(G,)`, which of them are the same in all training rows.

    Raises:
        ValueError: if shapes do not fit each other, or every feature is constant.

    Example:
        >>> figure = contributions([[1.0, 9.0]], [[0.1, 5.0]], [5.2], [1], ("nominal", "far"), ("energy", "angle"))
        >>> [tick.get_text() for axis in figure.axes[:2] for tick in axis.get_yticklabels()]
        ['row 0  far  5.2', 'angle = 9, energy = 1']
    """
    events, found = np.asarray(x, np.float64), np.array(parts, np.float64)
    s, labels = np.asarray(scores, np.float64), np.asarray(y)
    n = len(s)
    if not n or events.shape[:1] != (n,) or labels.shape != (n,) or found.shape[:1] != (n,):
        raise ValueError(
            f"events, contributions, scores and labels are of shapes {events.shape}, {found.shape}, {s.shape}, "
            f"{labels.shape}, and must fit each other"
        )
    same = np.zeros(found.shape[1], bool) if constant is None else np.asarray(constant, bool)
    who = [f"row {row}" for row in range(n)] if rows is None else list(rows)
    if same.shape != found.shape[1:] or len(who) != n:
        raise ValueError(
            f"{len(who)} names of rows and {len(same)} features, constant or not, do not fit {found.shape}"
        )
    if same.all():
        raise ValueError("every feature is the same in all training rows, so that none can be told to matter")
    looks = [look(int(label), kinds) for label in labels]
    found[:, same] = np.nan
    left_out = f"{int(same.sum())} constant {{}} left out" if same.any() else ""
    if is_image(events.shape[1:]):
        if found.shape != (n, events[0].size):
            raise ValueError(f"a contribution for each pixel of {events.shape} is needed, not {found.shape}")
        return _maps(events, found, s, looks, who, left_out.format("pixels (grey)"))
    # shares of each event's largest: the scores of the strangest differ by orders of magnitude
    largest = np.nanmax(np.abs(found), 1, keepdims=True)
    shares = found / np.where(largest > 0, largest, 1)
    there = np.flatnonzero(~same)
    places = there[telling(np.abs(shares[:, there]).sum(0))]
    width, height = max(5.0, 0.3 * len(places) + 3.0) + 2.2, max(2.4, 0.28 * n + 1.6)
    figure, (axis,) = panels(width=width, height=height, legend=False)
    image = axis.imshow(shares[:, places], cmap=SHADES, vmin=-1, vmax=1, aspect="auto")
    names = [f"{who[i]}  {cut(drawn.name)}  {short(s[i])}" for i, drawn in enumerate(looks)]
    axis.set_yticks(range(n), names, fontsize=7)
    name_features(axis, columns, places, 22)
    axis.set(
        xlabel="feature" + (f"\n{left_out.format('features')}" if left_out else ""), ylabel="event: row, kind, score"
    )
    values = events.reshape(n, -1) if events[0].size == found.shape[1] else None
    beside = axis.twinx()
    beside.set(ylim=axis.get_ylim())
    beside.set_yticks(range(n), [_reasons(i, shares, columns, values) for i in range(n)], fontsize=7)
    beside.tick_params(length=0)
    figure.colorbar(image, ax=[axis, beside], label="fall of the score, as a share of its largest", location="left")
    return figure


def _reasons(i: int, shares: Array, columns: Names, values: Array | None) -> str:
    """The features that raise the score of an event most, with their values, where a feature has one."""
    strongest = np.argsort(-np.nan_to_num(shares[i], nan=-np.inf), kind="stable")[:TOLD]
    told = [g for g in strongest.tolist() if shares[i, g] > 0]
    names = [cut(named(columns, g), 22) + ("" if values is None else f" = {short(values[i, g])}") for g in told]
    return ", ".join(names) or "none alone"


def _maps(
    events: Array, found: Array, scores: Array, looks: Sequence[Look], who: Sequence[str], left_out: str
) -> Figure:
    n = len(scores)
    shades = pixels(events)
    blank = np.isnan(found.reshape(events.shape)).all(1)
    maps = np.where(blank, np.nan, np.nansum(found.reshape(events.shape), 1))
    figure, axes = panels(2, n, width=1.1, height=1.4, legend=False)
    figure.set_figwidth(figure.get_figwidth() + 1.0)
    for i, (above, below) in enumerate(zip(axes[:n], axes[n:], strict=True)):
        largest = float(np.nanmax(np.abs(maps[i]))) or 1.0
        above.imshow(shades[i], interpolation="nearest")
        last = below.imshow(maps[i] / largest, cmap=SHADES, norm=ROOTS, interpolation="nearest")
        above.set_title(f"{who[i]}\n{cut(looks[i].name, 12)}\nscore {short(scores[i])}", fontsize=6.5)
        row, column = np.unravel_index(np.nanargmax(maps[i]), maps[i].shape)
        below.set_xlabel(f"most: pixel\n({row}, {column})", fontsize=6.5)
        bare(above, below, frame=looks[i].colour)
    bar = figure.colorbar(last, ax=axes, label="fall of the score,\nas a share of its largest", shrink=0.7)
    bar.set_ticks([-1, -0.25, 0, 0.25, 1])
    bar.minorticks_off()
    if left_out:
        figure.supxlabel(left_out, fontsize=7)
    return figure
