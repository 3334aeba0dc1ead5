"""Particles of an event: the leading one's transverse momentum and pseudorapidity, and how many there are.

`N` events; `P` = 19 particles, one of missing transverse energy, four electrons, four muons, ten jets, each kind
ordered by pT; `F` = 3 features, pT [GeV], eta, phi [rad].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from straylight.report.figures.span import Span
from straylight.report.figures.style import beside, canvas, present

LAYOUT = (("missing energy", 1), ("electron", 4), ("muon", 4), ("jet", 10))
PARTICLES = sum(slots for _, slots in LAYOUT)
BINS = 50


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
    events = events.reshape(-1, PARTICLES, 3)
    figure = canvas(4, 3, width=3.1, height=2.2)
    panels = figure.subplots(4, 3)
    first = 0
    for row, (name, slots) in zip(panels, LAYOUT, strict=True):
        own = events[:, first : first + slots]
        there = (own != 0).any(2)
        first += slots
        leads, of_kind = there[:, 0], labels[there[:, 0]]
        pt, eta, phi = (own[leads, 0, i].astype(np.float64) for i in range(3))
        if slots == 1:
            _steps(row[0], pt, of_kind, kinds, _upto(pt, of_kind), log=True)
            _steps(row[1], phi, of_kind, kinds, Span(-np.pi, np.pi))
            row[0].set_xlabel("missing energy [GeV]")
            row[1].set_xlabel("its phi [rad]")
            row[2].set_axis_off()
            continue
        _steps(row[0], pt, of_kind, kinds, _upto(pt, of_kind), log=True)
        reach = max(float(np.abs(eta).max(initial=0.0)), 1.0)
        _steps(row[1], eta, of_kind, kinds, Span(-reach, reach))
        row[0].set_xlabel(f"leading {name} pT [GeV]")
        row[1].set_xlabel(f"leading {name} eta")
        _multiplicity(row[2], there.sum(1), labels, kinds, slots)
        row[2].set_xlabel(f"number of {name}s")
    for axis in panels[:, 0]:
        axis.set_ylabel("density")
    handles = [axis for axis in panels.ravel() if axis.get_legend_handles_labels()[0]]
    beside(figure, max(handles, key=lambda axis: len(axis.get_legend_handles_labels()[0])))
    return figure


def _upto(values: NDArray[np.float64], labels: NDArray[np.int64]) -> Span:
    ends = [float(np.quantile(values[labels == label], 0.999)) for label, _ in present(labels)]
    return Span(0.0, max([*ends, 1.0]))


def _steps(
    axis: Axes, values: NDArray[np.float64], y: NDArray[np.int64], kinds: Sequence[str], of: Span, log: bool = False
) -> None:
    edges = of.grid(BINS)
    for label, drawn in present(y, kinds):
        counts = np.histogram(of.clip(values[y == label]), edges)[0]
        heights = counts / (max(counts.sum(), 1) * np.diff(edges))
        axis.stairs(heights, edges, color=drawn.colour, ls=drawn.dash, lw=1.2, label=drawn.name)
    if not len(values):
        axis.text(0.5, 0.5, "none", ha="center", va="center", transform=axis.transAxes)
        axis.set(xticks=[], yticks=[])
    elif log:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.set_xlim(of.low, of.high)
    axis.grid(alpha=0.25)


def _multiplicity(axis: Axes, counts: NDArray[np.int64], y: NDArray[np.int64], kinds: Sequence[str], most: int) -> None:
    edges = np.arange(most + 2) - 0.5
    for label, drawn in present(y, kinds):
        share = np.bincount(counts[y == label], minlength=most + 1) / (y == label).sum()
        axis.stairs(share, edges, color=drawn.colour, ls=drawn.dash, lw=1.2, label=drawn.name)
    axis.set(xlim=(-0.5, most + 0.5), ylim=(0, None), xticks=range(0, most + 1, max(1, most // 5)))
    axis.set_ylabel("fraction of events")
    axis.grid(alpha=0.25)
