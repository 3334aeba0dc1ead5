"""The spectrum of the resonant variable before and after cuts on the score: is there a bump in the signal region?"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaincinv

from straylight.report.figures.axes import logarithmic
from straylight.report.figures.style import COLOURS, beside, rule

Array = NDArray[np.float64]
Cut = Mapping[str, Any]
FIT, REGION, BAND = COLOURS[0], COLOURS[4], 0.25
ACROSS = 2  # cuts in a row
STEEP = 20  # how many times as much is expected in one bin as in another, for a logarithmic axis,
FULL = 5  # and how many events in the median one
ONE_SIGMA = 0.158655  # of a standard normal, on either side
PULLS = 3.5  # that the axis of pulls holds at least
UNEVEN = 1e-3  # by which bins of one width may differ


def spectrum(cuts: Sequence[Cut], resonance: Mapping[str, Any], note: str = "") -> Figure | None:
    """Counts in bins of the resonant variable and the fit to the sidebands, a panel for each cut; pulls below.

    Points are counts with central 68 % intervals of Poisson's law, the step line is the fit with its uncertainty as a
    band; the signal region, which is not fitted, is shaded. Where bins are of several widths all are drawn as events in
    the median one's. Titles say how many are observed in the region and expected, and z. Pulls are (counts - fit) /
    sqrt(fit), with the fit's uncertainty in the same units around zero. The axis is logarithmic where the fit falls by
    more than a factor of twenty and the median bin has five events or more. None where no cut has a spectrum or a
    reason for having none.

    Args:
        cuts: as a run's record has them in `bump`: `efficiency`, `kept`; `edges`, `(n + 1,)`, `counts`, `fit` and
            `fit_error`, `(n,)` each; `observed`, `expected`, `uncertainty`, `z` of the region; `function`, `chi2`,
            `dof`. One that could not be fitted has `failed`, a sentence, which is written in its panel.
        resonance: its `name`, and `low` and `high`, the limits of the region.
        note: above all panels.

    Raises:
        ValueError: if counts or fits are not as many as there are bins.

    Example:
        >>> cut = {"efficiency": 1.0, "kept": 30, "edges": [3.0, 3.3, 3.7, 4.0], "counts": [10, 12, 8],
        ...        "fit": [10.1, 9.0, 7.9], "fit_error": [2.0, 1.5, 2.0], "observed": 12, "expected": 9.0,
        ...        "uncertainty": 1.5, "z": 0.8, "function": "exp2", "chi2": 0.01, "dof": 0}
        >>> figure = spectrum([cut], {"name": "m", "low": 3.3, "high": 3.7})
        >>> print(figure.axes[0].get_title())
        all events: 30
        in the region 12 observed, 9 ± 1.5 expected, z = 0.80
    """
    shown = [cut for cut in cuts if cut.get("edges") is not None or cut.get("failed")]
    if not shown:
        return None
    across = min(ACROSS, len(shown))
    down = -(-len(shown) // across)
    figure = Figure(figsize=(4.8 * across + 2.0, 4.4 * down), layout="constrained")
    grid = figure.subplots(2 * down, across, squeeze=False, height_ratios=[3, 1] * down)
    if note:
        figure.suptitle(note, fontsize=10)
    for place, cut in enumerate(shown):
        row, column = divmod(place, across)
        upper, lower = grid[2 * row, column], grid[2 * row + 1, column]
        upper.set_title(titled(cut), fontsize=9)
        rule(upper, lower)
        if cut.get("edges") is not None:
            _panel(upper, lower, cut, resonance)
        if cut.get("failed"):
            text = "\n".join(textwrap.wrap(str(cut["failed"]), 44))
            upper.text(0.5, 0.95, text, transform=upper.transAxes, ha="center", va="top", fontsize=8)
        if cut.get("edges") is None:
            upper.set(xticks=[], yticks=[])
            lower.set_visible(False)
    for spare in grid.ravel()[[*_spare(len(shown), across, down)]]:
        spare.set_visible(False)
    first = next((i for i, cut in enumerate(shown) if cut.get("fit") is not None), 0)
    return beside(figure, grid[2 * (first // across), first % across])


def titled(cut: Cut) -> str:
    """What a cut keeps, and what of it was found in the region."""
    kept, efficiency = cut.get("kept"), cut["efficiency"]
    first = "all events" if efficiency >= 1 else f"cut at {100 * efficiency:g} %"
    first += "" if kept is None else f": {kept:,} events" if efficiency < 1 else f": {kept:,}"
    if cut.get("observed") is None or cut.get("expected") is None:
        return first
    found = f"in the region {cut['observed']:,} observed, {_number(cut['expected'])}"
    if cut.get("uncertainty") is not None:
        found += f" ± {_number(cut['uncertainty'])}"
    return f"{first}\n{found} expected" + (f", z = {cut['z']:.2f}" if cut.get("z") is not None else "")


def poisson(counts: ArrayLike) -> tuple[Array, Array]:
    """How far central 68 % intervals of Poisson's law reach below and above counts, `(n,)` each; Garwood's.

    Example:
        >>> below, above = poisson([0, 100])
        >>> below.round(2).tolist(), above.round(2).tolist()
        ([0.0, 9.98], [1.84, 11.03])
    """
    n = np.asarray(counts, np.float64)
    low = np.where(n > 0, gammaincinv(np.maximum(n, 1), ONE_SIGMA), 0.0)
    return n - low, gammaincinv(n + 1, 1 - ONE_SIGMA) - n


def region(*axes: Axes, low: float, high: float) -> None:
    """Shade the signal region, named in the first."""
    for axis in axes:
        axis.axvspan(low, high, color=REGION, alpha=0.2, lw=0, label="signal region" if axis is axes[0] else None)


def bins(edges: ArrayLike, *columns: ArrayLike) -> tuple[Array, list[Array]]:
    """Edges and what lies between them, checked.

    Raises:
        ValueError: if there are not as many numbers as bins, or edges do not ascend.
    """
    limits, there = np.asarray(edges, np.float64), [np.asarray(column, np.float64) for column in columns]
    if limits.ndim != 1 or len(limits) < 2 or not (np.diff(limits) > 0).all():
        raise ValueError("the edges of bins must be two or more numbers that ascend")
    if any(column.shape != (len(limits) - 1,) for column in there):
        shapes = ", ".join(str(column.shape) for column in there)
        raise ValueError(f"{len(limits) - 1} bins need as many counts, expected counts and errors, not {shapes}")
    return limits, there


def _panel(upper: Axes, lower: Axes, cut: Cut, resonance: Mapping[str, Any]) -> None:
    edges, (counts,) = bins(cut["edges"], cut["counts"])
    widths = np.diff(edges)
    unit = float(np.median(widths))
    even = np.ptp(widths) <= UNEVEN * unit
    scale = np.ones_like(widths) if even else unit / widths
    middle, (below, above) = (edges[1:] + edges[:-1]) / 2, poisson(counts)
    region(upper, lower, low=resonance["low"], high=resonance["high"])
    points: dict[str, Any] = {"fmt": "o", "color": "black", "ms": 3, "elinewidth": 0.8}
    upper.errorbar(middle, counts * scale, yerr=[below * scale, above * scale], **points, label="counts")
    steep = False
    if cut.get("fit") is not None:
        _, (fit, error) = bins(edges, cut["fit"], cut["fit_error"])
        steep = bool(fit.max() > STEEP * fit.min() > 0 and np.median(fit) >= FULL)
        _steps(upper, edges, fit * scale, error * scale, least=0.0)
        root = np.sqrt(np.maximum(fit, np.finfo(float).tiny))
        _steps(lower, edges, np.zeros_like(fit), np.where(fit > 0, error / root, 0.0))
        there = fit > 0
        arms = np.array([below, above])[:, there] / root[there]
        pulls = ((counts - fit) / root)[there]
        lower.set_ylim(min(-PULLS, 1.15 * pulls.min(initial=0)), max(PULLS, 1.15 * pulls.max(initial=0)))
        lower.errorbar(middle[there], pulls, yerr=arms, **points)
        lower.set_ylabel("pull")
        said = str(cut.get("function", "fit"))
        if cut.get("chi2") is not None and cut.get("dof"):
            said += f"\nχ² {cut['chi2']:.1f}, {cut['dof']} degrees of freedom"
        upper.text(0.97, 0.96, said, transform=upper.transAxes, ha="right", va="top", fontsize=8)
    else:
        lower.set_visible(False)
    for axis in (upper, lower):
        axis.set_xlim(edges[0], edges[-1])
    bottom = lower if cut.get("fit") is not None else upper
    bottom.set_xlabel(str(resonance["name"]))
    if bottom is lower:
        upper.tick_params(labelbottom=False)
    upper.set_ylabel("events in a bin" if even else f"events per {unit:.3g} of {resonance['name']}")
    if steep:
        lowest = (fit * scale).min()
        upper.set_ylim(0.3 * max(lowest, 0.3), 5 * max((counts * scale).max(), lowest))
        logarithmic(upper.yaxis)
    else:  # room for what is written
        upper.set_ylim(0, 1.25 * max(float(((counts + above) * scale).max()), 1.0))


def _steps(axis: Axes, edges: Array, values: Array, error: Array, least: float = -np.inf) -> None:
    """A step line with a band around it."""
    axis.stairs(values, edges, baseline=None, color=FIT, lw=1.4, label="fit to the sidebands")
    low, high = np.maximum(values - error, least), values + error
    ends: dict[str, Any] = {"step": "post", "color": FIT, "alpha": BAND, "lw": 0}
    axis.fill_between(edges, np.append(low, low[-1]), np.append(high, high[-1]), **ends, label="its uncertainty")


def _spare(count: int, across: int, down: int) -> list[int]:
    """Places of the panels, two for each cut, that nothing is drawn in."""
    return [
        (2 * row + part) * across + column
        for row in range(down)
        for column in range(across)
        for part in (0, 1)
        if row * across + column >= count
    ]


def _number(value: float) -> str:
    """A count that need not be whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
