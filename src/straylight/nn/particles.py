"""Particles in the units a network likes: pT by what the training rows hold, eta and phi by the detector's range.

`B` events; `P` = 19 particles; `F` = 3 features, pT [GeV], eta, phi [rad].
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from straylight.nn.scaling import Method, Scaling, together

#: Slots and largest |eta|: MET, which has none, electrons, muons, jets.
RANGES = ((1, 1.0), (4, 3.0), (4, 2.1), (10, 4.0))
LEAST = 1e-3  # GeV below which log pT falls no further


class ParticleScaling(Scaling):
    """pT, or its logarithm, to mean 0 and variance 1 per particle; eta and phi over their range; padding to zero.

    A slot whose features are all zero is empty: it counts in no mean and stays all zero, so that an absent particle
    looks like an average one in the direction of the beam's normal. pT is standardised over the training rows that have
    the particle, in one pass in float64.

    References:
        E. Govorkova et al., Sci. Data 9 (2022) 118, arXiv:2107.02157, for the ranges: |eta| < 3 of electrons, 2.1 of
        muons, 4 of jets

    Args:
        shape: (57,), (19, 3), or (1, 19, 3).
        method: `particles`, pT as it is, or `particles_log`, its logarithm.

    Raises:
        ValueError: if the shape is not that of 19 particles of three features.

    Example:
        >>> scaling = ParticleScaling((19, 3), "particles")
        >>> rows = torch.zeros(2, 19, 3)
        >>> rows[:, 0, 0] = torch.tensor([10., 30.])  # the missing transverse energy, and no particle
        >>> scaling.fit([rows])(rows)[:, :2, 0]
        tensor([[-1.,  0.],
                [ 1.,  0.]])
    """

    def __init__(self, shape: tuple[int, ...], method: Method = "particles_log") -> None:
        particles = sum(slots for slots, _ in RANGES)
        if tuple(shape) not in ((particles * 3,), (particles, 3), (1, particles, 3)):
            raise ValueError(
                f"detector.scaling={method} is for {particles} particles of pT, eta and phi, of shape (57,), (19, 3) "
                f"or (1, 19, 3), not {tuple(shape)}"
            )
        super().__init__(shape, method)
        widths = torch.tensor([width for slots, width in RANGES for _ in range(slots)])
        factor = torch.stack([torch.ones(particles), 1 / widths, torch.full((particles,), 1 / math.pi)], 1)
        self.factor.copy_(factor.view(shape))

    def forward(self, x: Tensor) -> Tensor:
        particles = x.flatten(1).unflatten(1, (-1, 3))
        empty = (particles == 0).all(2, keepdim=True)
        shift, factor = self.shift.view(-1, 3), self.factor.view(-1, 3)
        return ((self._measured(particles) - shift) * factor).masked_fill(empty, 0).view(x.shape)

    def inverse(self, x: Tensor) -> Tensor:
        """Scaled events in GeV and rad again; a slot of zeros is empty."""
        particles = x.flatten(1).unflatten(1, (-1, 3))
        empty = (particles == 0).all(2, keepdim=True)
        measured = particles / self.factor.view(-1, 3) + self.shift.view(-1, 3)
        if self.method == "particles_log":
            measured = torch.cat([measured[..., :1].exp(), measured[..., 1:]], 2)
        return measured.masked_fill(empty, 0).view(x.shape)

    def log_determinant(self, x: Tensor) -> Tensor:
        """log |det| of the scaling's derivative at events in GeV and rad, `(B, *shape)` to `(B,)` float64.

        Raises:
            ValueError: if an event has an empty slot, or a pT so low that its logarithm is not taken.
        """
        particles = x.flatten(1).unflatten(1, (-1, 3))
        if empty := int((particles == 0).all(2).any(1).sum()):
            raise ValueError(
                f"{empty:,} of {len(x):,} events have an empty slot, which is a point rather than a place with a "
                f"density, so that scaling {self.method} gives events none in their own units"
            )
        found = super().log_determinant(x)
        if self.method == "particles":
            return found
        pt = particles[..., 0].double()
        if low := int((pt <= LEAST).any(1).sum()):
            raise ValueError(
                f"{low:,} of {len(x):,} events have a pT of {LEAST:g} GeV or less, below which scaling {self.method} "
                "does not tell one from another, so that they have no density in their own units"
            )
        return found - pt.log().sum(1)

    @torch.no_grad()
    def fit(self, chunks: Iterable[Tensor], *, dealt: bool = False) -> ParticleScaling:
        """As `Scaling.fit`."""
        count, mean, squares = (torch.zeros(self.shift.numel() // 3, dtype=torch.float64) for _ in range(3))
        rows = 0
        for chunk in chunks:
            particles = chunk.flatten(1).unflatten(1, (-1, 3)).to("cpu", torch.float64)
            there = (particles != 0).any(2)
            pt = self._measured(particles)[..., 0]
            n = there.sum(0)
            m = (pt * there).sum(0) / n.clamp(min=1)
            step = (m - mean) * (n > 0)
            squares += ((pt - m).square() * there).sum(0) + step**2 * (count * n / (count + n).clamp(min=1))
            mean += step * (n / (count + n).clamp(min=1))
            count += n
            rows += len(chunk)
        if dealt:
            count, mean, squares, _, _ = together(count, mean, squares, mean, mean)
        if not rows:
            raise ValueError("scaling cannot be fitted: there is no training row")
        width = (squares / count.clamp(min=1)).sqrt()
        flat = width <= torch.finfo(torch.float32).eps * mean.abs()
        self.shift.view(-1, 3)[:, 0] = mean.float()
        self.factor.view(-1, 3)[:, 0] = torch.where(flat, 1.0, 1 / torch.where(flat, 1.0, width)).float()
        self.fitted.fill_(True)
        return self

    def _measured(self, particles: Tensor) -> Tensor:
        if self.method == "particles":
            return particles
        return torch.cat([particles[..., :1].clamp(min=LEAST).log(), particles[..., 1:]], 2)


def scaling_of(shape: tuple[int, ...], method: Method) -> Scaling:
    """The scaling of this name.

    Raises:
        ValueError: if there is none, or it is not for events of this shape.

    Example:
        >>> scaling_of((2,), "minmax").bounded
        True
    """
    return (ParticleScaling if method in ("particles", "particles_log") else Scaling)(shape, method)
