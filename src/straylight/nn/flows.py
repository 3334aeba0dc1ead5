"""Normalizing flows; the only page that knows nflows."""

from __future__ import annotations

from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, RandomPermutation


def masked_autoregressive_flow(features: int, *, layers: int, hidden: int, blocks: int, context: int = 0) -> Flow:
    """A standard normal base under masked affine autoregressive layers with random permutations between them.

    Args:
        features: dimensions of one event, flattened.
        layers: autoregressive layers.
        hidden: width of each layer's masked residual network.
        blocks: residual blocks in each.
        context: columns that every layer is conditioned on.

    Example:
        >>> import torch
        >>> masked_autoregressive_flow(2, layers=1, hidden=8, blocks=1).log_prob(torch.zeros(3, 2)).shape
        torch.Size([3])
    """
    transforms = []
    for layer in range(layers):
        if layer and features > 1:
            transforms.append(RandomPermutation(features))
        transforms.append(
            MaskedAffineAutoregressiveTransform(features, hidden, context_features=context or None, num_blocks=blocks)
        )
    return Flow(CompositeTransform(transforms), StandardNormal([features]))
