"""Over-densities: how near the optimum is, whether a cut bends the background, and how significant what is left is."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from straylight.callbacks.progress import announce
from straylight.callbacks.scored import AfterTest, Scores, scored_by, split_of, weights_of
from straylight.metrics.bump import FUNCTIONS, Cuts, places
from straylight.metrics.bump.hunting import BINS, FEWEST
from straylight.metrics.ranking import max_sic, sic_curve
from straylight.metrics.resampled import RESAMPLES, max_sic_interval
from straylight.rows.batch import Events
from straylight.rows.loaders import BatchLoader
from straylight.rows.resonance import Resonance

log = logging.getLogger(__name__)

AT_ONCE = 65536  # rows
POINTS = 200  # of the optimum's curve


class Bump(AfterTest):
    """Measures, once, after the test, what is special to data with a signal region; nothing where there is none.

    On test rows: the interval of the largest significance improvement, and, where the data set knows the likelihood
    ratio, the largest that there can be, `test/optimum_max_sic`, and `test/optimum_fraction` of it. On training rows
    with held-out scores, which a detector of over-densities has: how a cut of each efficiency deforms the background
    (sculpting), and whether there is an excess in the signal region before and after it (a bump hunt). See
    `straylight.metrics.bump` and docs/overdensities.md.

    Args:
        efficiencies: fractions of events that cuts keep, fixed beforehand.
        function: of the background, one of `straylight.metrics.bump.FUNCTIONS`.
        bins: of both sidebands.
        width: of a significance after a cut where there is no signal, if it was measured on pseudo-data: they are
            divided by it.
        resamples: of the interval of the largest significance improvement; 0 leaves it out.
        seed: of these, and of the order of equal scores.
    """

    def __init__(
        self,
        efficiencies: Sequence[float] = (0.1, 0.01, 0.001),
        function: str = "ftest",
        bins: int = BINS,
        width: float = 1.0,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not all(0 < efficiency < 1 for efficiency in efficiencies):
            raise ValueError(f"callbacks.bump.efficiencies must lie between 0 and 1, not {list(efficiencies)}")
        if function not in FUNCTIONS:
            raise ValueError(f"callbacks.bump.function must be one of {', '.join(FUNCTIONS)}, not {function!r}")
        if bins < FEWEST or seed < 0 or resamples < 0 or resamples == 1 or not 0 < width < math.inf:
            raise ValueError(
                f"callbacks.bump.bins must be {FEWEST} or more, resamples 0 or 2 or more, width positive and seed not "
                f"negative, not {bins}, {resamples}, {width} and {seed}"
            )
        self.efficiencies, self.function, self.bins = sorted(efficiencies, reverse=True), function, bins
        self.width, self.resamples, self.seed = width, resamples, seed
        self.found: dict[str, Any] = {}
        self.metrics: dict[str, float] = {}
        self.intervals: dict[str, tuple[float, float]] = {}

    def result(self) -> dict[str, Any]:
        """What `Record` keeps; metrics and intervals beside those of `Ranking`."""
        if not self.found:
            return {}
        return {"bump": self.found, "metrics": self.metrics, "intervals": self.intervals}

    # nothing is collected where there is nothing to measure

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        if _resonance(trainer) is not None:
            super().on_test_batch_end(trainer, pl_module, *args, **kwargs)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.found, self.metrics, self.intervals = {}, {}, {}
        if _resonance(trainer) is not None:
            super().on_test_epoch_end(trainer, pl_module)

    def after_test(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        data, resonance = trainer.datamodule, _resonance(trainer)  # type: ignore[attr-defined]
        assert resonance is not None
        announce(trainer, "looking for a bump")
        self.found = {
            "resonance": {"name": resonance.name, "low": resonance.low, "high": resonance.high},
            "remarks": [],
        }
        self._improvement(data, scores, weights_of(trainer, scores.index))
        if callable(getattr(module, "held_out", None)):
            cuts, region = self._held_out(trainer, module, split_of(data, "train"), resonance), _limits(resonance)
            asked: Any = {"function": self.function, "bins": self.bins, "width": self.width}
            if len(cuts.m):
                self.found["cuts"] = cuts.hunted(region, self.efficiencies, **asked)
                self.found["sculpting"] = cuts.sculpted(region, self.efficiencies, self.bins)
        else:
            self._without_folds(trainer, module, split_of(data, "val"), resonance)
        for cut in self.found.get("cuts", []):
            if "z" in cut:
                self.metrics[f"test/z@efficiency={cut['efficiency']:g}"] = cut["z"]
        if found := [cut for cut in self.found.get("cuts", []) if "z" in cut]:
            log.info("Significance: " + ", ".join(f"{c['z']:.2f} keeping {100 * c['efficiency']:g} %" for c in found))
        for logger in trainer.loggers:
            logger.log_metrics(self.metrics, step=trainer.global_step)

    # on test rows

    def _improvement(self, data: Any, scores: Scores, weight: NDArray[np.float32] | None) -> None:
        """The interval of the largest significance improvement, and the optimum."""
        nominal, anomalous = scores.y == 0, scores.y > 0
        if not nominal.any() or not anomalous.any():
            return
        weights = (None, None) if weight is None else (weight[nominal], weight[anomalous])
        best = max_sic(scores.score[nominal], scores.score[anomalous], *weights)
        if best is None:
            return
        if self.resamples:
            known = max_sic_interval(
                scores.score[nominal], scores.score[anomalous], *weights, resamples=self.resamples, seed=self.seed
            )
            if known is not None:
                self.intervals["test/max_sic"] = known.interval
                self.found["max_sic_bias"] = known.bias
        if data.log_ratio is None:
            return
        ratio = _log_ratio(data, scores.index)
        tpr, sic = sic_curve(ratio[nominal], ratio[anomalous], weights[0], weights[1], POINTS)
        optimum = float(sic.max())
        self.metrics["test/optimum_max_sic"] = optimum
        self.metrics["test/optimum_fraction"] = best[0] / optimum
        self.found["optimum_curve"] = {"tpr": tpr.tolist(), "sic": sic.tolist()}

    # on rows over all of the spectrum

    def _held_out(self, trainer: pl.Trainer, module: Any, rows: Events, resonance: Resonance) -> Cuts:
        parts = []
        with trainer.precision_plugin.forward_context():
            for batch in BatchLoader(rows, batch_size=AT_ONCE):
                held = module.held_out(batch.x.to(module.device), batch.context.to(module.device))
                parts.append((held.score.float().cpu(), held.fold.cpu()))
        score, fold = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
        there = ~np.isnan(score)
        self.found |= {"rows": int(there.sum()), "folds": int(module.folds), "direction": str(module.direction)}
        self.found |= {"width": self.width}
        self.found["remarks"] += _said(module, there, self.width)
        self.found["remarks"] += _unweighted(rows)
        if (rows.y < 0).any():
            self.found["remarks"].append(
                "Nobody knows the labels of the training rows: all of them count as background of the sculpting, and "
                "a signal looks like some."
            )
        m, background = resonance.of(rows.context).numpy()[there], (rows.y <= 0).numpy()[there]
        return Cuts(m, places(score[there], fold[there], self.seed), background)

    def _without_folds(self, trainer: pl.Trainer, module: Any, rows: Events, resonance: Resonance) -> None:
        """Sculpting by a detector without held-out scores, on validation rows if they reach beyond the region."""
        self.found["remarks"].append(
            f"No bump is hunted for: {type(module).__name__} has no held-out scores of the rows that it trained on."
        )
        if not len(rows) or resonance.holds(rows.context).all():
            return
        self.found["remarks"] += _unweighted(rows)
        parts = scored_by(trainer, module, BatchLoader(rows, batch_size=AT_ONCE))
        score = torch.cat([part.score for part in parts]).cpu().numpy()
        place = places(score, np.zeros(len(score)), self.seed)
        cuts = Cuts(resonance.of(rows.context).numpy(), place, (rows.y <= 0).numpy())
        self.found["sculpting"] = cuts.sculpted(_limits(resonance), self.efficiencies, self.bins)


def _resonance(trainer: pl.Trainer) -> Resonance | None:
    return getattr(getattr(trainer, "datamodule", None), "resonance", None)


def _limits(resonance: Resonance) -> tuple[float, float]:
    """Of the region, as exact as events are."""
    low, high = np.array([resonance.low, resonance.high], np.float32)
    return float(low), float(high)


def _log_ratio(data: Any, index: NDArray[np.int64]) -> NDArray[np.float64]:
    test = data.splits.test
    parts = []
    for rows in np.array_split(index, max(1, -(-len(index) // AT_ONCE))):
        events = test.take(rows)
        parts.append(data.log_ratio(events.in_memory, events.context).double().numpy())
    return np.concatenate(parts)


def _unweighted(rows: Events) -> list[str]:
    """That weights are left aside, where they differ."""
    if (rows.weight == rows.weight[:1]).all():
        return []
    return [
        "The events of a spectrum count as one each, whatever their weights: a sum of weights has no Poisson's "
        "probability. Significance improvements, on test rows, go by the weights."
    ]


def _said(module: Any, scored: NDArray[np.bool_], width: float) -> list[str]:
    """How the scores were made, and what that does to significances."""
    name, left_out = type(module).__name__, int((~scored).sum())
    if module.direction == "none":
        return [
            f"No cut is made: {name} has no folds (detector.folds=null), and would score training rows by a model that "
            "was told which region they are in, which looks like a signal where there is none."
        ]
    if module.direction == "forward":
        said = [
            f"Fold j of {module.folds} is scored by a model of the folds before it, so that significances are as wide "
            f"as they should be; the {left_out:,} events of the first have no score."
        ]
    else:
        said = [
            f"Events are scored by models of the other {module.folds - 1} folds, each of which knows what the others "
            "have by chance: without a signal, significances after a cut are right on average and too wide, 1.4 times "
            "for 5 folds of a fast classifier and 1.6 for 20. For p-values set detector.folds=forward, or "
            "callbacks.bump.width to a width that was measured on pseudo-data."
        ]
        if left_out:
            said.append(f"{left_out:,} events have no held-out score, and are left out.")
    if width != 1:
        said.append(f"Significances after a cut are divided by callbacks.bump.width={width:g}.")
    return said
