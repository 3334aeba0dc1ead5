"""The doors that every detector walks through, by being in `conf/detector`."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from given import OVER_DENSITIES, layers_of
from straylight import config
from straylight.callbacks.cost import size
from straylight.data import AnomalyDataModule, Blobs
from straylight.detectors import Detector
from straylight.errors import ConfigError
from straylight.groups import FOLDER, choices
from straylight.metrics import auroc
from straylight.nn import Scaling
from straylight.rows.batch import Events, Splits

NAMES = [name for name in choices("detector") if name not in OVER_DENSITIES]
PARTICLES = ("multiplicity", "sum_pt")
#: A search of 500 steps for every event finds nothing here that one of 20 does not, nor do 100 trees.
QUICKER = {"anogan": ["detector.steps=20"], "external": ["+detector.arguments.n_estimators=20"]}

#: Whose scores are of what an absurd feature hardly changes: a count, ranks one by one, the depth in a tree.
BOUNDED = (*PARTICLES, "copod", "ecod", "external", "isolation_forest")


def build(name: str, shape: tuple[int, ...], context: int = 0, optimizer: Sequence[str] = ()) -> Detector:
    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        cfg = compose("train", overrides=[f"detector={name}", "paths.run=.", *QUICKER.get(name, []), *optimizer])
    pl.seed_everything(0, verbose=False)
    return config.build(cfg, "detector", shape=shape, context=context, optimizer=config.build(cfg, "optimizer"))


class Rows(AnomalyDataModule):
    """Splits that a test made itself."""

    def __init__(self, splits: Splits, **common) -> None:
        super().__init__(**{"contamination": None, **common})
        self.given = splits

    def load(self) -> Splits:
        return self.given


def shape_for(name: str, features: int) -> tuple[int, ...]:
    """An event of as many features, or the smallest image or particle where a detector takes nothing else."""
    try:
        build(name, (features,))
    except ConfigError as error:
        if "particles of pT, eta and phi" in str(error):
            return (3,)
        assert "images of shape (C, H, W)" in str(error)
        return (1, 4, 4)
    return (features,)


def rows(n: int, shape: tuple[int, ...], seed: int = 0, labels=None) -> Events:
    x = torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))
    return Events.of(x, labels if labels is not None else [0] * (n - 1) + [1])


def none(shape: tuple[int, ...]) -> Events:
    return rows(0, shape, labels=[])


def blobs(shape: tuple[int, ...]) -> AnomalyDataModule:
    """The two blobs and the tight one beside them, in as many dimensions as the shape has."""
    d = torch.Size(shape).numel()
    beside = [0.0] * (d - 2)
    centers = [[-2.0, 0.0, *beside], [2.0, 0.0, *beside]]
    drawn = Blobs(centers=centers, shift=[6.0, 6.0, *beside], seed=0).load()
    shaped = [Events.of(part.x.view(-1, *shape), part.y) for part in drawn]
    return Rows(Splits(*shaped), batch_size=32, contamination=0.0)


@pytest.fixture(scope="module")
def fitted():
    """Each detector, trained on the blobs once."""
    known = {}

    def get(name: str) -> tuple[Detector, AnomalyDataModule]:
        if name not in known:
            shape = shape_for(name, 2)
            data, detector = blobs(shape), build(name, shape)
            options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
            trainer = pl.Trainer(accelerator="cpu", max_epochs=20, enable_model_summary=False, **options)
            gradients = torch.is_grad_enabled()
            trainer.fit(detector, datamodule=data)
            torch.set_grad_enabled(gradients)  # Lightning leaves them enabled
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
def test_an_absurd_row_has_a_finite_score_and_changes_no_other(name, fitted) -> None:
    detector, data = fitted(name)
    x = data.splits.test.x[:40]
    before = detector(x)
    for value in (1e30, 1e38, -1e30, -3e38):
        for part in (slice(None), slice(0, 1)):  # in all features and in one
            rows = x.clone()
            rows.view(len(x), -1)[7, part] = value
            score = detector(rows)
            assert score.isfinite().all()
            others = torch.arange(len(x)) != 7
            assert torch.allclose(score[others], before[others], rtol=1e-5)
            if name not in BOUNDED:
                assert score[7] >= score.max(), (value, part)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_blobs_are_ranked_and_a_far_point_outscores_a_near_one(name, fitted) -> None:
    detector, data = fitted(name)
    test = data.splits.test
    score = detector(test.x)
    if name == "multiplicity":
        assert (score == 1).all()  # a count of particles, and there is one
        return
    assert auroc(score[test.y == 0].numpy(), score[test.y == 1].numpy()) > 0.9
    points = torch.zeros(2, *detector.shape).flatten(1)
    points[0, 0], points[1] = 2, 40
    near, far = detector(points.view(2, *detector.shape))
    assert far > near


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_row_scores_the_same_alone_in_a_batch_and_permuted(name, fitted) -> None:
    detector, data = fitted(name)
    x = data.splits.test.x[:50]
    whole = detector(x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    single = torch.cat([detector(row[None]) for row in x])
    near_zero = (
        1e-6 * detector(data.splits.test.x).abs().max().item()
    )  # an error is a small difference of larger numbers
    assert torch.allclose(single, whole, rtol=1e-5, atol=near_zero)
    assert torch.allclose(detector(x[order]), whole[order], rtol=1e-5, atol=near_zero)
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
    again = build(name, detector.shape)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again.eval()(data.splits.test.x), detector(data.splits.test.x))


@pytest.mark.parametrize("name", NAMES)
def test_every_trainable_parameter_is_trained(name, trainer) -> None:
    shape = shape_for(name, 3)
    detector = build(name, shape)
    if not list(detector.parameters()):
        assert not detector.selects  # fitted in one pass
        return
    before = {n: p.detach().clone() for n, p in detector.named_parameters() if p.requires_grad}
    data = Rows(Splits(rows(64, shape), none(shape), rows(20, shape, 3), none(shape)), batch_size=8)
    trainer(max_epochs=4).fit(detector, datamodule=data)
    assert [n for n, p in detector.named_parameters() if torch.equal(p, before[n])] == []


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_never_read(name, trainer) -> None:
    scores = []
    for labels in ([0] * 63 + [1], [0] + [1] * 63):
        shape = shape_for(name, 3)
        train = rows(64, shape, labels=labels)
        data = Rows(Splits(train, rows(8, shape, 2), rows(20, shape, 3), none(shape)), batch_size=16)
        detector = build(name, shape)
        trainer(max_epochs=2).fit(detector, datamodule=data)
        scores.append(detector.eval()(data.splits.test.x))
    assert torch.equal(*scores)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_rows_than_a_batch_train(name, trainer) -> None:
    shape = shape_for(name, 3)
    data = Rows(Splits(rows(7, shape), none(shape), rows(20, shape, 3), none(shape)), batch_size=128)
    detector = build(name, shape)
    trainer(max_epochs=2).fit(detector, datamodule=data)
    assert detector.eval()(data.splits.test.x).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_feature_does_no_harm(name, trainer) -> None:
    shape = shape_for(name, 3)
    train, test = rows(64, shape), rows(20, shape, 3)
    train.x.flatten(1)[:, 1] = test.x.flatten(1)[:, 1] = 1e6
    data = Rows(Splits(train, none(shape), test, none(shape)), batch_size=16)
    detector = build(name, shape)
    trainer(max_epochs=2).fit(detector, datamodule=data)
    assert detector.eval()(test.x).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_images_and_context_are_taken(name, trainer) -> None:
    def some(n: int, seed: int) -> Events:
        x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
        return Events.of(x, [0] * (n - 1) + [1], context=x.flatten(1)[:, :2])

    data = Rows(Splits(some(64, 0), some(8, 1), some(20, 2), some(1, 3).take([])), batch_size=16)
    if name in PARTICLES:
        pytest.skip("takes particles alone")
    detector = build(name, (1, 4, 4), context=2)
    trainer(max_epochs=1).fit(detector, datamodule=data)
    assert detector.eval()(data.splits.test.x, data.splits.test.context).shape == (20,)
    assert data.context == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_weight_zero_teaches_nothing(name, trainer) -> None:
    if not list(build(name, shape_for(name, 3)).parameters()):
        pytest.skip("fitted in one pass, without a loss")
    weights = []
    for turn in (0, 1):
        shape = shape_for(name, 3)
        train = rows(64, shape)
        train.x[32:] = rows(32, shape, seed=5 + turn).x
        train.weight.data = torch.tensor([2.0, 0.0]).repeat_interleave(32)
        data = Rows(Splits(train, none(shape), rows(20, shape, 3), none(shape)), batch_size=16)
        detector = build(name, shape)
        detector.scaling = Scaling(shape, "none")
        trainer(max_epochs=2).fit(detector, datamodule=data)
        weights.append(torch.cat([p.detach().flatten() for p in detector.parameters()]))
    assert torch.allclose(*weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_clipping_a_schedule_and_bfloat16_are_choices_for_all(name, trainer) -> None:
    shape = shape_for(name, 3)
    data = Rows(Splits(rows(64, shape), rows(8, shape, 2), rows(20, shape, 3), none(shape)), batch_size=16)
    detector = build(name, shape, optimizer=["optimizer.clip=0.1", "optimizer.schedule=cosine", "optimizer.warmup=0.1"])
    trainer(max_epochs=3, precision="bf16-mixed").fit(detector, datamodule=data)
    assert detector.eval()(data.splits.test.x).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_layers_of_the_network_hold_all_parameters_and_looking_leaves_no_trace(name, fitted) -> None:
    detector, data = fitted(name)
    x = data.splits.test.x[:5]
    before = detector(x)
    found = layers_of(detector, x[:1], x.new_zeros(1, 0))
    assert sum(layer["parameters"] for layer in found) == size(detector)["parameters"]
    assert all(layer["shape"] is not None or layer["parameters"] for layer in found)
    json.dumps(found)
    assert not any(part._forward_hooks for part in detector.modules())
    assert torch.equal(detector(x), before)
