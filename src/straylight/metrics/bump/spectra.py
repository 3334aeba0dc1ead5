"""The resonant variable in bins whose edges lie on the limits of the signal region.

`N` events, `B` bins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST = 2  # bins of a sideband


class Bins(NamedTuple):
    """Bins of a signal region and of its two sidebands.

    Attributes:
        edges: `(B + 1,)`, rising; among them both limits of the region.
        inside: whether a bin is of the region, `(B,)`.
    """

    edges: NDArray[np.float64]
    inside: NDArray[np.bool_]

    @classmethod
    def around(cls, region: tuple[float, float], span: tuple[float, float], sidebands: int) -> Bins:
        """Bins of about one width: each sideband is divided evenly, and so is the region.

        Args:
            region: its limits.
            span: of the whole spectrum, in which the region lies.
            sidebands: bins of both sidebands together; two at least in each.

        Raises:
            ValueError: if there is no sideband on one side, or a limit is not finite.

        Example:
            >>> bins = Bins.around((3.0, 4.0), (2.0, 6.0), sidebands=6)
            >>> bins.edges.tolist()
            [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0]
            >>> bins.inside.nonzero()[0].tolist()
            [2, 3]
        """
        (low, high), (first, last) = region, span
        if not np.isfinite([low, high, first, last]).all() or not low < high:
            raise ValueError(f"a signal region has two finite limits, the lower first, not {low:g} and {high:g}")
        for there, side, limit, end in ((first < low, "below", low, first), (high < last, "above", high, last)):
            if not there:
                raise ValueError(
                    f"there is no sideband {side} the signal region: it ends at {limit:g} and the data at {end:g}, and "
                    "a background is fitted on both sides"
                )
        below, above = low - first, last - high
        each = (below + above) / max(sidebands, 2 * LEAST)
        counts = [max(least, round(width / each)) for width, least in ((below, LEAST), (high - low, 1), (above, LEAST))]
        corners = (first, low, high, last)
        parts = [np.linspace(a, b, n + 1)[:-1] for a, b, n in zip(corners, corners[1:], counts, strict=False)]
        return cls(np.append(np.concatenate(parts), last), np.repeat([False, True, False], counts))


class Spectrum(NamedTuple):
    """How many events lie in each bin.

    Attributes:
        bins: the bins.
        counts: `(B,)`.
    """

    bins: Bins
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, m: ArrayLike, bins: Bins) -> Spectrum:
        """Events counted, `(N,)`: both limits belong to the region, and both ends to the spectrum.

        Edges are compared in the precision of `m`, as the region's own limits are. Events beyond the ends are left out.

        Raises:
            ValueError: if a value is NaN.

        Example:
            >>> Spectrum.of([2.0, 3.0, 4.0, 5.0], Bins.around((3.0, 4.0), (2.0, 5.0), sidebands=4)).counts.tolist()
            [1, 0, 1, 1, 0, 1]
        """
        values = np.asarray(m)
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        if bad := int(np.isnan(values).sum()):
            raise ValueError(f"{bad:,} of {len(values):,} values of the resonant variable are NaN")
        edges = bins.edges.astype(values.dtype)
        closed = [
            np.flatnonzero(bins.inside)[-1] + 1,
            len(edges) - 1,
        ]  # the upper limits, which belong to the bin below
        edges[closed] = np.nextafter(edges[closed], np.inf, dtype=edges.dtype)
        at = np.searchsorted(edges, values, "right") - 1
        at = at[(at >= 0) & (at < len(bins.inside))]
        return cls(bins, np.bincount(at, minlength=len(bins.inside)))

    @property
    def observed(self) -> int:
        """Events in the signal region."""
        return int(self.counts[self.bins.inside].sum())
