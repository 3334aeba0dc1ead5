"""Pictures of a run, drawn once, after the test."""

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from straylight.atomic import replacing
from straylight.callbacks.gallery import Gallery
from straylight.callbacks.material import Material
from straylight.callbacks.scored import Scores, due, evaluating, gather, said, scored_by
from straylight.callbacks.tensorboard import log_png
from straylight.folder import run_of
from straylight.stopping import STOP

log = logging.getLogger(__name__)
LISTED = 100  # of the strangest rows, and of the most ordinary


class Figures(Gallery):
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
        self, folder: str | Path, only: Sequence[str] | None = None, every_n_epochs: int | None = None, dpi: int = 100
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

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"figures": self.drawn, **({"figures_failed": self.failed} if self.failed else {})}

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
                self._draw(trainer, module, scores, self.folder / f"epoch_{trainer.current_epoch}")
        trainer.strategy.barrier()

    def after_test(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        self.failed = {}
        self.drawn = self._draw(trainer, module, scores, self.folder)

    # drawing

    def _draw(self, trainer: pl.Trainer, module: Any, scores: Scores, folder: Path) -> list[str]:
        """The names of those that were drawn."""
        if self.only is not None and not self.only:
            return []
        material = self._of(trainer, module, scores)
        try:
            # here, since it takes a second and a run without figures needs none of it
            from straylight.callbacks.drawings import DRAWINGS
        except Exception as error:  # such as a matplotlib that cannot be imported
            log.warning(f"No figure was drawn: {said(error)}")
            return []
        drawn = []
        for name in DRAWINGS if self.only is None else self.only:
            try:
                with trainer.precision_plugin.forward_context():
                    figure = DRAWINGS[name](material)
                if figure is not None:
                    self._keep(trainer, figure, folder / f"{name}.png")
                    if name == "extremes" and len(material.shape) == 1:
                        with replacing(folder / "extremes.csv", durable=False) as aside:
                            aside.write_bytes(extremes(material, LISTED).encode())
                    drawn.append(name)
            except Exception as error:  # a picture never fails a run
                self.failed[name] = said(error)
                log.warning(f"The figure {name} was not drawn: {said(error)}")
            STOP.look()
        return drawn

    def _keep(self, trainer: pl.Trainer, figure: Any, path: Path) -> None:
        """In a file, and in TensorBoard."""
        picture = io.BytesIO()
        bears = {"Run": run} if (run := run_of(path.parent)) else {}
        figure.savefig(picture, format="png", dpi=self.dpi, metadata=bears)
        with replacing(path, durable=False) as aside:
            aside.write_bytes(picture.getvalue())
        width, height = (round(inches * self.dpi) for inches in figure.get_size_inches())
        log_png(trainer, f"figures/{path.stem}", picture.getvalue(), width, height)


def extremes(material: Material, most: int) -> str:
    """CSV of the strangest and the most ordinary rows: rank among them, row of the split, score, kind, features."""
    from straylight.report.figures.style import look

    file = io.StringIO(newline="")
    out = csv.writer(file)
    out.writerow(["end", "rank", "row", "score", "kind", *material.features])
    for end, places in zip(("strangest", "ordinary"), material.extremes(most), strict=True):
        for rank, (place, features) in enumerate(zip(places, material.events(places).tolist(), strict=True), 1):
            score = np.format_float_positional(material.scores[place], trim="-", unique=True)
            kind = look(int(material.y[place]), material.kinds).name
            out.writerow([end, rank, int(material.index[place]), score, kind, *features])
    return file.getvalue()
