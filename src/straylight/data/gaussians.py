"""A rare Gaussian in or beside a common one, whose density is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from straylight import checks
from straylight.data.base import AnomalyDataModule
from straylight.errors import DataError
from straylight.rows.batch import Events, Splits


class Gaussians(AnomalyDataModule):
    """Nominal rows from one Gaussian, a small fraction of anomalies from another; the density is known.

    Args:
        means: of the nominal and of the anomalous Gaussian, D coordinates each.
        covariances: of both, D x D each.
        events: rows in all.
        fraction: of them that are anomalous.
        common: see `AnomalyDataModule`; `seed` draws the rows too.

    Raises:
        DataError: if the sizes of means and covariances do not fit together.

    Example:
        >>> data = Gaussians(means=[[0.], [10.]], covariances=[[[1.]], [[0.1]]], events=1000, fraction=0.01)
        >>> data.setup()
        >>> round(data.log_prob(torch.zeros(1, 1)).item(), 3)  # -log(2 pi) / 2
        -0.919
    """

    def __init__(
        self,
        *,
        means: Sequence[Sequence[float]] = ((1.5, -1.5), (-1.0, 1.0)),
        covariances: Sequence[Sequence[Sequence[float]]] = (((1.0, 0.1), (0.1, 0.5)), ((0.7, -0.2), (-0.2, 1.2))),
        events: int = 50_000,
        fraction: float = 0.001,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.means, self.covariances = np.asarray(means, float), np.asarray(covariances, float)
        d = self.means.shape[-1]
        if self.means.shape != (2, d) or self.covariances.shape != (2, d, d):
            raise DataError(
                "data.means must be two points and data.covariances two square matrices of their size, not of shapes "
                f"{self.means.shape} and {self.covariances.shape}."
            )
        if not (np.allclose(self.covariances, self.covariances.swapaxes(1, 2)) and _positive(self.covariances)):
            raise DataError("data.covariances must be symmetric and positive definite.")
        checks.between("data", 0, 1, fraction=fraction)
        checks.counts("data", events=events)
        self.events, self.fraction = events, fraction

    @property
    def name(self) -> str:  # type: ignore[override]
        d = self.means.shape[-1]
        return "gaussians" if d == 2 else f"gaussians_{d}d"

    def load(self) -> Splits:
        rng = np.random.default_rng(self.seed)
        strange = round(self.fraction * self.events)
        sizes = (self.events - strange, strange)
        laws = zip(self.means, self.covariances, sizes, strict=True)
        x = [rng.multivariate_normal(mean, covariance, n) for mean, covariance, n in laws]
        return self.split(Events.of(np.concatenate(x), np.repeat([0, 1], sizes)))

    def log_prob(self, x: Tensor) -> Tensor:
        """True log-density of nominal rows in nats, `(B, D)` to `(B,)`."""
        mean, covariance = (torch.as_tensor(a[0], dtype=x.dtype) for a in (self.means, self.covariances))
        return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)


def _positive(matrices: np.ndarray) -> bool:
    try:
        np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        return False
    return True
