"""Training and scoring on a GPU through `straylight` against Lightning's default loop on the same card.

    python tests/benchmarks/gpu.py [--rows 262144] [--rounds 3] [--device cpu]

The 57-8-57 autoencoder and `maf` over rows of 57 features, `vae_conv` over images of 28 x 28 pixels, eight stacked
members of an ensemble against eight networks in one module, and the scores of the autoencoder. The default loop is a
`TensorDataset`, a `DataLoader`, automatic optimisation and torch's default Adam, without logger, progress bar and
checkpoint, which ours goes without, too. Networks, rows, batches and losses are the same; that both learn, and that
both score the same, is checked.

Wall time, synchronised. Rows per second are printed beside the bandwidth of the card's memory, as a copy measures it,
and the rows' share of it. The last line is the median over the five of ours / Lightning. Where there is no GPU,
`--device cpu` runs all of it on the CPU, with few rows unless told otherwise: it shows that it works, and no speed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from interleaved import compare
from straylight.callbacks.scored import Scores, TestScores
from straylight.data import AnomalyDataModule
from straylight.detectors import MAF, VAE, AutoEncoder, Detector, Ensemble
from straylight.job.train import quiet
from straylight.rows.batch import Batch, Events, Splits

BATCH, SCORED_AT_ONCE, MEMBERS = 1024, 16384, 8
PIXELS = 28


class Rows(AnomalyDataModule):
    def __init__(self, train: Tensor, test: Tensor) -> None:
        super().__init__(batch_size=BATCH, eval_batch_size=SCORED_AT_ONCE, contamination=None)
        self.train, self.test = train, test

    def load(self) -> Splits:
        none, labels = Events.of(self.train[:0]), torch.arange(len(self.test)) % 2
        return Splits(Events.of(self.train), none, Events.of(self.test, labels), none)


class Keep(TestScores):
    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        self.scores = scores.score


class Plain(pl.LightningModule):
    """Networks as a page of Lightning's documentation would train them."""

    def __init__(self, networks: nn.Module, loss: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.networks, self.loss = networks, loss

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.loss(self.networks, batch[0])

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (x,) = batch
        return (self.networks.reconstruct(x) - x).square().mean(1)  # type: ignore[operator]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Case(NamedTuple):
    """What is trained: the detector, what the default loop has in its place, and the loss of that."""

    detector: Callable[[], Detector]
    networks: Callable[[], nn.Module]
    loss: Callable[[Any, Tensor], Tensor]


def reconstruction(network: Any, x: Tensor) -> Tensor:
    return F.mse_loss(network.reconstruct(x), x)


def evidence(network: Any, x: Tensor) -> Tensor:
    even = x.new_ones(1).expand(len(x))
    return network.loss(Batch(x, even, x.flatten(1)[:, :0], even, even))["loss"]


def surprise(network: Any, x: Tensor) -> Tensor:
    return -network.log_prob(x, x[:, :0]).mean()


def all_members(networks: Any, x: Tensor) -> Tensor:
    return sum(reconstruction(network, x) for network in networks)  # type: ignore[return-value]


autoencoder = partial(AutoEncoder, (57,), hidden=[], latent=8, scaling="none")
member = partial(AutoEncoder, hidden=[], latent=8, scaling="none")
images = partial(
    VAE, (1, PIXELS, PIXELS), channels=[32, 64], hidden=[16], latent=2, likelihood="bernoulli", scaling="none"
)
flow = partial(MAF, (57,), scaling="none")
CASES = {
    "autoencoder": Case(autoencoder, autoencoder, reconstruction),
    "vae_conv": Case(images, images, evidence),
    "maf": Case(flow, flow, surprise),
    f"ensemble of {MEMBERS}": Case(
        partial(Ensemble, (57,), member=member, members=MEMBERS),
        lambda: nn.ModuleList(autoencoder() for _ in range(MEMBERS)),
        all_members,
    ),
}


class Bench:
    """Both ways of each work on one device.

    Args:
        device: on which.
        rows: of 57 features; of images a quarter.
        rounds: how often each is timed.
    """

    def __init__(self, device: torch.device, rows: int, rounds: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.device, self.rounds = device, rounds
        self.x = torch.randn(rows, 57, generator=draw)
        self.images = torch.rand(max(1, rows // 4), 1, PIXELS, PIXELS, generator=draw)
        self.bandwidth = self.measure_bandwidth()
        self.lines: list[str] = []

    def clock(self) -> float:
        """Seconds, when the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def measure_bandwidth(self) -> float:
        """Bytes a second, read and written, that the memory of the device copies."""
        size = 2**30 if self.device.type == "cuda" else 2**25
        source, target = torch.zeros(2, size, dtype=torch.uint8, device=self.device)
        times = []
        for _ in range(10):
            start = self.clock()
            target.copy_(source)
            times.append(self.clock() - start)
        return 2 * size / statistics.median(times)

    def trainer(self, **options: Any) -> pl.Trainer:
        return pl.Trainer(
            accelerator="gpu" if self.device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )

    def versus(self, what: str, ours: Callable[[], object], default: Callable[[], object], x: Tensor) -> float:
        """The ratio of both, after a line for the table."""
        seconds: dict[str, list[float]] = {"ours": [], "default": []}

        def timed(name: str, call: Callable[[], object]) -> Callable[[], None]:
            def run() -> None:
                start = self.clock()
                call()
                seconds[name].append(self.clock() - start)

            return run

        ratio = compare(timed("ours", ours), timed("default", default), self.rounds, f"\n{what}", clock=self.clock)
        fast, slow = (len(x) / statistics.median(seconds[name][1:]) for name in ("ours", "default"))
        share = fast * x[0].nbytes / self.bandwidth
        self.lines.append(f"{what:24} {fast:12,.0f} {slow:12,.0f} {share:11.2%} {ratio:7.3g}")
        return ratio

    def training(self, name: str, case: Case) -> float:
        x = self.images if name == "vae_conv" else self.x
        data = Rows(x, torch.rand_like(x[:2]))
        data.setup()
        trained: dict[str, nn.Module] = {}

        def ours() -> None:
            torch.manual_seed(0)
            trained["ours"] = detector = case.detector()
            self.trainer().fit(detector, datamodule=data)

        def default() -> None:
            torch.manual_seed(0)
            trained["default"] = networks = case.networks()
            self.trainer().fit(Plain(networks, case.loss), DataLoader(TensorDataset(x), batch_size=BATCH, shuffle=True))

        ratio = self.versus(f"training, {name}", ours, default, x)
        self.check_that_both_learn(case, trained, x[:BATCH])
        return ratio

    @torch.no_grad()
    def check_that_both_learn(self, case: Case, trained: dict[str, nn.Module], x: Tensor) -> None:
        torch.manual_seed(0)
        before = float(case.loss(case.networks(), x))
        ours = trained["ours"]
        if isinstance(ours, Ensemble):
            after = float(ours.member_scores(x, x[:, :0]).mean(0).sum())
        else:
            after = float(case.loss(ours, x))
        theirs = float(case.loss(trained["default"], x))
        assert after < before and theirs < before, f"losses of {after} and {theirs}, which were {before}"

    def scoring(self) -> float:
        torch.manual_seed(0)
        detector, keep, data = autoencoder(), Keep(), Rows(torch.rand_like(self.x[:2]), self.x)
        data.setup()
        tester, predictor, plain = self.trainer(callbacks=[keep]), self.trainer(), Plain(detector, reconstruction)
        found: dict[str, Tensor] = {}

        def ours() -> None:
            tester.test(detector, datamodule=data, verbose=False)
            found["ours"] = torch.from_numpy(keep.scores)

        def default() -> None:
            loader = DataLoader(TensorDataset(self.x), batch_size=SCORED_AT_ONCE)
            found["default"] = torch.cat(predictor.predict(plain, loader)).cpu()  # type: ignore[arg-type]

        ratio = self.versus("scoring, autoencoder", ours, default, self.x)
        assert torch.allclose(found["ours"], found["default"], rtol=1e-4), "the two scored differently"
        return ratio


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="262144, and 4096 on the CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no GPU here; --device cpu runs all of it on the CPU, to see that it works.")
    torch.set_num_threads(1)
    quiet()
    device = torch.device("cuda", 0) if args.device == "cuda" else torch.device("cpu")
    name = torch.cuda.get_device_name(device) if args.device == "cuda" else "the CPU"
    bench = Bench(device, args.rows or (262_144 if args.device == "cuda" else 4096), args.rounds)
    ratios = [*(bench.training(what, case) for what, case in CASES.items()), bench.scoring()]
    print(f"\n{name}, memory {bench.bandwidth / 1e9:,.0f} GB/s; rows a second")
    print(f"{'':24} {'ours':>12} {'Lightning':>12} {'of memory':>11} {'ratio':>7}", *bench.lines, sep="\n")
    ratio = statistics.median(ratios)
    print(f"ratio: {ratio:.3g}", flush=True)
    return ratio


if __name__ == "__main__":
    main()
