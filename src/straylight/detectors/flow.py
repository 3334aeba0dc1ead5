"""What the normalizing flows share: an exact density is the score."""

import math
from typing import Any

import torch
from torch import Tensor

from straylight import checks
from straylight.detectors.base import Detector
from straylight.nn import Flow
from straylight.rows.batch import Batch


class FlowDetector(Detector):
    """A normalizing flow scored by its negative log-density in nats. A subclass builds `flow`.

    score(x) = -log N(f(x); 0, 1) - log |det df/dx|. The density is that of the scaled features; the constant by which
    it differs from that of the data's own units does not change the order of events, and is in `log_density`.

    Assumes continuous features: on a discrete one, such as a pixel, the density grows without bound. `noise` spreads
    each value out while training, and pixels want one scale for all of them (`scaling="minmax_common"`), or else those
    that are nearly constant are blown up.

    Args:
        shape: the shape of one event; it is flattened to D features.
        layers: of the flow.
        hidden: width of each layer's residual network.
        blocks: residual blocks in each.
        noise: standard deviation of the Gaussian noise added to scaled features while training.
        common: `context`, `scaling`, `optimizer`, see `Detector`; a context conditions every layer.

    Raises:
    """

    density = True
    rowwise = True
    #: Passes through the network that it takes to draw events.
    passes = 1
    flow: Flow

    def __init__(
        self, shape: tuple[int, ...], *, layers: int, hidden: int, blocks: int, noise: float = 0.0, **common: Any
    ) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", layers=layers, hidden=hidden, blocks=blocks)
        checks.not_negative("detector", noise=noise)
        self.features, self.noise = math.prod(self.shape), noise
        self.network: dict[str, Any] = {"layers": layers, "hidden": hidden, "blocks": blocks, "context": self.context}

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """Log-density of scaled events in nats, `(B, *shape)` and `(B, C)` to `(B,)`."""
        return self.flow(x.flatten(1), context if self.context else None)

    def latents(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """f(x) of events in their own units, `(B, *shape)` to `(B, D)`; standard normal if the density is right."""
        z, _ = self.flow.to_noise(self.scaling(x).flatten(1), context if self.context else None)
        return z

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        drawn = self.flow.sample(n, context if self.context else None)
        return self.scaling.inverse(drawn.view(n, *self.shape))

    def loss(self, batch: Batch) -> Tensor:
        x = batch.x + self.noise * torch.randn_like(batch.x) if self.noise else batch.x
        return -batch.mean(self.log_prob(x, batch.context))

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        return -self.log_prob(x, context)
