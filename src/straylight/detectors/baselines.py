"""What any physicist would cut on first: numbers that every detector of particle events has to beat."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from straylight.detectors.fitted import FittedDetector
from straylight.detectors.parts import Parts
from straylight.rows.batch import Batch


class ParticleBaseline(FittedDetector):
    """The sum of pT [GeV] of an event's particles, or how many there are; nothing is learned.

    A slot is empty if its features are all zero. The first slot, the missing transverse energy, counts like the others.

    Args:
        shape: of P particles of pT, eta and phi: (P * 3,), (P, 3), or (1, P, 3).
        quantity: `sum_pt` or `multiplicity`.
        common: see `FittedDetector`; `scaling` is `none`, since pT counts in GeV.

    Raises:
        ValueError: if events cannot be particles of three features.

    Example:
        >>> ParticleBaseline((6,), quantity="multiplicity")(torch.tensor([[20., 0.1, 2., 0., 0., 0.]]))
        tensor([1.])
    """

    explained_by = "exact"

    def __init__(
        self, shape: tuple[int, ...], *, quantity: Literal["sum_pt", "multiplicity"] = "sum_pt", **common: Any
    ) -> None:
        super().__init__(shape, **{**common, "scaling": "none"})
        if self.reduce is not None:
            raise ValueError(f"{quantity} counts particles, of which the components of detector.reduce are none")
        if math.prod(shape) % 3 or (len(shape) > 1 and shape[-1] != 3):
            raise ValueError(
                f"{quantity} needs particles of pT, eta and phi, of shape (P * 3,) or (..., P, 3), not {tuple(shape)}"
            )
        self.quantity = quantity

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        particles = x.flatten(1).unflatten(1, (-1, 3))
        if self.quantity == "sum_pt":
            return particles[..., 0].sum(1)
        return (particles != 0).any(2).sum(1).to(torch.float32)

    def parts(self, x: Tensor, context: Tensor) -> Parts:
        particles = x.flatten(1).unflatten(1, (-1, 3))
        there = particles[..., 0] if self.quantity == "sum_pt" else (particles != 0).any(2).to(x.dtype)
        return Parts(torch.nn.functional.pad(there[..., None], (0, 2)).view(x.shape), 0.0, "empty")

    def update(self, batch: Batch) -> None:
        """Nothing is learned."""

    def finish(self) -> None:
        """Nothing is learned."""
