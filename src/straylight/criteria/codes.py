"""How much of a latent space is used.

`n` rows, `Z` numbers in a code, `D` numbers in a row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

ACTIVE = 0.01  # variance above which a code of a standard normal law is active
STILL = 1e-6  # of any other law, as a share of the mean square of all codes
DEAD = 1e-3  # share of the variance of rows that reconstructions which follow nothing have, at most


class Codes(NamedTuple):
    """What codes of rows say.

    Attributes:
        dimension: the effective dimension, from 0, where no code varies, to Z.
        active: how many of the Z vary from row to row.
        of: Z.
    """

    dimension: float
    active: int
    of: int


def codes(z: ArrayLike, normal: bool = False) -> Codes:
    """The effective dimension of codes, and how many of them vary.

    The dimension is the participation ratio of the eigenvalues l of the codes' covariance, (sum l)^2 / sum l^2.

    References:
        Y. Burda, R. Grosse, R. Salakhutdinov, Importance weighted autoencoders, ICLR 2016, arXiv:1509.00519 (of
        active units)

    Args:
        z: `(n, Z)`.
        normal: whether the codes are to follow a standard normal law, so that 0.01 is little variance; otherwise it is
            a millionth of the mean square of all codes.

    Raises:
        ValueError: if there are fewer than two rows, or a code is not finite.

    Example:
        >>> found = codes([[1.0, 0.0, 5.0], [-1.0, 0.0, 5.0], [0.0, 1.0, 5.0], [0.0, -1.0, 5.0]])
        >>> round(found.dimension, 6), found.active
        (2.0, 2)
    """
    values = np.asarray(z, np.float64)
    if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"finite codes of two rows or more are looked at, not of shape {values.shape}")
    variance = values.var(0)
    least = ACTIVE if normal else STILL * float((values**2).mean())
    active = int((variance > least).sum())
    centred = values - values.mean(0)
    covariance = centred.T @ centred if values.shape[1] <= len(values) else centred @ centred.T  # of equal eigenvalues
    squares = float((covariance**2).sum())
    return Codes(float(np.trace(covariance)) ** 2 / squares if active and squares else 0.0, active, values.shape[1])


def dead(rebuilt: ArrayLike, rows: ArrayLike) -> bool:
    """Whether all rows are rebuilt alike, whatever they are.

    Args:
        rebuilt, rows: `(n, D)` each, scaled.

    Example:
        >>> dead([[0.5], [0.5]], [[0.0], [1.0]])
        True
    """
    follows, moves = (np.asarray(values, np.float64).var(0).sum() for values in (rebuilt, rows))
    return bool(moves > 0 and follows < DEAD * moves)
