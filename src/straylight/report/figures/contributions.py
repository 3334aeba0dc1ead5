"""Why the strangest events are strange: what each feature adds to their scores."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from straylight.report.figures.events import is_image
from straylight.report.figures.mosaic import pixels
from straylight.report.figures.span import short
from straylight.report.figures.style import Names, bare, cut, look, name_features, panels, telling


def contributions(
    x: ArrayLike, parts: ArrayLike, scores: ArrayLike, y: ArrayLike, kinds: Names = (), columns: Names = ()
) -> Figure:
    """By how much the score of each event falls when a feature, or a group of them, is replaced by its nominal median.

    An occlusion: it asks the detector itself, whatever it is, and takes features one by one, so that of two that say
    the same neither may seem to matter. Images are shown beside a map of their pixels; of more than 24 features of a
    table those are shown with the largest contributions.

    References:
        M. D. Zeiler, R. Fergus, Visualizing and understanding convolutional networks, ECCV 2014, arXiv:1311.2901

    Args:
        parts: the falls, `(N, G)`, in units of the score; for images `(N, D)`, a pixel each.
        columns: names of the features or groups.

    Example:
        >>> figure = contributions([[1.0, 9.0]], [[0.1, 5.0]], [5.2], [1], ("nominal", "far"), ("energy", "angle"))
        >>> [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
        ['far  5.2']
    """
    events, found = np.asarray(x, np.float64), np.asarray(parts, np.float64)
    s, labels = np.asarray(scores, np.float64), np.asarray(y)
    n = len(s)
    if not n or events.shape[:1] != (n,) or labels.shape != (n,) or found.shape[:1] != (n,):
        raise ValueError(
            f"events, contributions, scores and labels are of shapes {events.shape}, {found.shape}, {s.shape}, "
            f"{labels.shape}, and must fit each other"
        )
    looks = [look(int(label), kinds) for label in labels]
    if is_image(events.shape[1:]):
        if found.shape != (n, events[0].size):
            raise ValueError(f"a contribution for each pixel of {events.shape} is needed, not {found.shape}")
        return _maps(events, found, s, [drawn.colour for drawn in looks])
    # shares of each event's largest: the scores of the strangest differ by orders of magnitude
    largest = np.abs(found).max(1, keepdims=True)
    shares = found / np.where(largest > 0, largest, 1)
    places = telling(np.abs(shares).sum(0))
    width, height = max(5.0, 0.3 * len(places) + 3.0), max(2.4, 0.28 * n + 1.6)
    figure, (axis,) = panels(width=width, height=height, legend=False)
    image = axis.imshow(shares[:, places], cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    axis.set_yticks(range(n), [f"{cut(drawn.name)}  {short(v)}" for drawn, v in zip(looks, s, strict=True)], fontsize=7)
    name_features(axis, columns, places, 22)
    axis.set(xlabel="feature", ylabel="event: kind and score")
    figure.colorbar(image, ax=axis, label="fall of the score, in its largest")
    return figure


def _maps(events: np.ndarray, found: np.ndarray, scores: np.ndarray, colours: Sequence[str]) -> Figure:
    n = len(scores)
    shades, maps = pixels(events), found.reshape(events.shape).sum(1)
    figure, axes = panels(2, n, width=1.05, height=1.25, legend=False)
    figure.set_figwidth(figure.get_figwidth() + 0.8)
    for i, (above, below) in enumerate(zip(axes[:n], axes[n:], strict=True)):
        largest = float(np.abs(maps[i]).max()) or 1.0
        above.imshow(shades[i], interpolation="nearest")
        last = below.imshow(maps[i] / largest, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        above.set_title(f"score\n{short(scores[i])}", fontsize=7)
        bare(above, below, frame=colours[i])
    figure.colorbar(last, ax=axes, label="fall of the score,\nin its largest", shrink=0.7)
    return figure
