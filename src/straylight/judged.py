"""What scores new events: a finished run, or a study."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from straylight.callbacks.scored import evaluating
from straylight.detectors import Detector
from straylight.detectors.scores import BATCH, scores_of
from straylight.errors import ConfigError, DataError
from straylight.files.fitting import Lacking, Part, Rules, Tally, Unseen
from straylight.files.recipe import Recipe, of_arrays
from straylight.metrics.judge import Judge

if TYPE_CHECKING:
    from straylight.explain import Explainer, Explanation

log = logging.getLogger(__name__)


class Judged:
    """A trained detector, what makes events of a file, and calibration scores: all that scores and judges new events.

    Attributes:
        detector: ready to score.
        known: what is known of the events: their shape, context, kinds, and how they were made of a file.
    """

    detector: Detector
    known: Mapping[str, Any]

    @property
    def judge(self) -> Judge:
        """Its thresholds and calibration scores."""
        raise NotImplementedError(f"{type(self).__name__} must have what judges scores")

    @property
    def fold_detectors(self) -> Sequence[Detector]:
        """Those that were fitted without a fold each, if it calibrated across folds."""
        return ()

    @property
    def called(self) -> str:
        """What it is called in errors."""
        raise NotImplementedError(f"{type(self).__name__} must say what it is called")

    def training_data(self) -> Any:
        """The data set that it was trained on, loaded."""
        raise NotImplementedError(f"{type(self).__name__} must have its data set")

    @cached_property
    def explainer(self) -> Explainer:
        """What says why events have their scores; see `straylight.explain`."""
        from straylight.explain import Explainer, features_of

        recipe = self.known.get("recipe", {})
        shape, columns = self.detector.event_shape, recipe.get("columns", ())
        return Explainer(self.detector, features_of(shape, columns, recipe), self.training_data, recipe=recipe)

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
        with evaluating(self.detector):
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
                return of_arrays(path, kept, self.detector.event_shape, self.detector.context)
            raise ConfigError(f"{self.called} was not trained on a file (data=file); give its events as an array.")
        try:
            return Recipe.from_json(kept)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{self.called} cannot be read: its recipe is damaged.") from error

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
        if rows.shape[1:] != self.detector.event_shape or columns.shape != (len(rows), self.detector.context):
            raise ConfigError(
                f"This run scores events of shape {self.detector.event_shape} with {self.detector.context} columns of "
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

    def _sound(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of events that are to be judged by them."""
        if nans := int(np.isnan(scores).sum()):
            raise DataError(f"{nans} of {len(scores)} events have a NaN score and can be neither flagged nor passed.")
        return scores
