"""Four-vectors of particles, their decays and the spectra that they are drawn from, for generated collisions.

`n` particles; a four-vector is px, py, pz and E in GeV, `(n, 4)`, with c = 1.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

REACH = 10.0  # widths from its pole, beyond which no resonance is drawn


def four_vector(pt: ArrayLike, rapidity: ArrayLike, phi: ArrayLike, mass: ArrayLike = 0.0) -> NDArray:
    """Of transverse momentum, rapidity, azimuth and mass, `(n,)` each.

    Example:
        >>> mass(four_vector([3.0], [2.0], [0.5], [4.0])).round(9).tolist()
        [4.0]
    """
    pt, transverse = np.asarray(pt, float), np.hypot(pt, mass)
    parts = (pt * np.cos(phi), pt * np.sin(phi), transverse * np.sinh(rapidity), transverse * np.cosh(rapidity))
    return np.stack(np.broadcast_arrays(*parts), -1)


def mass(p: NDArray) -> NDArray:
    """Invariant mass, `(n, 4)` to `(n,)`."""
    return np.sqrt(np.maximum(p[..., 3] ** 2 - (p[..., :3] ** 2).sum(-1), 0))


def boosted(p: NDArray, frame: NDArray) -> NDArray:
    """Four-vectors that were given in the rest frame of others, `(n, 4)` both, in the frame that these are given in.

    Example:
        >>> boosted(np.array([[0.0, 0.0, 0.0, 2.0]]), np.array([[3.0, 0.0, 0.0, 5.0]])).tolist()  # gamma = 5 / 4
        [[1.5, 0.0, 0.0, 2.5]]
    """
    m = mass(frame)[:, None]
    along = (p[:, :3] * frame[:, :3]).sum(1, keepdims=True)
    energy = (p[:, 3:] * frame[:, 3:] + along) / m
    return np.concatenate([p[:, :3] + frame[:, :3] * (p[:, 3:] + energy) / (frame[:, 3:] + m), energy], 1)


def two_body(
    rng: np.random.Generator, parent: NDArray, first: ArrayLike = 0.0, second: ArrayLike = 0.0
) -> tuple[NDArray, NDArray]:
    """The products of a decay into two particles of these masses, in a direction drawn evenly in the parent's frame.

    Raises:
        ValueError: if the masses of the products exceed the parent's.
    """
    m, a, b = mass(parent), np.asarray(first, float), np.asarray(second, float)
    if (a + b > m).any():
        raise ValueError("a particle cannot decay into two that are together heavier than it")
    momentum = np.sqrt((m**2 - (a + b) ** 2) * (m**2 - (a - b) ** 2)) / (2 * m)
    cosine, phi = rng.uniform(-1, 1, len(m)), rng.uniform(-math.pi, math.pi, len(m))
    across = momentum * np.sqrt(1 - cosine**2)
    at_rest = (across * np.cos(phi), across * np.sin(phi), momentum * cosine, np.hypot(momentum, a))
    one = boosted(np.stack(at_rest, 1), parent)
    return one, parent - one


def breit_wigner(rng: np.random.Generator, n: int, pole: float, width: float) -> NDArray:
    """Masses of a resonance, `(n,)`: a Cauchy law of this full width at half maximum, cut ten widths from its pole."""
    end = math.atan(2 * REACH)
    return pole + width / 2 * np.tan(rng.uniform(-end, end, n))


def falling(rng: np.random.Generator, size: int | tuple[int, ...], scale: float, power: float) -> NDArray:
    """Transverse momenta of the density proportional to (1 + pT / scale)^-power; their mean is scale / (power - 2)."""
    return scale * ((1 - rng.random(size)) ** (-1 / (power - 1)) - 1)
