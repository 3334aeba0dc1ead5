"""The doors that every detector walks through, by being in `conf/detector`."""

from __future__ import annotations

import io

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from straylight import config
from straylight.batch import Batch, Events, Splits
from straylight.data import AnomalyDataModule, Blobs
from straylight.detectors import Detector
from straylight.groups import FOLDER, choices
from straylight.metrics import auroc

NAMES = choices("detector")


def build(name: str, shape: tuple[int, ...], context: int = 0) -> Detector:
    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        cfg = compose("train", overrides=[f"detector={name}", "paths.run=."])
    pl.seed_everything(0, verbose=False)
    return config.build(cfg, "detector", shape=shape, context=context, optimizer=config.build(cfg, "optimizer"))


class Rows(AnomalyDataModule):
    """Splits that a test made itself."""

    def __init__(self, splits: Splits, **common) -> None:
        super().__init__(**{"contamination": None, **common})
        self.given = splits

    def load(self) -> Splits:
        return self.given


def rows(n: int, d: int = 3, seed: int = 0, labels=None) -> Events:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return Events.of(x, labels if labels is not None else [0] * (n - 1) + [1])


@pytest.fixture(scope="module")
def fitted():
    """Each detector, trained on the blobs once."""
    known = {}

    def get(name: str) -> tuple[Detector, Blobs]:
        if name not in known:
            data = Blobs(seed=0, batch_size=32)
            detector = build(name, (2,))
            trainer = pl.Trainer(
                accelerator="cpu",
                max_epochs=40,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(detector, datamodule=data)
            known[name] = detector.eval(), data
        return known[name]

    return get


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_scores_are_one_finite_float_per_event(name, fitted) -> None:
    detector, data = fitted(name)
    score = detector(data.splits.test.x)
    assert score.shape == (len(data.splits.test),) and score.dtype == torch.float32 and score.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_blobs_are_ranked_and_a_far_point_outscores_a_near_one(name, fitted) -> None:
    detector, data = fitted(name)
    test = data.splits.test
    score = detector(test.x)
    assert auroc(score[test.y == 0].numpy(), score[test.y == 1].numpy()) > 0.9
    near, far = detector(torch.tensor([[2.0, 0.0], [40.0, 40.0]]))
    assert far > near


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_row_scores_the_same_alone_in_a_batch_and_permuted(name, fitted) -> None:
    detector, data = fitted(name)
    x = data.splits.test.x[:50]
    whole = detector(x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    single = torch.cat([detector(row[None]) for row in x])
    assert torch.allclose(single, whole, rtol=1e-5, atol=1e-6)
    assert torch.allclose(detector(x[order]), whole[order], rtol=1e-5, atol=1e-6)
    assert torch.equal(detector(x), whole)  # and twice


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_scoring_leaves_the_random_generator_alone(name, fitted) -> None:
    detector, data = fitted(name)
    before = torch.get_rng_state()
    detector(data.splits.test.x)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_saved_and_loaded_it_gives_the_same_scores(name, fitted) -> None:
    detector, data = fitted(name)
    file = io.BytesIO()
    torch.save(detector.state_dict(), file)
    file.seek(0)
    again = build(name, (2,))
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again.eval()(data.splits.test.x), detector(data.splits.test.x))


@pytest.mark.parametrize("name", NAMES)
def test_every_trainable_parameter_gets_a_gradient(name) -> None:
    detector = build(name, (3,))
    if not list(detector.parameters()):
        assert not detector.selects  # fitted in one pass
        return
    x = torch.randn(64, 3)
    batch = Batch(x, torch.full((64,), -1), x[:, :0], torch.ones(1).expand(64), torch.arange(64))
    losses = detector.loss(batch)
    (losses["loss"] if isinstance(losses, dict) else losses).backward()
    silent = [n for n, p in detector.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_never_read(name, trainer) -> None:
    scores = []
    for labels in ([0] * 63 + [1], [0] + [1] * 63):
        train = rows(64, labels=labels)
        data = Rows(Splits(train, rows(8, seed=2), rows(20, seed=3), rows(0, labels=[])), batch_size=16)
        detector = build(name, (3,))
        trainer(max_epochs=2).fit(detector, datamodule=data)
        scores.append(detector.eval()(data.splits.test.x))
    assert torch.equal(*scores)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_rows_than_a_batch_train(name, trainer) -> None:
    data = Rows(Splits(rows(7), rows(0, labels=[]), rows(20, seed=3), rows(0, labels=[])), batch_size=128)
    detector = build(name, (3,))
    trainer(max_epochs=2).fit(detector, datamodule=data)
    assert detector.eval()(data.splits.test.x).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_feature_does_no_harm(name, trainer) -> None:
    train, test = rows(64), rows(20, seed=3)
    train.x[:, 1] = test.x[:, 1] = 1e6
    data = Rows(Splits(train, rows(0, labels=[]), test, rows(0, labels=[])), batch_size=16)
    detector = build(name, (3,))
    trainer(max_epochs=2).fit(detector, datamodule=data)
    assert detector.eval()(test.x).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_images_and_context_are_taken(name, trainer) -> None:
    def some(n: int, seed: int) -> Events:
        x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
        return Events.of(x, [0] * (n - 1) + [1], context=x.flatten(1)[:, :2])

    data = Rows(Splits(some(64, 0), some(8, 1), some(20, 2), some(1, 3).take([])), batch_size=16)
    detector = build(name, (1, 4, 4), context=2)
    trainer(max_epochs=1).fit(detector, datamodule=data)
    assert detector.eval()(data.splits.test.x, data.splits.test.context).shape == (20,)
    assert data.context == 2


@pytest.mark.parametrize("name", NAMES)
def test_event_weights_reach_the_loss(name, trainer) -> None:
    """A row of weight zero is a row that is not there, for a detector that is trained by gradients."""
    if not build(name, (3,)).selects:
        pytest.skip("fitted in one pass, without a loss")
    x = torch.randn(64, 3)
    y, index, none = torch.full((64,), -1), torch.arange(64), x[:, :0]
    weight = torch.zeros(64)
    weight[:32] = 2.0
    losses = []
    for batch in (Batch(x, y, none, weight, index), Batch(x[:32], y[:32], none[:32], torch.ones(1).expand(32), index)):
        torch.manual_seed(5)  # a loss that draws noise draws it row by row
        detector = build(name, (3,))
        torch.manual_seed(5)
        out = detector.loss(batch)
        losses.append(out["loss"] if isinstance(out, dict) else out)
    assert torch.allclose(*losses, rtol=1e-5)
