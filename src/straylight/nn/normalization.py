"""Batch normalization of hidden units.

Shapes: `B` events, `F` units or channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Normalization = Literal["none", "batch"]


class BatchNorm(_BatchNorm):
    """Each unit less its mean over a mini-batch, over its standard deviation, with no weight and no bias after it.

    Scoring goes by running means of both, so that a row's score depends on that row alone. So does a mini-batch with
    one number for each unit, which has no deviation.

    References:
        S. Ioffe, C. Szegedy, Batch normalization: accelerating deep network training by reducing internal covariate
        shift, ICML 2015, arXiv:1502.03167

    Args:
        units: F.

    Example:
        >>> BatchNorm(1)(torch.tensor([[1.0], [3.0]])).round(decimals=2).flatten()
        tensor([-1.,  1.])
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    #: Of the rows of the mini-batch, `(B,)`; `None` while all count as one.
    weight_of_rows: Tensor | None = None

    def __init__(self, units: int) -> None:
        super().__init__(units, eps=1e-4, affine=False)

    def _check_input_dim(self, input: Tensor) -> None:
        """Rows of units, `(B, F)`, or images of channels, `(B, F, H, W)`."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.weight_of_rows is not None:
            return self._weighted(x, self.weight_of_rows)
        if self.training and x.numel() <= self.num_features:
            return self._as_scoring(x)
        return super().forward(x)

    def _as_scoring(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, eps=self.eps)

    def _weighted(self, x: Tensor, weight: Tensor) -> Tensor:
        if int((weight > 0).sum()) * x[:1, :1].numel() < 2:
            return self._as_scoring(x)
        axes = (0, *range(2, x.ndim))
        share = (weight / weight.sum()).to(x.dtype).view(-1, *[1] * (x.ndim - 1)) / x[0, 0].numel()
        mean = (share * x).sum(axes, keepdim=True)
        variance = (share * (x - mean).square()).sum(axes, keepdim=True)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            step = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.flatten(), step)
            self.running_var.lerp_(variance.flatten(), step)
        return (x - mean) * (variance + self.eps).rsqrt()


@contextmanager
def weighted(network: nn.Module, weight: Tensor | None) -> Iterator[None]:
    """Let the batch normalizations of a network go by the weights of the rows, `(B,)`; of none, all count as one."""
    layers = [layer for layer in network.modules() if isinstance(layer, BatchNorm)]
    try:
        for layer in layers:
            layer.weight_of_rows = weight
        yield
    finally:
        for layer in layers:
            layer.weight_of_rows = None


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
