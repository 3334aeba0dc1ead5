"""Generated rows around a shape, whose density is known: the best score there is, to measure others against."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight import checks
from straylight.data.base import AnomalyDataModule
from straylight.errors import DataError
from straylight.rows.batch import Events, Splits

CHUNK = 8192  # rows whose density is computed together


class Generated(AnomalyDataModule):
    """Base of nominal rows drawn from a known density and anomalies drawn evenly from a box around them.

    A subclass writes `draw`, `log_density` and `box`. The box is that of the shape without noise, widened on every side
    by `margin`. Anomalies fall on the shape, too, and cannot be told from nominal rows there: where the margin is
    several times the noise, no detector has a larger expected AUROC than `-log_prob`.

    Args:
        events: rows in all.
        fraction: of them that are anomalous.
        noise: standard deviation of the Gaussian noise, in the units of the rows.
        margin: by which the box of the anomalies is wider than the shape on every side, in the same units.
        common: see `AnomalyDataModule`; `seed` draws the rows too.

    Raises:
        DataError: if a number is out of its range.

    Example:
        >>> class Point(Generated):
        ...     box = np.zeros(2), np.zeros(2)
        ...     def draw(self, rng, n):
        ...         return rng.normal(scale=self.noise, size=(n, 2))
        ...     def log_density(self, x):
        ...         return log_normal((x**2).sum(1), self.noise, 2)
        >>> data = Point(noise=1.0)
        >>> data.setup()
        >>> round(data.log_prob(torch.zeros(1, 2)).item(), 3)  # -log(2 pi)
        -1.838
    """

    def __init__(
        self, *, events: int = 10_000, fraction: float = 0.05, noise: float = 0.1, margin: float = 0.5, **common: Any
    ) -> None:
        super().__init__(**common)
        checks.counts("data", events=events)
        checks.between("data", 0, 1, fraction=fraction)
        if not 0 < noise < math.inf:
            raise DataError(f"data.noise must be positive, not {noise}, since rows without noise have no density.")
        if not 0 <= margin < math.inf:
            raise DataError(f"data.margin must be at least 0 and finite, not {margin}.")
        self.events, self.fraction, self.noise, self.margin = events, fraction, noise, margin

    # what a subclass writes

    @property
    def box(self) -> tuple[NDArray, NDArray]:
        """The smallest and the largest coordinates of the shape without noise, `(D,)` each."""
        raise NotImplementedError(f"{type(self).__name__} must write box")

    def draw(self, rng: np.random.Generator, n: int) -> NDArray:
        """Independent nominal rows, `(n, D)`."""
        raise NotImplementedError(f"{type(self).__name__} must write draw()")

    def log_density(self, x: NDArray) -> NDArray:
        """True log-density of nominal rows in nats, `(B, D)` to `(B,)`, both float64."""
        raise NotImplementedError(f"{type(self).__name__} must write log_density()")

    # what is made of it

    def load(self) -> Splits:
        nominal, anomalous = map(np.random.default_rng, np.random.SeedSequence(self.seed).spawn(2))
        strange = round(self.fraction * self.events)
        sizes = (self.events - strange, strange)
        low, high = self.box
        outside = anomalous.uniform(low - self.margin, high + self.margin, (strange, len(low)))
        return self.split(Events.of(np.concatenate([self.draw(nominal, sizes[0]), outside]), np.repeat([0, 1], sizes)))

    def log_prob(self, x: Tensor) -> Tensor:
        """True log-density of nominal rows in nats, `(B, D)` to `(B,)`; computed in float64, returned as `x` is.

        Raises:
            DataError: if rows have not D coordinates.
        """
        d = len(self.box[0])
        if x.ndim != 2 or x.shape[1] != d:
            raise DataError(f"{self.name}: rows must be of shape (B, {d}) to have a density, not {tuple(x.shape)}.")
        rows = x.detach().cpu().double()
        with np.errstate(over="ignore"):  # a distance too large to be squared has density 0
            found = [torch.from_numpy(self.log_density(chunk.numpy())) for chunk in rows.split(CHUNK)]
        return torch.cat(found).to(x)


def log_normal(square: NDArray, std: float, dimensions: int) -> NDArray:
    """Log-density of a round Gaussian at squared distances from its centre."""
    return -square / (2 * std**2) - dimensions * (math.log(std) + math.log(2 * math.pi) / 2)
