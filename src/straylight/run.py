"""A run folder is the model: open it and score new events."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from straylight.detectors.scores import BATCH, scores_of
from straylight.errors import ConfigError, DataError
from straylight.files.fitting import Lacking, Part, Rules, Tally, Unseen
from straylight.files.recipe import Recipe, of_arrays
from straylight.folder import RunFolder
from straylight.job.checkpoints import read_checkpoint
from straylight.job.kept import as_tested, data_of, material_of
from straylight.job.train import load, put
from straylight.metrics.judge import Judge
from straylight.report.card import of_folder

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

    from straylight.explain import Explainer, Explanation

log = logging.getLogger(__name__)


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

    @property
    def rows(self) -> pa.Table:
        """The rows of its test with their scores, as it wrote them: `index`, `score`, `y`, `kind` and what names them.

        A table of Arrow: `run.rows.to_pandas()`, `polars.from_arrow(run.rows)`. `docs/runs.md` says what its columns
        are.

        Example: `Run.open(folder).rows.sort_by([("score", "descending")]).slice(0, 10)`, the ten strangest.

        Raises:
            ConfigError: if the run kept no scores, or they are damaged.
        """
        place = RunFolder(self.folder)
        if not place.scores.is_file():
            raise ConfigError(f"{place} holds no scores of test rows ({place.scores.name}): its test has not ended.")
        return place.table(place.scores)

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

    @cached_property
    def explainer(self) -> Explainer:
        """What says why events have their scores; see `straylight.explain`."""
        from straylight.explain import Explainer, features_of

        recipe = self.known.get("recipe", {})
        shape, columns = self.detector.shape, recipe.get("columns", ())
        return Explainer(self.detector, features_of(shape, columns, recipe), lambda: data_of(self), recipe=recipe)

    def explain(self, x: Any, context: ArrayLike | None = None, **options: Any) -> Explanation:
        """What each feature adds to the score of each event, above that of nominal events like it.

        Example: `why = Run.open(folder).explain("new.csv"); why.contributions.sum(1) + why.baseline` are the scores.

        Args:
            x, context: see `score`; rows that do not fit are left out.
            options: `method`, `evaluations`, `references` and `reference`, see `straylight.explain.Explainer`.

        Raises:
            ConfigError, DataError: see `score` and `straylight.explain.Explainer`.
        """
        parts = list(self.parts(x, context))
        with as_tested(self):
            return self.explainer(torch.cat([p.x for p in parts]), torch.cat([p.context for p in parts]), **options)

    def score(
        self,
        x: Any,
        context: ArrayLike | None = None,
        *,
        batch_size: int = BATCH,
        missing: Lacking | None = None,
        unseen: Unseen | None = None,
    ) -> NDArray[np.float32]:
        """Anomaly scores of events, `(N, *shape)` to `(N,)`, larger is stranger.

        A file, by its path, and a table with names (of pandas, polars or pyarrow) go by names: columns may stand in any
        order, and are read as the types that they had in training, encoded, filled in and centred as in the run. A file
        is read in chunks, so that it may be larger than memory. An array holds features and context as the run's data
        set served them.

        Example: `Run.open(folder).score("new.csv", missing="skip")`.

        Args:
            x: an array, a table or a path.
            context: of an array, `(N, C)`.
            batch_size: rows that are scored together.
            missing, unseen: what is done about rows that do not fit, see `straylight.files.fitting.Rules`; as the run
                was trained, if left out. One that is skipped has a NaN.

        Raises:
            ConfigError: if the events are not of the shape that the detector was trained on, or the run's data had no
                names.
            DataError: if a column is missing, or a row does not fit and is not skipped.
        """
        return self._over(x, context, batch_size, missing, unseen, self.scored)

    def p_values(
        self,
        x: Any,
        context: ArrayLike | None = None,
        *,
        batch_size: int = BATCH,
        missing: Lacking | None = None,
        unseen: Unseen | None = None,
    ) -> NDArray[np.float64]:
        """Conformal p-values of events, `(N, *shape)` to `(N,)`, small is strange; see `Calibration`.

        Of nominal events at most a fraction a has a p-value of a or less, on average over calibration samples; of a run
        that calibrated across folds see `straylight.metrics.crossed.CrossCalibration` for how many at most.

        Example: `Run.open(folder).p_values(rows) <= 0.01`.

        Args:
            x, context, batch_size, missing, unseen: see `score`.

        Raises:
            ConfigError: if the run has no calibration scores, or see `score`.
            DataError: if a score is NaN, or see `score`.
        """
        self.judge.calibration if not self.judge.folds else None  # noqa: B018, refused before anything is scored

        def judged(part: Part, size: int) -> NDArray[np.float64]:
            return self.p_of(part, self.scored(part, size), size)

        return self._over(x, context, batch_size, missing, unseen, judged)

    def flag(
        self,
        x: Any,
        rule: str = "quantile",
        context: ArrayLike | None = None,
        *,
        batch_size: int = BATCH,
        missing: Lacking | None = None,
        unseen: Unseen | None = None,
    ) -> NDArray[np.bool_]:
        """Which events are anomalous by a threshold, `(N, *shape)` to `(N,)` booleans.

        The threshold is one of the run's `thresholds`, or is set now on its calibration rows: `fpr=0.001`,
        `quantile=0.9`, `fdr=0.05`; or it is a score, `score=3.5`. By `fdr` an event is flagged by all of these events
        together; by the others each alone.

        Example: `Run.open(folder).flag("new.parquet", "fpr=0.01")`.

        Args:
            x, context, batch_size, missing, unseen: see `score`.
            rule: the threshold.

        Returns:
            booleans; where rows were skipped, a masked array, in which these are masked.

        Raises:
            ConfigError: if there is no such threshold, too few rows to set it, or see `score`.
            DataError: if a score is NaN, or see `score`.
        """
        cut = self.judge.cut(rule)

        def judged(part: Part, size: int) -> NDArray[np.float64]:
            scores = self.scored(part, size)
            p = self.p_of(part, scores, size) if cut.above is None else np.zeros(len(scores))
            return np.stack([self._sound(scores).astype(np.float64), p], 1)

        scores, p = self._over(x, context, batch_size, missing, unseen, judged, width=2).T
        flagged = cut.flags(scores, p)
        gone = np.isnan(scores)
        return np.ma.MaskedArray(flagged, gone) if gone.any() else flagged

    def parts(
        self,
        x: Any,
        context: ArrayLike | None = None,
        *,
        rules: Rules | None = None,
        tally: Tally | None = None,
        also: Sequence[str] = (),
        batch_size: int = BATCH,
    ) -> Iterator[Part]:
        """Events and context as the detector takes them, of those rows that fit, in pieces of bounded memory.

        Args:
            x, context: see `score`.
            rules: what is done about rows that do not fit; `None` as the run was trained, and for an array, nothing.
            tally: is told of them.
            also: further columns of a file or a table, as they are.
            batch_size: rows that are scored together.
        """
        if isinstance(x, str | Path):
            size = min(batch_size, self.detector.rows_at_once)
            return self.recipe(Path(x)).read(x, size, rules, tally, also)
        if hasattr(x, "columns"):
            kept = self.recipe()
            return kept.parts([kept.table(x, also)], rules, tally, also)
        if rules is not None:
            raise ConfigError(
                "an array holds features as they were served: missing and unseen are for tables and files."
            )
        rows, columns = self._events(x, context)
        return iter([Part(0, len(rows), rows, columns)])

    def recipe(self, path: Path | None = None) -> Recipe:
        """What makes events of a table, or of a file; see `Recipe`.

        Raises:
            ConfigError: if the run's data had no names, and the file does not hold one array of its events.
        """
        kept = self.known.get("recipe", {})  # which runs of earlier versions lack
        if "features" not in kept:
            if path is not None:
                return of_arrays(path, kept, self.detector.shape, self.detector.context)
            raise ConfigError(f"{self.folder} was not trained on a file (data=file); give its events as an array.")
        try:
            return Recipe.from_json(kept)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{self.folder}/shape.json cannot be read: its recipe is damaged.") from error

    def _over(
        self,
        x: Any,
        context: ArrayLike | None,
        batch_size: int,
        missing: Lacking | None,
        unseen: Unseen | None,
        of_part: Callable[[Part, int], NDArray[Any]],
        width: int | None = None,
    ) -> NDArray[Any]:
        """What is found of every part, `(N,)` or `(N, width)`; NaN of the rows that do not fit."""
        tally = Tally()
        rules = None if missing is None and unseen is None else Rules.of(missing, unseen, self._trained)
        parts = self.parts(x, context, rules=rules, tally=tally, batch_size=batch_size)
        found = [part.spread(of_part(part, batch_size)) for part in parts]
        where = f"{x}: " if isinstance(x, str | Path) else ""
        tally.tell(lambda sentence: log.warning(where + sentence))
        return np.concatenate(found) if found else np.empty((0,) if width is None else (0, width))

    @property
    def _trained(self) -> str:
        return str(self.known.get("recipe", {}).get("missing", "error"))

    def _events(self, x: Any, context: ArrayLike | None) -> tuple[Tensor, Tensor]:
        """Events and context of arrays, `(N, *shape)` and `(N, C)`."""
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

    def scored(self, part: Part, batch_size: int = BATCH, detector: Detector | None = None) -> NDArray[np.float32]:
        """The scores of events as `parts` gives them, `(m,)`, by another detector of the same shape if one is given."""
        return scores_of(self.detector if detector is None else detector, part.x, part.context, batch_size)

    def p_of(self, part: Part, scores: NDArray[np.float32], batch_size: int = BATCH) -> NDArray[np.float64]:
        """The p-values of events with these scores, `(N,)`, which of a run that calibrated across folds do not do."""
        if not self.judge.folds:
            return self.judge.p_values(self._sound(scores))
        try:
            return self.judge.p_values(np.stack([self.scored(part, batch_size, one) for one in self.fold_detectors]))
        except ValueError as error:
            raise DataError(f"{error}, so that they can be neither flagged nor passed.") from error

    @cached_property
    def judge(self) -> Judge:
        """The thresholds and calibration scores of the run."""
        place = RunFolder(self.folder)
        wanted = {"index", "score", "y", "weight", "fold"}.__contains__
        columns = place.columns(place.calibration, wanted) if place.calibration.is_file() else None
        return Judge(str(self.folder), list(self.result.get("thresholds", [])), columns)

    @cached_property
    def fold_detectors(self) -> list[Detector]:
        """The detectors that were fitted without a fold each, if it calibrated across folds."""
        place = RunFolder(self.folder)
        saved = read_checkpoint(place.folds)
        place.check_same_run(place.folds, saved.get("run"))
        place.check_whole(place.folds)
        found = []
        for fold in range(len(self.judge.folds)):
            prefix = f"{fold}."
            state = {k.removeprefix(prefix): v for k, v in saved["state_dict"].items() if k.startswith(prefix)}
            detector = copy.deepcopy(self.detector)
            put(detector, state, place.folds)
            found.append(detector)
        return found

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds that were set on calibration rows, by rule: `quantile`, `fpr=0.01`, `rate`, `f1`.

        Of several accepted rates each has its number, as `rate=100`. A score must exceed its threshold; infinite is one
        by which nothing may be flagged. The rule `fdr` has none, nor has any that was set across folds.
        """
        return self.judge.thresholds

    def _sound(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of events that are to be judged by them."""
        if nans := int(np.isnan(scores).sum()):
            raise DataError(f"{nans} of {len(scores)} events have a NaN score and can be neither flagged nor passed.")
        return scores


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
