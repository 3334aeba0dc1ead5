"""Pictures of a run, drawn once, after the test."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from straylight.callbacks import extremes
from straylight.callbacks.gallery import Gallery
from straylight.callbacks.pictures import Drawn, draw, marks_of
from straylight.callbacks.progress import announce
from straylight.callbacks.scored import Scores, due, evaluating, gather, said, scored_by
from straylight.callbacks.tensorboard import log_png
from straylight.folder import folder_of, run_of
from straylight.report.choice import ESSENTIAL, understood
from straylight.report.kept import finite

log = logging.getLogger(__name__)


class Figures(Gallery):
    """Draws the essential figures that apply to the run, into `FOLDER` as PNG and to TensorBoard, on the first rank.

    Which are essential says `straylight.report.choice`, which apply `straylight.callbacks.drawings`. The others are
    drawn from what the run keeps by `straylight report RUN --figures`. A figure that fails is reported, and the run
    goes on. `extremes.csv` lists the 100 strangest and the 100 most ordinary rows of a table, whatever is drawn.

    Args:
        folder: of the pictures.
        only: `essential`; `all` that apply, as is `null`; or names of figures, one or a list, of which an empty one
            draws none.
        every_n_epochs: draw while training, too, after every so many epochs, into `FOLDER/epoch_N`; the test rows are
            scored for it, and nothing is selected by that.
        dpi: dots per inch of the pictures.

    Raises:
        ValueError: if there is no figure of a name, or a number is not positive.
    """

    def __init__(
        self,
        folder: str | Path,
        only: str | Sequence[str] | None = ESSENTIAL,
        every_n_epochs: int | None = None,
        dpi: int = 100,
    ) -> None:
        super().__init__()
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"callbacks.figures.every_n_epochs must be positive or null, not {every_n_epochs}")
        if not dpi > 0:
            raise ValueError(f"callbacks.figures.dpi must be positive, not {dpi}")
        self.only = understood(only)
        self.folder, self.every_n_epochs, self.dpi = Path(folder), every_n_epochs, dpi
        self.drawn = Drawn()

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"losses": finite(self.losses), **self.drawn.result()}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        if due(trainer, self.every_n_epochs) and getattr(pl_module, "last_phase", True):
            self._draw_now(trainer, pl_module)

    def _draw_now(self, trainer: pl.Trainer, module: Any) -> None:
        if (data := getattr(trainer, "datamodule", None)) is None:
            return
        scores = gather(scored_by(trainer, module, data.test_dataloader()))
        if trainer.is_global_zero:
            cards = [module.device] if module.device.type == "cuda" else []
            with evaluating(module), torch.random.fork_rng(cards), torch.no_grad():
                marks = {"Run": run} if (run := run_of(self.folder)) else {}
                self._draw(trainer, module, scores, self.folder / f"epoch_{trainer.current_epoch}", marks)
        trainer.strategy.barrier()

    def after_test(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        if self.only:
            announce(trainer, "drawing")
        self.drawn = self._draw(trainer, module, scores, self.folder, marks_of(folder_of(self.folder)))

    def _draw(self, trainer: pl.Trainer, module: Any, scores: Scores, folder: Path, marks: dict[str, str]) -> Drawn:
        material = self._of(trainer, module, scores)
        done = draw(
            material,
            self.only,
            folder,
            self.dpi,
            marks=marks,
            precision=trainer.precision_plugin.forward_context,
            show=lambda name, png, width, height: log_png(trainer, f"figures/{name}", png, width, height),
        )
        try:
            extremes.write(material, folder / "extremes.csv")
        except Exception as error:  # a list never fails a run
            done.failed["extremes.csv"] = said(error)
            log.warning(f"extremes.csv was not written: {said(error)}")
        return done
