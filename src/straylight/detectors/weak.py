"""Detectors that tell events of the signal region from a sample of what is expected there, by a classifier.

Shapes: as in `over_density`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from straylight.detectors.over_density import Folds, OverDensity, Rows
from straylight.nn.classifiers import Kind, Network, Sample, Trees, classifiers


class WeaklySupervised(OverDensity):
    """Base of over-densities found by classifiers. A subclass writes `samples`.

    score(x) = log-odds of a classifier that tells two samples of events apart, of equal weight together: the log of
    their likelihood ratio. No classifier sees the resonant variable, nor any other context.

    Args:
        shape: the shape of one event; it is flattened to D features.
        classifier: `trees`, boosted, strong where features are noise, or `mlp`, a dense network.
        trees, mlp: settings of either, see `straylight.nn.classifiers`.
        folds, common: see `OverDensity`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        classifier: Kind = "trees",
        trees: Mapping[str, Any] | None = None,
        mlp: Mapping[str, Any] | None = None,
        folds: Folds = 5,
        **common: Any,
    ) -> None:
        super().__init__(shape, folds=folds, **common)
        settings = Trees.of("trees", trees), Network.of("mlp", mlp)
        self.classifiers = classifiers(classifier, self.models, self.features, *settings)

    def samples(self, rows: Rows, truth: Rows | None) -> list[Sample]:
        """What each model's classifier tells apart, what looks like signal first."""
        raise NotImplementedError(f"{type(self).__name__} must write samples(rows, truth)")

    def learn(self, rows: Rows, truth: Rows | None) -> None:
        self.classifiers.fit(self.samples(rows, truth), self.seed, self.tell)

    def each(self, x: Tensor, context: Tensor) -> Tensor:
        return self.classifiers(x)


def joined(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Sample:
    """Events and weights of two samples as one to be told apart."""
    (x, weight), (other, other_weight) = first, second
    y = torch.arange(len(x) + len(other), device=x.device) < len(x)
    return Sample(torch.cat([x, other]), y, torch.cat([weight, other_weight]))


def some(rows: Rows, places: Tensor) -> tuple[Tensor, Tensor]:
    """Events and weights at these places."""
    return rows.x[places], rows.weight[places]
