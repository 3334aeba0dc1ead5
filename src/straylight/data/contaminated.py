"""A few spoiled images among sound ones: a generic anomaly, whatever they show."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from straylight import checks
from straylight.data.base import AnomalyDataModule
from straylight.data.corruption import blackout, noise, rotated
from straylight.errors import DataError
from straylight.rows.batch import Events, Splits
from straylight.rows.origin import Origin

Corruption = Callable[[Tensor, np.random.Generator], Tensor]
CORRUPTIONS: dict[str, Corruption] = {"rotated": rotated, "noise": noise, "blackout": blackout}


class Contaminated(AnomalyDataModule):
    """Base of data sets of images, every one nominal, and some of a few set aside turned, noisy or half black.

    A subclass writes `images`. By seed a fraction is set aside and part of it corrupted, each image at most once; it is
    there as corrupted alone. What was set aside is divided into test and validation, kind by kind, and all other
    images train. `meta` says of each image its digit and its corruption.

    Validation holds corrupted images too; none of them chooses an epoch. `reserve_fraction` of the training images are
    corrupted and kept for `contamination` to draw from, so that the test never changes with either.

    Args:
        aside: the fraction of all images set aside.
        corrupted: the fraction of those that is corrupted.
        proportions: how much of each kind, relative to the others, where not equal; 0 leaves a kind out.
        test_fraction: of the images set aside, the rest validates.
        common: see `AnomalyDataModule`; `train_fraction` and `val_fraction` have no use here.

    Raises:
        DataError: if a fraction is not between 0 and 1, or a kind does not exist.

    Example:
        >>> class Grey(Contaminated):
        ...     def images(self):
        ...         return torch.full((100, 1, 4, 4), 0.4), np.arange(100) % 10
        >>> data = Grey(aside=0.2, corrupted=0.3)
        >>> [len(part) for part in data.load()], data.kinds
        ([80, 5, 15, 0], ('nominal', 'rotated', 'noise', 'blackout'))
    """

    #: Where the images come from, if they lie in files; known when `images` was asked.
    origin: Origin | None = None

    def __init__(
        self,
        *,
        aside: float = 0.1,
        corrupted: float = 0.03,
        proportions: Mapping[str, float] | None = None,
        test_fraction: float = 0.75,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        reserved = {"reserve_fraction": self.reserve_fraction}
        checks.between("data", 0, 1, aside=aside, corrupted=corrupted, test_fraction=test_fraction, **reserved)
        proportions = dict.fromkeys(CORRUPTIONS, 1.0) if proportions is None else dict(proportions)
        shares = proportions.values()
        if not set(proportions) <= set(CORRUPTIONS) or min(shares, default=0) < 0 or not any(shares):
            raise DataError(
                f"data.proportions must give {', '.join(CORRUPTIONS)} shares from 0, not all of them 0, not "
                f"{proportions}."
            )
        self.aside, self.corrupted, self.test_fraction = aside, corrupted, test_fraction
        self.shares = {kind: share for kind, share in proportions.items() if share}
        self.kinds = ("nominal", *self.shares)

    def images(self) -> tuple[Tensor, np.ndarray]:
        """All images from 0 to 1, `(N, C, H, W)`, and the digit of each, `(N,)`."""
        raise NotImplementedError(f"{type(self).__name__} must write images()")

    def load(self) -> Splits:
        images, digit = self.images()
        order = np.random.default_rng(self.seed).permutation(len(images))
        aside, rest = np.split(order, [round(self.aside * len(images))])
        reserve, kept = np.split(rest, [round(self.reserve_fraction * len(rest))])
        mixed = self._corrupted(images, digit, aside, round(self.corrupted * len(aside)), stream=4)
        tested, validating = _divided(mixed.y.numpy(), self.test_fraction)
        return Splits(
            train=self._corrupted(images, digit, np.sort(kept), 0, stream=0),
            val=mixed.take(validating),
            test=mixed.take(tested),
            reserve=self._corrupted(images, digit, reserve, len(reserve), stream=5),
        )

    def _corrupted(self, images: Tensor, digit: np.ndarray, rows: np.ndarray, n: int, stream: int) -> Events:
        """The images of these rows, of which the first n are corrupted, one kind after the other."""
        x, y = images[torch.from_numpy(rows)], np.zeros(len(rows), np.int64)
        rng, start = np.random.default_rng([self.seed, stream]), 0
        for k, (kind, count) in enumerate(zip(self.shares, _portions(n, list(self.shares.values())), strict=True), 1):
            part = slice(start, start + count)
            x[part], y[part] = CORRUPTIONS[kind](x[part], rng), k
            start += count
        origin = None if self.origin is None else self.origin.take(rows)
        return Events.of(x, y, meta={"digit": digit[rows], "corruption": np.array(self.kinds)[y]}, origin=origin)


def _portions(n: int, shares: Sequence[float]) -> list[int]:
    """n things in these relative shares, in whole numbers that add up to n."""
    edges = np.rint(n * np.cumsum(shares) / np.sum(shares)).astype(int)
    return np.diff(edges, prepend=0).tolist()


def _divided(y: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """The places of this fraction of the rows and of the others; of each kind the same, to one row."""
    count = np.bincount(y)
    first = np.diff(np.rint(fraction * np.cumsum(count)).astype(int), prepend=0)
    places = [np.split(np.flatnonzero(y == k), [first[k]]) for k in range(len(count))]
    taken, left = zip(*places, strict=True)
    return np.sort(np.concatenate(taken)), np.sort(np.concatenate(left))
