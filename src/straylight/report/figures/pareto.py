"""Quality against cost, with the front that nobody beats."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from straylight.metrics.pareto import pareto_front
from straylight.report.figures.style import COLOURS, MARKERS
from straylight.report.leaderboard import Row


def pareto(table: Sequence[Row]) -> Figure:
    """AUROC against the median latency of one event, a panel for each data set, with the front that nobody beats.

    Bars span the seeds; the mean is drawn. A detector looks the same in every panel.
    """
    table = [r for r in table if r.numbers["p50_us"].mean is not None and r.numbers["auroc"].mean is not None]
    panels = list(dict.fromkeys(row.data for row in table))
    names = sorted({row.detector for row in table})
    columns = min(3, max(1, len(panels)))
    lines = max(1, math.ceil(len(panels) / columns))
    figure = Figure(figsize=(4.6 * columns + 2.2, 3.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    shown = {}
    for axis, data in zip(axes, panels, strict=False):
        rows = [row for row in table if row.data == data]
        x = [row.numbers["p50_us"].mean or 0.0 for row in rows]
        y = [row.numbers["auroc"].mean or 0.0 for row in rows]
        front = pareto_front(x, y)
        best = [*front, front[-1]]  # the best one's AUROC is there for whoever can wait longer, too
        edge = [*(x[i] for i in front), max(x)]
        axis.step(edge, [y[i] for i in best], where="post", color="0.6", lw=1.5, ls="--", zorder=1)
        for row, cost, quality in zip(rows, x, y, strict=True):
            style = names.index(row.detector)
            shown[row.detector] = axis.errorbar(
                cost,
                quality,
                xerr=_arms(row, "p50_us"),
                yerr=_arms(row, "auroc"),
                fmt=MARKERS[style % len(MARKERS)],
                color=COLOURS[style % len(COLOURS)],
                ms=8,
                capsize=3,
                zorder=2,
            )
        axis.set_xscale("log")
        axis.set(title=data, xlabel="median latency of one event (µs)", ylabel="AUROC")
        axis.grid(alpha=0.25, which="both")
    handles = [shown[name] for name in names]
    if handles:
        figure.legend(handles, names, loc="outside right upper", frameon=False, title="detector")
    return figure


def _arms(row: Row, name: str) -> list[list[float]]:
    mean, low, high = row.numbers[name]
    assert mean is not None and low is not None and high is not None
    return [[mean - low], [high - mean]]
