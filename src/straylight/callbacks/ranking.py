"""How well the test split was ranked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from straylight.callbacks.scored import Scores, TestScores
from straylight.errors import StraylightError
from straylight.metrics.ranking import FPRS, ranking

log = logging.getLogger(__name__)


class Ranking(TestScores):
    """Logs `test/auroc`, `test/ap` and `test/tpr@fpr=F`, overall and per kind, once, after the test.

    Where nobody knows the labels, it says so and measures nothing.

    Args:
        fprs: false-positive rates of the working points.
    """

    def __init__(self, fprs: Sequence[float] = FPRS) -> None:
        super().__init__()
        if not all(0 < fpr < 1 for fpr in fprs):
            raise ValueError(f"callbacks.ranking.fprs must lie between 0 and 1, not {list(fprs)}")
        self.fprs = tuple(fprs)
        self.metrics: dict[str, float] = {}

    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        if len(scores.y) and scores.y.max() < 0:
            if trainer.is_global_zero:
                log.warning("The test rows have no labels: they are scored, and AUROC, AP and TPR are left out.")
            return
        kinds = getattr(getattr(trainer, "datamodule", None), "kinds", ())
        try:
            measured = ranking(scores.score, scores.y, kinds, self.fprs)
        except ValueError as error:
            raise StraylightError(f"{type(module).__name__} cannot be ranked: {error}.") from error
        self.metrics = {f"test/{name}": value for name, value in measured.items()}
        for logger in trainer.loggers:
            logger.log_metrics(self.metrics, step=trainer.global_step)

    def result(self) -> dict[str, Any]:
        """What `Record` keeps: plain float64 numbers, which Lightning's own logging would round to float32."""
        return {"metrics": self.metrics}
