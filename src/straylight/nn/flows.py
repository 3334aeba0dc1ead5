"""Normalizing flows; the only page that knows nflows.

Shapes: `B` events, `D` features, `C` context columns, `K` bins of a spline.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from nflows.nn.nets import ResidualNet
from nflows.transforms import Permutation, Transform
from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
from nflows.transforms.coupling import AffineCouplingTransform, CouplingTransform
from torch import Tensor, nn

from straylight.nn.spline import rational_quadratic_spline

#: A layer stretches a feature by e^5 = 148 at most, unless another bound is given, so that a chain of them stays within
#: float32.
LARGEST_LOG_SCALE = 5.0


class Flow(nn.Module):
    """The density of x where f(x) is standard normal: log p(x) = log N(f(x); 0, 1) + log |det df/dx|.

    Args:
        features: D.
        transforms: of nflows, from data to noise, in this order.

    Example:
        >>> flow = autoregressive_flow(2, layers=1, hidden=8, blocks=1)
        >>> flow(torch.zeros(3, 2)).shape, flow.sample(4).shape
        (torch.Size([3]), torch.Size([4, 2]))
    """

    def __init__(self, features: int, transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.features = features
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats, `(B, D)` and `(B, C)` to `(B,)`."""
        z, log_determinant = self.to_noise(x, context)
        return log_determinant - z.square().sum(1) / 2 - self.features * math.log(2 * math.pi) / 2

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """f(x), `(B, D)`, and log |det df/dx|, `(B,)`."""
        parts = []
        for transform in self.transforms:
            x, log_determinant = transform(x, context)
            parts.append(log_determinant)
        return x, sum(parts[1:], start=parts[0])

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """Events drawn from the density, `(n, D)`, one for each row of the context where there is one."""
        like = next(self.parameters())  # nflows' own base draws float32 whatever the flow is in
        x = torch.randn(n, self.features, dtype=like.dtype, device=like.device)
        for transform in cast(list[Transform], list(self.transforms)[::-1]):
            x, _ = transform.inverse(x, context)
        return x


def autoregressive_flow(features: int, *, layers: int, hidden: int, blocks: int, context: int = 0) -> Flow:
    """Masked affine autoregressive layers, the order of the features reversed between them.

    Args:
        features: D, flattened.
        layers: autoregressive layers.
        hidden: width of each layer's masked residual network.
        blocks: residual blocks in each.
        context: C, columns that every layer is conditioned on.
    """
    options = {"context_features": context or None, "num_blocks": blocks}
    return Flow(
        features, [MaskedAffine(features, hidden, backwards=layer % 2 == 1, **options) for layer in range(layers)]
    )


def coupling_flow(
    features: int,
    *,
    layers: int,
    hidden: int,
    blocks: int,
    context: int = 0,
    spline: tuple[int, float] | None = None,
    largest_log_scale: float = LARGEST_LOG_SCALE,
) -> Flow:
    """Coupling layers: half of the features are transformed, each by numbers that a network makes of the other half.

    Two layers with the halves swapped make a pair; the features are permuted at random between pairs.

    Args:
        features: D, flattened; at least 2.
        layers, hidden, blocks, context: as in `autoregressive_flow`.
        spline: bins and half-width of monotonic rational-quadratic splines; `None` makes the layers affine.
        largest_log_scale: an affine layer stretches or shrinks a feature by e to this power at most.

    Raises:
        ValueError: if there is a single feature.
    """
    if features < 2:
        raise ValueError("a coupling flow needs two or more features; use detector=maf for one")
    options = {"hidden_features": hidden, "context_features": context or None, "num_blocks": blocks}
    network = partial(ResidualNet, **options)  # of inputs and outputs
    transforms: list[Transform] = []
    for layer in range(layers):
        if layer and not layer % 2 and features > 2:
            transforms.append(Permutation(torch.randperm(features)))
        half = (torch.arange(features) + layer) % 2
        if spline is None:
            transforms.append(AffineCoupling(half, network, largest_log_scale))
        else:
            transforms.append(SplineCoupling(half, network, *spline))
    return Flow(features, transforms)


def exact(numbers: Tensor) -> Tensor:
    """What a network says in float32 or float64: knots and log-scales of half precision are no density."""
    return numbers.float() if numbers.dtype in (torch.bfloat16, torch.float16) else numbers


def stretched(x: Tensor, raw: Tensor, shift: Tensor, largest: float = LARGEST_LOG_SCALE) -> tuple[Tensor, Tensor]:
    """x e^s + t with s the raw log-scale within +-largest, each `(B, D)`, and the log-determinant, `(B,)`.

    It is clamped, which is one kernel where a smooth bound takes several.
    """
    log_scale = raw.clamp(-largest, largest)
    return torch.addcmul(shift, x, log_scale.exp()), log_scale.sum(1)


def shrunk(z: Tensor, raw: Tensor, shift: Tensor, largest: float = LARGEST_LOG_SCALE) -> tuple[Tensor, Tensor]:
    """The inverse of `stretched`, (z - t) e^-s."""
    log_scale = raw.clamp(-largest, largest)
    return (z - shift) * (-log_scale).exp(), -log_scale.sum(1)


class MaskedLinear(nn.Linear):
    """A linear layer with weights that are zero where its mask is: unless they are trained, it is a plain one.

    Args:
        layer: whose weights it takes over.
        mask: ones and zeros, `(outputs, inputs)`.
    """

    mask: Tensor

    def __init__(self, layer: nn.Linear, mask: Tensor) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.register_buffer("mask", mask.to(layer.weight.dtype))
        self.weight = nn.Parameter(layer.weight.detach() * self.mask)
        self.bias = nn.Parameter(layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        # while it is trained, the product keeps gradients from what is masked, and so zeros zero
        weight = self.weight * self.mask if torch.is_grad_enabled() else self.weight
        return nn.functional.linear(x, weight, self.bias)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        with torch.no_grad():
            self.weight.mul_(self.mask)  # of weights that nflows trained, too


class MaskedAffine(MaskedAffineAutoregressiveTransform):
    """nflows' masked affine autoregressive layer at a fraction of its cost: z_i = x_i exp(s_i(x_<i)) + t_i(x_<i).

    The two halves of the network's output are contiguous, the scale is a bounded exponential, whose logarithm is free,
    masks are in the weights, and so is the order of the features. Where there are fewer hidden units than features,
    every feature is seen by some all the same: nflows' units would see the first few alone.

    Args:
        features, hidden_features, options: see nflows.
        backwards: whether a feature depends on those after it instead.
    """

    def __init__(self, features: int, hidden_features: int, *, backwards: bool, **options: Any) -> None:
        super().__init__(features, hidden_features, **options)
        rank = torch.arange(features, 0, -1) if backwards else torch.arange(1, features + 1)
        unit = torch.arange(hidden_features)
        # a unit sees the features up to its own rank
        if hidden_features < features - 1:
            unit = (unit + 1) * (features - 1) // hidden_features
        else:
            unit = unit % max(1, features - 1) + min(1, features - 1)
        network, inner = self.autoregressive_net, unit[:, None] >= unit
        network.initial_layer = MaskedLinear(network.initial_layer, unit[:, None] >= rank)
        network.final_layer = MaskedLinear(network.final_layer, torch.cat([rank, rank])[:, None] > unit)
        for block in network.blocks:
            block.linear_layers = nn.ModuleList(MaskedLinear(layer, inner) for layer in block.linear_layers)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._elementwise_forward(inputs, self._numbers(inputs, context))

    def _numbers(self, x: Tensor, context: Tensor | None) -> Tensor:
        """nflows' masked residual network, with what can be done in place done there."""
        network = self.autoregressive_net
        h = network.initial_layer(x)
        if context is not None:
            h += network.context_layer(context).relu_()
        for block in network.blocks:
            first, second = block.linear_layers
            inner = first(h.relu())
            if context is not None:
                inner += block.context_layer(context)
            h += second(inner.relu_())
        return network.final_layer(h)

    def _elementwise_forward(self, inputs: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = exact(parameters).chunk(2, 1)
        return stretched(inputs, raw, shift)

    def _elementwise_inverse(self, inputs: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = exact(parameters).chunk(2, 1)
        return shrunk(inputs, raw, shift)


class AffineCoupling(AffineCouplingTransform):
    """nflows' affine coupling layer with a scale that can grow as well as shrink.

    Args:
        mask: what is transformed, `(D,)`.
        network: makes the layer's network of its numbers of inputs and outputs.
        largest: bound on the size of log-scales, which goes into checkpoints: those without one had 5.
    """

    bound: Tensor

    def __init__(self, mask: Tensor, network: Callable[[int, int], nn.Module], largest: float) -> None:
        super().__init__(mask, network)
        self.register_buffer("bound", torch.tensor(largest, dtype=torch.double))
        self.largest = largest  # the same, known without waiting for a device

    def _coupling_transform_forward(self, inputs: Tensor, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = exact(transform_params).chunk(2, 1)
        return stretched(inputs, raw, shift, self.largest)

    def _coupling_transform_inverse(self, inputs: Tensor, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = exact(transform_params).chunk(2, 1)
        return shrunk(inputs, raw, shift, self.largest)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}bound", torch.tensor(LARGEST_LOG_SCALE, dtype=torch.double))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.largest = float(self.bound)


class SplineCoupling(CouplingTransform):
    """A coupling layer of monotonic rational-quadratic splines.

    Args:
        mask: what is transformed, `(D,)`.
        network: makes the layer's network of its numbers of inputs and outputs.
        bins: K.
        bound: the splines bend between -bound and bound and are the identity beyond.
    """

    def __init__(self, mask: Tensor, network: Callable[[int, int], nn.Module], bins: int, bound: float) -> None:
        self.bins, self.bound = bins, bound
        super().__init__(mask, network)

    def _transform_dim_multiplier(self) -> int:
        return 3 * self.bins - 1

    def _bend(self, x: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        numbers = exact(raw).unflatten(1, (-1, 3 * self.bins - 1))
        y, log_slope = rational_quadratic_spline(
            x, *numbers.split([self.bins, self.bins, self.bins - 1], 2), bound=self.bound, inverse=inverse
        )
        return y, log_slope.sum(1)

    def _coupling_transform_forward(self, inputs: Tensor, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        return self._bend(inputs, transform_params, inverse=False)

    def _coupling_transform_inverse(self, inputs: Tensor, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        return self._bend(inputs, transform_params, inverse=True)
