"""Rows of another file, made into events as those of a run were.

`N` rows, `*shape` one event.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from straylight.data.steps.missing import filling
from straylight.errors import DataError
from straylight.files.formats import open_file
from straylight.files.roles import complete
from straylight.files.table import Coding, numbers
from straylight.rows.batch import HIDDEN, Events


def prepared(path: Path | str, recipe: Mapping[str, Any]) -> Events:
    """Features and context of all rows, in memory; nothing else of the file is needed or read.

    Args:
        path: a file as `File` takes it, with the same columns, in any order.
        recipe: what `File.recipe` returned for the file of the run.

    Raises:
        DataError: if a column is missing, holds something else than there, or lacks a value and the run did not fill
            such in.
    """
    source = open_file(path)
    features, array = list(recipe["features"]), recipe["array"]
    if array is None or recipe["categories"]:
        try:
            coding = Coding(tuple(features), recipe["categories"])
            x, names = torch.from_numpy(coding.encode(source.table(features))), coding.names
        except DataError as error:
            raise DataError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    elif features:
        table = source.table(features)
        x, names = torch.from_numpy(np.stack([numbers(table[name], name) for name in features], 1)), features
    else:
        source.rows_of(array)
        x = source.events(array, float("inf"))[:]
        names = [str(i) for i in range(x[0].numel())]
    values = torch.tensor([recipe["medians"].get(name, float("nan")) for name in names])
    texts = recipe["categories"] if recipe["missing"] == "error" else ()
    lacks = [name for name in texts if source.table([name])[name].null_count]
    indicate = None
    if recipe["missing"] == "indicator" and recipe["filled"]:
        indicate = torch.tensor([name in recipe["filled"] for name in names])
    x = filling(values.view(x.shape[1:]), indicate)(x)
    gone = x.flatten(1).isnan().any(0).nonzero().flatten().tolist()
    if lacks or gone:
        raise DataError(f"{path} lacks values of column {(lacks or [names[i] for i in gone])[0]!r}; fill them in.")
    context = None
    if recipe["context"]:
        table = source.table(recipe["context"])
        context = np.stack([numbers(complete(table[n], n, "context", source), n) for n in recipe["context"]], 1)
    return Events.of(x, np.full(len(x), HIDDEN), context)
