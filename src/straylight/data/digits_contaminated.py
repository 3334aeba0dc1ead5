"""Scikit-learn's digits with spoiled images among the sound ones: small, and without a download."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from straylight.data.contaminated import Contaminated


class ContaminatedDigits(Contaminated):
    """1,797 digits of 8 x 8 pixels, 0 to 1, every one nominal, some of a part set aside turned, noisy or half black.

    By default 1,078 train, 539 are tested (162 of them corrupted) and 180 validate (54 corrupted): so few images leave
    a useful number of corrupted ones only if many are set aside. Shape (1, 8, 8).

    References:
        E. Alpaydin, C. Kaynak, Optical recognition of handwritten digits, UCI 1998, doi:10.24432/C50P49

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
        from sklearn.datasets import load_digits

        images, digit = load_digits(return_X_y=True)
        return torch.from_numpy(images).float().view(-1, 1, 8, 8) / 16, digit
