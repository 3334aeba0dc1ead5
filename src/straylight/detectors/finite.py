"""Scores that are numbers, however absurd a row is.

Shapes: `B` events, `*shape` one event, `M` members of an ensemble.
"""

import math

import torch
from torch import Tensor

from straylight.nn import Scaling

#: From where on a feature is absurd: in units of training rows; where scaling is not affine, in its own, the squares of
#: which float32 no longer holds.
ABSURD, ABSURD_UNSCALED = 1e6, 1e18


def absurd(x: Tensor, scaled: Tensor, scaling: Scaling, context: Tensor | None = None) -> Tensor:
    """Which rows have a feature beyond all reason, or a context; NaN is none.

    Args:
        x, scaled: events as they are and scaled, `(B, *shape)` each.
        scaling: that scaled them.
        context: `(B, C)`, which is not scaled.

    Example:
        >>> x = torch.tensor([[1.0, 2.0], [1e30, 0.0]])
        >>> absurd(x, x, Scaling((2,), "none")).tolist()
        [False, True]
    """
    affine = scaling.method in ("standard", "minmax", "standard_common", "minmax_common")
    rows, limit = (scaled, ABSURD) if affine else (x, ABSURD_UNSCALED)
    strange = rows.flatten(1).abs().amax(1) > limit
    if context is None or not context.shape[1]:
        return strange
    return strange | (context.abs().amax(1) > ABSURD_UNSCALED)


def sound(score: Tensor) -> bool:
    """Whether it is known, without waiting for a GPU, that all scores are finite; a sum tells at no cost.

    Example:
        >>> sound(torch.ones(3)), sound(torch.tensor([1.0, torch.inf]))
        (True, False)
    """
    return score.device.type == "cpu" and math.isfinite(score.detach().sum().item())


def finite(score: Tensor, strange: Tensor) -> Tensor:
    """Scores, `(B,)` or `(B, M)`, none infinite: that of an absurd row which overflows, to NaN too, is the largest.

    What squares, exponentials and differences of infinities make of an absurd row says nothing but that it is strange.
    NaN of any other row stays, for it is a fault.

    Args:
        score: as computed.
        strange: which rows are absurd, `(B,)`.

    Example:
        >>> finite(torch.tensor([1.0, torch.nan, torch.nan]), torch.tensor([False, True, False])).tolist()
        [1.0, 3.4028234663852886e+38, nan]
    """
    largest = min(torch.finfo(score.dtype).max, torch.finfo(torch.float32).max)
    told = torch.nan_to_num(score, nan=largest, posinf=largest, neginf=largest)
    return torch.where(strange.view(-1, *[1] * (score.ndim - 1)), told, score).clamp(-largest, largest)
