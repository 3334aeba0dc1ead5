"""Principal components of scaled events in place of their features.

Shapes: `B` events, `*shape` one event, `D` numbers in it, `q` components.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from straylight.errors import DataError
from straylight.nn.scaling import Scaling
from straylight.nn.sums import Sums

MOST = 8192  # features, whose covariance takes half a gibibyte
NUMBERS = 2**22  # of rows that are taken in at once

Components = int | float


class Reduced(Scaling):
    """A scaling, and then the coordinates of scaled events along the principal components of the training rows.

    z = (scaling(x) - mean) V, with V the eigenvectors of the largest eigenvalues of the covariance of the scaled
    training rows, in float64 from sums taken in one pass, weights counting as so many rows. The sign of each is such
    that its largest entry is positive. What is strange about an event beside these directions is lost.

    Before it is fitted it hands on what it can: the first q features, or all where a fraction does not say how many.

    References:
        H. Hotelling, Analysis of a complex of statistical variables into principal components, J. Educ. Psychol. 24
        (1933) 417, doi:10.1037/h0071325

    Args:
        scaling: of events of `shape`.
        components: q; or below 1 the fraction of the variance that they must hold at least.

    Raises:
        ValueError: if there are not so many components, or so many features that their covariance is too large.

    Example:
        >>> rows = torch.tensor([[-2., 0.], [2., 0.], [0., 1.], [0., -1.]])
        >>> reduced = Reduced(Scaling((2,), "none"), 1).fit([rows])
        >>> reduced.reduce([(rows, torch.ones(4))]), reduced(torch.tensor([[3., 5.]])).tolist()
        (1, [[3.0]])
    """

    mean: Tensor
    directions: Tensor
    reduced: Tensor

    def __init__(self, scaling: Scaling, components: Components) -> None:
        nn.Module.__init__(self)
        self.first = scaling
        self.event_shape = tuple(scaling.shift.shape)
        d = math.prod(self.event_shape)
        if d > MOST:
            raise ValueError(
                f"detector.reduce needs the covariance of {d:,} features, and takes {MOST:,} at most; leave it out"
            )
        checked("detector.reduce", components, d)
        self.components = components
        self.register_buffer("mean", torch.zeros(d, dtype=torch.float64))
        width = components if isinstance(components, int) else 0
        self.register_buffer("directions", torch.eye(d, width, dtype=torch.float64))
        self.register_buffer("reduced", torch.tensor(False))

    @property
    def width(self) -> int:
        """How many numbers it makes of an event."""
        return self.directions.shape[1] or math.prod(self.event_shape)

    # what a scaling has

    @property
    def method(self) -> str:  # type: ignore[override]
        """That of the scaling before it."""
        return self.first.method

    @property
    def shift(self) -> Tensor:  # type: ignore[override]
        """That of the scaling before it."""
        return self.first.shift

    @property
    def factor(self) -> Tensor:  # type: ignore[override]
        """That of the scaling before it."""
        return self.first.factor

    @property
    def fitted(self) -> Tensor:  # type: ignore[override]
        """Whether all of it is."""
        return self.first.fitted & self.reduced

    @property
    def bounded(self) -> bool:
        """Components have no bounds."""
        return False

    @property
    def identity(self) -> bool:
        """It is none."""
        return False

    @property
    def featurewise(self) -> Scaling:
        """The scaling before it."""
        return self.first

    def forward(self, x: Tensor) -> Tensor:
        """`(B, *shape)` to `(B, q)`."""
        return self.onward(self.first(x))

    def onward(self, scaled: Tensor) -> Tensor:
        """Components of scaled events, `(B, *shape)` to `(B, q)`."""
        rows = scaled.flatten(1)
        if not self.directions.shape[1]:
            return rows
        return ((rows - self.mean) @ self.directions).to(rows.dtype)

    def inverse(self, x: Tensor) -> Tensor:
        """Events with these components, `(B, q)` to `(B, *shape)`, which have nothing of the others.

        Raises:
            ValueError: where the scaling before it has none.
        """
        rows = x if not self.directions.shape[1] else (x.double() @ self.directions.T + self.mean).to(x.dtype)
        return self.first.inverse(rows.view(-1, *self.event_shape))

    def log_determinant(self, x: Tensor) -> Tensor:
        """log |det| of its derivative, which is that of the scaling where no component is left out.

        Raises:
            ValueError: where one is.
        """
        if self.width < math.prod(self.event_shape):
            raise ValueError(
                f"detector.reduce keeps {self.width} of {math.prod(self.event_shape)} components, so that a density of "
                "these is none of the events themselves"
            )
        return self.first.log_determinant(x)

    def forget(self) -> None:
        self.first.forget()
        self.reduced.fill_(False)

    def fit(self, chunks: Iterable[Tensor], *, dealt: bool = False) -> Reduced:
        """Fit the scaling before it; `reduce` comes next."""
        self.first.fit(chunks, dealt=dealt)
        return self

    @torch.no_grad()
    def reduce(self, chunks: Iterable[tuple[Tensor, Tensor]]) -> int:
        """Find the components of training rows and their weights, in chunks of `(n, *shape)` and `(n,)`; how many.

        Raises:
            DataError: if there are fewer than two rows.
        """
        sums: Sums | None = None
        for x, weight in chunks:
            tall = max(1, NUMBERS // self.mean.numel())
            for part, own in zip(x.split(tall), weight.split(tall), strict=True):
                rows = self.first(part.to(self.mean.device)).flatten(1).double()
                sums = sums or Sums(rows.mean(0))
                sums.add(rows, own.to(rows.device))
        if sums is None or sums.weight <= 1:
            raise DataError("detector.reduce needs two training rows or more to see how they vary.")
        variances, vectors = torch.linalg.eigh(sums.covariance)
        variances, vectors = variances.flip(0).clamp_min(0), vectors.flip(1)
        found = vectors[:, : leading(variances, self.components)]
        largest = found.gather(0, found.abs().argmax(0, keepdim=True))
        self.directions = (found * largest.sign()).clone(memory_format=torch.contiguous_format)
        self.mean.copy_(sums.mean)
        self.reduced.fill_(True)
        return self.width


def checked(key: str, components: Components | None, features: int) -> None:
    """See that it is a number of components or a fraction of the variance.

    Raises:
        ValueError: if it is not.
    """
    whole = isinstance(components, int) and not isinstance(components, bool) and 1 <= components <= features
    if components is not None and not whole and not (isinstance(components, float) and 0 < components < 1):
        raise ValueError(
            f"{key} must be null, a number of components from 1 to {features}, or a fraction of the variance between "
            f"0 and 1, not {components}"
        )


def leading(variances: Tensor, components: Components | None) -> int:
    """How many of the largest variances, `(D,)` in falling order, are meant: all, a number, or a fraction of their sum.

    Example:
        >>> variances = torch.tensor([6.0, 3.0, 1.0])
        >>> [leading(variances, c) for c in (None, 2, 0.6, 0.61, 0.95)]
        [3, 2, 1, 2, 3]
    """
    match components:
        case None:
            return len(variances)
        case int():
            return components
        case fraction:
            share = variances.cumsum(0) / variances.sum().clamp_min(torch.finfo(variances.dtype).tiny)
            return min(len(variances), int((share < fraction).sum()) + 1)
