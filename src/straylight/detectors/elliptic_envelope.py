"""Robust Mahalanobis distance."""

from typing import Any

from sklearn.covariance import EllipticEnvelope as Envelope
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from straylight import checks
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

    def build(self, rows: Any) -> Any:
        envelope = Envelope(support_fraction=self.support_fraction, random_state=self.seed)
        n, features = rows.shape
        most = max(1, min(self.max_features, n // 5))
        if features <= most:
            return envelope
        self.notice(
            f"EllipticEnvelope is fitted to the first {most} principal components of {features} features: "
            f"detector.max_features is {self.max_features}, and {n:,} rows are to be five for each component at least."
        )
        return make_pipeline(PCA(most, random_state=self.seed), envelope)
