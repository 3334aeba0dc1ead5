"""Dense networks."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

from torch import nn

from straylight import checks
from straylight.nn.normalization import BatchNorm, Normalization

Activation = Literal["relu", "leaky_relu", "leaky_relu_0.2", "elu", "gelu", "silu", "tanh", "sigmoid", "identity"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "leaky_relu_0.2": partial(nn.LeakyReLU, 0.2),  # the slope that GANs are mostly trained with
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def mlp(
    widths: Sequence[int],
    activation: Activation = "relu",
    bias: bool = True,
    dropout: float = 0.0,
    normalization: Normalization = "none",
) -> nn.Sequential:
    """Linear layers of the given widths with an activation between them, none after the last.

    Args:
        widths: inputs, hidden widths, outputs; at least two.
        activation: between the layers.
        bias: whether the layers have one.
        dropout: the fraction of hidden units that are left out at a time while training.
        normalization: of hidden units, before the activation, see `straylight.nn.normalization`.

    Raises:
        ValueError: if a width is not positive, the activation unknown or the dropout out of range.

    Example:
        >>> [tuple(p.shape) for p in mlp((57, 8, 57)).parameters()]
        [(8, 57), (8,), (57, 8), (57,)]
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"a dense network needs two or more positive widths, not {list(widths)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, not {dropout}")
    dropped = [nn.Dropout(dropout)] if dropout else []
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=bias), *normalized(outputs, normalization)]
        layers += [activated(activation), *dropped]
    return nn.Sequential(*layers[: -1 - len(dropped) - (normalization != "none")])


def normalized(units: int, name: Normalization) -> list[nn.Module]:
    """The normalization of this name, of so many units or channels; none is no layer.

    Raises:
        ValueError: if there is no such normalization.
    """
    checks.one_of("detector", Normalization, normalization=name)
    return [BatchNorm(units)] if name == "batch" else []


def activated(name: Activation) -> nn.Module:
    """The activation of this name.

    Raises:
        ValueError: if there is none.
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, not {name!r}")
    return _ACTIVATIONS[name]()
