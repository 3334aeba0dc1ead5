"""Fitting a detector to rows without a Trainer, and scoring with it."""

from __future__ import annotations

import io

import numpy as np
import torch


def fitted(detector, rows, weight=None):
    x = torch.as_tensor(rows)
    detector.fit(x, x.flatten(1)[:, :0], torch.ones(len(x)) if weight is None else torch.as_tensor(weight))
    return detector


def scores(detector, rows) -> np.ndarray:
    return detector(torch.as_tensor(rows)).double().numpy()


def loaded(detector, again):
    """Another detector with the state of the first, by way of a file."""
    file = io.BytesIO()
    torch.save(detector.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    return again
