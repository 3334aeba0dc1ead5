"""Handwritten digits that come with scikit-learn: real data without a download."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from straylight.data.base import AnomalyDataModule
from straylight.data.contaminated import Contaminated
from straylight.data.steps.splits import one_class, one_class_name
from straylight.rows.batch import Events, Splits
from straylight.rows.origin import Origin

SOURCE = "sklearn/datasets/data/digits.csv.gz"  # a file of scikit-learn's


class Digits(AnomalyDataModule):
    """1,797 handwritten digits of 8 x 8 pixels, 0 to 16; one digit nominal, each other one a kind of anomaly.

    Shape (1, 8, 8).

    References:
        E. Alpaydin, C. Kaynak, Optical recognition of handwritten digits, UCI 1998, doi:10.24432/C50P49

    Args:
        nominal: the digit, or digits, that are nominal.
        common: see `AnomalyDataModule`.

    Raises:
        DataError: if a digit is not between 0 and 9.

    Example:
        >>> data = Digits(nominal=0)
        >>> data.setup()
        >>> data.shape, data.kinds[:3]
        ((1, 8, 8), ('nominal', '1', '2'))
    """

    def __init__(self, *, nominal: int | Sequence[int] = 0, **common: Any) -> None:
        super().__init__(**common)
        self.nominal = nominal

    @property
    def name(self) -> str:  # type: ignore[override]
        return one_class_name("digits", self.nominal)

    def load(self) -> Splits:
        images, digit = _digits()
        y, self.kinds = one_class(digit, self.nominal, [str(d) for d in range(10)])
        return self.split(Events.of(images, y, meta={"digit": digit}, origin=Origin.of(SOURCE, len(y))))


class ContaminatedDigits(Contaminated):
    """1,797 digits of 8 x 8 pixels, 0 to 1, every one nominal, some of a part set aside turned, noisy or half black.

    By default 1,078 train, 539 are tested (162 of them corrupted) and 180 validate (54 corrupted): so few images leave
    a useful number of corrupted ones only if many are set aside. Shape (1, 8, 8).

    References: as `Digits`.

    Args:
        aside, corrupted, proportions, test_fraction, common: see `Contaminated`.

    Raises:
        DataError: if a fraction is not between 0 and 1, or a kind does not exist.

    Example:
        >>> data = ContaminatedDigits()
        >>> data.setup()
        >>> data.shape, [len(part) for part in data.splits]
        ((1, 8, 8), [1078, 180, 539, 0])
    """

    def __init__(self, *, aside: float = 0.4, corrupted: float = 0.3, **common: Any) -> None:
        super().__init__(aside=aside, corrupted=corrupted, **common)

    @property
    def name(self) -> str:  # type: ignore[override]
        return "digits_contaminated"

    def images(self) -> tuple[Tensor, np.ndarray]:
        images, digit = _digits()
        self.origin = Origin.of(SOURCE, len(digit))
        return torch.from_numpy(images).float() / 16, digit


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """All images, `(N, 1, 8, 8)`, and the digit of each, `(N,)`."""
    from sklearn.datasets import load_digits

    images, digit = load_digits(return_X_y=True)
    return images.reshape(-1, 1, 8, 8), digit
