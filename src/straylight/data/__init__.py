"""Data sets: each writes `load() -> Splits`; everything else is written once in the base."""

from straylight.data.adbench import ADBench
from straylight.data.adc2021 import ADC2021
from straylight.data.base import AnomalyDataModule
from straylight.data.blobs import Blobs
from straylight.data.bump import Bump
from straylight.data.digits import ContaminatedDigits, Digits
from straylight.data.file import File
from straylight.data.frame import Frame
from straylight.data.gaussians import Gaussians
from straylight.data.generated import Generated
from straylight.data.house_prices import HousePrices
from straylight.data.kddcup99 import KDDCup99
from straylight.data.lhco import LHCO
from straylight.data.mnist import MNIST, ContaminatedMNIST, FashionMNIST
from straylight.data.moons import Moons
from straylight.data.shells import Shells
from straylight.data.sinusoidal import Sinusoidal
from straylight.data.stored import Remote, Stored
from straylight.data.toy_trigger import ToyTrigger

__all__ = [
    "ADC2021",
    "LHCO",
    "MNIST",
    "ADBench",
    "AnomalyDataModule",
    "Blobs",
    "Bump",
    "ContaminatedDigits",
    "ContaminatedMNIST",
    "Digits",
    "FashionMNIST",
    "File",
    "Frame",
    "Gaussians",
    "Generated",
    "HousePrices",
    "KDDCup99",
    "Moons",
    "Remote",
    "Shells",
    "Sinusoidal",
    "Stored",
    "ToyTrigger",
]
