"""Data sets: each writes `load() -> Splits`; everything else is written once in the base."""

from straylight.data.adbench import ADBench
from straylight.data.base import AnomalyDataModule
from straylight.data.blobs import Blobs
from straylight.data.digits import Digits
from straylight.data.gaussians import Gaussians
from straylight.data.mnist import MNIST

__all__ = ["MNIST", "ADBench", "AnomalyDataModule", "Blobs", "Digits", "Gaussians"]
