"""Pictures of a run, drawn once, after the test."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from straylight.callbacks.material import Material
from straylight.callbacks.scored import Scores, TestScores, gather, scored_by, weights_of

log = logging.getLogger(__name__)
LISTED = 100  # of the strangest rows, and of the most ordinary
COLUMNS = 500  # features that a table of rows may have


class Figures(TestScores):
    """Draws what applies to the run, into `FOLDER` as PNG and to TensorBoard, on the first rank.

    Which figures apply follows from what the run has; see `straylight.callbacks.drawings`. A figure that fails is
    reported, and the run goes on. `extremes.csv` lists the 100 strangest and the 100 most ordinary rows of a table.

    Args:
        folder: of the pictures.
        only: names of the figures to draw; `null` draws all that apply, an empty list none.
        every_n_epochs: draw while training, too, after every so many epochs, into `FOLDER/epoch_N`; the test rows are
            scored for it, and nothing is selected by that.
        dpi: dots per inch of the pictures.
    """

    def __init__(
        self,
        folder: str | Path,
        only: Sequence[str] | None = None,
        every_n_epochs: int | None = None,
        dpi: int = 100,
    ) -> None:
        super().__init__()
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"callbacks.figures.every_n_epochs must be positive or null, not {every_n_epochs}")
        if not dpi > 0:
            raise ValueError(f"callbacks.figures.dpi must be positive, not {dpi}")
        if only:
            from straylight.callbacks.drawings import DRAWINGS

            if unknown := [name for name in only if name not in DRAWINGS]:
                raise ValueError(f"callbacks.figures.only knows {', '.join(DRAWINGS)}, and not {', '.join(unknown)}")
        self.folder, self.only, self.every_n_epochs, self.dpi = Path(folder), only, every_n_epochs, dpi
        self.drawn: list[str] = []
        self.failed: dict[str, str] = {}
        self.losses: dict[str, list[tuple[int, float]]] = {}
        self._scores: Scores | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero:  # of an earlier run in the same folder
            with suppress(OSError):
                for path in [*self.folder.glob("*.png"), self.folder / "extremes.csv"]:
                    path.unlink(missing_ok=True)

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"figures": self.drawn, **({"figures_failed": self.failed} if self.failed else {})}

    # losses: the module logs those of an epoch after the callbacks' own end of it

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note(trainer)
        epoch = trainer.current_epoch
        if self.every_n_epochs and epoch and not epoch % self.every_n_epochs and getattr(pl_module, "last_phase", True):
            self._draw_now(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note(trainer)

    def _note(self, trainer: pl.Trainer, epoch: int | None = None) -> None:
        epoch = trainer.current_epoch if epoch is None else epoch
        for name, value in trainer.callback_metrics.items():
            pairs = self.losses.setdefault(name, [])
            if epoch and name.startswith(("train/", "val/")) and (not pairs or pairs[-1][0] < epoch):
                pairs.append((epoch, float(value)))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:  # at the end of an epoch, before it is counted
            self._note(trainer, trainer.current_epoch + 1)
        checkpoint["losses"] = self.losses

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # the best checkpoint, which is tested, knows nothing of the epochs after it
        for name, pairs in checkpoint.get("losses", {}).items():
            known = dict(pairs) | dict(self.losses.get(name, []))
            self.losses[name] = sorted(known.items())

    def _draw_now(self, trainer: pl.Trainer, module: Any) -> None:
        data = getattr(trainer, "datamodule", None)
        if data is None:
            return
        scores = gather(scored_by(trainer, module, data.test_dataloader()))
        if trainer.is_global_zero:
            modes = [(part, part.training) for part in module.modules()]
            module.eval()
            with torch.random.fork_rng([module.device] if module.device.type == "cuda" else []):
                list(self._draw(trainer, module, scores, self.folder / f"epoch_{trainer.current_epoch}"))
            for part, training in modes:
                part.training = training
        trainer.strategy.barrier()

    # the test

    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        self._scores = scores

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.drawn, self.failed = [], {}
        if self._scores is not None and trainer.is_global_zero:
            self.drawn = list(self._draw(trainer, pl_module, self._scores, self.folder))
        self._scores = None
        trainer.strategy.barrier()

    # drawing

    @torch.no_grad()
    def _draw(self, trainer: pl.Trainer, module: Any, scores: Scores, folder: Path) -> Iterator[str]:
        if self.only is not None and not self.only:
            return
        material = Material(
            scores,
            module,
            getattr(trainer, "datamodule", None),
            weight=weights_of(trainer, scores.index),
            measured=self._measured(trainer),
            losses={name: pairs for name, pairs in self.losses.items() if _is_loss(name)},
        )
        try:
            # here, since it takes a second and a run without figures needs none of it
            from straylight.callbacks.drawings import DRAWINGS
        except Exception as error:  # such as a matplotlib that cannot be imported
            log.warning(f"No figure was drawn: {_said(error)}")
            return
        for name in DRAWINGS if self.only is None else self.only:
            try:
                with trainer.precision_plugin.forward_context():
                    figure = DRAWINGS[name](material)
                if figure is None:
                    continue
                picture = io.BytesIO()
                figure.savefig(picture, format="png", dpi=self.dpi)
                self._keep(trainer, folder, name, picture.getvalue(), figure.get_size_inches() * self.dpi)
                if name == "extremes":
                    self._list(material, folder)
            except Exception as error:  # a picture never fails a run
                self.failed[name] = _said(error)
                log.warning(f"The figure {name} was not drawn: {_said(error)}")
                continue
            yield name

    def _measured(self, trainer: pl.Trainer) -> dict[str, Any]:
        """What the other callbacks add to the record."""
        found: dict[str, Any] = {}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if callback is not self and callable(own := getattr(callback, "result", None)):
                found |= own()
        return found

    def _keep(self, trainer: pl.Trainer, folder: Path, name: str, png: bytes, size: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{name}.png"
        temporary.write_bytes(png)
        temporary.replace(folder / f"{name}.png")
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.TensorBoardLogger):
                from tensorboard.compat.proto.summary_pb2 import Summary

                width, height = (round(x) for x in size)
                # the file as it is: the writer would decode it and encode it again
                image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
                summary = Summary(value=[Summary.Value(tag=f"figures/{name}", image=image)])
                logger.experiment._get_file_writer().add_summary(summary, trainer.global_step)

    @staticmethod
    def _list(material: Material, folder: Path) -> None:
        """`extremes.csv`: rank among the strangest or the most ordinary, row, score, kind, features."""
        if len(material.shape) != 1 or not folder.is_dir() or math.prod(material.shape) > COLUMNS:
            return
        temporary = folder / ".extremes.csv"
        with temporary.open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["end", "rank", "row", "score", "kind", *material.names(math.prod(material.shape))])
            ends = zip(("strangest", "ordinary"), material.extremes(LISTED), strict=True)
            for end, places in ends:
                rows = zip(places, material.events(places).tolist(), strict=True)
                for rank, (place, features) in enumerate(rows, 1):
                    label = int(material.y[place])
                    known = 0 <= label < len(material.kinds)
                    kind = material.kinds[label] if known else "unknown" if label < 0 else str(label)
                    score = np.format_float_positional(material.scores[place], trim="-", unique=True)
                    out.writerow([end, rank, int(material.index[place]), score, kind, *features])
        temporary.replace(folder / "extremes.csv")


def _is_loss(name: str) -> bool:
    return name.startswith(("train/", "val/")) and not name.endswith(("/lr", "/grad_norm"))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
