"""The latent space: where codes lie, by kind and by class, and whether they are as normal as they should be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures.plane import by_kind, limits
from straylight.report.figures.projection import projected
from straylight.report.figures.span import span
from straylight.report.figures.style import (
    COLOURS,
    MARKERS,
    NOMINAL,
    Look,
    beside,
    canvas,
    present,
    shown,
    subsampled,
)

Array = NDArray[np.float64]
CLASSES = 24  # that a legend has room for
SHADES = (*COLOURS, NOMINAL)  # no nominal events beside classes: ten digits have ten colours


def latent_2d(
    z: ArrayLike,
    y: ArrayLike,
    kinds: Sequence[str] = (),
    classes: Sequence[object] | None = None,
    class_name: str = "class",
) -> Figure:
    """Codes in two dimensions, by kind, and by class where there is one; histograms of codes of one dimension.

    Codes of more dimensions are shown along their first two principal components. Of each kind at most 3,000 are shown.

    Args:
        z: codes, `(N, Z)`.
        y: `(N,)`, -1 unknown, 0 nominal, 1..K the kind of anomaly.
        kinds: names of the labels.
        classes: `(N,)` values, such as the digit; of more than 24 the commonest are shown.
        class_name: what they are.

    Raises:
        ValueError: if the shapes do not fit or a code is not finite.

    Example:
        >>> latent_2d([[0., 0.], [1., 1.]], [0, 1]).axes[0].get_xlabel()
        'z1'
    """
    codes, labels, rows = checked(z, y)
    points, names = projected(codes, 2)
    columns = 1 + (classes is not None)
    figure = canvas(1, columns, width=4.4)
    panels = figure.subplots(1, columns, squeeze=False)[0]
    if points.shape[1] == 1:
        _histograms(panels[0], points[:, 0], [(labels == label, drawn) for label, drawn in present(labels, kinds)])
        if classes is not None:
            _histograms(panels[1], points[:, 0], [(chosen, drawn) for chosen, drawn in by_class(classes)])
    else:
        by_kind(panels[0], points[rows], labels[rows], kinds)
        if classes is not None:
            for chosen, drawn in by_class(classes):
                some = rows[chosen[rows]]
                panels[1].scatter(
                    *points[some].T, s=6, c=drawn.colour, marker=drawn.marker, lw=0, alpha=0.7, label=drawn.name
                )
        for axis in panels:
            limits(axis, points, labels)
        panels[0].set_ylabel(names[1])
        panels[0].set_title(subsampled(len(codes), len(rows)), fontsize=9)
    for axis in panels:
        axis.set_xlabel(names[0])
    beside(figure, *panels, titles=("kind", class_name)[:columns])
    return figure


def latent_3d(
    z: ArrayLike,
    y: ArrayLike,
    kinds: Sequence[str] = (),
    classes: Sequence[object] | None = None,
    class_name: str = "class",
) -> Figure | None:
    """Codes in three dimensions, by kind, and by class where there is one; None where they have fewer.

    Codes of more dimensions are shown along their first three principal components. Of each kind at most 3,000 are
    shown, within the 0.1 to 99.9 % quantiles of all that are.

    Args, Raises: as `latent_2d`.

    Example:
        >>> latent_3d(np.eye(3), [0, 0, 1]).axes[0].get_zlabel()
        'z3'
    """
    codes, labels, rows = checked(z, y)
    if codes.shape[1] < 3:
        return None
    points, names = projected(codes, 3)
    columns = 1 + (classes is not None)
    figure = canvas(1, columns, width=4.4, height=4.2)
    low, high = np.quantile(points[rows], [1e-3, 1 - 1e-3], axis=0)
    rows = rows[((points[rows] >= low) & (points[rows] <= high)).all(1)]
    panels = [figure.add_subplot(1, columns, i + 1, projection="3d") for i in range(columns)]
    by_kind(panels[0], points[rows], labels[rows], kinds, size=4)
    if classes is not None:
        for chosen, drawn in by_class(classes):
            some = rows[chosen[rows]]
            panels[1].scatter(
                *points[some].T, s=4, c=drawn.colour, marker=drawn.marker, lw=0, alpha=0.7, label=drawn.name
            )
    for axis in panels:
        axis.set_xlabel(names[0], fontsize=8)
        axis.set_ylabel(names[1], fontsize=8)
        axis.set_zlabel(names[2], fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_box_aspect(None, zoom=0.88)  # room for the label of z
    beside(figure, *panels, titles=("kind", class_name)[:columns])
    return figure


def latent_normal(z: ArrayLike) -> Figure:
    """Codes of nominal events against the standard normal: each number, and the length of a code.

    Left, all numbers of all codes in one histogram against the normal density; right, the lengths |z| against the chi
    distribution with Z degrees of freedom. What lies beyond an axis is counted in its outermost bin.

    Args:
        z: codes of nominal events, `(N, Z)`.

    Raises:
        ValueError: if they are of another shape, none, or not finite.

    Example:
        >>> z = np.random.default_rng(0).normal(size=(1000, 3))
        >>> [axis.get_xlabel() for axis in latent_normal(z).axes]
        ['numbers of a code', 'length of a code, |z|']
    """
    codes, _, _ = checked(z, np.zeros(len(np.asarray(z)), np.int64))
    n, d = codes.shape
    figure = canvas(1, 2, legend=True)
    left, right = figure.subplots(1, 2)
    edges = np.linspace(-5, 5, 81)
    at = np.linspace(-5, 5, 401)
    normal = np.exp(-(at**2) / 2) / math.sqrt(2 * math.pi)
    length = np.sqrt((codes**2).sum(1))
    middle, width = math.sqrt(d), 5 / math.sqrt(2)  # the chi distribution's, for many dimensions
    low = max(0.0, min(middle - width, float(np.quantile(length, 0.001))))
    high = max(middle + width, min(float(np.quantile(length, 0.999)), 3 * (middle + width)))
    radii, r = np.linspace(low, high, 61), np.linspace(max(low, 1e-9), high, 401)
    chi = np.exp((1 - d / 2) * math.log(2) + (d - 1) * np.log(r) - r**2 / 2 - math.lgamma(d / 2))
    for axis, values, bins, x, law in ((left, codes.ravel(), edges, at, normal), (right, length, radii, r, chi)):
        counts = np.histogram(np.clip(values, bins[0], bins[-1]), bins)[0]
        axis.stairs(counts / (len(values) * np.diff(bins)), bins, fill=True, color=COLOURS[5], alpha=0.6, label="codes")
        axis.plot(x, law, color="black", lw=1.2, label="standard normal")
        axis.set(ylabel="density", xlim=(bins[0], bins[-1]), ylim=(0, None))
        axis.grid(alpha=0.25)
    left.set(xlabel="numbers of a code", title=f"mean {codes.mean():.3f}, standard deviation {codes.std():.3f}")
    right.set(xlabel="length of a code, |z|", title=f"{n:,} events, {d} dimension{'s' if d > 1 else ''}")
    for axis in (left, right):
        axis.title.set_fontsize(9)
    beside(figure, left)
    return figure


def checked(z: ArrayLike, y: ArrayLike) -> tuple[Array, NDArray[np.int64], NDArray[np.intp]]:
    """Codes `(N, Z)`, their labels, and the rows that a scatter shows.

    Raises:
        ValueError: if the shapes do not fit or a code is not finite.
    """
    codes, labels = np.asarray(z, np.float64), np.asarray(y, np.int64)
    if codes.ndim != 2 or labels.shape != codes.shape[:1] or not codes.size:
        raise ValueError(f"codes are of shape (N, Z) with N labels, not {codes.shape} and {labels.shape}")
    if bad := int((~np.isfinite(codes)).any(1).sum()):
        raise ValueError(f"{bad} of {len(codes)} codes are not finite")
    return codes, labels, shown(labels)


def by_class(classes: Sequence[object]) -> list[tuple[NDArray[np.bool_], Look]]:
    """Which events are of each class, and its look; by its place in the order of names."""
    given = np.asarray(classes)
    names, counts = np.unique(given, return_counts=True)
    common = set(np.argsort(-counts, kind="stable")[:CLASSES].tolist())
    return [
        (given == name, Look(str(name), SHADES[i % len(SHADES)], MARKERS[(i // len(SHADES) + i) % len(MARKERS)], "-"))
        for i, name in enumerate(names)
        if i in common
    ]


def _histograms(axis: object, values: Array, groups: Sequence[tuple[NDArray[np.bool_], Look]]) -> None:
    axis_of = span(values, np.zeros(len(values), np.int64))
    for chosen, drawn in groups:
        counts, edges = axis_of.histogram(values[chosen], 60)
        density = counts / (max(counts.sum(), 1) * np.diff(edges))
        axis.stairs(density, edges, color=drawn.colour, ls=drawn.dash, label=drawn.name)  # type: ignore[attr-defined]
    axis.set_ylabel("density")  # type: ignore[attr-defined]
    axis_of.apply(axis)  # type: ignore[arg-type]
