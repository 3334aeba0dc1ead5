"""What can be said of a detector without labels, on the rows of validation that select."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from straylight.callbacks.checkpoint import Checkpoint
from straylight.callbacks.halves import halved
from straylight.callbacks.progress import announce
from straylight.callbacks.scored import evaluating, said, scored_by
from straylight.criteria import Layout, codes, kinds_for, made, separation, stability
from straylight.criteria.anomalies import uniform
from straylight.criteria.codes import dead
from straylight.criteria.volume import excess_mass, mass_volume, volume_at
from straylight.data import AnomalyDataModule
from straylight.detectors.coded import Encodes, Generates, Rebuilds
from straylight.metrics.intervals import z_of
from straylight.objective import CRITERIA
from straylight.rows.batch import HIDDEN, Events
from straylight.rows.loaders import BatchLoader

log = logging.getLogger(__name__)

FEW = 200  # anomalies of a kind, where fewer rows validate
SLOW = 25  # rows, and anomalies of a kind, where scoring one is a search
VALUES = 2**22  # in the rows of a kind
POINTS = 2000  # drawn from the box
DIMENSIONS = 8  # of which the volume is measured
MASS = 0.95
VOLUMES = ("val/mass_volume", "val/excess_mass", f"val/volume@{MASS}")
TRAINING = (
    "No rows validate, so that criteria are of training rows, which a detector that learns them by heart finds "
    "ordinary: data.val_fraction has some validate."
)


class _Rows(NamedTuple):
    """The rows that criteria are of: their events, what they look like, and how many anomalies are made of them."""

    events: Events
    layout: Layout
    made: int
    held_out: bool


class Criteria(pl.Callback):
    """Measures, before the first test row is scored, what `straylight.objective.CRITERIA` names, with tested weights.

    No test row is looked at, and no label but that of an anomaly among validation rows, which is left out: rows are
    those of validation that select (`data.selecting`). Those that calibrate are left alone, so that thresholds keep
    their meaning whichever run is chosen. Where no rows validate, anomalies are made of training rows and held against
    these. All detectors of one data set and seed meet the same rows and the same anomalies. What cannot be measured is
    null, and says why. See docs/choose.md.

    The first rank measures alone. Random numbers are drawn aside.

    Args:
        max_rows: rows of validation that are looked at, drawn by seed where there are more; as many anomalies of each
            kind are made of them.
        stability: whether to train twice more, on each half of the training rows, to see whether both rank alike.
        level: of the intervals.
    """

    def __init__(self, max_rows: int = 1000, stability: bool = False, level: float = 0.95) -> None:
        if max_rows < 2 or not 0 < level < 1:
            raise ValueError(
                f"callbacks.criteria.max_rows must be two or more, and level lie between 0 and 1, not {max_rows} and "
                f"{level}"
            )
        self.max_rows, self.stability, self.level = max_rows, stability, level
        self.losses: dict[int, float] = {}
        self.found: dict[str, float | None] = {}
        self.intervals: dict[str, tuple[float, float]] = {}
        self.why_none: dict[str, str] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (loss := trainer.callback_metrics.get("val/loss")) is not None:
            self.losses[trainer.current_epoch] = float(loss)

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses = dict(state_dict["losses"])

    @torch.no_grad()
    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.found, self.intervals, self.why_none = dict.fromkeys(CRITERIA), {}, {}
        if trainer.is_global_zero:
            self._loss(trainer)
            device = pl_module.device
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                self._measure(trainer, pl_module)
            for logger in trainer.loggers:
                logger.log_metrics(
                    {name: value for name, value in self.found.items() if value is not None and name != "val/loss"},
                    step=trainer.global_step,
                )
        trainer.strategy.barrier()

    def result(self) -> dict[str, Any]:
        """What `Record` keeps."""
        intervals = {name: list(interval) for name, interval in self.intervals.items()}
        return {"criteria": self.found, "criteria_intervals": intervals, "criteria_none": self.why_none}

    def _loss(self, trainer: pl.Trainer) -> None:
        """The loss of validation in the epoch that is tested."""
        own = next((c for c in trainer.checkpoint_callbacks if isinstance(c, Checkpoint)), None)
        tested = own.best_epoch if own is not None and own.best_epoch >= 0 else max(self.losses, default=-1)
        loss = self.losses.get(tested)
        if loss is None or not math.isfinite(loss):
            self.why_none["val/loss"] = "no finite loss of validation rows selects an epoch"
        else:
            self.found["val/loss"] = loss

    def _measure(self, trainer: pl.Trainer, module: Any) -> None:
        data = getattr(trainer, "datamodule", None)
        own = set(CRITERIA) - {"val/loss"}
        if not isinstance(data, AnomalyDataModule):
            self.why_none |= dict.fromkeys(own, "no data module serves rows of validation")
            return
        try:
            rows = _rows(data, SLOW if getattr(module, "searches", False) else self.max_rows)
        except Exception as error:  # of a data set of somebody's own
            self._not_measured(own, error)
            return
        announce(trainer, "measuring criteria")
        if not rows.held_out:
            data.notice(TRAINING)
        measures: list[tuple[tuple[str, ...], Callable[[], None]]] = [
            (("val/separation", *VOLUMES), lambda: self._scores(trainer, module, data, rows)),
            (("val/nll",), lambda: self._nll(trainer, module, rows)),
            (("val/effective_dimension", "val/active_codes"), lambda: self._codes(trainer, module, rows)),
            (("val/stability",), lambda: self._stable(trainer, module, data, rows)),
        ]
        for names, measure in measures:
            try:
                measure()
            except Exception as error:  # a number less is no reason to lose a run
                self._not_measured({name for name in names if self.found[name] is None}, error)

    def _not_measured(self, names: set[str], error: Exception) -> None:
        why = said(error, 300)
        self.why_none |= dict.fromkeys(sorted(names), why)
        log.warning(f"{', '.join(sorted(names))} could not be measured: {why}")

    # what scores tell

    def _scores(self, trainer: pl.Trainer, module: Any, data: AnomalyDataModule, rows: _Rows) -> None:
        events, layout = rows.events, rows.layout
        x = events.in_memory.numpy()
        given = {
            kind: made(x, layout, kind, seed=data.seed, count=rows.made)
            for kind in kinds_for(data.shape, layout, data.series)
        }
        parts = {kind: _like(events, of.x, of.base) for kind, of in given.items()}
        why = _no_volume(layout, module)
        if why is None:
            points = uniform(layout, POINTS, np.random.default_rng([data.seed, 0]))
            base = np.resize(np.arange(len(events)), POINTS)
            parts["points"] = _like(events, points.astype(np.float32).reshape(-1, *data.shape), base)
        scores = _scored(trainer, module, data, {"rows": events, **parts})
        weight = None if events.weight.stride(0) == 0 else events.weight.numpy()
        own, drawn = scores.pop("rows"), scores.pop("points", None)
        if scores:
            found = separation(own, scores, weight, self.level)
            self._keep("val/separation", found.mean, found.interval)
            for kind, value in found.kinds.items():
                self._keep(f"val/separation/{kind}", value, found.intervals[kind])
        else:
            self.why_none["val/separation"] = "no column varies that anomalies could be made of"
        if drawn is None:
            self.why_none |= dict.fromkeys(VOLUMES, why or "")
            return
        self._keep("val/mass_volume", mass_volume(own, drawn))
        self._keep(f"val/volume@{MASS}", float(volume_at(own, drawn, MASS)))
        if math.isfinite(area := excess_mass(own, drawn)):
            self._keep("val/excess_mass", area)
        else:
            self.why_none["val/excess_mass"] = f"90 % of rows take less of the box than one of {POINTS:,} points tells"

    def _nll(self, trainer: pl.Trainer, module: Any, rows: _Rows) -> None:
        if not getattr(module, "density", False):
            self.why_none["val/nll"] = f"the score of {type(module).__name__} is no log-density"
            return
        if not rows.held_out:
            self.why_none["val/nll"] = "no rows are held out"
            return
        x, events = rows.events.in_memory, rows.events
        with evaluating(module), trainer.precision_plugin.forward_context():
            parts = zip(x.split(module.rows_at_once), events.context.split(module.rows_at_once), strict=True)
            found = [module.log_density(some.to(module.device), c.to(module.device)).cpu() for some, c in parts]
        nll = -torch.cat(found).double().numpy() / math.prod(x.shape[1:])
        if not np.isfinite(nll).all():
            self.why_none["val/nll"] = f"{int((~np.isfinite(nll)).sum()):,} rows have no finite log-density"
            return
        weight = events.weight.double().numpy()
        mean = float(np.average(nll, weights=weight))
        error = math.sqrt(float((weight**2 * (nll - mean) ** 2).sum())) / float(weight.sum())
        reach = z_of(self.level) * error
        self._keep("val/nll", mean, (mean - reach, mean + reach))

    # what codes tell

    def _codes(self, trainer: pl.Trainer, module: Any, rows: _Rows) -> None:
        if not isinstance(module, Encodes):
            for name in ("val/effective_dimension", "val/active_codes"):
                self.why_none[name] = f"{type(module).__name__} has no codes"
            return
        x = rows.events.in_memory.to(module.device)
        with evaluating(module), trainer.precision_plugin.forward_context():
            found = codes(module.latents(x).float().cpu().numpy(), normal=isinstance(module, Generates))
            scaled = module.scaling(x)
            rebuilt = module.reconstruct(scaled).float().cpu() if isinstance(module, Rebuilds) else None
        self._keep("val/effective_dimension", found.dimension)
        self._keep("val/active_codes", found.active / found.of)
        name = f"{type(module).__name__} has collapsed"
        if not found.active:
            module.notice(f"{name}: none of its {found.of} codes varies from one validation row to another.")
        if rebuilt is not None and dead(rebuilt.flatten(1).numpy(), scaled.float().cpu().flatten(1).numpy()):
            module.notice(f"{name}: it rebuilds all validation rows alike, whatever they are.")

    # what other training rows would change

    def _stable(self, trainer: pl.Trainer, module: Any, data: AnomalyDataModule, rows: _Rows) -> None:
        if not self.stability or trainer.world_size > 1:
            more = ", in one process" if self.stability else ""
            self.why_none["val/stability"] = f"callbacks.criteria.stability=true trains twice more to measure it{more}"
            return
        epochs = max(1, trainer.current_epoch)
        scores = [
            _scored(trainer, other, data, {"rows": rows.events})["rows"]
            for other in halved(trainer, module, data, epochs)
        ]
        value, interval = stability(scores[0], scores[1], self.level)
        self._keep("val/stability", value, interval)

    def _keep(self, name: str, value: float, interval: tuple[float, float] | None = None) -> None:
        self.found[name] = value
        if interval is not None:
            self.intervals[name] = interval


def _rows(data: AnomalyDataModule, most: int) -> _Rows:
    """The rows that select, or those that train where none do, no more than so many and no more than memory is for."""
    held_out = len(data.selecting) > 1
    events = data.selecting if held_out else data.splits.train
    most = max(2, min(most, VALUES // math.prod(data.shape)))
    if len(events) > most:
        rng = np.random.default_rng([data.seed, 3])
        events = events.take(np.sort(rng.choice(len(events), most, replace=False)))
    like = torch.cat([events.in_memory.flatten(1), data.training_sample(most)[0].flatten(1)])
    return _Rows(events, Layout.of(like.numpy(), data.seed), min(most, max(FEW, len(events))), held_out)


def _like(events: Events, x: NDArray[np.float32], base: NDArray[np.intp]) -> Events:
    """Made rows, each with the context of the row that it was made of."""
    return Events.of(x, np.full(len(x), HIDDEN), events.context[torch.from_numpy(base)])


def _no_volume(layout: Layout, module: Any) -> str | None:
    """Why no volume is measured; `None` if it is."""
    if getattr(module, "searches", False):
        return f"{type(module).__name__} searches for each score"
    varying = layout.low < layout.high
    if varying.sum() > DIMENSIONS:
        return f"volumes are of {DIMENSIONS} features or fewer that vary, not of {varying.sum():,}"
    if not varying.any() or (layout.fixed & varying).any():
        return "volumes are of features that are numbers, not categories"
    return None


def _scored(
    trainer: pl.Trainer, module: Any, data: AnomalyDataModule, parts: Mapping[str, Events]
) -> dict[str, NDArray[np.float32]]:
    """Scores of several sets of events, as the test would score them, in one pass."""
    together = Events.cat(*(Events.of(part.in_memory, None, part.context) for part in parts.values()))
    loader = BatchLoader(together, batch_size=data.eval_batch_size)  # all of them, on this rank
    scores = torch.cat([part.score for part in scored_by(trainer, module, loader)]).float().cpu().numpy()
    ends = np.cumsum([len(part) for part in parts.values()])[:-1]
    return dict(zip(parts, np.split(scores, ends), strict=True))
