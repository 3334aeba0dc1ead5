"""Detectors compared over data sets: average ranks, and whether they differ by more than chance.

`S` data sets, `D` detectors.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from straylight.metrics.signed_ranks import friedman, ranked, wilcoxon

FEWEST = 6  # data sets: of five, Wilcoxon's signed ranks reach no p below 1/16


class Pair(NamedTuple):
    """Two detectors, by their places, and Wilcoxon's p for them: as it is, and corrected for the number of pairs."""

    first: int
    second: int
    p: float
    corrected: float


class Across(NamedTuple):
    """What a comparison found.

    Attributes:
        sets: how many data sets it rests on.
        average_ranks: `(D,)`, 1 is best, ties share their mean.
        friedman: p of the hypothesis that all detectors are alike; None where there are too few data sets or detectors.
        pairs: by Wilcoxon's test with Holm's correction; empty where Friedman's test did not come first.
        sentence: what that means.
    """

    sets: int
    average_ranks: NDArray[np.float64]
    friedman: float | None
    pairs: tuple[Pair, ...]
    sentence: str


def across(table: ArrayLike, level: float = 0.05) -> Across:
    """Compare detectors by a metric on several data sets, larger is better.

    The unit is a data set, whose value is the mean over seeds: seeds of one data set are no independent evidence. First
    Friedman's test of all, and only if it rejects, Wilcoxon's signed ranks of each pair, corrected by Holm. With fewer
    than six data sets there are ranks alone.

    References:
        J. Demsar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006) 1
        A. Benavoli, G. Corani, F. Mangili, Should we really use post-hoc tests based on mean-ranks?, JMLR 17 (2016) 1,
        arXiv:1505.02288 (why pairs are compared by Wilcoxon's test)

    Args:
        table: `(S, D)`.
        level: of the tests.

    Raises:
        ValueError: if the table is of another shape, empty, or holds NaN.

    Example:
        >>> found = across([[0.9, 0.8], [0.7, 0.6]])
        >>> found.average_ranks.tolist(), found.friedman
        ([1.0, 2.0], None)
    """
    values = np.asarray(table, np.float64)
    if values.ndim != 2 or not values.size or np.isnan(values).any():
        raise ValueError(f"a comparison takes a full table of data sets by detectors, not one of shape {values.shape}")
    n, d = values.shape
    ranks = np.apply_along_axis(ranked, 1, -values)
    average = ranks.mean(0)
    if n < FEWEST or d < 2:
        few = (
            f"{n} data set{'s are' if n > 1 else ' is'} too few to test whether detectors differ ({FEWEST} are needed)"
        )
        return Across(n, average, None, (), f"{few}: average ranks only.")
    all_alike = friedman(values) if d > 2 else None
    if all_alike is not None and all_alike >= level:
        said = f"Friedman's test does not tell the detectors apart (p = {all_alike:.2g}, {n} data sets)."
        return Across(n, average, all_alike, (), said)
    places = list(itertools.combinations(range(d), 2))
    p = [wilcoxon(values[:, i] - values[:, j]) for i, j in places]
    pairs = tuple(Pair(*place, *both) for place, *both in zip(places, p, holm(p), strict=True))
    apart = sum(pair.corrected < level for pair in pairs)
    count = f"{len(pairs)} pairs, {apart} differ" if len(pairs) > 1 else f"1 pair, {apart} differ"
    first = "" if all_alike is None else f"Friedman's test says that they differ (p = {all_alike:.2g}); "
    said = f"{first}of {count} by Wilcoxon's test with Holm's correction at {level:g} ({n} data sets)."
    if len(pairs) * 2.0 ** (1 - n) >= level:  # the least p that signed ranks can have is 2 / 2^n
        needed = math.floor(1 + math.log2(len(pairs) / level)) + 1
        said += f" So many pairs cannot differ on fewer than {needed} data sets: compare fewer detectors."
    return Across(n, average, all_alike, pairs, said[0].upper() + said[1:])


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p-values: the k-th smallest of m times m - k + 1, never falling, at most 1.

    References:
        S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979) 65

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    given = np.asarray(p, np.float64)
    order = np.argsort(given, kind="stable")
    factors = np.arange(len(given), 0, -1)
    corrected = np.empty(len(given))
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1)
    return corrected.tolist()


def alike(count: int, pairs: Sequence[Pair], average: ArrayLike, level: float = 0.05) -> list[tuple[int, ...]]:
    """Groups of neighbours in average rank no pair of which differs, none inside another, of two detectors or more.

    Example:
        >>> alike(3, [Pair(0, 1, 0.5, 0.5), Pair(0, 2, 0.01, 0.01), Pair(1, 2, 0.4, 0.4)], [1, 2, 3])
        [(0, 1), (1, 2)]
    """
    apart = {frozenset(pair[:2]) for pair in pairs if pair.corrected < level}
    order = [int(i) for i in np.argsort(average, kind="stable")]
    groups: list[tuple[int, ...]] = []
    for start in range(count):
        end = start + 1
        while end < count and all(frozenset((order[i], order[end])) not in apart for i in range(start, end)):
            end += 1
        group = tuple(order[start:end])
        if len(group) > 1 and not any(set(group) <= set(other) for other in groups):
            groups.append(group)
    return groups
