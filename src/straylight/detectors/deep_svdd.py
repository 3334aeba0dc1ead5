"""Deep support vector data description: a network that gathers nominal events around a point.

Shapes: `B` events, `Z` latent dimensions.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from straylight.detectors.coded import Mirrored
from straylight.detectors.phased import Phased
from straylight.nn.mlp import Activation
from straylight.nn.normalization import Normalization, follow, measure, weighted
from straylight.nn.scaling import pixels
from straylight.rows.batch import Batch

Boundary = Literal["hard", "soft"]

CLOSE = 0.1  # a coordinate of the centre nearer to zero than this could be matched by zero weights
COLLAPSED = 1e-3  # the spread of what the network makes, in units of the centre's norm
LOOKS = 8  # mini-batches from one look at that spread to the next


class DeepSVDD(Mirrored, Phased):
    """One-class deep SVDD, and with a soft boundary soft-boundary deep SVDD.

    score(x) = |e(x) - c|^2, less the squared radius R^2 if the boundary is soft. In phase `autoencoder` e is trained as
    an encoder; the centre c is the mean of what it then makes of the training events; in phase `svdd` it minimises

    * `hard`: the mean of |e(x) - c|^2;
    * `soft`: R^2 + mean max(0, |e(x) - c|^2 - R^2) / nu, with R^2 the 1 - nu quantile of the distances in the
      mini-batch, so that a fraction nu of the events lies outside.

    The network has no bias terms and an unbounded activation, or else it could map all events to the centre. If it
    does so nevertheless, that is said in words. With leaky ReLUs and without normalization such a network is positively
    homogeneous, e(0) = 0 and e(3x) = 3 e(x). Hidden units may be normalized over mini-batches, as in the paper's
    networks, and by running means when events are scored: on tables that is better over sets of them, on images
    (`digits_contaminated`) it is much worse.

    Assumes features of comparable scale; images of `gcn_l1` scaling in the paper.

    References:
        L. Ruff et al., Deep one-class classification, ICML 2018, PMLR 80:4393

    Args:
        activation: between the layers; one without bounds.
        boundary: `hard` or `soft`.
        normalization: of hidden units, `batch` or `none`, see `straylight.nn.normalization`; `None` is `none` for
            images and `batch` for all else.
        nu: the fraction of training events that may lie outside a soft boundary, between 0 and 1.
        phases: shares of the training of `autoencoder` and `svdd`, see `Phased`.
        shape, hidden, latent, channels, common: see `Mirrored`.

    Raises:
        ValueError: if a width is not positive, a name unknown, nu out of range, or the activation bounded.

    Example:
        >>> DeepSVDD((2,), hidden=[8], latent=2)(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    bias = False
    shares = {"autoencoder": 1, "svdd": 1}
    centre: Tensor
    radius2: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        latent: int = 8,
        activation: Activation = "leaky_relu",
        boundary: Boundary = "hard",
        nu: float = 0.1,
        normalization: Normalization | None = None,
        **common: Any,
    ) -> None:
        images = pixels(tuple(shape)) and common.get("reduce") is None
        self.normalization = normalization or ("none" if images else "batch")
        super().__init__(shape, latent=latent, activation=activation, **common)
        if boundary not in Boundary.__args__ or not 0 < nu < 1:  # type: ignore[attr-defined]
            raise ValueError(
                f"detector.boundary must be hard or soft and nu between 0 and 1, not {boundary!r} and {nu}"
            )
        if activation in ("sigmoid", "tanh"):
            raise ValueError(f"detector.activation must be unbounded, not {activation!r}: a saturated unit is a bias")
        self.boundary, self.nu = boundary, nu
        self.register_buffer("centre", torch.ones(latent))
        self.register_buffer("radius2", torch.zeros(()))

    @torch.no_grad()
    def begin(self, phase: str) -> None:
        if phase != "svdd":
            return
        if self.normalization == "batch":
            measure(self.encoder)
            for _ in self._made():  # in training mode
                pass
            follow(self.encoder)
        total, rows = torch.zeros_like(self.centre, dtype=torch.double), 0.0
        self.encoder.eval()
        for made, weight in self._made():
            total += weight.to(made) @ made
            rows += float(weight.sum())
        self.encoder.train()
        centre = (total / rows).to(self.centre.dtype)
        # a coordinate near zero can be matched trivially by zero weights
        self.centre.copy_(torch.where(centre.abs() < CLOSE, torch.where(centre < 0, -CLOSE, CLOSE), centre))

    def _made(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What the encoder makes of the training rows, and their weights, `(n, Z)` float64 and `(n,)` at a time."""
        for chunk, weights in self.training_rows():
            for x, weight in zip(chunk.split(self.rows_at_once), weights.split(self.rows_at_once), strict=True):
                counted = None if weight.stride(0) == 0 else weight.to(self.device)
                with weighted(self.encoder, counted):
                    made = self.encoder(self.scaling(x.to(self.device))).double()
                yield made, weight

    def step_in(self, phase: str, batch: Batch, optimizer: Any, share: float) -> dict[str, Tensor]:
        with weighted(self, None if batch.even else batch.weight):
            return self._step_in(phase, batch, optimizer, share)

    def _step_in(self, phase: str, batch: Batch, optimizer: Any, share: float) -> dict[str, Tensor]:
        if phase == "autoencoder":
            error = (self.decoder(self.encoder(batch.x)) - batch.x).square().flatten(1).mean(1)
            losses = {"autoencoder": batch.mean(error)}
            self.descend_on(losses["autoencoder"], optimizer, share)
            return losses
        z = self.encoder(batch.x)
        distance = (z - self.centre).square().sum(1)
        if self.boundary == "soft":
            self.radius2.copy_(self.quantile(batch, distance.detach().float()))
        loss = self.objective(batch, distance)
        self.descend_on(loss, optimizer, share)
        losses = {"loss": loss}
        if not self.steps_taken % LOOKS:
            losses["spread"] = z.detach().var(0, correction=0).sum().sqrt() / self.centre.norm()
        return losses

    def quantile(self, batch: Batch, distance: Tensor) -> Tensor:
        """The distance that a fraction nu of the events, by weight, exceeds."""
        if batch.even:
            return distance.quantile(1 - self.nu)
        distance, order = distance.sort()
        reached = batch.weight[order].cumsum(0)
        return distance[torch.searchsorted(reached, (1 - self.nu) * reached[-1]).clamp(max=len(distance) - 1)]

    def objective(self, batch: Batch, distance: Tensor) -> Tensor:
        """What phase `svdd` minimises, of squared distances `(B,)`."""
        if self.boundary == "hard":
            return batch.mean(distance)
        return self.radius2 + batch.mean((distance - self.radius2).clamp(min=0)) / self.nu

    def loss(self, batch: Batch) -> Tensor:
        return self.objective(batch, (self.encoder(batch.x) - self.centre).square().sum(1))

    def watch(self, means: dict[str, float]) -> None:
        if means.get("spread", COLLAPSED) < COLLAPSED:
            self.warn(
                "collapsed",
                f"The network of {type(self).__name__} has collapsed: it maps all events to nearly one point, and its "
                "scores say next to nothing. Lower optimizer.lr, give phase autoencoder a larger share, or choose "
                "another detector.scaling.",
            )

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        distance = (self.encoder(x) - self.centre).square().sum(1)
        return distance if self.boundary == "hard" else distance - self.radius2
