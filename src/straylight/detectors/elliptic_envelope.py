"""Robust Mahalanobis distance.

Shapes: `B` events, `D` features.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight import checks
from straylight.detectors.parts import Parts, quadratic
from straylight.detectors.scikit import ScikitDetector


class EllipticEnvelope(ScikitDetector):
    """Squared Mahalanobis distance by the mean and covariance of the tightest part of the training rows.

    The part is that of h rows whose covariance has the smallest determinant (FAST-MCD), so that up to N - h
    contaminated rows do not matter. It needs several rows for each feature, and its time grows with the cube of the
    features: beyond `max_features`, or a fifth of the rows, rows are projected on so many principal components first
    (as ROBPCA does), and a notice says so. Unlike in `PCA`, a direction in which these rows do not vary counts for
    nothing. Assumes one cloud of roughly elliptic shape.

    References:
        P. J. Rousseeuw, K. Van Driessen, A fast algorithm for the minimum covariance determinant estimator,
        Technometrics 41 (1999) 212, doi:10.1080/00401706.1999.10485670
        M. Hubert, P. J. Rousseeuw, K. Vanden Branden, ROBPCA, Technometrics 47 (2005) 64,
        doi:10.1198/004017004000000563

    Args:
        support_fraction: h / N, above 0.5 and at most 1; `None` for the least that is possible.
        max_features: see above.
        max_rows: more training rows than these are drawn from by seed, and a notice says so; `None` takes all.
        shape, common: see `FittedDetector`; events are flattened.

    Example:
        >>> import torch
        >>> envelope = EllipticEnvelope((1,), scaling="none")
        >>> envelope.fit(torch.linspace(-1, 1, 99)[:, None], torch.zeros(99, 0), torch.ones(99))
        >>> envelope(torch.tensor([[0.], [9.]])).argmax().item()  # the far one
        1
    """

    explained_by = "exact"
    sized_by_data = ("directions",)
    mean: Tensor
    directions: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        support_fraction: float | None = None,
        max_features: int = 100,
        max_rows: int | None = 50_000,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        checks.above("detector", 0.5, 1, also="null", support_fraction=support_fraction)
        checks.counts("detector", max_features=max_features)
        checks.counts("detector", 2, also="null", max_rows=max_rows)
        self.support_fraction, self.max_features, self.max_rows = support_fraction, max_features, max_rows
        self.register_buffer("mean", torch.zeros(self.features, dtype=torch.float64))
        self.register_buffer("directions", torch.empty(self.features, 0, dtype=torch.float64))  # in units of their own

    def build(self, rows: NDArray[np.float64]) -> Any:
        from sklearn.covariance import EllipticEnvelope as Envelope
        from sklearn.decomposition import PCA
        from sklearn.pipeline import make_pipeline

        envelope = Envelope(support_fraction=self.support_fraction, random_state=self.seed)
        n, features = rows.shape
        most = max(1, min(self.max_features, n // 5))
        if features <= most:
            return make_pipeline(envelope)
        self.notice(
            f"EllipticEnvelope is fitted to the first {most} principal components of {features} features: "
            f"detector.max_features is {self.max_features}, and {n:,} rows are to be five for each component at least."
        )
        return make_pipeline(PCA(most, random_state=self.seed), envelope)

    def numbers(self, estimator: Any) -> dict[str, NDArray]:
        *projections, envelope = (step for _, step in estimator.steps)
        strengths, axes = np.linalg.eigh(envelope.precision_)
        mean, directions = envelope.location_, axes * np.sqrt(strengths.clip(0))
        if lost := int((strengths <= strengths.max() * 1e-12).sum()):
            self.notice(
                f"The tightest part of the training rows does not vary in {lost} of {len(strengths)} directions, in "
                "which EllipticEnvelope sees nothing; leave constant and dependent features out, or set a larger "
                "detector.support_fraction."
            )
        for pca in projections:
            mean, directions = pca.inverse_transform(mean[None])[0], pca.components_.T @ directions
        return {"mean": mean, "directions": directions}

    def consistent(self) -> bool:
        return self.directions.ndim == 2 and self.directions.shape[0] == self.features

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        parts = self.in_turns(x.flatten(1), 2 * self.features)
        return torch.cat([((part - self.mean) @ self.directions).square().sum(1) for part in parts]).float()

    def parts(self, x: Tensor, context: Tensor) -> Parts:
        rows = self.in_turns(x.flatten(1), 2 * self.features)
        found = torch.cat([quadratic(part - self.mean, self.directions) for part in rows])
        return Parts(found.view(x.shape), 0.0, "the mean of the tightest part of the training rows")

    def parts_from(self, reference: Tensor, x: Tensor, context: Tensor) -> Parts:
        rows, others = (self.in_turns(some.flatten(1), 4 * self.features) for some in (x, reference))
        pairs = zip(rows, others, strict=True)
        found = torch.cat([quadratic(a - self.mean, self.directions, b - self.mean) for a, b in pairs])
        return Parts(found.view(x.shape), self.score(reference, context).double(), "")
