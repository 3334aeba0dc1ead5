"""Where values would stand in sorted rows, also in a graph.

Shapes: `D` rows, `N` numbers in each, `B` values.
"""

import torch
from torch import Tensor


def places(ordered: Tensor, values: Tensor, *, right: bool = False, traced: bool = False) -> Tensor:
    """How many numbers of each row are less than a value, or with `right` no larger, `(D, N)` and `(D, B)` to `(D, B)`.

    NaN is larger than any number.

    Args:
        ordered: each row in increasing order.
        values: that are looked for.
        right: see above.
        traced: whether it is put into a graph: ONNX knows no such search, and it is done in log2(N) steps.

    Example:
        >>> row, asked = torch.tensor([[1., 2., 2., 5.]]), torch.tensor([[0., 2., 9.]])
        >>> places(row, asked).tolist(), places(row, asked, right=True, traced=True).tolist()
        ([[0, 1, 4]], [[0, 3, 4]])
    """
    if not traced:
        return torch.searchsorted(ordered, values, right=right)
    n = int(ordered.shape[1])
    step = 2 ** (n.bit_length() - 1)
    met = ordered[:, step - 1 : step]
    found = (~(met > values) if right else ~(met >= values)).long() * step
    while step := step // 2:
        further = found + step
        met = ordered.gather(1, further.clamp(max=n) - 1)
        beyond = ~(met > values) if right else ~(met >= values)
        found = found + (beyond & (further <= n)).long() * step
    return found
