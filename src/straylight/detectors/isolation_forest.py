"""Isolation forest."""

from typing import Any

from sklearn.ensemble import IsolationForest as Forest

from straylight import checks
from straylight.detectors.scikit import ScikitDetector


class IsolationForest(ScikitDetector):
    """How few random cuts it takes to set an event apart.

    score(x) = 2^(-E[h(x)] / c(n)), with h the depth at which a random tree isolates x and c(n) the mean depth of an
    unsuccessful search among n rows. Assumes nothing about scale: a tree cuts one feature at a time.

    References:
        F. T. Liu, K. M. Ting, Z.-H. Zhou, Isolation forest, ICDM 2008, doi:10.1109/ICDM.2008.17

    Args:
        n_estimators: trees.
        max_samples: rows that each tree sees; fewer where there are fewer.
        max_rows: more training rows than these are drawn from by seed, and a notice says so; `None` takes all. The
            trees together see `n_estimators` times `max_samples` of them.
        max_features: the fraction of the features that each tree sees.
        n_jobs: processes of scikit-learn's; `None` is one.
        shape, common: see `FittedDetector`; events are flattened.

    Example:
        >>> import torch
        >>> forest = IsolationForest((1,), scaling="none")
        >>> forest.fit(torch.randn(100, 1), torch.zeros(100, 0), torch.ones(100))
        >>> forest(torch.tensor([[0.], [9.]])).argmax().item()  # the far one
        1
    """

    weighted = True

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        n_estimators: int = 100,
        max_samples: int = 256,
        max_rows: int | None = 1_000_000,
        max_features: float = 1.0,
        n_jobs: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", n_estimators=n_estimators)
        checks.counts("detector", 2, also="null", max_samples=max_samples, max_rows=max_rows)
        checks.above("detector", 0, 1, max_features=max_features)
        self.n_estimators, self.max_samples, self.max_rows = n_estimators, max_samples, max_rows
        self.max_features, self.n_jobs = max_features, n_jobs

    def build(self, rows: Any) -> Forest:
        return Forest(
            n_estimators=self.n_estimators,
            max_samples=min(self.max_samples, len(rows)),
            max_features=self.max_features,
            n_jobs=self.n_jobs,
            random_state=self.seed,
        )
