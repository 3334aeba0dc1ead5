"""Outer density estimation: what the sidebands say of the signal region, told apart from what is there.

Shapes: as in `over_density`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from straylight import checks
from straylight.detectors.over_density import Rows, padded, resampled
from straylight.detectors.weak import Sample, WeaklySupervised, joined, some
from straylight.nn.conditional import ConditionalFlows, Flows


class Outer(WeaklySupervised):
    """Base of detectors with a flow p(x | m) of the sidebands, which is carried on into the signal region.

    Args:
        shape: the shape of one event; it is flattened to D features.
        flow: settings, see `straylight.nn.conditional.Flows`.
        oversampling: events drawn of the background, in units of those in the signal region.
        classifier, trees, mlp, folds, common: see `WeaklySupervised`.
    """

    def __init__(
        self, shape: tuple[int, ...], *, flow: Mapping[str, Any] | None = None, oversampling: float = 4.0, **common: Any
    ) -> None:
        super().__init__(shape, **common)
        checks.positive("detector", oversampling=oversampling)
        self.oversampling = oversampling
        self.flow = ConditionalFlows(self.models, self.features, self.context, Flows.of("flow", flow))

    def learn(self, rows: Rows, truth: Rows | None) -> None:
        sidebands = [rows.of(k, False) for k in range(self.models)]
        self.flow.fit(rows.x, rows.context, rows.weight, sidebands, self.seed, self.tell)
        super().learn(rows, truth)

    @property
    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed + 1)


class CATHODE(Outer):
    """Tells events of the signal region from events that a flow of the sidebands draws there.

    The masses at which events are drawn are those of the training rows in the region, with replacement. Features may
    hang on the mass, as long as they do so smoothly: the flow knows of it.

    References:
        A. Hallin et al., Classifying anomalies through outer density estimation (CATHODE), Phys. Rev. D 106 (2022)
        055006, arXiv:2109.00546

    Args:
        shape, flow, oversampling, classifier, trees, mlp, folds, common: see `Outer`, `WeaklySupervised`.

    Example:
        >>> CATHODE((4,), context=1, folds=2)(torch.zeros(3, 4), torch.zeros(3, 1)).tolist()  # nothing is learned yet
        [0.0, 0.0, 0.0]
    """

    def samples(self, rows: Rows, truth: Rows | None) -> list[Sample]:
        generator = self._generator
        found = [rows.of(k, True) for k in range(self.models)]
        sizes = [max(1, round(self.oversampling * len(places))) for places in found]
        masses = [resampled(rows.context[p], n, generator) for p, n in zip(found, sizes, strict=True)]
        drawn = self.flow.sample(padded(masses, max(sizes)), generator)
        return [
            joined(some(rows, places), (own[:n], torch.ones(n, device=own.device)))
            for places, own, n in zip(found, drawn, sizes, strict=True)
        ]


class LaCATHODE(Outer):
    """CATHODE where the flow of the sidebands makes noise of events: there, background is the same at every mass.

    score(x) = log-odds of f(x | m), told apart from standard normal noise. No event is drawn, and the classifier does
    not meet events of the sidebands where it was never trained, so that a cut deforms the background less.

    References:
        A. Hallin et al., Resonant anomaly detection without background sculpting (LaCATHODE), Phys. Rev. D 107 (2023)
        114012, arXiv:2210.14924

    Args:
        shape, flow, oversampling, classifier, trees, mlp, folds, common: see `Outer`, `WeaklySupervised`.

    Example:
        >>> LaCATHODE((4,), context=1, folds=2)(torch.zeros(3, 4), torch.zeros(3, 1)).tolist()  # nothing is learned yet
        [0.0, 0.0, 0.0]
    """

    def samples(self, rows: Rows, truth: Rows | None) -> list[Sample]:
        generator, found = self._generator, []
        inside = [rows.of(k, True) for k in range(self.models)]
        longest = max(map(len, inside))
        seen = (padded([column[places] for places in inside], longest) for column in (rows.x, rows.context))
        for places, codes in zip(inside, self.flow.latents(*seen), strict=True):
            n = max(1, round(self.oversampling * len(places)))
            noise = torch.randn(n, self.features, generator=generator).to(codes.device)
            own = codes[: len(places)], rows.weight[places]
            found.append(joined(own, (noise, torch.ones(n, device=codes.device))))
        return found

    def each(self, x: Tensor, context: Tensor) -> Tensor:
        return self.classifiers(self.flow.latents(x, context))
