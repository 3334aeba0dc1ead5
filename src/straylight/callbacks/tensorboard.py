"""What TensorBoard can show beside numbers and pictures: the embedding projector, and the network's graph."""

import logging
import warnings
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from straylight.callbacks.material import Material
from straylight.callbacks.scored import AfterTest, Scores, said
from straylight.callbacks.tracker import Tracker

log = logging.getLogger(__name__)
DIMENSIONS = 50  # of a code; one of more is given by its principal components
SPRITES = 8192  # pixels along a side of all sprites, which TensorBoard takes


class TensorBoard(AfterTest):
    """Logs test rows to the embedding projector: codes, kinds, scores, classes, and sprites where rows are images.

    For detectors that have codes, on the first rank, after the test. What fails is reported, and the run goes on.

    Args:
        max_points: of the projector, as many of each kind as can be, drawn by seed; 0 leaves the projector out.
        graph: whether to log the network's graph, as traced on one event.
    """

    def __init__(self, max_points: int = 5000, graph: bool = False) -> None:
        super().__init__()
        if max_points < 0:
            raise ValueError(f"callbacks.tensorboard.max_points must not be negative, and is {max_points}")
        self.max_points, self.graph = max_points, graph

    def after_test(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        writers = [lg.experiment for lg in trainer.loggers if isinstance(lg, pl.loggers.TensorBoardLogger)]
        if not writers:
            return
        material = Material(scores, module, getattr(trainer, "datamodule", None))
        for what, log_it in (("embedding", self._project), ("graph", self._trace)):
            try:
                with trainer.precision_plugin.forward_context():
                    log_it(material, writers, trainer.global_step)
            except Exception as error:  # a picture never fails a run
                log.warning(f"The {what} was not logged to TensorBoard: {said(error, 300)}")

    def _project(self, run: Material, writers: list[Any], step: int) -> None:
        if not (self.max_points and run.encodes):
            return
        from straylight.report.figures.projection import projected
        from straylight.report.figures.style import look

        places = spread(run.y, self.max_points)
        codes, _ = projected(run.latents(places), DIMENSIONS)
        columns = {
            "kind": [look(int(label), run.kinds).name for label in run.y[places]],
            "score": [f"{score:.6g}" for score in run.scores[places]],
            "index": [str(row) for row in run.index[places]],
            **run.named(places),
        }
        if run.classes is not None:
            columns[run.classes.name] = [str(value) for value in run.classes.values[places]]
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        images, codes = sprites(run.events(places)), codes.astype(np.float32)
        for writer in writers:
            writer.add_embedding(codes, rows, images, step, "latents", list(columns))

    def _trace(self, run: Material, writers: list[Any], step: int) -> None:
        if not self.graph:
            return
        one, device = np.zeros(1, np.intp), run.module.device
        network, inputs = _Scores(run.module), (run.events(one).to(device), run.context(one).to(device))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a trace is of one event, and says that it may not hold for others
            for writer in writers:
                writer.add_graph(network, inputs, use_strict_trace=False)


def log_png(trainer: pl.Trainer, tag: str, png: bytes, width: int, height: int) -> None:
    """A picture to the Trainer's loggers that show some, the file as it is; a writer would decode and encode it."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    for logger in trainer.loggers:
        if isinstance(logger, Tracker):
            logger.log_png(tag, png, trainer.global_step)
        if isinstance(logger, pl.loggers.TensorBoardLogger):
            image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
            summary = Summary(value=[Summary.Value(tag=tag, image=image)])
            logger.experiment._get_file_writer().add_summary(summary, trainer.global_step)


class _Scores(nn.Module):
    """A detector without its Trainer."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.detector(x, context)


def spread(y: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """At most so many places, sorted, as even among the labels as can be, drawn by seed.

    Example:
        >>> spread(np.array([0, 0, 0, 0, 1]), 3).shape
        (3,)
    """
    generator, chosen, left = np.random.default_rng(seed), [], most
    labels, counts = np.unique(y, return_counts=True)
    for k, i in enumerate(np.argsort(counts, kind="stable")):  # the rarest first: what it leaves goes to the others
        n = min(int(counts[i]), left // (len(labels) - k))
        chosen.append(generator.choice(np.flatnonzero(y == labels[i]), n, replace=False))
        left -= n
    return np.sort(np.concatenate(chosen))


def sprites(events: Tensor) -> Tensor | None:
    """Images as sprites, `(N, 3, S, S)` between 0 and 1, small enough for all of them together; None of other rows.

    Example:
        >>> sprites(torch.rand(4, 1, 8, 6)).shape
        torch.Size([4, 3, 8, 8])
    """
    from straylight.report.figures.events import is_image
    from straylight.report.figures.mosaic import pixels

    if not is_image(events.shape[1:]):
        return None
    images = torch.from_numpy(pixels(events.numpy())).permute(0, 3, 1, 2).float()
    height, width = images.shape[2:]
    side = max(height, width)
    images = nn.functional.pad(images, (0, side - width, 0, side - height))  # sprites are square
    room = SPRITES // int(np.ceil(np.sqrt(len(images))))
    return images if side <= room else nn.functional.interpolate(images, size=(room, room), mode="area")
