"""A blurred sine."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from straylight.data.generated import Generated, log_normal
from straylight.errors import DataError


class Sinusoidal(Generated):
    """Nominal rows along a sine with Gaussian noise in the second coordinate; anomalies in the box around them.

    p(x, y) = N(y; amplitude sin(frequency x), noise) / (b - a) for x in [a, b], else 0

    Args:
        interval: a and b, between which the first coordinate is even; rounded to float32.
        amplitude: of the sine, in the units of the second coordinate.
        frequency: of the sine, in radians per unit of the first coordinate.
        options: see `Generated`.

    Example:
        >>> import torch
        >>> data = Sinusoidal()
        >>> data.setup()
        >>> [round(value, 3) for value in data.log_prob(torch.tensor([[0., 0.], [4., 0.]])).tolist()]
        [-0.408, -inf]
    """

    def __init__(
        self, *, interval: Sequence[float] = (-3.0, 3.0), amplitude: float = 1.0, frequency: float = 2.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.amplitude, self.frequency = amplitude, frequency
        if not (math.isfinite(amplitude) and math.isfinite(frequency)):
            raise DataError(f"data.amplitude and data.frequency must be finite, not {amplitude}, {frequency}.")
        # rows are served in float32: a bound between two of its numbers would have rows rounded out of the interval
        self.interval = tuple(np.clip(interval, -1e38, 1e38).astype(np.float32).tolist())
        if len(self.interval) != 2 or not self.interval[0] < self.interval[1]:
            raise DataError(f"data.interval must be two numbers, the smaller one first, not {interval}.")

    @property
    def box(self) -> tuple[NDArray, NDArray]:
        (low, high), height = self.interval, abs(self.amplitude)
        return np.array([low, -height]), np.array([high, height])

    def draw(self, rng: np.random.Generator, n: int) -> NDArray:
        x = rng.uniform(self.interval[0], self.interval[1], n)
        return np.stack([x, self._mean(x) + rng.normal(scale=self.noise, size=n)], 1)

    def log_density(self, x: NDArray) -> NDArray:
        low, high = self.interval
        inside = (low <= x[:, 0]) & (x[:, 0] <= high)
        along = log_normal((x[:, 1] - self._mean(np.clip(x[:, 0], low, high))) ** 2, self.noise, 1)
        return np.where(inside, along - math.log(high - low), -math.inf)

    def _mean(self, x: NDArray) -> NDArray:
        return self.amplitude * np.sin(self.frequency * x)
