"""The one dial that puts anomalies among training rows."""

import numpy as np

from straylight.errors import DataError
from straylight.rows.batch import Events


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
    pool = Events.cat(train.take(np.flatnonzero(train.y.numpy() != 0)), reserve)
    if len(pool) < wanted:
        raise DataError(
            f"data.contamination={fraction} of {len(nominal)} nominal training rows takes {wanted} anomalies, but only "
            f"{len(pool)} are there; lower data.contamination, or raise data.reserve_fraction (protocol nominal_only)."
        )
    drawn = np.random.default_rng([seed, 1]).permutation(len(pool))[:wanted]
    return Events.cat(nominal, pool.take(drawn))
