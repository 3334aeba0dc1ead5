"""Callbacks: they watch and never touch."""

from straylight.callbacks.checkpoint import Checkpoint
from straylight.callbacks.early_stopping import EarlyStopping
from straylight.callbacks.interrupt import Interrupt
from straylight.callbacks.latency import Latency
from straylight.callbacks.progress import Progress
from straylight.callbacks.ranking import Ranking
from straylight.callbacks.record import Record

__all__ = ["Checkpoint", "EarlyStopping", "Interrupt", "Latency", "Progress", "Ranking", "Record"]
