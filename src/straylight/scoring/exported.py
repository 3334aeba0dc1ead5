"""An exported folder as what `Scorer` takes for a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from straylight.export.model import Model
from straylight.files.fitting import Part
from straylight.files.recipe import Recipe, of_arrays
from straylight.metrics.judge import Judge

BATCH = 16384  # rows that are scored together


class Exported:
    """An exported folder; its scores, thresholds and p-values are those of its graph and of what it kept.

    Args:
        model: opened.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.folder = model, model.folder
        self.known, self.detector = model.known, model.detector
        self.judge = _Kept(model)

    def recipe(self, path: Path) -> Recipe:
        """How the events of a file are read."""
        if self.model.recipe is not None:
            return self.model.recipe
        kept = self.known.get("recipe", {})
        return of_arrays(path, kept, self.detector.shape, self.detector.context)

    def scored(self, part: Part) -> NDArray[np.float32]:
        """The scores of events, `(m,)`."""
        context = part.context.numpy() if self.detector.context else None
        return self.model.score(part.x.numpy(), context, batch_size=BATCH)

    def p_of(self, part: Part, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Their p-values."""
        return self.judge.p_values(scores)


class _Kept(Judge):
    """The thresholds of a folder, and p-values by the calibration scores that it kept."""

    def __init__(self, model: Model) -> None:
        kept, columns = model.calibration, None
        if kept is not None:
            above = np.r_[kept["n"], kept["above"]]
            times = np.round(-np.diff(above)).astype(np.int64)  # how often each score stands there
            score = np.repeat(np.asarray(kept["scores"], dtype=np.float64), times)
            columns = {"score": score, "y": np.zeros(len(score), dtype=np.int64)}
        entries = [entry for entry in model.result.get("thresholds", []) if "folds" not in entry or kept is not None]
        super().__init__(str(model.folder), entries, columns)
        self._model = model

    def p_values(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        return self._model.p_values(scores)
