"""Detectors: each maps an event to one number, larger when stranger."""

from straylight.detectors.autoencoder import AutoEncoder
from straylight.detectors.base import Detector
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.isolation_forest import IsolationForest
from straylight.detectors.knn import KNN
from straylight.detectors.maf import MAF
from straylight.detectors.vae import VAE

__all__ = ["KNN", "MAF", "VAE", "AutoEncoder", "Detector", "FittedDetector", "IsolationForest"]
