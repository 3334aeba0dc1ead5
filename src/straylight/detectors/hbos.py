"""Histograms, feature by feature.

Shapes: `B` events, `N` training rows, `D` features, `K` bins.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from straylight import checks
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.parts import Parts
from straylight.nn.searching import places

Widths = Literal["static", "dynamic"]


class HBOS(FittedDetector):
    """How low the histograms of the training rows are where an event's features fall.

    score = sum_j log(1 / h_j(x_j)), with h_j the height of feature j's histogram where x_j falls, in units of its
    highest bin. Bins have equal widths, or hold equal numbers of rows, whatever their weights (`dynamic`: long tails
    get wide bins). Every bin, and all outside of the bins, is as high as if it held N/(N+1) rows at least. Assumes
    nothing about scale; sees one feature at a time.

    References:
        M. Goldstein, A. Dengel, Histogram-based outlier score (HBOS): a fast unsupervised anomaly detection algorithm,
        KI 2012 poster track, 59

    Args:
        bins: K, or `sqrt` for the square root of N.
        widths: `static` or `dynamic`.
        shape, common: see `FittedDetector`; events are flattened.

    Example:
        >>> hbos = HBOS((1,), bins=2, scaling="none")
        >>> hbos.fit(torch.tensor([[0.], [1.], [2.], [10.]]), torch.zeros(4, 0), torch.ones(4))
        >>> hbos(torch.tensor([[2.], [8.], [99.]])).exp()  # three rows, one row, 4/5 of a row
        tensor([1.0000, 3.0000, 3.7500])
    """

    explained_by = "exact"
    sized_by_data = ("edges", "log_height")
    edges: Tensor
    log_height: Tensor

    def __init__(
        self, shape: tuple[int, ...], *, bins: int | Literal["sqrt"] = "sqrt", widths: Widths = "static", **common: Any
    ) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", also="sqrt", bins=bins)
        checks.one_of("detector", Widths, widths=widths)
        self.bins, self.widths = bins, widths
        features = math.prod(self.shape)
        self.register_buffer("edges", torch.empty(features, 0))
        self.register_buffer("log_height", torch.empty(features, 0))  # below, the bins, above

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        rows = x.flatten(1)[weight > 0].T.contiguous()
        weight = weight[weight > 0].double()
        n = rows.shape[1]
        bins = math.isqrt(n) if self.bins == "sqrt" else self.bins
        self.edges = self._edges(rows, bins)
        counts = weight.new_zeros(len(rows), bins + 2)
        counts.scatter_add_(1, self._bin(rows), (weight * (n / weight.sum())).expand(len(rows), -1))
        width = self.edges.double().diff(dim=1)
        whole, least = width.sum(1, keepdim=True), n / (n + 1)
        if self.widths == "static":  # but for rounding they are the same
            width, outside = torch.ones_like(width), torch.full_like(whole, least)
        else:  # an atom is as wide as the narrowest bin that is not one
            narrowest = torch.where(width > 0, width, math.inf).amin(1, keepdim=True)
            width = torch.where(width > 0, width, torch.where(narrowest.isfinite(), narrowest, 1.0))
            outside = least / torch.where(whole > 0, whole, 1.0)
        inside = counts[:, 1:-1].clamp_min(least) / width
        height = torch.cat([outside, inside, outside], 1)
        self.log_height = (height / height.amax(1, keepdim=True)).log().float()

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        parts = self.in_turns(x.flatten(1), 4 * len(self.edges))
        return torch.cat([-self._heights(part).sum(0) for part in parts])

    def parts(self, x: Tensor, context: Tensor) -> Parts:
        parts = self.in_turns(x.flatten(1), 4 * len(self.edges))
        found = torch.cat([-self._heights(part).T for part in parts])
        return Parts(found.view(x.shape), 0.0, "in the highest bin of every feature")

    def _heights(self, rows: Tensor) -> Tensor:
        """log h_j of rows, `(B, D)` to `(D, B)`."""
        return self.log_height.gather(1, self._bin(rows.T.contiguous()))

    def _edges(self, rows: Tensor, bins: int) -> Tensor:
        if self.widths == "dynamic":
            ordered = rows.sort(1).values
            places = torch.linspace(0, rows.shape[1] - 1, bins + 1, dtype=torch.float64).round().long()
            return ordered[:, places.to(rows.device)]
        low, high = rows.double().aminmax(dim=1, keepdim=True)
        steps = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=rows.device)
        return torch.cat([(low + (high - low) * steps)[:, :-1], high], 1).to(rows.dtype)

    def _bin(self, values: Tensor) -> Tensor:
        """0 below, 1..K in the bins, K + 1 above, `(D, B)` to the same; the last bin has its upper edge."""
        place = places(self.edges, values, right=True, traced=self.traced)
        return torch.where(values == self.edges[:, -1:], self.edges.shape[1] - 1, place)
