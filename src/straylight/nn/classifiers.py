"""Classifiers that tell two samples apart, several side by side, each fitted to samples of its own.

Shapes: `K` classifiers, `B` events, `D` features, `N` rows of a sample.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from straylight import checks
from straylight.errors import DataError, Interrupted
from straylight.nn import turns
from straylight.nn.boosted import EDGES, LEAVES, BoostedTrees
from straylight.nn.descending import Descent, Tell, descend, parted
from straylight.nn.mlp import Activation, mlp
from straylight.nn.pools import one_pool
from straylight.nn.stacked import stack
from straylight.stopping import STOP

Kind = Literal["trees", "mlp"]
AT_ONCE = 2**19  # hidden numbers that are computed together: what a core's cache holds


class Sample(NamedTuple):
    """Two samples to be told apart.

    Attributes:
        x: their events, `(N, D)`.
        y: whether an event is of the first of them, `(N,)` bool.
        weight: `(N,)`, whatever its sum: both samples are given the same one.
    """

    x: Tensor
    y: Tensor
    weight: Tensor

    def balanced(self) -> Tensor:
        """Weights by which both samples count alike, one on average, `(N,)` float32.

        Raises:
            DataError: if one of them is empty.
        """
        weight, y = self.weight.double(), self.y.double()
        one, other = (weight * y).sum(), (weight * (1 - y)).sum()
        if not (one > 0 and other > 0):
            raise DataError("A classifier needs rows of both samples that it is to tell apart, and one is empty.")
        return (weight * torch.where(self.y, len(y) / 2 / one, len(y) / 2 / other)).float()


@dataclass(frozen=True)
class Settings:
    """What a classifier is given by a config; a subclass says what there is."""

    @classmethod
    def of(cls, key: str, given: Mapping[str, Any] | None) -> Self:
        """From a mapping of a config, what is not in it as it is by default.

        Raises:
            ValueError: if there is no setting of a name.
        """
        known = [one.name for one in fields(cls)]
        for name in given or {}:
            if name not in known:
                near = checks.meant(str(name), known)
                raise ValueError(f"detector.{key} has no {name!r}{near}; it has {', '.join(known)}")
        made = cls(**(given or {}))
        made.check(key)
        return made

    def check(self, key: str) -> None:
        """See that all values are within their ranges.

        Raises:
            ValueError: if one is not, by its key.
        """

    def _named(self, key: str, *names: str) -> dict[str, Any]:
        """Some of them, by their whole keys."""
        return {f"{key}.{name}": getattr(self, name) for name in names}


@dataclass(frozen=True)
class Trees(Settings):
    """Boosted trees of scikit-learn's `HistGradientBoostingClassifier`; the mean of the log-odds of several.

    Attributes:
        members: that differ by what is drawn.
        learning_rate, max_iter, max_leaf_nodes, min_samples_leaf, l2: see scikit-learn; 31 leaves at most.
        held_out: the share of the rows that stops the growth, when it has not become better for ten trees.
    """

    members: int = 5
    learning_rate: float = 0.05
    max_iter: int = 300
    max_leaf_nodes: int = 31
    min_samples_leaf: int = 100
    l2: float = 1.0
    held_out: float = 0.25

    def check(self, key: str) -> None:
        checks.counts("detector", **self._named(key, "members", "max_iter", "min_samples_leaf"))
        checks.between("detector", 2, LEAVES, **self._named(key, "max_leaf_nodes"))
        checks.above("detector", 0, 1, **self._named(key, "learning_rate"))
        checks.above("detector", 0, 0.9, **self._named(key, "held_out"))
        checks.not_negative("detector", **self._named(key, "l2"))


@dataclass(frozen=True)
class Network(Settings):
    """A dense network trained by Adam; the mean of the log-odds of its best epochs.

    Attributes:
        hidden: widths of its layers.
        activation: between them.
        epochs, batch_size, lr: of the training.
        kept: epochs of least loss on held-out rows that are averaged.
        held_out: the share of the rows that chooses the epochs.
    """

    hidden: Sequence[int] = field(default=(64, 64, 64))
    activation: Activation = "relu"
    epochs: int = 30
    batch_size: int = 512
    lr: float = 1e-3
    kept: int = 10
    held_out: float = 0.2

    def check(self, key: str) -> None:
        checks.counts("detector", **self._named(key, "epochs", "batch_size", "kept"))
        checks.positive("detector", **self._named(key, "lr"))
        checks.above("detector", 0, 0.9, **self._named(key, "held_out"))


class Classifiers(nn.Module):
    """K classifiers. A subclass writes `fit` and `forward`; what is larger is more like the first sample."""

    def fit(self, samples: Sequence[Sample], seed: int, tell: Tell) -> None:
        """Fit each to samples of its own.

        Raises:
            DataError: if a sample is empty.
            Interrupted: if the process was asked to end.
        """
        raise NotImplementedError(f"{type(self).__name__} must write fit(samples, seed, tell)")

    def forward(self, x: Tensor) -> Tensor:
        """Log-odds by each classifier of events of its own, `(K, B, D)` to `(K, B)`."""
        raise NotImplementedError(f"{type(self).__name__} must write forward(x)")


class TreeClassifiers(Classifiers):
    """`Trees`, K times.

    References:
        T. Finke et al., Tree-based algorithms for weakly supervised anomaly detection, Phys. Rev. D 109 (2024) 034033,
        arXiv:2309.13111
    """

    def __init__(self, count: int, features: int, settings: Trees) -> None:
        super().__init__()
        self.settings = settings
        self.each = nn.ModuleList(BoostedTrees(features) for _ in range(count))

    def fit(self, samples: Sequence[Sample], seed: int, tell: Tell) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier

        how = self.settings
        for k, sample in enumerate(samples):
            trees = self._of(k)
            trees.cut(sample.x)
            weight, y = sample.balanced().cpu().numpy(), sample.y.cpu().numpy()
            codes = trees.binned(sample.x).cpu().numpy().astype(np.float64)
            fitted = []
            for member in range(how.members):
                if STOP.asked:
                    raise Interrupted
                tell(f"trees  {k * how.members + member + 1}/{len(samples) * how.members}")
                estimator = HistGradientBoostingClassifier(
                    learning_rate=how.learning_rate,
                    max_iter=how.max_iter,
                    max_leaf_nodes=how.max_leaf_nodes,
                    min_samples_leaf=how.min_samples_leaf,
                    l2_regularization=how.l2,
                    max_bins=EDGES + 1,
                    early_stopping=True,
                    validation_fraction=how.held_out,
                    random_state=(seed * 1_000_003 + k * how.members + member) % 2**32,
                )
                with one_pool():
                    fitted.append(estimator.fit(codes, y, weight))
            trees.take(fitted)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self._of(k)(own) for k, own in enumerate(x)])

    def _of(self, k: int) -> BoostedTrees:
        return self.each[k]  # type: ignore[return-value]


class NetworkClassifiers(Classifiers):
    """`Network`, K times, trained side by side."""

    def __init__(self, count: int, features: int, settings: Network) -> None:
        super().__init__()
        self.settings, self.count, self.features = settings, count, features
        self.kept = min(settings.kept, settings.epochs)
        self.network = self._stacked(count * self.kept)

    def _stacked(self, networks: int) -> nn.Sequential:
        each = [mlp((self.features, *self.settings.hidden, 1), self.settings.activation) for _ in range(networks)]
        stack(each)
        return each[0]

    def fit(self, samples: Sequence[Sample], seed: int, tell: Tell) -> None:
        how, generator = self.settings, torch.Generator().manual_seed(seed)
        device = samples[0].x.device
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)
            network = self._stacked(self.count).to(device)
        x = torch.cat([sample.x for sample in samples])
        y = torch.cat([sample.y for sample in samples]).float()
        weight = torch.cat([sample.balanced() for sample in samples])
        ends = torch.tensor([0, *(len(sample.x) for sample in samples)]).cumsum(0).tolist()
        rows = [torch.arange(a, b, device=device) for a, b in pairwise(ends)]
        train, held = zip(*(parted(own, how.held_out, generator) for own in rows), strict=True)

        def loss(places: Tensor) -> Tensor:
            logits = network(x.index_select(0, places))[:, 0]
            return F.binary_cross_entropy_with_logits(logits, y.index_select(0, places), reduction="none")

        recipe = Descent(how.epochs, how.batch_size, how.lr, kept=self.kept)
        best = descend(network, loss, train, held, weight, recipe, generator, lambda said: tell(f"network  {said}"))
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(best[name].flatten(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        wide = self.count * self.kept * max(self.settings.hidden, default=1)
        parts = []
        for part in turns.taken(self, x, AT_ONCE // wide, 1):
            k, b, d = part.shape
            each = self.network(part[:, None].expand(k, self.kept, b, d).reshape(-1, d))
            parts.append(each.view(k, self.kept, b).mean(1))
        return torch.cat(parts, 1)


def classifiers(kind: Kind, count: int, features: int, trees: Trees, network: Network) -> Classifiers:
    """So many classifiers of a kind.

    Raises:
        ValueError: if there is no such kind.

    Example:
        >>> x = torch.randn(400, 2)
        >>> found = classifiers("trees", 1, 2, Trees(members=1, min_samples_leaf=5), Network())
        >>> found.fit([Sample(x, x[:, 0] > 0, torch.ones(400))], seed=0, tell=lambda said: None)
        >>> (found(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])) > 0).tolist()
        [[True, False]]
    """
    checks.one_of("detector", Kind, classifier=kind)
    made: Callable[[], Classifiers] = {
        "trees": lambda: TreeClassifiers(count, features, trees),
        "mlp": lambda: NetworkClassifiers(count, features, network),
    }[kind]
    return made()
