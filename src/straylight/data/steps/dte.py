"""Rows as the tables of DTE have them, which later papers stand on: to compare with these tables, and for nothing else.

`N` rows.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from straylight.data.steps.splits import Places
from straylight.errors import DataError
from straylight.rows.batch import Events, Splits
from straylight.rows.mapped import CHUNK, Mapped

SMALL, LARGE = 1_000, 50_000  # rows that fewer are drawn to with replacement, and that more are drawn to


def dte(y: ArrayLike, *, seed: int, most: int | None = LARGE) -> Places:
    """The semi-supervised protocol of DTE's tables: the first half of the nominal rows trains, all others are tested.

    Fewer than 1,000 rows are drawn with replacement to 1,000 before that, so that a row may train and be tested; of
    more than 50,000 so many are drawn without. Nothing else is shuffled. Which rows these are for a seed is what the
    authors' generator has, of numpy's generator from before 1.17.

    Args:
        y: labels, `(N,)`; above 0 is anomalous.
        seed: of the draws; the published tables are means over 0, 1, 2, 3 and 6.
        most: rows that are kept; `None` keeps all.

    Returns:
        The rows by their number, in the order of the generator; one that was drawn several times is there as often.

    Raises:
        DataError: if a row has no label, or numpy's old generator does not take the seed.

    References:
        V. Livernoche et al., On diffusion modeling for anomaly detection, ICLR 2024, arXiv:2305.18593

    Example:
        >>> places = dte([0] * 90 + [1] * 10, seed=0)
        >>> [len(rows) for rows in places], len(set(places.train)), len(set(places.train) & set(places.test))
        ([451, 0, 549, 0], 90, 89)
    """
    labels = np.asarray(y)
    if (labels < 0).any():
        raise DataError("data.protocol=dte needs labels, and there are none.")
    if not 0 <= seed < 2**32:
        raise DataError(f"data.protocol=dte draws by numpy's old generator, whose seed is 0 to 2^32 - 1, not {seed}.")
    rows = np.arange(len(labels))
    if 0 < len(rows) < SMALL:
        rows = np.random.RandomState(seed).choice(rows, SMALL, replace=True)
    if most is not None and len(rows) > most:
        rows = np.random.RandomState(seed).choice(rows, most, replace=False)
    nominal, strange = rows[labels[rows] == 0], rows[labels[rows] > 0]
    half = round(0.5 * len(nominal))
    test = np.concatenate([nominal[half:], strange])
    return Places(nominal[:half], np.arange(0), test, np.arange(0))


def said(places: Places, y: ArrayLike) -> str:
    """What whoever reads the results should know of the rows that `dte` chose."""
    nominal = places.test[np.asarray(y)[places.test] == 0]
    copies = float(np.isin(nominal, places.train).mean()) if len(nominal) else 0.0
    leak = (
        f"the {len(np.asarray(y)):,} rows were drawn with replacement to {SMALL:,} before that, and {copies:.0%} of "
        "the nominal test rows are copies of training rows; "
    )
    return (
        f"data.protocol=dte splits nominal rows in the order of the file; {leak if copies else ''}results are for "
        "comparison with the tables of DTE only."
    )


def refuse(group: Any = None, **settings: Any) -> None:
    """See that nothing is asked for that `dte` would be another protocol with.

    Args:
        group: what keeps rows together, which it does not.
        settings: those of a data set that are not at their defaults, by key.

    Raises:
        DataError: for the first.

    Example:
        >>> refuse(contamination=0.1)
        Traceback (most recent call last):
        straylight.errors.DataError: data.protocol=dte is that of published tables, and knows no data.contamination=0.1.
    """
    if group is not None:
        raise DataError("data.protocol=dte tears groups apart, and there are some; set data.protocol=nominal_only.")
    for key, value in settings.items():
        raise DataError(f"data.protocol=dte is that of published tables, and knows no data.{key}={value}.")


def with_means(splits: Splits, called: str, column: Any) -> tuple[Splits, int]:
    """The splits with each NaN replaced by the mean of its column over its own split, and how many rows had one.

    That of a test row depends on the other test rows. An infinity stays.

    Args:
        splits: training and test rows.
        called: the data set.
        column: what a feature is called, from its number.

    Raises:
        DataError: if no training row has a value of some feature.
    """
    changed, rows, known = [], 0, None
    for part in (splits.train, splits.test):
        values, lacking = _means(part)
        if known is None and values.isnan().any():
            where = int(values.flatten().isnan().nonzero()[0])
            raise DataError(f"{called}: no training row has a value of {column(where)}; leave the column out.")
        known = values if known is None else torch.where(values.isnan(), known, values)
        changed.append(_filled(part, known) if lacking else part)
        rows += lacking
    return splits._replace(train=changed[0], test=changed[1]), rows


def _means(part: Events) -> tuple[Tensor, int]:
    """Of each feature over the rows that have it, `(*shape)`, and how many rows lack any."""
    total, count = (torch.zeros(part.x.shape[1:], dtype=torch.float64) for _ in range(2))
    lacking = 0
    for chunk in part.x.split(CHUNK):
        there = ~chunk.isnan()
        total += chunk.double().nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf).sum(0)
        count += there.sum(0)
        lacking += int((~there).flatten(1).any(1).sum())
    return (total / count).float(), lacking


def _filled(part: Events, values: Tensor) -> Events:
    def fill(x: Tensor) -> Tensor:
        return torch.where(x.isnan(), values.to(x), x)

    return replace(part, x=part.x.map(fill) if isinstance(part.x, Mapped) else fill(part.x))
