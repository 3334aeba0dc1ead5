"""f-AnoGAN: a generator, and an encoder that finds its latent in one pass."""

from typing import Any

import torch
from torch import Tensor

from straylight import checks
from straylight.detectors.adversarial import GAN, frozen
from straylight.detectors.coded import Encodes
from straylight.detectors.parts import Parts
from straylight.detectors.phased import Phased
from straylight.nn import encoder
from straylight.rows.batch import Batch


class FAnoGAN(Encodes, Phased, GAN):
    """Wasserstein GAN with gradient penalty, then an encoder trained to invert its generator.

    score(x) = |x - G(E(x))|^2 / D + kappa |f(x) - f(G(E(x)))|^2 / F, with f the F activations of the critic's last
    hidden layer; the encoder is trained on the same (izi_f in the paper). In phase `gan` the critic takes a step on
    every mini-batch and the generator on every `critic_steps`-th; in phase `encoder` both stay as they are.

    Assumes features of comparable scale. As quick to score with as an autoencoder and a classifier together.

    References:
        T. Schlegl et al., f-AnoGAN: fast unsupervised anomaly detection with generative adversarial networks, Med.
        Image Anal. 54 (2019) 30, doi:10.1016/j.media.2019.01.010
        I. Gulrajani et al., Improved training of Wasserstein GANs, NeurIPS 2017, arXiv:1704.00028

    Args:
        shape: the shape of one event; it is flattened.
        kappa: weight of the critic's features.
        penalty: weight of the gradient penalty.
        critic_steps: mini-batches per step of the generator.
        phases: shares of the training of `gan` and `encoder`, see `Phased`.
        common: `latent`, `generator`, `discriminator`, `activation`, see `GAN`; the encoder mirrors the generator; and
            those of `Detector`.

    Example:
        >>> FAnoGAN((2,), latent=2, generator=[8], discriminator=[8])(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    shares = {"gan": 2, "encoder": 1}
    eager = ("features", "head")  # the gradient penalty is differentiated twice, which compiled networks do not allow

    def __init__(
        self, shape: tuple[int, ...], *, kappa: float = 1.0, penalty: float = 10.0, critic_steps: int = 5, **common: Any
    ) -> None:
        super().__init__(shape, **common)
        checks.not_negative("detector", kappa=kappa, penalty=penalty)
        checks.counts("detector", critic_steps=critic_steps)
        self.kappa, self.penalty, self.critic_steps = kappa, penalty, critic_steps
        if not kappa:
            self.explained_by = "exact"
        self.head.register_parameter("bias", None)  # a constant cancels in the loss
        self.encoder = encoder(self.shape, self.latent, hidden=self.hidden[::-1], activation=self.activation)

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        """The Wasserstein distance's negative, E[D(G(z))] - E[D(x)], and the penalty on gradient norms off 1."""
        part = torch.rand(len(fake), *[1] * (fake.ndim - 1), device=fake.device)
        between = torch.lerp(fake.to(batch.x.dtype), batch.x, part).requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.discriminate(between).sum(), between, create_graph=True)
        penalty = (gradient.flatten(1).square().sum(1) + 1e-12).sqrt().sub(1).square()
        return self.discriminate(fake).mean() + batch.mean(self.penalty * penalty - self.discriminate(batch.x))

    def generator_loss(self, fake: Tensor) -> Tensor:
        return -self.discriminate(fake).mean()

    def step_in(self, phase: str, batch: Batch, optimizer: Any, share: float) -> dict[str, Tensor]:
        if phase == "gan":
            turn = self.steps_taken % self.critic_steps == self.critic_steps - 1
            losses = self.play(batch, optimizer, share, generator=turn)
            # a Wasserstein critic's loss is a distance, which nobody wins
            return {"critic" if name == "discriminator" else name: loss for name, loss in losses.items()}
        self.features.eval()  # what it leaves out in training would tell an event from its own copy
        with frozen(self.generator, self.features):
            losses = self.losses(batch)
            self.descend_on(losses["loss"], optimizer, share)
        self.features.train()
        return losses

    def loss(self, batch: Batch) -> Tensor:
        return batch.mean(self.score(batch.x, batch.context))

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        made = self.generator(self.encoder(x))
        residual = (x - made).square().flatten(1).mean(1)
        if not self.kappa:
            return residual
        return residual + self.kappa * (self.features(x) - self.features(made)).square().mean(1)

    def parts(self, x: Tensor, context: Tensor) -> Parts | None:
        if self.kappa:
            return None
        error = (x - self.generator(self.encoder(x))).square()
        return Parts(error / error[0].numel(), 0.0, "rebuilt without an error")
