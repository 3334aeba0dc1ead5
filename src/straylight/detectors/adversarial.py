"""What detectors with two networks that play against each other share."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from straylight import checks
from straylight.detectors.base import Detector
from straylight.detectors.coded import Generates
from straylight.nn import decoder, mlp
from straylight.nn.mlp import Activation
from straylight.rows.batch import Batch

WON = 0.02  # loss of a discriminator that is right about 99 events in 100
COLLAPSED = 0.05  # how far generated events are spread out, in units of the real ones' spread


class Adversarial(Detector):
    """A detector two of whose networks play against each other: their losses are logged apart and watched.

    Two things that go wrong are said in words, once each: a discriminator that has won, from which nothing is learned
    any more, by its loss, logged as `discriminator`; and a generator that makes one event only, by `diversity`.
    """

    alternates = True
    #: What to do about either.
    remedy = "Lower optimizer.lr, or the discriminator's widths."
    _was_diverse = False

    def watch(self, means: dict[str, float]) -> None:
        if means.get("discriminator", WON) < WON:
            self.warn(
                "won",
                f"The discriminator of {type(self).__name__} has won: its loss is {means['discriminator']:.2g}, and "
                f"the other network learns next to nothing from it. {self.remedy}",
            )
        diversity = means.get("diversity", COLLAPSED)
        # a generator that has hardly been trained makes much the same of all latents
        self._was_diverse |= diversity > 2 * COLLAPSED
        if diversity < COLLAPSED and (self._was_diverse or (self.done or 0) > 0.5):
            self.warn(
                "collapsed",
                f"The generator of {type(self).__name__} has collapsed: what it makes is spread out by "
                f"{diversity:.2g} of what real events are. {self.remedy}",
            )


class GAN(Generates, Adversarial):
    """A generator and a discriminator of events, dense.

    The generator's output has the range of the scaled events: 0 to 1 where the scaling says so, unbounded otherwise.

    Args:
        shape: the shape of one event; it is flattened.
        latent: Z, numbers that the generator makes an event of.
        generator: widths of its hidden layers.
        discriminator: widths of its hidden layers.
        activation: between the layers.
        dropout: the fraction of the discriminator's hidden units that are left out at a time while training.
        noise: standard deviation of what is added to real and generated events, scaled, before the discriminator sees
            them while training; keeps it from winning (M. Arjovsky, L. Bottou, ICLR 2017, arXiv:1701.04862).
        common: `context`, `scaling`, `optimizer`, see `Detector`.

    Raises:
        ValueError: if a width is not positive, the dropout out of range, the noise negative, or the discriminator
            without a hidden layer.
    """

    remedy = "Raise detector.noise or detector.dropout, or lower optimizer.lr."

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        latent: int = 100,
        generator: Sequence[int] = (128, 256, 512),
        discriminator: Sequence[int] = (512, 256),
        activation: Activation = "leaky_relu_0.2",
        dropout: float = 0.0,
        noise: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(shape, **common)
        if not discriminator:
            raise ValueError("detector.discriminator needs a hidden layer, whose activations are its features")
        checks.not_negative("detector", noise=noise)
        self.noise = noise
        self.latent, self.hidden, self.activation = latent, tuple(generator), activation
        self.generator = nn.Sequential(
            *decoder(self.shape, latent, hidden=self.hidden[::-1], activation=activation),
            *([nn.Sigmoid()] if self.scaling.bounded else []),
        )
        *features, head = mlp((math.prod(self.shape), *discriminator, 1), activation, dropout=dropout)
        self.features = nn.Sequential(nn.Flatten(), *features)
        self.head = head

    def made(self, z: Tensor) -> Tensor:
        return self.generator(z)

    def noisy(self, x: Tensor) -> Tensor:
        """Scaled events with noise on them, as the discriminator is shown them."""
        return x + self.noise * torch.randn_like(x) if self.noise else x

    def discriminate(self, x: Tensor) -> Tensor:
        """Logit of an event's being real, `(B, *shape)` to `(B,)`."""
        return self.head(self.features(x)).squeeze(1)

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        """What the discriminator minimises: -log D(x) - log(1 - D(G(z)))."""
        return batch.mean(F.softplus(-self.discriminate(batch.x))) + F.softplus(self.discriminate(fake)).mean()

    def generator_loss(self, fake: Tensor) -> Tensor:
        """What the generator minimises, non-saturating: -log D(G(z))."""
        return F.softplus(-self.discriminate(fake)).mean()

    def play(self, batch: Batch, optimizer: Any, share: float, *, generator: bool = True) -> dict[str, Tensor]:
        """A step of the discriminator, and one of the generator unless it is not its turn."""
        with torch.set_grad_enabled(generator):
            fake = self.generator(self.draw(len(batch.x)))
        shown = batch._replace(x=self.noisy(batch.x))
        losses = {"discriminator": self.discriminator_loss(shown, self.noisy(fake.detach()))}
        self.descend_on(losses["discriminator"], optimizer, share)
        if generator:
            with frozen(self.features, self.head):
                losses["generator"] = self.generator_loss(self.noisy(fake))
                self.descend_on(losses["generator"], optimizer, share)
        losses["diversity"] = spread(fake.detach()) / spread(batch.x).clamp(min=1e-12)
        return losses


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Networks that gradients go through and not into."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


def spread(x: Tensor) -> Tensor:
    """Root mean variance of the features of a batch, `(B, *shape)` to a scalar."""
    return x.flatten(1).var(0, correction=0).mean().sqrt()
