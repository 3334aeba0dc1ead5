"""What scikit-learn fits and torch scores."""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight.detectors.fitted import FittedDetector
from straylight.errors import DataError
from straylight.nn.pools import one_pool

TELLING = (UserWarning, RuntimeWarning)  # scikit-learn's own are among them


@contextmanager
def heard(detector: FittedDetector, name: str) -> Iterator[None]:
    """While another library fits: no more threads than torch has, and what it warns of becomes the detector's notices.

    Args:
        detector: that gives notice.
        name: of what is fitted, at the beginning of each sentence.
    """
    with one_pool(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if not issubclass(warning.category, TELLING):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    said = [" ".join(str(warning.message).split()) for warning in caught if issubclass(warning.category, TELLING)]
    kinds = {re.sub(r"[-\d.]+", "", sentence): sentence for sentence in reversed(said)}  # the first of each
    for sentence in reversed(kinds.values()):
        detector.notice(f"{name}: {sentence}")


class ScikitDetector(FittedDetector):
    """Base of detectors that fit an estimator of scikit-learn's. A subclass writes `build`, `numbers`, `consistent` and
    `score`.

    The score is the negative of the estimator's `score_samples`, taken in torch from what is kept of the fit: numbers
    in buffers, so that a checkpoint holds nothing that could run. What the estimator warns of while it is fitted
    becomes a notice.

    References:
        F. Pedregosa et al., Scikit-learn, JMLR 12 (2011) 2825, arXiv:1201.0490
    """

    #: Whether the estimator's `fit` takes `sample_weight`.
    weighted = False

    def __init__(self, shape: tuple[int, ...], **common: Any) -> None:
        super().__init__(shape, **common)
        self.features = math.prod(self.shape)

    def build(self, rows: NDArray[np.float64]) -> Any:
        """The estimator for these training rows, `(N, D)`, not fitted yet."""
        raise NotImplementedError(f"{type(self).__name__} must write build(rows)")

    def numbers(self, estimator: Any) -> dict[str, NDArray]:
        """What scoring needs of the fitted estimator, by the names of buffers."""
        raise NotImplementedError(f"{type(self).__name__} must write numbers(estimator)")

    def consistent(self) -> bool:
        """Whether the buffers, which may come from any file, belong together and lead nowhere else."""
        raise NotImplementedError(f"{type(self).__name__} must write consistent()")

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
            with heard(self, type(self).__name__):
                found = self.numbers(estimator.fit(rows, **more))
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{type(self).__name__} cannot be fitted to {len(rows):,} training rows: {reason}"
            ) from error
        for name, values in found.items():
            setattr(self, name, torch.tensor(values, device=x.device))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        refuse_earlier(self, state_dict, prefix)
        kinds = {name: getattr(self, name).dtype for name in self.sized_by_data}
        super()._load_from_state_dict(state_dict, prefix, *args)
        for name, kind in kinds.items():
            setattr(self, name, getattr(self, name).to(kind))
        if not self.consistent():
            raise ValueError(f"this {type(self).__name__} is damaged: the numbers of its fit do not belong together")


def refuse_earlier(detector: FittedDetector, state_dict: dict[str, Any], prefix: str) -> None:
    """Refuse a state that holds an estimator itself, which could run code when it is read."""
    if prefix + "_extra_state" in state_dict:
        raise ValueError(f"this {type(detector).__name__} is of an earlier version of Straylight: train it again")
