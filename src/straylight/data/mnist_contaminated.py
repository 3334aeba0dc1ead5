"""MNIST with a few spoiled images among the sound ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from straylight.data.contaminated import Contaminated
from straylight.data.mnist import MNIST, read
from straylight.data.stored import Stored


class ContaminatedMNIST(Contaminated, Stored):
    """All 70,000 digits of MNIST, every one nominal, and some of a few set aside turned, noisy or half black.

    By default 63,000 train, 5,250 are tested (158 of them corrupted) and 1,750 validate (52 corrupted). Shape
    (1, 28, 28).

    References:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, Proc. IEEE
        86 (1998) 2278, doi:10.1109/5.726791

    Args:
        root: the folder that holds `MNIST/raw/` with the four idx files, as torchvision lays them out.
        download: fetch files that are missing.
        aside, corrupted, proportions, test_fraction, common: see `Contaminated`.

    Raises:
        DataError: if a file is missing or damaged, a fraction is not between 0 and 1, or a kind does not exist.
    """

    remotes = MNIST.remotes

    @property
    def name(self) -> str:  # type: ignore[override]
        return "mnist_contaminated"

    def files(self) -> list[Path]:
        return [self.root / remote.file for remote in self.remotes]

    def images(self) -> tuple[Tensor, np.ndarray]:
        self.require()
        (train, digits), (test, more_digits) = (read(*self.files()[:2]), read(*self.files()[2:]))
        return torch.cat([train, test]), np.concatenate([digits, more_digits])
