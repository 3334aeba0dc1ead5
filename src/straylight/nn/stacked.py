"""Like networks side by side: their weights are joined, and one product computes for all of them.

Shapes: `M` networks, `B` rows for each.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from straylight.nn.flows import MaskedLinear


class StackedLinear(nn.Module):
    """M linear layers at once: the rows of the first come first, then those of the second, and so on.

    All else in a network treats rows alike and need not know how many networks there are.

    Args:
        layers: of the same widths, plain or masked alike.

    Example:
        >>> one, two = nn.Linear(3, 2), nn.Linear(3, 2)
        >>> x, y = torch.rand(4, 3), torch.rand(4, 3)
        >>> both = StackedLinear([one, two])(torch.cat([x, y]))
        >>> torch.allclose(both, torch.cat([one(x), two(y)]))
        True
    """

    mask: Tensor | None

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = (
            None if layers[0].bias is None else nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))
        )
        self.register_buffer("mask", layers[0].mask if isinstance(layers[0], MaskedLinear) else None)

    def forward(self, x: Tensor) -> Tensor:
        """`(M * B, inputs)` to `(M * B, outputs)`."""
        rows = x.unflatten(0, (len(self.weight), -1))
        # without gradients, weights are zero where they are masked, see MaskedLinear
        plain = self.mask is None or not torch.is_grad_enabled()
        weight = (self.weight if plain else self.weight * cast(Tensor, self.mask)).transpose(1, 2)
        out = torch.bmm(rows, weight) if self.bias is None else torch.baddbmm(self.bias[:, None], rows, weight)
        return out.flatten(0, 1)


def stackable(network: nn.Module) -> bool:
    """Whether all parameters of a network are those of linear layers, and nothing in it keeps running statistics."""
    if any(isinstance(m, nn.modules.batchnorm._NormBase) for m in network.modules()):
        return False
    linear = [m for m in network.modules() if type(m) in (nn.Linear, MaskedLinear)]
    return bool(linear) and {id(p) for m in linear for p in m.parameters()} == {id(p) for p in network.parameters()}


def stack(networks: Sequence[nn.Module]) -> None:
    """Make the first of like networks compute for all of them, by putting `StackedLinear` in its linear layers' places.

    What else a network drew when it was made, such as permutations of features, is the first one's for all.

    Raises:
        ValueError: if a network has parameters elsewhere.
    """
    if not all(map(stackable, networks)):
        raise ValueError("only networks whose parameters are all in linear layers can be stacked")
    alike = [dict(network.named_modules()) for network in networks]
    for name, module in alike[0].items():
        if type(module) in (nn.Linear, MaskedLinear):
            path, _, last = name.rpartition(".")
            setattr(alike[0][path], last, StackedLinear([one[name] for one in alike]))
