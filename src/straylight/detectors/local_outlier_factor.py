"""Local outlier factor."""

from typing import Any

from sklearn.neighbors import LocalOutlierFactor as Factor

from straylight import checks
from straylight.detectors.scikit import ScikitDetector
from straylight.errors import DataError


class LocalOutlierFactor(ScikitDetector):
    """How much thinner the training rows are around an event than around its nearest neighbours.

    score(x) = mean over the k nearest training rows t of lrd(t) / lrd(x), with lrd the inverse of the mean reachability
    distance of a row from its own k nearest. About 1 inside any crowd, however dense. Assumes features of comparable
    scale. Cost: grows with the square of the number of training rows, so that beyond `max_rows` a sample stands for
    them, and a notice says so.

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

    why_fewer = "its cost grows with their square (detector.max_rows)"

    def __init__(self, shape: tuple[int, ...], *, k: int = 20, max_rows: int | None = 30_000, **common: Any) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", k=k)
        checks.counts("detector", 2, also="null", max_rows=max_rows)
        self.k, self.max_rows = k, max_rows

    def build(self, rows: Any) -> Factor:
        if len(rows) < 2:
            raise DataError("LocalOutlierFactor needs two training rows or more.")
        self.expect(2.0 * rows.size * len(rows), "lower detector.max_rows")
        k = min(self.k, len(rows) - 1)
        if k < self.k:
            self.notice(f"LocalOutlierFactor has {len(rows)} training rows for detector.k={self.k} and takes k={k}.")
        return Factor(n_neighbors=k, novelty=True)
