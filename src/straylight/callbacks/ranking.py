"""How well the test split was ranked."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray

from straylight.callbacks.scored import Scores, TestScores, due, gather, kinds_of, scored_by, weights_of
from straylight.errors import StraylightError
from straylight.metrics.ranking import FPRS, MAX_FPR, RESOLVABLE, Ranked, needed

log = logging.getLogger(__name__)

EQUAL = 0.9  # share of test rows with one score that is told
TURNED = 0.1  # AUROC below which a sign may be wrong


def tell_equal(module: pl.LightningModule, score: NDArray[np.float32]) -> None:
    """Give notice if most test rows have one and the same score, by which they cannot be ranked among each other."""
    if len(score) < 2 or not callable(notice := getattr(module, "notice", None)):
        return
    places = [len(score) // 20, len(score) // 2, len(score) - len(score) // 20 - 1]
    value = np.partition(score, places)[places]
    if value[1] not in (value[0], value[2]):  # a value of nine in ten rows is the median and one of these, too
        return
    share = float((score == value[1]).mean())
    if share > EQUAL:
        which = "all" if share == 1 else f"{share:.1%} of the"
        notice(f"{type(module).__name__} gives {which} {len(score):,} test rows one score, {value[1]:.6g}.")


def tell_turned(module: pl.LightningModule, metrics: Mapping[str, float], intervals: Mapping[str, Any]) -> None:
    """Give notice, once, if anomalies have lower scores than nominal rows, which may be a wrong sign.

    Args:
        module: that scored.
        metrics, intervals: `auroc`, `auroc/KIND` and others, by name. One whose interval reaches 1/2 says nothing.
    """
    if not callable(notice := getattr(module, "notice", None)):
        return
    turned = {
        name.removeprefix("auroc").lstrip("/"): value
        for name, value in metrics.items()
        if name.partition("/")[0] == "auroc" and value < TURNED and intervals.get(name, (0, 1))[1] < 0.5
    }
    if not turned:
        return
    kinds = "" if "" in turned else " of " + ", ".join(turned)
    value = turned.get("", max(turned.values()))
    notice(
        f"AUROC is {value:.3g}{' or less' * (bool(kinds) and len(turned) > 1)}: nearly all anomalies{kinds} score "
        "lower than nominal rows. A score is larger the stranger an event is: is the sign of "
        f"{type(module).__name__}.score right?"
    )


class Ranking(TestScores):
    """Logs `test/auroc`, `test/ap`, `test/tpr@fpr=F` and more, overall and per kind, once, after the test.

    See `straylight.metrics.ranking.Ranked` for all of them; their intervals go into the run's record. Where nobody
    knows the labels, it says so and measures nothing.

    Args:
        fprs: false-positive rates of the working points.
        max_fpr: of the partial AUROC.
        level: of the intervals.
        every_n_epochs: how fast does it converge? The test rows are ranked after every so many epochs of training,
            too, as `by_epoch/auroc` and the like. Nothing can be selected by these: no monitor sees them.
    """

    def __init__(
        self,
        fprs: Sequence[float] = FPRS,
        max_fpr: float = MAX_FPR,
        level: float = 0.95,
        every_n_epochs: int | None = None,
    ) -> None:
        super().__init__()
        if not all(0 < fpr < 1 for fpr in fprs):
            raise ValueError(f"callbacks.ranking.fprs must lie between 0 and 1, not {list(fprs)}")
        if not 0 < max_fpr <= 1:
            raise ValueError(f"callbacks.ranking.max_fpr must lie above 0, at most at 1, not at {max_fpr}")
        if not 0 < level < 1:
            raise ValueError(f"callbacks.ranking.level must lie between 0 and 1, not {level}")
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"callbacks.ranking.every_n_epochs must be positive or null, not {every_n_epochs}")
        self.fprs, self.max_fpr, self.level, self.every_n_epochs = tuple(fprs), max_fpr, level, every_n_epochs
        self.metrics: dict[str, float] = {}
        self.intervals: dict[str, tuple[float, float]] = {}
        self.by_epoch: dict[int, dict[str, float]] = {}

    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        tell_equal(module, scores.score)
        if len(scores.y) and scores.y.max() < 0:
            if trainer.is_global_zero:
                log.warning("The test rows have no labels: they are scored, and AUROC, AP and TPR are left out.")
            return
        ranked = self._ranked(trainer, module, scores)
        found = ranked.metrics()
        self.metrics = {f"test/{name}": value for name, value in found.items()}
        if trainer.is_global_zero:
            intervals = ranked.intervals(self.level)
            self.intervals = {f"test/{name}": value for name, value in intervals.items()}
            tell_turned(module, found, intervals)
        for logger in trainer.loggers:
            logger.log_metrics(self.metrics, step=trainer.global_step)

    def _ranked(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> Ranked:
        kinds, weight = kinds_of(trainer), weights_of(trainer, scores.index)
        try:
            return Ranked(scores.score, scores.y, kinds, weight, fprs=self.fprs, max_fpr=self.max_fpr)
        except ValueError as error:
            raise StraylightError(f"{type(module).__name__} cannot be ranked: {error}.") from error

    # while training

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.every_n_epochs and getattr(trainer, "datamodule", None) is None:
            raise StraylightError("callbacks.ranking.every_n_epochs needs a data module that serves the test rows.")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if due(trainer, self.every_n_epochs):
            self._rank_now(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.every_n_epochs:
            self._rank_now(trainer, pl_module)

    def _rank_now(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch
        if epoch in self.by_epoch or not getattr(module, "last_phase", True):
            return
        scores = gather(scored_by(trainer, module, trainer.datamodule.test_dataloader()))  # type: ignore[attr-defined]
        if scores.y.max(initial=-1) < 0:
            return
        found = self._ranked(trainer, module, scores).metrics()
        kept = ("auroc", "ap", "partial_auroc", "tpr")
        self.by_epoch[epoch] = {name: value for name, value in found.items() if name.startswith(kept)}
        for logger in trainer.loggers:  # not through the module, whose metrics monitors see
            named = {f"by_epoch/{name}": value for name, value in self.by_epoch[epoch].items()}
            logger.log_metrics(named, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        return {"by_epoch": self.by_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # the best checkpoint, which is tested, knows nothing of the epochs after it
        self.by_epoch = {**state_dict["by_epoch"], **self.by_epoch}

    def result(self) -> dict[str, Any]:
        """What `Record` keeps: plain float64 numbers, which Lightning's own logging would round to float32."""
        above = {fpr: self.metrics.get(f"test/nominal_above@fpr={fpr:g}", RESOLVABLE) for fpr in self.fprs}
        return {
            "metrics": self.metrics,
            "intervals": self.intervals,
            "interval_level": self.level,
            "nominal_needed": {f"{fpr:g}": needed(fpr) for fpr, events in above.items() if events < RESOLVABLE},
            "by_epoch": [{"epoch": epoch, **found} for epoch, found in sorted(self.by_epoch.items())],
        }
