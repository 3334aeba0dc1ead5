"""Rows on disk in as many stretches as there are ranks, each of which reads its own alone.

`N` rows of a split, `R` ranks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from straylight.rows.mapped import Mapped

UNEVEN = 16  # of a rank's share, one of so many rows more or fewer are taken so that no file is cut


class Stretches:
    """Which rows of a split are which rank's: neighbours in the files, equally many for each.

    A stretch ends where a file does if that moves its end by no more than a sixteenth of a rank's share; otherwise two
    ranks map the file in which it ends, each for its own rows.

    Args:
        x: the rows of the split.
        ranks: how many ranks there are.
        least: rows that each of them has at least.

    Example:
        >>> import torch
        >>> x = Mapped([torch.zeros(33, 1), torch.zeros(31, 1)]).take(range(64))
        >>> Stretches(x, 2).sizes, Stretches(x, 4).sizes
        ([33, 31], [16, 17, 15, 16])
    """

    def __init__(self, x: Mapped, ranks: int, least: int = 1) -> None:
        n = len(x)
        places = x.rows
        self._order: NDArray | None = None
        if places is not None and not bool((places[1:] >= places[:-1]).all()):
            self._order = np.argsort(places, kind="stable").astype(np.int32 if n < 2**31 else np.int64)
            places = places[self._order]
        ends = x.starts if places is None else np.searchsorted(places, x.starts)
        even = [rank * n // ranks for rank in range(ranks + 1)]
        cuts = [0, *(self._near(cut, ends, n / ranks / UNEVEN) for cut in even[1:-1]), n]
        self._cuts = cuts if min(np.diff(cuts), default=0) >= least else even
        #: Rows of each rank.
        self.sizes: list[int] = np.diff(self._cuts).tolist()

    def rows(self, rank: int, order: NDArray) -> NDArray[np.int64]:
        """Positions in the split of some rows of a rank's, which are numbered as they lie in the files."""
        own = order + self._cuts[rank]
        return own.astype(np.int64) if self._order is None else self._order[own].astype(np.int64)

    @staticmethod
    def _near(cut: int, ends: NDArray, most: float) -> int:
        nearest = int(ends[np.abs(ends - cut).argmin()])
        return nearest if abs(nearest - cut) <= most else cut
