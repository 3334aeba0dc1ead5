"""Detectors: each maps an event to one number, larger when stranger."""

from straylight.detectors.aae import AAE
from straylight.detectors.anode import ANODE, RANODE
from straylight.detectors.anogan import AnoGAN
from straylight.detectors.autoencoder import AutoEncoder
from straylight.detectors.base import Detector
from straylight.detectors.baselines import ParticleBaseline
from straylight.detectors.bayesian_gmm import BayesianGMM
from straylight.detectors.cathode import CATHODE, LaCATHODE
from straylight.detectors.copod import COPOD
from straylight.detectors.cwola import CWoLa
from straylight.detectors.dbscan import DBSCAN
from straylight.detectors.deep_svdd import DeepSVDD
from straylight.detectors.ecod import ECOD
from straylight.detectors.elliptic_envelope import EllipticEnvelope
from straylight.detectors.ensemble import Ensemble
from straylight.detectors.external import External
from straylight.detectors.fanogan import FAnoGAN
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.gmm import GMM
from straylight.detectors.hbos import HBOS
from straylight.detectors.isolation_forest import IsolationForest
from straylight.detectors.kde import KDE
from straylight.detectors.knn import KNN
from straylight.detectors.local_outlier_factor import LocalOutlierFactor
from straylight.detectors.maf import MAF
from straylight.detectors.mahalanobis import Mahalanobis
from straylight.detectors.mom_kde import MoMKDE
from straylight.detectors.nsf import NSF
from straylight.detectors.one_class_svm import OneClassSVM
from straylight.detectors.pca import PCA
from straylight.detectors.random_features import RandomFeatures
from straylight.detectors.rbm import RBM
from straylight.detectors.realnvp import RealNVP
from straylight.detectors.residual import Residual
from straylight.detectors.robust_kde import RobustKDE
from straylight.detectors.vae import VAE
from straylight.detectors.views import Views
from straylight.detectors.yardsticks import Idealized, Supervised

__all__ = [
    "AAE",
    "ANODE",
    "CATHODE",
    "COPOD",
    "DBSCAN",
    "ECOD",
    "GMM",
    "HBOS",
    "KDE",
    "KNN",
    "MAF",
    "NSF",
    "PCA",
    "RANODE",
    "RBM",
    "VAE",
    "AnoGAN",
    "AutoEncoder",
    "BayesianGMM",
    "CWoLa",
    "DeepSVDD",
    "Detector",
    "EllipticEnvelope",
    "Ensemble",
    "External",
    "FAnoGAN",
    "FittedDetector",
    "Idealized",
    "IsolationForest",
    "LaCATHODE",
    "LocalOutlierFactor",
    "Mahalanobis",
    "MoMKDE",
    "OneClassSVM",
    "ParticleBaseline",
    "RandomFeatures",
    "RealNVP",
    "Residual",
    "RobustKDE",
    "Supervised",
    "Views",
]
