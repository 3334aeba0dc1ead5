"""`extremes.csv`: the strangest and the most ordinary rows of a table."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from straylight.atomic import replacing
from straylight.callbacks.material import Material

LISTED = 100  # of the strangest rows, and of the most ordinary


def write(material: Material, path: Path) -> None:
    """List the extremes, where events are rows of a table and there are two or more."""
    if material.data is not None and len(material.shape) == 1 and len(material.scores) > 1:
        with replacing(path, durable=False) as aside:
            aside.write_bytes(extremes(material, LISTED).encode())


def extremes(material: Material, most: int) -> str:
    """CSV of the strangest and the most ordinary rows: rank among them, position in the split, score, kind, what names
    them, features.
    """
    file = io.StringIO(newline="")
    out = csv.writer(file)
    ends = material.extremes(most)
    out.writerow(["end", "rank", "index", "score", "kind", *material.named(ends[0][:0]), *material.features])
    for end, places in zip(("strangest", "ordinary"), ends, strict=True):
        names = list(zip(*material.named(places).values(), strict=True)) or [()] * len(places)
        rows = zip(places, names, material.events(places).tolist(), strict=True)
        for rank, (place, called, features) in enumerate(rows, 1):
            score = np.format_float_positional(material.scores[place], trim="-", unique=True)
            kind = kind_name(int(material.y[place]), material.kinds)
            out.writerow([end, rank, int(material.index[place]), score, kind, *called, *features])
    return file.getvalue()


def kind_name(label: int, kinds: Sequence[str]) -> str:
    """What a kind is called in every figure, without what draws them.

    Example:
        >>> kind_name(-1, ()), kind_name(0, ()), kind_name(1, ("nominal", "far")), kind_name(3, ("nominal", "far"))
        ('unknown', 'nominal', 'far', '3')
    """
    if label < 0:
        return "unknown"
    return kinds[label] if label < len(kinds) else str(label or "nominal")
