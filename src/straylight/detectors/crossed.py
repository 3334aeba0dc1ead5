"""Scores of training rows by fits without them, which say what scores are usual.

Shapes: `N` training rows, `C` context columns, `*shape` one event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from straylight.errors import DataError

if TYPE_CHECKING:
    from straylight.detectors.fitted import FittedDetector

MOST = 20_000  # rows that are scored, at most: what is beyond them is told by the tail


class Crossed(NamedTuple):
    """Scores of rows, `(n,)` float64, and the rows' places, `(n,)`."""

    scores: Tensor
    places: Tensor


@torch.no_grad()
def crossed(detector: FittedDetector, x: Tensor, context: Tensor, weight: Tensor, folds: int) -> Crossed:
    """Scores of training rows, each by a fit to all folds but its own; the detector itself stays as it is.

    Rows are dealt to folds by the detector's seed, and up to 20,000 are scored. Rows of weight zero are neither.

    Args:
        x, context, weight: all training rows, scaled, `(N, *shape)`, `(N, C)`, `(N,)`.
        folds: at least two.

    Raises:
        DataError: if there are fewer than two rows for each fold.

    References:
        R. F. Barber, E. J. Candès, A. Ramdas, R. J. Tibshirani, Predictive inference with the jackknife+, Ann. Stat.
        49 (2021) 486, arXiv:1905.02928 (of scores by fits that have not seen the row)
    """
    rows = weight.nonzero().flatten()
    if len(rows) < 2 * folds:
        raise DataError(
            f"detector.calibrate={folds} takes two training rows or more for each fold, and there are {len(rows):,}; "
            "lower it, or set detector.calibrate=null."
        )
    dealt = torch.randperm(len(rows), generator=torch.Generator().manual_seed(detector.seed)).to(rows.device)
    scores, places = [], []
    for fold in range(folds):
        held = rows[(dealt % folds == fold) & (dealt < max(MOST, folds))]
        others = rows[dealt % folds != fold]
        twin = detector.twin()
        twin.fit(x[others], context[others], weight[others])
        pairs = zip(x[held].split(twin.rows_at_once), context[held].split(twin.rows_at_once), strict=True)
        scores += [twin.score(*pair).double() for pair in pairs]
        places.append(held)
    return Crossed(torch.cat(scores), torch.cat(places))
