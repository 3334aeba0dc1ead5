"""From the data's own units to those a network likes, fitted on the training rows in one pass.

Shapes: `B` events, `*shape` one event.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from straylight import checks

Method = Literal[
    "standard",
    "minmax",
    "standard_common",
    "minmax_common",
    "unit",
    "gcn_l1",
    "gcn_l2",
    "particles",
    "particles_log",
    "none",
]

#: What scalings of each event by itself forget of it.
FORGOTTEN = {"unit": "the norm", "gcn_l1": "the mean and the contrast", "gcn_l2": "the mean and the contrast"}


class Scaling(nn.Module):
    """An affine map per feature, `(x - shift) * factor`, whose two buffers travel in the checkpoint.

    * `standard`: mean 0 and variance 1. `minmax`: the training rows span 0 to 1.
    * `standard_common`, `minmax_common`: the same by one shift and one factor for all features, which keeps the
      relative size of pixels.
    * `unit`: each event divided by its L2 norm, and then `minmax_common`. How bright an image is no longer tells it
      from others; where that is what is strange, it is lost.
    * `gcn_l1`, `gcn_l2`: global contrast normalization, each event less its mean and divided by the L1 or the L2 norm
      of what is left, and then `minmax_common` (`gcn_l1`: L. Ruff et al., ICML 2018, PMLR 80:4393).
    * `none`: the identity.
    * `particles`, `particles_log`: those of `straylight.nn.ParticleScaling`; `scaling_of` builds whichever is named.

    An event without a norm or without contrast becomes zeros before `minmax_common`.

    Sums are kept in float64 and merged chunk by chunk (T. F. Chan, G. H. Golub, R. J. LeVeque, Algorithms for
    computing the sample variance, Am. Stat. 37 (1983) 242, doi:10.1080/00031305.1983.10483115), so that data larger
    than memory, or far from the origin, are scaled exactly. A constant feature is shifted to zero and not stretched.

    Of the pixels of an image `standard` stretches none by more than the root mean square of their standard deviations
    asks for: one that is nearly always the same would outweigh all others as soon as it is not.

    Args:
        shape: the shape of one event.
        method: see above.

    Raises:
        ValueError: if the method is unknown, or `fit` is given no rows.

    Example:
        >>> scaling = Scaling((1,), "minmax").fit([torch.tensor([[2.], [4.]])])
        >>> scaling(torch.tensor([[3.]]))
        tensor([[0.5000]])
    """

    shift: Tensor
    factor: Tensor
    fitted: Tensor

    def __init__(self, shape: tuple[int, ...], method: Method = "standard") -> None:
        super().__init__()
        checks.one_of("detector", Method, scaling=method)
        self.method = method
        self.register_buffer("shift", torch.zeros(shape))
        self.register_buffer("factor", torch.ones(shape))
        self.register_buffer("fitted", torch.tensor(method == "none"))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, *shape)` to `(B, *shape)`."""
        if self.method == "none":
            return x
        return (normalized(x, self.method) - self.shift) * self.factor

    @property
    def bounded(self) -> bool:
        """Whether training rows lie between 0 and 1."""
        return self.method in ("minmax", "minmax_common") or self.forgets is not None

    @property
    def identity(self) -> bool:
        """Whether it leaves events as they are."""
        return self.method == "none"

    @property
    def featurewise(self) -> Scaling:
        """As much of it as makes of each number of an event one number."""
        return self

    def onward(self, scaled: Tensor) -> Tensor:
        """From what `featurewise` makes to what a detector scores."""
        return scaled

    @property
    def forgets(self) -> str | None:
        """What it forgets of each event, such as `the norm`; `None` of one that has an inverse."""
        return FORGOTTEN.get(self.method)

    def inverse(self, x: Tensor) -> Tensor:
        """Scaled events in the data's own units again.

        Raises:
            ValueError: for `unit`, `gcn_l1` and `gcn_l2`, which forget each event's norm, or its mean and contrast.
        """
        if self.forgets:
            raise ValueError(f"scaling {self.method} has no inverse: it forgets {self.forgets} of each event")
        return x if self.method == "none" else x / self.factor + self.shift

    def log_determinant(self, x: Tensor) -> Tensor:
        """log |det| of the scaling's derivative at events in the data's own units, `(B, *shape)` to `(B,)` float64.

        Added to the log-density of scaled events it gives that of the events themselves.

        Raises:
            ValueError: for `unit`, `gcn_l1` and `gcn_l2`, which put many events onto one.
        """
        if self.forgets:
            raise ValueError(
                f"scaling {self.method} forgets {self.forgets} of each event, so that a density of scaled events is "
                "none of the events themselves"
            )
        return self.factor.double().abs().log().sum().expand(len(x))

    def forget(self) -> None:
        """Be fitted anew by the next training."""
        self.fitted.fill_(self.identity)

    @torch.no_grad()
    def fit(self, chunks: Iterable[Tensor], *, dealt: bool = False) -> Scaling:
        """Fit to training rows that come in chunks of `(n, *shape)`; if each rank has its own, to those of all ranks.

        Every rank must have some then, and all end with the same numbers.
        """
        if self.method == "none":
            return self
        common = self.method.endswith("_common") or self.forgets is not None
        count, mean, squares = 0, torch.zeros(()), torch.zeros(())
        low, high = torch.tensor(math.inf), torch.tensor(-math.inf)
        for chunk in chunks:
            x = chunk.flatten(1).to("cpu", torch.float64)
            if not len(x):
                continue
            x = normalized(x, self.method)
            x = x.reshape(-1, 1) if common else x
            n, m = len(x), x.mean(0)
            step = m - mean
            squares = squares + ((x - m) ** 2).sum(0) + step**2 * (count * n / (count + n))
            mean = mean + step * (n / (count + n))
            low, high = torch.minimum(low, x.amin(0)), torch.maximum(high, x.amax(0))
            count += n
        if dealt:
            all_rows, mean, squares, low, high = together(count, mean, squares, low, high)
            count = int(all_rows.max())
        if not count:
            raise ValueError("scaling cannot be fitted: there is no training row")
        if self.method.startswith("standard"):
            shift, width = mean, (squares / count).sqrt()
        else:
            shift, width = low, high - low
        # a range below float32's resolution of the values themselves is rounding, not information
        flat = (high - low) <= torch.finfo(torch.float32).eps * torch.maximum(low.abs(), high.abs())
        if self.method == "standard" and pixels(self.shift.shape):
            width = torch.where(flat, 0.0, width)
            width, flat = width.clamp_min(width.square().mean().sqrt()), flat & flat.all()
        factor = torch.where(flat, 1.0, 1 / torch.where(flat, 1.0, width))
        self.shift.copy_(shift.expand(self.shift.numel()).reshape(self.shift.shape))
        self.factor.copy_(factor.expand(self.factor.numel()).reshape(self.factor.shape))
        self.fitted.fill_(True)
        return self


def together(count: Any, mean: Tensor, squares: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, ...]:
    """Counts, means, squares about these, and least and largest values of the rows of all ranks from those of this
    one's, `(D,)` each."""
    if not (dist.is_available() and dist.is_initialized()):
        return torch.as_tensor(count), mean, squares, low, high
    own = torch.stack([torch.as_tensor(count).expand_as(mean).to(mean), mean, squares, low, high])
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    parts = [torch.empty_like(own, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own.to(device))
    counts, means, summed, lows, highs = torch.stack(parts).cpu().unbind(1)
    total = counts.sum(0)
    joined = (means * counts).sum(0) / total.clamp(min=1)
    return total, joined, (summed + counts * (means - joined) ** 2).sum(0), lows.amin(0), highs.amax(0)


def pixels(shape: tuple[int, ...]) -> bool:
    """Whether numbers of this shape are an image's, in one unit: those of particles, `(1, P, 3)`, are not."""
    return len(shape) == 3 and min(shape[1:]) > 3


def normalized(x: Tensor, method: str) -> Tensor:
    """Each event by itself as a method wants it, `(B, *shape)` to the same; zeros where nothing is left of it.

    `unit`: over its L2 norm. `gcn_l1`: less its mean, over its mean absolute deviation. `gcn_l2`: less its mean, over
    the L2 norm of what is left. Any other: as it is.

    Example:
        >>> normalized(torch.tensor([[3., 4.], [0., 0.]]), "unit")
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
        >>> normalized(torch.tensor([[1., 3.], [2., 2.]]), "gcn_l1")
        tensor([[-1.,  1.],
                [ 0.,  0.]])
    """
    if method not in FORGOTTEN:
        return x
    axes = tuple(range(1, x.ndim))
    largest = x.abs().amax(axes, keepdim=True)
    if method == "unit":
        return _unit(x, largest, largest == 0)
    centred = x - x.mean(axes, keepdim=True)
    # a deviation below float32's resolution of the values themselves is rounding, not contrast
    least = 4 * torch.finfo(torch.float32).eps * largest
    deviation = centred.abs().mean(axes, keepdim=True)
    flat = deviation <= least
    if method == "gcn_l2":
        return _unit(centred, centred.abs().amax(axes, keepdim=True), flat)
    return torch.where(flat, 0, centred / torch.where(flat, 1, deviation))


def _unit(x: Tensor, largest: Tensor, none: Tensor) -> Tensor:
    """Events over their L2 norm, zeros where there is `none`; by their `largest` first, whose square may overflow."""
    x = torch.where(none, 0, x / torch.where(none, 1, largest))
    norm = x.square().sum(tuple(range(1, x.ndim)), keepdim=True).sqrt()
    return x / torch.where(none, 1, norm)
