"""What can be said of a detector without labels: pure functions of rows and of their scores."""

from straylight.criteria.anomalies import Made, kinds_for, made
from straylight.criteria.codes import Codes, codes
from straylight.criteria.layout import Layout
from straylight.criteria.separation import Separation, separation
from straylight.criteria.stability import stability
from straylight.criteria.volume import excess_mass, mass_volume, volume_at

__all__ = [
    "Codes",
    "Layout",
    "Made",
    "Separation",
    "codes",
    "excess_mass",
    "kinds_for",
    "made",
    "mass_volume",
    "separation",
    "stability",
    "volume_at",
]
