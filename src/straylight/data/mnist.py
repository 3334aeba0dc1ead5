"""MNIST and Fashion-MNIST in their idx files, one class or several nominal."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from straylight.data.contaminated import Contaminated
from straylight.data.steps.splits import one_class, one_class_name
from straylight.data.stored import Remote, Stored
from straylight.errors import DataError
from straylight.rows.batch import Events, Splits
from straylight.rows.origin import Origin, Rows


def _zipped(mirror: str, folder: str, sums: dict[str, str]) -> list[Remote]:
    """The four zipped files of a mirror, each under its unpacked name in `folder`, by their md5 sums."""
    return [Remote(f"{mirror}{name}.gz", f"{folder}/{name}", f"md5:{md5}") for name, md5 in sums.items()]


class MNIST(Stored):
    """70,000 handwritten digits of 28 x 28 pixels, 0 to 1; some digits nominal, each other one a kind of anomaly.

    The official split is kept: nominal images of the 60,000 train and validate, all 10,000 others are tested, and the
    anomalous images of the 60,000 are the reserve that `contamination` draws from. Shape (1, 28, 28).

    References:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, Proc. IEEE
        86 (1998) 2278, doi:10.1109/5.726791

    Args:
        root: the folder that holds `MNIST/raw/` with the four idx files, as torchvision lays them out.
        nominal: the class, or classes, that are nominal, by number or name.
        download: fetch files that are missing.
        common: see `AnomalyDataModule`; `train_fraction` and `reserve_fraction` have no use here.

    Raises:
        DataError: if a file is missing or damaged, or a class does not exist.
    """

    classes: Sequence[str] = tuple("0123456789")
    #: What the class is called in `meta`.
    column = "digit"
    called = "mnist"
    remotes = _zipped(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "MNIST/raw",
        {
            "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    )

    def __init__(self, *, root: str, nominal: int | str | Sequence[int | str] = 0, **common: Any) -> None:
        super().__init__(root=root, **common)
        self.nominal = nominal

    @property
    def name(self) -> str:  # type: ignore[override]
        return one_class_name(self.called, self.nominal)

    @property
    def fetched_as(self) -> str:
        return self.called

    def files(self) -> list[Path]:
        return [self.root / remote.file for remote in self.remotes]

    def load(self) -> Splits:
        self.require()
        train, test = self._part(*self.files()[:2]), self._part(*self.files()[2:])
        strange = train.y.numpy() != 0
        nominal = np.random.default_rng(self.seed).permutation(np.flatnonzero(~strange))
        n_val = round(self.validating(len(nominal)) * len(nominal))
        return Splits(
            train=train.take(np.sort(nominal[n_val:])),
            val=train.take(np.sort(nominal[:n_val])),
            test=test,
            reserve=train.take(np.flatnonzero(strange)),
        )

    def _part(self, images: Path, labels: Path) -> Events:
        x, label = read(images, labels)
        given = [self.nominal] if isinstance(self.nominal, int | str) else self.nominal
        numbers: list[Any] = [self.classes.index(c) if c in self.classes else c for c in given]
        y, self.kinds = one_class(label, numbers, self.classes)
        return Events.of(x, y, meta={self.column: label}, origin=Origin.of(images, len(x)))


class FashionMNIST(MNIST):
    """70,000 articles of clothing of 28 x 28 pixels, in the form and with the official split of `MNIST`.

    References:
        H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine learning
        algorithms, 2017, arXiv:1708.07747

    Args:
        root: the folder that holds `FashionMNIST/raw/` with the four idx files, as torchvision lays them out.
        nominal, download, common: see `MNIST`; the classes are `classes`, by number or name.

    Raises:
        DataError: if a file is missing or damaged, or a class does not exist.
    """

    classes = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    column = "class"
    called = "fashion_mnist"
    remotes = _zipped(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "FashionMNIST/raw",
        {
            "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    )


class ContaminatedMNIST(Contaminated, Stored):
    """All 70,000 digits of MNIST, every one nominal, and some of a few set aside turned, noisy or half black.

    By default 63,000 train, 5,250 are tested (158 of them corrupted) and 1,750 validate (52 corrupted). Shape
    (1, 28, 28).

    References: as `MNIST`.

    Args:
        root, download: see `MNIST`.
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
        self.origin = Origin([Rows(str(self.files()[0]), len(train)), Rows(str(self.files()[2]), len(test))])
        return torch.cat([train, test]), np.concatenate([digits, more_digits])


def read(images: Path, labels: Path) -> tuple[Tensor, np.ndarray]:
    """Images from 0 to 1, `(N, 1, 28, 28)`, and their classes, `(N,)`, from a pair of idx files.

    Raises:
        DataError: if a file is damaged, or the two do not belong together.
    """
    from torchvision.datasets.mnist import read_image_file, read_label_file

    _check(images, 28, 28)
    _check(labels)
    x, label = read_image_file(str(images)), read_label_file(str(labels)).numpy()
    if len(x) != len(label):
        raise DataError(
            f"{images} and {labels.name} do not belong together: {len(x)} images, {len(label)} labels; put the "
            "original files there."
        )
    if label.max(initial=0) > 9:
        raise DataError(f"{labels} holds the label {label.max()}, beyond 0 to 9; put the original file there.")
    return x.unsqueeze(1).float().div_(255), label


def _check(path: Path, *shape: int) -> None:
    """That an idx file of bytes says it holds rows of this shape, and is as long as it says."""
    size, head = path.stat().st_size, 4 * (2 + len(shape))
    what = f"images of {shape[0]} x {shape[1]} pixels" if shape else "labels"
    with path.open("rb") as file:
        start = file.read(head)
    magic, rows, *sides = struct.unpack(f">{head // 4}I", start.ljust(head, b"\0"))
    if magic != 0x0801 + len(shape) or tuple(sides) != shape:
        raise DataError(f"{path} does not begin as an idx file of {what}; put the original file there, unpacked.")
    wanted = head + rows * int(np.prod(shape))
    if size != wanted:
        raise DataError(
            f"{path} is damaged: {rows} {what} make {wanted} bytes, and it has {size}; put the original file there."
        )
