"""Particles of an event: the leading one's transverse momentum and pseudorapidity, and how many there are.

`N` events; `P` = 19 particles, one of missing transverse energy, four electrons, four muons, ten jets, each kind
ordered by pT; `F` = 3 features, pT [GeV], eta, phi [rad].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures.span import Span
from straylight.report.figures.style import Look, beside, canvas, present

LAYOUT = (("missing energy", 1), ("electron", 4), ("muon", 4), ("jet", 10))
PARTICLES = sum(slots for _, slots in LAYOUT)
BINS = 50
Kinds = list[tuple[Look, NDArray[Any]]]  # values of each kind


def leading_particles(x: ArrayLike, y: ArrayLike, kinds: Sequence[str] = ()) -> Figure:
    """Histograms, normalised for each kind of event, of leading pT, leading eta and multiplicity of each object.

    A particle whose features are all zero is not there. An event without the object is in no histogram of pT and eta;
    those of pT have a logarithmic axis of densities and end at the largest 99.9 % quantile of a kind, beyond which all
    are counted in the last bin.

    References:
        E. Govorkova et al., Sci. Data 9 (2022) 118, arXiv:2107.02157

    Args:
        x: events, `(N, 57)`, `(N, 19, 3)` or `(N, 1, 19, 3)`.
        y: `(N,)`, -1 unknown, 0 nominal, 1..K the kind of anomaly.
        kinds: names of the labels.

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
    figure = canvas(4, 3, width=3.1, height=2.2)
    panels = figure.subplots(4, 3)
    first = 0
    for row, (name, slots) in zip(panels, LAYOUT, strict=True):
        own = [(drawn, part[:, first : first + slots]) for drawn, part in kinds_of]
        there = [(drawn, (p[..., 0] != 0) | (p[..., 1] != 0) | (p[..., 2] != 0)) for drawn, p in own]
        leads = [(drawn, part[seen[:, 0], 0]) for (drawn, part), (_, seen) in zip(own, there, strict=True)]
        first += slots
        _pt(row[0], [(drawn, lead[:, 0]) for drawn, lead in leads])
        which = 2 if slots == 1 else 1
        angles = [(drawn, lead[:, which]) for drawn, lead in leads]
        reach = max([1.0, *(float(np.abs(angle).max(initial=0.0)) for _, angle in angles)])
        _steps(row[1], angles, Span(-math.pi, math.pi) if slots == 1 else Span(-reach, reach))
        if slots == 1:
            row[0].set_xlabel(f"{name} [GeV]")
            row[1].set_xlabel("its phi [rad]")
            row[2].set_axis_off()
            continue
        _multiplicity(row[2], [(drawn, seen.sum(1)) for drawn, seen in there], slots)
        row[0].set_xlabel(f"leading {name} pT [GeV]")
        row[1].set_xlabel(f"leading {name} eta")
        row[2].set_xlabel(f"number of {name}s")
    for axis in panels[:, 0]:
        axis.set_ylabel("density")
    beside(figure, panels[0, 0] if panels[0, 0].patches else panels[1, 2])
    return figure


def _pt(axis: Axes, kinds: Kinds) -> None:
    ends = [float(np.quantile(pt, 0.999)) for _, pt in kinds if len(pt)]
    _steps(axis, kinds, Span(0.0, max([*ends, 1.0])), log=True)


def _steps(axis: Axes, kinds: Kinds, of: Span, log: bool = False) -> None:
    for drawn, values in kinds:
        if len(values):
            counts, edges = of.histogram(values, BINS)
            heights = counts / (counts.sum() * np.diff(edges))
            axis.stairs(heights, edges, color=drawn.colour, ls=drawn.dash, lw=1.2, label=drawn.name)
    if not axis.patches:
        axis.text(0.5, 0.5, "none", ha="center", va="center", transform=axis.transAxes)
        axis.set(xticks=[], yticks=[])
    elif log:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.set_xlim(of.low, of.high)
    axis.grid(alpha=0.25)


def _multiplicity(axis: Axes, kinds: Kinds, most: int) -> None:
    edges = np.arange(most + 2) - 0.5
    for drawn, counts in kinds:
        share = np.bincount(counts, minlength=most + 1) / len(counts)
        axis.stairs(share, edges, color=drawn.colour, ls=drawn.dash, lw=1.2, label=drawn.name)
    axis.set(xlim=(-0.5, most + 0.5), ylim=(0, None), xticks=range(0, most + 1, max(1, most // 5)))
    axis.set_ylabel("fraction of events")
    axis.grid(alpha=0.25)
