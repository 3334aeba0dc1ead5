"""MNIST in its idx files, one digit or several nominal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from straylight.batch import Events, Splits
from straylight.data.base import AnomalyDataModule
from straylight.data.splits import one_class
from straylight.errors import DataError


class MNIST(AnomalyDataModule):
    """70,000 handwritten digits of 28 x 28 pixels, 0 to 1; some digits nominal, each other one a kind of anomaly.

    The official split is kept: nominal images of the 60,000 train and validate, all 10,000 others are tested, and the
    anomalous images of the 60,000 are the reserve that `contamination` draws from. Shape (1, 28, 28).

    References:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, Proc. IEEE
        86 (1998) 2278, doi:10.1109/5.726791

    Args:
        root: the folder that holds `MNIST/raw/` with the four idx files, as torchvision lays them out.
        nominal: the digit, or digits, that are nominal.
        download: fetch the files through torchvision where they are missing.
        common: see `AnomalyDataModule`; `train_fraction` and `reserve_fraction` have no use here.

    Raises:
        DataError: if the files are missing or unreadable, or a digit is not between 0 and 9.
    """

    def __init__(self, *, root: str, nominal: int | Sequence[int] = 0, download: bool = False, **common: Any) -> None:
        super().__init__(**common)
        self.root, self.nominal, self.download = Path(root), nominal, download

    def load(self) -> Splits:
        train, test = self._read(train=True), self._read(train=False)
        strange = train.y.numpy() != 0
        nominal = np.random.default_rng(self.seed).permutation(np.flatnonzero(~strange))
        n_val = round(self.val_fraction * len(nominal))
        return Splits(
            train=train.take(np.sort(nominal[n_val:])),
            val=train.take(np.sort(nominal[:n_val])),
            test=test,
            reserve=train.take(np.flatnonzero(strange)),
        )

    def _read(self, train: bool) -> Events:
        from torchvision.datasets import MNIST as Files

        try:
            files = Files(str(self.root), train=train, download=self.download)
        except Exception as error:
            raise DataError(
                f"MNIST cannot be read from {self.root / 'MNIST' / 'raw'} ({_first_line(error)}); put the four idx "
                "files there, set paths.data to the folder that holds mnist/, or set data.download=true."
            ) from error
        digit = files.targets.numpy()
        if len(files.data) != len(digit) or digit.max(initial=0) > 9:
            raise DataError(
                f"The idx files in {self.root / 'MNIST' / 'raw'} do not belong together: {len(files.data)} images, "
                f"{len(digit)} labels up to {digit.max(initial=0)}; put the original files there."
            )
        y, self.kinds = one_class(digit, self.nominal, [str(d) for d in range(10)])
        return Events.of(files.data.unsqueeze(1).float().div_(255), y, meta={"digit": digit})


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0].rstrip(".")
