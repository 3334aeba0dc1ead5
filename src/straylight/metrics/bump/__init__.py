"""A hunt for a narrow excess over a smooth background: fit beside it, count in it, and say how odd the count is.

`spectra` bins the resonant variable, `shapes` has what backgrounds look like, `fitting` fits them to the sidebands,
`counting` compares observed with expected, `hunting` does all of it, and `sculpting` says whether a cut bends the
background.
"""

from straylight.metrics.bump.counting import Excess, excess, global_excess
from straylight.metrics.bump.cuts import Cuts
from straylight.metrics.bump.cutting import places
from straylight.metrics.bump.fitting import Fit, NoFit, fit
from straylight.metrics.bump.hunting import FUNCTIONS, Hunt, hunt
from straylight.metrics.bump.sculpting import Sculpting, sculpting
from straylight.metrics.bump.spectra import Bins, Spectrum

__all__ = [
    "FUNCTIONS",
    "Bins",
    "Cuts",
    "Excess",
    "Fit",
    "Hunt",
    "NoFit",
    "Sculpting",
    "Spectrum",
    "excess",
    "fit",
    "global_excess",
    "hunt",
    "places",
    "sculpting",
]
