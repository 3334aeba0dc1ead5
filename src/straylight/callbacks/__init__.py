"""Callbacks: they watch and never touch."""

# ruff: noqa: F401 - these are the names that others import

from straylight.callbacks.bump import Bump
from straylight.callbacks.checkpoint import Checkpoint
from straylight.callbacks.criteria import Criteria
from straylight.callbacks.density import Density
from straylight.callbacks.descent import Descent
from straylight.callbacks.early_stopping import EarlyStopping
from straylight.callbacks.event_log import EventLog
from straylight.callbacks.figures import Figures
from straylight.callbacks.gallery import Gallery
from straylight.callbacks.interrupt import Interrupt
from straylight.callbacks.latency import Latency
from straylight.callbacks.mlflow_log import MLflowLog
from straylight.callbacks.progress import Progress
from straylight.callbacks.pruning import Pruning
from straylight.callbacks.ranking import Ranking
from straylight.callbacks.record import Record
from straylight.callbacks.results_hdf5 import ResultsHDF5
from straylight.callbacks.tensorboard import TensorBoard
from straylight.callbacks.thresholds import Thresholds
from straylight.callbacks.tracker import Tracker
from straylight.callbacks.wandb_log import WandbLog
