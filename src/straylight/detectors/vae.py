"""Variational autoencoder: a latent-variable density, scored without drawing a random number.

Shapes: `B` events, `Z` latent dimensions, `D` features, `K` samples.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from straylight import checks
from straylight.detectors.coded import Generates, Rebuilds
from straylight.detectors.parts import Parts
from straylight.rows.batch import Batch

Score = Literal["elbo", "log_likelihood", "reconstruction", "kl", "mu2", "rz"]
Likelihood = Literal["gaussian", "bernoulli"]

AT_ONCE = 16384  # events times samples that are decoded together


class VAE(Rebuilds, Generates):
    """Variational autoencoder with a diagonal Gaussian encoder and a Gaussian or Bernoulli decoder.

    It is trained on -log p(x | z) + beta KL(q(z | x) || N(0, 1)) with z drawn from q(z | x) = N(mu, sigma^2). Scores
    draw nothing: they put z = mu, or z = mu + sigma e with the same stored noise e for every event.

    * `elbo`: -log p(x | mu) + KL, the negative evidence lower bound in nats with z at its mean, whatever beta was;
    * `log_likelihood`: -log mean_e p(x | z) p(z) / q(z | x), importance-sampled; a tighter bound on the negative
      log-likelihood, reached as the samples grow;
    * `reconstruction`: -log p(x | mu);
    * `kl`: the divergence of q(z | x) from the prior;
    * `mu2`: |mu|^2, which needs the encoder alone and is the cheapest in a trigger;
    * `rz`: sum of mu^2 / sigma^2, likewise.

    The Gaussian likelihood has one stated variance, in squared units of the scaled features: it fixes how much a
    reconstruction error counts against the divergence. The Bernoulli likelihood needs features between 0 and 1
    (`scaling="minmax"`); what lies outside is held against the nearer bound, and its distance added.

    References:
        D. P. Kingma, M. Welling, Auto-encoding variational Bayes, ICLR 2014, arXiv:1312.6114
        I. Higgins et al., beta-VAE, ICLR 2017
        C. K. Soenderby et al., Ladder variational autoencoders, NeurIPS 2016, arXiv:1602.02282 (the warm-up)
        Y. Burda, R. Grosse, R. Salakhutdinov, Importance weighted autoencoders, ICLR 2016, arXiv:1509.00519
        O. Cerri et al., Variational autoencoders for new physics mining at the LHC, JHEP 05 (2019) 036,
        arXiv:1811.10276
        E. Govorkova et al., Autoencoders on FPGAs for real-time, unsupervised new physics detection at 40 MHz, Nat.
        Mach. Intell. 4 (2022) 154, arXiv:2108.03986 (the scores `mu2` and `rz`)
        F. Chollet, Variational AutoEncoder, https://keras.io/examples/generative/vae/ (the convolutional pair)

    Args:
        hidden, latent: `[32, 32]` and 2 on two features are the 2-32-32-2 of the tutorial on blobs.
        channels: `[32, 64]` with `hidden=[16]` is the Keras pair for 28 x 28 pixels.
        likelihood: `gaussian` or `bernoulli`.
        variance: of the Gaussian likelihood, in squared scaled units.
        beta: weight of the divergence in training.
        beta_warmup: the fraction of all steps over which beta rises linearly from zero, between 0 and 1.
        score: one of the six above.
        samples: of the score `log_likelihood`.
        shape, hidden, latent, channels, activation, common: see `Mirrored`.

    Example:
        >>> VAE((2,), hidden=[32, 32], latent=2)(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    rowwise = True
    per_latent = 2
    noise: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        latent: int = 8,
        likelihood: Likelihood = "gaussian",
        variance: float = 0.1,
        beta: float = 1.0,
        beta_warmup: float = 0.0,
        score: Score = "elbo",
        samples: int = 64,
        **common: Any,
    ) -> None:
        super().__init__(shape, latent=latent, **common)
        checks.one_of("detector", Score, score=score)
        checks.one_of("detector", Likelihood, likelihood=likelihood)
        if likelihood == "bernoulli":
            self.needs_bounds("detector.likelihood=bernoulli")
        checks.positive("detector", variance=variance)
        checks.not_negative("detector", beta=beta)
        checks.between("detector", 0, 1, beta_warmup=beta_warmup)
        checks.counts("detector", samples=samples)
        self.latent = latent
        self.likelihood, self.variance, self.scored_by = likelihood, variance, score
        self.beta, self.beta_warmup = beta, beta_warmup
        if score == "reconstruction":
            self.explained_by = "exact"
        if score == "log_likelihood":
            self.register_buffer("noise", torch.randn(samples, latent))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each `(B, Z)`, of scaled events `(B, *shape)`."""
        mu, log_variance = self.encoder(x).chunk(2, dim=1)
        # a variance beyond e^+-15 is an accident of an untrained or far-off row; unbounded it overflows
        return mu, log_variance.clamp(-15, 15)

    def code(self, x: Tensor) -> Tensor:  # the mean of q(z | x)
        return self.encode(x)[0]

    def made(self, z: Tensor) -> Tensor:
        out = self.decoder(z)
        return out.sigmoid() if self.likelihood == "bernoulli" else out

    def nll(self, x: Tensor, z: Tensor) -> Tensor:
        """-log p(x | z) in nats, `(B,)`."""
        x, out = x.flatten(1), self.decoder(z).flatten(1)
        if self.likelihood == "bernoulli":
            return self._cross_entropy(x, out).sum(1)
        return ((x - out).square() / self.variance + math.log(2 * math.pi * self.variance)).sum(1) / 2

    @staticmethod
    def _cross_entropy(x: Tensor, out: Tensor) -> Tensor:
        inside = x.clamp(0, 1)
        return F.binary_cross_entropy_with_logits(out, inside, reduction="none") + (x - inside).abs()

    def parts(self, x: Tensor, context: Tensor) -> Parts | None:
        if self.scored_by != "reconstruction":
            return None
        flat, out = x.flatten(1), self.decoder(self.code(x)).flatten(1)
        if self.likelihood == "bernoulli":
            return Parts(self._cross_entropy(flat, out).view(x.shape), 0.0, "as certain as can be")
        error = (flat - out).square() / (2 * self.variance)
        constant = flat.shape[1] * math.log(2 * math.pi * self.variance) / 2
        return Parts(error.view(x.shape), constant, "rebuilt without an error")

    @staticmethod
    def divergence(mu: Tensor, log_variance: Tensor) -> Tensor:
        """KL(N(mu, sigma^2) || N(0, 1)) in nats, `(B,)`."""
        return (mu.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2

    def log_weights(self, x: Tensor, noise: Tensor) -> Tensor:
        """log p(x | z) p(z) / q(z | x) at z = mu + sigma e, for each e in the noise, `(K, Z)`, to `(K, B)`.

        Their mean over draws is the evidence lower bound, the log of the mean of their exponentials the
        importance-weighted one.
        """
        mu, log_variance = self.encode(x)
        sigma, parts = (log_variance / 2).exp(), []
        for e in noise.split(max(1, AT_ONCE // max(1, len(x)))):
            z = mu[:, None] + sigma[:, None] * e
            # the samples of a row stay together, as stacked networks need them
            nll = self.nll(x.repeat_interleave(len(e), 0), z.flatten(0, 1)).view(len(x), len(e))
            prior_over_posterior = (e.square() - z.square() + log_variance[:, None]).sum(2) / 2
            parts.append(prior_over_posterior - nll)
        return torch.cat(parts, 1).T

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        mu, log_variance = self.encode(batch.x)
        z = mu + (log_variance / 2).exp() * torch.randn_like(mu)
        nll = batch.mean(self.nll(batch.x, z))
        kl = batch.mean(self.divergence(mu, log_variance))
        return {"loss": nll + self.beta_now() * kl, "reconstruction": nll, "kl": kl}

    def beta_now(self) -> float:
        """The weight of the divergence at this step; in validation that of the end, so that epochs can be compared."""
        if not (self.beta_warmup and self.training):
            return self.beta
        return self.beta * min(1.0, self.steps_taken / (self.beta_warmup * self.total_steps()))

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        if self.scored_by == "log_likelihood":
            return math.log(len(self.noise)) - self.log_weights(x, self.noise).logsumexp(0)
        mu, log_variance = self.encode(x)
        match self.scored_by:
            case "mu2":
                return mu.square().sum(1)
            case "rz":
                return (mu.square() * (-log_variance).exp()).sum(1)
            case "kl":
                return self.divergence(mu, log_variance)
            case "reconstruction":
                return self.nll(x, mu)
            case _:
                return self.nll(x, mu) + self.divergence(mu, log_variance)
