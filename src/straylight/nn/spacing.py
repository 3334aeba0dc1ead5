"""How far apart neighbouring rows are, by which kernels are given their width.

Shapes: `N` rows, `D` features.
"""

import torch
from torch import Tensor

from straylight.nn.neighbours import Neighbours

FIFTH = 5
ASKED = 2000  # rows whose neighbours are sought among all


def spacing(rows: Tensor, *, seed: int = 0, budget_mb: float = 64) -> float:
    """The median distance of a row from its fifth neighbour, of up to 2000 rows drawn by seed, `(N, D)`; 0 where most
    have five others that equal them, or there are no five others.

    Example:
        >>> spacing(torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]]))
        4.0
    """
    if len(rows) <= FIFTH:
        return 0.0
    neighbours = Neighbours(rows.shape[1], budget_mb=budget_mb).to(rows.device).fit(rows)
    if len(rows) > ASKED:
        drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:ASKED]
        rows = rows.index_select(0, drawn.to(rows.device))
    return float(neighbours(rows, FIFTH + 1)[:, -1].median())  # the first is the row itself
