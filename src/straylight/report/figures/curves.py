"""Curves of a ranking: ROC, and precision and recall."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from straylight.metrics.ranks import RESOLVABLE, Column, Ranks
from straylight.report.figures.axes import logarithmic
from straylight.report.figures.style import Look, Names, Weight, beside, panels, present

Array = NDArray[np.float64]
Intervals = Mapping[str, Sequence[float]] | None  # by the name of a metric
ALL = Look("all anomalies", "black", "o", "-")
TIES = 0.005  # of the area below a ROC curve, from which on its ties are spoken of
CELLS = 800  # of each axis, in each of which one point of a curve is kept


def thinned(*along: Array) -> NDArray[np.intp]:
    """Which points of a curve are drawn: the first in every 800th of the range of each coordinate, and the last.

    They are points of the curve itself, so what is drawn between two of them is off by less than 1/800 of an axis.

    Example:
        >>> thinned(np.linspace(0, 1, 1_000_001)).size
        801
    """
    changed = np.zeros(len(along[0]), bool)
    changed[[0, -1]] = True
    for x in along:
        low, high = x.min(), x.max()
        cell = ((x - low) * (CELLS / ((high - low) or 1.0))).astype(np.int64)
        changed[1:] |= cell[1:] != cell[:-1]
    return np.flatnonzero(changed)


def parts(
    scores: ArrayLike, y: ArrayLike, kinds: Names = (), weight: Weight = None
) -> Iterator[tuple[str, Look, Ranks]]:
    """Each kind of anomaly against the nominal events, all of them together first where there are several.

    Yields the name's ending in a record (`""`, `/KIND`), its look and its ranks; nothing where a side is empty.

    Raises:
        ValueError: if the lengths differ, a score is NaN or a weight negative or not finite.
    """
    s, labels = np.asarray(scores), np.asarray(y)
    if s.ndim != 1 or s.shape != labels.shape:
        raise ValueError(f"scores and labels must be two columns of one length, not {s.shape} and {labels.shape}")
    w = None if weight is None else np.asarray(weight, np.float64)
    if w is not None:
        labels = np.where(w > 0, labels, -1)  # what counts nothing has no place among the others
    nominal = labels == 0
    strange = [(label, drawn) for label, drawn in present(labels, kinds) if label > 0]
    if not nominal.any() or not strange:
        return

    def column(name: str, chosen: NDArray[np.bool_]) -> Column:
        return Column(name, s[chosen], None if w is None else w[chosen])

    low = column("nominal", nominal)
    if len(strange) > 1:
        yield "", ALL, Ranks(low, column("anomalous", labels > 0))
    for label, drawn in strange:
        ending = f"/{drawn.name}" if len(strange) > 1 else ""
        yield ending, drawn, Ranks(low, column(drawn.name, labels == label))


def roc_points(ranks: Ranks) -> tuple[Array, Array]:
    """All corners of the ROC curve, FPR and TPR ascending: no threshold lies within a tie, so that it is a step.

    At any FPR the last corner that is not beyond it has the largest TPR that a threshold reaches, `Ranks.at`'s.
    """
    s = ranks.steps
    fpr = np.stack([s.fp_gt, s.fp_ge, s.fp_ge], 1)[::-1].ravel() / ranks.low.total
    tpr = np.stack([s.tp_gt, s.tp_gt, s.tp_ge], 1)[::-1].ravel() / ranks.high.total
    return np.concatenate([[0.0], fpr, [1.0]]), np.concatenate([[0.0], tpr, [1.0]])


def tied(ranks: Ranks) -> float:
    """The area between the steps of a ROC curve and its AUROC, which counts a tie as one half."""
    s = ranks.steps
    return float(((s.tp_ge - s.tp_gt) / ranks.high.total * (s.fp_ge - s.fp_gt) / ranks.low.total).sum() / 2)


def roc(
    scores: ArrayLike, y: ArrayLike, kinds: Names = (), weight: Weight = None, intervals: Intervals = None
) -> Figure | None:
    """ROC curve of each kind of anomaly, with a linear and a logarithmic FPR; None where a side is empty.

    Curves are steps: where nominal and anomalous events share a score no threshold parts them, and the curve does not
    pretend to. The logarithmic axis starts at the FPR that leaves ten nominal events above the threshold: below it a
    curve is mostly chance.

    Args:
        intervals: of `auroc` and `auroc/KIND`, for the legend.

    Raises:
        ValueError: as `parts`.

    Example:
        >>> figure = roc(range(100), [0] * 90 + [1] * 10, intervals={"auroc": (0.96, 1.0)})
        >>> figure.legends[0].get_texts()[0].get_text()
        '1  1.000 [0.960, 1.000]'
    """
    figure, (left, right) = panels(1, 2, ruled=True)
    least, ties = 1.0, 0.0
    for ending, drawn, ranks in parts(scores, y, kinds, weight):
        fpr, tpr = roc_points(ranks)
        least, ties = resolved(ranks), max(ties, tied(ranks))
        keep = thinned(fpr, tpr)
        label = f"{drawn.name}  {told(ranks.auroc(), f'auroc{ending}', intervals)}"
        left.plot(fpr[keep], tpr[keep], **drawn.line, lw=1.6, label=label)
        inside = np.flatnonzero(fpr >= least)
        inside = np.arange(max(0, inside[0] - 1), len(fpr))  # and the corner that the curve comes from
        keep = inside[thinned(np.log10(np.maximum(fpr[inside], least / 10)), tpr[inside])]
        right.plot(np.maximum(fpr[keep], least / 10), tpr[keep], **drawn.line, lw=1.6)
    if not left.lines:
        return None
    left.plot((0, 1), (0, 1), color="0.6", lw=1, ls=":", label="chance")
    chance = np.geomspace(least, 1, 100)
    right.plot(chance, chance, color="0.6", lw=1, ls=":")
    left.set(xlabel="false-positive rate", ylabel="true-positive rate", xlim=(0, 1), ylim=(0, 1.02))
    right.set(xlabel="false-positive rate", xlim=(least, 1), ylim=(0, 1.02))
    logarithmic(right.xaxis)
    if ties >= TIES:
        left.plot(
            [], [], " ", label="many scores are tied: the AUROC counts a\ntie as one half, the curve steps around it"
        )
    return beside(figure, left, titles=("AUROC" + (", 95 % interval" if intervals else ""),))


def resolved(ranks: Ranks) -> float:
    """The FPR that ten nominal events lie above, at most 1/2: where a logarithmic axis starts."""
    return float(min(RESOLVABLE / max(ranks.low.effective(0), RESOLVABLE), 0.5))


def told(value: float, name: str, intervals: Intervals) -> str:
    """A number with its interval, if that is known, as legends have it.

    Example:
        >>> told(0.98765, "auroc", {"auroc": (0.98, 0.99)}), told(0.5, "ap", None)
        ('0.988 [0.980, 0.990]', '0.500')
    """
    found = (intervals or {}).get(name)
    return f"{value:.3f}" + (f" [{found[0]:.3f}, {found[1]:.3f}]" if found else "")


def precision_recall(
    scores: ArrayLike, y: ArrayLike, kinds: Names = (), weight: Weight = None, intervals: Intervals = None
) -> Figure | None:
    """Precision against recall of each kind of anomaly among the nominal events; None where a side is empty.

    Steps are not interpolated. Dotted lines show what chance gives, the fraction of anomalies.

    Args, Raises: as `roc`, with intervals of `ap` and `ap/KIND`.

    Example:
        >>> precision_recall([0, 1, 2, 3], [0, 0, 1, 1]).axes[0].get_ylabel()
        'precision'
    """
    figure, (axis,) = panels(width=5.0, ruled=True)
    for ending, drawn, ranks in parts(scores, y, kinds, weight):
        s = ranks.steps
        recall = (s.tp_ge / ranks.high.total)[::-1]
        precision = (s.tp_ge / (s.tp_ge + s.fp_ge))[::-1]
        recall, precision = np.append(0.0, recall), np.append(precision[:1], precision)
        keep = thinned(recall, precision)
        label = f"{drawn.name}  {told(ranks.average_precision(), f'ap{ending}', intervals)}"
        axis.step(recall[keep], precision[keep], where="pre", **drawn.line, lw=1.6, label=label)
        axis.axhline(ranks.high.total / (ranks.high.total + ranks.low.total), color=drawn.colour, lw=0.8, ls=":")
    if not axis.lines:
        return None
    axis.plot([], [], color="0.4", lw=0.8, ls=":", label="chance")
    axis.set(xlabel="recall (true-positive rate)", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    return beside(figure, axis, titles=("AP" + (", 95 % interval" if intervals else ""),))
