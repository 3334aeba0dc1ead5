"""Rows in turns, and a graph of one turn.

Shapes: `B` rows.
"""

from typing import Any

import torch
from torch import Tensor


def one(module: Any, rows: Tensor, most: int) -> bool:
    """Whether rows are one turn, because they are put into a graph, which is told that it takes no more than `most`.

    A traced graph cannot be told: the module keeps the number as `turn`, the least if there are several.

    Args:
        module: that takes the rows.
        rows: `(B, ...)`.
        most: of them, at least one.
    """
    if torch.compiler.is_compiling():
        torch._check(rows.shape[0] <= max(1, most))
        return True
    if torch.jit.is_tracing():
        module.turn = min(max(1, most), vars(module).get("turn", most))
        return True
    return False


def taken(module: Any, rows: Tensor, most: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Rows along a dimension in parts of no more than `most`, at least one row each; all at once in a graph.

    Example:
        >>> [len(part) for part in taken(None, torch.zeros(5, 2), 2)]
        [2, 2, 1]
    """
    most = max(1, most)
    return (rows,) if one(module, rows.movedim(dim, 0), most) else rows.split(most, dim)
