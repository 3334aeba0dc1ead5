"""What becomes of the test rows when a threshold flags some of them.

`N` rows.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from straylight.metrics.ranks import Weight, weighed

Flags = NDArray[np.bool_]
CLASSES = ("nominal", "anomalous")


def decisions(
    flagged: ArrayLike,
    y: ArrayLike,
    kinds: Sequence[str] = (),
    weight: Weight = None,
    *,
    level: float = 0.95,
    one_by_one: bool = True,
) -> dict[str, Any]:
    """How right it was to flag these rows: precision, recall, F1, confusion matrix, false-positive rate, report.

    precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN), FPR = FP / (FP + TN), with sums
    of weights where there are weights. Intervals are Clopper and Pearson's, which need a threshold that was fixed on
    other rows; with weights they are of effective numbers, (sum w)^2 / sum w^2, and approximate. Where rows are flagged
    together, each by what the others are, numbers of flagged ones are not binomial, and there are no intervals.

    References:
        C. J. Clopper, E. S. Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial,
        Biometrika 26 (1934) 404, doi:10.1093/biomet/26.4.404

    Args:
        flagged: `(N,)` booleans.
        y: `(N,)`, 0 nominal, 1..K the kind of anomaly, -1 unknown: such rows are counted as flagged and no more.
        kinds: names of the labels; a kind beyond them is named by its number.
        weight: `(N,)` event weights; None is one each.
        level: of the intervals.
        one_by_one: whether each row was flagged whatever the others are.

    Returns:
        `flagged`, the number of rows; where labels are known `confusion`, [[tn, fp], [fn, tp]], `precision`, `recall`,
        `f1`, `observed_fpr`, each None where it has no value, `recall_interval`, `observed_fpr_interval`,
        `recall_per_kind`, which names [value, low, high], or [value] without an interval, `nominal`, the (effective)
        number that the rate is of, and `report`, a text.

    Raises:
        ValueError: if the lengths differ, or a weight is negative or not finite.

    Example:
        >>> found = decisions([False, True, True, False], [0, 0, 1, 0])
        >>> found["confusion"], found["precision"], found["recall"]
        ([[2, 1], [0, 1]], 0.5, 1.0)
    """
    flags, labels = np.asarray(flagged, dtype=bool), np.asarray(y)
    if flags.shape != labels.shape:
        raise ValueError(f"decisions are of shape {flags.shape}, and their labels of {labels.shape}")
    weights = None if weight is None else weighed("test", weight, flags.shape)
    found: dict[str, Any] = {"flagged": int(flags.sum())}
    known = labels >= 0
    if not known.any():
        return found
    if not known.all():
        flags, labels, weights = flags[known], labels[known], None if weights is None else weights[known]
    strange = labels > 0
    confusion = confusion_matrix(flags, strange, weights)
    (_, fp), (fn, tp) = confusion
    fpr, low, high, nominal = rate(flags, ~strange, weights, level)
    recall, *recall_interval, _ = rate(flags, strange, weights, level)
    shown = 3 if one_by_one else 1
    return found | {
        "confusion": confusion,
        "precision": _ratio(tp, tp + fp),
        "recall": recall,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "recall_interval": recall_interval if recall is not None and one_by_one else None,
        "observed_fpr": fpr,
        "observed_fpr_interval": [low, high] if fpr is not None and one_by_one else None,
        "nominal": nominal,
        "recall_per_kind": {
            kinds[k] if k < len(kinds) else str(k): list(rate(flags, labels == k, weights, level)[:shown])
            for k in np.unique(labels[strange]).tolist()
        },
        "report": report(confusion),
    }


def confusion_matrix(flagged: Flags, strange: Flags, weight: NDArray[np.float64] | None = None) -> list[list[Any]]:
    """[[tn, fp], [fn, tp]]: counts, or sums of weights.

    Example:
        >>> confusion_matrix(np.array([True, True, False]), np.array([True, False, False]))
        [[1, 1], [0, 1]]
    """
    cell = 2 * strange.astype(np.int8) + flagged
    return np.bincount(cell, weight, minlength=4).reshape(2, 2).tolist()


def rate(
    flagged: Flags, chosen: Flags, weight: NDArray[np.float64] | None = None, level: float = 0.95
) -> tuple[float | None, float | None, float | None, float]:
    """The fraction of the chosen rows that is flagged, its interval, and the (effective) number that it is of.

    Example:
        >>> rate(np.array([True, False]), np.array([True, True]))[0]
        0.5
    """
    n: float = int(chosen.sum())
    k: float = int((flagged & chosen).sum())
    value = _ratio(k, n)
    if weight is not None and n:
        w, total = weight[chosen], float(weight[chosen].sum())
        value = _ratio(float(weight[flagged & chosen].sum()), total)
        n = total**2 / float((w**2).sum()) if total else 0
        k = (value or 0) * n
    if value is None:
        return None, None, None, 0
    return value, *_clopper_pearson(k, n, level), n


def report(confusion: Sequence[Sequence[float]], digits: int = 4) -> str:
    """Precision, recall, F1 and support of both classes and their averages, as scikit-learn lays them out.

    A number without a value is `nan`, and averages leave it out.

    Args:
        confusion: [[tn, fp], [fn, tp]].
        digits: after the point.

    Example:
        >>> print(report([[90, 10], [0, 25]], digits=2))
                      precision    recall  f1-score   support
        <BLANKLINE>
             nominal       1.00      0.90      0.95       100
           anomalous       0.71      1.00      0.83        25
        <BLANKLINE>
            accuracy                           0.92       125
           macro avg       0.86      0.95      0.89       125
        weighted avg       0.94      0.92      0.92       125
        <BLANKLINE>
    """
    table = np.asarray(confusion, dtype=np.float64)
    right, predicted, support = table.diagonal(), table.sum(0), table.sum(1)
    with np.errstate(invalid="ignore"):
        rows = np.stack([right / predicted, right / support, 2 * right / (predicted + support)], 1)
        accuracy = right.sum() / table.sum()

    def line(name: str, numbers: Sequence[float | None], count: float) -> str:
        cells = "".join(f" {'' if x is None else f'{x:.{digits}f}':>9}" for x in numbers)
        return f"{name:>12} {cells} {f'{count:.0f}' if count == round(count) else f'{count:.6g}':>9}\n"

    text = f"{'':>12} " + "".join(f" {name:>9}" for name in ("precision", "recall", "f1-score", "support")) + "\n\n"
    text += "".join(line(name, row, count) for name, row, count in zip(CLASSES, rows, support, strict=True))
    text += "\n" + line("accuracy", [None, None, accuracy], support.sum())
    for name, shares in (("macro avg", np.ones(2)), ("weighted avg", support)):
        text += line(name, [_average(column, shares) for column in rows.T], support.sum())
    return text


def _average(values: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    there = ~np.isnan(values)
    total = shares[there].sum()
    return float((values[there] * shares[there]).sum() / total) if total else math.nan


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _clopper_pearson(k: float, n: float, level: float) -> tuple[float, float]:
    """Of k of n, which need not be whole numbers."""
    tail = (1 - level) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    return low, float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
