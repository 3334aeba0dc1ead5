"""Adversarial autoencoder: a critic makes the latents look as if drawn from a prior."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from straylight import checks
from straylight.detectors.adversarial import Adversarial, frozen
from straylight.detectors.coded import Generates, Rebuilds
from straylight.detectors.parts import Parts
from straylight.nn import mlp
from straylight.rows.batch import Batch

Score = Literal["reconstruction", "critic", "both"]


class AAE(Rebuilds, Generates, Adversarial):
    """Adversarial autoencoder with a standard normal prior on its latents.

    The autoencoder minimises |x - d(e(x))|^2 / D - weight * log C(e(x)), the critic C tells latents from draws of
    N(0, 1). With weight 0 it is an `autoencoder`. Scores:

    * `reconstruction`: |x - d(e(x))|^2 / D;
    * `critic`: -log C(e(x)), how unlike the prior the latent is;
    * `both`: reconstruction + weight * critic, what the autoencoder minimises.

    Both networks take a step on every mini-batch, the autoencoder down the sum of its two losses at once (the paper
    takes the two in turns). Epochs are selected by the reconstruction error.

    Assumes features of comparable scale.

    References:
        A. Makhzani et al., Adversarial autoencoders, arXiv:1511.05644

    Args:
        critic: widths of the critic's hidden layers.
        weight: of the critic in the autoencoder's loss.
        score: one of the three above.
        shape, hidden, latent, channels, activation, common: see `Mirrored`.

    Example:
        >>> AAE((2,), hidden=[8], latent=2)(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        latent: int = 8,
        critic: Sequence[int] = (64, 32),
        weight: float = 0.1,
        score: Score = "reconstruction",
        **common: Any,
    ) -> None:
        super().__init__(shape, latent=latent, **common)
        checks.one_of("detector", Score, score=score)
        checks.not_negative("detector", weight=weight)
        self.critic = mlp((latent, *critic, 1), "leaky_relu")
        self.latent, self.weight, self.scored_by = latent, weight, score
        if score == "reconstruction":
            self.explained_by = "exact"

    def terms(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction error and -log C of events with these latents, each `(B,)`."""
        return (self.decoder(z) - x).square().flatten(1).mean(1), F.softplus(-self.critic(z).squeeze(1))

    def step(self, batch: Batch, optimizer: Any, share: float) -> dict[str, Tensor]:
        with frozen(self.critic):
            z = self.encoder(batch.x)
            reconstruction, unlikely = map(batch.mean, self.terms(batch.x, z))
            self.descend_on(reconstruction + self.weight * unlikely, optimizer, share)
        z = z.detach()
        wrong = F.softplus(-self.critic(torch.randn_like(z)).squeeze(1)).mean()
        discriminator = wrong + batch.mean(F.softplus(self.critic(z).squeeze(1)))
        self.descend_on(discriminator, optimizer, share)
        return {"loss": reconstruction, "generator": unlikely, "discriminator": discriminator}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        reconstruction, unlikely = map(batch.mean, self.terms(batch.x, self.encoder(batch.x)))
        return {"loss": reconstruction, "generator": unlikely}

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        reconstruction, unlikely = self.terms(x, self.encoder(x))
        match self.scored_by:
            case "reconstruction":
                return reconstruction
            case "critic":
                return unlikely
            case _:
                return reconstruction + self.weight * unlikely

    def parts(self, x: Tensor, context: Tensor) -> Parts | None:
        if self.scored_by != "reconstruction":
            return None
        error = (self.reconstruct(x) - x).square()
        return Parts(error / error[0].numel(), 0.0, "rebuilt without an error")
