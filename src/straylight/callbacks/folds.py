"""A fitted detector, fitted again without a part of its rows."""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import LightningEnvironment
from numpy.typing import NDArray

from straylight.callbacks.checkpoint import Best
from straylight.callbacks.scored import scored_by
from straylight.data import AnomalyDataModule
from straylight.detectors import Detector, FittedDetector
from straylight.rows.batch import Events, Splits
from straylight.rows.folds import folds_of
from straylight.rows.loaders import BatchLoader


class Fold(NamedTuple):
    """One part of the rows, `(n_k,)`, their scores by a detector that was fitted without them, and that detector."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    detector: FittedDetector


class Rows(AnomalyDataModule):
    """Serves some training rows and no other."""

    def __init__(self, train: Events, seed: int, **options: Any) -> None:
        super().__init__(seed=seed, device="cpu", **options)
        self.train = train

    @property
    def splits(self) -> Splits:
        none = self.train.take([])
        return Splits(self.train, none, none, none)


def refitted(trainer: pl.Trainer, detector: FittedDetector, folds: int, seed: int) -> Iterator[Fold]:
    """The folds of the training rows, one after the other, each with a detector fitted to all others.

    Scaling is fitted anew, too. Detectors are made where ours is, in its precision; ours and the random numbers of the
    run stay as they are.
    """
    train = trainer.datamodule.splits.train  # type: ignore[attr-defined]
    of = folds_of(len(train), folds, seed, train.meta.get("group"))
    for fold in range(folds):
        rows = np.flatnonzero(of == fold)
        if not len(rows):
            continue
        device = detector.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.inference_mode(False):
            other = _fitted(trainer, detector, Rows(train.take(np.flatnonzero(of != fold)), seed))
            held = BatchLoader(train.take(rows), batch_size=65536)
            scores = torch.cat([part.score for part in scored_by(trainer, other, held)])
        yield Fold(rows, scores.cpu().numpy(), other)


def _fitted(trainer: pl.Trainer, detector: FittedDetector, data: Rows) -> FittedDetector:
    other = detector.twin()
    other.scaling.forget()
    return trained_alone(trainer, detector, other.train(), data)


Trained = TypeVar("Trained", bound=Detector)


def trained_alone(
    trainer: pl.Trainer,
    detector: Detector,
    other: Trained,
    data: AnomalyDataModule,
    epochs: int = 1,
    best: Best | None = None,
) -> Trained:
    """Train another detector where ours is, in its precision and without a word; ready to score, as ours is.

    Args:
        trainer: ours.
        detector: ours.
        other: is trained.
        data: on these.
        epochs: as many.
        best: remembers the epoch whose weights are kept; by default those of the last.
    """
    device = detector.device
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    alone = pl.Trainer(
        accelerator=device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=trainer.precision,
        max_epochs=epochs,
        callbacks=[best] if best is not None else [],
        enable_checkpointing=best is not None,
        num_sanity_val_steps=0,
        plugins=[LightningEnvironment()],  # whatever ranks Slurm or torchrun have around it
        **quiet,  # type: ignore[arg-type]
    )
    alone.fit(other, datamodule=data)
    if best is not None and best.state is not None:
        other.load_state_dict(best.state)
    other._trainer = None
    return other.to(device).eval()
