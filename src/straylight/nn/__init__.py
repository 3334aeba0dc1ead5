"""Building blocks of detectors."""

from straylight.nn.flows import masked_autoregressive_flow
from straylight.nn.mlp import mlp
from straylight.nn.optimization import Optimization
from straylight.nn.scaling import Scaling

__all__ = ["Optimization", "Scaling", "masked_autoregressive_flow", "mlp"]
