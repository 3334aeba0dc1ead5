"""A gallery of one run: every figure that applies to it, drawn when it is asked for by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from straylight.callbacks.material import Material
from straylight.callbacks.scored import AfterTest, Scores, measured, weights_of
from straylight.report.choice import NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Gallery(AfterTest):
    """Keeps losses by epoch and, after the test, all that figures are drawn from; draws them by name.

    In a list of callbacks it stands behind those that measure, since figures show what they found.

    Example:
        >>> from straylight.data import Blobs
        >>> from straylight.detectors import KNN
        >>> gallery = Gallery()
        >>> trainer = pl.Trainer(
        ...     max_epochs=1, callbacks=[gallery], logger=False, enable_checkpointing=False, accelerator="cpu",
        ...     enable_progress_bar=False, enable_model_summary=False)
        >>> data, detector = Blobs(), KNN((2,))
        >>> trainer.fit(detector, data)
        >>> _ = trainer.test(detector, data, verbose=False)
        >>> gallery.draw("roc").axes[0].get_xlabel()
        'false-positive rate'

    Attributes:
        losses: by name, pairs of epoch and value.
        material: what figures are drawn from; None before the test.
    """

    def __init__(self) -> None:
        super().__init__()
        self.losses: dict[str, list[tuple[int, float]]] = {}
        self.material: Material | None = None
        self._noted: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def draw(self, name: str) -> Figure:
        """A figure of `straylight.callbacks.drawings` by its name, such as `scores` or `latent_2d`.

        Raises:
            ValueError: if there is no such figure, or it does not apply to this run.
        """
        if self.material is None:
            named(name)
            raise ValueError(f"{name} is drawn of tested events: call trainer.test(detector, data) first")
        return drawn(name, self.material)

    # losses: the module logs those of an epoch after the callbacks' own end of it

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note(trainer)

    def _note(self, trainer: pl.Trainer, epoch: int | None = None) -> None:
        epoch = trainer.current_epoch if epoch is None else epoch
        metrics = trainer.callback_metrics
        for name in filter(is_loss, metrics) if epoch else ():
            if metrics[name] is self._noted.get(name):  # of a phase that has ended; Lightning keeps the last value
                continue
            pairs = self.losses.setdefault(name, [])
            if not pairs or pairs[-1][0] < epoch:
                pairs.append((epoch, float(metrics[name])))
        self._noted = dict(metrics)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:  # at the end of an epoch, before it is counted
            self._note(trainer, trainer.current_epoch + 1)
        checkpoint["losses_by_epoch"] = self.losses

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # the best checkpoint, which is tested, knows nothing of the epochs after it
        for name, pairs in checkpoint.get("losses_by_epoch", {}).items():
            known = dict(pairs) | dict(self.losses.get(name, []))
            self.losses[name] = sorted(known.items())

    # the test

    def after_test(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        self.material = self._of(trainer, module, scores)

    def _of(self, trainer: pl.Trainer, module: Any, scores: Scores) -> Material:
        return Material(
            scores,
            module,
            getattr(trainer, "datamodule", None),
            weight=weights_of(trainer, scores.index),
            measured=measured(trainer, but=self),
            losses=self.losses,
            calibration=_calibration(trainer),
        )


def _calibration(trainer: Any) -> Any:
    """The scores that another callback has set thresholds on."""
    return next((held for c in trainer.callbacks if (held := getattr(c, "calibration", None)) is not None), None)


def named(name: str) -> None:
    """See that there is a figure of that name.

    Raises:
        ValueError: if there is none, with those there are.
    """
    if name not in NAMES:
        raise ValueError(f"there is no figure {name!r}, but {', '.join(NAMES)}")


def drawn(name: str, material: Material) -> Figure:
    """A figure of `straylight.callbacks.drawings` by its name.

    Raises:
        ValueError: if there is no such figure, or it does not apply to this run.
    """
    named(name)
    # here, since it takes a second and a run without figures needs none of it
    from straylight.callbacks.drawings import DRAWINGS

    figure = DRAWINGS[name](material)
    if figure is None:
        kind = type(material.module).__name__
        raise ValueError(f"the figure {name} does not apply to a run of {kind} on {material.shape}")
    return figure


def is_loss(name: str) -> bool:
    """Whether a number by epoch is a loss, or a term of one."""
    return name.startswith(("train/", "val/")) and not name.endswith(("/lr", "/grad_norm"))
