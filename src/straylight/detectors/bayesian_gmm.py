"""Bayesian Gaussian mixture.

Shapes: `B` events, `D` features, `K` components.
"""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight import checks
from straylight.detectors.gmm import mahalanobis
from straylight.detectors.scikit import ScikitDetector

Covariance = Literal["full", "diag", "tied", "spherical"]


class BayesianGMM(ScikitDetector):
    """Negative log-density, by a variational estimate, under a mixture of Gaussians that may leave components empty.

    The weights of the components have a Dirichlet process prior and their means and covariances a normal-Wishart one;
    the posterior is approximated by variational inference. With W_k what whitens component k, and c_k all that does
    not depend on x, score(x) = -log sum_k exp(c_k - |(x - m_k) W_k|^2 / 2). Assumes features of comparable scale.

    References:
        D. M. Blei, M. I. Jordan, Variational inference for Dirichlet process mixtures, Bayesian Anal. 1 (2006) 121,
        doi:10.1214/06-BA104

    Args:
        components: as many as there may be at most.
        covariance: `full`, `diag`, `tied` or `spherical`.
        restarts: from k-means; the one with the highest lower bound is kept.
        concentration: of the prior on the weights; low values empty more components. `None` is 1 / components.
        regularization: added to the variances, in scaled units.
        max_iterations: of each restart.
        max_rows: more training rows than these are drawn from by seed, and a notice says so; `None` takes all.
        shape, common: see `FittedDetector`; events are flattened.

    Example:
        >>> import torch
        >>> gmm = BayesianGMM((1,), components=2, scaling="none")
        >>> gmm.fit(torch.linspace(-1, 1, 99)[:, None], torch.zeros(99, 0), torch.ones(99))
        >>> gmm(torch.tensor([[0.], [9.]])).argmax().item()  # the far one
        1
    """

    explained_by = "gradients"
    sized_by_data = ("constants", "means", "factors")
    constants: Tensor
    means: Tensor
    factors: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        components: int = 8,
        covariance: Covariance = "full",
        restarts: int = 1,
        concentration: float | None = None,
        regularization: float = 1e-6,
        max_iterations: int = 200,
        max_rows: int | None = 50_000,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", components=components, restarts=restarts, max_iterations=max_iterations)
        checks.counts("detector", 2, also="null", max_rows=max_rows)
        checks.one_of("detector", Covariance, covariance=covariance)
        checks.not_negative("detector", regularization=regularization)
        checks.positive("detector", also="null", concentration=concentration)
        self.components, self.covariance, self.restarts = components, covariance, restarts
        self.concentration, self.regularization = concentration, regularization
        self.max_iterations, self.max_rows = max_iterations, max_rows
        for name in self.sized_by_data:
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))

    def build(self, rows: NDArray[np.float64]) -> Any:
        from sklearn.mixture import BayesianGaussianMixture

        k = min(self.components, len(rows))
        if k < self.components:
            self.notice(f"BayesianGMM has {k} rows for detector.components={self.components} and takes as many.")
        squares = rows.shape[1] if self.covariance in ("full", "tied") else 1
        self.expect(
            4.0 * self.max_iterations * self.restarts * k * rows.size * squares,
            "lower detector.max_rows or components" + ("" if squares == 1 else ", or set covariance=diag"),
        )
        return BayesianGaussianMixture(
            n_components=k,
            covariance_type=self.covariance,
            n_init=self.restarts,
            weight_concentration_prior=self.concentration,
            reg_covar=self.regularization,
            max_iter=self.max_iterations,
            random_state=self.seed,
        )

    def numbers(self, estimator: Any) -> dict[str, NDArray]:
        means, factors = estimator.means_, estimator.precisions_cholesky_
        if self.covariance == "tied":
            factors = factors[None]
        elif self.covariance == "spherical":
            factors = np.repeat(factors[:, None], self.features, 1)
        constants = estimator._estimate_weighted_log_prob(means).diagonal()  # each at its own mean
        return {"constants": constants, "means": means, "factors": factors}

    def consistent(self) -> bool:
        k, d = self.constants.numel(), self.features
        factors = {"full": (k, d, d), "tied": (min(k, 1), d, d)}.get(self.covariance, (k, d))
        shapes = self.constants.shape, self.means.shape, self.factors.shape
        return shapes == ((k,), (k, d), factors) or shapes == ((0,),) * 3  # not fitted yet

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        origin = self.means.mean(0)  # about which sums are taken: they would lose digits far from zero
        means, factors = (self.means - origin)[None], self.factors[None]
        parts = self.in_turns(x.flatten(1), 2 * self.means.numel() + 4 * len(self.means) + self.features)
        squared = (mahalanobis(part.double() - origin, means, factors)[:, 0] for part in parts)
        return torch.cat([-(self.constants - part / 2).logsumexp(1) for part in squared]).float()
