"""The nominal rows that are most like an event, against which it is explained.

Shapes: `N` events, `n` nominal rows, `M` of them near an event, `*shape` one event.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from straylight.detectors import Detector

LOOKED_AT = 2000  # training rows, evenly spaced, among which the nearest are sought
ORDINARY = 0.9  # the fraction of them, of the least score, that are taken for nominal
REFERENCES = 4  # nearest rows, against which an event is explained
FEW = 10  # rows of which none is left out
FARTHEST = 1.0  # how much a feature may add to a distance, in standard deviations of the nominal rows
NUMBERS = 2**24  # differences that are held at once


class Nominal:
    """Training rows that are held nominal, and which of them are nearest to an event.

    Up to 2000 rows, evenly spaced, of those that are not labelled as anomalous, less the tenth of the largest score,
    among which anomalies may be that nobody labelled (unless scoring is a search that takes seconds). The distance is
    the sum over scaled features of the difference in standard deviations of these rows, each counted up to one:
    features that are strange do not choose, and the nearest rows are like the event in most of the others. A row that
    is equal to the event comes last.

    Args:
        detector: by which they are scored and scaled.
        rows: in the data's own units, `(n, *shape)`.
        context: theirs, `(n, C)`.

    Example:
        >>> from straylight.detectors import HBOS
        >>> hbos = HBOS((3,), scaling="none")
        >>> x = torch.tensor([[0., 0., 0.], [4., 4., 4.], [9., 9., 9.]])
        >>> hbos.fit(x, torch.zeros(3, 0), torch.ones(3))
        >>> Nominal(hbos, x, torch.zeros(3, 0)).near(torch.tensor([[4., 100., 4.]]), 1).tolist()
        [[[4.0, 4.0, 4.0]]]
    """

    def __init__(self, detector: Detector, rows: Tensor, context: Tensor) -> None:
        self.scaling, self.device = detector.scaling.featurewise, detector.device
        with torch.no_grad():
            self.rows = rows
            if len(rows) > FEW and detector.tries_score:
                score = _scores(detector, rows, context)
                self.rows = rows[score <= score.quantile(ORDINARY)]
            self.scaled = self.scaling(self.rows.to(self.device)).flatten(1).float()
        spread = self.scaled.std(0, correction=0)
        self.unit = torch.where(spread > 0, 1 / torch.where(spread > 0, spread, 1), 1.0)

    @classmethod
    def of(cls, detector: Detector, data: Any) -> Nominal:
        """Those of a data set."""
        train = data.splits.train
        places = torch.arange(0, len(train), max(1, -(-len(train) // LOOKED_AT)))
        places = places[train.y.index_select(0, places) <= 0] if int(train.y.min()) <= 0 else places
        return cls(detector, train.x.index_select(0, places), train.context.index_select(0, places))

    @torch.no_grad()
    def near(self, x: Tensor, m: int = REFERENCES) -> Tensor:
        """The m nearest rows of each event, the nearest first, in the data's own units, `(N, *shape)` to
        `(N, M, *shape)`; fewer where there are fewer."""
        m = min(m, len(self.rows))
        found = []
        for part in x.split(max(1, NUMBERS // self.scaled.numel())):
            scaled = self.scaling(part.to(self.device)).flatten(1).float()
            apart = ((scaled[:, None] - self.scaled) * self.unit).abs_().nan_to_num_(nan=FARTHEST)
            distance = apart.clamp_max_(FARTHEST).sum(2)
            distance[distance == 0] = 1e30  # the event itself, where it is one of them
            found.append(self.rows[distance.topk(m, largest=False).indices.cpu()])
        return torch.cat(found) if found else self.rows.new_empty(0, m, *self.rows.shape[1:])


def centre(detector: Detector, medians: Any = None) -> Tensor | None:
    """An event that is known without a training row, `(1, *shape)`: the medians that a run keeps, or the middle of its
    scaling; `None` where it has neither.

    Example:
        >>> from straylight.detectors import HBOS
        >>> centre(HBOS((2,), scaling="none")), centre(HBOS((2,), scaling="standard")).tolist()
        (None, [[0.0, 0.0]])
    """
    if medians is not None:
        return torch.as_tensor(np.asarray(medians, np.float32)).view(1, *detector.event_shape)
    scaling = detector.scaling.featurewise
    if scaling.identity or scaling.forgets:
        return None
    middle = 0.5 if scaling.bounded else 0.0
    return scaling.inverse(torch.full((1, *detector.event_shape), middle, device=detector.device)).cpu()


def _scores(detector: Detector, x: Tensor, context: Tensor) -> Tensor:
    size = max(1, min(LOOKED_AT, detector.rows_at_once))
    training = detector.training
    parts = zip(x.split(size), context.split(size), strict=True)
    try:
        detector.eval()
        return torch.cat([detector(a.to(detector.device), c.to(detector.device)).float().cpu() for a, c in parts])
    finally:
        detector.train(training)
