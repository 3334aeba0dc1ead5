"""Training each detector through `straylight` against its bare PyTorch loop, and an ensemble against one detector.

    python tests/benchmarks/detectors.py [--rows 32768] [--epochs 6] [--rounds 7] [--only NAME ...]

Rows of 57 features (28 x 28 pixels where a detector takes images), batch 256, six epochs, so that what a Trainer
costs once counts little. The bare loops are what one would write by hand: a permutation, a gathered mini-batch, losses,
`backward`, a fused Adam for each network that takes turns. Phases are compared one by one. Scaling is left out of both.
The last line is the ensemble's ratio: eight autoencoders at batch 128 against one, in wall time on two threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from interleaved import compare
from straylight.data import AnomalyDataModule
from straylight.detectors import (
    AAE,
    MAF,
    NSF,
    RBM,
    VAE,
    AnoGAN,
    AutoEncoder,
    DeepSVDD,
    Detector,
    Ensemble,
    FAnoGAN,
    RealNVP,
)
from straylight.job.train import quiet
from straylight.rows.batch import Events, Splits

Step = Callable[[Tensor], None]


class Rows(AnomalyDataModule):
    def __init__(self, x: Tensor, batch_size: int) -> None:
        super().__init__(batch_size=batch_size, contamination=None)
        self.x = x

    def load(self) -> Splits:
        test = Events.of(self.x[:2], [0, 1])
        return Splits(Events.of(self.x), Events.of(self.x[:0]), test, test.take([]))


def adam(*networks: Any) -> torch.optim.Adam:
    parameters = [p for n in networks for p in ([n] if isinstance(n, torch.nn.Parameter) else n.parameters())]
    return torch.optim.Adam(parameters, lr=1e-4, fused=True)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def autoencoder(d: AutoEncoder) -> Step:
    optimizer = adam(d)
    return lambda x: descend(optimizer, F.mse_loss(d.decoder(d.encoder(x)), x))


def vae(d: VAE) -> Step:
    optimizer = adam(d)

    def step(x: Tensor) -> None:
        mu, log_variance = d.encoder(x).chunk(2, 1)
        z = mu + (log_variance / 2).exp() * torch.randn_like(mu)
        nll = (x - d.decoder(z)).square().flatten(1).sum(1) / (2 * d.variance)
        descend(optimizer, (nll + (mu.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2).mean())

    return step


def flow(d: MAF) -> Step:
    optimizer = adam(d)
    return lambda x: descend(optimizer, -d.flow(x).mean())


def rbm(d: RBM) -> Step:
    optimizer = adam(d)

    def step(x: Tensor) -> None:
        with torch.no_grad():
            h = torch.bernoulli((x @ d.weight + d.hidden_bias).sigmoid())
            back = h @ d.weight.T + d.visible_bias
            error = F.mse_loss(back, x)  # noqa: F841 (one looks at it)
            model = back + torch.randn_like(back)
        descend(optimizer, (d.free_energy(x) - d.free_energy(model)).mean())

    return step


def gan(d: AnoGAN) -> Step:
    generator, discriminator = adam(d.generator), adam(d.features, d.head)

    def step(x: Tensor) -> None:
        fake = d.generator(torch.rand(len(x), d.latent) * 2 - 1)
        real, made = d.head(d.features(x)), d.head(d.features(fake.detach()))
        descend(discriminator, F.softplus(-real).mean() + F.softplus(made).mean())
        descend(generator, F.softplus(-d.head(d.features(fake))).mean())

    return step


def wasserstein(d: FAnoGAN) -> Step:
    generator, critic, steps = adam(d.generator), adam(d.features, d.head), iter(range(10**9))

    def step(x: Tensor) -> None:
        fake = d.generator(torch.randn(len(x), d.latent))
        between = torch.lerp(fake.detach(), x, torch.rand(len(x), *[1] * (x.ndim - 1))).requires_grad_(True)
        seen = d.head(d.features(between))
        (gradient,) = torch.autograd.grad(seen.sum(), between, create_graph=True)
        penalty = d.penalty * (gradient.flatten(1).norm(dim=1) - 1).square().mean()
        descend(critic, d.head(d.features(fake.detach())).mean() - d.head(d.features(x)).mean() + penalty)
        if next(steps) % d.critic_steps == d.critic_steps - 1:
            descend(generator, -d.head(d.features(fake)).mean())

    return step


def inverse(d: FAnoGAN) -> Step:
    encoder = adam(d.encoder)

    def step(x: Tensor) -> None:
        made = d.generator(d.encoder(x))
        descend(encoder, F.mse_loss(made, x) + d.kappa * F.mse_loss(d.features(made), d.features(x)))

    return step


def aae(d: AAE) -> Step:
    autoencoder, critic = adam(d.encoder, d.decoder), adam(d.critic)

    def step(x: Tensor) -> None:
        z = d.encoder(x)
        descend(autoencoder, F.mse_loss(d.decoder(z), x) + d.weight * F.softplus(-d.critic(z)).mean())
        z = z.detach()
        descend(critic, F.softplus(-d.critic(torch.randn_like(z))).mean() + F.softplus(d.critic(z)).mean())

    return step


def svdd(d: DeepSVDD) -> Step:
    optimizer = adam(d.encoder)
    return lambda x: descend(optimizer, (d.encoder(x) - d.centre).square().sum(1).mean())


ROW, IMAGE = (57,), (1, 28, 28)
CASES: dict[str, tuple[Callable[[], Detector], Callable[[Any], Step]]] = {
    "autoencoder": (lambda: AutoEncoder(ROW, scaling="none"), autoencoder),
    "autoencoder_conv": (lambda: AutoEncoder(IMAGE, scaling="none", channels=[32, 64], hidden=[16]), autoencoder),
    "vae": (lambda: VAE(ROW, scaling="none"), vae),
    "maf": (lambda: MAF(ROW, scaling="none"), flow),
    "realnvp": (lambda: RealNVP(ROW, scaling="none"), flow),
    "nsf": (lambda: NSF(ROW, scaling="none"), flow),
    "rbm": (lambda: RBM(ROW, scaling="none"), rbm),
    "anogan": (lambda: AnoGAN(ROW, scaling="none"), gan),
    "fanogan, phase gan": (lambda: FAnoGAN(ROW, scaling="none", phases={"gan": 1e9, "encoder": 1}), wasserstein),
    "fanogan, phase encoder": (lambda: FAnoGAN(ROW, scaling="none", phases={"gan": 0, "encoder": 1}), inverse),
    "aae": (lambda: AAE(ROW, scaling="none"), aae),
    "deep_svdd, phase svdd": (
        lambda: DeepSVDD(ROW, scaling="none", normalization="none", phases={"autoencoder": 0, "svdd": 1}),
        svdd,
    ),
}


def fit(detector: Detector, data: Rows, epochs: int) -> None:
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=epochs, enable_model_summary=False, **options)
    trainer.fit(detector, datamodule=data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only", nargs="*", default=list(CASES))
    args = parser.parse_args()
    quiet()
    ratios = {}
    for name in args.only:
        build, by_hand = CASES[name]
        torch.set_num_threads(1)
        torch.manual_seed(0)
        detector, twin = build(), build()
        n = args.rows if detector.shape == ROW else args.rows // 16
        data = Rows(torch.randn(n, *detector.shape, generator=torch.Generator().manual_seed(0)), 256)
        data.setup()
        step = by_hand(twin.train())

        def bare(step: Step = step, x: Tensor = data.x) -> None:
            for epoch in range(args.epochs):
                order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
                for rows in order.split(256):
                    step(x.index_select(0, rows))

        ratios[name] = compare(lambda d=detector, r=data: fit(d, r, args.epochs), bare, args.rounds, name)
    print("\n".join(f"{name:24}{ratio:.2f}" for name, ratio in ratios.items()))

    torch.set_num_threads(2)
    rows = Rows(torch.randn(args.rows, 57, generator=torch.Generator().manual_seed(0)), 128)
    rows.setup()
    one, eight = AutoEncoder(ROW, scaling="none"), Ensemble(ROW, member=lambda **k: AutoEncoder(scaling="none", **k))
    title = "eight autoencoders 57-64-32-8-32-64-57 at batch 128 against one"
    compare(lambda: fit(eight, rows, 1), lambda: fit(one, rows, 1), args.rounds, title, clock=time.perf_counter)


if __name__ == "__main__":
    main()
