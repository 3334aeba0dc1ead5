"""Autoencoder: what it cannot rebuild is strange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from straylight.detectors.coded import Decodes, Encodes
from straylight.nn import encoder_and_decoder
from straylight.nn.mlp import Activation
from straylight.rows.batch import Batch


class AutoEncoder(Encodes, Decodes):
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
        shape: the shape of one event; a dense network flattens it to D features.
        hidden: widths of the encoder's dense layers; a dense decoder mirrors them. `[128, 64, 12]` with `latent=3` is
            the 784-128-64-12-3 of the MNIST tutorials, `[]` with `latent=8` the 57-8-57 of the trigger tutorial.
        latent: width of the bottleneck.
        channels: see `straylight.nn.encoder`; for images `(C, H, W)`.
        activation: between the layers.
        mask: leave particles whose features are all zero, in the data's own units, out of the loss and the score,
            which is then the mean over the features of the others. Events must be `(P, F)`.
        common: `context`, `scaling`, `optimizer`, see `Detector`.

    Raises:
        ValueError: if a width is not positive, or the events are not of the shape that an option needs.

    Example:
        >>> import torch
        >>> AutoEncoder((1, 8, 8), hidden=[32], latent=4)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5])
    """

    rowwise = True

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        hidden: Sequence[int] = (64, 32),
        latent: int = 8,
        channels: Sequence[int] = (),
        activation: Activation = "relu",
        mask: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        if mask and len(self.shape) != 2:
            raise ValueError(f"detector.mask needs events of particles by features, (P, F), not {self.shape}")
        if mask and self.scaling.method == "gcn_l1":
            raise ValueError("detector.mask cannot tell padding under detector.scaling=gcn_l1; choose another scaling")
        self.encoder, self.decoder = encoder_and_decoder(
            self.shape, latent, channels=channels, hidden=hidden, activation=activation
        )
        self.mask = mask

    def reconstruct(self, x: Tensor) -> Tensor:
        """Scaled events through the bottleneck and back, `(B, *shape)` to `(B, *shape)`."""
        return self.decoder(self.encoder(x))

    def loss(self, batch: Batch) -> Tensor | dict[str, Tensor]:
        if self.mask or not batch.even:
            return batch.mean(self.score(batch.x, batch.context))
        return F.mse_loss(self.reconstruct(batch.x), batch.x)  # the same mean, in one kernel

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        error = (self.reconstruct(x) - x).square()
        if not self.mask:
            return error.flatten(1).mean(1)
        # a padded particle is zero in the data's own units, and so is exactly what zero is scaled to
        real = (x != self.scaling(torch.zeros_like(x[:1]))).any(2)
        return (error.mean(2) * real).sum(1) / real.sum(1).clamp(min=1)
