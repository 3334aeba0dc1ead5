"""Prints the anomaly scores of a file, larger is stranger: python score.py FILE.csv, or X.npy [CONTEXT.npy]."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def number(text, style):
    for mark in style["without"]:
        text = text.replace(mark, "")
    return float({"true": 1, "false": 0}.get(text.strip().lower(), text.replace(style["decimal"], ".")))


def encoded(known, values, style):
    """A column as the graph takes it, (N, K), or an array, (N, *shape)."""
    if known["type"] == "category":
        words = [repr(number(v, style)) if known["numeric"] and v not in style["missing"] else v for v in values]
        x = np.eye(known["width"] + 1)[[known["categories"].get(word, -1) for word in words]][:, :-1]
        gone = np.isin(values, style["missing"])[:, None]
    else:
        if known["type"] != "array":
            values = [[np.nan if v in style["missing"] else number(v, style)] for v in values]
        with np.errstate(over="ignore"):
            x = ((np.asarray(values, np.float64) - known["offset"]) / known["scale"]).astype(np.float32)
        gone = ~np.isfinite(x)
    if known["type"] == "indicator":  # of a column that stood before: whether its value was missing
        return gone
    if known["missing"] is None and gone.any():
        raise ValueError(f"{known['name']!r} lacks the value of row {int(np.argwhere(gone)[0, 0]) + 1}")
    return x if known["missing"] is None else np.where(gone, np.asarray(known["missing"], np.float32), x)


def read(paths, style):
    """Columns, or arrays, by their names."""
    if style is None:
        return dict(zip(["x", "context"], map(np.load, paths), strict=False))
    with Path(paths[0]).open(encoding=style["encoding"], newline="") as file:
        for _ in range(style["skip"]):
            file.readline()
        lines = [line for line in csv.reader(file, delimiter=style["delimiter"], quotechar=style["quote"]) if line]
    if len(lines) <= style["header"]:
        raise ValueError(f"{paths[0]} holds no rows")
    head = lines.pop(0) if style["header"] else [str(i) for i in range(len(lines[0]))]
    return dict(zip(head, zip(*lines, strict=True), strict=True))


def scores(folder, paths):
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    held = read(paths, model["csv"])
    for known in [known for tensor in model["inputs"] for known in tensor["of"] if known["name"] not in held]:
        raise ValueError(f"there is no {known['name']!r}, but {', '.join(held)}")
    parts = [[encoded(k, held[k["name"]], model["csv"]) for k in tensor["of"]] for tensor in model["inputs"]]
    given = [np.concatenate(part, 1, dtype=np.float32) for part in parts]
    lacking = np.any([np.isnan(x).reshape(len(x), -1).any(1) for x in given], 0)  # such rows have no score
    session = onnxruntime.InferenceSession(folder / model["graph"]["file"])
    for start in range(0, len(given[0]), n := model["graph"]["rows_at_once"]):
        part = {tensor["name"]: x[start : start + n] for tensor, x in zip(model["inputs"], given, strict=True)}
        yield from np.where(lacking[start : start + n], np.nan, session.run(None, part)[0])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        print("score", *scores(Path(__file__).parent, sys.argv[1:]), sep="\n")
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
