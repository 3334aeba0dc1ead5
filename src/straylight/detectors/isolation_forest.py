"""Isolation forest.

Shapes: `B` events, `D` features, `T` trees, `L` levels of cuts.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight import checks
from straylight.detectors.scikit import ScikitDetector


class IsolationForest(ScikitDetector):
    """How few random cuts it takes to set an event apart.

    score(x) = 2^(-E[h(x)] / c(n)), with h the depth at which a random tree isolates x and c(n) the mean depth of an
    unsuccessful search among n rows. Assumes nothing about scale: a tree cuts one feature at a time.

    Trees are kept filled up to the deepest level, cuts level by level, all trees side by side in each: the cuts below
    cut i of a level are 2i and 2i + 1 of the next, so that no file can lead a row in a circle.

    References:
        F. T. Liu, K. M. Ting, Z.-H. Zhou, Isolation forest, ICDM 2008, doi:10.1109/ICDM.2008.17

    Args:
        n_estimators: trees.
        max_samples: rows that each tree sees; fewer where there are fewer.
        max_rows: more training rows than these are drawn from by seed, and a notice says so; `None` takes all. The
            trees together see `n_estimators` times `max_samples` of them.
        max_features: the fraction of the features that each tree sees.
        n_jobs: processes of scikit-learn's; `None` is one.
        shape, common: see `FittedDetector`; events are flattened.

    Example:
        >>> import torch
        >>> forest = IsolationForest((1,), scaling="none")
        >>> forest.fit(torch.randn(100, 1), torch.zeros(100, 0), torch.ones(100))
        >>> forest(torch.tensor([[0.], [9.]])).argmax().item()  # the far one
        1
    """

    weighted = True
    sized_by_data = ("feature", "threshold", "share")
    feature: Tensor
    threshold: Tensor
    share: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        n_estimators: int = 100,
        max_samples: int = 256,
        max_rows: int | None = 1_000_000,
        max_features: float = 1.0,
        n_jobs: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", n_estimators=n_estimators)
        checks.counts("detector", 2, max_samples=max_samples)
        checks.counts("detector", 2, also="null", max_rows=max_rows)
        checks.above("detector", 0, 1, max_features=max_features)
        self.n_estimators, self.max_samples, self.max_rows = n_estimators, max_samples, max_rows
        self.max_features, self.n_jobs = max_features, n_jobs
        self.register_buffer("feature", torch.empty(0, dtype=torch.int32))  # T (2^L - 1)
        self.register_buffer("threshold", torch.empty(0))  # above which a row goes to the second of two
        self.register_buffer("share", torch.empty(0, dtype=torch.float64))  # of a leaf in the exponent, T 2^L

    def build(self, rows: NDArray[np.float64]) -> Any:
        from sklearn.ensemble import IsolationForest as Forest

        return Forest(
            n_estimators=self.n_estimators,
            max_samples=min(self.max_samples, len(rows)),
            max_features=self.max_features,
            n_jobs=self.n_jobs,
            random_state=self.seed,
        )

    def numbers(self, estimator: Any) -> dict[str, NDArray]:
        trees, own = [tree.tree_ for tree in estimator.estimators_], estimator.estimators_features_
        if alone := sum(tree.node_count == 1 for tree in trees):
            self.notice(
                f"{alone} of {len(trees)} trees of IsolationForest have no cut, since their rows are equal in the "
                "features that they see: they score all rows alike."
            )
        node = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])  # the root of each, among those of all
        sides = [tree.children_left for tree in trees], [tree.children_right for tree in trees]
        left, right = (
            np.concatenate([start + _or_itself(child) for start, child in zip(node, side, strict=True)])
            for side in sides
        )
        feature = np.concatenate([some[tree.feature.clip(0)] for some, tree in zip(own, trees, strict=True)])
        exact = np.concatenate([tree.threshold for tree in trees])
        threshold = exact.astype(np.float32)  # the largest that is not above the exact one, as rows are float32
        threshold = np.where(threshold > exact, np.nextafter(threshold, np.float32(-np.inf)), threshold)
        path = np.concatenate([tree.compute_node_depths() - 1 + _depth(tree.n_node_samples) for tree in trees])
        cuts = []
        for _ in range(max(tree.max_depth for tree in trees)):
            cuts.append(node)
            node = np.stack([left[node], right[node]], 1).ravel()
        inner = np.concatenate([node[:0], *cuts])
        whole = float(_depth(np.array(estimator.max_samples_)))
        share = path[node] / whole if whole else np.ones(len(node))
        return {"feature": feature[inner].astype(np.int32), "threshold": threshold[inner], "share": share / len(trees)}

    def consistent(self) -> bool:
        cuts, leaves, trees = self.feature.numel(), self.share.numel(), self._trees
        shaped = (self.feature.shape, self.threshold.shape, self.share.shape) == ((cuts,), (cuts,), (leaves,))
        filled = trees << self._levels == leaves if trees > 0 else leaves == 0
        known = (self.feature >= 0) & (self.feature < self.features)
        return shaped and filled and bool(known.all())

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        wide = self._trees + self.features
        together = max(1, 2 ** (18 if x.is_cpu else 26) // wide)  # what a core's cache holds, or keeps a card busy
        parts = self.in_turns(x.flatten(1), 3 * wide, together)
        return torch.cat([torch.exp2(-self._exponents(part)) for part in parts]).float()

    def _exponents(self, rows: Tensor) -> Tensor:
        """E[h(x)] / c(n), `(B, D)` to `(B,)`."""
        count, trees, values = rows.shape[0], self._trees, rows.float().reshape(-1)
        row, tree = (torch.arange(n, dtype=torch.int32, device=rows.device) for n in (count, trees))
        start = row[:, None] * self.features
        node = tree.repeat(count)  # in its level, of each row and tree
        sizes = [trees << level for level in range(self._levels)]
        for feature, threshold in zip(self.feature.split(sizes), self.threshold.split(sizes), strict=True):
            place = feature.index_select(0, node)
            place.view(count, trees).add_(start)
            node = node * 2 + (values.index_select(0, place) > threshold.index_select(0, node))
        return self.share.index_select(0, node).view(count, trees).sum(1)

    @property
    def _trees(self) -> int:
        return self.share.numel() - self.feature.numel()

    @property
    def _levels(self) -> int:
        return (self.share.numel() // max(1, self._trees)).bit_length() - 1


def _or_itself(child: NDArray) -> NDArray:
    """The children of nodes, where a leaf is its own."""
    return np.where(child < 0, np.arange(len(child)), child)


def _depth(n: NDArray) -> NDArray[np.float64]:
    """c(n), the mean depth of an unsuccessful search among n rows."""
    many = np.maximum(n, 3)
    return np.where(n > 2, 2 * (np.log(many - 1.0) + np.euler_gamma) - 2 * (many - 1.0) / many, n == 2)
