"""A detector trained again on each half of the training rows."""

from collections.abc import Iterator

import numpy as np
import pytorch_lightning as pl
import torch

from straylight.callbacks.checkpoint import Best
from straylight.callbacks.folds import Rows, refitted, trained_alone
from straylight.data import AnomalyDataModule
from straylight.detectors import Detector, FittedDetector
from straylight.rows.batch import Events, Splits
from straylight.rows.folds import folds_of


class Half(Rows):
    """Serves some training rows, and the rows that choose the epoch.

    Args:
        train: rows to train on.
        like: the data set that they are of, whose mini-batches are as large.
    """

    def __init__(self, train: Events, like: AnomalyDataModule) -> None:
        super().__init__(train, like.seed, batch_size=like.batch_size, eval_batch_size=like.eval_batch_size)
        self.chosen_by = like.selecting
        self.columns, self.resonance = like.columns, like.resonance

    @property
    def splits(self) -> Splits:
        none = self.train.take([])
        return Splits(self.train, self.chosen_by, none, none)

    @property
    def selecting(self) -> Events:
        return self.chosen_by


def halved(trainer: pl.Trainer, detector: Detector, data: AnomalyDataModule, epochs: int) -> Iterator[Detector]:
    """Two like the detector, each trained on one half of the training rows, ready to score where it does.

    Halves are dealt by the data's seed, and groups of rows stay whole. Of a network that is trained in epochs first
    weights are drawn by it, too, and the epoch of the least loss of validation is taken, of as many epochs as were
    trained. Ours and the random numbers of the run stay as they are.
    """
    if isinstance(detector, FittedDetector):
        yield from (fold.detector for fold in refitted(trainer, detector, 2, data.seed))
        return
    train = data.splits.train
    of = folds_of(len(train), 2, data.seed, train.meta.get("group"))
    for half in range(2):
        device = detector.device
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            torch.manual_seed(data.seed)
            other = _trained(trainer, detector, Half(train.take(np.flatnonzero(of == half)), data), epochs)
        yield other


def _trained(trainer: pl.Trainer, detector: Detector, data: Half, epochs: int) -> Detector:
    args, kwargs = detector._given
    other = type(detector)(*args, **kwargs)
    return trained_alone(trainer, detector, other, data, epochs, Best())
