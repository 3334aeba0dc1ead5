"""Many images in one picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike, NDArray

BLANK = 1.0  # white, between images and where there is none


def pixels(images: ArrayLike) -> NDArray[np.float64]:
    """Images as `(N, H, W, 3)` between 0 and 1, for one scale of brightness: that of their 0.5 to 99.5 % quantiles.

    Args:
        images: `(N, H, W)`, or `(N, C, H, W)` with one channel or three; not finite ones are drawn as the darkest.

    Raises:
        ValueError: if they are of another shape.

    Example:
        >>> pixels([[[0.0, 1.0]]]).shape
        (1, 1, 2, 3)
    """
    given = np.asarray(images, np.float64)
    if given.ndim == 3:
        given = given[:, None]
    if given.ndim != 4 or given.shape[1] not in (1, 3):
        raise ValueError(f"images are of shape (N, H, W) or (N, C, H, W) with 1 or 3 channels, not {given.shape}")
    if given.shape[1] == 1:
        given = np.repeat(given, 3, 1)
    finite = given[np.isfinite(given)]
    low, high = np.quantile(finite, [0.005, 0.995]) if finite.size else (0.0, 1.0)
    if finite.size and finite.min() >= 0 and finite.max() <= 1:
        low, high = 0.0, 1.0
    scaled = (np.nan_to_num(given, nan=low, posinf=high, neginf=low) - low) / ((high - low) or 1.0)
    return np.clip(scaled, 0, 1).transpose(0, 2, 3, 1)


def mosaic(images: ArrayLike, columns: int, frames: Sequence[str] | None = None, gap: int = 1) -> NDArray[np.float64]:
    """Images row by row in one, `(H', W', 3)`, each in a frame of its colour if there are frames.

    Args:
        images: `(N, H, W, 3)`, as from `pixels`.
        columns: images in a row.
        frames: `(N,)` colours.
        gap: pixels around each.

    Example:
        >>> mosaic(np.zeros((3, 4, 4, 3)), columns=2).shape
        (12, 12, 3)
    """
    given = np.asarray(images, np.float64)
    n, height, width, _ = given.shape
    rows = -(-n // columns)
    around = gap if frames is None else 2 * gap
    out = np.full((rows * (height + 2 * around), columns * (width + 2 * around), 3), BLANK)
    for i, image in enumerate(given):
        top, left = (i // columns) * (height + 2 * around), (i % columns) * (width + 2 * around)
        if frames is not None:
            out[top + gap : top + height + 3 * gap, left + gap : left + width + 3 * gap] = to_rgb(frames[i])
        out[top + around : top + around + height, left + around : left + around + width] = image
    return out


def framed(images: NDArray[np.float64], columns: int, frames: Sequence[str]) -> NDArray[np.float64]:
    """A mosaic of framed images, whose gaps grow with them."""
    return mosaic(images, columns, frames, gap=max(1, images.shape[1] // 14))


def show(axis: Axes, picture: NDArray[np.float64], title: str = "") -> None:
    """A picture without axes."""
    axis.imshow(picture, interpolation="nearest", aspect="equal")
    axis.set_axis_off()
    axis.set_title(title, fontsize=9)
