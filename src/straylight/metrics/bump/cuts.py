"""Cuts of several efficiencies on events that models have scored without having seen them.

`N` events, `B` bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from straylight.metrics.bump.hunting import BINS, hunt
from straylight.metrics.bump.sculpting import sculpting
from straylight.metrics.bump.spectra import Bins, Spectrum

Limits = tuple[float, float]


class Cuts(NamedTuple):
    """Events to be cut on, `(N,)` each.

    Attributes:
        m: the resonant variable.
        place: the fraction of its fold that is as strange as an event or stranger, see `places`.
        background: whether an event is background, or nobody knows.

    Example:
        >>> m = np.linspace(3, 4.5, 3000)
        >>> cuts = Cuts(m, np.random.default_rng(0).random(3000), np.ones(3000, bool))
        >>> [(cut["efficiency"], cut["kept"]) for cut in cuts.hunted((3.3, 3.7), [0.5])]
        [(1.0, 3000), (0.5, 1526)]
    """

    m: NDArray[Any]
    place: NDArray[np.float64]
    background: NDArray[np.bool_]

    @property
    def span(self) -> Limits:
        """Of the spectrum before any cut."""
        return float(self.m.min()), float(self.m.max())

    def hunted(
        self,
        region: Limits,
        efficiencies: Sequence[float],
        *,
        function: str = "ftest",
        bins: int = BINS,
        width: float = 1.0,
    ) -> list[dict[str, Any]]:
        """A hunt before any cut and after each, as plain values; where none could be done, `failed` says why.

        Args:
            region: the limits of the signal region.
            efficiencies: fractions of events that cuts keep.
            function, bins: see `hunt`.
            width: of significances after a cut; before it they are as wide as they should be.
        """
        return [self._hunted(region, e, function, bins, 1.0 if e == 1 else width) for e in (1.0, *efficiencies)]

    def _hunted(self, region: Limits, efficiency: float, function: str, bins: int, width: float) -> dict[str, Any]:
        kept = self.m if efficiency == 1 else self.m[self.place < efficiency]
        entry = {"efficiency": efficiency, "kept": len(kept)}
        if not len(kept):
            return entry | {"failed": "No event is left."}
        try:
            return entry | hunt(kept, region, self.span, function=function, bins=bins, width=width).entry()
        except ValueError as error:
            said = str(error)
            return entry | {"failed": f"{said[0].upper()}{said[1:]}."}

    def sculpted(self, region: Limits, efficiencies: Sequence[float], bins: int = BINS) -> list[dict[str, Any]]:
        """What each cut does to the background, as plain values, the spectra included; cuts that leave none are not."""
        m, place = self.m[self.background], self.place[self.background]
        if not len(m):
            return []
        try:
            edges = Bins.around(region, self.span, bins).edges
        except ValueError:  # where there is no sideband on one side
            edges = np.linspace(*self.span, bins + 1)
        even = Bins(edges, np.arange(len(edges) - 1) == 0)
        before, entries = Spectrum.of(m, even).counts, []
        for efficiency in efficiencies:
            after = Spectrum.of(m[place < efficiency], even).counts
            if after.any():
                shown = {"edges": edges.tolist(), "before": before.tolist(), "after": after.tolist()}
                entries.append({"efficiency": efficiency, **sculpting(before, after).entry(), **shown})
        return entries
