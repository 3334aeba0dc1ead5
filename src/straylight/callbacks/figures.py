"""Pictures of a run, drawn once, after the test."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from straylight.atomic import replacing
from straylight.callbacks.gallery import Gallery
from straylight.callbacks.material import Material
from straylight.callbacks.scored import Scores, gather, scored_by
from straylight.callbacks.tensorboard import log_png
from straylight.folder import run_of

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

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        return {"figures": self.drawn, **({"figures_failed": self.failed} if self.failed else {})}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        epoch = trainer.current_epoch
        if self.every_n_epochs and epoch and not epoch % self.every_n_epochs and getattr(pl_module, "last_phase", True):
            self._draw_now(trainer, pl_module)

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
        material = self._of(trainer, module, scores)
        bears = {"Run": run} if (run := run_of(folder)) else {}
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
                figure.savefig(picture, format="png", dpi=self.dpi, metadata=bears)
                with replacing(folder / f"{name}.png") as aside:
                    aside.write_bytes(picture.getvalue())
                width, height = (round(inches * self.dpi) for inches in figure.get_size_inches())
                log_png(trainer, f"figures/{name}", picture.getvalue(), width, height)
                if name == "extremes" and len(material.shape) == 1:
                    with replacing(folder / "extremes.csv") as aside:
                        aside.write_bytes(extremes(material, LISTED).encode())
            except Exception as error:  # a picture never fails a run
                self.failed[name] = _said(error)
                log.warning(f"The figure {name} was not drawn: {_said(error)}")
                continue
            yield name


def extremes(material: Material, most: int) -> str:
    """CSV of the strangest and the most ordinary rows: rank among them, row of the split, score, kind, features."""
    from straylight.report.figures.style import look

    file = io.StringIO(newline="")
    out = csv.writer(file)
    out.writerow(["end", "rank", "row", "score", "kind", *material.names(material.shape[0])])
    for end, places in zip(("strangest", "ordinary"), material.extremes(most), strict=True):
        for rank, (place, features) in enumerate(zip(places, material.events(places).tolist(), strict=True), 1):
            score = np.format_float_positional(material.scores[place], trim="-", unique=True)
            kind = look(int(material.y[place]), material.kinds).name
            out.writerow([end, rank, int(material.index[place]), score, kind, *features])
    return file.getvalue()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
