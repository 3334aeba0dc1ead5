"""Rows that stand in two splits, found by their hashes.

`N` rows.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def row_hashes(chunks: Iterable[Tensor]) -> NDArray[np.uint64]:
    """64 bits for each row, equal for rows of equal numbers (0 and -0 are), in chunks of `(n, *shape)` to `(N,)`.

    Each feature's bits are mixed and multiplied by a random odd number of its own, and the products are added: that two
    different rows share a hash has a probability near 2^-64, so that among a million rows none do.

    References:
        D. Lemire, O. Kaser, Strongly universal string hashing is fast, Comput. J. 57 (2014) 1624, arXiv:1202.4961

    Example:
        >>> import torch
        >>> a, b, c = row_hashes([torch.tensor([[1., 0.], [1., -0.]]), torch.tensor([[0., 1.]])])
        >>> a == b, a == c
        (np.True_, np.False_)
    """
    hashes = []
    for chunk in chunks:
        rows = np.ascontiguousarray(chunk.flatten(1).cpu().numpy().astype(np.float32) + np.float32(0))
        bits = rows.view(np.uint32).astype(np.uint64)
        bits *= np.uint64(0x9E3779B97F4A7C15)
        bits ^= bits >> np.uint64(32)
        keys = np.random.default_rng(bits.shape[1]).integers(0, 2**63, bits.shape[1], dtype=np.uint64)
        total = bits @ (keys * np.uint64(2) + np.uint64(1))
        hashes.append(total ^ (total >> np.uint64(29)))
    return np.concatenate(hashes) if hashes else np.empty(0, np.uint64)


def found_in(rows: Iterable[Tensor], others: Iterable[Tensor]) -> NDArray[np.bool_]:
    """Which rows stand among others too, in chunks of `(n, *shape)` each, to `(N,)`.

    Example:
        >>> import torch
        >>> found_in([torch.tensor([[1.], [2.]])], [torch.tensor([[2.], [3.]])]).tolist()
        [False, True]
    """
    return np.isin(row_hashes(rows), np.unique(row_hashes(others)))
