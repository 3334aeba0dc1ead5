"""Detectors along their average rank, those that cannot be told apart joined by a bar."""

import numpy as np
from matplotlib.figure import Figure

from straylight.metrics.across import Across, alike
from straylight.report.figures.about import about
from straylight.report.figures.style import Names, cut, panels

STEP = 0.26  # inches, between two names


def critical_difference(found: Across, names: Names) -> Figure:
    """Average ranks over data sets, best to the left; a bar joins detectors no two of which differ.

    References:
        J. Demsar, JMLR 7 (2006) 1, figure 1

    Args:
        found: see `straylight.metrics.across`.
        names: `(D,)`, of the detectors.

    Raises:
        ValueError: if there is not a name for each.

    Example:
        >>> from straylight.metrics.across import across
        >>> critical_difference(across([[0.9, 0.8], [0.7, 0.6]]), ["knn", "pca"]).axes[0].get_xlabel()
        'average rank over 2 data sets'
    """
    d = len(found.average_ranks)
    if len(names) != d:
        raise ValueError(f"{d} detectors were compared, and {len(names)} names given")
    order = np.argsort(found.average_ranks, kind="stable")
    groups = alike(d, found.pairs, found.average_ranks) if found.pairs else []
    lines = -(-d // 2)
    figure, (axis,) = panels(width=8.0, height=STEP * (lines + 0.6 * len(groups)) + 1.1, legend=False)
    bottom = 1.0 + 0.6 * len(groups)
    for k, group in enumerate(groups):
        ranks = found.average_ranks[list(group)]
        ends, level = [ranks.min() - 0.04, ranks.max() + 0.04], 0.5 + 0.6 * k
        axis.plot(ends, [level] * 2, color="black", lw=3.5, solid_capstyle="butt", label="_bar")
    for place, i in enumerate(order):
        left, rank = place < lines, float(found.average_ranks[i])
        level, edge, side = (bottom + place, 1, "right") if left else (bottom + d - 1 - place, d, "left")
        line = axis.plot([rank, rank, edge], [0, level, level], color="0.3", lw=0.9)
        text = f"{cut(names[i], 32)}  {rank:.2f}"
        name = axis.text(edge, level, f"{text} " if left else f" {text}", ha=side, va="center", fontsize=8)
        about(*line, name, detector=names[i])
    axis.xaxis.tick_top()
    axis.xaxis.set_label_position("top")
    axis.set(xlim=(1, d), ylim=(bottom + lines - 0.5, 0), xticks=range(1, d + 1), yticks=[])
    axis.set_xlabel(f"average rank over {found.sets} data set{'s' if found.sets > 1 else ''}")
    axis.spines[["left", "right", "bottom"]].set_visible(False)
    return figure
