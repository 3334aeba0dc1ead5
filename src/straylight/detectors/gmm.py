"""Gaussian mixture.

Shapes: `B` events, `N` training rows, `D` features, `K` components, `R` restarts.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from straylight import checks
from straylight.detectors.fitted import FittedDetector
from straylight.errors import DataError

Covariance = Literal["full", "diag", "tied"]


class Mixture(NamedTuple):
    """Several mixtures side by side.

    Attributes:
        weights: of the components, `(R, K)`.
        means: `(R, K, D)`.
        factors: what whitens a difference from the mean: `(R, K, D, D)` for `full`, `(R, K, D)` for `diag`,
            `(R, 1, D, D)` for `tied`.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor


class GMM(FittedDetector):
    """Negative log-density under a mixture of Gaussians, fitted by expectation maximisation.

    -log p(x) = -log sum_k w_k N(x; m_k, S_k). Each restart begins with k-means++ centres, to which rows are assigned;
    all restarts go side by side, each until its mean log-density rises by less than `tolerance`, and the one with the
    highest is kept. All sums are in float64; rows come in chunks, so that no matrix of rows by components by features
    is beyond the budget. Assumes features of comparable scale; event weights count as so many rows.

    References:
        A. P. Dempster, N. M. Laird, D. B. Rubin, Maximum likelihood from incomplete data via the EM algorithm, J. R.
        Stat. Soc. B 39 (1977) 1, doi:10.1111/j.2517-6161.1977.tb01600.x
        D. Arthur, S. Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007

    Args:
        components: K.
        covariance: `full`, `diag`, or `tied`, one full covariance for all components.
        restarts: R.
        regularization: added to the variances, in scaled units.
        tolerance, max_iterations: when a restart ends.
        max_rows: more training rows than these are drawn from by seed, and a notice says so; `None` takes all.
        shape, common: see `FittedDetector`; events are flattened.

    Raises:
        DataError: in training, if a covariance cannot be inverted.

    Example:
        >>> gmm = GMM((1,), components=2, scaling="none")
        >>> gmm.fit(torch.tensor([[-9.], [-8.], [8.], [9.]]), torch.zeros(4, 0), torch.ones(4))
        >>> gmm.means[:, 0].sort().values.round(decimals=4)
        tensor([-8.5000,  8.5000], dtype=torch.float64)
    """

    explained_by = "gradients"
    density = True
    sized_by_data = ("weights", "means", "factors")
    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        components: int = 4,
        covariance: Covariance = "full",
        restarts: int = 4,
        regularization: float = 1e-6,
        tolerance: float = 1e-3,
        max_iterations: int = 100,
        max_rows: int | None = 200_000,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        checks.counts("detector", components=components, restarts=restarts, max_iterations=max_iterations)
        checks.one_of("detector", Covariance, covariance=covariance)
        checks.not_negative("detector", regularization=regularization, tolerance=tolerance)
        checks.counts("detector", also="null", max_rows=max_rows)
        self.components, self.covariance, self.restarts = components, covariance, restarts
        self.regularization, self.tolerance, self.max_iterations = regularization, tolerance, max_iterations
        self.max_rows = max_rows
        self.features = math.prod(self.shape)
        for name in self.sized_by_data:
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))

    def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
        rows, weight = self.kept(x.flatten(1)[weight > 0], weight[weight > 0])
        k = min(self.components, len(rows))
        if k < self.components:
            self.notice(f"GMM has {k} rows for detector.components={self.components} and takes as many.")
        squares = 1 if self.covariance == "diag" else self.features
        self.expect(
            4.0 * self.max_iterations * self.restarts * k * len(rows) * self.features * squares,
            "lower detector.max_rows, restarts or components" + ("" if squares == 1 else ", or set covariance=diag"),
        )
        if self._each(k) > self.budget_mb:
            self.notice(
                f"GMM holds covariances of {self._each(k):,.0f} MiB for {k} components of {self.features:,} features, "
                f"above detector.budget_mb={self.budget_mb:g}."
            )
        least = (1e-9 * rows.abs().amax(0)).square()
        if not self.regularization and (rows.double().var(0, correction=0) <= least).any():
            raise DataError("GMM meets a feature that is the same in all rows: raise detector.regularization above 0.")
        weight = weight.double() / weight.double().sum()
        origin = weight @ rows.double()  # the sums below would lose digits far from zero
        best, highest = None, -math.inf
        for some in self._side_by_side(k):
            found, density = self.climb(rows, weight, origin, self._start(rows, weight, origin, k, some))
            density = density.nan_to_num(-math.inf)
            if best is None or float(density.max()) > highest:
                highest, winner = float(density.max()), int(density.argmax())
                best = Mixture(*(part[winner : winner + 1] for part in found))
        assert best is not None
        self.weights, self.means, self.factors = best.weights[0], best.means[0] + origin, best.factors[0]

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        origin = self.means.mean(0)  # about which sums are taken, as in training
        one = Mixture(self.weights[None], self.means[None] - origin, self.factors[None])
        parts = self.in_turns(x.flatten(1), self._numbers(*self.means.shape))
        return torch.cat([-self._joint(part.double() - origin, one).logsumexp(2)[:, 0] for part in parts]).float()

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        chosen = torch.multinomial(self.weights, n, replacement=True)
        white = torch.randn(n, self.features, dtype=torch.float64, device=self.means.device)
        if self.covariance == "diag":
            apart = white / self.factors[chosen]
        else:
            apart, own = torch.empty_like(white), len(self.factors) > 1
            for k in chosen.unique().tolist():
                factor = self.factors[k if own else 0]
                apart[chosen == k] = torch.linalg.solve_triangular(factor, white[chosen == k], upper=True, left=False)
        return self.scaling.inverse((self.means[chosen] + apart).float().view(n, *self.shape))

    def climb(self, rows: Tensor, weight: Tensor, origin: Tensor, start: Mixture) -> tuple[Mixture, Tensor]:
        """Expectation maximisation from a start: the mixtures about the origin and their mean log-densities, `(R,)`."""
        now, density = start, start.weights.new_full((len(start.weights),), -math.inf)
        climbing = torch.arange(len(density), device=density.device)
        for _ in range(self.max_iterations):
            sums, reached = self._round(rows, weight, origin, Mixture(*(part[climbing] for part in now)))
            for part, new in zip(now, self._maximise(*sums), strict=True):
                part[climbing] = new
            risen = (reached - density[climbing]).abs() >= self.tolerance
            density[climbing] = reached
            climbing = climbing[risen]
            if not len(climbing):
                break
        return now, density

    def _round(self, rows: Tensor, weight: Tensor, origin: Tensor, now: Mixture) -> tuple[tuple, Tensor]:
        """Weighted sums over rows of the components' shares, (1, x, x x^T), and the mean log-density, `(R,)`."""
        r, k, d = now.means.shape
        numbers = self._numbers(r * k, d)
        sums: tuple = (0, 0, 0)
        density = weight.new_zeros(r)
        for part, w in zip(self.in_turns(rows, numbers), self.in_turns(weight, numbers), strict=True):
            u = part.double() - origin
            joint = self._joint(u, now)  # (n, R, K)
            log_p = joint.logsumexp(2)
            density = density + w @ log_p
            more = self._shares(u, (joint - log_p[:, :, None]).exp_() * w[:, None, None])
            sums = tuple(a + b for a, b in zip(sums, more, strict=True))
        return sums, density

    def _shares(self, u: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        zeroth, first = share.sum(0), torch.einsum("nrk,nd->rkd", share, u)
        match self.covariance:
            case "full":
                weighted = (share[..., None] * u[:, None, None]).flatten(1)  # (n, RKD)
                second = (weighted.T @ u).view(*first.shape, -1)
            case "diag":
                second = torch.einsum("nrk,nd->rkd", share, u.square())
            case _:
                second = (u * share[:, 0].sum(1, keepdim=True)).T @ u  # the same for all restarts
        return zeroth, first, second

    def _maximise(self, zeroth: Tensor, first: Tensor, second: Tensor) -> Mixture:
        counts = zeroth + 10 * torch.finfo(zeroth.dtype).eps
        means = first / counts[:, :, None]
        match self.covariance:
            case "full":
                covariance = second / counts[:, :, None, None] - means[..., :, None] * means[..., None, :]
            case "diag":
                covariance = (second / counts[:, :, None] - means.square()).clamp_min(0)
            case _:
                covariance = second - torch.einsum("rk,rkd,rke->rde", counts, means, means)
                covariance = (covariance / counts.sum(1)[:, None, None])[:, None]
        return Mixture(counts / counts.sum(1, keepdim=True), means, self.whitening(covariance))

    def whitening(self, covariance: Tensor) -> Tensor:
        """The factors of covariances, to which the regularization is added."""
        if self.covariance == "diag":
            return (covariance + self.regularization).clamp_min(torch.finfo(covariance.dtype).tiny).rsqrt()
        covariance = covariance + self.regularization * torch.eye(covariance.shape[-1]).to(covariance)
        lower, wrong = torch.linalg.cholesky_ex(covariance)
        if wrong.any():
            raise DataError(
                "GMM met a covariance that cannot be inverted: raise detector.regularization, lower "
                "detector.components, or choose another detector.scaling."
            )
        return torch.linalg.solve_triangular(lower, torch.eye(lower.shape[-1]).to(lower), upper=False).mT

    def _joint(self, u: Tensor, now: Mixture) -> Tensor:
        """log w_k + log N(u; m_k, S_k), `(n, D)` to `(n, R, K)`."""
        diagonals = now.factors if self.covariance == "diag" else now.factors.diagonal(dim1=2, dim2=3)
        constant = now.weights.log() + diagonals.log().sum(2) - self.features * math.log(2 * math.pi) / 2
        return constant - mahalanobis(u, now.means, now.factors) / 2

    # the start

    def _start(self, rows: Tensor, weight: Tensor, origin: Tensor, k: int, seeds: range) -> Mixture:
        """The components of rows assigned to k-means++ centres, one set for each seed."""
        centres = torch.stack([self._spread(rows, weight, origin, k, self.seed * 65537 + seed) for seed in seeds])
        sums: tuple = (0, 0, 0)
        numbers = self._numbers(len(seeds) * k, self.features)
        for part, w in zip(self.in_turns(rows, numbers), self.in_turns(weight, numbers), strict=True):
            u = part.double() - origin
            nearest = torch.cdist(u, centres.flatten(0, 1)).view(len(u), len(seeds), k).argmin(2)
            share = torch.nn.functional.one_hot(nearest, k).double() * w[:, None, None]
            sums = tuple(a + b for a, b in zip(sums, self._shares(u, share), strict=True))
        return self._maximise(*sums)

    def _spread(self, rows: Tensor, weight: Tensor, origin: Tensor, k: int, seed: int) -> Tensor:
        """k rows, each drawn in proportion to its squared distance from those before, `(k, D)`."""
        generator = torch.Generator().manual_seed(seed)
        chance, least, chosen = weight, weight.new_full((len(rows),), math.inf), []
        for _ in range(k):
            total = chance.cumsum(0)
            target = torch.rand((), generator=generator, dtype=torch.float64).to(total) * total[-1]
            place = torch.searchsorted(total, target, right=True).clamp_max(len(rows) - 1)
            chosen.append(rows[place].double() - origin)
            parts = self.in_turns(rows, 2 * self.features)
            near = torch.cat([(part.double() - origin - chosen[-1]).square().sum(1) for part in parts])
            least = torch.minimum(least, near)
            chance = weight * least
            if not chance.any():  # fewer different rows than components
                chance = weight
        return torch.stack(chosen)

    def _numbers(self, components: int, features: int) -> int:
        """float64 numbers that one row takes on its way through the components."""
        return components * (features * (1 if self.covariance == "diag" else 2) + 4) + features

    def _each(self, k: int) -> float:
        """Memory in MiB of one restart's covariances on their way through a round."""
        return k * self.features * (5 * self.features if self.covariance == "full" else 8) * 8 / 2**20

    def _side_by_side(self, k: int) -> list[range]:
        """Restarts in sets whose covariances fit the budget together."""
        n = max(1, min(self.restarts, int(self.budget_mb / self._each(k))))
        return [range(start, min(start + n, self.restarts)) for start in range(0, self.restarts, n)]


def mahalanobis(u: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """|(u - m_k) W_k|^2, of rows `(n, D)` and the means and factors of a `Mixture`, to `(n, R, K)`."""
    r, k, d = means.shape
    if factors.ndim == 3:
        inverse, flat = factors.square().flatten(0, 1), means.flatten(0, 1)
        squared = torch.addmm((flat.square() * inverse).sum(1), u, (flat * inverse).T, alpha=-2)
        return squared.addmm(u.square(), inverse.T).view(-1, r, k).clamp_min(0)
    if factors.shape[1] == k:
        side_by_side = factors.flatten(0, 1).transpose(0, 1).flatten(1)  # (D, RKD), for one product
        white = torch.addmm((means[:, :, None] @ factors).flatten(), u, side_by_side, beta=-1)
        return white.view(-1, r, k, d).square_().sum(3)
    white, centres = u @ factors[:, 0], means @ factors[:, 0]
    return (white[:, :, None] - centres[:, None]).square().sum(3).transpose(0, 1)
