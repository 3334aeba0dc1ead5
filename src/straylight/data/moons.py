"""Two interleaving half circles, blurred."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from straylight.data.generated import Generated, log_normal

NODES = 48  # to a piece of arc; 32 reach the last digits of float64, whatever the noise
REACH = 40.0  # nats below the peak where the integrand is cut off: exp(-40) is 4e-18


class Moons(Generated):
    """Nominal rows on two interleaving half circles with Gaussian noise; anomalies in the box around them.

    p(x) = 1/2 sum_k 1/pi integral_0^pi N(x; c_k(t), noise^2 I) dt

    c_1(t) = (cos t, sin t) and c_2(t) = (1 - cos t, 1/2 - sin t). Around the centre of its circle, x is at radius r and
    angle phi, and the integrand is that of von Mises, exp(kappa (cos(t - phi) - 1)) with kappa = r / noise^2, on either
    side of its peak. Gauss-Legendre nodes are laid between the peak and where the integrand has vanished, so that their
    number suits every noise and every distance: log p is good to 1e-12 of the larger of 1 and |log p|.

    References:
        F. Pedregosa et al., Scikit-learn: machine learning in Python, JMLR 12, 2011: `sklearn.datasets.make_moons`

    Args:
        options: see `Generated`.

    Example:
        >>> import torch
        >>> data = Moons()
        >>> data.setup()
        >>> [round(value, 2) for value in data.log_prob(torch.tensor([[0., 1.], [0., 0.]])).tolist()]
        [-0.45, -1.21]
    """

    @property
    def box(self) -> tuple[NDArray, NDArray]:
        return np.array([-1.0, -0.5]), np.array([2.0, 1.0])

    def draw(self, rng: np.random.Generator, n: int) -> NDArray:
        t = rng.uniform(0, math.pi, n)
        upper = np.stack([np.cos(t), np.sin(t)], 1)
        shape = np.where(rng.integers(2, size=(n, 1)), (1.0, 0.5) - upper, upper)
        return shape + rng.normal(scale=self.noise, size=(n, 2))

    def log_density(self, x: NDArray) -> NDArray:
        return np.logaddexp(self._log_arc(x), self._log_arc((1.0, 0.5) - x)) - math.log(2)

    def _log_arc(self, x: NDArray) -> NDArray:
        """Log-density of the upper half of the blurred unit circle, `(B, 2)` to `(B,)`."""
        r, phi = np.hypot(x[:, 0], x[:, 1]), np.arctan2(x[:, 1], x[:, 0])
        # cut where the angle to x is 0 or pi: it grows from `near` along either piece of the arc
        cut = np.mod(phi, math.pi)
        length = np.stack([cut, math.pi - cut])
        near = np.where(phi < 0, math.pi - length, 0.0)
        # cos(near) - cos(near + u) = 2 sin(near + u/2) sin(u/2) = 2 q is solved for tan(u/2)
        kappa = r / self.noise**2
        q = REACH / 2 / np.maximum(kappa, REACH / 4)
        root = np.sin(near) ** 2 + 4 * q * (np.cos(near) - q)
        tangent = 2 * q / np.maximum(np.sin(near) + np.sqrt(np.maximum(root, 0)), 1e-300)
        end = np.where(root > 0, np.minimum(2 * np.arctan(tangent), length), length)
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        u = end[..., None] * (nodes + 1) / 2
        drop = 2 * kappa[:, None] * np.sin(near[..., None] + u / 2) * np.sin(u / 2)
        peak = 2 * kappa * np.sin(near / 2) ** 2
        integral = np.logaddexp(*logsumexp(-drop - peak[..., None], b=weights * end[..., None] / 2, axis=2))
        return log_normal((r - 1) ** 2, self.noise, 2) + integral - math.log(math.pi)
