"""The scaling of a name."""

from __future__ import annotations

from straylight.nn.particles import ParticleScaling
from straylight.nn.scaling import Method, Scaling


def scaling_of(shape: tuple[int, ...], method: Method) -> Scaling:
    """The scaling of this name.

    Raises:
        ValueError: if there is none, or it is not for events of this shape.

    Example:
        >>> scaling_of((2,), "minmax").bounded
        True
    """
    return (ParticleScaling if method in ("particles", "particles_log") else Scaling)(shape, method)
