"""Convolutional networks from images to numbers and back.

Shapes: `B` events, `(C, H, W)` one image.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from straylight.nn.mlp import Activation, activated, mlp, normalized
from straylight.nn.normalization import Normalization


def encoder(
    shape: tuple[int, ...],
    outputs: int,
    *,
    channels: Sequence[int] = (),
    hidden: Sequence[int] = (),
    activation: Activation = "relu",
    bias: bool = True,
    normalization: Normalization = "none",
) -> nn.Sequential:
    """A network from events to numbers, `(B, *shape)` to `(B, outputs)`.

    Args:
        shape: of one event; with `channels`, an image `(C, H, W)`.
        outputs: numbers per event.
        channels: of 3 x 3 convolutions, each of which halves height and width; none makes the network dense.
        hidden: widths of the dense layers that follow.
        activation: after every layer but the last.
        bias: whether the layers have one.
        normalization: before every activation, see `straylight.nn.normalization`.

    Raises:
        ValueError: if a width is not positive, or convolutions are asked for where there is no image.

    Example:
        >>> import torch
        >>> encoder((1, 28, 28), 2, channels=[32, 64], hidden=[16])(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 2])
    """
    sizes = _sizes(shape, channels)
    layers: list[nn.Module] = []
    for inputs, width in zip((shape[0], *channels), channels, strict=False):
        layers += [nn.Conv2d(inputs, width, 3, stride=2, padding=1, bias=bias), *normalized(width, normalization)]
        layers.append(activated(activation))
    flat = [nn.Flatten()] if channels or len(shape) > 1 else []
    return nn.Sequential(
        *layers, *flat, *mlp((math.prod(sizes[-1]), *hidden, outputs), activation, bias, normalization=normalization)
    )


def decoder(
    shape: tuple[int, ...],
    inputs: int,
    *,
    channels: Sequence[int] = (),
    hidden: Sequence[int] = (),
    activation: Activation = "relu",
    bias: bool = True,
    normalization: Normalization = "none",
) -> nn.Sequential:
    """A network from numbers to events, `(B, inputs)` to `(B, *shape)`, the mirror of `encoder` with these arguments.

    With `channels`, the dense part is one layer to the smallest image whatever `hidden` says, as in F. Chollet's
    variational autoencoder (https://keras.io/examples/generative/vae/); a last convolution, without stride, makes the
    channels of the event.

    Example:
        >>> import torch
        >>> decoder((1, 28, 28), 2, channels=[32, 64])(torch.zeros(5, 2)).shape
        torch.Size([5, 1, 28, 28])
    """
    sizes = _sizes(shape, channels)
    if not channels:
        unflat = [nn.Unflatten(1, shape)] if len(shape) > 1 else []
        widths = inputs, *hidden[::-1], math.prod(shape)
        return nn.Sequential(*mlp(widths, activation, bias, normalization=normalization), *unflat)
    first = math.prod(sizes[-1])
    layers: list[nn.Module] = [*mlp((inputs, first), bias=bias), *normalized(first, normalization)]
    layers += [activated(activation), nn.Unflatten(1, sizes[-1])]
    inputs = channels[-1]
    for (width, *_), (_, high, wide) in zip(sizes[:0:-1], sizes[-2::-1], strict=True):
        even = 1 - high % 2, 1 - wide % 2  # two sizes halve to the same one: say which it was
        layers.append(nn.ConvTranspose2d(inputs, width, 3, stride=2, padding=1, output_padding=even, bias=bias))
        layers += [*normalized(width, normalization), activated(activation)]
        inputs = width
    return nn.Sequential(*layers, nn.Conv2d(channels[0], shape[0], 3, padding=1, bias=bias))


def encoder_and_decoder(
    shape: tuple[int, ...],
    latent: int,
    *,
    channels: Sequence[int] = (),
    hidden: Sequence[int] = (),
    activation: Activation = "relu",
    bias: bool = True,
    normalization: Normalization = "none",
    per_latent: int = 1,
) -> tuple[nn.Sequential, nn.Sequential]:
    """An `encoder` to latents, with `per_latent` numbers for each, and the `decoder` back from them."""
    layers: Any = {"channels": channels, "hidden": hidden, "activation": activation, "bias": bias}
    layers["normalization"] = normalization
    return encoder(shape, per_latent * latent, **layers), decoder(shape, latent, **layers)


def _sizes(shape: tuple[int, ...], channels: Sequence[int]) -> list[tuple[int, ...]]:
    """The shape of one event and what each convolution makes of it."""
    if channels and (len(shape) != 3 or min(channels) < 1):
        raise ValueError(
            f"detector.channels are those of convolutions over images of shape (C, H, W): {list(channels)} cannot be "
            f"used on events of shape {tuple(shape)}; use a dense detector there"
        )
    sizes = [tuple(shape)]
    for width in channels:
        sizes.append((width, *(-(-n // 2) for n in sizes[-1][1:])))
    return sizes
