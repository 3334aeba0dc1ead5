"""Variational autoencoder: a latent-variable density, scored without drawing a random number.

Shapes: `B` events, `Z` latent dimensions, `D` features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from straylight.batch import Batch
from straylight.detectors.base import Detector
from straylight.nn.mlp import Activation, mlp

Score = Literal["elbo", "reconstruction", "kl", "mu2"]
Likelihood = Literal["gaussian", "bernoulli"]


class VAE(Detector):
    """Variational autoencoder with a diagonal Gaussian encoder and a Gaussian or Bernoulli decoder.

    It is trained on -log p(x | z) + beta KL(q(z | x) || N(0, 1)) with z drawn from q(z | x) = N(mu, sigma^2). Scores
    put z = mu, so that they are deterministic:

    * `elbo`: -log p(x | mu) + KL, the negative evidence lower bound in nats, whatever beta was;
    * `reconstruction`: -log p(x | mu);
    * `kl`: the divergence of q(z | x) from the prior;
    * `mu2`: |mu|^2, which needs the encoder alone and is the cheapest in a trigger.

    The Gaussian likelihood has one stated variance, in squared units of the scaled features: it fixes how much a
    reconstruction error counts against the divergence. The Bernoulli likelihood needs features between 0 and 1
    (`scaling="minmax"`); what lies outside is held against the nearer bound, and its distance added.

    References:
        D. P. Kingma, M. Welling, Auto-encoding variational Bayes, ICLR 2014, arXiv:1312.6114
        I. Higgins et al., beta-VAE, ICLR 2017
        O. Cerri et al., Variational autoencoders for new physics mining at the LHC, JHEP 05 (2019) 036,
        arXiv:1811.10276
        E. Govorkova et al., Autoencoders on FPGAs for real-time, unsupervised new physics detection at 40 MHz, Nat.
        Mach. Intell. 4 (2022) 154, arXiv:2108.03986 (the score `mu2`)

    Args:
        shape: the shape of one event; it is flattened to D features.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them. `[32, 32]` with `latent=2` on two
            features is the 2-32-32-2 of the tutorial on blobs.
        latent: Z.
        activation: between the layers.
        likelihood: `gaussian` or `bernoulli`.
        variance: of the Gaussian likelihood, in squared scaled units.
        beta: weight of the divergence in training.
        score: one of the four above.
        common: `context`, `scaling`, `optimizer`, see `Detector`.

    Raises:
        ValueError: if a width or the variance is not positive, or a name is unknown.

    Example:
        >>> VAE((2,), hidden=[32, 32], latent=2)(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        hidden: Sequence[int] = (64, 32),
        latent: int = 8,
        activation: Activation = "relu",
        likelihood: Likelihood = "gaussian",
        variance: float = 0.1,
        beta: float = 1.0,
        score: Score = "elbo",
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        if score not in Score.__args__:  # type: ignore[attr-defined]
            raise ValueError(f"detector.score must be one of {', '.join(Score.__args__)}, not {score!r}")  # type: ignore[attr-defined]
        if likelihood not in Likelihood.__args__:  # type: ignore[attr-defined]
            raise ValueError(f"detector.likelihood must be gaussian or bernoulli, not {likelihood!r}")
        if not variance > 0 or not beta >= 0:
            raise ValueError(f"detector.variance must be positive and beta not negative, not {variance} and {beta}")
        widths = (math.prod(self.shape), *hidden)
        self.encoder = nn.Sequential(mlp((*widths, 2 * latent), activation))
        self.decoder = mlp((latent, *widths[::-1]), activation)
        self.likelihood, self.variance, self.beta, self.scored_by = likelihood, variance, beta, score

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each `(B, Z)`, of scaled events `(B, *shape)`."""
        mu, log_variance = self.encoder(x.flatten(1)).chunk(2, dim=1)
        # a variance beyond e^+-15 is an accident of an untrained or far-off row; unbounded it overflows
        return mu, log_variance.clamp(-15, 15)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Scaled events through the mean of their latent and back, `(B, *shape)` to `(B, *shape)`."""
        out = self.decoder(self.encode(x)[0])
        return (out.sigmoid() if self.likelihood == "bernoulli" else out).view_as(x)

    def nll(self, x: Tensor, z: Tensor) -> Tensor:
        """-log p(x | z) in nats, `(B,)`."""
        x, out = x.flatten(1), self.decoder(z)
        if self.likelihood == "bernoulli":
            inside = x.clamp(0, 1)
            nats = F.binary_cross_entropy_with_logits(out, inside, reduction="none") + (x - inside).abs()
            return nats.sum(1)
        return ((x - out).square() / self.variance + math.log(2 * math.pi * self.variance)).sum(1) / 2

    @staticmethod
    def divergence(mu: Tensor, log_variance: Tensor) -> Tensor:
        """KL(N(mu, sigma^2) || N(0, 1)) in nats, `(B,)`."""
        return (mu.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        mu, log_variance = self.encode(batch.x)
        z = mu + (log_variance / 2).exp() * torch.randn_like(mu)
        nll = batch.mean(self.nll(batch.x, z))
        kl = batch.mean(self.divergence(mu, log_variance))
        return {"loss": nll + self.beta * kl, "reconstruction": nll, "kl": kl}

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        mu, log_variance = self.encode(x)
        match self.scored_by:
            case "mu2":
                return mu.square().sum(1)
            case "kl":
                return self.divergence(mu, log_variance)
            case "reconstruction":
                return self.nll(x, mu)
            case _:
                return self.nll(x, mu) + self.divergence(mu, log_variance)
