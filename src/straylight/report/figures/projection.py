"""Points of many dimensions as points of two or three: along the directions in which they spread most."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

SEEN = 20_000  # points that the directions are found from


class Projected(NamedTuple):
    """Points `(N, k)` and what their axes are called, `k` names."""

    points: NDArray[np.float64]
    names: tuple[str, ...]


class Components(NamedTuple):
    """Principal components, those along which points spread most first.

    Attributes:
        mean: of the points, `(D,)`.
        spread: standard deviation along each, `(D,)`.
        directions: unit vectors, `(D, D)`, a column for each.
        names: what they are called, each with its share of the variance.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    directions: NDArray[np.float64]
    names: tuple[str, ...]


def projected(x: ArrayLike, most: int, name: str = "z", standardise: bool = False) -> Projected:
    """Points as they are if they have at most `most` dimensions, else their first principal components.

    The components are those of at most 20,000 evenly spaced points. Each axis is named with its share of the variance.

    Args:
        x: `(N, D)`, finite.
        most: dimensions that can be drawn.
        name: of a dimension, which its number follows.
        standardise: whether every dimension counts the same, whatever its unit.

    Raises:
        ValueError: if the points are not of shape `(N, D)`, or not finite.

    Example:
        >>> projected([[0., 1., 5.], [1., 0., 5.]], 2).names
        ('component 1 (100 %)', 'component 2 (0 %)')
    """
    points = np.asarray(x, np.float64)
    if points.ndim != 2 or not points.shape[1]:
        raise ValueError(f"points to draw must be of shape (N, D), not {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError(f"{int((~np.isfinite(points)).any(1).sum())} of {len(points)} points are not finite")
    if points.shape[1] <= most:
        return Projected(points, tuple(f"{name}{i + 1}" for i in range(points.shape[1])))
    some = points[:: -(-len(points) // SEEN)]
    scale = np.ones(points.shape[1])
    if standardise:
        scale = np.where((width := some.std(0)) > 0, width, 1.0)
    found = components(some / scale)
    return Projected((points / scale - found.mean) @ found.directions[:, :most], found.names[:most])


def components(points: NDArray[np.float64]) -> Components:
    """Where points spread most, of finite `(N, D)`.

    Example:
        >>> components(np.array([[0., 0.], [0., 2.], [0., 4.]])).names
        ('component 1 (100 %)', 'component 2 (0 %)')
    """
    mean, d = points.mean(0), points.shape[1]
    variance, directions = np.linalg.eigh(np.cov(points - mean, rowvar=False, bias=True).reshape(d, d))
    variance, directions = np.maximum(variance[::-1], 0), directions[:, ::-1]
    # the sign of a direction is a matter of taste: its largest part points up
    directions = directions * np.sign(directions[np.abs(directions).argmax(0), np.arange(d)])
    share = variance / (variance.sum() or 1.0)
    names = tuple(f"component {i + 1} ({share[i]:.0%})".replace("%", " %") for i in range(d))
    return Components(mean, np.sqrt(variance), directions, names)
