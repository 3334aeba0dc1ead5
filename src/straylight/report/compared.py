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
TRUTH = " (sees the truth)"
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


def by_setting(groups: Groups, pooled: bool = False) -> dict[tuple[str, str], list[Run]]:
    """Runs on data with a resonance; what of a detector's name is a setting of the data is moved to that of the set.

    Detectors over several fractions of signal are so compared within each, or, `pooled`, over all of them. The name of
    one that reads the truth, which nobody has in real data, says so.

    Example:
        >>> runs = [{"bump": {"rows": 10}, "truth": True}]
        >>> [*by_setting({("bump", "idealized data.signal_fraction=0.01"): runs, ("digits", "knn"): [{}]})]
        [('bump, signal_fraction=0.01', 'idealized (sees the truth)')]
    """
    moved: dict[tuple[str, str], list[Run]] = {}
    for (data, name), runs in groups.items():
        if not (hunted := [run for run in runs if run.get("bump")]):
            continue
        words = name.split()
        settings = [word.removeprefix("data.") for word in words if word.startswith("data.") and not pooled]
        own = " ".join(word for word in words if not word.startswith("data."))
        truth = TRUTH if any(run.get("truth") for run in hunted) else ""
        moved.setdefault((", ".join([data, *settings]), own + truth), []).extend(hunted)
    return moved


def _improvement(groups: Groups) -> Figure | None:
    """Significance improvement, from the runs' scores, beside the optimum where they know it."""
    if not (hunted := by_setting(groups)):
        return None
    known = [(data, run["bump"].get("optimum_curve")) for (data, _), runs in hunted.items() for run in runs]
    optimum = {data: curve for data, curve in known if curve}
    return _figures().sic_curves(_of_scores(hunted, _figures().improvement), optimum)


def _significances(groups: Groups) -> Figure | None:
    hunted = by_setting(groups, pooled=True)
    return _figures().significances(hunted) if hunted else None


def _curves(groups: Groups) -> dict[str, dict[str, list[Any]]]:
    """ROC curves by data set and detector, of the first twelve data sets, read from the runs' scores."""
    return _of_scores(groups, _figures().curve)


def _of_scores(groups: Groups, made: Callable[..., Any]) -> dict[str, dict[str, list[Any]]]:
    """What is made of the scores and labels of runs, by data set and detector, of the first twelve data sets."""
    import pyarrow.parquet as pq

    found: dict[str, dict[str, list[Any]]] = {data: {} for data in sorted({data for data, _ in groups})}
    for (data, detector), runs in groups.items():
        for run in runs if data in list(found)[:CURVES] else ():
            path = RunFolder(run["folder"]).scores
            if path.is_file():
                columns = pq.read_table(path, columns=["score", "y"])
                if (one := made(columns["score"].to_numpy(), columns["y"].to_numpy())) is not None:
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
    # significance improvement of all detectors beside the optimum, where the data have a resonance
    "sic.png": lambda groups, table: _improvement(groups),
    # significance before and after the cuts of a bump hunt
    "significances.png": lambda groups, table: _significances(groups),
}
