"""What a GPU asks of the code, on a machine that has none; what only a card can show is in `test_gpu`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor

from elsewhere import elsewhere
from straylight.callbacks import Density, Descent, Figures, Latency, Ranking, Thresholds
from straylight.data import Blobs
from straylight.detectors import Detector
from straylight.rows.batch import Batch, Events, Splits
from test_doors import NAMES, Rows, build, rows, shape_for

#: What a detector's config does not show.
CHOICES = {
    "vae": ["detector.score=log_likelihood", "detector.samples=8"],
    "autoencoder": ["optimizer.clip=0.1", "optimizer.schedule=cosine"],
    "rbm": ["detector.persistent=true"],
    "deep_svdd": ["detector.boundary=soft"],
    "fanogan": ["detector.noise=0.1"],
    "anogan": ["detector.discrimination=logit", "detector.starts=2", "detector.steps=5"],
    "kde": ["detector.bandwidth=likelihood", "detector.max_rows=40"],
    "robust_kde": ["detector.rho=huber"],
    "gmm": ["detector.covariance=tied"],
    "hbos": ["detector.widths=dynamic"],
    "ecod": ["detector.aggregate=feature"],
    "copod": ["detector.aggregate=feature"],
    "pca": ["detector.variant=whitened_reconstruction", "detector.components=2"],
    "mahalanobis": ["detector.shrinkage=0.1"],
    "knn": ["detector.metric=cosine", "detector.distance=kth"],
    "random_features": ["detector.bandwidths=[2.0]", "detector.features=20"],
    "dbscan": ["detector.eps=5.0", "detector.max_rows=40"],
    "ensemble": ["detector@detector.member=kde", "detector.members=2"],
    "maf": ["detector.noise=0.1"],
}


class Anywhere(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        """Any will do."""


class Resident(Rows):
    """Training rows that are on the device already."""

    def _resident(self, events: Events) -> Events:
        device = self.trainer.strategy.root_device
        columns = {name: getattr(events, name).to(device) for name in ("x", "context", "weight")}
        return Events(**columns, y=events.y, meta=events.meta)


def weighted(n: int, shape: tuple[int, ...], seed: int) -> Events:
    events = rows(n, shape, seed)
    return Events.of(events.x, events.y, events.x.flatten(1)[:, :2], torch.rand(n) + 0.5)


def scored(
    name: str, shape: tuple[int, ...], data: Any, options: list[str], trainer: Any, device: torch.device | None
) -> Tensor:
    """The scores of the test rows, after a short training."""
    detector = build(name, shape, data.context, ["optimizer.method.fused=false", *options])  # `meta` knows none
    where = {} if device is None else {"accelerator": Anywhere(), "strategy": SingleDeviceStrategy(device)}
    one = trainer(max_epochs=2, callbacks=[Descent()], **where)
    torch.manual_seed(0)
    one.fit(detector, datamodule=data)
    # NCCL exchanges no other
    assert [name for name, buffer in detector.named_buffers() if not buffer.is_contiguous()] == []
    assert one.train_dataloader.events is data.splits.train  # which leaves the device when training is over
    parts = one.predict(detector, datamodule=data)
    return torch.cat([part.score for part in parts]).cpu()


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_mixes_no_devices(name, trainer) -> None:
    shape = shape_for(name, 3)
    parts = rows(32, shape), rows(24, shape, 1), rows(20, shape, 2)
    data = Rows(Splits(*parts, parts[2].take([])), batch_size=16)
    fewer = ["detector.steps=10"] if name == "anogan" else []
    here = scored(name, shape, data, fewer, trainer, None)
    with elsewhere() as device:
        there = scored(name, shape, data, fewer, trainer, device)
    assert torch.equal(here, there)


@pytest.mark.parametrize("name", CHOICES)
def test_nor_does_it_by_another_choice_on_resident_weighted_rows(name, trainer) -> None:
    shape = (3,)
    parts = weighted(32, shape, 0), weighted(24, shape, 1), weighted(20, shape, 2)
    data = Resident(Splits(*parts, parts[2].take([])), batch_size=16)
    here = scored(name, shape, data, CHOICES[name], trainer, None)
    with elsewhere() as device:
        there = scored(name, shape, data, CHOICES[name], trainer, device)
    assert torch.equal(here, there)


@pytest.mark.parametrize("name", ["gmm", "maf", "ensemble"])
def test_nor_does_what_watches_it(name, trainer, tmp_path) -> None:
    """Ranking, thresholds, density, timing, export and figures after a test on the device."""
    data = Blobs(seed=0, batch_size=64)
    detector = build(name, (2,), optimizer=["optimizer.method.fused=false"])
    figures, ranking, density = Figures(tmp_path / "figures", "all"), Ranking(every_n_epochs=1), Density(200, 100)
    latency = Latency([1, 8], ["eager", "onnx"], budget_s=0.001)
    with elsewhere() as device:
        one = trainer(
            max_epochs=1,
            callbacks=[ranking, Thresholds(tmp_path), density, latency, figures],
            accelerator=Anywhere(),
            strategy=SingleDeviceStrategy(device),
        )
        one.fit(detector, datamodule=data)
        one.test(detector, datamodule=data, verbose=False)
    assert figures.drawn.failed == {} and "test/auroc" in ranking.metrics
    assert {entry["device"] for entry in latency.entries} == {"meta", "cpu"} if name != "gmm" else {"meta"}


class Forgetful(Detector):
    """Forgets where its rows are."""

    def __init__(self, shape: tuple[int, ...], **common: Any) -> None:
        super().__init__(shape, **common)
        self.centre = torch.zeros(shape)  # no buffer

    def loss(self, batch: Batch) -> Tensor:
        return self.score(batch.x, batch.context).mean()

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        return (x - self.centre).square().sum(1)


def test_a_mix_is_found_out() -> None:
    forgetful = Forgetful((2,))
    with elsewhere() as device, pytest.raises(RuntimeError, match="mixes devices"):
        forgetful.to(device)(torch.zeros(3, 2, device=device))
    with elsewhere() as device:
        there = torch.ones(3, 2).to(device)
        assert (there * 2).cpu().equal(torch.full((3, 2), 2.0)) and there.sum().tolist() == 6
        with pytest.raises(RuntimeError, match="mixes devices"):
            there.index_select(0, torch.arange(2))
        with pytest.raises(RuntimeError, match="not supported"):
            there.numpy()


@pytest.mark.parametrize("fused", [True, False])
def test_half_precision_clips_to_the_norm_that_was_asked_for(fused, trainer) -> None:
    """Gradients of 16-mixed are scaled up; a CPU, which Lightning does not let have it, is as good as a card here."""
    norms, weights = [], []
    for scaler in (None, torch.amp.GradScaler("cpu")):
        fusing = f"optimizer.method.fused={fused}".lower()
        detector = build("autoencoder", (3,), optimizer=["optimizer=sgd", "optimizer.clip=0.1", fusing])
        data = Rows(Splits(rows(64, (3,)), rows(0, (3,), labels=[]), *[rows(8, (3,), 1)] * 2), batch_size=16)
        precision = {} if scaler is None else {"plugins": MixedPrecision("16-mixed", "cpu", scaler=scaler)}
        trainer(max_epochs=2, **precision).fit(detector, datamodule=data)
        norms.append(float(detector.gradient_norm))
        weights.append(torch.cat([p.detach().flatten() for p in detector.parameters()]))
    assert norms[0] == pytest.approx(norms[1], rel=2e-2) and norms[0] > 0.1
    assert torch.allclose(*weights, atol=1e-4)


@pytest.mark.slow
def test_the_server_that_jobs_are_forked_from_leaves_cuda_alone() -> None:
    """What is forked from a process that has asked the driver anything cannot use a GPU."""
    code = """
import torch
asked = []
for name in ("_cuda_init", "_cuda_getDeviceCount", "_cuda_isDriverSufficient"):
    setattr(torch._C, name, lambda *args, name=name: asked.append(name) or 0)
import straylight.engines.local.warm
assert not asked and not torch.cuda.is_initialized(), asked
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
