"""Scores of training rows by fits without them, which say what scores are usual.

Shapes: `N` training rows, `C` context columns, `*shape` one event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight.errors import DataError
from straylight.rows.folds import folds_of

if TYPE_CHECKING:
    from straylight.detectors.fitted import FittedDetector

MOST = 20_000  # rows that are scored, at most: what is beyond them is told by the tail


@torch.no_grad()
def crossed(
    detector: FittedDetector, x: Tensor, context: Tensor, weight: Tensor, folds: int, group: NDArray | None = None
) -> Tensor:
    """Scores of training rows, each by a fit to all folds but its own, `(n,)` float64; the detector stays as it is.

    Rows are dealt to folds by the detector's seed, and up to 20,000 drawn by it are scored, in their order. Rows of
    weight zero are neither.

    Args:
        x, context, weight: all training rows, scaled, `(N, *shape)`, `(N, C)`, `(N,)`.
        folds: at least two.
        group: what rows belong together by, `(N,)`: those of one group are in one fold.

    Raises:
        DataError: if there are fewer than two rows for each fold, or fewer groups than folds.

    References:
        R. F. Barber, E. J. Candès, A. Ramdas, R. J. Tibshirani, Predictive inference with the jackknife+, Ann. Stat.
        49 (2021) 486, arXiv:1905.02928 (of scores by fits that have not seen the row)
    """
    rows = weight.nonzero().flatten()
    n = len(rows)
    if n < 2 * folds:
        raise DataError(
            f"detector.calibrate={folds} takes two training rows or more for each fold, and there are {n:,}; lower it, "
            "or set detector.calibrate=null."
        )
    fold = torch.from_numpy(folds_of(n, folds, detector.seed, None if group is None else group[rows.cpu()]))
    if not len(fold.unique()) == folds:
        raise DataError(
            f"detector.calibrate={folds} takes one group of rows or more for each fold, and there are "
            f"{len(fold.unique())}; lower it, or set detector.calibrate=null."
        )
    asked = detector.rows_drawn(MOST, n)
    scores = torch.empty(len(asked), dtype=torch.float64, device=x.device)
    for number in range(folds):
        others = rows[(fold != number).to(rows.device)]
        twin = detector.twin()
        twin.fit(x[others], context[others], weight[others])
        own = (fold[asked] == number).nonzero().flatten()
        for part in own.split(twin.rows_at_once):
            held = rows[asked[part].to(rows.device)]
            scores[part.to(scores.device)] = twin.score(x[held], context[held]).double()
    return scores
