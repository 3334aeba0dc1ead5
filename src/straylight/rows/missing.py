"""Values that are missing, NaN or infinite, filled in by what the training rows say.

`N` rows, `D` features.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from straylight.rows.batch import Events
from straylight.rows.mapped import Mapped

Missing = Literal["error", "median", "indicator", "skip"]
SAMPLE = 1_000_000  # training rows on disk that a median is taken over at most


def medians(train: Events) -> Tensor:
    """Each feature's median over the training rows that have it, `(*shape)`; NaN where none has.

    Of more than a million rows on disk, a million, evenly spaced, are looked at.
    """
    x = train.x
    if isinstance(x, Mapped):
        x = x.index_select(0, torch.arange(0, len(x), max(1, -(-len(x) // SAMPLE))))
    flat = x.flatten(1).numpy()
    found = np.full(flat.shape[1], np.nan, dtype=np.float32)
    for column in range(flat.shape[1]):
        values = flat[:, column]
        if len(there := values[np.isfinite(values)]):
            found[column] = np.median(there)
    return torch.from_numpy(found).view(x.shape[1:])


def lacking(train: Events, rows: int = 65536) -> Tensor:
    """Which features some training row lacks, `(*shape)` bool."""
    found = torch.zeros(train.x.shape[1:], dtype=torch.bool)
    if isinstance(train.x, Mapped) and train.x.finite:
        return found
    for chunk in train.x.split(rows):
        found |= ~chunk.isfinite().all(0)
    return found


def filling(values: Tensor, indicate: Tensor | None) -> Callable[[Tensor], Tensor]:
    """What fills rows of `(n, *shape)`: missing features get `values`.

    Args:
        values: `(*shape)`.
        indicate: features, `(D,)` bool, each of which gets another column at the end, 1 where it was missing.

    Example:
        >>> fill = filling(torch.tensor([5., 6.]), torch.tensor([True, False]))
        >>> fill(torch.tensor([[float("nan"), 2.]]))
        tensor([[5., 2., 1.]])
    """

    def fill(x: Tensor) -> Tensor:
        gone = ~x.isfinite()
        filled = torch.where(gone, values.to(x), x)
        return filled if indicate is None else torch.cat([filled, gone[:, indicate].float()], 1)

    return fill
