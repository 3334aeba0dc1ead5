"""Which rows are in the signal region of a resonance, and which train where; and what is wrong if none are.

`N` rows, `D` features, `C` columns of context.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight.errors import DataError
from straylight.rows.mapped import Mapped
from straylight.rows.resonance import Resonance

#: Where training and validation rows are from.
Region = Literal["signal", "sidebands", "both"]

STEPS = 1000  # of single precision that a signal region must have
LOOKED_AT = 65536  # rows in which a feature is compared with the resonance
FEW = 20  # rows of which nothing is said


def inside(context: Tensor, resonance: Resonance, region: Region, source: str) -> NDArray[np.bool_]:
    """Which rows are in the signal region, `(N, C)` to `(N,)`, once it is certain that such rows are there.

    Args:
        context: with the resonant variable, in the units of the signal region.
        resonance: the variable and its signal region.
        region: where rows are wanted from; if not `signal`, there must be sidebands.
        source: what the rows are of, for errors.

    Raises:
        DataError: if the variable is constant, the region lies outside the data, holds no row, or all of them, or is
            too narrow for single precision.

    Example:
        >>> inside(torch.tensor([[3.0], [3.5], [4.0]]), Resonance("m", 0, 3.3, 3.7), "both", "mine").tolist()
        [False, True, False]
    """
    m, low, high = resonance.of(context), resonance.low, resonance.high
    asked = f"data.signal_region={limits(resonance)}"
    if not len(m):
        raise DataError(f"{source} has no rows.")
    least, most = float(m.min()), float(m.max())
    if least == most:
        raise DataError(f"{source}: {resonance.name} is {least:g} in every row, and a resonance must vary.")
    if most < low or least > high:
        raise DataError(f"{source}: {asked} lies outside the data, whose {resonance.name} is {least:g} to {most:g}.")
    step = float(np.spacing(np.float32(max(abs(low), abs(high)))))
    if high - low < STEPS * step:
        raise DataError(
            f"{source}: {asked} is too narrow for single precision, which takes {resonance.name} there in steps of "
            f"{step:g}; take an offset out of the column first."
        )
    found = resonance.holds(context).numpy()
    if not found.any():
        raise DataError(f"{source}: none of {len(m):,} rows has {resonance.name} within {asked}; widen it.")
    if region != "signal" and found.all():
        raise DataError(
            f"{source}: data.region={region} needs sidebands, and all {len(m):,} rows have {resonance.name} within "
            f"{asked}; narrow it, or set data.region=signal."
        )
    return found


def chosen(inside: NDArray[np.bool_], region: Region) -> NDArray:
    """Positions of the rows that are where a region wants them, from whether each is in the signal region, `(N,)`.

    Example:
        >>> chosen(np.array([True, False, True]), "sidebands").tolist()
        [1]
    """
    return np.flatnonzero({"signal": inside, "sidebands": ~inside, "both": np.ones_like(inside)}[region])


def limits(resonance: Resonance) -> str:
    """The signal region as it is written on a command line."""
    return f"[{resonance.low:g},{resonance.high:g}]"


def refuse_copies(names: Sequence[str], x: Tensor | Mapped, context: Tensor, resonance: Resonance) -> None:
    """See that no feature rises or falls with the resonance in every row, as the variable in other words does.

    A classifier of the signal region against sidebands would learn nothing else.

    Args:
        names: of the features, `(D,)`.
        x: events, `(N, *shape)`; only those of one axis are looked at, in 65,536 rows from all over at most.
        context, resonance: see `inside`.

    Raises:
        DataError: if one does.
    """
    rows = torch.arange(0, len(context), max(1, -(-len(context) // LOOKED_AT)))
    if x.ndim != 2 or len(rows) < FEW:
        return
    m, seen = resonance.of(context)[rows].numpy(), x.index_select(0, rows).numpy()
    for i, name in enumerate(names):
        for way in (1, -1):
            along = seen[np.lexsort((way * seen[:, i], m)), i]
            steps = way * np.diff(along)
            if (steps >= 0).all() and (steps > 0).sum() > 1:
                raise DataError(
                    f"feature {name!r} {'rises' if way > 0 else 'falls'} with {resonance.name!r}, the resonance, in "
                    "every row, so that a classifier would see the signal region itself; leave it out of data.features."
                )
