"""The strangest two of four views of an event among its neighbours.

Shapes: `B` events, `N` training rows, `D` features, `V` views.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from straylight import checks
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.residual import enough
from straylight.nn import Scaling
from straylight.nn.log_tail import LogTail
from straylight.nn.neighbourhood import Near, Neighbourhood
from straylight.nn.normal_scores import NormalScores

VIEWS = 4
AROUND = 0.4  # of its neighbours' own distances, that is taken off an event's


class Spaces(NamedTuple):
    """Events in three coordinates, `(B, D)` each."""

    plain: Tensor
    logs: Tensor
    normal: Tensor


class Views(FittedDetector):
    """How improbable an event is in the two most telling of four views, each on the scale of -log p-values.

    With g, the mean log distance to the nearest rows, and w, the log error of their means, of `Residual`, and
    g' = g less 0.4 of the mean g of the ten neighbours, which judges an event by how dense its neighbours are:

        1  g + w  on standardised features z
        2  g + w  on sign(z) log(1 + |z|), standardised again
        3  g'     on standardised features
        4  g'     on normal scores of the features' ranks, see `straylight.nn.NormalScores`

    Each is compared with those of the training rows, of which each was left out, see `straylight.nn.LogTail`. The score
    is the mean of the two largest: one view alone may be wrong about a set of data, and the mean of all four hides what
    only some of them see. Cost: three searches for the ten nearest, which grow with the number of
    training rows; training with its square. Event weights are not read.

    References:
        M. M. Breunig, H.-P. Kriegel, R. T. Ng, J. Sander, LOF: identifying density-based local outliers, SIGMOD 2000,
        doi:10.1145/342009.335388 (of g'; the rest is our own)
        C. C. Aggarwal, S. Sathe, Theoretical foundations and algorithms for outlier ensembles, SIGKDD Explor. 17 (2015)
        24, doi:10.1145/2830544.2830549 (of what lies between a maximum and a mean)

    Args:
        strongest: how many of the largest are averaged: 1 is their maximum, 4 the mean of all.
        max_rows: more training rows than these are drawn from by seed, and a notice says so; `None` takes all.
        shape, common: see `FittedDetector`; events are flattened.

    Raises:
        DataError: in training, if there are fewer than two rows.

    Example:
        >>> import torch
        >>> views = Views((1,), scaling="none")
        >>> views.fit(torch.linspace(-1, 1, 99)[:, None], torch.zeros(99, 0), torch.ones(99))
        >>> views(torch.tensor([[0.], [9.]])).argmax().item()  # the far one
        1
    """

    sized_by_data = ("thin_plain", "thin_normal")
    thin_plain: Tensor
    thin_normal: Tensor
    why_fewer = "its cost grows with their square (detector.max_rows)"

    def __init__(
        self, shape: tuple[int, ...], *, strongest: int = 2, max_rows: int | None = 30_000, **common: Any
    ) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", strongest=strongest)
        if strongest > VIEWS:
            raise ValueError(f"detector.strongest is of {VIEWS} views, not {strongest}")
        checks.counts("detector", 2, also="null", max_rows=max_rows)
        self.strongest, self.max_rows = strongest, max_rows
        d = math.prod(self.shape)
        self.spread = Scaling((d,), "standard")  # of logarithms
        self.ranks = NormalScores(d)
        self.plain = Neighbourhood(d, budget_mb=self.budget_mb)
        self.logs = Neighbourhood(d, budget_mb=self.budget_mb)
        self.normal = Neighbourhood(d, errors=False, budget_mb=self.budget_mb)
        self.tails = nn.ModuleList(LogTail() for _ in range(VIEWS))
        self.register_buffer("thin_plain", torch.empty(0, dtype=torch.float64))  # g of training rows
        self.register_buffer("thin_normal", torch.empty(0, dtype=torch.float64))

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        (rows,) = self.kept(x.flatten(1))
        enough(self, len(rows))
        self.no_weights(weight)
        self.expect(6.0 * rows.numel() * len(rows), "lower detector.max_rows")
        self.spread.fit([signed_log(rows)])
        self.ranks.fit(rows)
        spaces = self.spaces(rows)
        plain, logs, normal = self.plain.fit(spaces.plain), self.logs.fit(spaces.logs), self.normal.fit(spaces.normal)
        self.thin_plain, self.thin_normal = self.plain.distance(plain), self.normal.distance(normal)
        for tail, seen in zip(self._tails, self.views(spaces, plain, logs, normal), strict=True):
            tail.fit(seen)

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        spaces = self.spaces(x.flatten(1))
        seen = self.views(spaces, self.plain(spaces.plain), self.logs(spaces.logs), self.normal(spaces.normal))
        told = torch.stack([tail(view) for tail, view in zip(self._tails, seen, strict=True)])
        return told.topk(self.strongest, dim=0).values.mean(0).float()

    @property
    def _tails(self) -> Sequence[LogTail]:
        return cast("Sequence[LogTail]", self.tails)

    def spaces(self, rows: Tensor) -> Spaces:
        """Scaled events in the coordinates of the searches."""
        return Spaces(rows, self.spread(signed_log(rows)), self.ranks(rows))

    def views(self, spaces: Spaces, plain: Near, logs: Near, normal: Near) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four scores before they are on one scale, `(B,)` each."""
        here, there = self.plain.distance(plain), self.normal.distance(normal)
        return (
            here + self.plain.error(spaces.plain, plain),
            self.logs.distance(logs) + self.logs.error(spaces.logs, logs),
            here - AROUND * self.thin_plain[plain.places].mean(1),
            there - AROUND * self.thin_normal[normal.places].mean(1),
        )


def signed_log(rows: Tensor) -> Tensor:
    """sign(z) log(1 + |z|), which draws far values in and keeps zero.

    Example:
        >>> signed_log(torch.tensor([-1.0, 0.0])).exp()
        tensor([0.5000, 1.0000])
    """
    return rows.sign() * rows.abs().log1p()
