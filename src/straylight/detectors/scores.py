"""Scores by torch, some rows at a time.

`N` events, `C` columns of context, `*shape` one event.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight.detectors.base import Detector

BATCH = 16384  # rows that are scored together


@torch.inference_mode()
def scores_of(detector: Detector, x: Tensor, context: Tensor, batch_size: int = BATCH) -> NDArray[np.float32]:
    """Anomaly scores of events, `(N, *shape)` and `(N, C)` to `(N,)`, on the device where the detector is.

    Example:
        >>> from straylight.detectors import AutoEncoder
        >>> scores_of(AutoEncoder((2,), hidden=[4], latent=1), torch.zeros(3, 2), torch.zeros(3, 0)).shape
        (3,)
    """
    if not len(x):
        return np.empty(0, np.float32)
    size, device = min(batch_size, detector.rows_at_once), detector.device
    parts = zip(x.split(size), context.split(size), strict=True)
    return torch.cat([detector(rows.to(device), given.to(device)).float().cpu() for rows, given in parts]).numpy()
