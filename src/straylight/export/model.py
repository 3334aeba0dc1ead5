"""An exported folder, opened again."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from straylight.errors import ConfigError, DataError
from straylight.export.calibration import p_values
from straylight.export.description import recipe_of
from straylight.export.sessions import run
from straylight.export.written import GRAPHS, MODEL, digest, read
from straylight.files.recipe import Recipe


class Model:
    """A detector as `straylight export` wrote it, which scores without torch's detector.

    Example: `Model.open("exported").score(rows)`.

    Attributes:
        folder: that was opened.
        detector: `shape`, `context` and `rows_at_once` of what the graph takes.
        known: what the run's `shape.json` says of its events.
        result: the part of the run's `result.json` that was kept.
        kinds: names of the labels.
        kind: of the graph, `onnx` or `pt2`.
        recipe: how a file becomes events; `None` where the run was not trained on one.
        thresholds: by rule, see `straylight.run.Run.thresholds`.
        calibration: what `straylight.export.calibration.written` kept; `None` if the run had none.
    """

    def __init__(self, folder: Path, held: Mapping[str, Any], session: Any) -> None:
        self.folder, self._session = folder, session
        self.known: dict[str, Any] = dict(held["known"])
        self.result: dict[str, Any] = dict(held["result"])
        self.kinds = tuple(self.known["kinds"])
        self.kind = str(held["graph"]["to"])
        self.detector = SimpleNamespace(
            shape=tuple(self.known["shape"]),
            context=int(self.known["context"]),
            rows_at_once=int(held["graph"]["rows_at_once"]),
        )
        self.recipe: Recipe | None = recipe_of(self.known)
        self.thresholds = {
            name: float("inf") if value is None else float(value) for name, value in held["thresholds"].items()
        }
        self.calibration, self._why = held["calibration"], held["no_calibration"]

    @classmethod
    def open(cls, folder: str | Path, *, threads: int = 1) -> "Model":
        """Open a folder that `straylight export` wrote.

        Args:
            folder: of the export.
            threads: of the processor that ONNX Runtime takes; 0 for as many as there are cores.

        Raises:
            ConfigError: if it is no such folder, or its graph is not the one that was written there.
        """
        folder = Path(folder)
        held = read(folder)
        try:
            graph = held["graph"]
            kind = GRAPHS[graph["to"]]
            path = folder / kind.file
            if not path.is_file():
                raise ConfigError(f"{folder} holds no {kind.file}; export the run again.")
            if digest(path) != graph["sha256"]:
                raise ConfigError(f"{path} is not the graph that was exported: it was damaged or changed since.")
            return cls(folder, held, kind.open(path, threads))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{folder / MODEL} is damaged ({type(error).__name__}: {error}).") from error

    def score(self, x: Any, context: ArrayLike | None = None, *, batch_size: int = 16384) -> NDArray[np.float32]:
        """Anomaly scores of events, `(N, *shape)` to `(N,)`, larger is stranger; see `straylight.run.Run.score`.

        Args:
            x: events as an array; or a table with names (of pandas, polars or pyarrow), where there is a `recipe`.
            context: `(N, C)`, of an array.
            batch_size: rows at once, at most.

        Raises:
            ConfigError: if the events are not of the shape that the graph takes, or a table is given and there is no
                recipe.
            DataError: if a table lacks a column, or holds what does not fit.
        """
        if hasattr(x, "columns"):
            if self.recipe is None:
                raise ConfigError(f"{self.folder} was not trained on a file (data=file); give its events as an array.")
            parts = self.recipe.parts([self.recipe.table(x)])
            return np.concatenate([part.spread(self._scores(part.x, part.context, batch_size)) for part in parts])
        rows = torch.as_tensor(np.asarray(x, dtype=np.float32))
        columns = rows.new_zeros(len(rows), 0)
        if context is not None:
            columns = torch.as_tensor(np.asarray(context, dtype=np.float32))
        if rows.shape[1:] != self.detector.shape or columns.shape != (len(rows), self.detector.context):
            raise ConfigError(
                f"This graph scores events of shape {self.detector.shape} with {self.detector.context} columns of "
                f"context, not {tuple(rows.shape[1:])} with {tuple(columns.shape[1:])}."
            )
        return self._scores(rows, columns, batch_size)

    def _scores(self, x: Tensor, context: Tensor, batch_size: int) -> NDArray[np.float32]:
        size = max(1, min(batch_size, self.detector.rows_at_once))
        parts = zip(x.split(size), context.split(size), strict=True)
        found = [run(self._session, *part) for part in parts] if len(x) else []
        return np.concatenate([np.empty(0, np.float32), *found])

    def p_values(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Conformal p-values of scores, `(N,)`, small is strange.

        They are those of `straylight.run.Run.p_values`; where there were more than ten thousand calibration scores, up
        to a tenth of a per cent larger.

        Raises:
            ConfigError: if the run has no calibration scores.
            DataError: if a score is NaN.
        """
        if self.calibration is None:
            raise ConfigError(
                f"{self.folder} has no calibration scores, of which p-values are. {self._why or ''}".strip()
            )
        try:
            return p_values(self.calibration, scores)
        except ValueError as error:
            raise DataError(f"{error}.") from error
