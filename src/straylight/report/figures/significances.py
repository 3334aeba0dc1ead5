"""Significance before and after cuts on the score, of many runs: what does a search gain?"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from straylight.report.figures.about import about
from straylight.report.figures.axes import symmetric
from straylight.report.figures.comparison import say_left_out
from straylight.report.figures.style import beside, cut, panels, rule, series
from straylight.report.leaderboard import Groups, Run

ROWS = 4  # data sets
LEVELS = {3.0: ":", 5.0: "--"}  # evidence and discovery, and how their lines are drawn
LEAST = (-1.0, 6.0)  # that an axis holds
MARGIN, SHARE = 0.5, 0.15  # beyond the outermost point, and of its distance from zero
FAR = 15.0  # a significance from which on an axis is logarithmic beyond -5 and 5, where it would hide 3 and 5
TICKS = (-100, -50, -20, -10, -5, -3, 0, 3, 5, 10, 20, 50, 100)


def significances(groups: Groups) -> Figure | None:
    """z of the uncut spectrum against z after each cut: a row for each data set, a panel for each cut, a point a run.

    Lines are at 3 and 5, and where a cut changes nothing; an axis that goes far is logarithmic beyond 5. A point is
    hollow where folds are not forward and no measured width was divided by: without a signal its z after a cut is wider
    than a standard normal's. At most four data sets are shown. None where no run has a z before and after a cut.

    Args:
        groups: runs by data set and detector, whose records have `bump`.

    Example:
        >>> cuts = [{"efficiency": 1.0, "z": 2.0}, {"efficiency": 0.01, "z": 7.8}]
        >>> run = {"bump": {"direction": "forward", "cuts": cuts}}
        >>> significances({("bump", "cathode"): [run]}).axes[0].get_title()
        'bump, cut at 1 %'
    """
    found: dict[str, dict[str, list[tuple[Run, dict[float, float]]]]] = {}
    for (data, detector), runs in groups.items():
        for run in runs:
            z = z_of(run)
            if 1.0 in z and len(z) > 1:
                found.setdefault(data, {}).setdefault(detector, []).append((run, z))
    if not found:
        return None
    sets, names = sorted(found), sorted({name for own in found.values() for name in own})
    shown = sets[:ROWS]
    every = [entry for data in shown for own in found[data].values() for entry in own]
    efficiencies = sorted({efficiency for _, z in every for efficiency in z if efficiency < 1}, reverse=True)
    figure, axes = panels(len(shown), len(efficiencies), width=3.6, height=3.6)
    say_left_out(figure, len(shown), len(sets))
    before = _ends(z[1.0] for _, z in every)
    after = _ends(value for _, z in every for efficiency, value in z.items() if efficiency < 1)
    ends = min(before[0], after[0]), max(before[1], after[1])
    rule(*axes)
    for place, axis in enumerate(axes):
        data, efficiency = shown[place // len(efficiencies)], efficiencies[place % len(efficiencies)]
        for level, dash in LEVELS.items():
            axis.axhline(level, color="0.3", lw=0.9, ls=dash)
            axis.axvline(level, color="0.3", lw=0.9, ls=dash)
        axis.plot(same := np.linspace(*ends, 500), same, color="0.6", lw=1)
        for name, own in found[data].items():
            drawn = series(names.index(name), name)
            for run, z in own:
                if efficiency in z:
                    face = drawn.colour if _right(run) else "white"
                    style = {"color": drawn.colour, "mfc": face, "ms": 6, "mew": 1.2, "alpha": 0.8}
                    point = axis.plot(z[1.0], z[efficiency], drawn.marker, **style)
                    about(*point, detector=name, data=data, run=[str(run.get("folder", ""))])
        for own, (low, high) in ((axis.xaxis, before), (axis.yaxis, after)):
            if max(-low, high) > FAR:
                symmetric(own, 5.0)
                own.set_ticks([tick for tick in TICKS if low <= tick <= high])
                own.set_ticks([], minor=True)
                own.set_major_formatter("{x:g}")
        axis.set(xlim=before, ylim=after)
        axis.set_title(f"{cut(data, 40)}, cut at {100 * efficiency:g} %", fontsize=9)
        axis.set(xlabel="z of all events", ylabel="z after the cut")
    first = axes[0]
    for name in sorted({name for data in shown for name in found[data]}):
        drawn = series(names.index(name), cut(name, 40))
        right = any(_right(run) for data in shown for run, _ in found[data].get(name, []))
        face = drawn.colour if right else "white"
        style = {"color": drawn.colour, "mfc": face, "ms": 6, "mew": 1.2}
        about(*first.plot([], [], drawn.marker, **style, label=drawn.name), detector=name)
    if not all(_right(run) for run, _ in every):
        hollow = "hollow: folds are not forward,\nz after a cut is too wide"
        first.plot([], [], "o", color="0.3", mfc="white", ms=6, label=hollow)
    for level, dash in LEVELS.items():
        first.add_line(Line2D([], [], color="0.3", lw=0.9, ls=dash, label=f"z = {level:g}"))
    first.plot([], [], color="0.6", lw=1, label="as before the cut")
    return beside(figure, first, titles=("detector",))


def z_of(run: Mapping[str, Any]) -> dict[float, float]:
    """The significances of a run that are known, by the efficiency of the cut, 1 of none.

    Example:
        >>> z_of({"bump": {"cuts": [{"efficiency": 1.0, "z": 2.0}, {"efficiency": 0.1, "failed": "No fit."}]}})
        {1.0: 2.0}
    """
    cuts = (run.get("bump") or {}).get("cuts") or []
    return {entry["efficiency"]: entry["z"] for entry in cuts if entry.get("z") is not None}


def _ends(values: Iterable[float]) -> tuple[float, float]:
    """Of an axis that holds these."""
    known = list(values)
    low, high = min(known), max(known)
    return min(LEAST[0], low - MARGIN - SHARE * abs(low)), max(LEAST[1], high + MARGIN + SHARE * abs(high))


def _right(run: Run) -> bool:
    """Whether z is as wide as it should be: of forward folds, or once divided by a width that was measured."""
    bump = run.get("bump") or {}
    return bump.get("direction") == "forward" or bump.get("width", 1.0) != 1.0
