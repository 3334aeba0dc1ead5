"""What smooth backgrounds look like: functions whose logarithm is linear in their parameters.

`n` values of the resonant variable m, `k` parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
#: Columns at values of m, `(n,)` to `(n, k)`, given the ends of the spectrum and the upper scale.
Shape = Callable[[Values, tuple[float, float], float], Values]


def exponential(order: int) -> Shape:
    """exp(a_0 + a_1 m + ... + a_order m^order): Legendre polynomials over the spectrum span the same, and solve better.

    Example:
        >>> exponential(2)(np.array([3.0, 4.5]), (3.0, 4.5), 9.0).tolist()
        [[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    def columns(m: Values, span: tuple[float, float], scale: float) -> Values:
        low, high = span
        return np.asarray(np.polynomial.legendre.legvander((2 * m - low - high) / (high - low), order), np.float64)

    return columns


def dijet(parameters: int) -> Shape:
    """p_0 (1 - z)^p_1 z^(-p_2 - p_3 log z - p_4 log^2 z), the first three to five of them, with z = m / scale.

    References:
        CMS Collaboration, Search for high mass dijet resonances, JHEP 05 (2020) 033, arXiv:1911.03947
    """

    def columns(m: Values, span: tuple[float, float], scale: float) -> Values:
        low, high = span
        if low <= 0 or scale <= high:
            raise ValueError(
                f"the dijet function takes values above 0 and below its scale, {scale:g}, and these reach from {low:g} "
                f"to {high:g}: choose an exponential one, or a larger scale"
            )
        log_z = np.log(m / scale)
        powers = [log_z**k for k in range(1, parameters - 1)]
        return np.stack([np.ones_like(m), np.log1p(-m / scale), *powers], 1)

    return columns


#: By name. The number is the order of the polynomial, or the number of parameters.
SHAPES: Mapping[str, Shape] = {
    **{f"exp{order}": exponential(order) for order in (2, 3, 4)},
    **{f"dijet{parameters}": dijet(parameters) for parameters in (3, 4, 5)},
}
#: Those among which an F-test chooses, each holding the one before it.
NESTED: Mapping[str, tuple[str, ...]] = {
    "ftest": ("exp2", "exp3", "exp4"),
    "dijet_ftest": ("dijet3", "dijet4", "dijet5"),
}
