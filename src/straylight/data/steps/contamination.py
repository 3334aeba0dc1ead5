"""The one dial that puts anomalies among training rows."""

import numpy as np
import torch
from torch import Tensor

from straylight.errors import DataError
from straylight.rows.batch import Events
from straylight.rows.mapped import Mapped


def contaminate(train: Events, reserve: Events, fraction: float | None, seed: int) -> Events:
    """Training rows with this fraction of anomalies: 0 none, `None` as found.

    Args:
        train: rows as found; its own anomalies are drawn from first-come with those of `reserve`.
        reserve: anomalies set aside.
        fraction: of anomalies among the rows returned, below 1.
        seed: of the draw.

    Raises:
        DataError: if there are not enough anomalies, or nobody knows which rows they are.
    """
    if fraction is None:
        return train
    if not 0 <= fraction < 1:
        raise DataError(f"data.contamination must be null, or at least 0 and below 1, not {fraction}.")
    if len(train) and int(train.y.min()) < 0:
        raise DataError(
            f"data.contamination={fraction} needs labels, and there are none; leave it null, which trains on the rows "
            "as they are."
        )
    nominal = train.take(np.flatnonzero(train.y.numpy() == 0)) if bool((train.y != 0).any()) else train
    wanted = round(fraction / (1 - fraction) * len(nominal))
    if not wanted:
        return nominal
    pool = joined(train.take(np.flatnonzero(train.y.numpy() != 0)), reserve)
    if len(pool) < wanted:
        raise DataError(
            f"data.contamination={fraction} of {len(nominal)} nominal training rows takes {wanted} anomalies, but only "
            f"{len(pool)} are there; lower data.contamination, or raise data.reserve_fraction (protocol nominal_only)."
        )
    drawn = np.random.default_rng([seed, 1]).permutation(len(pool))[:wanted]
    return joined(nominal, pool.take(drawn))


def joined(*parts: Events) -> Events:
    """The rows of several splits, one after the other; of `meta` the columns that all of them have.

    Example:
        >>> len(joined(Events.of(np.zeros((3, 2))), Events.of(np.ones((2, 2)))))
        5
    """
    parts = tuple(part for part in parts if len(part)) or parts[:1]
    if len(parts) == 1:
        return parts[0]
    rows = [part.x for part in parts]
    return Events(
        Mapped.cat(rows) if any(isinstance(x, Mapped) for x in rows) else torch.cat(rows),  # type: ignore[arg-type]
        _column([part.y for part in parts]),
        torch.cat([part.context for part in parts]),
        _column([part.weight for part in parts]),
        {
            name: np.concatenate([part.meta[name] for part in parts])
            for name in parts[0].meta
            if all(name in part.meta for part in parts)
        },
    )


def _column(parts: list[Tensor]) -> Tensor:
    """Values one after the other; a single number, seen N times, if it is the same in all."""
    same = all(part.stride(0) == 0 for part in parts) and len({part[0].item() for part in parts}) == 1
    return parts[0][:1].expand(sum(map(len, parts))) if same else torch.cat(parts)
