"""A density beside the true one: where in the bulk and where in the tails it can be trusted."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from straylight.report.figures.axes import symmetric
from straylight.report.figures.style import Names, beside, panels, present, shown, subsampled


def agreement(log_true: ArrayLike, log_density: ArrayLike, y: ArrayLike, kinds: Names = ()) -> Figure:
    """Learned against true log-density, and their difference along the true one, in nats.

    Args:
        log_true: of nominal events' law at each event, `(N,)`.
        log_density: learned, `(N,)`.

    Raises:
        ValueError: if the three differ in length.

    Example:
        >>> figure = agreement([-1.0, -2.0, -9.0], [-1.1, -1.9, -7.0], [0, 0, 1])
        >>> figure.axes[1].get_ylabel()
        'learned minus true (nats)'
    """
    true, learned, labels = (np.asarray(a).astype(np.float64) for a in (log_true, log_density, y))
    if not true.shape == learned.shape == labels.shape or true.ndim != 1:
        raise ValueError(
            f"both densities and the labels must be of one length, not {true.shape}, {learned.shape}, {labels.shape}"
        )
    places = shown(labels)
    figure, (left, right) = panels(1, 2, ruled=True)
    for label, drawn in present(labels.astype(np.int64), kinds):
        own = places[labels[places] == label]
        style = {"color": drawn.colour, "marker": drawn.marker, "ls": "", "ms": 3, "alpha": 0.5}
        left.plot(true[own], learned[own], label=drawn.name, **style)
        right.plot(true[own], (learned - true)[own], **style)
    finite = true[np.isfinite(true)]
    ends = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    left.plot(ends, ends, color="black", lw=0.8, label="equal")
    right.axhline(0, color="black", lw=0.8)
    symmetric(right.yaxis)
    left.set(xlabel="true log-density (nats)", ylabel="learned log-density (nats)")
    right.set(xlabel="true log-density (nats)", ylabel="learned minus true (nats)")
    left.set_title(subsampled(len(labels), len(places)), fontsize=9)
    return beside(figure, left)
