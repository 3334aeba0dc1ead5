"""Drawing a sweep: what the runs below a folder look like beside each other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from straylight.atomic import replacing
from straylight.folder import RunFolder
from straylight.metrics.across import Across, across
from straylight.report.leaderboard import Row, Run, grouped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What may be drawn, in this order.
PICTURES = ("pareto.png", "roc.png", "heat_map.png", "ranks.png", "seeds.png", "kinds.png", "contamination.png")
CURVES = 12  # data sets whose scores are read
DPI = 120


def draw(results: Iterable[Run], table: list[Row], folder: Path) -> list[str]:
    """Write the figures that apply into a folder and name them; of one that fails, or no longer applies, none is left.

    * `pareto.png`: AUROC, and TPR at FPR 1e-3 where that can be resolved, against latency;
    * `roc.png`: ROC curves of all detectors, from the runs' `scores.parquet`;
    * `heat_map.png`: AUROC of detectors by data sets, with two or more of both;
    * `ranks.png`: average ranks over data sets, and who cannot be told apart, with two or more of both;
    * `seeds.png`: AUROC of every run, where a detector was run with several seeds;
    * `kinds.png`: AUROC of each kind of anomaly, where there are several;
    * `contamination.png`: AUROC against the anomalies in training, where there are several fractions.
    """
    from straylight.report import figures

    groups = grouped(results)
    draws: tuple[Callable[[], Figure | None], ...] = (
        lambda: figures.pareto(table) if table else None,
        lambda: figures.roc_overlay(_curves(groups)),
        lambda: figures.heat_map(groups),
        lambda: _ranks(groups),
        lambda: figures.seeds(groups),
        lambda: figures.kind_bars(groups),
        lambda: figures.by_contamination(groups),
    )
    written = []
    for name, figure_of in zip(PICTURES, draws, strict=True):
        try:
            if (figure := figure_of()) is not None:
                with replacing(folder / name) as aside:
                    figure.savefig(aside, dpi=DPI)
                written.append(name)
                continue
        except Exception as error:  # the numbers are there all the same
            said = " ".join(str(error).split())
            print(f"{name} was not drawn: {type(error).__name__}: {said}", file=sys.stderr)
        (folder / name).unlink(missing_ok=True)
    return written


def over_sets(
    groups: Mapping[tuple[str, str], list[Run]], metric: str = "test/auroc"
) -> tuple[Across, list[str]] | None:
    """Detectors compared over the data sets that all of them have, and their names; None with fewer than two of either.

    The value of a data set is the mean over its seeds.
    """
    means: dict[tuple[str, str], float] = {}
    for key, runs in groups.items():
        values = [value for run in runs if (value := (run.get("metrics") or {}).get(metric)) is not None]
        if len(values) == len(runs):
            means[key] = sum(values) / len(values)
    names = sorted({detector for _, detector in means})
    sets = [d for d in sorted({data for data, _ in means}) if all((d, name) in means for name in names)]
    if len(names) < 2 or len(sets) < 2:
        return None
    return across([[means[data, name] for name in names] for data in sets]), names


def _ranks(groups: Mapping[tuple[str, str], list[Run]]) -> Figure | None:
    from straylight.report.figures import critical_difference

    found = over_sets(groups)
    return None if found is None else critical_difference(*found)


def _curves(groups: Mapping[tuple[str, str], list[Run]]) -> dict[str, dict[str, list[Any]]]:
    """ROC curves by data set and detector, of the first twelve data sets, read from the runs' scores."""
    import pyarrow.parquet as pq

    from straylight.report.figures import curve

    found: dict[str, dict[str, list[Any]]] = {data: {} for data in sorted({data for data, _ in groups})}
    for (data, detector), runs in groups.items():
        for run in runs if data in list(found)[:CURVES] else ():
            path = RunFolder(run["folder"]).scores
            if path.is_file():
                columns = pq.read_table(path, columns=["score", "y"])
                if (one := curve(columns["score"].to_numpy(), columns["y"].to_numpy())) is not None:
                    found[data].setdefault(detector, []).append(one)
    return found
