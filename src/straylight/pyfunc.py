"""A finished run as a model of MLflow's, `pyfunc`: a table or an array in, scores, p-values and flags out.

The model holds the run's own files and no pickle: MLflow finds this module by its name and calls `_load_pyfunc`, which
opens the run as `Run.open` does. Straylight must be installed where it is loaded.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from straylight.callbacks.mlflow_log import muted
from straylight.errors import ConfigError
from straylight.extras import needed
from straylight.files.recipe import Recipe
from straylight.folder import RunFolder
from straylight.metrics.judge import Cut
from straylight.run import Run

if TYPE_CHECKING:
    import pandas as pd

#: What a model needs where it is loaded, in the versions that the run was made with.
PACKAGES = ("straylight", "torch", "pytorch-lightning", "scikit-learn", "numpy")


def save(run: Run, folder: str | Path) -> Path:
    """Write a run as a model of MLflow's, which `mlflow.pyfunc.load_model(folder)` loads.

    It has a signature, of columns by their names where the run was trained on a table; an example of the input, which
    is made up of what is typical and is no row of the data; and the packages that it needs.

    Args:
        run: opened.
        folder: of the model, which must not be there or be empty.

    Returns:
        the folder.

    Raises:
        ConfigError: if MLflow is not installed, something is in the way, or the run cannot be opened without a
            `trust` that nobody will be asked for.

    Example: `save(Run.open("outputs/runs/2026-11-23_10-00-00-000000"), "model")`.
    """
    needed("an MLflow model", "mlflow", "mlflow", "pandas")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already; say another folder for the model, or remove it.")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would tell its makers, once it is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        from mlflow.models import ModelSignature
    with muted(), tempfile.TemporaryDirectory() as held:
        copy = Path(held, "run")
        _copy(RunFolder(run.folder), copy)
        try:
            scorer = _load_pyfunc(copy)
        except ConfigError as error:
            said = str(error).partition(": opening this")[0].rstrip(".")
            raise ConfigError(
                f"{run.folder} cannot become a model that opens without being trusted: {said}."
            ) from error
        inputs, example = _inputs(run)
        mlflow.pyfunc.save_model(
            path=str(folder),
            loader_module=__name__,
            data_path=str(copy),
            pip_requirements=_requirements(run.result),
            signature=ModelSignature(inputs=inputs, outputs=_outputs(scorer.predict(example))),
            input_example=example,
        )
    return folder


class Scorer:
    """What MLflow calls.

    Args:
        run: opened.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def predict(self, rows: Any, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Scores of rows, and what a run makes of them, a line for each.

        Args:
            rows: a table with the columns that the run was trained on, in any order; where it was trained on arrays,
                one of these, or `x` and `context` by their names.
            params: MLflow's, of which there are none.

        Returns:
            `score`, larger is stranger; `p_value`, if the run has calibration rows; and `flag_RULE`, such as
            `flag_fpr=0.01`, for each threshold that judges a row by itself.
        """
        import pandas as pd

        run, judge = self.run, self.run.judge
        x, context = (rows["x"], rows["context"]) if isinstance(rows, Mapping) else (rows, None)
        found, p_values = [], []
        for part in run.parts(x, context):
            scores = run.scored(part)
            found.append(part.spread(scores))
            if judge.calibrated:
                p_values.append(part.spread(run.p_of(part, scores)))
        columns: dict[str, Any] = {"score": np.concatenate(found)}
        if judge.calibrated:
            columns["p_value"] = np.concatenate(p_values)
        for cut in self.cuts:
            columns[f"flag_{cut.name}"] = cut.flags(columns["score"], columns.get("p_value"))
        return pd.DataFrame(columns, index=getattr(rows, "index", None))

    @cached_property
    def cuts(self) -> list[Cut]:
        """The thresholds of the run that could be set and that judge a row by itself."""
        found = []
        for rule in map(self.run.judge.called, self.run.judge.entries):
            with suppress(ConfigError):  # there were too few rows to set it
                found.append(self.run.judge.cut(rule))
        return [cut for cut in found if cut.alone]


def _load_pyfunc(path: str | Path) -> Scorer:
    """What MLflow calls to load a model."""
    return Scorer(Run.open(path))


def _copy(place: RunFolder, copy: Path) -> None:
    """The files that a run is opened from."""
    kept = RunFolder(copy)
    named = Path((place.read() or {}).get("checkpoint") or place.newest_checkpoint or "").stem
    for ours, theirs in (
        *((getattr(place, name), getattr(kept, name)) for name in ("config", "hydra", "shape", "job", "result")),
        *((getattr(place, name), getattr(kept, name)) for name in ("calibration", "folds")),
        (place.checkpoint(named), kept.checkpoint(named)),
    ):
        if ours.is_file():
            theirs.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ours, theirs)


def _requirements(result: Mapping[str, Any]) -> list[str]:
    versions: Mapping[str, str] = result.get("versions", {})
    pinned = [f"{name}=={versions[name].partition('+')[0]}" for name in PACKAGES if name in versions]
    return [*pinned, "pandas"]


def _inputs(run: Run) -> tuple[Any, Any]:
    """The schema of the input, and an example of two rows."""
    from mlflow.types.schema import AnyType, ColSpec, DataType, Schema, TensorSpec

    kept = run.known.get("recipe", {})
    if kept.get("features"):
        recipe = Recipe.from_json(kept)
        example = _typical(run, recipe)
        # a column of whole numbers may come with fractions or without some, which no type of MLflow's allows
        kinds = [DataType.string if example[name].dtype.kind in "OU" else AnyType() for name in example]
        return Schema([ColSpec(kind, name) for kind, name in zip(kinds, example, strict=True)]), _frame(example)
    shape, context = run.detector.event_shape, run.detector.context
    x = np.repeat(run.detector.scaling.shift.cpu().numpy()[None], 2, 0).astype(np.float32)
    spec = TensorSpec(np.dtype(np.float32), (-1, *shape), "x" if context else None)
    if not context:
        return Schema([spec]), x
    more = TensorSpec(np.dtype(np.float32), (-1, context), "context")
    return Schema([spec, more]), {"x": x, "context": np.zeros((2, context), np.float32)}


def _typical(run: Run, recipe: Recipe) -> dict[str, Any]:
    """Two rows of a table: each number is what the detector's scaling takes for the middle, in the file's own units."""
    from straylight.files.resolution import Centre

    shift = run.detector.scaling.shift.flatten().tolist()
    middle = dict(zip(recipe.names, shift, strict=False))
    rows: dict[str, Any] = {}
    for name in recipe.roles.features:
        if name in recipe.categories:
            values = list(recipe.categories[name][:2]) or [""]
            rows[name] = np.array([values[0], values[-1]])
            if not any(kind in recipe.types.get(name, "string") for kind in ("string", "binary")):
                rows[name] = np.array([float(value) for value in rows[name]])
            continue
        offset, scale = Centre(*recipe.centres.get(name, ()))
        rows[name] = np.repeat(middle.get(name, 0.0) * scale + offset, 2)
    for name in recipe.roles.context:
        offset, _ = Centre(*recipe.centres.get(name, ()))
        rows[name] = np.repeat(float(offset), 2)
    return rows


def _frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {name: list(values) if values.dtype.kind == "U" else values for name, values in columns.items()}
    )


def _outputs(found: pd.DataFrame) -> Any:
    from mlflow.types.schema import ColSpec, DataType, Schema

    kinds = {"score": DataType.float, "p_value": DataType.double}
    return Schema([ColSpec(kinds.get(name, DataType.boolean), name) for name in found.columns])
