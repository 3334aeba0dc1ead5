"""How little of space usual rows take, by the scores of rows and of points drawn uniformly from the box around them.

A level set {x : s(x) <= t} of a score s holds a mass, the fraction of rows in it, and a volume, the fraction of the
box's points in it. The less volume a mass takes, the nearer s orders space as the density does. Volumes are fractions
of the box, so that detectors compare where the box is the same.

`n` rows, `m` points.

References:
    N. Goix, How to evaluate the quality of unsupervised anomaly detection algorithms?, ICML 2016 workshop on anomaly
    detection, arXiv:1607.01152
    S. Clémençon, J. Jakubowicz, Scoring anomalies: a M-estimation formulation, AISTATS 2013 (mass-volume)
    N. Goix, A. Sabourin, S. Clémençon, On anomaly ranking and excess-mass curves, AISTATS 2015, arXiv:1502.01684
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

MASSES = np.linspace(0.9, 0.999, 100)
LEAST_MASS = 0.9  # of rows, where the curve of excess mass ends


def volume_at(rows: ArrayLike, points: ArrayLike, mass: ArrayLike) -> NDArray[np.float64]:
    """The volume of the smallest level sets that hold at least such masses.

    Args:
        rows: scores of rows, `(n,)`.
        points: scores of points drawn uniformly from the box, `(m,)`.
        mass: between 0 and 1, of any shape.

    Raises:
        ValueError: if there are no rows or points, or a score is NaN.

    Example:
        >>> float(volume_at([1, 2, 3, 4], [0, 1.5, 3.5, 9], 0.75))
        0.5
    """
    scores, drawn = _sorted(rows), _sorted(points)
    place = np.ceil(np.asarray(mass, np.float64) * len(scores) * (1 - 1e-12)).astype(np.intp)
    limits = scores[np.clip(place - 1, 0, len(scores) - 1)]
    return np.searchsorted(drawn, limits, "right") / len(drawn)


def mass_volume(rows: ArrayLike, points: ArrayLike) -> float:
    """The mean volume of level sets that hold masses of 0.9 to 0.999: the area under the mass-volume curve there.

    Args:
        rows, points: see `volume_at`.

    Example:
        >>> round(mass_volume(np.arange(1000), np.arange(0, 2000, 2)), 3)  # of rows uniform in half of the box
        0.475
    """
    return float(np.trapezoid(volume_at(rows, points, MASSES), MASSES) / (MASSES[-1] - MASSES[0]))


def excess_mass(rows: ArrayLike, points: ArrayLike) -> float:
    """The area under the excess-mass curve, from t = 0 to where it falls to 0.9; the larger, the denser rows lie.

    EM(t) = max over level sets of mass - t volume, with volumes as fractions of the box. It falls from 1, is convex
    and piecewise linear, so that the area is exact.

    Args:
        rows, points: see `volume_at`.

    Returns:
        infinity where level sets of a mass of 0.9 hold no point.

    Example:
        >>> round(excess_mass(np.arange(1000), np.arange(0, 10000, 10)), 2)  # a tenth of the box: 0.095 / 0.1
        0.95
    """
    scores, drawn = _sorted(rows), _sorted(points)
    limits, counts = np.unique(scores, return_counts=True)
    mass = np.cumsum(counts) / len(scores)
    volume = np.searchsorted(drawn, limits, "right") / len(drawn)
    if volume[np.argmax(mass >= LEAST_MASS)] == 0:
        return float("inf")
    t, area, at = 0.0, 0.0, 1.0
    place = len(mass) - 1  # which set is best; of smaller volume as t grows
    while True:
        gain, less = mass[:place] - mass[place], volume[place] - volume[:place]
        turns = np.where(less > 0, -gain / np.where(less > 0, less, 1), np.inf)
        turn = float(turns.min(initial=np.inf))  # where another set becomes better
        end = (mass[place] - LEAST_MASS) / volume[place] if volume[place] > 0 else np.inf  # where it falls to 0.9
        stop = max(t, min(turn, float(end)))
        after = float(mass[place] - stop * volume[place])
        area += float(stop - t) * (at + after) / 2
        if end <= turn:
            return area
        # of several at one turn that of the least volume
        t, at, place = stop, after, int(np.flatnonzero(turns == turn)[0])


def _sorted(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.sort(np.asarray(scores, np.float64).ravel())
    if not len(values) or np.isnan(values[-1]):
        raise ValueError("volumes are of scores of one row or more, none of them NaN")
    return values
