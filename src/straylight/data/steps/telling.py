"""Features that tell too much, or nothing: a label in other words, a number of the row, what never varied in training.

`N` rows, `D` features.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from straylight.files.source import listed
from straylight.metrics.ranking import auroc
from straylight.rows.mapped import Mapped

VALUES = 2**24  # that are looked at together
RUNS = 32  # of rows that lie together on disk
FEW = 20  # rows of which nothing is said
ALONE = 0.999  # the AUROC by which one feature ranks what all should


def telling(
    names: Sequence[str],
    x: Tensor | Mapped,
    train: Tensor | Mapped,
    test: Tensor | Mapped,
    y: Tensor,
    notice: Callable[[str], None],
) -> None:
    """Say which features rank the test rows alone, vary in the test only, or number the rows of a file.

    Nothing is decided by it. Of more numbers than 16 million only so many are looked at, of rows from all over.

    Args:
        names: of the features, `(D,)`.
        x: all rows in the file's order, `(N, D)`.
        train, test: those that train and are tested.
        y: labels of those that are tested; -1 if nobody knows.
        notice: is told.
    """
    rows, place = _some(train), _places(test)
    tested, labels = _at(test, place), y[place]
    varies = tested.amin(0) != tested.amax(0) if len(tested) else torch.zeros(len(names), dtype=torch.bool)
    still = rows.amin(0) == rows.amax(0)
    if (found := still & varies).any():
        notice(f"{_which(names, found)} constant in training and not in the test: no detector can learn from that.")
    low, high = tested[labels == 0], tested[labels > 0]
    if min(len(low), len(high)) >= FEW // 2 and (found := _alone(low, high)).any():
        notice(
            f"{_which(names, found)} enough to rank the test rows, with an AUROC beyond {ALONE} alone "
            f"({len(low):,} nominal and {len(high):,} anomalous rows): a label in other words?"
        )
    whole = _some(x)
    if len(whole) < FEW:
        return
    steps = whole.diff(dim=0)
    moving = whole[0] != whole[-1]
    along = moving & ((steps >= 0).all(0) | (steps <= 0).all(0))
    if along.any():
        notice(f"{_which(names, along)} sorted along the file, as a number of the row or a time is: a feature?")
    ordered = whole.sort(0).values.diff(dim=0)
    unique = (ordered > 0).all(0) & (whole == whole.round()).all(0) & ~along
    if unique.any():
        notice(f"{_which(names, unique)} a whole number that no two rows share, as an id is: a feature?")


def _alone(low: Tensor, high: Tensor) -> Tensor:
    """Which features have an AUROC beyond `ALONE`, either way, `(D,)`."""
    middle, beyond = high.nanmedian(0).values, max(1, len(low) // 100)
    # if the median is not beyond one in a hundred of the others, a pair in two hundred stands the other way round
    found = (middle > low.kthvalue(len(low) + 1 - beyond, 0).values) | (middle < low.kthvalue(beyond, 0).values)
    for i in found.nonzero().flatten().tolist():
        one, other = (
            part[:, i][~part[:, i].isnan()].numpy() for part in (low, high)
        )  # what is missing is filled later
        found[i] = bool(len(one) and len(other)) and abs(auroc(one, other) - 0.5) > ALONE - 0.5
    return found


def _which(names: Sequence[str], found: Tensor) -> str:
    which = [repr(names[i]) for i in found.nonzero().flatten().tolist()]
    return f"{listed(which)} {'are' if which[1:] else 'is'}"


def _places(x: Tensor | Mapped) -> Tensor:
    """Rows that are looked at: all, some that are evenly spaced, or, on disk, some that lie together, from all over."""
    rows, most = x.shape[0], max(FEW, VALUES // max(1, x.shape[1]))
    if rows <= most:
        return torch.arange(rows)
    if isinstance(x, Mapped):
        start = torch.arange(min(RUNS, rows)) * (rows // min(RUNS, rows))
        return (start[:, None] + torch.arange(max(1, most // RUNS))).flatten()
    return torch.arange(0, rows, -(-rows // most))


def _at(x: Tensor | Mapped, places: Tensor) -> Tensor:
    return x[:] if len(places) == x.shape[0] else x.index_select(0, places)


def _some(x: Tensor | Mapped) -> Tensor:
    return _at(x, _places(x))
