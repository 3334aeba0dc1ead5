"""Drawing a sweep: what the runs below a folder look like beside each other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from straylight.atomic import replacing
from straylight.console import say
from straylight.folder import RunFolder
from straylight.metrics.across import Across, across
from straylight.report.arrow import numbers
from straylight.report.kept import WEIGHT
from straylight.report.leaderboard import Groups, Row, Run, grouped, means

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = 12  # data sets whose scores are read
TRUTH = " (sees the truth)"
DPI = 120
QUICK = {"compress_type": 3}  # zlib's Z_RLE: a tenth to a third more bytes, in two thirds of the time
MARK = "Straylight"  # the key of what a picture says it was made of


def draw(
    results: Iterable[Run], table: list[Row], folder: Path, shown: Callable[[str, Figure], None] | None = None
) -> list[str]:
    """Write the `PICTURES` that apply into a folder and name them; none is left of one that fails or does not.

    One that is there, and was made of what the runs say now, is left as it is.

    Args:
        shown: is called with each, too.
    """
    results = list(results)
    groups, mark = grouped(results), _mark(results, table)
    written = []
    for name, picture in PICTURES.items():
        try:
            there = _mark_of(folder / name) == mark
            if there and shown is None:
                written.append(name)
                continue
            if (figure := picture.figure(groups, table)) is not None:
                if not there:
                    with replacing(folder / name, durable=False) as aside:
                        _figures().save(figure, aside, dpi=DPI, metadata={MARK: mark}, pil_kwargs=QUICK)
                written.append(name)
                if shown is not None:
                    shown(name, figure)
                continue
        except Exception as error:  # the numbers are there all the same
            said = " ".join(str(error).split())
            say(f"{name} was not drawn: {type(error).__name__}: {said}", error=True)
        (folder / name).unlink(missing_ok=True)
    return written


def _mark(results: Sequence[Run], table: Sequence[Row]) -> str:
    """What pictures are made of: records and scores of the runs, as far as files tell, the table, and our version."""
    found = hashlib.sha256(repr((version("straylight"), table)).encode(errors="backslashreplace"))
    for result in results:
        place = RunFolder(result["folder"])
        for path in (place.result, place.scores):
            with suppress(OSError):  # no scores
                known = path.stat()
                found.update(f"{path.name} {known.st_mtime_ns} {known.st_size};".encode())
    return found.hexdigest()


def _mark_of(path: Path) -> str | None:
    """Of what a picture that is there was made; None where there is none, or it does not say."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.info.get(MARK)
    except OSError:  # PIL's own is of these
        return None


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


def followed(detector: str) -> str:
    """A detector whatever the data were set to, and without its marks: one and the same in all figures.

    Example:
        >>> followed("idealized data.signal_fraction=0.01"), followed("idealized (sees the truth)"), followed("knn")
        ('idealized', 'idealized', 'knn')
    """
    words = [word for word in detector.removesuffix(TRUTH).split() if not word.startswith("data.")]
    return " ".join(words).removesuffix(" (default)")


def _curves(groups: Groups) -> dict[str, dict[str, list[Any]]]:
    """ROC curves by data set and detector, of the first twelve data sets, read from the runs' scores."""
    return _of_scores(groups, _figures().curve)


def _of_scores(groups: Groups, made: Callable[..., Any]) -> dict[str, dict[str, list[Any]]]:
    """What is made of the scores, labels and weights of runs, by data set and detector, of the first twelve data sets.

    Scores that cannot be read are named, and cost no other run its curve.
    """
    import pyarrow.parquet as pq

    found: dict[str, dict[str, list[Any]]] = {data: {} for data in sorted({data for data, _ in groups})}
    for (data, detector), runs in groups.items():
        for run in runs if data in list(found)[:CURVES] else ():
            path = RunFolder(run["folder"]).scores
            if not path.is_file():
                continue
            try:
                with pq.ParquetFile(path, pre_buffer=False) as file:  # of small files by the hundred
                    wanted = [name for name in ("score", "y", WEIGHT) if name in file.schema_arrow.names]
                    read = file.read(wanted, use_threads=False)
                columns = {name: numbers(column) for name, column in zip(wanted, read.columns, strict=True)}
                one = made(columns["score"], columns["y"], weight=columns.get(WEIGHT))
            except (OSError, ValueError, KeyError) as error:  # Arrow's are of these
                say(f"{path} cannot be read, and has no curve: {' '.join(str(error).split())}", error=True)
                continue
            if one is not None:
                found[data].setdefault(detector, []).append(one)
    return found


class Picture(NamedTuple):
    """A figure of many runs.

    Attributes:
        figure: draws it; None where it does not apply.
        title: what it is called.
        sentence: what it shows.
    """

    figure: Callable[[Groups, list[Row]], Figure | None]
    title: str
    sentence: str


#: What may be drawn, by its file and in this order.
PICTURES: Mapping[str, Picture] = {
    "pareto.png": Picture(
        lambda groups, table: _figures().pareto(table) if table else None,
        "Quality against latency",
        "AUROC, and TPR at an FPR of 1e-3 where that can be resolved, against the median latency of one event: the "
        "mean and the range over seeds. Nobody beats the dashed front in both.",
    ),
    "roc.png": Picture(
        lambda groups, table: _figures().roc_overlay(_curves(groups)),
        "ROC curves",
        "True-positive against false-positive rate, logarithmic, from where ten nominal events lie above the "
        "threshold: the mean and the range over seeds.",
    ),
    "heat_map.png": Picture(
        lambda groups, table: _figures().heat_map(groups),
        "Detectors by data sets",
        "The AUROC of every detector on every data set, the mean over seeds; the best detectors stand to the left.",
    ),
    "ranks.png": Picture(
        lambda groups, table: _ranks(groups),
        "Average ranks",
        "The rank of each detector, averaged over the data sets that all of them have, 1 is best; a bar joins those "
        "no two of which can be told apart.",
    ),
    "seeds.png": Picture(
        lambda groups, table: _figures().seeds(groups),
        "Every run",
        "The AUROC of every single run, a marker for each seed; the bar is their mean.",
    ),
    "kinds.png": Picture(
        lambda groups, table: _figures().kind_bars(groups),
        "Kinds of anomaly",
        "The AUROC of each kind of anomaly against the nominal events: means over seeds, whiskers their range.",
    ),
    "contamination.png": Picture(
        lambda groups, table: _figures().by_contamination(groups),
        "Anomalies in training",
        "The AUROC against the fraction of anomalies among the training events: the mean and the range over seeds.",
    ),
    "sic.png": Picture(
        lambda groups, table: _improvement(groups),
        "Significance improvement",
        "How many times a cut on the score raises the significance of a signal, TPR / sqrt(FPR), beside the best that "
        "any score can do where that is known: the mean and the range over seeds.",
    ),
    "significances.png": Picture(
        lambda groups, table: _significances(groups),
        "Significance before and after the cut",
        "What the bump hunt finds in the spectrum of all events and in that of those which pass the cut, in standard "
        "deviations, a marker for each run.",
    ),
}
