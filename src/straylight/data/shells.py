"""Blurred spheres around the origin: rings in two dimensions."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ive, logsumexp

from straylight import checks
from straylight.data.generated import Generated, log_normal
from straylight.errors import DataError

LARGEST = 512  # dimensions; from about 800 the scaled Bessel function is 0 in float64 where the series has not begun


class Shells(Generated):
    """Nominal rows even on spheres with Gaussian noise, as many of each; anomalies in the cube around them.

    p(x) = 1/K sum_k N(r; R_k, noise) / (noise sqrt(2 pi))^(D-1) * E(kappa_k),  r = |x|,  kappa_k = r R_k / noise^2
    E(kappa) = Gamma(D/2) (2/kappa)^(D/2-1) I_(D/2-1)(kappa) exp(-kappa)

    E is the mean of exp(kappa (u_1 - 1)) over the unit sphere, the normalisation of von Mises and Fisher.

    References:
        K. V. Mardia and P. E. Jupp, Directional statistics, 2000, section 9.3.2

    Args:
        radii: R_k of the spheres, in the units of the rows.
        dimensions: D, from 2 to 512; the spheres have one less.
        options: see `Generated`.

    Example:
        >>> import torch
        >>> data = Shells(radii=[1.0], dimensions=3)
        >>> data.setup()
        >>> [round(value, 3) for value in data.log_prob(torch.eye(3)).tolist()]
        [-1.147, -1.147, -1.147]
    """

    def __init__(self, *, radii: Sequence[float] = (0.5, 1.0), dimensions: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.radii, self.dimensions = np.asarray(radii, float), dimensions
        if self.radii.ndim != 1 or not len(self.radii) or not ((self.radii > 0) & (self.radii < math.inf)).all():
            raise DataError(f"data.radii must be a list of positive numbers, not {radii}.")
        checks.between("data", 2, LARGEST, dimensions=dimensions)

    @property
    def name(self) -> str:  # type: ignore[override]
        called = ("ring" if self.dimensions == 2 else "sphere") + ("s" if len(self.radii) > 1 else "")
        return called if self.dimensions <= 3 else f"{called}_{self.dimensions}d"

    @property
    def box(self) -> tuple[NDArray, NDArray]:
        high = np.full(self.dimensions, self.radii.max())
        return -high, high

    def draw(self, rng: np.random.Generator, n: int) -> NDArray:
        way = rng.normal(size=(n, self.dimensions))
        shape = rng.choice(self.radii, (n, 1)) * way / np.linalg.norm(way, axis=1, keepdims=True)
        return shape + rng.normal(scale=self.noise, size=shape.shape)

    def log_density(self, x: NDArray) -> NDArray:
        r = np.minimum(np.linalg.norm(x, axis=1), 1e150)[:, None]  # the square of which is a number
        kappa = r * (self.radii / self.noise**2)
        each = log_normal((r - self.radii) ** 2, self.noise, self.dimensions) + log_mean(kappa, self.dimensions)
        return logsumexp(each, axis=1) - math.log(len(self.radii))


def log_mean(kappa: NDArray, dimensions: int) -> NDArray:
    """Logarithm of the mean of exp(kappa (u_1 - 1)) over the unit sphere of directions u in D dimensions.

    Example:
        >>> kappa = np.array([0.0, 1e-9, 1.0, 1e12])
        >>> np.allclose(log_mean(kappa[1:], 3), np.log(-np.expm1(-2 * kappa[1:]) / (2 * kappa[1:])))
        True
    """
    order = dimensions / 2 - 1
    k = np.arange(1, 41)

    def series(kappa: NDArray) -> NDArray:  # of powers of kappa^2 / 4, where that is below D
        terms = np.cumprod(kappa[:, None] ** 2 / 4 / (k * (order + k)), axis=1)
        return np.log1p(terms.sum(1)) - kappa

    def scaled(bessel: NDArray, kappa: NDArray) -> NDArray:
        return np.log(bessel) + gammaln(order + 1) - order * np.log(kappa / 2)

    def expansion(kappa: NDArray) -> NDArray:  # of powers of 1 / kappa, where scipy's function loses its digits
        terms = np.cumprod(((2 * k[:6] - 1) ** 2 - 4 * order**2) / (8 * k[:6] * kappa[:, None]), axis=1)
        return scaled(1 + terms.sum(1), kappa) - np.log(2 * math.pi * kappa) / 2

    small, large = kappa**2 / 4 < dimensions, kappa > 1e8
    return np.piecewise(kappa, [small, large], [series, expansion, lambda kappa: scaled(ive(order, kappa), kappa)])
