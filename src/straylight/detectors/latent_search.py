"""Searching, for each event of a batch at once, the latent from which a frozen generator comes closest to it.

Shapes: `B` events, `K` starts, `Z` latent dimensions.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def latent_search(
    distance: Callable[[Tensor], Tensor], starts: Tensor, events: int, *, steps: int, lr: float, bound: float = math.inf
) -> tuple[Tensor, Tensor]:
    """Descend from every start for every event by Adam, and keep the nearest latent that any of them came by.

    The distances are summed before they are differentiated, so that each event has the gradient that it would have
    alone; Adam moves every number by its own history. No event sees another.

    References:
        T. Schlegl et al., Unsupervised anomaly detection with generative adversarial networks to guide marker
        discovery, IPMI 2017, arXiv:1703.05921
        D. P. Kingma, J. Ba, Adam: a method for stochastic optimization, ICLR 2015, arXiv:1412.6980

    Args:
        distance: of latents `(K, B, Z)` to `(K, B)`, to be minimised; its networks need not be frozen.
        starts: `(K, Z)`, shared by all events.
        events: B.
        steps: of Adam.
        lr: of Adam.
        bound: latents stay between -bound and bound, where a generator trained on those alone knows what to make.

    Returns:
        the nearest latents `(B, Z)` and their distances `(B,)`.

    Example:
        >>> goal = torch.tensor([[1., 2.], [-3., 0.]])
        >>> z, d = latent_search(lambda z: (z - goal).square().sum(2), torch.zeros(1, 2), 2, steps=500, lr=0.1)
        >>> bool((z - goal).abs().max() < 1e-3), d.shape
        (True, torch.Size([2]))
    """
    with torch.inference_mode(False), torch.enable_grad():
        z = starts[:, None].expand(-1, events, -1).clone()
        mean, square = torch.zeros_like(z), torch.zeros_like(z)
        nearest, where = torch.full(z.shape[:2], math.inf, dtype=z.dtype, device=z.device), z
        for step in range(1, steps + 1):
            z.requires_grad_(True)
            reached = distance(z)
            (gradient,) = torch.autograd.grad(reached.sum(), z)
            z, reached = z.detach(), reached.detach()
            where = torch.where((reached < nearest)[..., None], z, where)
            nearest = torch.minimum(nearest, reached)
            mean.lerp_(gradient, 0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            below = square.sqrt().div_(math.sqrt(1 - 0.999**step)).add_(1e-8)
            z = z.addcdiv(mean, below, value=-lr / (1 - 0.9**step)).clamp_(-bound, bound)
    with torch.no_grad():
        reached = distance(z)
        where = torch.where((reached < nearest)[..., None], z, where)
        nearest = torch.minimum(nearest, reached)
    best, rows = nearest.argmin(0), torch.arange(events, device=z.device)
    return where[best, rows], nearest[best, rows]
