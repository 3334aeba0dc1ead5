"""One-class support vector machine.

Shapes: `B` events, `N` rows at which the kernel is taken, `D` features.
"""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from straylight import checks
from straylight.detectors.kde import squared_distances
from straylight.detectors.scikit import ScikitDetector
from straylight.nn.spacing import spacing

Rule = Literal["neighbours", "scale"]


class OneClassSVM(ScikitDetector):
    """How far an event lies on the origin's side of the hyperplane that sets the training rows apart from it.

    score(x) = -sum_i a_i k(x, x_i), the sum of a_i one (N by `neighbours`), with the Gaussian kernel k(x, t) =
    exp(-gamma |x - t|^2). Of the training rows at most the fraction nu lies on the wrong side. The exact solution takes
    time in N^2 to N^3: beyond `max_rows` the kernel is approximated by its values at some rows (Nystroem) and the
    machine is linear in them, fitted to all rows by stochastic gradients, and a notice says so. Assumes features of
    comparable scale.

    The kernel's width says what counts as near. `neighbours` makes it half the median distance m of a row from its
    fifth neighbour, gamma = 2 / m^2, among the rows at which the kernel is taken.

    References:
        B. Schölkopf et al., Estimating the support of a high-dimensional distribution, Neural Comput. 13 (2001) 1443,
        doi:10.1162/089976601750264965
        C. Williams, M. Seeger, Using the Nyström method to speed up kernel machines, NIPS 2000

    Args:
        nu: see above, above 0 and at most 1.
        gamma: of the kernel; `neighbours`, see above, `scale`, which is 1 / (D times the variance of all values), or a
            number.
        max_rows: training rows up to which the solution is exact; `None` for always.
        landmarks: rows at which the kernel is taken beyond that; the features of all rows must fit `budget_mb`.
        shape, common: see `FittedDetector`; events are flattened.

    Example:
        >>> import torch
        >>> svm = OneClassSVM((1,), scaling="none")
        >>> svm.fit(torch.linspace(-1, 1, 99)[:, None], torch.zeros(99, 0), torch.ones(99))
        >>> svm(torch.tensor([[0.], [9.]])).argmax().item()  # the far one
        1
    """

    weighted = True
    sized_by_data = ("points", "squares", "coefficients")
    points: Tensor
    squares: Tensor
    coefficients: Tensor
    centre: Tensor
    steepness: Tensor
    explained_by = "gradients"
    why_fewer = "the features of all of them are held at once (detector.budget_mb)"

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        nu: float = 0.5,
        gamma: float | Rule = "neighbours",
        max_rows: int | None = 5_000,
        landmarks: int = 500,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        checks.above("detector", 0, 1, nu=nu)
        checks.positive("detector", also=Rule, gamma=gamma)
        checks.counts("detector", also="null", max_rows=max_rows)
        checks.counts("detector", landmarks=landmarks)
        self.nu, self.gamma, self.max_rows, self.landmarks = nu, gamma, max_rows, landmarks
        self.register_buffer("points", torch.empty(0, self.features, dtype=torch.float64))  # centred
        self.register_buffer("squares", torch.empty(0, dtype=torch.float64))  # of the length of each
        self.register_buffer("coefficients", torch.empty(0, dtype=torch.float64))
        self.register_buffer("centre", torch.zeros(self.features, dtype=torch.float64))
        self.register_buffer("steepness", torch.ones((), dtype=torch.float64))  # gamma

    def most(self, n: int) -> int | None:
        if self.max_rows is None or n <= self.max_rows:
            return None
        return max(self.max_rows, int(self.budget_mb * 2**20 / (8 * self.landmarks)))

    def build(self, rows: NDArray[np.float64]) -> Any:
        from sklearn.kernel_approximation import Nystroem
        from sklearn.linear_model import SGDOneClassSVM
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import OneClassSVM as SVM

        n = len(rows)
        self.weighted = self.max_rows is None or n <= self.max_rows
        if self.weighted:
            self.expect(2.0 * rows.size * n, "set detector.max_rows")
            return SVM(nu=self.nu, gamma=self._steepness(rows))
        landmarks = min(self.landmarks, n)
        gamma = self._steepness(rows, np.random.RandomState(self.seed).permutation(n)[:landmarks])  # as Nystroem draws
        self.notice(
            f"OneClassSVM is fitted to {n:,} training rows, above detector.max_rows={self.max_rows:,}, by stochastic "
            f"gradients on Nystroem features at {landmarks:,} of them."
        )
        features = Nystroem(gamma=gamma, n_components=landmarks, random_state=self.seed)
        return make_pipeline(features, SGDOneClassSVM(nu=self.nu, random_state=self.seed, tol=1e-4))

    def _steepness(self, rows: NDArray[np.float64], taken: Any = slice(None)) -> float:
        """gamma, of a kernel at some of the rows."""
        if not isinstance(self.gamma, str):
            return self.gamma
        if self.gamma == "neighbours":
            if near := spacing(torch.from_numpy(rows[taken]), seed=self.seed, budget_mb=self.budget_mb):
                return 2 / near**2
            self.notice(
                "OneClassSVM takes detector.gamma=scale: most training rows have five others that equal them, or there "
                "are no five others."
            )
        variance = float(rows.var())
        return 1 / (rows.shape[1] * variance) if variance else 1.0

    def numbers(self, estimator: Any) -> dict[str, NDArray]:
        if self.weighted:
            rows, coefficients, gamma = estimator.support_vectors_, estimator.dual_coef_[0], estimator.gamma
            # their sum is nu N, and scores of different N are compared: narrower kernels hold a row less each
            total = estimator.shape_fit_[0] if self.gamma == "neighbours" else 1.0
            coefficients = coefficients * (total / coefficients.sum())
        else:
            nystroem, machine = (step for _, step in estimator.steps)
            coefficients = machine.coef_ @ nystroem.normalization_
            rows, gamma = nystroem.components_, nystroem.gamma
        centre = rows.mean(0)
        points = rows - centre
        return {
            "points": points,
            "squares": np.square(points).sum(1),
            "coefficients": coefficients,
            "centre": centre,
            "steepness": np.float64(gamma),
        }

    def consistent(self) -> bool:
        n = self.coefficients.numel()
        shapes = self.coefficients.shape, self.squares.shape, self.points.shape
        return shapes == ((n,), (n,), (n, self.features))

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        parts = self.in_turns(x.flatten(1), 2 * len(self.points) + self.features)
        return torch.cat([-(self._kernel(part) @ self.coefficients) for part in parts]).float()

    def _kernel(self, rows: Tensor) -> Tensor:
        squared = squared_distances(rows.double() - self.centre, self.points, self.squares)
        return squared.mul_(-self.steepness).exp_()
