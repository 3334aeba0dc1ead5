"""Gradient-boosted trees of scikit-learn's, kept as numbers and evaluated in torch.

Shapes: `B` events, `D` features, `E` edges of bins, `T` trees, `L` leaves of a tree at most.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from straylight.nn import turns
from straylight.nn.searching import places

EDGES = 254  # scikit-learn's own bins, one of which is for what is missing
LEAVES = 31  # of a tree at most, so that they are the bits of an int32
AT_ONCE = 2**19  # leaves looked up together: what a core's cache holds


class BoostedTrees(nn.Module):
    """The sum of what trees say of events, by which leaves are left: no walk from node to node.

    A row that fails a test x <= t cannot end in the leaves to the left of it. With leaves numbered from the left as
    bits, the leaf is the lowest bit that no failed test takes away. Which bits a feature takes away from a tree follows
    from its bin alone, so that they stand in a table: one look-up for each tree and feature, and any table, be it from
    a strange file, leads to some leaf.

    References:
        C. Lucchese et al., QuickScorer: a fast algorithm to rank documents with additive ensembles of regression trees,
        SIGIR 2015, doi:10.1145/2766462.2767733

    Attributes:
        edges: between the bins of each feature, increasing, `(D, E)`; a value on an edge belongs to the bin below.
        left: the leaves that a bin of a feature leaves to a tree, `(D, E + 1, T)` int32.
        values: of the leaves, `(T, L)`.
        baseline: what they are added to.
    """

    #: Whether it is put into a graph, see `straylight.nn.searching`.
    traced = False
    edges: Tensor
    left: Tensor
    values: Tensor
    baseline: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("edges", torch.empty(features, EDGES))
        self.register_buffer("left", torch.empty(features, EDGES + 1, 0, dtype=torch.int32))
        self.register_buffer("values", torch.empty(0, LEAVES))
        self.register_buffer("baseline", torch.zeros((), dtype=torch.float64))

    def cut(self, x: Tensor) -> None:
        """Set the edges of the bins by quantiles of some rows, `(N, D)`."""
        shares = np.linspace(0, 1, EDGES + 2)[1:-1]
        edges = np.quantile(x.cpu().numpy(), shares, axis=0, method="inverted_cdf").T  # values that there are
        self.edges = torch.from_numpy(np.ascontiguousarray(edges, dtype=np.float32)).to(x.device)

    def binned(self, x: Tensor) -> Tensor:
        """The bin of each value, `(B, D)` to the same, int64."""
        return places(self.edges, x.T.contiguous(), traced=self.traced).T

    def take(self, estimators: Sequence[Any]) -> None:
        """Take over the trees of fitted `HistGradientBoostingClassifier`s of bins; the mean of their log-odds."""
        trees = [tree.nodes for one in estimators for (tree,) in one._predictors]
        tables = [_table(nodes, self.features) for nodes in trees]
        shape = (self.features, EDGES + 1)
        left = np.stack([left for left, _ in tables], -1) if tables else np.empty((*shape, 0), np.int32)
        values = np.stack([values for _, values in tables]) if tables else np.empty((0, LEAVES))
        device = self.edges.device
        self.left = torch.from_numpy(left).to(device)
        self.values = torch.from_numpy(values / max(1, len(estimators))).float().to(device)
        base = np.mean([float(np.ravel(one._baseline_prediction)[0]) for one in estimators])
        self.baseline = torch.tensor(base, dtype=torch.float64, device=device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        left, values = (state_dict.get(prefix + name) for name in ("left", "values"))
        if left is not None and values is not None:
            if left.shape != (self.features, EDGES + 1, len(values)) or left.dtype != torch.int32:
                raise ValueError("these trees are damaged: their tables do not belong together")
            self.left, self.values = (
                torch.empty_like(left, device=self.edges.device),
                self.values.new_empty(values.shape),
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        """Mean log-odds, `(B, D)` to `(B,)` float32."""
        trees = int(self.left.shape[-1])
        tree = torch.arange(trees, device=x.device) * LEAVES
        flat, found = self.values.flatten(), []
        for codes in turns.taken(self, self.binned(x), AT_ONCE // max(1, trees)):
            left = self.left[0].index_select(0, codes[:, 0])
            for i in range(1, self.features):
                others = self.left[i].index_select(0, codes[:, i])
                left = left & others if self.traced else left.bitwise_and_(others)
            lowest = (left & -left).float()
            leaf = lowest.log2().round().long() if self.traced else torch.frexp(lowest)[1] - 1
            found.append(flat[leaf.clamp(0, LEAVES - 1) + tree].sum(1, dtype=torch.float64))
        return (torch.cat(found) + self.baseline).float() if found else x.new_zeros(0)


def _table(nodes: NDArray[Any], features: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Which leaves of a tree each bin of each feature leaves, `(D, E + 1)`, and the leaves' values, `(L,)`."""
    left = np.full((features, EDGES + 1), (1 << LEAVES) - 1, dtype=np.int32)
    values = np.zeros(LEAVES)
    count = 0

    def walk(place: int) -> int:
        """The bits of the leaves below a node."""
        nonlocal count
        node = nodes[place]
        if node["is_leaf"]:
            values[count] = node["value"]
            count += 1
            return 1 << (count - 1)
        below = walk(int(node["left"]))
        failed = np.arange(EDGES + 1) > node["num_threshold"]
        left[node["feature_idx"], failed] &= ~below
        return below | walk(int(node["right"]))

    walk(0)
    return left, values
