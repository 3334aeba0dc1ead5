"""What over-densities are measured against: classifiers that know what nobody does of real data."""

from typing import Any

from straylight import checks
from straylight.detectors.over_density import Rows
from straylight.detectors.weak import Sample, WeaklySupervised, joined, some


class Idealized(WeaklySupervised):
    """Tells events of the signal region from true background of it: what a perfect model of the background reaches.

    References:
        A. Hallin et al., Classifying anomalies through outer density estimation (CATHODE), Phys. Rev. D 106 (2022)
        055006, arXiv:2109.00546

    Args:
        shape, classifier, trees, mlp, folds, common: see `WeaklySupervised`.

    Example:
        >>> import torch
        >>> Idealized((4,), context=1, folds=2)(torch.zeros(3, 4), torch.zeros(3, 1)).tolist()  # nothing is learned yet
        [0.0, 0.0, 0.0]
    """

    sees_truth, needs_sidebands = True, False

    def samples(self, rows: Rows, truth: Rows | None) -> list[Sample]:
        assert truth is not None
        return [joined(some(rows, rows.of(k, True)), some(truth, truth.of(k, False))) for k in range(self.models)]


class Supervised(WeaklySupervised):
    """Tells true signal from true background of the signal region: what is lost by not knowing what to look for.

    References:
        A. Hallin et al., Classifying anomalies through outer density estimation (CATHODE), Phys. Rev. D 106 (2022)
        055006, arXiv:2109.00546 (as their yardstick)

    Args:
        per_class: events of each class that are looked at, at most.
        shape, classifier, trees, mlp, folds, common: see `WeaklySupervised`.

    Example:
        >>> import torch
        >>> Supervised((4,), context=1, folds=2)(torch.zeros(3, 4), torch.zeros(3, 1)).tolist()  # nothing is learned
        [0.0, 0.0, 0.0]
    """

    sees_truth, needs_sidebands = True, False

    def __init__(self, shape: tuple[int, ...], *, per_class: int = 64_000, **common: Any) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", 2, per_class=per_class)
        self.per_class = per_class

    def samples(self, rows: Rows, truth: Rows | None) -> list[Sample]:
        assert truth is not None
        found = ([truth.of(k, signal)[: self.per_class] for signal in (True, False)] for k in range(self.models))
        return [joined(some(truth, signal), some(truth, background)) for signal, background in found]
