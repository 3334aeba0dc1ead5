"""A variable in which a signal is narrow, and where it is looked for.

Shapes: `B` events, `C` context columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from straylight.errors import DataError
from straylight.rows.batch import Events


@dataclass(frozen=True)
class Resonance:
    """A resonant variable, a column of the context, and its signal region; the sidebands are the rest.

    Attributes:
        name: of the variable, such as `mjj [TeV]`.
        column: of the context that holds it.
        low, high: the limits of the signal region, both within.

    Raises:
        DataError: if the limits are none.

    Example:
        >>> Resonance("m", 0, 3.3, 3.7).holds(torch.tensor([[3.0], [3.5]])).tolist()
        [False, True]
    """

    name: str
    column: int
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise DataError(
                f"data.signal_region must be two numbers, the lower first, as [3.3,3.7], not [{self.low},{self.high}]."
            )

    @classmethod
    def within(cls, region: Sequence[float], name: str, column: int = 0) -> Self:
        """That of a region as a config has it.

        Raises:
            DataError: if it is no pair of numbers.
        """
        try:
            low, high = map(float, region)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"data.signal_region must be two numbers, the lower first, as [3.3,3.7], not {region}."
            ) from error
        return cls(name, column, low, high)

    def of(self, context: Tensor) -> Tensor:
        """The resonant variable, `(B, C)` to `(B,)`."""
        return context[:, self.column]

    def holds(self, context: Tensor) -> Tensor:
        """Whether an event is in the signal region, `(B, C)` to `(B,)`; in the precision of the context."""
        m = self.of(context)
        low, high = torch.tensor([self.low, self.high], dtype=m.dtype, device=m.device)
        return (m >= low) & (m <= high)


class Truth(NamedTuple):
    """What nobody has in real data: events of the signal region that no training row is.

    Attributes:
        background: without signal, in law as that of the training rows.
        signal: nothing else.
    """

    background: Events
    signal: Events
