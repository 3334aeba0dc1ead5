"""Batch normalization of hidden units.

Shapes: `B` events, `F` units or channels.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Normalization = Literal["none", "batch"]


class BatchNorm(_BatchNorm):
    """Each unit less its mean over a mini-batch, over its standard deviation, with no weight and no bias after it.

    Scoring goes by running means of both, so that a row's score depends on that row alone. So does a mini-batch with
    one number for each unit, which has no deviation. Event weights are not read.

    References:
        S. Ioffe, C. Szegedy, Batch normalization: accelerating deep network training by reducing internal covariate
        shift, ICML 2015, arXiv:1502.03167

    Args:
        units: F.

    Example:
        >>> BatchNorm(1)(torch.tensor([[1.0], [3.0]])).round(decimals=2).flatten()
        tensor([-1.,  1.])
    """

    def __init__(self, units: int) -> None:
        super().__init__(units, eps=1e-4, affine=False)

    def _check_input_dim(self, input: Tensor) -> None:
        """Rows of units, `(B, F)`, or images of channels, `(B, F, H, W)`."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() <= self.num_features:
            return nn.functional.batch_norm(x, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(x)


@torch.no_grad()
def measure(network: nn.Module) -> None:
    """Make the batch normalizations of a network forget, and average all that they see from now on equally."""
    for layer in network.modules():
        if isinstance(layer, BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None


def follow(network: nn.Module) -> None:
    """Make them go with the latest mini-batches again, as while training."""
    for layer in network.modules():
        if isinstance(layer, BatchNorm):
            layer.momentum = 0.1
