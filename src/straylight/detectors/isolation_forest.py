"""Isolation forest, scikit-learn's, inside a LightningModule."""

from __future__ import annotations

from typing import Any

import numpy as np
import skops.io
import torch
from sklearn.ensemble import IsolationForest as SklearnIsolationForest
from torch import Tensor

from straylight.detectors.fitted import FittedDetector


class IsolationForest(FittedDetector):
    """How few random cuts it takes to set an event apart.

    score(x) = 2^(-E[h(x)] / c(n)), with h the depth at which a random tree isolates x and c(n) the mean depth of an
    unsuccessful search among n rows. Assumes nothing about scale: a tree cuts one feature at a time.

    The fitted trees are kept in the checkpoint as bytes written by skops, never by pickle, and only scikit-learn's
    and numpy's own types are accepted when they are read.

    References:
        F. T. Liu, K. M. Ting, Z.-H. Zhou, Isolation forest, ICDM 2008, doi:10.1109/ICDM.2008.17
        F. Pedregosa et al., Scikit-learn, JMLR 12 (2011) 2825, arXiv:1201.0490

    Args:
        shape: the shape of one event; it is flattened.
        n_estimators: trees.
        max_samples: rows that each tree sees; fewer where there are fewer.
        max_features: the fraction of the features that each tree sees.
        n_jobs: processes of scikit-learn's; `None` is one.
        common: `context`, `scaling`, `optimizer` (unused), see `Detector`.

    Example:
        >>> forest = IsolationForest((1,), scaling="none")
        >>> forest.fit(torch.randn(100, 1), torch.zeros(100, 0), torch.ones(100))
        >>> near, far = forest(torch.tensor([[0.], [9.]]))
        >>> bool(far > near)
        True
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        n_estimators: int = 100,
        max_samples: int = 256,
        max_features: float = 1.0,
        n_jobs: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        if n_estimators < 1 or max_samples < 2 or not 0 < max_features <= 1:
            raise ValueError(
                "detector.n_estimators must be positive, max_samples at least 2 and max_features above 0 and at most "
                f"1, not {n_estimators}, {max_samples} and {max_features}"
            )
        self.max_samples = max_samples
        self.estimator = SklearnIsolationForest(n_estimators=n_estimators, max_features=max_features, n_jobs=n_jobs)
        self.fitted = False

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        seed = torch.initial_seed() if self._noise_seed is None else self._noise_seed
        self.estimator.set_params(random_state=seed % 2**32, max_samples=min(self.max_samples, len(x)))
        # equal weights, given as such, would make scikit-learn draw other rows
        weights = None if (weight == weight[0]).all() else weight.cpu().numpy()
        self.estimator.fit(x.flatten(1).cpu().numpy(), sample_weight=weights)
        self.fitted = True

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        rows = x.detach().flatten(1).cpu().numpy()
        # the trees take float32: beyond its range sklearn refuses a row that is merely very strange
        scores = -self.estimator.score_samples(rows.astype(np.float32, copy=False))
        return torch.as_tensor(scores, dtype=torch.float32, device=x.device)

    def get_extra_state(self) -> dict[str, Tensor]:
        if not self.fitted:
            return {}
        return {"skops": torch.frombuffer(bytearray(skops.io.dumps(self.estimator)), dtype=torch.uint8)}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        if "skops" not in state:
            return
        data = state["skops"].cpu().numpy().tobytes()
        foreign = [t for t in skops.io.get_untrusted_types(data=data) if t.split(".")[0] not in ("sklearn", "numpy")]
        if foreign:
            raise ValueError(f"this checkpoint's forest holds types that are not scikit-learn's: {', '.join(foreign)}")
        self.estimator = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
        self.fitted = True
