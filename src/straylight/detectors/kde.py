"""Kernel density estimation.

Shapes: `B` events, `N` training rows kept, `D` features.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from straylight import checks
from straylight.detectors.fitted import FittedDetector
from straylight.nn.spacing import spacing

Rule = Literal["scott", "silverman", "likelihood", "neighbours"]

NEAR = 0.15  # of the distance to the fifth neighbour, that `neighbours` takes


class KDE(FittedDetector):
    """Negative log-density under a Gaussian at every training row.

    -log p(x) = -log sum_i w_i N(x; x_i, h^2 I), with w the event weights, summed to one. Distances are taken in
    float64 on centred rows and the sum in logarithms, so that far events are told apart where the density itself is
    zero.

    The bandwidth h is a number in scaled units; or, in units of the features' root mean variance, `scott`
    n^(-1/(D+4)) or `silverman` (n (D+2)/4)^(-1/(D+4)) with n the effective number of rows; or `likelihood`, which
    leaves one row out at a time and maximises how probable the others make it, over as many rows as fit the budget;
    or `neighbours`, 0.15 times the median distance of a training row from its fifth neighbour (of up to 2000 rows drawn
    by seed), which suits images: in hundreds of features that depend on each other the first two see no structure.
    Assumes features of comparable scale.

    References:
        E. Parzen, On estimation of a probability density function and mode, Ann. Math. Stat. 33 (1962) 1065,
        doi:10.1214/aoms/1177704472
        D. W. Scott, Multivariate density estimation, Wiley 1992, doi:10.1002/9780470316849
        B. W. Silverman, Density estimation for statistics and data analysis, Chapman & Hall 1986
        R. P. W. Duin, On the choice of smoothing parameters for Parzen estimators, IEEE Trans. Comput. C-25 (1976)
        1175, doi:10.1109/TC.1976.1674577 (likelihood)

    Args:
        bandwidth: h, `scott`, `silverman`, `likelihood` or `neighbours`.
        max_rows: more training rows than these are drawn from by seed, and a notice says so; `None` keeps all.
        shape, common: see `FittedDetector`; events are flattened.

    Example:
        >>> kde = KDE((1,), bandwidth=1.0, scaling="none")
        >>> kde.fit(torch.tensor([[0.]]), torch.zeros(1, 0), torch.ones(1))
        >>> kde(torch.tensor([[0.], [2.]]))
        tensor([0.9189, 2.9189])
    """

    explained_by = "gradients"
    density = True
    limit = "detector.max_rows"  # on training rows

    @property
    def why_fewer(self) -> str:  # type: ignore[override]
        return f"its cost grows with them ({self.limit})"

    sized_by_data: tuple[str, ...] = ("memory", "squares", "log_weight")
    memory: Tensor
    squares: Tensor
    log_weight: Tensor
    centre: Tensor
    width: Tensor

    def __init__(
        self, shape: tuple[int, ...], *, bandwidth: float | Rule = "scott", max_rows: int | None = 20_000, **common: Any
    ) -> None:
        super().__init__(shape, **common)
        checks.positive("detector", also=Rule, bandwidth=bandwidth)
        checks.counts("detector", also="null", max_rows=max_rows)
        self.bandwidth, self.max_rows = bandwidth, max_rows
        self.features = math.prod(self.shape)
        self.register_buffer("memory", torch.empty(0, self.features, dtype=torch.float64))  # centred
        self.register_buffer("squares", torch.empty(0, dtype=torch.float64))  # of the length of each
        self.register_buffer("log_weight", torch.empty(0, dtype=torch.float64))
        self.register_buffer("centre", torch.zeros(self.features, dtype=torch.float64))
        self.register_buffer("width", torch.ones((), dtype=torch.float64))

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        rows, weight = self.kept(x.flatten(1)[weight > 0], weight[weight > 0])
        rows, weight = rows.double(), weight.double() / weight.double().sum()
        self.centre = weight @ rows
        self.memory, self.log_weight = rows - self.centre, weight.log()
        self.width = torch.as_tensor(self._width(weight), dtype=torch.float64, device=rows.device)
        self.arrange(weight)
        self.squares = self.memory.square().sum(1)

    def arrange(self, weight: Tensor) -> None:
        """What a variant does to the rows in `memory` and their weights, `(N,)`, summed to one."""

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        parts = self.in_turns(x.flatten(1), 3 * len(self.memory) + self.features)
        constant = self.features * (self.width.log() + math.log(2 * math.pi) / 2)
        return torch.cat([constant - self.merge(self._exponents(part)) for part in parts]).float()

    def merge(self, exponents: Tensor) -> Tensor:
        """The logarithm of the mean kernel from -|x - x_i|^2 / 2h^2, `(B, N)` to `(B,)`."""
        return (exponents + self.log_weight).logsumexp(1)

    def _exponents(self, rows: Tensor) -> Tensor:
        squared = squared_distances(rows.double() - self.centre, self.memory, self.squares)
        return squared.mul_(-0.5 / self.width**2)

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        rows = self.memory[torch.multinomial(self.log_weight.exp(), n, replacement=True)] + self.centre
        return self.scaling.inverse((rows + self.width * torch.randn_like(rows)).float().view(n, *self.shape))

    # the bandwidth

    def _width(self, weight: Tensor) -> float:
        if not isinstance(self.bandwidth, str):
            return float(self.bandwidth)
        spread = float((weight @ self.memory.square()).mean().sqrt())
        if spread <= torch.finfo(torch.float32).eps * float(self.centre.abs().max()):  # rounding: all rows are equal
            spread = 1.0
        n, d = float(1 / weight.square().sum()), self.features
        if self.bandwidth == "silverman":
            return spread * (n * (d + 2) / 4) ** (-1 / (d + 4))
        scott = spread * n ** (-1 / (d + 4))
        if self.bandwidth == "neighbours":
            return self._near(scott)
        return scott if self.bandwidth == "scott" else self._most_likely(weight, scott)

    def _near(self, start: float) -> float:
        found = NEAR * spacing(self.memory, seed=self.seed, budget_mb=self.budget_mb)
        if not found:
            self.notice(
                f"{type(self).__name__} takes Scott's bandwidth, {start:.3g}: most training rows have five others that "
                "equal them, or there are no five others."
            )
        return found or start

    def _most_likely(self, weight: Tensor, start: float) -> float:
        limit, why = max(2, int((self.budget_mb * 2**20 / 24) ** 0.5)), "they are all compared with each other"
        how = {"why": f"{why} (detector.budget_mb)", "use": "seeks its bandwidth on"}
        rows, weight = self.drawn(limit, self.memory, weight, **how)
        if len(rows) < 2:
            return start
        squared = squared_distances(rows, rows)
        squared.fill_diagonal_(math.inf)  # leaves the row itself out
        weight = weight / weight.sum()

        def loss(log_width: float) -> float:
            exponents = squared / (-2 * math.exp(2 * log_width)) + weight.log()
            found = exponents.logsumexp(1) - (1 - weight).log()
            return float(self.features * log_width - (weight * found).sum())

        grid = math.log(start) + np.linspace(math.log(0.01), math.log(10), 36)
        losses = [loss(width) for width in grid]
        best = int(np.argmin(losses))
        if not 0 < best < len(grid) - 1:
            self.notice(
                f"{type(self).__name__} found no bandwidth from {math.exp(grid[0]):.3g} to {math.exp(grid[-1]):.3g} "
                f"that makes left-out rows most probable (many rows are equal?) and takes Scott's, {start:.3g}."
            )
            return start
        around = grid[best - 1], grid[best + 1]
        found = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-4})
        # the best bandwidth shrinks with the number of rows, of which this was a part
        return math.exp(found.x) * (len(self.memory) / len(rows)) ** (-1 / (self.features + 4))


def squared_distances(a: Tensor, b: Tensor, squares: Tensor | None = None) -> Tensor:
    """Squared Euclidean distances of float64 rows near the origin, `(B, D)` and `(N, D)` to `(B, N)`.

    `squares`, `(N,)`, are those of the lengths of b, where they are known.
    """
    squares = b.square().sum(1) if squares is None else squares
    return torch.addmm(squares, a, b.T, alpha=-2).add_(a.square().sum(1, keepdim=True)).clamp_min_(0)
