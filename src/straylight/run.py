"""A run folder is the model: open it and score new events."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from omegaconf import DictConfig
from pydantic import BaseModel, NonNegativeInt, PositiveInt
from torch import Tensor

from straylight import config
from straylight.callbacks.gallery import drawn
from straylight.callbacks.material import Material
from straylight.detectors import Detector
from straylight.errors import ConfigError, DataError
from straylight.files.recipe import Recipe
from straylight.folder import RunFolder
from straylight.job.checkpoints import read_checkpoint
from straylight.job.kept import as_tested, data_of, material_of
from straylight.job.train import load, put
from straylight.metrics.conformal import ROUNDING, Calibration, benjamini_hochberg, held_nominal, needed
from straylight.metrics.crossed import CrossCalibration
from straylight.report.card import of_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UNSET = "it was trained without callbacks.thresholds or without validation rows (data.val_fraction) to set one on."


class Run:
    """A finished run.

    Example: `Run.open("outputs/runs/2026-11-23_10-00-00-000000").score(rows)`.

    Attributes:
        folder: of the run.
        cfg: its composed config.
        detector: rebuilt, with the weights it was tested with, ready to score.
        kinds: names of the labels.
        result: what `result.json` says, empty if there is none.
        known: what `shape.json` says of the events: their shape, context, kinds, and how they were made of a file.
    """

    def __init__(
        self, folder: Path, cfg: DictConfig, detector: Detector, known: dict[str, Any], result: Mapping[str, Any]
    ) -> None:
        self.folder, self.cfg, self.detector, self.known, self.result = folder, cfg, detector, known, result
        self.kinds = tuple(known["kinds"])

    @classmethod
    def open(cls, folder: str | Path, *, trust: Collection[str] = ()) -> Run:
        """Rebuild the detector of a run, which somebody else may have made: nothing that came with it is run.

        Args:
            folder: of the run.
            trust: modules or packages, apart from Straylight's own, that its config may build classes of.

        Raises:
            ConfigError: if the folder is not a run's, is damaged, holds no checkpoint, or names what nobody trusts.
        """
        place = RunFolder(folder)
        cfg = config.opened(place, trust)
        result: Mapping[str, Any] = place.sound() or {}
        known = _known(place)
        named = result.get("checkpoint")
        checkpoint = place.newest_checkpoint if named is None else place.checkpoint(Path(named).stem)
        if checkpoint is None or not checkpoint.is_file():
            raise ConfigError(f"{place} holds no checkpoint: none was kept, or training stopped before there was one.")
        _check_size(place, known, checkpoint)
        detector = config.build(cfg, "detector", shape=tuple(known["shape"]), context=known["context"])
        place.check_same_run(checkpoint, load(detector, checkpoint))
        place.check_whole(checkpoint)
        return cls(place.path, cfg, detector, known, result)

    def _repr_html_(self) -> str:
        """What a notebook shows of it: see `straylight.report.card`."""
        return of_folder(self.folder)

    @cached_property
    def material(self) -> Material:
        """What its figures are drawn from: the scores of the test as the run wrote them, and its data set, loaded.

        Raises:
            ConfigError: if the data set is not to be had, or is another one now.
        """
        return material_of(self, data_of(self))

    def draw(self, name: str) -> Figure:
        """A figure of the run by its name, such as `scores` or `latent_2d`, as the run itself would have drawn it.

        Example: `Run.open("outputs/runs/2026-11-23_10-00-00-000000").draw("latent_2d").savefig("codes.png")`.

        Raises:
            ConfigError: see `material`.
            ValueError: if there is no such figure, or it does not apply.
        """
        with as_tested(self), torch.no_grad():
            return drawn(name, self.material)

    def score_file(self, path: str | Path, *, batch_size: int = 16384) -> NDArray[np.float32]:
        """Anomaly scores of the rows of another file, with the columns of the one that the run was trained on, `(N,)`.

        Columns are found by name, in any order; text is encoded and missing values are filled in as in the run. The
        file is read in chunks, so that it may be larger than memory.

        Raises:
            ConfigError: if the run's data were not `data=file`.
            DataError: if the file does not fit.
        """
        size = min(batch_size, self.detector.rows_at_once)
        chunks = self._recipe("give its events to score()").read(path, size)
        return np.concatenate([self.score(part.x[:], part.context, batch_size=size) for part in chunks])

    def _recipe(self, instead: str) -> Recipe:
        recipe = self.known.get("recipe", {})  # which runs of earlier versions lack
        if "features" not in recipe:
            raise ConfigError(f"{self.folder} was not trained on a file (data=file); {instead}.")
        try:
            return Recipe.from_json(recipe)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{self.folder}/shape.json cannot be read: its recipe is damaged.") from error

    @torch.inference_mode()
    def score(self, x: Any, context: ArrayLike | None = None, *, batch_size: int = 16384) -> NDArray[np.float32]:
        """Anomaly scores of events, `(N, *shape)` to `(N,)`, larger is stranger.

        A table with names (of pandas, polars or pyarrow) goes by them, as a file does in `score_file`: its columns may
        stand in any order, and are encoded, filled in and centred as in the run. An array holds features and context as
        the run's data set served them.

        Raises:
            ConfigError: if the events are not of the shape that the detector was trained on, or the run's data had no
                names.
            DataError: if a table lacks a column, or holds what does not fit.
        """
        return self._scored(self.detector, *self._events(x, context), batch_size)

    def _events(self, x: Any, context: ArrayLike | None) -> tuple[Tensor, Tensor]:
        """Events and context as the detector takes them, `(N, *shape)` and `(N, C)`."""
        if hasattr(x, "columns"):
            kept = self._recipe("give its events as an array")
            (events,) = kept.apply([kept.table(x)])
            return events.x[:], events.context
        rows = torch.as_tensor(np.asarray(x, dtype=np.float32))
        columns = (
            rows.new_zeros(len(rows), 0) if context is None else torch.as_tensor(np.asarray(context, dtype=np.float32))
        )
        if rows.shape[1:] != self.detector.shape or columns.shape != (len(rows), self.detector.context):
            raise ConfigError(
                f"This run scores events of shape {self.detector.shape} with {self.detector.context} columns of "
                f"context, not {tuple(rows.shape[1:])} with {tuple(columns.shape[1:])}."
            )
        return rows, columns

    def _scored(self, detector: Detector, x: Tensor, context: Tensor, batch_size: int) -> NDArray[np.float32]:
        size = min(batch_size, detector.rows_at_once)
        parts = zip(x.split(size), context.split(size), strict=True)
        return torch.cat([detector(*part).float() for part in parts]).numpy() if len(x) else np.empty(0, np.float32)

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds that were set on calibration rows, by rule: `quantile`, `fpr=0.01`, `rate`, `f1`.

        Of several accepted rates each has its number, as `rate=100`. A score must exceed its threshold; infinite is one
        by which nothing may be flagged. The rule `fdr` has none, nor has any that was set across folds.
        """
        found = {}
        for entry in self._entries:
            if (
                entry["rule"] != "fdr"
                and "folds" not in entry
                and (entry["rule"] != "f1" or entry["value"] is not None)
            ):
                found[self._name(entry)] = float("inf") if entry["value"] is None else float(entry["value"])
        return found

    def p_values(self, x: Any, context: ArrayLike | None = None, *, batch_size: int = 16384) -> NDArray[np.float64]:
        """Conformal p-values of events, `(N, *shape)` to `(N,)`, small is strange; see `Calibration`.

        Of nominal events at most a fraction a has a p-value of a or less, on average over calibration samples; of a run
        that calibrated across folds see `straylight.metrics.crossed.CrossCalibration` for how many at most.

        Example: `Run.open(folder).p_values(rows) <= 0.01`.

        Raises:
            ConfigError: if the run has no calibration scores, or the events are not of its shape.
            DataError: if a score is NaN.
        """
        columns = self._calibrating()
        if "fold" in columns:
            return self._across_folds(columns, x, context, batch_size)
        return _calibration(columns).p_values(self._sound(x, context, batch_size))

    @torch.inference_mode()
    def _across_folds(
        self, columns: Mapping[str, Any], x: Any, context: ArrayLike | None, batch_size: int
    ) -> NDArray[np.float64]:
        """P-values by the detectors that were fitted without a fold each."""
        rows, given = self._events(x, context)
        place = RunFolder(self.folder)
        saved = read_checkpoint(place.folds)
        place.check_same_run(place.folds, saved.get("run"))
        place.check_whole(place.folds)
        known, new = [], []
        for fold in np.unique(columns["fold"]):
            prefix = f"{fold}."
            state = {k.removeprefix(prefix): v for k, v in saved["state_dict"].items() if k.startswith(prefix)}
            detector = copy.deepcopy(self.detector)
            put(detector, state, place.folds)
            known.append(columns["score"][columns["fold"] == fold])
            new.append(self._scored(detector, rows, given, batch_size))
        try:
            return CrossCalibration(known).p_values(new)
        except ValueError as error:
            raise DataError(f"{error}, so that they can be neither flagged nor passed.") from error

    def flag(
        self, x: Any, rule: str = "quantile", context: ArrayLike | None = None, *, batch_size: int = 16384
    ) -> NDArray[np.bool_]:
        """Which events are anomalous by one of the run's `thresholds`, `(N, *shape)` to `(N,)` booleans.

        By the rule `fdr` it depends on all of these events together; by the others on each event alone.

        Example: `Run.open(folder).flag(rows, "fpr=0.01")`.

        Raises:
            ConfigError: if the run has no such rule, had too few rows to set it, or the events are not of its shape.
            DataError: if a score is NaN.
        """
        rates = {entry["rule"]: entry["asked"]["fdr"] for entry in self._entries if entry["rule"] == "fdr"}
        across = {self._name(entry): entry for entry in self._entries if "folds" in entry and entry.get("fpr")}
        known = {**self.thresholds, **across, **rates}
        if rule not in known:
            known_ones = f"but {', '.join(known)}." if known else f"and no other: {_UNSET}"
            raise ConfigError(f"{self.folder} has no threshold {rule!r}, {known_ones}")
        entry = next(entry for entry in self._entries if self._name(entry) == rule)
        if rule in rates:
            too_few = (known_rows := entry.get("calibration")) is not None and known_rows < needed(rates[rule])
            said = f"It takes {needed(rates[rule]):,} nominal calibration rows or more, and there are {known_rows}."
        elif rule in across:
            too_few, said = not entry["expected_fpr"], entry["remark"]
        else:
            too_few, said = known[rule] == math.inf, entry.get("remark") or "Nothing lies above it."
        if too_few:
            raise ConfigError(f"{self.folder} could set no threshold {rule!r}, so that nothing can be flagged. {said}")
        if rule in rates:
            return benjamini_hochberg(self.p_values(x, context, batch_size=batch_size), rates[rule])
        if rule in across:
            return np.asarray(self.p_values(x, context, batch_size=batch_size) <= entry["fpr"] * ROUNDING)
        return np.asarray(self._sound(x, context, batch_size) > np.float64(known[rule]))

    def _sound(self, x: Any, context: ArrayLike | None, batch_size: int) -> NDArray[np.float32]:
        """The scores of events that are to be judged by them."""
        scores = self.score(x, context, batch_size=batch_size)
        if nans := int(np.isnan(scores).sum()):
            raise DataError(f"{nans} of {len(scores)} events have a NaN score and can be neither flagged nor passed.")
        return scores

    def _name(self, entry: dict[str, Any]) -> str:
        return _named(entry, sum(one["rule"] == "rate" for one in self._entries) > 1)

    @property
    def _entries(self) -> list[dict[str, Any]]:
        return list(self.result.get("thresholds", []))

    def _calibrating(self) -> dict[str, Any]:
        """The scores that thresholds were set on, and what else is known of their rows."""
        place = RunFolder(self.folder)
        if not place.calibration.is_file():
            raise ConfigError(f"{place} holds no calibration scores ({place.calibration.name}): {_UNSET}")
        return place.columns(place.calibration)


def _calibration(columns: Mapping[str, Any]) -> Calibration:
    nominal = held_nominal(columns["y"])
    return Calibration(columns["score"][nominal], columns["weight"][nominal] if "weight" in columns else None)


LARGE = 2**22  # numbers in an event of which nothing is said


class _Known(BaseModel, extra="allow"):
    """What `shape.json` holds."""

    shape: list[PositiveInt]
    context: NonNegativeInt
    kinds: list[str]
    recipe: dict[str, Any] = {}  # runs of earlier versions have none
    run: str | None = None


def _known(place: RunFolder) -> dict[str, Any]:
    if not place.shape.is_file():
        raise ConfigError(f"{place} stopped before its data were read (no shape.json): there is nothing to open.")
    try:
        known = _Known.model_validate_json(place.shape.read_bytes(), strict=True).model_dump()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{place.shape} cannot be read: {' '.join(str(error).split())}") from error
    place.check_same_run(place.shape, known["run"])
    place.check_whole(place.shape)
    return known


def _check_size(place: RunFolder, known: Mapping[str, Any], checkpoint: Path) -> None:
    """Make sure that what `shape.json` says is no larger than a checkpoint as small can be of."""
    count, size = math.prod(known["shape"]) + known["context"], checkpoint.stat().st_size
    if count > max(LARGE, size):  # a scaling alone holds more bytes than there are numbers in an event
        raise ConfigError(
            f"{place.shape} says that an event has {count:,} numbers, and {checkpoint.name} of {size:,} bytes is of a "
            "smaller one."
        )


def _named(threshold: dict[str, Any], several_rates: bool = False) -> str:
    """What a rule is called; there may be several thresholds at a target FPR, and at an accepted rate."""
    if threshold["rule"] == "rate" and several_rates:
        return f"rate={threshold['asked']['accept_hz']:g}"
    return f"fpr={threshold['asked']['fpr']:g}" if threshold["rule"] == "fpr" else str(threshold["rule"])
