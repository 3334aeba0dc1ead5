"""Drawing a sweep: what the runs below a folder look like beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from straylight.atomic import replacing
from straylight.console import say
from straylight.folder import RunFolder
from straylight.metrics.across import Across, across
from straylight.report.leaderboard import Groups, Row, Run, grouped, means

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = 12  # data sets whose scores are read
DPI = 120


def draw(results: Iterable[Run], table: list[Row], folder: Path) -> list[str]:
    """Write the `PICTURES` that apply into a folder and name them; none is left of one that fails or does not."""
    groups = grouped(results)
    written = []
    for name, figure_of in PICTURES.items():
        try:
            if (figure := figure_of(groups, table)) is not None:
                with replacing(folder / name, durable=False) as aside:
                    figure.savefig(aside, dpi=DPI)
                written.append(name)
                continue
        except Exception as error:  # the numbers are there all the same
            said = " ".join(str(error).split())
            say(f"{name} was not drawn: {type(error).__name__}: {said}", error=True)
        (folder / name).unlink(missing_ok=True)
    return written


def over_sets(groups: Groups, metric: str = "test/auroc") -> tuple[Across, list[str]] | None:
    """Detectors compared over the data sets that all of them have, and their names; None with fewer than two of either.

    The value of a data set is the mean over its seeds.
    """
    found = means(groups, metric)
    names = sorted({detector for _, detector in found})
    sets = [d for d in sorted({data for data, _ in found}) if all((d, name) in found for name in names)]
    if len(names) < 2 or len(sets) < 2:
        return None
    return across([[found[data, name] for name in names] for data in sets]), names


def _figures() -> Any:
    """What draws; loaded when something is drawn, since it takes a while."""
    from straylight.report import figures

    return figures


def _ranks(groups: Groups) -> Figure | None:
    found = over_sets(groups)
    return None if found is None else _figures().critical_difference(*found)


def _curves(groups: Groups) -> dict[str, dict[str, list[Any]]]:
    """ROC curves by data set and detector, of the first twelve data sets, read from the runs' scores."""
    import pyarrow.parquet as pq

    found: dict[str, dict[str, list[Any]]] = {data: {} for data in sorted({data for data, _ in groups})}
    for (data, detector), runs in groups.items():
        for run in runs if data in list(found)[:CURVES] else ():
            path = RunFolder(run["folder"]).scores
            if path.is_file():
                columns = pq.read_table(path, columns=["score", "y"])
                if (one := _figures().curve(columns["score"].to_numpy(), columns["y"].to_numpy())) is not None:
                    found[data].setdefault(detector, []).append(one)
    return found


#: What may be drawn, by its file and in this order.
PICTURES: Mapping[str, Callable[[Groups, list[Row]], Figure | None]] = {
    # AUROC, and TPR at FPR 1e-3 where that can be resolved, against latency
    "pareto.png": lambda groups, table: _figures().pareto(table) if table else None,
    # ROC curves of all detectors, from the runs' `scores.parquet`
    "roc.png": lambda groups, table: _figures().roc_overlay(_curves(groups)),
    # AUROC of detectors by data sets, with two or more of both
    "heat_map.png": lambda groups, table: _figures().heat_map(groups),
    # average ranks over data sets, and who cannot be told apart, with two or more of both
    "ranks.png": lambda groups, table: _ranks(groups),
    # AUROC of every run, where a detector was run with several seeds
    "seeds.png": lambda groups, table: _figures().seeds(groups),
    # AUROC of each kind of anomaly, where there are several
    "kinds.png": lambda groups, table: _figures().kind_bars(groups),
    # AUROC against the anomalies in training, where there are several fractions
    "contamination.png": lambda groups, table: _figures().by_contamination(groups),
}
