"""Detectors with a latent space: an event's code, and the event that a code stands for.

Shapes: `B` events or codes, `Z` numbers in a code, `*shape` one event.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from straylight.detectors.base import Detector


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
        """Events made from codes that are drawn, in the data's own units, `(n, *shape)`.

        Raises:
            ValueError: if the scaling has no inverse.
        """
        return self.decode(self.draw(n))
