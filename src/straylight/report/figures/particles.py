"""Particles of an event: the leading one's transverse momentum and pseudorapidity, and how many there are.

`N` events; `P` = 19 particles, one of missing transverse energy, four electrons, four muons, ten jets, each kind
ordered by pT; `F` = 3 features, pT [GeV], eta, phi [rad].
"""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures.axes import logarithmic
from straylight.report.figures.span import Span, per_unit
from straylight.report.figures.style import Look, Names, bare, beside, panels, present

LAYOUT = (("missing energy", 1), ("electron", 4), ("muon", 4), ("jet", 10))
PARTICLES = sum(slots for _, slots in LAYOUT)
BINS = 50
Kinds = list[tuple[Look, NDArray[Any]]]  # values of each kind


def leading_particles(x: ArrayLike, y: ArrayLike, kinds: Names = ()) -> Figure:
    """Histograms, normalised for each kind of event, of leading pT, leading eta and multiplicity of each object.

    A particle whose features are all zero is not there. An event without the object is in no histogram of pT and eta;
    those of pT have a logarithmic axis of densities and end at the largest 99.9 % quantile of a kind, beyond which all
    are counted in the last bin.

    References:
        E. Govorkova et al., Sci. Data 9 (2022) 118, arXiv:2107.02157

    Args:
        x: events, `(N, 57)`, `(N, 19, 3)` or `(N, 1, 19, 3)`.

    Raises:
        ValueError: if the events are not 19 particles of three features, or the lengths differ.

    Example:
        >>> x = np.zeros((10, 19, 3)); x[:, 0, 0] = np.arange(10)
        >>> leading_particles(x, np.zeros(10, int)).axes[0].get_xlabel()
        'missing energy [GeV]'
    """
    events, labels = np.asarray(x), np.asarray(y)
    if not len(events) or events[0].size != PARTICLES * 3 or labels.shape != (len(events),):
        raise ValueError(
            f"events are {PARTICLES} particles of 3 features with a label each, not {events.shape} and {labels.shape}"
        )
    # of each kind its events, gathered once
    kinds_of = [(drawn, events[labels == label].reshape(-1, PARTICLES, 3)) for label, drawn in present(labels, kinds)]
    figure, axes = panels(4, 3, width=3.1, height=2.2, ruled=True)
    first = 0
    for i, (name, slots) in enumerate(LAYOUT):
        left, middle, right = axes[3 * i : 3 * i + 3]
        left.set_ylabel("density")
        own = [(drawn, part[:, first : first + slots]) for drawn, part in kinds_of]
        there = [(drawn, (p[..., 0] != 0) | (p[..., 1] != 0) | (p[..., 2] != 0)) for drawn, p in own]
        leads = [(drawn, part[seen[:, 0], 0]) for (drawn, part), (_, seen) in zip(own, there, strict=True)]
        first += slots
        pts = [(drawn, lead[:, 0]) for drawn, lead in leads]
        end = max([1.0, *(float(np.quantile(pt, 0.999)) for _, pt in pts if len(pt))])
        _steps(left, pts, Span(0.0, end), log=True)
        if slots == 1:
            _steps(middle, [(drawn, lead[:, 2]) for drawn, lead in leads], Span(-math.pi, math.pi))
            left.set_xlabel(f"{name} [GeV]")
            middle.set_xlabel("its phi [rad]")
            right.set_axis_off()
            continue
        etas = [(drawn, lead[:, 1]) for drawn, lead in leads]
        reach = max([1.0, *(float(np.abs(eta).max(initial=0.0)) for _, eta in etas)])
        _steps(middle, etas, Span(-reach, reach))
        _multiplicity(right, [(drawn, seen.sum(1)) for drawn, seen in there], slots)
        left.set_xlabel(f"leading {name} pT [GeV]")
        middle.set_xlabel(f"leading {name} eta")
        right.set_xlabel(f"number of {name}s")
    return beside(figure, axes[0] if axes[0].patches else axes[5])


def _steps(axis: Axes, kinds: Kinds, of: Span, log: bool = False) -> None:
    for drawn, values in kinds:
        if len(values):
            counts, edges = of.histogram(values, BINS)
            axis.stairs(per_unit(counts, edges), edges, **drawn.line, lw=1.2, label=drawn.name)
    if not axis.patches:
        axis.text(0.5, 0.5, "none", ha="center", va="center", transform=axis.transAxes)
        bare(axis)
    elif log:
        logarithmic(axis.yaxis)
    else:
        axis.set_ylim(bottom=0)
    axis.set_xlim(of.low, of.high)


def _multiplicity(axis: Axes, kinds: Kinds, most: int) -> None:
    edges = np.arange(most + 2) - 0.5
    for drawn, counts in kinds:
        share = np.bincount(counts, minlength=most + 1) / len(counts)
        axis.stairs(share, edges, **drawn.line, lw=1.2, label=drawn.name)
    axis.set(xlim=(-0.5, most + 0.5), ylim=(0, None), xticks=range(0, most + 1, max(1, most // 5)))
    axis.set_ylabel("fraction of events")
