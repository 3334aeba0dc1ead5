"""Autoencoder: what it cannot rebuild is strange."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from straylight.batch import Batch
from straylight.detectors.base import Detector
from straylight.nn.mlp import Activation, mlp


class AutoEncoder(Detector):
    """Dense autoencoder scored by its mean squared reconstruction error.

    score(x) = |x - d(e(x))|^2 / D, with encoder e and decoder d mirrored, and D the number of features.

    Assumes features of comparable scale (`scaling="standard"` makes them so): the error of a wide feature hides that
    of a narrow one.

    References:
        M. A. Kramer, Nonlinear principal component analysis using autoassociative neural networks, AIChE J. 37 (1991)
        233, doi:10.1002/aic.690370209
        T. Heimel et al., QCD or what?, SciPost Phys. 6 (2019) 030, arXiv:1808.08979

    Args:
        shape: the shape of one event; it is flattened to D features.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them. `[128, 64, 12]` with `latent=3` is the
            784-128-64-12-3 of the MNIST tutorials, `[]` with `latent=8` the 57-8-57 of the trigger tutorial.
        latent: width of the bottleneck.
        activation: between the layers, and at the bottleneck where there is a hidden layer.
        common: `context`, `scaling`, `optimizer`, see `Detector`.

    Raises:
        ValueError: if a width is not positive.

    Example:
        >>> import torch
        >>> AutoEncoder((1, 8, 8), hidden=[32], latent=4)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        hidden: Sequence[int] = (64, 32),
        latent: int = 8,
        activation: Activation = "relu",
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        widths = (math.prod(self.shape), *hidden, latent)
        self.encoder = mlp(widths, activation)
        self.decoder = mlp(widths[::-1], activation)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Scaled events through the bottleneck and back, `(B, *shape)` to `(B, *shape)`."""
        return self.decoder(self.encoder(x.flatten(1))).view_as(x)

    def loss(self, batch: Batch) -> Tensor:
        if not batch.even:
            return batch.mean(self.score(batch.x, batch.context))
        x = batch.x.flatten(1)
        return F.mse_loss(self.decoder(self.encoder(x)), x)  # the same mean, in one kernel

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        x = x.flatten(1)
        return (self.decoder(self.encoder(x)) - x).square().mean(1)
