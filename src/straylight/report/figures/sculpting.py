"""Whether a cut on the score makes a bump of its own: the background in the resonant variable before and after it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from straylight.report.figures.spectrum import bins, poisson, region
from straylight.report.figures.style import DASHES, NOMINAL, beside, panels, roomy, rule, series

Array = NDArray[np.float64]
FEWEST = 10  # events of a cut, that are expected in a bin
RATIO = (0.5, 1.5)  # that its axis holds at least, and at most twice as far
MOST = (0.0, 3.0)


def sculpting(spectra: Sequence[Mapping[str, Any]], resonance: Mapping[str, Any] | None = None) -> Figure | None:
    """The background's spectrum before and after each cut, each normalised, and their ratio below.

    Densities integrate to one. Neighbouring bins are joined until ten events of a cut are expected in each; a cut that
    keeps fewer than twenty is named alone. Whiskers are central 68 % intervals of Poisson's law, of the events kept
    alone, of which there are few. The legend says the Jensen-Shannon divergence, beside what it is by chance where that
    is known, and the p-value of chi-squared. None where no cut has a spectrum.

    Args:
        spectra: as a run's record has them in `bump`: `efficiency`, `jsd`, `chance`, `p`, `dof`; `edges`, `(n + 1,)`,
            `before` and `after`, `(n,)` counts.
        resonance: its `name`, and `low` and `high`, the limits of the signal region, which is shaded.

    Raises:
        ValueError: if counts are not as many as there are bins.

    Example:
        >>> cut = {"efficiency": 0.1, "jsd": 0.01, "p": 0.3, "edges": [3, 3.5, 4], "before": [60, 40], "after": [9, 31]}
        >>> figure = sculpting([cut])
        >>> figure.legends[0].get_texts()[1].get_text()
        'cut at 10 %: JSD 0.01, p 0.3'
    """
    shown = [entry for entry in spectra if entry.get("edges") is not None and sum(entry["before"])]
    if not shown:
        return None
    figure, (upper, lower) = panels(2, width=5.6, height=2.6, sharex=True, height_ratios=(2, 1))
    rule(upper, lower)
    if resonance is not None:
        region(upper, lower, low=resonance["low"], high=resonance["high"])
    edges, (before,) = bins(shown[0]["edges"], shown[0]["before"])
    density = before / (before.sum() * np.diff(edges))
    whole = f"before, {before.sum():,.0f} events"
    upper.stairs(density, edges, fill=True, color=NOMINAL, alpha=0.35, lw=0, label=whole)
    lower.axhline(1, color=NOMINAL, lw=1)
    reach = list(RATIO)
    for number, entry in enumerate(shown):
        edges, (before, after) = bins(entry["edges"], entry["before"], entry["after"])
        name = f"cut at {100 * entry['efficiency']:g} %{_told(entry)}"
        drawn = series(number, name)
        line = {"color": drawn.colour, "ls": DASHES[number % 4]}
        kept = after.sum()
        edges, before, after = joined(edges, before, after)
        if len(after) < 2:
            upper.plot([], [], " ", label=f"{name}, {kept:,.0f} events")
            continue
        upper.stairs(after / (kept * np.diff(edges)), edges, baseline=None, **line, lw=1.4, label=name)
        there = before > 0
        expected = np.where(there, before / before.sum() * kept, 1.0)
        middle, arms = (edges[1:] + edges[:-1]) / 2, np.array(poisson(after)) / expected
        middle += (number - (len(shown) - 1) / 2) * np.diff(edges) * 0.2  # beside each other
        ratio = after / expected
        style = {"fmt": drawn.marker, "color": drawn.colour, "ms": 3, "elinewidth": 0.8}
        lower.errorbar(middle[there], ratio[there], yerr=arms[:, there], **style)
        reach = [min([reach[0], *ratio[there]]), max([reach[1], *ratio[there]])]
    name = "resonant variable" if resonance is None else str(resonance["name"])
    upper.set(ylabel="density", xlim=(edges[0], edges[-1]), ylim=(0, None))
    lower.set(xlabel=name, ylabel="after / before", ylim=(max(reach[0] - 0.1, MOST[0]), min(reach[1] + 0.1, MOST[1])))
    roomy(figure, upper, 5.6)
    return beside(figure, upper)


def joined(edges: Array, before: Array, after: Array) -> tuple[Array, Array, Array]:
    """Edges and counts of neighbouring bins together, so that ten events of those after the cut are expected in each.

    Example:
        >>> edges, before, after = joined(np.arange(6.0), np.full(5, 100.0), np.array([8.0, 4.0, 3.0, 5.0, 5.0]))
        >>> edges.tolist(), before.tolist(), after.tolist()
        ([0.0, 2.0, 5.0], [200.0, 300.0], [12.0, 13.0])
    """
    expected = before / before.sum() * after.sum()
    starts, held = [0], 0.0
    for place, value in enumerate(expected):
        held += value
        if held >= FEWEST and expected[place + 1 :].sum() >= FEWEST:
            starts.append(place + 1)
            held = 0.0
    limits = np.append(edges[starts], edges[-1])
    return limits, np.add.reduceat(before, starts), np.add.reduceat(after, starts)


def _told(entry: Mapping[str, Any]) -> str:
    """What was measured of a cut."""
    said = []
    if (jsd := entry.get("jsd")) is not None:
        chance = entry.get("chance")
        said.append(f"JSD {jsd:.2g}" + (f" ({chance:.2g} by chance)" if chance is not None else ""))
    if (p := entry.get("p")) is not None and entry.get("dof") != 0:
        said.append(f"p {p:.2g}")
    return f": {', '.join(said)}" if said else ""
