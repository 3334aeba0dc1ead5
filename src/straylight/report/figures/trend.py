"""One number against another: what changes as something is turned up."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from straylight.report.figures.axes import logarithmic
from straylight.report.figures.style import band, beside, panels, rule, series


def trend(
    x: ArrayLike,
    curves: Mapping[str, ArrayLike],
    names: tuple[str, str],
    *,
    log: str = "",
    level: Mapping[str, float] | None = None,
) -> Figure:
    """Curves over a common axis, with the range over repetitions where there are several.

    Args:
        x: `(N,)`.
        curves: by name, `(N,)` each, or `(N, S)` of S repetitions, whose mean is drawn with their range; NaN leaves a
            point out.
        names: of the two axes.
        log: which axes are logarithmic, of the letters `x` and `y`.
        level: horizontal lines by name.

    Raises:
        ValueError: if a curve has not as many points as x.

    Example:
        >>> figure = trend([1, 2, 4], {"knn": [[0.9, 0.8], [0.7, 0.7], [0.6, 0.5]]}, ("D", "AUROC"), log="x")
        >>> figure.axes[0].get_xlabel()
        'D'
    """
    at = np.asarray(x, np.float64)
    figure, (axis,) = panels(width=5.0)
    for number, (name, curve) in enumerate(curves.items()):
        values, drawn = np.asarray(curve, np.float64), series(number, name)
        if not values.ndim or len(values) != len(at):
            raise ValueError(f"the curve {name!r} must have {len(at)} points, as x has, not the shape {values.shape}")
        marker = drawn.marker if len(at) <= 30 else None
        band(axis, at, values.reshape(len(at), -1).T, drawn, marker=marker, ms=5)
    for number, (name, height) in enumerate((level or {}).items()):
        axis.axhline(height, color="black", lw=0.8, ls=(":", "--", "-.")[number % 3], label=name)
    axis.set(xlabel=names[0], ylabel=names[1])
    for letter in log:
        logarithmic(axis.xaxis if letter == "x" else axis.yaxis)
    rule(axis, which="both")
    return beside(figure, axis)
