"""What must hold on a GPU: `make test-gpu`, a few minutes on one card.

Without a card all of it is skipped. `STRAYLIGHT_GPU_AS=cpu` runs it with the CPU in the card's place, so that these
tests are themselves tested; what needs CUDA proper then has a stand-in, or says why it is skipped.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor

from straylight.callbacks.cost import peak_memory
from straylight.callbacks.timing import Timing
from straylight.data import AnomalyDataModule, Blobs
from straylight.detectors import KDE, KNN, AutoEncoder, Detector
from straylight.folder import SweepFolder
from straylight.metrics import auroc
from straylight.rows.batch import Events, Splits
from straylight.rows.mapped import Mapped
from straylight.run import Run
from straylight.study import study
from test_doors import NAMES, Rows, build, shape_for

INSTEAD = os.environ.get("STRAYLIGHT_GPU_AS", "")
if not INSTEAD and not torch.cuda.is_available():
    pytest.skip("no GPU; STRAYLIGHT_GPU_AS=cpu runs what can be run without one", allow_module_level=True)

# the libraries of a card have warnings of their own, which are shown and fail nothing
pytestmark = [pytest.mark.gpu, pytest.mark.xdist_group("gpu"), pytest.mark.filterwarnings("default")]

TOLERANCE = 1e-3  # of scores, in units of their spread over the test rows
EPOCHS = 12
#: Networks that play against each other take longer to find the blobs, and find them whatever the noise if slowly.
LONGER = {"anogan": 30, "fanogan": 30}
#: A search of 500 steps carries the last bit of a float32 to twice the tolerance.
CHOSEN = {"anogan": ["detector.steps=50"], "fanogan": ["optimizer.lr=3e-4"]}


class Card(NamedTuple):
    """What the tests run on: `accelerator` is Lightning's name for it, and it is `real` if it is a GPU."""

    device: torch.device
    accelerator: str
    real: bool

    def synchronise(self) -> None:
        if self.real:
            torch.cuda.synchronize(self.device)


@pytest.fixture(scope="module")
def card() -> Iterator[Card]:
    """The card, in full precision and with deterministic convolutions."""
    assert INSTEAD in ("", "cpu"), f"STRAYLIGHT_GPU_AS may be cpu, not {INSTEAD!r}"
    if INSTEAD:
        yield Card(torch.device("cpu"), "cpu", False)
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield Card(torch.device("cuda", torch.cuda.current_device()), "gpu", True)
    torch.set_float32_matmul_precision(before)


# every detector


def blobs(shape: tuple[int, ...], **common: Any) -> AnomalyDataModule:
    """Two blobs and a tight one so far from both that no noise of a training makes any detector miss it."""
    beside = [0.0] * (torch.Size(shape).numel() - 2)
    drawn = Blobs(centers=[[-2.0, 0.0, *beside], [2.0, 0.0, *beside]], shift=[12.0, 12.0, *beside], seed=0).load()
    splits = Splits(*(Events.of(part.x.view(-1, *shape), part.y) for part in drawn))
    return Rows(splits, **{"batch_size": 64, "contamination": 0.0, **common})


class Halfway(pl.callbacks.Checkpoint):
    """Leaves a checkpoint after so many epochs."""

    def __init__(self, path: Path, epochs: int) -> None:
        self.path, self.epochs = path, epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 == self.epochs:
            trainer.save_checkpoint(self.path)


class Trained(NamedTuple):
    detector: Detector
    data: AnomalyDataModule
    halfway: Path


@pytest.fixture(scope="module")
def trained(card, tmp_path_factory) -> Callable[[str], Trained]:
    """Each detector, trained on the card once."""
    known: dict[str, Trained] = {}

    def get(name: str) -> Trained:
        if name not in known:
            shape = shape_for(name, 2)
            detector, data = build(name, shape, optimizer=CHOSEN.get(name, [])), blobs(shape)
            halfway = tmp_path_factory.mktemp(name) / "halfway.ckpt"
            epochs = LONGER.get(name, EPOCHS)
            half = Halfway(halfway, 1 if detector.one_pass else epochs // 2)
            fit(detector, data, card.accelerator, half, epochs=epochs)
            known[name] = Trained(detector.eval(), data, halfway)
        return known[name]

    return get


def fit(
    detector: Detector,
    data: AnomalyDataModule,
    accelerator: str,
    *callbacks: pl.Callback,
    start: Path | None = None,
    epochs: int = EPOCHS,
    **options: Any,
) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=1,
        max_epochs=epochs,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    with torch.enable_grad():
        trainer.fit(detector, datamodule=data, ckpt_path=start, weights_only=True)
    return trainer


@torch.no_grad()
def scores(detector: Detector, x: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Of events, computed on a device; the detector ends on the CPU."""
    found = detector.eval().to(device)(x.to(device))
    assert found.device == torch.device(device)
    detector.cpu()
    return found.cpu()


def apart(one: Any, other: Any) -> float:
    """The largest difference between scores in units of the spread of the first."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    assert np.isfinite(one).all() and np.isfinite(other).all()
    return float(np.abs(one - other).max() / (one.std() or 1.0))


def area(score: Tensor, y: Tensor) -> float:
    return auroc(score[y == 0].numpy(), score[y > 0].numpy())


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_trained_on_the_card_ranks_as_one_trained_on_the_cpu(name, card, trained) -> None:
    detector, data, _ = trained(name)
    again = build(name, detector.shape, optimizer=CHOSEN.get(name, []))
    fit(again, data, "cpu", epochs=LONGER.get(name, EPOCHS))
    test = data.splits.test
    one, other = (area(scores(each, test.x), test.y) for each in (detector, again))
    assert one == pytest.approx(other, abs=0.01)
    assert one > 0.98 or name == "multiplicity"  # a count of particles, and there is one


@pytest.mark.parametrize("name", NAMES)
def test_with_the_same_weights_the_card_scores_as_the_cpu_does(name, card, trained) -> None:
    detector, data, _ = trained(name)
    x = data.splits.test.x
    here = scores(detector, x)
    before = torch.cuda.get_rng_state(card.device) if card.real else torch.get_rng_state()
    there = scores(detector, x, card.device)
    after = torch.cuda.get_rng_state(card.device) if card.real else torch.get_rng_state()
    assert apart(here, there) <= TOLERANCE
    assert apart(here[:10], torch.cat([scores(detector, row[None], card.device) for row in x[:10]])) <= TOLERANCE
    assert torch.equal(before, after)  # scoring draws no random number


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_on_from_a_checkpoint_of_the_card(name, card, trained) -> None:
    detector, data, halfway = trained(name)
    again = build(name, detector.shape, optimizer=CHOSEN.get(name, []))
    fit(again, data, card.accelerator, start=halfway, epochs=LONGER.get(name, EPOCHS))
    x = data.splits.test.x
    assert apart(scores(detector, x), scores(again, x)) <= TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_the_card_opens_on_the_cpu(name, card, trained) -> None:
    detector, data, halfway = trained(name)
    state = torch.load(halfway, map_location="cpu", weights_only=True)["state_dict"]
    again = build(name, detector.shape, optimizer=CHOSEN.get(name, []))
    again.load_state_dict(state)
    assert scores(again, data.splits.test.x).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_clipping_and_a_schedule_are_choices_for_all(name, card) -> None:
    shape = shape_for(name, 3)
    chosen = ["optimizer.clip=0.1", "optimizer.schedule=cosine", "optimizer.warmup=0.1"]
    detector, data = build(name, shape, optimizer=[*chosen, *CHOSEN.get(name, [])]), blobs(shape)
    fit(detector, data, card.accelerator, epochs=2, precision="bf16-mixed")
    assert scores(detector, data.splits.test.x, card.device).isfinite().all()


@pytest.mark.parametrize("fused", ["true", "false"])
@pytest.mark.parametrize("name", ["autoencoder", "aae", "ensemble"])
def test_float16_clips_scaled_gradients(name, fused, card) -> None:
    detector, data = build(name, (2,), optimizer=["optimizer.clip=1.0", f"optimizer.method.fused={fused}"]), blobs((2,))
    scaling = MixedPrecision("16-mixed", card.device.type, scaler=torch.amp.GradScaler(card.device.type))
    fit(detector, data, card.accelerator, plugins=scaling)  # by its name Lightning does not let a CPU have it
    test = data.splits.test
    assert area(scores(detector, test.x), test.y) > 0.98


# what they share


class Where(pl.Callback):
    """Notes where the training rows are."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.rows = trainer.train_dataloader.events.x.device  # type: ignore[union-attr]


@pytest.mark.parametrize("source", ["memory", "disk"])
def test_training_rows_live_on_the_card_while_they_train(source, card) -> None:
    x = torch.randn(200_000, 57, generator=torch.Generator().manual_seed(0))
    rows = x if source == "memory" else Mapped([x])
    none = Events.of(x[:0])
    weights, places = [], []
    for where in ("auto", "cpu"):
        data = Rows(
            Splits(Events.of(rows), none, Events.of(x[:20], [0, 1] * 10), none),
            batch_size=8192,
            device=where,
            overlap="report",
            memory_mb=1,
        )
        before = torch.cuda.memory_allocated(card.device) if card.real else 0
        detector, place = build("autoencoder", (57,)), Where()
        trainer = fit(detector, data, card.accelerator, place, epochs=2)
        gc.collect()
        after = torch.cuda.memory_allocated(card.device) if card.real else 0
        assert after - before < x.nbytes / 2 and trainer.train_dataloader.events is data.splits.train
        places.append(place.rows)
        weights.append(torch.cat([p.detach().flatten() for p in detector.parameters()]))
    assert places == [card.device, torch.device("cpu")]
    if source == "memory":  # rows on disk are shuffled in blocks, and on the card no longer
        assert torch.allclose(*weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "smaller"), [("autoencoder", []), ("maf", ["detector.layers=1"])])
def test_compiled_networks_train_and_score_as_plain_ones_do(name, smaller, card) -> None:
    shape = (2,)
    found = []
    for compiled in (True, False):
        detector, data = build(name, shape, optimizer=smaller), blobs(shape)
        if compiled:
            detector.compile_networks()
        fit(detector, data, card.accelerator, epochs=3)
        found.append(scores(detector, data.splits.test.x, card.device))
    torch.compiler.reset()
    assert apart(*found) <= 10 * TOLERANCE  # they were trained apart


def true_distances(x: Tensor, rows: Tensor, metric: str) -> Tensor:
    x, rows = x.double(), rows.double()
    if metric == "cosine":
        return 1 - torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(rows, dim=1).T
    return torch.cdist(x, rows, p=1.0 if metric == "manhattan" else 2.0)


@pytest.mark.parametrize(
    ("metric", "origin", "precision"),
    [
        ("euclidean", 0.0, "highest"),
        ("euclidean", 0.0, "high"),
        ("euclidean", 300.0, "highest"),
        ("euclidean", 300.0, "high"),
        ("manhattan", 0.0, "highest"),
        ("cosine", 0.0, "high"),
    ],
)
def test_the_nearest_rows_are_the_nearest_also_by_tensorfloat32(metric, origin, precision, card) -> None:
    draw = torch.Generator().manual_seed(0)
    rows, x = (torch.randn(n, 57, generator=draw) + origin for n in (20_000, 500))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        knn = KNN((57,), k=5, distance="kth", metric=metric, scaling="none").to(card.device)
        knn.fit(rows.to(card.device), torch.zeros(len(rows), 0), torch.ones(len(rows), device=card.device))
        found = knn(x.to(card.device)).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    true = true_distances(x, rows, metric).kthvalue(5, dim=1).values
    assert torch.allclose(found.double(), true, rtol=1e-4, atol=1e-5 if metric == "cosine" else 0)


@pytest.mark.parametrize("bandwidth", ["scott", "likelihood"])
def test_a_kernel_density_is_that_of_the_cpu(bandwidth, card) -> None:
    draw = torch.Generator().manual_seed(0)
    rows, x = (torch.randn(n, 8, generator=draw) + 100 for n in (2_000, 500))
    found = []
    for device in (card.device, torch.device("cpu")):
        kde = KDE((8,), bandwidth=bandwidth, scaling="none").to(device)
        kde.fit(rows.to(device), torch.zeros(len(rows), 0), torch.ones(len(rows), device=device))
        found.append(kde(x.to(device)).cpu())
    # a search for the likeliest bandwidth ends where it is known to four digits
    assert torch.allclose(*found, rtol=1e-5 if bandwidth == "scott" else 1e-3)


class Busy(Detector):
    """Its score is a work of known length."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__((2,), scaling="none")
        self.work = work

    def score(self, x: Tensor, context: Tensor) -> Tensor:
        self.work()
        return x.sum(1)


def work_of_known_length(card: Card) -> tuple[Callable[[], object], float]:
    """What the device does while the host goes on, and the seconds that it takes by the device's own clock."""
    if not card.real:
        return lambda: time.sleep(0.02), 0.02
    a, b = torch.randn(2, 4096, 4096, device=card.device)
    out = torch.empty_like(a)

    def work() -> None:
        for _ in range(20):
            torch.mm(a, b, out=out)

    times = []
    for _ in range(7):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return work, float(np.median(times[2:]))


def test_latency_is_that_of_the_device_and_not_of_its_launch(card) -> None:
    work, seconds = work_of_known_length(card)
    timing = Timing([1], ["eager"], budget_s=10 * seconds, longest_s=60)
    x, context = torch.zeros(4, 2, device=card.device), torch.zeros(4, 0, device=card.device)
    (entry,), _ = timing(Busy(work).eval(), x, context)
    assert entry["p50_us"] * 1e-6 == pytest.approx(seconds, rel=0.25)
    assert entry["device"] == str(card.device)
    if card.real:
        start = time.perf_counter()
        work()
        launched = time.perf_counter() - start
        card.synchronise()
        assert launched < seconds / 2  # there was something to wait for


def test_peak_memory_is_what_was_held_at_once(card) -> None:
    size = 2**26

    def call() -> None:
        for _ in range(3):
            torch.empty(size, dtype=torch.uint8, device=card.device).fill_(1)

    peak = peak_memory(call, card.device)
    if not card.real:
        assert peak is None
        return
    held = torch.cuda.memory_allocated(card.device)
    assert peak is not None and size <= peak - held < size + 2**22


def test_a_study_of_the_card_is_at_hand_on_the_cpu(card) -> None:
    data = Blobs(seed=0)
    found = study(AutoEncoder((2,), hidden=[16], latent=1), data, epochs=5, accelerator=card.accelerator)
    assert found.result["device"] == str(card.device)
    assert found.detector.device == torch.device("cpu") and found.codes.shape == (len(found.scores), 1)
    assert apart(found.scores, scores(found.detector, found.x)) <= TOLERANCE
    assert (found.result["cost"].get("peak_device_memory_bytes", 0) > 0) == card.real


# processes of their own: what has CUDA at work can fork none

SEEN = """
import pytorch_lightning as pl, torch.distributed as dist
from pathlib import Path

class Seen(pl.Callback):
    def __init__(self, folder): self.folder = folder
    def on_train_end(self, trainer, module):
        Path(self.folder, "backend").write_text(dist.get_backend())
"""
CHEAP = [
    "detector=autoencoder",
    "data=blobs",
    "trainer.max_epochs=30",
    "callbacks.latency.budget_s=0.01",
    "callbacks.latency.batches=[1,1024]",
]


def command(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """What the runs of `straylight train` recorded, by their seeds."""
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "straylight", "train", f"paths.output={folder / 'out'}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stdout
    return sorted(SweepFolder(folder / "out").results(), key=lambda result: result["seed"])


def kept(result: dict[str, Any]) -> np.ndarray:
    return pq.read_table(Path(result["folder"]) / "scores.parquet")["score"].to_numpy()


@pytest.fixture(scope="module")
def swept(card, tmp_path_factory) -> list[dict[str, Any]]:
    """Two jobs on one card."""
    where = "trainer=gpu" if card.real else "trainer=cpu"
    shared = ["hydra.launcher.jobs_per_gpu=2", "hydra.launcher.n_jobs=2"]
    return command(tmp_path_factory.mktemp("swept"), "-m", where, *CHEAP, "seed=0,1", *shared)


def test_two_jobs_share_a_card(card, swept) -> None:
    assert [result["status"] for result in swept] == ["ok", "ok"]
    assert {result["device"] for result in swept} == {"cuda:0" if card.real else "cpu"}
    assert all(result["metrics"]["test/auroc"] > 0.9 and not result.get("figures_failed") for result in swept)
    assert all((result["cost"].get("peak_device_memory_bytes", 0) > 0) == card.real for result in swept)
    ends = [(Path(result["folder"]) / "result.json").stat().st_mtime for result in swept]
    starts = [end - result["duration_s"] for end, result in zip(ends, swept, strict=True)]
    assert max(starts) < min(ends)  # at the same time


def test_a_run_of_the_card_opens_on_the_cpu(card, swept) -> None:
    run = Run.open(swept[0]["folder"])
    data = Blobs(seed=0)
    data.setup()
    assert apart(kept(swept[0]), run.score(data.splits.test.x)) <= TOLERANCE


def test_one_rank_of_several_is_a_run_like_any_other(card, swept, tmp_path) -> None:
    """Distributed training, of one process, by the backend of the card."""
    (tmp_path / "seen.py").write_text(SEEN)
    seen = "+callbacks.seen={_target_:seen.Seen,folder:'${paths.run}'}"
    ranks = ["trainer=ddp", "trainer.devices=1", f"trainer.accelerator={card.accelerator}"]
    (result,) = command(tmp_path, *CHEAP, *ranks, seen)
    assert (Path(result["folder"]) / "backend").read_text() == ("nccl" if card.real else "gloo")
    assert result["status"] == "ok" and apart(kept(swept[0]), kept(result)) <= TOLERANCE
