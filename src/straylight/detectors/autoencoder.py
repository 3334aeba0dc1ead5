"""Autoencoder: what it cannot rebuild is strange."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from straylight.detectors.coded import Rebuilds
from straylight.detectors.parts import Parts
from straylight.rows.batch import Batch


class AutoEncoder(Rebuilds):
    """Autoencoder, dense or convolutional, scored by its mean squared reconstruction error.

    score(x) = |x - d(e(x))|^2 / D, with encoder e and decoder d mirrored, and D the number of features.

    Assumes features of comparable scale (`scaling="standard"` makes them so): the error of a wide feature hides that
    of a narrow one.

    References:
        M. A. Kramer, Nonlinear principal component analysis using autoassociative neural networks, AIChE J. 37 (1991)
        233, doi:10.1002/aic.690370209
        T. Heimel et al., QCD or what?, SciPost Phys. 6 (2019) 030, arXiv:1808.08979
        E. Govorkova et al., Autoencoders on FPGAs for real-time, unsupervised new physics detection at 40 MHz, Nat.
        Mach. Intell. 4 (2022) 154, arXiv:2108.03986 (the mask)

    Args:
        hidden, latent: `[128, 64, 12]` and 3 are the 784-128-64-12-3 of the MNIST tutorials, `[]` and 8 the 57-8-57
            of the trigger tutorial.
        mask: leave particles whose features are all zero, in the data's own units, out of the loss and the score,
            which is then the mean over the features of the others. Events must be `(P, F)`.
        shape, hidden, latent, channels, activation, common: see `Mirrored`.

    Raises:
        ValueError: if a width is not positive, or the events are not of the shape that an option needs.

    Example:
        >>> import torch
        >>> AutoEncoder((1, 8, 8), hidden=[32], latent=4)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5])
    """

    explained_by = "exact"
    rowwise = True

    def __init__(self, shape: tuple[int, ...], *, mask: bool = False, **common: Any) -> None:
        super().__init__(shape, **common)
        if mask and len(self.shape) != 2:
            raise ValueError(f"detector.mask needs events of particles by features, (P, F), not {self.shape}")
        if mask and self.scaling.method in ("gcn_l1", "gcn_l2"):
            raise ValueError(
                f"detector.mask cannot tell padding under detector.scaling={self.scaling.method}; choose another "
                "scaling"
            )
        self.mask = mask

    def loss(self, batch: Batch) -> Tensor | dict[str, Tensor]:
        if self.mask or not batch.even:
            return batch.mean(self.score(batch.x, batch.context))
        return F.mse_loss(self.reconstruct(batch.x), batch.x)  # the same mean, in one kernel

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        error = (self.reconstruct(x) - x).square()
        if not self.mask:
            return error.flatten(1).mean(1)
        real = self._real(x)
        return (error.mean(2) * real).sum(1) / real.sum(1).clamp(min=1)

    def parts(self, x: Tensor, context: Tensor) -> Parts:
        error, counted = (self.reconstruct(x) - x).square(), math.prod(self.shape)
        if self.mask:
            real = self._real(x)
            error = error * real[:, :, None] / real.sum(1).clamp(min=1)[:, None, None]
            counted = self.shape[1]
        return Parts(error / counted, 0.0, "rebuilt without an error")

    def _real(self, x: Tensor) -> Tensor:
        """Which particles are no padding, `(B, P)`; it is zero in the data's own units, and what zero is scaled to."""
        return (x != self.scaling(torch.zeros_like(x[:1]))).any(2)
