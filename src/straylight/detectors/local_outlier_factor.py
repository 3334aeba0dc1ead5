"""Local outlier factor.

Shapes: `B` events, `N` training rows, `D` features, `k` neighbours.
"""

import math
from typing import Any

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from straylight import checks
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.scikit import refuse_earlier
from straylight.errors import DataError
from straylight.nn import Neighbours
from straylight.nn.neighbours import LARGEST

FEW = 8  # features up to which a tree on the processor finds neighbours sooner than products do


class LocalOutlierFactor(FittedDetector):
    """How much thinner the training rows are around an event than around its nearest neighbours.

    score(x) = mean over the k nearest training rows t of lrd(t) / lrd(x), with lrd the inverse of a row's mean
    reachability distance max(|x - t|, r(t)) from its own k nearest, and r(t) how far the k-th nearest of t is. About 1
    inside any crowd, however dense. Assumes features of comparable scale. Cost: grows with the square of the number of
    training rows, so that beyond `max_rows` a sample stands for them, and a notice says so. In few features, on the
    processor, a tree finds the neighbours; else they are those of `KNN`, in float64.

    References:
        M. M. Breunig, H.-P. Kriegel, R. T. Ng, J. Sander, LOF: identifying density-based local outliers, SIGMOD 2000,
        doi:10.1145/342009.335388

    Args:
        k: neighbours; one less than the training rows where there are fewer.
        max_rows: see above; `None` takes all.
        shape, common: see `FittedDetector`; events are flattened.

    Example:
        >>> import torch
        >>> factor = LocalOutlierFactor((1,), k=3, scaling="none")
        >>> factor.fit(torch.linspace(-1, 1, 99)[:, None], torch.zeros(99, 0), torch.ones(99))
        >>> factor(torch.tensor([[0.], [9.]])).argmax().item()  # the far one
        1
    """

    sized_by_data = ("radius", "reachability")
    radius: Tensor
    reachability: Tensor
    why_fewer = "its cost grows with their square (detector.max_rows)"

    def __init__(self, shape: tuple[int, ...], *, k: int = 20, max_rows: int | None = 30_000, **common: Any) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", k=k)
        checks.counts("detector", 2, also="null", max_rows=max_rows)
        self.k, self.max_rows = k, max_rows
        self.neighbours = Neighbours(math.prod(self.shape), budget_mb=self.budget_mb)
        self.register_buffer("radius", torch.empty(0, dtype=torch.float64))  # distance of its k-th nearest from each
        self.register_buffer("reachability", torch.empty(0, dtype=torch.float64))  # lrd
        self._tree: tuple[Tensor, cKDTree] | None = None

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        rows, weight = self.kept(x.flatten(1), weight)
        n = len(rows)
        if n < 2:
            raise DataError("LocalOutlierFactor needs two training rows or more.")
        self.expect(2.0 * rows.numel() * n, "lower detector.max_rows")
        k = min(self.k, n - 1)
        if k < self.k:
            self.notice(f"LocalOutlierFactor has {n} training rows for detector.k={self.k} and takes k={k}.")
        self.no_weights(weight)
        self.neighbours.fit(rows.double())
        distances, places = self._nearest(rows, k + 1)
        own = places == torch.arange(n, device=rows.device)[:, None]
        own[:, -1] |= ~own.any(1)  # among more than k equal rows
        distances, places = distances[~own].view(n, k), places[~own].view(n, k)
        self.radius = distances[:, -1].clone()
        self.reachability = self._reachability(distances, places)
        if equal := int((self.radius == 0).sum()):
            self.notice(
                f"{equal:,} of {n:,} training rows are equal to more than k={k} others, around which the local outlier "
                "factor means nothing; leave equal rows out, or set a larger detector.k."
            )

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        distances, places = self._nearest(x.flatten(1), min(self.k, len(self.radius) - 1))
        return (self.reachability[places].mean(1) / self._reachability(distances, places)).float()

    def _reachability(self, distances: Tensor, places: Tensor) -> Tensor:
        reached = torch.maximum(distances, self.radius[places]).mean(1)
        return 1 / (reached + 1e-10)  # as scikit-learn has it, where there are more than k equal rows

    def _nearest(self, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Distances of the k nearest training rows and their places, twice `(B, k)`."""
        memory = self.neighbours.memory
        if self.neighbours.traced or not rows.is_cpu or rows.shape[1] > FEW:
            return self.neighbours.nearest(rows.double(), k)
        if self._tree is None or self._tree[0] is not memory:
            self._tree = memory, cKDTree(memory[:, :-1].numpy())
        asked = (rows.detach().double() - self.neighbours.centre).clamp(-LARGEST, LARGEST)
        found = self._tree[1].query(asked.numpy(), range(1, k + 1), workers=torch.get_num_threads())
        distances, places = (torch.from_numpy(some) for some in found)
        return distances, places

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        refuse_earlier(self, state_dict, prefix)
        names = [prefix + name for name in ("neighbours.memory", *self.sized_by_data)]
        if all(name in state_dict for name in names):
            memory, radius, reachability = (state_dict[name].shape for name in names)
            if not memory[:1] == radius == reachability:
                raise ValueError("this LocalOutlierFactor is damaged: the numbers of its fit do not belong together")
        super()._load_from_state_dict(state_dict, prefix, *args)
