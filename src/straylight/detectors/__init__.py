"""Detectors: each maps an event to one number, larger when stranger."""

from straylight.detectors.aae import AAE
from straylight.detectors.anogan import AnoGAN
from straylight.detectors.autoencoder import AutoEncoder
from straylight.detectors.base import Detector
from straylight.detectors.deep_svdd import DeepSVDD
from straylight.detectors.ensemble import Ensemble
from straylight.detectors.fanogan import FAnoGAN
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.isolation_forest import IsolationForest
from straylight.detectors.knn import KNN
from straylight.detectors.maf import MAF
from straylight.detectors.nsf import NSF
from straylight.detectors.rbm import RBM
from straylight.detectors.realnvp import RealNVP
from straylight.detectors.vae import VAE

__all__ = [
    "AAE",
    "KNN",
    "MAF",
    "NSF",
    "RBM",
    "VAE",
    "AnoGAN",
    "AutoEncoder",
    "DeepSVDD",
    "Detector",
    "Ensemble",
    "FAnoGAN",
    "FittedDetector",
    "IsolationForest",
    "RealNVP",
]
