"""Detectors with a latent space: an event's code, and the event that a code stands for.

Shapes: `B` events or codes, `Z` numbers in a code, `*shape` one event.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from straylight.detectors.base import Detector
from straylight.nn import encoder_and_decoder
from straylight.nn.mlp import Activation
from straylight.nn.normalization import Normalization


class Encodes(Detector):
    """A detector with an `encoder` of scaled events."""

    encoder: nn.Module

    def code(self, x: Tensor) -> Tensor:
        """Codes of scaled events, `(B, *shape)` to `(B, Z)`."""
        return self.encoder(x)

    def latents(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Codes of events in the data's own units, `(B, *shape)` to `(B, Z)`."""
        return self.code(self.scaling(x))


class Decodes(Detector):
    """A detector with a `decoder` of codes."""

    decoder: nn.Module

    def made(self, z: Tensor) -> Tensor:
        """Scaled events that codes stand for, `(B, Z)` to `(B, *shape)`."""
        return self.decoder(z)

    def decode(self, z: Tensor) -> Tensor:
        """Events that codes stand for, in the data's own units, `(B, Z)` to `(B, *shape)`.

        Raises:
            ValueError: if the scaling has no inverse.
        """
        return self.scaling.inverse(self.made(z))


class Generates(Decodes):
    """A detector whose codes, of `latent` numbers, have a known law: standard normal unless `draw` says otherwise."""

    latent: int

    def draw(self, n: int) -> Tensor:
        """Codes drawn from their law, `(n, Z)`."""
        return torch.randn(n, self.latent, device=self.device)

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Events made from codes that are drawn, see `Detector.sample`."""
        return self.decode(self.draw(n))


class Mirrored(Encodes):
    """A detector with an encoder and a decoder that mirrors it, dense or, of images, convolutional.

    Args:
        shape: the shape of one event; a dense network flattens it to D features.
        hidden: widths of the encoder's dense layers; a dense decoder mirrors them.
        latent: Z, width of the bottleneck.
        channels: see `straylight.nn.encoder`; for images `(C, H, W)`.
        activation: between the layers.
        common: `context`, `scaling`, `optimizer`, see `Detector`.

    Raises:
    """

    #: Numbers that the encoder makes for each latent, and whether layers have a bias.
    per_latent, bias = 1, True
    #: Of hidden units, see `straylight.nn.normalization`.
    normalization: Normalization = "none"
    decoder: nn.Module

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        hidden: Sequence[int] = (64, 32),
        latent: int = 8,
        channels: Sequence[int] = (),
        activation: Activation = "relu",
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        if channels and self.reduce is not None:
            raise ValueError("detector.channels need an image, and not the components of detector.reduce: drop one")
        layers: Any = {"channels": channels, "hidden": hidden, "activation": activation, "bias": self.bias}
        layers["normalization"] = self.normalization
        self.encoder, self.decoder = encoder_and_decoder(self.shape, latent, per_latent=self.per_latent, **layers)


class Rebuilds(Mirrored, Decodes):
    """A detector that rebuilds events from their codes."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """Scaled events through the bottleneck and back, `(B, *shape)` to `(B, *shape)`."""
        return self.made(self.code(x))
