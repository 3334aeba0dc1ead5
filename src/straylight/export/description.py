"""`model.json`: what another program must know to use a graph, as plain values.

Shapes: `B` events, `K` columns that a column of a file becomes, `C` context columns, `*shape` one event.
"""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from straylight.export.calibration import written
from straylight.files.recipe import Recipe
from straylight.files.table import is_text
from straylight.folder import RunFolder
from straylight.metrics.conformal import held_nominal

#: What tells a folder of ours, and which rules its `model.json` follows.
MARK, FORMAT = "straylight export", 1
PACKAGES = ("straylight", "torch", "numpy", "onnx", "onnxruntime")
NO_SCORE = "nan"  # stands for what is missing, by which a row has none
#: What is kept of a run's record.
OF_RESULT = ("run", "status", "detector", "data", "seed", "config_hash", "contamination", "thresholds")


def described(run: Any, graph: Mapping[str, Any]) -> dict[str, Any]:
    """What `model.json` holds.

    Args:
        run: a `straylight.run.Run`.
        graph: what is known of the graph's file.
    """
    recipe = recipe_of(run.known)
    shape, context = list(run.known["shape"]), int(run.known["context"])
    calibration, why = _calibration(run)
    return {
        "is": MARK,
        "format": FORMAT,
        "graph": dict(graph),
        "csv": None if recipe is None or not recipe.roles.features else _style(recipe),
        "inputs": inputs(recipe, shape, context),
        "output": {"name": "score", "shape": ["batch"], "type": "float32", "larger": "stranger"},
        "unseen": "a category that is not in its table is 0 in all columns of its own",
        "thresholds": {name: value if np.isfinite(value) else None for name, value in run.thresholds.items()},
        "calibration": calibration,
        "no_calibration": why,
        "result": {key: run.result[key] for key in OF_RESULT if key in run.result},
        "known": dict(run.known),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def recipe_of(known: Mapping[str, Any]) -> Recipe | None:
    """How a file becomes events, if the run was trained on one."""
    kept = known.get("recipe") or {}
    return Recipe.from_json(kept) if "features" in kept else None


def inputs(recipe: Recipe | None, shape: Sequence[int], context: int) -> list[dict[str, Any]]:
    """The graph's inputs, in their order, and the columns of a file or the array that each is made `of`.

    A column has a `name` and a `type`:

    * `number`: `(value - offset) / scale` in double precision, and then float32; `missing` stands for one that is
      missing or infinite; where it is null there must be none, and by `"nan"` such a row has no score.
    * `category`: as many columns as its `width`, 0 but for the one whose place `categories` tells, which is 1; none is
      where the category is not in the table, nor where it is missing. In a `numeric` column 7 and 7.0 are the same.
    * `indicator`: 1 where a `number` of that name was missing, else 0.
    * `array`: all of an event, `(B, *shape)`, treated as a number.

    Args:
        recipe: how a file becomes events; `None` where there is none.
        shape: of one event.
        context: C.
    """
    if recipe is None or not recipe.roles.features:
        found = [_tensor("x", shape, [_array(recipe, shape)])]
        own = [{"name": "context", "type": "array", "offset": 0.0, "scale": 1.0, "missing": None}]
    else:
        found = [_tensor("x", shape, _columns(recipe))]
        own = [_number(recipe, name, NO_SCORE if recipe.missing == "skip" else None) for name in recipe.roles.context]
    return [*found, _tensor("context", [context], own)] if context else found


def _tensor(name: str, shape: Sequence[int], of: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "shape": ["batch", *shape], "type": "float32", "of": of}


def _columns(recipe: Recipe) -> list[dict[str, Any]]:
    stands = {"error": None, "skip": NO_SCORE}.get(recipe.missing, 0.0)  # for a category
    found = []
    for name in recipe.roles.features:
        if name not in recipe.categories:
            found.append(_number(recipe, name, recipe.medians.get(name) if stands == 0.0 else stands))
            continue
        numeric = not is_text_type(recipe.types.get(name, "string"))
        words = [_as_number(text) if numeric else text for text in recipe.categories[name]]
        table = {word: place for place, word in enumerate(words)}
        found.append(
            {
                "name": name,
                "type": "category",
                "width": len(words),
                "numeric": numeric,
                "categories": table,
                "missing": stands,
            }
        )
    if recipe.missing == "indicator":
        told = [name for name in recipe.roles.features if name in recipe.filled]
        found += [{**_number(recipe, name, None), "type": "indicator"} for name in told]
    return found


def _number(recipe: Recipe, name: str, missing: float | str | None) -> dict[str, Any]:
    offset, scale = recipe.centres.get(name, (0.0, 1.0))
    return {"name": name, "type": "number", "offset": offset, "scale": scale, "missing": missing}


def _array(recipe: Recipe | None, shape: Sequence[int]) -> dict[str, Any]:
    whole: dict[str, Any] = {"name": "x", "type": "array", "offset": 0.0, "scale": 1.0, "missing": None}
    if recipe is None:
        return whole
    names = [str(i) for i in range(int(np.prod(shape)))]

    def each(values: Sequence[float | None]) -> Any:
        return np.array(values, dtype=object).reshape(shape).tolist()

    if recipe.centres:
        offsets, scales = zip(*(recipe.centres.get(name, (0.0, 1.0)) for name in names), strict=True)
        whole |= {"offset": each(offsets), "scale": each(scales)}
    if recipe.missing == "median" and all(recipe.medians.get(name) is not None for name in names):
        whole["missing"] = each([recipe.medians[name] for name in names])
    elif recipe.missing == "skip":
        whole["missing"] = NO_SCORE
    return whole


def is_text_type(kind: str) -> bool:
    """Whether a column of some type, as a recipe names it, holds text, or anything that is compared as text."""
    import pyarrow as pa

    try:
        wanted = pa.type_for_alias(kind)
    except ValueError:
        return True
    numeric = pa.types.is_integer(wanted) or pa.types.is_floating(wanted) or pa.types.is_boolean(wanted)
    return is_text(wanted) or not numeric


def _as_number(text: str) -> str:
    return repr({"true": 1.0, "false": 0.0}[text] if text in ("true", "false") else float(text))


def _style(recipe: Recipe) -> dict[str, Any]:
    """How a table in text is written, in the words of Python's `csv`."""
    import pyarrow.csv

    from straylight.files.dialect import Dialect

    dialect = Dialect.of(recipe.csv)
    encoding = dialect.encoding.lower().replace("_", "-")
    return {
        "delimiter": dialect.separator or ",",
        "quote": dialect.quote,
        "encoding": "utf-8-sig" if encoding in ("utf-8", "utf8") else dialect.encoding,
        "skip": dialect.skip_rows,
        "header": dialect.header is not False,
        "decimal": dialect.decimal,
        "without": [*dialect.strip, *([dialect.thousands] if dialect.thousands else [])],
        "missing": sorted({"", *pyarrow.csv.ConvertOptions().null_values, *dialect.null_values}),
    }


def _calibration(run: Any) -> tuple[dict[str, Any] | None, str | None]:
    """Calibration scores, or why there are none."""
    place = RunFolder(run.folder)
    if not place.calibration.is_file():
        return None, "The run set no threshold on calibration rows."
    columns = place.columns(place.calibration)
    if "fold" in columns:
        return None, "Thresholds were set across folds, by several detectors, of which the graph is none."
    nominal = held_nominal(columns["y"])
    weight = columns["weight"][nominal] if "weight" in columns else None
    try:
        return written(columns["score"][nominal], weight), None
    except ValueError as error:
        return None, f"{error}."


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
