"""Ensembles against their members: trained alone, one after another, in bare loops, and rebuilt slice by slice."""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from sklearn.ensemble import IsolationForest as SklearnForest
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from given import Rows, SaveAt, batch_of, drawn, equal
from straylight.data import Blobs
from straylight.detectors import (
    AAE,
    KNN,
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
    IsolationForest,
    RealNVP,
)
from straylight.nn import Optimization
from straylight.nn.stacked import StackedLinear
from straylight.rows.batch import Batch
from straylight.run import Run

SMALL = {"latent": 2, "generator": [8], "discriminator": [8]}
MEMBERS: dict[str, Callable[..., Detector]] = {
    "autoencoder": partial(AutoEncoder, hidden=[8], latent=2),
    "vae": partial(VAE, hidden=[8], latent=2),
    "maf": partial(MAF, layers=2, hidden=8),
    "nsf": partial(NSF, layers=2, hidden=8, bins=3),
    "realnvp": partial(RealNVP, layers=2, hidden=8),
    "aae": partial(AAE, hidden=[8], latent=2, critic=[8]),
    "anogan": partial(AnoGAN, **SMALL, steps=5),
    "fanogan": partial(FAnoGAN, **SMALL, critic_steps=2),
    "deep_svdd": partial(DeepSVDD, hidden=[8], latent=2),
    "rbm": partial(RBM, hidden=4),
    "rbm_persistent": partial(RBM, hidden=4, persistent=True, chains=10),
    "knn": partial(KNN, k=3),
    "isolation_forest": partial(IsolationForest, n_estimators=10),
}
STACKED = ("autoencoder", "vae", "maf", "nsf", "realnvp")
LOOPED = ("aae", "anogan", "fanogan", "deep_svdd", "rbm", "rbm_persistent")


def rows(group: int = 3) -> Rows:
    return Rows(drawn(70, 3), drawn(20, 3, seed=1), batch_size=16, group=group)  # 5 mini-batches, a last one of 6


def served(data: Rows, epochs: int) -> Iterator[Batch]:
    """Mini-batches in the order of training."""
    loader = data.train_dataloader()
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for group in loader:
            for batch, _ in group.minibatches():
                yield batch


def several(name: str, members: int, seed: int = 0, shape: tuple[int, ...] = (3,), **common) -> Ensemble:
    torch.manual_seed(seed)
    return Ensemble(shape, member=MEMBERS[name], members=members, **common)


def singles(name: str, members: int, seed: int = 0, shape: tuple[int, ...] = (3,), **common) -> list[Detector]:
    """Detectors built one after the other, as an ensemble builds its members."""
    torch.manual_seed(seed)
    return [MEMBERS[name](shape=shape, **common) for _ in range(members)]


def rebuilt(ensemble: Ensemble, number: int, member: Callable[..., Detector]) -> Detector:
    """A detector with the number-th slice of stacked weights; all else that is kept is common to the members."""
    alone = member(shape=ensemble.shape, context=ensemble.context)
    parameters = {name for name, _ in ensemble.members[0].named_parameters()}
    state = ensemble.members[0].state_dict()
    alone.load_state_dict({name: v[number] if name in parameters else v for name, v in state.items()})
    return alone.eval()


def scores_of(ensemble: Ensemble, x: Tensor) -> Tensor:
    return ensemble.member_scores(ensemble.scaling(x), x.new_zeros(len(x), ensemble.context)).detach()


def assert_close(detector: Detector, other: Detector, **tolerance: float) -> None:
    for name, p in detector.named_parameters():
        assert torch.allclose(p, other.get_parameter(name), **tolerance), name


# one member


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("name", ["autoencoder", "vae", "maf", *LOOPED])
def test_an_ensemble_of_one_is_the_detector_alone(name, clip, trainer) -> None:
    recipe = Optimization(lr=5e-3, clip=clip, schedule="cosine")
    ensemble, fit = several(name, 1, optimizer=recipe), trainer(max_epochs=3)
    fit.fit(ensemble, datamodule=rows())
    (alone,) = singles(name, 1, optimizer=recipe)
    apart = trainer(max_epochs=3)
    apart.fit(alone, datamodule=rows())
    assert not ensemble.stacked
    assert_close(ensemble.members[0], alone, rtol=1e-6, atol=1e-7)
    assert fit.global_step == apart.global_step == 15
    assert fit.callback_metrics.keys() == apart.callback_metrics.keys()
    for what, value in apart.callback_metrics.items():
        assert fit.callback_metrics[what].item() == pytest.approx(value.item(), rel=1e-5), what

    x = drawn(40, 3, seed=2) * 2
    ensemble.eval(), alone.eval()
    score = alone(x).detach()
    assert torch.allclose(scores_of(ensemble, x)[:, 0], score, rtol=1e-6, atol=1e-6)
    # standardised over the training rows, which leaves the order as it is
    train = alone(rows().x).detach().double().numpy()
    truth = (score.double().numpy() - train.mean()) / train.std()
    assert np.allclose(ensemble(x).detach().numpy(), truth, rtol=1e-4, atol=1e-4)
    assert torch.equal(ensemble(x).argsort(stable=True), score.argsort(stable=True))


def test_scores_are_standardised_member_by_member_and_averaged(trainer) -> None:
    ensemble = several("autoencoder", 3)
    trainer(max_epochs=3).fit(ensemble, datamodule=rows())
    train = scores_of(ensemble, rows().x).double().numpy()
    x = drawn(40, 3, seed=2) * 2
    each = (scores_of(ensemble, x).double().numpy() - train.mean(0)) / train.std(0)
    assert np.allclose(ensemble(x).detach().numpy(), each.mean(1), rtol=1e-4, atol=1e-5)
    assert abs(ensemble(rows().x).mean().item()) < 1e-5


def test_scores_are_standardised_in_the_context_of_the_training_rows(trainer) -> None:
    x, c = drawn(70, 2), 3 * drawn(70, 1, seed=1)
    torch.manual_seed(0)
    ensemble = Ensemble((2,), member=MEMBERS["maf"], members=2, context=1)
    trainer(max_epochs=5).fit(ensemble, datamodule=Rows(x + c, context=c, batch_size=16))
    scores = ensemble.member_scores(ensemble.scaling(x + c), c).detach()
    assert torch.allclose(ensemble.centre, scores.mean(0), rtol=1e-4)
    assert torch.allclose(ensemble.width, scores.std(0, correction=0), rtol=1e-4)


def test_members_that_give_every_row_the_same_score_are_not_divided_by_zero(trainer) -> None:
    ensemble = several("autoencoder", 2)
    trainer(max_epochs=1).fit(ensemble, datamodule=Rows(torch.ones(40, 3), batch_size=16))
    assert ensemble(drawn(5, 3)).isfinite().all() and ensemble(torch.ones(5, 3)).abs().max() < 1e-4


# stacked members


def test_dense_detectors_whose_loss_is_a_mean_over_rows_are_stacked() -> None:
    for name in STACKED:
        assert several(name, 3).stacked and not several(name, 1).stacked, name
    for name in (*LOOPED, "knn", "isolation_forest"):
        assert not several(name, 3).stacked, name
    for member in (AutoEncoder, VAE):
        convolutional = partial(member, hidden=[8], latent=2, channels=[2])
        assert not Ensemble((1, 4, 4), member=convolutional, members=3).stacked
    assert Ensemble((1, 4, 4), member=MEMBERS["autoencoder"], members=3).stacked


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("name", ["autoencoder", "maf", "nsf", "realnvp"])
def test_stacked_members_train_as_if_one_after_another_in_a_bare_loop(name, clip, trainer) -> None:
    recipe = Optimization(lr=5e-3, clip=clip)
    ensemble = several(name, 3, shape=(2,), optimizer=recipe)
    assert ensemble.stacked
    data = Rows(drawn(70, 2), batch_size=16, group=3)
    fit = trainer(max_epochs=4)
    fit.fit(ensemble, datamodule=data)
    norms, losses = [], []
    for number, alone in enumerate(singles(name, 3, shape=(2,))):
        alone.scaling = ensemble.scaling
        parameters = list(alone.parameters())
        adam = torch.optim.Adam(parameters, lr=5e-3)
        for batch in served(data, 4):
            adam.zero_grad()
            loss = alone.loss(alone.scaled(batch))
            loss.backward()
            if clip:
                norms.append(nn.utils.clip_grad_norm_(parameters, clip).item())
            adam.step()
            losses.append(loss.item() * len(batch.x))
        found = rebuilt(ensemble, number, MEMBERS[name])
        assert_close(found, alone, rtol=1e-3, atol=2e-5)
        x = drawn(40, 2, seed=2) * 2
        assert torch.allclose(found(x), alone(x), rtol=1e-3, atol=1e-4)
        assert torch.allclose(scores_of(ensemble, x)[:, number], alone(x), rtol=1e-3, atol=1e-4)
    last = np.array(losses).reshape(3, 4, 5)[:, -1].sum(1) / 70
    assert fit.callback_metrics["train/loss"].item() == pytest.approx(last.mean(), rel=1e-3)
    if clip:  # far apart, so that clipping all together would have been another thing
        by_member = np.array(norms).reshape(3, -1)
        assert (by_member > clip).mean() > 0.5 and (by_member.max(0) > 1.05 * by_member.min(0)).all()


SHAPED = {
    **{name: ((4,), 0, MEMBERS[name]) for name in STACKED},
    "flows of several layers": ((5,), 0, partial(RealNVP, layers=6, hidden=8, blocks=2)),
    "splines in a context": ((3,), 2, partial(NSF, layers=3, hidden=8, bins=3)),
    "masked flows in a context": ((3,), 2, partial(MAF, layers=3, hidden=8, blocks=2)),
    "images": ((1, 4, 4), 0, partial(AutoEncoder, hidden=[8], latent=2)),
    "particles": ((4, 3), 0, partial(AutoEncoder, hidden=[8], latent=2, mask=True)),
    "bernoulli": ((4,), 0, partial(VAE, hidden=[8], latent=2, likelihood="bernoulli", scaling="minmax")),
    **{
        f"vae {score}": ((4,), 0, partial(VAE, hidden=[8], latent=2, score=score, samples=5))
        for score in ("log_likelihood", "reconstruction", "kl", "mu2", "rz")
    },
}


@pytest.mark.parametrize("name", SHAPED)
def test_stacked_scores_are_those_of_members_rebuilt_slice_by_slice(name, trainer) -> None:
    shape, context, member = SHAPED[name]
    torch.manual_seed(0)
    ensemble = Ensemble(shape, member=member, members=3, context=context)
    assert ensemble.stacked and len(ensemble.members) == 1
    ensemble.scaling.fit([2 * drawn(100, *shape, seed=4) + 1])
    with torch.no_grad():
        for p in ensemble.parameters():  # flows begin near the identity, all alike
            p.add_(0.2 * torch.randn_like(p))
        for layer in ensemble.modules():
            if getattr(layer, "mask", None) is not None and isinstance(layer, StackedLinear):
                layer.weight.mul_(layer.mask)
        for n in (1, 7, 40):
            x, c = 2 * drawn(n, *shape) + 1, drawn(n, context, seed=3)
            if "particles" in name:
                x[::2, -1] = 0
            found = ensemble.member_scores(ensemble.scaling(x), c)
            assert found.shape == (n, 3)
            for number in range(3):
                alone = rebuilt(ensemble, number, member)
                assert torch.allclose(found[:, number], alone(x, c), rtol=1e-4, atol=1e-5), number
            assert ((found[:, 0] - found[:, 1]).abs() > 1e-6).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["autoencoder", "maf", "nsf"])
def test_stacked_losses_and_gradients_are_those_of_the_members(name, weighted) -> None:
    ensemble = several(name, 3)
    batch = batch_of(drawn(20, 3), torch.rand(20) if weighted else None)
    loss = ensemble.losses(batch)["loss"]
    (loss * 3).backward()
    truths = []
    for number in range(3):
        alone = rebuilt(ensemble, number, MEMBERS[name])
        truth = alone.loss(batch)
        truth.backward()
        truths.append(truth.item())
        for key, p in alone.named_parameters():
            stacked = ensemble.members[0].get_parameter(key).grad[number]
            assert torch.allclose(stacked, p.grad, rtol=1e-4, atol=1e-6), key
    assert loss.item() == pytest.approx(np.mean(truths), rel=1e-5)


def test_a_stacked_variational_autoencoder_draws_noise_for_each_member() -> None:
    ensemble = several("vae", 2)
    with torch.no_grad():
        for p in ensemble.parameters():
            p[1] = p[0]  # two members alike
    (2 * ensemble.losses(batch_of(drawn(1, 3).expand(50_000, 3)))["loss"]).backward()
    one, other = ensemble.get_parameter("members.0.decoder.0.weight").grad
    # as from other draws of the same
    assert 0 < (one - other).norm() < 0.05 * one.norm()


# members that take turns


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("name", ["deep_svdd", "convolutional"])
def test_members_that_draw_no_noise_train_in_turns_as_each_would_alone(name, clip, trainer) -> None:
    shape = (1, 4, 4) if name == "convolutional" else (3,)
    member = partial(AutoEncoder, channels=[2], hidden=[8], latent=2) if name == "convolutional" else MEMBERS[name]
    recipe = Optimization(lr=5e-3, clip=clip)
    data = Rows(drawn(70, *shape), batch_size=16, group=3)
    torch.manual_seed(0)
    ensemble = Ensemble(shape, member=member, members=3, optimizer=recipe)
    fit = trainer(max_epochs=4)
    fit.fit(ensemble, datamodule=data)
    assert fit.global_step == 20  # a mini-batch is one step, however many members take it
    torch.manual_seed(0)
    for one, alone in zip(ensemble.members, [member(shape=shape, optimizer=recipe) for _ in range(3)], strict=True):
        trainer(max_epochs=4).fit(alone, datamodule=data)
        assert_close(one, alone, rtol=1e-4, atol=1e-6)
        x = drawn(40, *shape, seed=2)
        assert torch.allclose(one(x), alone(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["aae", "anogan", "fanogan", "rbm"])
def test_the_first_of_several_members_is_the_detector_alone(name, trainer) -> None:
    """It draws its noise first, from the same seed."""
    ensemble = several(name, 3)
    trainer(max_epochs=3).fit(ensemble, datamodule=rows())
    (alone,) = singles(name, 1)
    trainer(max_epochs=3).fit(alone, datamodule=rows())
    assert_close(ensemble.members[0], alone, rtol=1e-5, atol=1e-6)


class Listener(pl.Callback):
    """Hears of each step of the optimiser, for which Lightning must take it."""

    def __init__(self) -> None:
        self.heard = 0

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.heard += 1


@pytest.mark.parametrize("name", ["vae", "aae", "fanogan"])
def test_it_trains_the_same_when_lightning_takes_the_steps_and_however_grouped(name, trainer) -> None:
    def trained(group: int, callbacks: list[pl.Callback]) -> dict[str, Tensor]:
        ensemble, fit = several(name, 2), trainer(max_epochs=3, callbacks=callbacks)
        fit.fit(ensemble, datamodule=rows(group))
        assert fit.global_step == 15
        return ensemble.state_dict()

    listener = Listener()
    first = trained(32, [])
    assert equal(first, trained(1, []))
    assert equal(first, trained(3, [listener]))
    # one for all; two networks of two members; two critics, and a generator at times or an encoder
    assert listener.heard == {"vae": 15, "aae": 60, "fanogan": 10 * 2 + 5 * 2 + 5 * 2}[name]


def test_a_won_discriminator_is_said_of_an_ensemble_once(trainer, caplog) -> None:
    ensemble = several("aae", 2)
    log_losses = ensemble._log_losses
    ensemble._log_losses = lambda stage: {**log_losses(stage), "discriminator": 0.001}
    with caplog.at_level(logging.WARNING, logger="straylight"):
        trainer(max_epochs=3).fit(ensemble, datamodule=rows())
    assert sum("AAE has won" in record.getMessage() for record in caplog.records) == 1


# members


@pytest.mark.parametrize("name", [*STACKED, *LOOPED])
def test_members_differ(name, trainer) -> None:
    ensemble = several(name, 3)
    trainer(max_epochs=2).fit(ensemble, datamodule=rows())
    scores = scores_of(ensemble.eval(), drawn(40, 3, seed=2))
    for one, other in itertools.combinations(range(3), 2):
        assert (scores[:, one] - scores[:, other]).abs().max() > 1e-3
        alone = (
            [rebuilt(ensemble, number, MEMBERS[name]) for number in (one, other)]
            if ensemble.stacked
            else [ensemble.members[number] for number in (one, other)]
        )
        first, second = (torch.cat([p.detach().flatten() for p in member.parameters()]) for member in alone)
        assert (first - second).abs().max() > 1e-2


def test_forests_are_scikit_learns_by_seeds_of_their_own(trainer) -> None:
    x = drawn(300, 3)
    ensemble = several("isolation_forest", 3, seed=7)
    trainer(max_epochs=1).fit(ensemble, datamodule=Rows(x))
    scaled = ensemble.scaling(x).numpy()
    scores = scores_of(ensemble, x).numpy()
    for number in range(3):
        truth = SklearnForest(n_estimators=10, max_samples=256, random_state=7 * 1_000_003 + number).fit(scaled)
        assert np.allclose(scores[:, number], -truth.score_samples(scaled), rtol=1e-5)
    assert not np.allclose(scores[:, 0], scores[:, 1])


def test_neighbours_are_found_by_every_member(trainer) -> None:
    x, far = drawn(300, 3), 2 * drawn(40, 3, seed=2)
    ensemble = several("knn", 2)
    trainer(max_epochs=1).fit(ensemble, datamodule=Rows(x))
    train, test = (ensemble.scaling(some).double().numpy() for some in (x, far))
    neighbours = NearestNeighbors(n_neighbors=3).fit(train)
    truth, around = (neighbours.kneighbors(some)[0].mean(1) for some in (test, train))
    assert np.allclose(scores_of(ensemble, far).numpy(), truth[:, None], rtol=1e-4)
    assert np.allclose(ensemble(far).numpy(), (truth - around.mean()) / around.std(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("members", [0, -1])
def test_an_ensemble_without_members_is_refused(members) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        several("autoencoder", members)


# what is kept


@pytest.mark.parametrize("name", MEMBERS)
def test_saved_and_loaded_it_gives_the_same_scores(name, trainer) -> None:
    ensemble = several(name, 2)
    trainer(max_epochs=2).fit(ensemble, datamodule=rows())
    file = io.BytesIO()
    torch.save(ensemble.state_dict(), file)
    file.seek(0)
    again = several(name, 2, seed=5)
    again.load_state_dict(torch.load(file, weights_only=True))
    x = 2 * drawn(40, 3, seed=2)
    assert torch.equal(again.eval()(x), ensemble.eval()(x))
    assert torch.equal(scores_of(again, x), scores_of(ensemble, x))
    assert not torch.equal(several(name, 2, seed=5).centre, again.centre)  # it was read, too


@pytest.mark.parametrize("step", [3, 10, 13])
@pytest.mark.parametrize("name", ["vae", "fanogan", "deep_svdd", "rbm_persistent"])
def test_a_resume_ends_with_the_same_weights(name, step, trainer, tmp_path) -> None:
    ensemble = several(name, 2)
    trainer(max_epochs=3, callbacks=[SaveAt(step, tmp_path / "a.ckpt")]).fit(ensemble, datamodule=rows(group=1))
    resumed, fit = several(name, 2), trainer(max_epochs=3)
    torch.manual_seed(12345)  # whatever the generator's state was
    fit.fit(resumed, datamodule=rows(group=1), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert fit.global_step == 15 and equal(ensemble.state_dict(), resumed.state_dict())


def test_predictions_bring_the_members_scores(trainer) -> None:
    ensemble = several("autoencoder", 3)
    fit = trainer(max_epochs=2)
    data = rows()
    fit.fit(ensemble, datamodule=data)
    ensemble.rows_at_once = 7  # several parts, and a last one of another size
    x = data.x
    batch = Batch(x, torch.zeros(70).long(), x[:, :0], torch.ones(1).expand(70), torch.arange(70))
    with torch.no_grad():
        scored = ensemble.predict_step(batch, 0)
        assert scored.members.shape == (70, 3) and scored.members.dtype == torch.float32
        standardised = (scores_of(ensemble, x) - ensemble.centre) / ensemble.width
        assert torch.allclose(scored.members, standardised, rtol=1e-4, atol=1e-5)
        assert torch.allclose(scored.score, ensemble(x), rtol=1e-4, atol=1e-5)


def test_a_context_reaches_every_member() -> None:
    torch.manual_seed(0)
    ensemble = Ensemble((2,), member=partial(MAF, layers=2, hidden=8), members=3, context=1)
    with pytest.raises(ValueError, match="context of 1 column"):
        ensemble(torch.zeros(2, 2))
    low, high = (ensemble.member_scores(torch.zeros(1, 2), torch.full((1, 1), c)) for c in (-3.0, 3.0))
    assert (low != high).all()


@pytest.mark.parametrize(
    ("options", "members", "kind"),
    [
        (["detector.members=3"], 3, AutoEncoder),
        (["detector.members=2", "detector@detector.member=vae", "detector.member.latent=2"], 2, VAE),
        (["detector.members=2", "detector@detector.member=isolation_forest"], 2, IsolationForest),
    ],
)
def test_a_run_keeps_the_scores_of_its_members(options, members, kind, straylight_train) -> None:
    ended = straylight_train("detector=ensemble", "data=blobs", *options)
    assert ended.status == 0, ended.err
    assert ended.result["detector"] == "ensemble"
    table, detector = pq.read_table(ended.run / "scores.parquet"), Run.open(ended.run).detector
    assert isinstance(detector.members[0], kind) and detector.size == members
    if kind is VAE:
        assert detector.members[0].decoder[0].weight.shape[2] == 2  # detector.member.latent
    names = [f"member_{number}" for number in range(members)]
    assert [name for name in table.column_names if name.startswith("member_")] == names
    each = np.stack([table[name].to_numpy() for name in names], 1).astype(float)
    assert not np.allclose(each[:, 0], each[:, 1])
    splits = Blobs(seed=0).splits
    train, test = (scores_of(detector, part.x).double().numpy() for part in (splits.train, splits.test))
    assert np.allclose(each, (test - train.mean(0)) / train.std(0), rtol=1e-4, atol=1e-4)
    assert np.allclose(table["score"].to_numpy(), each.mean(1), rtol=1e-4, atol=1e-4)


def test_other_detectors_keep_one_score(straylight_train) -> None:
    ended = straylight_train("detector=knn", "data=blobs")
    assert not [name for name in pq.read_table(ended.run / "scores.parquet").column_names if "member" in name]
