"""The latent space: where codes lie, by kind and by class, and whether they are as normal as they should be."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures import style
from straylight.report.figures.plane import limits
from straylight.report.figures.projection import projected
from straylight.report.figures.span import per_unit, span
from straylight.report.figures.style import Look, Names, beside, dots, panels, present, shown, subsampled

Array = NDArray[np.float64]
Classes = Sequence[object] | None  # what sorts events otherwise than their kinds do, such as the digit
Groups = list[tuple[NDArray[np.bool_], Look]]  # which events, and how they look
CLASSES = 24  # that a legend has room for
SHADES = (*style.COLOURS, style.NOMINAL)  # no nominal events beside classes: ten digits have ten colours


def latent_2d(
    z: ArrayLike, y: ArrayLike, kinds: Names = (), classes: Classes = None, class_name: str = "class"
) -> Figure:
    """Codes in two dimensions, by kind, and by class where there is one; histograms of codes of one dimension.

    Codes of more dimensions are shown along their first two principal components. Of each kind at most 3,000 are shown.

    Args:
        z: codes, `(N, Z)`.
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
    seen = views(labels, kinds, classes, class_name)
    figure, axes = panels(1, len(seen), width=4.4)
    for axis, groups in zip(axes, seen.values(), strict=True):
        axis.set_xlabel(names[0])
        if len(names) == 1:
            _histograms(axis, points[:, 0], groups)
            continue
        for chosen, drawn in groups:
            dots(axis, points[rows[chosen[rows]]], drawn)
        limits(axis, points, labels)
    if len(names) > 1:
        axes[0].set_ylabel(names[1])
        axes[0].set_title(subsampled(len(codes), len(rows)), fontsize=9)
    return beside(figure, *axes, titles=list(seen))


def latent_3d(
    z: ArrayLike, y: ArrayLike, kinds: Names = (), classes: Classes = None, class_name: str = "class"
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
    low, high = np.quantile(points[rows], [1e-3, 1 - 1e-3], axis=0)
    rows = rows[((points[rows] >= low) & (points[rows] <= high)).all(1)]
    seen = views(labels, kinds, classes, class_name)
    space: dict[str, Any] = {"subplot_kw": {"projection": "3d"}}
    figure, axes = panels(1, len(seen), width=4.4, height=4.2, **space)
    for axis, groups in zip(axes, seen.values(), strict=True):
        for chosen, drawn in groups:
            dots(axis, points[rows[chosen[rows]]], drawn, size=4)
        for letter, name in zip("xyz", names, strict=True):
            getattr(axis, f"set_{letter}label")(name, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_box_aspect(None, zoom=0.88)  # room for the label of z
    return beside(figure, *axes, titles=list(seen))


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
    figure, (left, right) = panels(1, 2, ruled=True)
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
        counts = np.histogram(np.clip(values, bins[0], bins[-1]), bins)[0].astype(np.float64)
        axis.stairs(per_unit(counts, bins), bins, fill=True, color=style.COLOURS[5], alpha=0.6, label="codes")
        axis.plot(x, law, color="black", lw=1.2, label="standard normal")
        axis.set(ylabel="density", xlim=(bins[0], bins[-1]), ylim=(0, None))
    left.set_xlabel("numbers of a code")
    left.set_title(f"mean {codes.mean():.3f}, standard deviation {codes.std():.3f}", fontsize=9)
    right.set_xlabel("length of a code, |z|")
    right.set_title(f"{n:,} events, {d} dimension{'s' if d > 1 else ''}", fontsize=9)
    return beside(figure, left)


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


def views(labels: NDArray[np.int64], kinds: Names, classes: Classes, class_name: str) -> dict[str, Groups]:
    """Events by kind, and by class where there is one.

    Raises:
        ValueError: if there is not a class for each.
    """
    found = {"kind": [(labels == label, drawn) for label, drawn in present(labels, kinds)]}
    if classes is not None:
        if len(classes) != len(labels):
            raise ValueError(f"{len(classes)} classes were given for {len(labels)} codes")
        found[class_name] = by_class(classes)
    return found


def by_class(classes: Sequence[object]) -> Groups:
    """Which events are of each class, and its look; by its place in the order of names."""
    given = np.asarray(classes)
    names, counts = np.unique(given, return_counts=True)
    common = set(np.argsort(-counts, kind="stable")[:CLASSES].tolist())
    return [
        (
            given == name,
            Look(str(name), SHADES[i % len(SHADES)], style.MARKERS[(i // len(SHADES) + i) % len(style.MARKERS)], "-"),
        )
        for i, name in enumerate(names)
        if i in common
    ]


def _histograms(axis: Axes, values: Array, groups: Groups) -> None:
    axis_of = span(values, np.zeros(len(values), np.int64))
    for chosen, drawn in groups:
        counts, edges = axis_of.histogram(values[chosen], 60)
        axis.stairs(per_unit(counts, edges), edges, **drawn.line, label=drawn.name)
    axis.set_ylabel("density")
    axis_of.apply(axis)
