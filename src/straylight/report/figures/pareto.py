"""Quality against cost, with the front that nobody beats."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from straylight.metrics.pareto import pareto_front
from straylight.report.figures.about import about, passed_on
from straylight.report.figures.axes import logarithmic, quality
from straylight.report.figures.comparison import PANELS, say_left_out
from straylight.report.figures.style import ROW, Look, cut, rule, series, tiles
from straylight.report.leaderboard import Row

METRICS = {"auroc": "AUROC", "tpr@fpr=0.001": "TPR at FPR 1e-3"}


def pareto(table: Sequence[Row], metrics: Sequence[str] = ("auroc", "tpr@fpr=0.001")) -> Figure:
    """Metrics against the median latency of one event, a column for each data set, with the front that nobody beats.

    Bars span the seeds; the mean is drawn. A detector looks the same in every panel. What was timed, eager torch or
    ONNX Runtime, is named, and a hollow marker was timed while others used the machine. A metric that no run resolves
    has no panel. At most twelve data sets are shown; where there are more, the title says so.
    """
    table = [r for r in table if r.numbers["p50_us"].mean is not None and r.numbers["auroc"].mean is not None]
    every = list(dict.fromkeys(row.data for row in table))
    sets = every[:PANELS]
    names = sorted({row.detector for row in table})
    runtimes = sorted({row.runtimes.get("p50_us", "") for row in table} - {""})
    alone = f", {runtimes[0]}" if len(runtimes) == 1 else ""
    # a row of panels for each metric, unless there are many data sets
    wanted = [
        (m, d) for m in metrics for d in sets if any(r.data == d and r.numbers[m].mean is not None for r in table)
    ]
    figure, axes = tiles(len(wanted), min(3, len(sets)))
    figure.set_size_inches(figure.get_figwidth() + 0.2, max(figure.get_figheight(), ROW * (len(names) + 2) + 0.6))
    say_left_out(figure, len(sets), len(every))
    shown: dict[str, Look] = {}
    hollow = False
    for axis, (metric, data) in zip(axes, wanted, strict=True):
        rows = [row for row in table if row.data == data and row.numbers[metric].mean is not None]
        x = [row.numbers["p50_us"].mean or 0.0 for row in rows]
        y = [row.numbers[metric].mean or 0.0 for row in rows]
        front = pareto_front(x, y)
        best = [*front, front[-1]]  # the best one's quality is there for whoever can wait longer, too
        edge = [*(x[i] for i in front), max(x)]
        axis.step(edge, [y[i] for i in best], where="post", color="0.6", lw=1.5, ls="--", zorder=1)
        for row, cost, quality_of in zip(rows, x, y, strict=True):
            drawn = series(names.index(row.detector), row.detector)
            shown[row.detector] = drawn
            hollow |= row.shared
            face = {"mfc": "white", "mew": 1.6} if row.shared else {}
            made = _crossed(axis, (cost, quality_of), _ends(row, "p50_us"), _ends(row, metric), drawn, **face)
            about(made, detector=row.detector, data=data)
        axis.update_datalim(
            [(x, y) for row in rows for x, y in zip(_ends(row, "p50_us"), _ends(row, metric), strict=True)]
        )
        axis.autoscale_view()
        ends = [end for row in rows for end in row.numbers[metric] if end is not None]
        axis.set_ylim(quality(ends, [row.widths.get(metric, 0.0) for row in rows]))
        axis.set(title=data, xlabel=f"median latency of one event (µs{alone})", ylabel=METRICS.get(metric, metric))
        logarithmic(axis.xaxis)
        rule(axis, which="both")
    named = [name for name in names if name in shown]  # others have nothing in the panels that there is room for
    if named:
        seen = {
            name: sorted({r.runtimes["p50_us"] for r in table if r.detector == name and r.runtimes}) for name in named
        }
        labels = [cut(n, 40) + ("" if alone or not seen[n] else f" ({', '.join(seen[n])})") for n in named]
        handles = [_marker(shown[name]) for name in named]
        if hollow:
            handles.append(_marker(Look("", "0.3", "o", "-"), mfc="white", mew=1.6))
            labels.append("hollow: taken while\nothers used the machine")
        for handle, name in zip(handles, named, strict=False):
            about(handle, detector=name)
        passed_on(handles, figure.legend(handles, labels, loc="outside right upper", frameon=False, title="detector"))
    return figure


def _marker(drawn: Look, **style: Any) -> Line2D:
    return Line2D([], [], ls="", marker=drawn.marker, color=drawn.colour, ms=8, **style)


def _crossed(
    axis: Axes,
    at: tuple[float, float],
    across: tuple[float, float],
    along: tuple[float, float],
    drawn: Look,
    **face: Any,
) -> ErrorbarContainer:
    """A marker on two bars, as `Axes.errorbar` draws it of many more artists; limits are the caller's."""
    style: dict[str, Any] = {"color": drawn.colour, "ms": 6, "solid_capstyle": "butt", "zorder": 2}
    style |= {name: width for name, width in face.items() if name == "mew"}
    x, y = at
    bars: Any = Line2D(across, (y, y), marker="|", **style), Line2D((x, x), along, marker="_", **style)
    dot = Line2D([x], [y], ls="", marker=drawn.marker, color=drawn.colour, ms=8, zorder=2.1, **face)
    for line in (dot, *bars):
        axis.add_artist(line)
    made = ErrorbarContainer((dot, (), bars), has_xerr=True, has_yerr=True)
    axis.add_container(made)
    return made


def _ends(row: Row, name: str) -> tuple[float, float]:
    mean, low, high = row.numbers[name]
    assert mean is not None and low is not None and high is not None
    return min(mean, low), max(mean, high)  # a mean of equal numbers may be rounded
