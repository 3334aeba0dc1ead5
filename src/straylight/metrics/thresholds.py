"""Where to cut: what each way of asking for a threshold means.

An event is flagged if its score exceeds the threshold. Thresholds are set on calibration events, never on test events.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from straylight.metrics.ranks import Weight, weighed


def fpr_of_quantile(quantile: float) -> float:
    """The false-positive rate of a threshold at this quantile of nominal scores, 1 - q.

    The threshold is the order statistic that `Calibration.at_fpr` takes for it, and not a quantile interpolated among
    the n calibration scores, above which more than 1 - q of new events lie on average.

    Raises:
        ValueError: if the quantile is not between 0 and 1.

    Example:
        >>> fpr_of_quantile(0.75)
        0.25
    """
    if not 0 < quantile < 1:
        raise ValueError(f"a quantile must lie between 0 and 1, not at {quantile}")
    return 1 - quantile


def fpr_of_rate(accept_hz: float, input_hz: float) -> float:
    """The false-positive rate at which so many nominal events a second are accepted, accept / input.

    Args:
        accept_hz: how many events a second may be kept.
        input_hz: how many arrive, after the selection that the sample itself has passed: for a sample of events that a
            first stage let through, the rate behind that stage and not the collision rate.

    Raises:
        ValueError: if the rates are not positive, or more is to be accepted than arrives.

    Example:
        >>> fpr_of_rate(1000, 100_000)
        0.01
    """
    if not (0 < accept_hz < input_hz and math.isfinite(input_hz)):
        raise ValueError(
            f"the accepted rate must be positive and below that of the input, not {accept_hz} of {input_hz} Hz"
        )
    return accept_hz / input_hz


class BestF1(NamedTuple):
    """The threshold of the best F1.

    Attributes:
        value: scores above it are flagged.
        f1: there, on the rows that it was chosen on.
    """

    value: float
    f1: float


def best_f1(scores: ArrayLike, y: ArrayLike, weight: Weight = None) -> BestF1:
    """The threshold with the largest F1 = 2 TP / (2 TP + FP + FN) on labelled rows, exact with ties.

    Every distinct score is tried, and one below all of them unless the lowest is minus infinity. The threshold is
    itself a score, the largest one that is not flagged; of several equally good ones it is the highest, which flags the
    fewest rows. It is fitted to these rows and their share of anomalies: nothing is promised of others.

    References:
        C. J. van Rijsbergen, Information retrieval, 2nd ed., Butterworths 1979

    Args:
        scores: `(N,)`, larger is stranger.
        y: `(N,)`, 0 nominal, above 0 anomalous.
        weight: `(N,)` event weights; None is one each.

    Raises:
        ValueError: if the lengths differ, a score is NaN, a label unknown, or either class missing or without weight.

    Example:
        >>> best_f1([1, 2, 3, 4], [0, 1, 0, 1])
        BestF1(value=1.0, f1=0.8)
    """
    values, labels = np.asarray(scores), np.asarray(y)
    if values.shape != labels.shape:
        raise ValueError(f"scores are of shape {values.shape}, and their labels of {labels.shape}")
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    if nans := int(np.isnan(values).sum()):
        raise ValueError(f"{nans} of {len(values)} scores are NaN, and no threshold is chosen by them")
    weights = np.ones(len(values)) if weight is None else weighed("validation", weight, values.shape)
    strange = labels > 0
    if (labels < 0).any() or not weights[strange].any() or not weights[~strange].any():
        raise ValueError("the best F1 is chosen on labelled rows, nominal and anomalous")
    order = np.argsort(values)
    values, strange, weights = values[order], strange[order], weights[order]
    # what is flagged if the cut is at each place, from all rows down to none
    tp = np.append(0.0, np.cumsum((weights * strange)[::-1]))[::-1]
    fp = np.append(0.0, np.cumsum((weights * ~strange)[::-1]))[::-1]
    f1 = 2 * tp / (tp + fp + tp[0])  # TP + FN is tp[0], all anomalies
    # scores that are equal are flagged together, and nothing lies below minus infinity
    with np.errstate(over="ignore"):  # below the lowest number is minus infinity
        lowest = np.nextafter(values[0], -np.inf, dtype=values.dtype)
    places = np.flatnonzero(np.concatenate([[values[0] > -np.inf], values[1:] != values[:-1], [True]]))[::-1]
    best = int(places[np.argmax(f1[places])])
    return BestF1(float(values[best - 1] if best else lowest), float(f1[best]))
