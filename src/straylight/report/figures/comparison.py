"""Many runs beside each other: ROC curves, a heat map, the spread over seeds, kinds of anomaly, contamination.

A figure with a panel for each data set shows the first twelve, in the order of their names, and says so.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures.about import about
from straylight.report.figures.axes import CHANCE, WIDTHS, logarithmic, quality
from straylight.report.figures.curves import parts, resolved, roc_points
from straylight.report.figures.style import (
    Look,
    Names,
    Weight,
    at_ticks,
    band,
    beside,
    cut,
    ink,
    look,
    panels,
    series,
    tiles,
)
from straylight.report.leaderboard import Groups, known, means

Array = NDArray[np.float64]
PANELS = 12
NUMBERED = 40  # bars of a panel that have room for their number
FLOORS = (0.0, 0.5, 0.9, 0.98, 0.998)
CURVE = np.geomspace(1e-6, 1, 481)  # FPRs that curves of several seeds are averaged at


def floor(least: float) -> float:
    """Where an axis that ends at 1 starts: at 0, 0.5, 0.9, 0.98 or 0.998, so that the least of it is seen.

    Example:
        >>> floor(0.3), floor(0.7), floor(0.97), floor(0.9995)
        (0.0, 0.5, 0.9, 0.998)
    """
    return max(start for start in FLOORS if start == 0 or start <= 1.5 * least - 0.5)


class Curve(NamedTuple):
    """TPR at the FPRs of `CURVE`, `(481,)`, the least FPR that ten nominal events resolve, and how many anomalies."""

    tpr: Array
    least: float
    anomalous: float = math.inf


def curve(scores: ArrayLike, y: ArrayLike, weight: Weight = None) -> Curve | None:
    """The ROC curve of one run, for `roc_overlay`; None where a side is empty.

    Example:
        >>> curve([0, 1, 2, 3], [0, 0, 1, 1]).tpr.tolist()[0]
        1.0
    """
    ranks = next((ranks for _, _, ranks in parts(scores, y, weight=weight)), None)  # of all anomalies
    if ranks is None:
        return None
    fpr, tpr = roc_points(ranks)
    reached = np.searchsorted(fpr, CURVE * (1 + 1e-12), "right") - 1  # at a vertical step the upper corner counts
    return Curve(tpr[reached], resolved(ranks), float(ranks.high.effective(0)))


def roc_overlay(curves: Mapping[str, Mapping[str, Sequence[Curve]]]) -> Figure | None:
    """ROC curves of all detectors with a logarithmic FPR, a panel for each data set: mean and range over seeds.

    Curves are steps, as in `roc`. The axis starts where ten nominal events lie above the threshold; that of the TPR at
    the `floor` of the curves, and no nearer to 1 than six intervals of a TPR near 1 are wide. None without a curve.

    Args:
        curves: by data set and detector, those of its seeds.

    Example:
        >>> one = curve(range(100), [0] * 90 + [1] * 10)
        >>> roc_overlay({"digits": {"knn": [one, one]}}).axes[0].get_title()
        'digits'
    """
    there = {data: {n: list(c) for n, c in own.items() if c} for data, own in curves.items()}
    there = {data: own for data, own in there.items() if own}
    if not there:
        return None
    names = sorted({name for own in there.values() for name in own})
    figure, axes = of_sets(list(there), ruled=True)
    for axis, data in zip(axes, there, strict=False):
        least = min(c.least for own in there[data].values() for c in own)
        at = least * (1 - 1e-9) <= CURVE
        for name, own in there[data].items():
            drawn = series(names.index(name), cut(name, 40))
            made = band(axis, CURVE[at], np.stack([c.tpr[at] for c in own]), drawn, step="post", lw=1.5)
            about(*made, detector=name, data=data)
        axis.plot(CURVE[at], CURVE[at], color="0.6", lw=1, ls=":")
        every = [c for own in there[data].values() for c in own]
        known = 1 - WIDTHS * max(4 / c.anomalous for c in every)  # some 4 / n wide is Wilson's interval of n of n
        low = floor(min(known, *(float(c.tpr[at].min()) for c in every)))
        axis.set(xlim=(least, 1), ylim=(low, 1 + (1 - low) / 50), xlabel="false-positive rate")
        logarithmic(axis.xaxis)
        axis.set_ylabel("true-positive rate")
    return named_once(figure, axes, names)


def heat_map(groups: Groups, metric: str = "test/auroc", name: str = "AUROC") -> Figure | None:
    """Detectors by data sets, each cell the mean of a metric over seeds; None with fewer than two of either.

    Detectors stand in the order of their mean over the data sets that all of them have.

    Example:
        >>> runs = {(d, n): [{"metrics": {"test/auroc": 0.9}}] for d in ("a", "b") for n in ("knn", "pca")}
        >>> heat_map(runs).axes[0].get_title()
        'AUROC, mean over seeds'
    """
    values = means(groups, metric)
    sets = sorted({data for data, _ in values})
    names = sorted({detector for _, detector in values})
    if len(sets) < 2 or len(names) < 2:
        return None
    table = np.array([[values.get((data, detector), math.nan) for detector in names] for data in sets])
    whole = ~np.isnan(table).any(1)
    order = np.argsort(-(table[whole] if whole.any() else np.nan_to_num(table)).mean(0), kind="stable")
    table, names = table[:, order], [names[i] for i in order]
    width, height = max(3.4, 0.62 * len(names) + 2.6), max(2.6, 0.27 * len(sets) + 1.9)
    figure, (axis,) = panels(width=width, height=height, legend=False)
    low = min(0.5, float(np.nanmin(table)))
    shades = colormaps["viridis"].with_extremes(bad="0.9")
    image = axis.imshow(table, cmap=shades, vmin=low, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(table):
        shade = "white" if value < low + 0.6 * (1 - low) else "black"
        said = "–" if math.isnan(value) else f"{value:.3f}"
        cell = axis.text(j, i, said, ha="center", va="center", fontsize=7, color=shade)
        about(cell, detector=names[j], data=sets[i])
    axis.tick_params(labelsize=8, length=0)
    axis.set_xticks(range(len(names)), [cut(n, 28) for n in names], rotation=45, ha="right", rotation_mode="anchor")
    at_ticks(axis.yaxis, [cut(data, 28) for data in sets])
    axis.set_title(f"{name}, mean over seeds", fontsize=10)
    figure.colorbar(image, ax=axis, label=name)
    return figure


def seeds(groups: Groups, metric: str = "test/auroc", name: str = "AUROC") -> Figure | None:
    """A metric of every run, a panel for each data set and a line for each detector, the mean as a bar; best on top.

    The axis spans six intervals of a run at least. None where no detector was run with two seeds.

    Example:
        >>> runs = [{"metrics": {"test/auroc": a}} for a in (0.8, 0.9)]
        >>> seeds({("digits", "knn"): runs}).axes[0].get_xlabel()
        'AUROC'
    """
    found = {key: values for key, runs in groups.items() if (values := known(runs, metric))}
    folders = {
        key: [str(run.get("folder", "")) for run in runs if known([run], metric)] for key, runs in groups.items()
    }
    if not any(len(values) > 1 for values in found.values()):
        return None
    sets, names = sorted({data for data, _ in found}), sorted({detector for _, detector in found})
    most = max(sum(data == own for own, _ in found) for data in sets)
    figure, axes = of_sets(sets, legend=False, width=5.4, height=max(2.2, 0.3 * most + 1.0))
    for axis, data in zip(axes, sets, strict=False):
        own = sorted(((float(np.mean(v)), n, v) for (d, n), v in found.items() if d == data), reverse=True)
        for place, (mean, detector, values) in enumerate(own):
            drawn = series(names.index(detector), detector)
            dots = Line2D(values, [place] * len(values), ls="", marker=drawn.marker, color=drawn.colour, ms=6, mew=0)
            axis.add_artist(dots).set_alpha(0.7)
            about(dots, detector=detector, data=data, run=folders[data, detector])
            bar = axis.add_artist(Line2D([mean, mean], [place - 0.3, place + 0.3], color="black", lw=1.2))
            about(bar, detector=detector, data=data)
        at_ticks(axis.yaxis, [cut(n, 40) for _, n, _ in own], fontsize=8)
        axis.set(ylim=(len(own) - 0.5, -0.5), xlabel=name)
        widths = [w for (d, _), runs in groups.items() if d == data for w in _widths(runs, metric)]
        axis.set_xlim(quality([value for *_, values in own for value in values], widths))
        axis.grid(alpha=0.25, axis="x")
    return figure


def _widths(runs: Iterable[Mapping[str, Any]], metric: str) -> list[float]:
    """Of the intervals of a metric that runs know."""
    found = [(run.get("intervals") or {}).get(metric) for run in runs]
    return [limits[1] - limits[0] for limits in found if limits]


def kind_bars(groups: Groups, metric: str = "test/auroc", name: str = "AUROC") -> Figure | None:
    """A metric of each kind of anomaly, a panel for each data set that has several of them.

    Bars are means over seeds, whiskers the range. Bars of the AUROC start at chance, 0.5, those of others at 0. None
    where no data set has several kinds.

    Example:
        >>> run = {"metrics": {"test/auroc": 0.9, "test/auroc/A": 0.8, "test/auroc/B": 0.95}}
        >>> kind_bars({("digits", "knn"): [run]}).axes[0].get_ylabel()
        'AUROC'
    """
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for (data, detector), runs in groups.items():
        for run in runs:
            for key, value in run.get("metrics", {}).items():
                before, _, kind = key.partition(f"{metric}/")
                if kind and not before and value is not None:
                    found.setdefault(data, {}).setdefault(detector, {}).setdefault(kind, []).append(value)
    if not found:
        return None
    sets = sorted(found)
    # a row for each data set: what a bar is can then be read below it
    shown_sets = sets[: PANELS // 2]
    most = max(len(found[data]) for data in shown_sets)
    several = max(len({kind for own in found[data].values() for kind in own}) for data in shown_sets)
    each = max(0.8, 0.13 * several)  # inches: a name aslant, and numbers in bars, have room
    figure, axes = panels(len(shown_sets), width=max(5.0, each * most + 1.5), height=3.0)
    for axis, data in zip(axes, shown_sets, strict=True):
        detectors = sorted(found[data], key=lambda n: -float(np.mean([np.mean(v) for v in found[data][n].values()])))
        kinds = list(dict.fromkeys(kind for n in detectors for kind in found[data][n]))
        width, chance = 0.8 / len(kinds), CHANCE.get(metric.rpartition("/")[2], 0.0)
        least = chance
        for j, kind in enumerate(kinds):
            drawn = look(j + 1, ("nominal", *kinds))
            values = {i: found[data][n][kind] for i, n in enumerate(detectors) if kind in found[data][n]}
            low, mean, high = _ranges(values.values())
            arms = [mean - low, high - mean]
            least = min(least, float(low.min()))
            places = np.array(list(values)) - 0.4 + width * (j + 0.5)
            bars = _bars(axis, places, width, chance, mean, drawn)
            for bar, i in zip(bars, values, strict=True):
                about(bar, detector=detectors[i], data=data, kind=kind)
            if len(kinds) * len(detectors) <= NUMBERED:
                for place, value in zip(places, mean, strict=True):
                    axis.text(
                        place, chance + 0.02, f"{value:.3f}", rotation=90, ha="center", fontsize=7, color=ink(drawn)
                    )
            axis.errorbar(places, mean, yerr=np.maximum(arms, 0), fmt="none", ecolor="black", lw=0.8)
        at_ticks(axis.xaxis, [cut(n, 28) for n in detectors], rotation=30, ha="right", fontsize=8)
        axis.axhline(chance, color="black", lw=0.8)
        axis.set(ylim=(least - (least < chance) * 0.02, 1.0), title=data, ylabel=name)
        axis.grid(alpha=0.25, axis="y")
    say_left_out(figure, len(shown_sets), len(sets))
    return beside(figure, *axes, titles=shown_sets)


def _bars(axis: Axes, places: Array, width: float, chance: float, tops: Array, drawn: Look) -> BarContainer:
    """Bars as `Axes.bar` draws them, but that the limits are told of all at once."""
    left = places - width / 2
    style: dict[str, Any] = {"facecolor": drawn.colour, "edgecolor": "white", "lw": 0.5}
    bars = [
        Rectangle((x, chance), width, top - chance, label="_nolegend_", **style)
        for x, top in zip(left.tolist(), tops.tolist(), strict=True)
    ]
    for bar in bars:
        axis.add_artist(bar)
    axis.update_datalim([(left.min(), chance), (left.max() + width, tops.max()), (left.min(), tops.min())])
    axis.autoscale_view()
    made = BarContainer(bars, label=drawn.name)
    axis.add_container(made)
    return made


def by_contamination(groups: Groups, metric: str = "test/auroc", name: str = "AUROC") -> Figure | None:
    """A metric against the fraction of anomalies in training, a panel for each data set: mean and range over seeds.

    None where no detector was trained with two fractions. Zero is drawn on a logarithmic axis' linear beginning.

    Example:
        >>> runs = [{"metrics": {"test/auroc": 0.9}, "contamination": 0.0}]
        >>> by_contamination({("digits", "knn"): runs}) is None
        True
    """
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    for (data, detector), runs in groups.items():
        words = [word for word in detector.split() if not word.startswith("data.contamination=")]
        bare = " ".join(words).removesuffix(" (default)")
        for run in runs:
            value, fraction = run.get("metrics", {}).get(metric), run.get("contamination")
            if value is not None and fraction is not None:
                found.setdefault(data, {}).setdefault(bare, {}).setdefault(round(fraction, 4), []).append(value)
    found = {data: own for data, own in found.items() if any(len(line) > 1 for line in own.values())}
    if not found:
        return None
    sets, names = sorted(found), sorted({n for own in found.values() for n in own})
    figure, axes = of_sets(sets, ruled=True)
    for axis, data in zip(axes, sets, strict=False):
        for detector, line in sorted(found[data].items()):
            drawn = series(names.index(detector), cut(detector, 40))
            percent = 100 * np.array(sorted(line))
            low, mean, high = _ranges(line[c] for c in sorted(line))
            made = axis.plot(percent, mean, **drawn.line, marker=drawn.marker, ms=5, label=drawn.name)
            spread = axis.fill_between(percent, low, high, color=drawn.colour, alpha=0.15, lw=0)
            about(*made, spread, detector=detector, data=data)
        widths = [w for (d, _), runs in groups.items() if d == data for w in _widths(runs, metric)]
        values = [value for line in found[data].values() for own in line.values() for value in own]
        axis.set(xlabel="anomalies in training (%)", ylabel=name, ylim=quality(values, widths))
    return named_once(figure, axes, names)


def _ranges(values: Iterable[Sequence[float]]) -> Array:
    """Least, mean and largest of each, `(3, N)`."""
    return np.array([(min(v), np.mean(v), max(v)) for v in values]).T


def of_sets(sets: Sequence[str], **options: Any) -> tuple[Figure, list[Any]]:
    """A panel for each of the first twelve data sets, titled."""
    figure, axes = tiles(min(len(sets), PANELS), 3, **{"width": 4.4, "height": 3.4, **options})
    for axis, data in zip(axes, sets, strict=False):
        axis.set_title(cut(data, 40), fontsize=10)
    say_left_out(figure, len(axes), len(sets))
    return figure, axes


def say_left_out(figure: Figure, count: int, sets: int) -> None:
    """A title where there are fewer panels than data sets."""
    if count < sets:
        figure.suptitle(f"the first {count} of {sets} data sets")


def named_once(figure: Figure, axes: Sequence[Axes], names: Names) -> Figure:
    """Every detector once, whichever panels it is in."""
    there = axes[0].get_legend_handles_labels()[1]
    for i, name in enumerate(names):
        drawn = series(i, cut(name, 40))
        if drawn.name not in there:
            about(*axes[0].plot([], [], **drawn.line, label=drawn.name), detector=name)
    return beside(figure, axes[0], titles=("detector",))
