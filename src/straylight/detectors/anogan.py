"""AnoGAN: an event is strange if no latent makes the generator come close to it.

Shapes: `B` events, `K` starts, `Z` latent dimensions.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from straylight import checks
from straylight.detectors.adversarial import GAN
from straylight.detectors.latent_search import latent_search
from straylight.detectors.parts import Parts
from straylight.rows.batch import Batch

Discrimination = Literal["features", "logit", "discriminator"]
Residual = Literal["absolute", "squared"]

SEARCHED_AT_ONCE = 1024  # events times starts
# Products of fewer rows are added up in another order, and the search would carry the last bit far: a batch is filled
# up to a multiple of this, so that an event scores the same alone and in any batch.
FILLED_UP_TO = 8


class AnoGAN(GAN):
    """Generative adversarial network whose latent space is searched for each event.

    score(x) = min_z R(x, G(z)) + weight * D(x, z), with R the sum of absolute differences over the features, and D by
    `discrimination`:

    * `features`: sum |f(x) - f(G(z))| over the discriminator's last hidden layer;
    * `logit`: -log D(G(z)), how little the discriminator believes what was generated;
    * `discriminator`: no search at all: score(x) = -logit D(x), what the discriminator itself thinks of the event.

    The minimum is searched by Adam for all events of a batch at once, from starts that are stored, so that scoring
    draws no random number. The paper writes (1 - weight) R + weight * D; the order of events is that of weight /
    (1 - weight) here.

    Assumes features of comparable scale. Costly: `steps` passes through both networks and back per event.

    References:
        T. Schlegl et al., Unsupervised anomaly detection with generative adversarial networks to guide marker
        discovery, IPMI 2017, arXiv:1703.05921
        I. Goodfellow et al., Generative adversarial nets, NeurIPS 2014, arXiv:1406.2661 (the non-saturating loss)

    Args:
        shape: the shape of one event; it is flattened.
        weight: of the discrimination, lambda / (1 - lambda) in the paper.
        discrimination: see above.
        residual: `absolute` or `squared` differences.
        steps: of the search.
        lr: of the search.
        starts: K; a search goes from each, the best is kept.
        common: `latent`, `generator`, `discriminator`, `activation`, see `GAN`; and those of `Detector`.

    Example:
        >>> gan = AnoGAN((2,), latent=2, generator=[8], discriminator=[8], steps=10)
        >>> gan(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    selects = False  # an adversarial loss does not tell a good epoch from a bad one
    tries_score = False
    searches = True
    starts: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        weight: float = 0.1,
        discrimination: Discrimination = "features",
        residual: Residual = "absolute",
        steps: int = 500,
        lr: float = 1e-2,
        starts: int = 1,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        checks.not_negative("detector", weight=weight)
        if min(steps, starts) < 1 or not lr > 0:
            raise ValueError(f"detector.steps, lr and starts must be positive, not {steps}, {lr} and {starts}")
        checks.one_of("detector", Discrimination, discrimination=discrimination)
        checks.one_of("detector", Residual, residual=residual)
        self.weight, self.discrimination, self.residual = weight, discrimination, residual
        self.steps, self.lr = steps, lr
        if discrimination != "discriminator":
            self.explained_by = "exact"
        self.register_buffer("starts", self.draw(starts))
        if discrimination != "discriminator":
            self.rows_at_once = max(1, SEARCHED_AT_ONCE // starts)

    def draw(self, n: int) -> Tensor:
        """Latents drawn from the prior, uniform between -1 and 1, `(n, Z)`."""
        return torch.empty(n, self.latent, device=self.device).uniform_(-1, 1)

    def step(self, batch: Batch, optimizer: Any, share: float) -> dict[str, Tensor]:
        return self.play(batch, optimizer, share)

    def distance(self, x: Tensor, features: Tensor, z: Tensor) -> Tensor:
        """R + weight * D of scaled events `(B, *shape)` with features `(B, F)` at latents `(K, B, Z)`, `(K, B)`."""
        k, b, _ = z.shape
        made = self.generator(z.flatten(0, 1))
        distance = self._error(made.view(k, *x.shape), x).flatten(2).sum(2)
        if not self.weight:
            return distance
        seen = self.features(made)
        if self.discrimination == "logit":
            return distance + self.weight * F.softplus(-self.head(seen)).view(k, b)
        return distance + self.weight * (seen.unflatten(0, (k, b)) - features).abs().sum(2)

    def _error(self, made: Tensor, x: Tensor) -> Tensor:
        difference = made - x
        return difference.abs() if self.residual == "absolute" else difference.square()

    def parts(self, x: Tensor, context: Tensor) -> Parts | None:
        if self.discrimination == "discriminator":
            return None
        z, distance = self.search(x)
        error = self._error(self.generator(z), x)
        seen = distance - error.flatten(1).sum(1)
        return Parts(error, seen, "made without an error, whatever the discriminator says of it")

    def search(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest latents of scaled events, `(B, Z)`, and their distances, `(B,)`."""
        b = len(x)
        with torch.inference_mode(False), torch.no_grad():
            x = torch.cat([x, x[:1].expand(-b % FILLED_UP_TO, *self.shape)])  # a copy also where there is none to add
            features = self.features(x)
        z, distance = latent_search(
            lambda z: self.distance(x, features, z), self.starts, len(x), steps=self.steps, lr=self.lr, bound=1.0
        )
        return z[:b], distance[:b]

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        if self.discrimination == "discriminator":
            return -self.discriminate(x)
        return self.search(x)[1]
