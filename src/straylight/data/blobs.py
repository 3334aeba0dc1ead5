"""Two round blobs and a small tight one beside them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from straylight import checks
from straylight.data.base import AnomalyDataModule
from straylight.errors import DataError
from straylight.rows.batch import Events, Splits


class Blobs(AnomalyDataModule):
    """Nominal rows in round Gaussian blobs, anomalies in one tight blob shifted away from them; 2-D by default.

    Args:
        nominal: rows in the nominal blobs together.
        anomalies: rows in the anomalous blob.
        centers: of the nominal blobs, each of D coordinates.
        std: of the nominal blobs.
        anomaly_std: of the anomalous blob.
        shift: by which the anomalous blob lies away from the mean of the nominal centres, D coordinates.
        common: see `AnomalyDataModule`; `seed` draws the rows too.

    Raises:
        DataError: if a size or width is not positive, or the coordinates do not fit together.

    Example:
        >>> data = Blobs()
        >>> data.setup()
        >>> int((data.splits.test.y == 1).sum())
        50
        >>> round(data.log_prob(torch.tensor([[2.0, 0.0]])).item(), 3)  # -log(4 pi), and a little from the other blob
        -2.531
    """

    def __init__(
        self,
        *,
        nominal: int = 1000,
        anomalies: int = 50,
        centers: Sequence[Sequence[float]] = ((-2.0, 0.0), (2.0, 0.0)),
        std: float = 1.0,
        anomaly_std: float = 0.3,
        shift: Sequence[float] = (6.0, 6.0),
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.sizes, self.stds = (nominal, anomalies), (std, anomaly_std)
        self.centers, self.shift = np.asarray(centers, float), np.asarray(shift, float)
        checks.counts("data", nominal=nominal, anomalies=anomalies)
        checks.positive("data", std=std, anomaly_std=anomaly_std)
        if self.centers.ndim != 2 or self.shift.shape != self.centers.shape[1:]:
            raise DataError(
                "data.centers must be points and data.shift one of as many coordinates, not of shapes "
                f"{self.centers.shape} and {self.shift.shape}."
            )

    def load(self) -> Splits:
        from sklearn.datasets import make_blobs

        # each its own generator: with one seed for both, the anomalies would be copies of nominal rows
        own = [np.random.RandomState(seed) for seed in ([self.seed], [self.seed, 1])]
        centers = self.centers, self.centers.mean(0, keepdims=True) + self.shift
        laws = zip(self.sizes, centers, self.stds, own, strict=True)
        x = [make_blobs(n, centers=c, cluster_std=s, shuffle=False, random_state=r)[0] for n, c, s, r in laws]
        return self.split(Events.of(np.concatenate(x), np.repeat([0, 1], self.sizes)))

    def log_prob(self, x: Tensor) -> Tensor:
        """True log-density of nominal rows in nats, `(B, D)` to `(B,)`; the blobs have equal shares."""
        centers, std = torch.as_tensor(self.centers, device=x.device), self.stds[0]
        distance = torch.cdist(x.double(), centers, compute_mode="donot_use_mm_for_euclid_dist")
        together = torch.logsumexp(-((distance / std) ** 2) / 2, 1)
        k, d = self.centers.shape
        return (together - math.log(k) - d * (math.log(std) + math.log(2 * math.pi) / 2)).to(x.dtype)
