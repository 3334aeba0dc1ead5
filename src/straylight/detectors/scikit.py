"""Estimators of scikit-learn's inside a LightningModule."""

import re
import warnings
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
import skops.io
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController
from torch import Tensor

from straylight.detectors.fitted import FittedDetector
from straylight.errors import DataError

TELLING = (ConvergenceWarning, UserWarning, RuntimeWarning)


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


def one_pool() -> AbstractContextManager:
    """As many threads for scikit-learn as torch has: its own take every core, and wait for each other on a busy one."""
    return _pools().limit(limits=torch.get_num_threads())


class ScikitDetector(FittedDetector):
    """Base of detectors that fit an estimator of scikit-learn's. A subclass writes `build`.

    The score is the negative of the estimator's `score_samples`, as scikit-learn gives it. The fitted estimator is kept
    in the checkpoint as bytes written by skops, never by pickle, and only the types of scikit-learn, numpy and scipy
    are accepted when they are read. What it warns of while it is fitted becomes a notice.

    References:
        F. Pedregosa et al., Scikit-learn, JMLR 12 (2011) 2825, arXiv:1201.0490
    """

    #: Whether the estimator's `fit` takes `sample_weight`.
    weighted = False
    estimator: Any = None

    def build(self, rows: NDArray[np.float64]) -> Any:
        """The estimator for these training rows, `(N, D)`, not fitted yet."""
        raise NotImplementedError(f"{type(self).__name__} must write build(rows)")

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        x, weight = self.kept(x.flatten(1), weight)
        rows = x.double().cpu().numpy()  # where it is given float32, scikit-learn inverts covariances in float32
        estimator = self.build(rows)
        more: dict[str, Any] = {}
        if (weight != weight[0]).any():
            if self.weighted:  # equal weights, given as such, would make some estimators draw other rows
                more["sample_weight"] = weight.cpu().numpy()
            else:
                self.no_weights(weight)
        try:
            with one_pool(), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                estimator.fit(rows, **more)
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{type(self).__name__} cannot be fitted to {len(rows):,} training rows: {reason}"
            ) from error
        for warning in caught:
            if not issubclass(warning.category, TELLING):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        said = [" ".join(str(warning.message).split()) for warning in caught if issubclass(warning.category, TELLING)]
        kinds = {re.sub(r"[-\d.]+", "", sentence): sentence for sentence in reversed(said)}  # the first of each
        for sentence in reversed(kinds.values()):
            self.notice(f"{type(self).__name__}: {sentence}")
        self.estimator = estimator

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        rows = x.detach().flatten(1).double().cpu().numpy()
        with one_pool():
            scores = -self.estimator.score_samples(rows)
        return torch.as_tensor(scores, dtype=torch.float32, device=x.device)

    def get_extra_state(self) -> dict[str, Tensor]:
        if self.estimator is None:
            return {}
        return {"skops": torch.frombuffer(bytearray(skops.io.dumps(self.estimator)), dtype=torch.uint8)}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        if "skops" not in state:
            self.estimator = None
            return
        data = state["skops"].cpu().numpy().tobytes()
        types = skops.io.get_untrusted_types(data=data)
        foreign = [name for name in types if name.split(".")[0] not in ("sklearn", "numpy", "scipy")]
        if foreign:
            raise ValueError(
                f"this checkpoint's estimator holds types that are not scikit-learn's: {', '.join(foreign)}"
            )
        self.estimator = skops.io.loads(data, trusted=types)
