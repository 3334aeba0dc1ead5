"""Building blocks of detectors."""

from straylight.nn.conv import decoder, encoder, encoder_and_decoder
from straylight.nn.flows import Flow, autoregressive_flow, coupling_flow
from straylight.nn.log_tail import LogTail
from straylight.nn.mlp import mlp
from straylight.nn.neighbourhood import Neighbourhood
from straylight.nn.neighbours import Neighbours
from straylight.nn.normal_scores import NormalScores
from straylight.nn.optimization import Optimization
from straylight.nn.particles import ParticleScaling, scaling_of
from straylight.nn.principal import Reduced
from straylight.nn.scaling import Scaling

__all__ = [
    "Flow",
    "LogTail",
    "Neighbourhood",
    "Neighbours",
    "NormalScores",
    "Optimization",
    "ParticleScaling",
    "Reduced",
    "Scaling",
    "autoregressive_flow",
    "coupling_flow",
    "decoder",
    "encoder",
    "encoder_and_decoder",
    "mlp",
    "scaling_of",
]
