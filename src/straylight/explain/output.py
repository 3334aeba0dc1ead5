"""An explanation as a table on paper: a line for each event and feature, as Parquet, CSV or JSON.

`N` events, `K` features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from straylight.atomic import replacing
from straylight.errors import ConfigError
from straylight.explain.events import Named
from straylight.explain.explainer import Explanation
from straylight.rows.origin import PREFIX

ENDINGS = (".parquet", ".csv")
OURS = ("nearest_nominal", "baseline")  # beside those that a column of a file never has here


def long(why: Explanation, who: Named) -> Any:
    """A table of `N * K` lines: what names the event, the feature, its value, what it adds, and what it is in the
    nominal row that is most like the event; baseline and score of the event. Values are text, since some are words.
    """
    import pyarrow as pa

    n, k = why.contributions.shape
    order = np.argsort(-why.contributions, axis=1, kind="stable")
    lines = np.arange(n).repeat(k).tolist()
    places = order.ravel().tolist()
    columns: dict[str, Any] = {
        PREFIX + name if name in OURS else name: pa.array([column[i] for i in lines])
        for name, column in who.names.items()
    }
    columns["feature"] = [why.features.names[j] for j in places]
    columns["value"] = pa.array([_text(why.values[i][j]) for i, j in zip(lines, places, strict=True)], pa.string())
    columns["contribution"] = why.contributions[lines, places]
    near = why.nearest_values
    if near is not None:
        texts = [_text(near[i][j]) for i, j in zip(lines, places, strict=True)]
        columns["nearest_nominal"] = pa.array(texts, pa.string())
    return pa.table({**columns, "baseline": why.baseline[lines], "score": why.score[lines]})


def write(why: Explanation, who: Named, path: Path) -> None:
    """Write `long`, as Parquet or CSV by the ending, whole or not at all.

    Raises:
        ConfigError: if it has another ending.
    """
    check_ending(path)
    table = long(why, who)
    with replacing(path) as aside:
        if path.suffix == ".csv":
            import pyarrow.csv as csv

            csv.write_csv(table, aside)
        else:
            import pyarrow.parquet as pq

            pq.write_table(table, aside, compression="zstd")


def check_ending(path: Path) -> None:
    """Refuse a file of another kind before anything is computed."""
    if path.suffix not in ENDINGS:
        raise ConfigError(f"explanations are written as {' or '.join(ENDINGS)}, not as {path.name!r}.")


def plain(why: Explanation, who: Named, most: int | None = None) -> dict[str, Any]:
    """The same as plain values, by event, the features that add most first."""
    rows = []
    for i in range(len(why)):
        near = why.nearest_values
        rows.append(
            {
                **{name: column[i] for name, column in who.names.items()},
                "score": float(why.score[i]),
                "baseline": float(why.baseline[i]),
                "features": [
                    {
                        "feature": why.features.names[j],
                        "value": why.values[i][j],
                        "contribution": float(why.contributions[i, j]),
                        **({} if near is None else {"nearest_nominal": near[i][j]}),
                    }
                    for j in why.first(i, len(why.features.names) if most is None else most)
                ],
            }
        )
    return {"method": why.method, "baseline": why.stated, "notices": list(why.notices), "rows": rows}


def shown(value: Any) -> str:
    """A value in a table for people."""
    return "missing" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: Any) -> str | None:
    return None if value is None else repr(value) if isinstance(value, float) else str(value)
