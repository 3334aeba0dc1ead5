"""Masked autoregressive flow: an exact density."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from straylight.batch import Batch
from straylight.detectors.base import Detector
from straylight.nn.flows import masked_autoregressive_flow


class MAF(Detector):
    """Masked autoregressive flow scored by its negative log-density in nats.

    score(x) = -log N(f(x); 0, 1) - log |det df/dx|, with f a chain of masked affine autoregressive layers with random
    permutations between them. The density is that of the scaled features; the constant by which it differs from that
    of the data's own units does not change the order of events.

    Assumes continuous features: on a discrete one the density grows without bound.

    References:
        G. Papamakarios, T. Pavlakou, I. Murray, Masked autoregressive flow for density estimation, NeurIPS 2017,
        arXiv:1705.07057
        C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, nflows, 2020, doi:10.5281/zenodo.4296287

    Args:
        shape: the shape of one event; it is flattened.
        layers: autoregressive layers.
        hidden: width of each layer's masked residual network.
        blocks: residual blocks in each.
        common: `context`, `scaling`, `optimizer`, see `Detector`; a context conditions every layer.

    Raises:
        ValueError: if a number is not positive.

    Example:
        >>> import torch
        >>> MAF((2,), layers=2, hidden=8)(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self, shape: tuple[int, ...], *, layers: int = 5, hidden: int = 64, blocks: int = 1, **common: Any
    ) -> None:
        super().__init__(shape, **common)
        if min(layers, hidden, blocks) < 1:
            raise ValueError(f"detector.layers, hidden and blocks must be positive, not {layers}, {hidden}, {blocks}")
        self.flow = masked_autoregressive_flow(
            math.prod(self.shape), layers=layers, hidden=hidden, blocks=blocks, context=self.context
        )

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """Log-density of scaled events in nats, `(B, *shape)` and `(B, C)` to `(B,)`."""
        return self.flow.log_prob(x.flatten(1), context=context if self.context else None)

    def loss(self, batch: Batch) -> Tensor:
        return batch.mean(self.score(batch.x, batch.context))

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        return -self.log_prob(x, context)
