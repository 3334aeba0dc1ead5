"""Handwritten digits that come with scikit-learn: real data without a download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from straylight.data.base import AnomalyDataModule
from straylight.data.steps.splits import one_class, one_class_name
from straylight.rows.batch import Events, Splits


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
        from sklearn.datasets import load_digits

        images, digit = load_digits(return_X_y=True)
        y, self.kinds = one_class(digit, self.nominal, [str(d) for d in range(10)])
        return self.split(Events.of(images.reshape(-1, 1, 8, 8), y, meta={"digit": digit}))
