"""Straylight: anomaly detection research on Hydra and PyTorch Lightning.

A detector maps an event to one number, larger when stranger. A data module serves events. A callback watches and
never touches. A config is a recipe.

Importing this package is cheap; `straylight.detectors` and `straylight.data` bring torch and Lightning with them.
"""

__version__ = "0.1.0"
