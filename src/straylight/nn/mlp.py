"""Dense networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "identity"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def mlp(widths: Sequence[int], activation: Activation = "relu", bias: bool = True) -> nn.Sequential:
    """Linear layers of the given widths with an activation between them, none after the last.

    Args:
        widths: inputs, hidden widths, outputs; at least two.
        activation: between the layers.
        bias: whether the layers have one.

    Raises:
        ValueError: if a width is not positive or the activation is unknown.

    Example:
        >>> [tuple(p.shape) for p in mlp((57, 8, 57)).parameters()]
        [(8, 57), (8,), (57, 8), (57,)]
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"a dense network needs two or more positive widths, not {list(widths)}")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, not {activation!r}")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=bias), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])
