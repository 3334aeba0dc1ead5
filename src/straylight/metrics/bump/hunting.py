"""The hunt: bin, fit beside the region, compare within it.

`N` events, `B` bins.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from straylight.metrics.bump.counting import Excess, excess
from straylight.metrics.bump.fitting import LEVEL, Fit, chosen, fit
from straylight.metrics.bump.shapes import NESTED, SHAPES
from straylight.metrics.bump.spectra import Bins, Spectrum

#: What may be asked for: a function, or an F-test among nested ones.
FUNCTIONS = (*SHAPES, *NESTED)
BINS = 40  # of both sidebands
ROOMY = 5  # events that a bin should hold on average
FEWEST = 10  # bins of both sidebands


class Hunt(NamedTuple):
    """What was found.

    Attributes:
        spectrum: the counts.
        fit: of the sidebands.
        observed: events in the region.
        excess: of them over the fit.
    """

    spectrum: Spectrum
    fit: Fit
    observed: int
    excess: Excess

    def entry(self) -> dict[str, Any]:
        """The same in plain values, for a record."""
        return {
            "observed": self.observed,
            "expected": self.fit.background,
            "uncertainty": self.fit.uncertainty,
            "p": self.excess.p,
            "log_p": self.excess.log_p,
            "z": self.excess.z,
            "function": self.fit.function,
            "chi2": self.fit.chi2,
            "dof": self.fit.dof,
            "edges": self.spectrum.bins.edges.tolist(),
            "counts": self.spectrum.counts.tolist(),
            "fit": self.fit.expected.tolist(),
            "fit_error": self.fit.error.tolist(),
        }


def hunt(
    m: ArrayLike,
    region: tuple[float, float],
    span: tuple[float, float] | None = None,
    *,
    function: str = "ftest",
    level: float = LEVEL,
    bins: int = BINS,
    scale: float | None = None,
    width: float = 1.0,
) -> Hunt:
    """Is there more in the region than the sidebands make one expect?

    Args:
        m: the resonant variable of the events, `(N,)`; those beyond the span are left out.
        region: the limits of the signal region.
        span: of the fit; None is the range of `m`. After a cut, say that of the events before it.
        function: one of `FUNCTIONS`: a function of this order, or `ftest` for the least order of the exponential of a
            polynomial that suffices, `dijet_ftest` for that of the dijet function.
        level: of the F-test.
        bins: of both sidebands; fewer, but ten, where they would hold less than five of the N events on average.
        scale: of the dijet function, see `fit`.
        width: of z without a signal, if it was measured not to be 1; z is divided by it.

    Raises:
        NoFit: if nothing fits, see `fit`.
        ValueError: if the region has no sideband on one side, or a number is out of its range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> m = np.append(3 + rng.exponential(1, 20_000), rng.normal(3.5, 0.05, 500))
        >>> found = hunt(m, (3.3, 3.7), (3.0, 4.5))
        >>> found.observed, round(found.fit.background), round(found.excess.z, 1)
        (5400, 4977, 4.0)
    """
    if function not in FUNCTIONS:
        raise ValueError(f"there is no function {function!r}: {', '.join(FUNCTIONS)}")
    if bins < FEWEST or not 0 < level < 1 or not width > 0:
        raise ValueError(
            f"a fit takes {FEWEST} bins or more, a level between 0 and 1 and a width above 0, not {bins}, {level} and "
            f"{width}"
        )
    values = np.asarray(m)
    if not len(values):
        raise ValueError("there is no event to look for an excess in")
    span = (float(values.min()), float(values.max())) if span is None else span
    enough = min(bins, max(FEWEST, len(values) // ROOMY))
    spectrum = Spectrum.of(values, Bins.around(region, span, enough))
    fitted = chosen(spectrum, NESTED[function], level, scale) if function in NESTED else fit(spectrum, function, scale)
    found = excess(spectrum.observed, fitted.background, fitted.uncertainty)
    return Hunt(spectrum, fitted, spectrum.observed, found.narrowed(width))
