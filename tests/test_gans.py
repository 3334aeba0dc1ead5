"""Detectors of two networks against each other: searches in closed form, training against loops written out by hand."""

from __future__ import annotations

import copy
import inspect
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.optimize import lsq_linear
from torch import Tensor, nn

from given import Rows, SaveAt, batch_of, drawn
from straylight.detectors import AAE, AnoGAN, AutoEncoder, Detector, FAnoGAN
from straylight.detectors.adversarial import spread
from straylight.detectors.latent_search import latent_search
from straylight.nn import Optimization
from straylight.rows.batch import Batch

SMALL = {"latent": 2, "generator": [8], "discriminator": [8]}


def served(data: Rows, epochs: int) -> Iterator[Tensor]:
    """The rows of each mini-batch in the order of training."""
    loader = data.train_dataloader()
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for group in loader:
            for batch, _ in group.minibatches():
                yield batch.x


def dense(network: nn.Module, x: np.ndarray) -> np.ndarray:
    """A network of linear layers and leaky ReLUs of slope 0.2, in float64 and without torch."""
    for layer in network.modules():
        match layer:
            case nn.Linear():
                x = x @ layer.weight.detach().double().numpy().T
                x = x if layer.bias is None else x + layer.bias.detach().double().numpy()
            case nn.LeakyReLU():
                assert layer.negative_slope == 0.2
                x = np.where(x > 0, x, 0.2 * x)
            case nn.Sequential() | nn.Flatten() | nn.Unflatten():
                pass
            case _:
                raise AssertionError(layer)
    return x


def weights(detector: Detector) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in detector.named_parameters()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The networks any of whose weights are not what they were; all of each network's must have moved or none."""
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    networks = {name.partition(".")[0] for name in changed}
    assert changed == {name for name in before if name.partition(".")[0] in networks}
    return networks


# the search in the latent space


def linear_generator(seed: int = 0, **options) -> tuple[AnoGAN, np.ndarray, np.ndarray]:
    """An AnoGAN whose generator is z -> W z + b, and these two."""
    torch.manual_seed(seed)
    gan = AnoGAN(
        (5,), latent=2, generator=[], discriminator=[8], scaling="none", weight=0, residual="squared", **options
    )
    (layer,) = [m for m in gan.generator.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        layer.weight.copy_(torch.randn(5, 2))
    return gan, layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()


def test_with_a_linear_generator_the_score_is_the_squared_distance_from_its_plane() -> None:
    gan, w, b = linear_generator()
    inside = np.random.default_rng(0).uniform(-0.6, 0.6, (40, 2))
    off = np.random.default_rng(1).normal(size=(40, 5))
    off -= off @ np.linalg.pinv(w).T @ w.T  # at right angles to the plane
    x = torch.from_numpy(inside @ w.T + b + off).float()
    z, residual, *_ = np.linalg.lstsq(w, (x.double().numpy() - b).T, rcond=None)
    assert np.abs(z).max() < 0.7  # or else the bound on latents would show
    found, distance = gan.search(x)
    assert np.allclose(found.numpy(), z.T, atol=1e-3)
    assert np.allclose(distance.numpy(), residual, rtol=1e-4)
    assert np.allclose(gan(x).detach().numpy(), residual, rtol=1e-4)


def test_with_a_linear_generator_far_events_score_their_distance_from_the_image_of_the_cube() -> None:
    gan, w, b = linear_generator(lr=3e-2)
    x = 4 * drawn(20, 5)
    solved = [lsq_linear(w, row - b, bounds=(-1, 1), tol=1e-12) for row in x.double().numpy()]
    assert sum(np.abs(one.x).max() > 0.99 for one in solved) > 10
    assert np.allclose(gan(x).detach().numpy(), [2 * one.cost for one in solved], rtol=1e-4)


@pytest.mark.parametrize("starts", [1, 4])
@pytest.mark.parametrize("n", [1, 3, 8, 50])
@pytest.mark.parametrize("discrimination", ["features", "logit"])
def test_a_batch_is_searched_as_its_rows_one_by_one(discrimination, n, starts) -> None:
    torch.manual_seed(0)
    gan = AnoGAN((3,), **SMALL, steps=60, starts=starts, discrimination=discrimination)
    x = drawn(n, 3)
    single = torch.cat([gan(row[None]) for row in x])
    assert torch.allclose(gan(x), single, rtol=1e-5, atol=0)
    assert torch.allclose(gan.search(x)[0], torch.cat([gan.search(row[None])[0] for row in x]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("others", [0.0, 1e6, math.nan])
def test_a_search_never_sees_another_row(others) -> None:
    torch.manual_seed(0)
    gan = AnoGAN((3,), **SMALL, steps=60, starts=3)
    x = drawn(50, 3)
    changed = torch.full_like(x, others)
    kept = [7, 31, 49]
    changed[kept] = x[kept]
    assert torch.equal(gan(changed)[kept], gan(x)[kept])


def test_no_row_is_no_score() -> None:
    assert AnoGAN((3,), **SMALL, steps=2)(torch.zeros(0, 3)).shape == (0,)


def test_the_best_of_several_starts_is_kept() -> None:
    torch.manual_seed(0)
    gan = AnoGAN((3,), **SMALL, steps=20, starts=4)
    x = drawn(16, 3)
    each = []
    for start in gan.starts.clone():
        gan.starts = start[None]
        each.append(gan(x))
    torch.manual_seed(0)
    together = AnoGAN((3,), **SMALL, steps=20, starts=4)(x)
    assert torch.allclose(together, torch.stack(each).amin(0), rtol=1e-5)
    assert len(set(torch.stack(each).argmin(0).tolist())) > 1


class Recorded:
    """A bumpy function of latents for each of B events, and every call of it."""

    def __init__(self, events: int) -> None:
        self.goal = drawn(events, 3, seed=1).double()
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __call__(self, z: Tensor) -> Tensor:
        distance = self.at(z, self.goal)
        self.calls.append((z.detach().clone(), distance.detach().clone()))
        return distance

    @staticmethod
    def at(z: Tensor, goal: Tensor) -> Tensor:
        return (z - goal).square().sum(-1) + (3 * z).sin().abs().sum(-1) + z[..., 0] * z[..., 1]


@pytest.mark.parametrize(("starts", "events"), [(1, 1), (3, 4)])
def test_the_search_takes_the_steps_of_torchs_adam(starts, events) -> None:
    start, steps = drawn(starts, 3, seed=2).double(), 80
    distance = Recorded(events)
    latent_search(distance, start, events, steps=steps, lr=0.07)
    assert len(distance.calls) == steps + 1  # the last latent is looked at, too
    for k in range(starts):
        for b in range(events):
            z = start[k].clone().requires_grad_(True)
            adam = torch.optim.Adam([z], lr=0.07)
            for visited, _ in distance.calls:
                assert torch.allclose(visited[k, b], z, rtol=0, atol=1e-9)
                adam.zero_grad()
                Recorded.at(z, distance.goal[b]).backward()
                adam.step()


def test_the_search_keeps_the_nearest_latent_that_it_came_by() -> None:
    distance = Recorded(6)
    z, found = latent_search(distance, drawn(3, 3, seed=2).double(), 6, steps=30, lr=1.5)
    visited = torch.stack([where for where, _ in distance.calls]).flatten(0, 1)
    reached = torch.stack([d for _, d in distance.calls]).flatten(0, 1)
    best = reached.argmin(0)
    assert (best < len(visited) - 3).any()  # it is not the last everywhere, or this would test nothing
    assert torch.equal(found, reached.amin(0)) and torch.equal(z, visited[best, torch.arange(6)])


def test_a_bounded_search_stays_in_the_bound_and_reaches_it() -> None:
    visited = []

    def distance(z: Tensor) -> Tensor:
        visited.append(z.detach())
        return (z - torch.tensor([5.0, -5.0])).square().sum(2)

    z, _ = latent_search(distance, torch.zeros(2, 2), 3, steps=50, lr=0.1, bound=1.0)
    assert torch.stack(visited).abs().max() == 1
    assert torch.equal(z, torch.tensor([1.0, -1.0]).expand(3, 2))
    free, _ = latent_search(distance, torch.zeros(2, 2), 3, steps=50, lr=0.1)
    assert (free.abs() > 2).all()


@pytest.mark.parametrize("discrimination", ["features", "logit", "discriminator"])
def test_scoring_is_the_same_in_every_mode_and_leaves_nothing_behind(discrimination) -> None:
    torch.manual_seed(0)
    gan = AnoGAN((3,), **SMALL, steps=20, starts=2, discrimination=discrimination).eval()
    gan.generator[0].bias.requires_grad_(False)
    wanted = {name: p.requires_grad for name, p in gan.named_parameters()}
    before, generator = copy.deepcopy(gan.state_dict()), torch.get_rng_state()
    x = drawn(10, 3)
    scores = []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            scores.append(gan(x.clone()).detach().clone())
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])
    assert torch.equal(generator, torch.get_rng_state())
    assert all(p.grad is None for p in gan.parameters())
    assert {name: p.requires_grad for name, p in gan.named_parameters()} == wanted
    assert equal(before, gan.state_dict())


@pytest.mark.parametrize("residual", ["absolute", "squared"])
@pytest.mark.parametrize("discrimination", ["features", "logit"])
def test_the_distance_is_the_papers(discrimination, residual) -> None:
    torch.manual_seed(0)
    gan = AnoGAN((1, 2, 2), **SMALL, scaling="none", weight=0.3, discrimination=discrimination, residual=residual)
    x, z = drawn(6, 1, 2, 2), drawn(6, 2, seed=1)[None].repeat(2, 1, 1)
    z[1] += 1
    found = gan.distance(x, gan.features(x), z).detach().numpy()
    rows = x.flatten(1).double().numpy()
    made = dense(gan.generator, z.double().numpy())
    error = np.abs(made - rows) if residual == "absolute" else (made - rows) ** 2
    seen = dense(gan.features, made)
    if discrimination == "logit":
        strange = -np.log(1 / (1 + np.exp(-dense(gan.head, seen)[..., 0])))
    else:
        strange = np.abs(dense(gan.features, rows) - seen).sum(2)
    assert np.allclose(found, error.sum(2) + 0.3 * strange, rtol=1e-5)


def test_the_discriminator_alone_scores_by_minus_its_logit() -> None:
    torch.manual_seed(0)
    gan = AnoGAN((3,), **SMALL, scaling="none", discrimination="discriminator")
    x = drawn(6, 3)
    logit = dense(gan.head, dense(gan.features, x.double().numpy()))[:, 0]
    assert np.allclose(gan(x).detach().numpy(), -logit, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("detector", [AnoGAN, FAnoGAN])
@pytest.mark.parametrize(
    "scaling", ["minmax", "minmax_common", "unit", "gcn_l1", "standard", "standard_common", "none"]
)
def test_what_is_made_has_the_range_of_scaled_events(scaling, detector) -> None:
    torch.manual_seed(0)
    gan = detector((3,), **SMALL, scaling=scaling)
    made = gan.generator(100 * drawn(200, 2))
    if scaling in ("minmax", "minmax_common", "unit", "gcn_l1"):
        assert made.min() >= 0 and made.max() <= 1 and made.max() - made.min() > 0.9
    else:
        assert made.min() < -1 and made.max() > 2


def test_latents_are_drawn_where_the_search_looks() -> None:
    torch.manual_seed(0)
    z = AnoGAN((3,), **SMALL).draw(5000)
    assert stats.kstest(z.flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    z = FAnoGAN((3,), **SMALL).draw(5000)
    assert stats.kstest(z.flatten().numpy(), stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight": -1.0}, "weight must not be negative"),
        ({"steps": 0}, "steps, lr and starts must be positive"),
        ({"lr": 0.0}, "steps, lr and starts must be positive"),
        ({"starts": 0}, "steps, lr and starts must be positive"),
        ({"discrimination": "logits"}, "one of features, logit, discriminator, not 'logits'"),
        ({"residual": "square"}, "one of absolute, squared, not 'square'"),
        ({"discriminator": []}, "needs a hidden layer"),
        ({"noise": -0.1}, "noise must not be negative"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_what_a_gan_cannot_be_is_said(options, said) -> None:
    with pytest.raises(ValueError, match=said):
        AnoGAN((3,), **{**SMALL, **options})


# two networks take turns

TURNS = {
    "anogan": (lambda **o: AnoGAN((3,), **SMALL, steps=5, **o), [{"features", "head"}, {"generator"}]),
    "aae": (lambda **o: AAE((3,), hidden=[8], latent=2, critic=[8], **o), [{"encoder", "decoder"}, {"critic"}]),
}


def fanogan(**options) -> FAnoGAN:
    return FAnoGAN((3,), **SMALL, critic_steps=3, **options)


ALL: dict[str, Callable[..., Detector]] = {**{name: make for name, (make, _) in TURNS.items()}, "fanogan": fanogan}


def descents(detector: Detector) -> list[set[str]]:
    """A list that grows by the networks that each step of the optimiser moves."""
    found: list[set[str]] = []
    descend_on = detector.descend_on

    def spy(*arguments: object) -> None:
        before = weights(detector)
        descend_on(*arguments)
        found.append(moved(before, weights(detector)))

    detector.descend_on = spy
    return found


class Listener(pl.Callback):
    """Hears of each step of the optimiser, for which Lightning must take it."""

    def __init__(self) -> None:
        self.heard = 0

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.heard += 1


@pytest.mark.parametrize("listening", [False, True])
@pytest.mark.parametrize("name", TURNS)
def test_each_network_learns_in_its_own_turn_and_a_mini_batch_is_one_step(name, listening, trainer) -> None:
    make, turn = TURNS[name]
    torch.manual_seed(0)
    detector, listener = make(), Listener()
    found = descents(detector)
    fit = trainer(max_epochs=2, callbacks=[listener] if listening else [])
    fit.fit(detector, datamodule=Rows(drawn(64, 3), batch_size=16))
    assert found == turn * 8 and fit.global_step == 8
    assert listener.heard == (16 if listening else 0)


@pytest.mark.parametrize("listening", [False, True])
def test_the_critic_learns_on_every_mini_batch_the_generator_on_some_and_the_encoder_at_the_end(
    listening, trainer
) -> None:
    torch.manual_seed(0)
    detector = fanogan(phases={"gan": 2, "encoder": 1})
    found = descents(detector)
    fit = trainer(max_epochs=3, callbacks=[Listener()] if listening else [])
    fit.fit(detector, datamodule=Rows(drawn(64, 3), batch_size=16, group=3))
    critic, generator, encoder = {"features", "head"}, {"generator"}, {"encoder"}
    assert found == [critic, critic, critic, generator] * 2 + [critic, critic] + [encoder] * 4
    assert fit.global_step == 12


@pytest.mark.parametrize("name", ALL)
def test_a_limit_of_steps_counts_mini_batches(name, trainer) -> None:
    torch.manual_seed(0)
    fit = trainer(max_epochs=5, max_steps=6)
    fit.fit(ALL[name](), datamodule=Rows(drawn(64, 3), batch_size=16))
    assert fit.global_step == 6


@pytest.mark.parametrize("name", ALL)
def test_training_is_the_same_bit_for_bit_by_seed_and_however_mini_batches_are_grouped(name, trainer) -> None:
    def trained(seed: int, group: int, callbacks: list[pl.Callback]) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        detector = ALL[name]()
        data = Rows(drawn(70, 3), drawn(20, 3, seed=1), batch_size=16, group=group)
        trainer(max_epochs=3, callbacks=callbacks).fit(detector, datamodule=data)
        return weights(detector)

    first = trained(0, 32, [])
    assert equal(first, trained(0, 32, []))
    assert equal(first, trained(0, 1, []))
    assert equal(first, trained(0, 3, [Listener()]))
    assert not equal(first, trained(1, 32, []))


def test_what_the_two_minimise_is_binary_cross_entropy() -> None:
    torch.manual_seed(0)
    gan = AnoGAN((3,), **SMALL, scaling="none")
    x, fake, weight = drawn(32, 3), drawn(32, 3, seed=1), torch.rand(32)
    real, made = (
        torch.from_numpy(dense(gan.head, dense(gan.features, rows.double().numpy()))[:, 0]) for rows in (x, fake)
    )
    one, zero = torch.ones(32).double(), torch.zeros(32).double()
    cross_entropy = F.binary_cross_entropy_with_logits
    for batch, w in ((batch_of(x), one), (batch_of(x, weight), weight.double())):
        truth = cross_entropy(real, one, weight=w) + cross_entropy(made, zero)
        assert torch.allclose(gan.discriminator_loss(batch, fake).double(), truth, rtol=1e-5)
    assert torch.allclose(gan.generator_loss(fake).double(), cross_entropy(made, one), rtol=1e-5)


def fitted_beside_a_twin(detector: Detector, data: Rows, epochs: int, trainer) -> tuple[Detector, dict[str, Tensor]]:
    """Train, and return what was logged beside a copy of what the detector was before, with the same noise."""
    twin = copy.deepcopy(detector).train()
    fit = trainer(max_epochs=epochs)
    fit.fit(detector, datamodule=data)
    twin._noise_seed = detector._noise_seed
    return twin, dict(fit.callback_metrics)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def assert_close(detector: Detector, twin: Detector) -> None:
    for name, p in detector.named_parameters():
        assert torch.allclose(p, twin.get_parameter(name), rtol=1e-4, atol=1e-5), name


def mean_of_last(losses: list[float], sizes: list[int], n: int) -> float:
    """The mean over the rows of the last n mini-batches."""
    return float(np.average(losses[-n:], weights=sizes[-n:]))


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_anogans_training_is_a_loop_with_two_optimisers(noise, trainer) -> None:
    torch.manual_seed(0)
    data = Rows(drawn(70, 3), batch_size=16, group=3)  # a last mini-batch of 6
    detector = AnoGAN((3,), **SMALL, scaling="none", noise=noise, optimizer=Optimization(lr=5e-3))
    twin, logged = fitted_beside_a_twin(detector, data, 4, trainer)
    judge = nn.Sequential(twin.features, twin.head)
    judges = torch.optim.Adam(judge.parameters(), lr=5e-3)
    makers = torch.optim.Adam(twin.generator.parameters(), lr=5e-3)
    cross_entropy, losses, sizes = F.binary_cross_entropy_with_logits, [], []
    for step, x in enumerate(served(data, 4)):
        twin.seed_noise(step)
        one, zero = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        fake = twin.generator(2 * torch.rand(len(x), 2) - 1)
        shown = [rows + noise * torch.randn_like(rows) if noise else rows for rows in (x, fake.detach())]
        first = cross_entropy(judge(shown[0]), one) + cross_entropy(judge(shown[1]), zero)
        descend(judges, first)
        shown = fake + noise * torch.randn_like(fake) if noise else fake
        second = cross_entropy(judge(shown), one)
        descend(makers, second)
        diversity = math.sqrt(np.var(fake.detach().numpy(), 0).mean() / np.var(x.numpy(), 0).mean())
        losses.append((first.item(), second.item(), diversity))
        sizes.append(len(x))
    assert_close(detector, twin)
    assert set(logged) == {"train/discriminator", "train/generator", "train/diversity"}
    for name, column in zip(("discriminator", "generator", "diversity"), zip(*losses, strict=True), strict=True):
        assert logged[f"train/{name}"].item() == pytest.approx(mean_of_last(column, sizes, 5), rel=1e-4), name


def test_fanogans_training_is_a_loop_with_three_optimisers(trainer) -> None:
    torch.manual_seed(0)
    data = Rows(drawn(70, 3), batch_size=16, group=3)
    options = {"scaling": "none", "critic_steps": 3, "penalty": 4.0, "kappa": 0.7}
    detector = FAnoGAN((3,), **SMALL, **options, phases={"gan": 3, "encoder": 1}, optimizer=Optimization(lr=5e-3))
    twin, logged = fitted_beside_a_twin(detector, data, 4, trainer)
    critic = nn.Sequential(twin.features, twin.head)
    critics, makers, finders = (
        torch.optim.Adam(network.parameters(), lr=5e-3) for network in (critic, twin.generator, twin.encoder)
    )
    losses, sizes = [], []
    for step, x in enumerate(served(data, 4)):
        twin.seed_noise(step)
        if step < 15:
            fake = twin.generator(torch.randn(len(x), 2))
            part = torch.rand(len(x), 1)
            between = (part * x + (1 - part) * fake.detach()).requires_grad_(True)
            (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            penalty = (slope.norm(dim=1) - 1).square().mean()
            loss = critic(fake.detach()).mean() - critic(x).mean() + 4.0 * penalty
            descend(critics, loss)
            if step % 3 == 2:
                loss = -critic(fake).mean()
                descend(makers, loss)
        else:
            made = twin.generator(twin.encoder(x))
            features = (twin.features(x) - twin.features(made)).square().mean()
            loss = (x - made).square().mean() + 0.7 * features
            descend(finders, loss)
            losses.append(loss.item())
            sizes.append(len(x))
    assert_close(detector, twin)
    assert {"train/critic", "train/generator", "train/diversity", "train/loss"} == set(logged)
    assert logged["train/loss"].item() == pytest.approx(mean_of_last(losses, sizes, 5), rel=1e-4)


def test_the_adversarial_autoencoders_training_is_a_loop_with_two_optimisers(trainer) -> None:
    torch.manual_seed(0)
    data = Rows(drawn(70, 3), batch_size=16, group=3)
    detector = AAE((3,), hidden=[8], latent=2, critic=[8], weight=0.5, scaling="none", optimizer=Optimization(lr=5e-3))
    twin, logged = fitted_beside_a_twin(detector, data, 4, trainer)
    autoencoders = torch.optim.Adam([*twin.encoder.parameters(), *twin.decoder.parameters()], lr=5e-3)
    critics = torch.optim.Adam(twin.critic.parameters(), lr=5e-3)
    cross_entropy, losses, sizes = F.binary_cross_entropy_with_logits, [], []
    for step, x in enumerate(served(data, 4)):
        twin.seed_noise(step)
        one, zero = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        z = twin.encoder(x)
        error, believed = F.mse_loss(twin.decoder(z), x), cross_entropy(twin.critic(z), one)
        descend(autoencoders, error + 0.5 * believed)
        z = z.detach()
        told = cross_entropy(twin.critic(torch.randn_like(z)), one) + cross_entropy(twin.critic(z), zero)
        descend(critics, told)
        losses.append((error.item(), believed.item(), told.item()))
        sizes.append(len(x))
    assert_close(detector, twin)
    assert set(logged) == {"train/loss", "train/generator", "train/discriminator"}
    for name, column in zip(("loss", "generator", "discriminator"), zip(*losses, strict=True), strict=True):
        assert logged[f"train/{name}"].item() == pytest.approx(mean_of_last(column, sizes, 5), rel=1e-4), name


def test_dropout_is_the_discriminators_and_while_training_only() -> None:
    torch.manual_seed(0)
    gan = FAnoGAN((3,), **SMALL, dropout=0.5)
    x = drawn(10, 3)
    assert not torch.equal(gan.discriminate(x), gan.discriminate(x))
    assert torch.equal(gan.generator(x[:, :2]), gan.generator(x[:, :2]))
    assert torch.equal(gan.eval().discriminate(x), gan.discriminate(x))


def test_spread_is_the_root_mean_variance_of_the_features() -> None:
    x = drawn(20, 1, 2, 3) * 5
    assert spread(x).item() == pytest.approx(math.sqrt(np.var(x.flatten(1).double().numpy(), 0).mean()), rel=1e-5)


# what goes wrong is said


def said_when_fed(detector: Detector, epochs: list[dict[str, float]], trainer, caplog) -> Counter:
    """Which warnings a training gives whose losses have these means."""
    watch, means = detector.watch, iter(epochs)
    detector.watch = lambda _: watch(next(means))
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="straylight"):
        trainer(max_epochs=len(epochs)).fit(detector, datamodule=Rows(drawn(32, 3), batch_size=16))
    return warned(caplog)


def warned(caplog) -> Counter:
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return Counter(word for line in lines for word in ("won", "collapsed") if word in line)


GOOD = {"discriminator": 1.2, "diversity": 0.8}


@pytest.mark.parametrize(
    ("name", "epochs", "said"),
    [
        ("anogan", [GOOD] * 4, {}),
        ("anogan", [GOOD, {**GOOD, "discriminator": 0.01}, {**GOOD, "discriminator": 0.001}, GOOD], {"won": 1}),
        ("aae", [GOOD, {"discriminator": 0.01}, {"discriminator": 0.01}, GOOD], {"won": 1}),
        ("anogan", [GOOD, {**GOOD, "diversity": 0.01}, {**GOOD, "diversity": 0.0}, GOOD], {"collapsed": 1}),
        ("fanogan", [{"diversity": 0.5}, {"diversity": 0.01}, {}, {}], {"collapsed": 1}),
        # a generator that begins with small weights has not collapsed, unless it goes on like that
        ("fanogan", [{"diversity": 0.01}, {"diversity": 0.01}, {"diversity": 0.5}, {}], {}),
        ("fanogan", [{"diversity": 0.01}] * 4, {"collapsed": 1}),
        ("anogan", [{"discriminator": 0.0, "diversity": 0.0}] * 4, {"won": 1, "collapsed": 1}),
        ("fanogan", [{"critic": -50.0, "diversity": 0.5}] * 4, {}),  # a distance, which nobody wins
    ],
)
def test_a_won_discriminator_and_a_collapsed_generator_are_said_once(name, epochs, said, trainer, caplog) -> None:
    torch.manual_seed(0)
    detector = ALL[name]()
    assert said_when_fed(detector, epochs, trainer, caplog) == said
    line = next((r.getMessage() for r in caplog.records if r.name.startswith("straylight.detectors")), None)
    assert bool(line) == bool(said)
    if line:
        assert type(detector).__name__ in line and line.startswith("Epoch ") and "optimizer.lr" in line
        # what it says to change can be changed
        arguments = {name for c in type(detector).mro() for name in inspect.signature(c.__init__).parameters}
        assert set(re.findall(r"detector\.(\w+)", line)) <= arguments


def test_a_second_training_says_it_again(trainer, caplog) -> None:
    detector = AnoGAN((3,), **SMALL)
    for _ in range(2):
        assert said_when_fed(detector, [{"discriminator": 0.0}] * 2, trainer, caplog) == {"won": 1}
        del detector.watch


def test_a_discriminator_that_wins_is_caught_in_the_act(trainer, caplog) -> None:
    torch.manual_seed(0)
    gan = AnoGAN((8,), **SMALL, scaling="minmax", optimizer=Optimization(lr=2e-2))
    torch.nn.init.constant_(gan.generator[-2].bias, -200)  # a saturated output makes zeros for ever
    trainer(max_epochs=12).fit(gan, datamodule=Rows(drawn(256, 8), batch_size=16))
    assert warned(caplog) == {"won": 1, "collapsed": 1}


def test_a_generator_that_makes_one_event_is_caught_in_the_act(trainer, caplog) -> None:
    torch.manual_seed(0)
    gan = AnoGAN((3,), **SMALL, optimizer=Optimization(lr=1e-9))
    torch.nn.init.zeros_(gan.generator[-1].weight)
    trainer(max_epochs=4).fit(gan, datamodule=Rows(drawn(64, 3), batch_size=16))
    assert warned(caplog) == {"collapsed": 1}


@pytest.mark.parametrize("name", ALL)
def test_where_all_is_well_nothing_is_said(name, trainer, caplog) -> None:
    torch.manual_seed(0)
    trainer(max_epochs=4).fit(ALL[name](), datamodule=Rows(drawn(64, 3), batch_size=16))
    assert warned(caplog) == {}


# f-AnoGAN


def test_the_critics_loss_and_its_gradient_are_those_worked_out_by_hand() -> None:
    """With one hidden layer the critic's gradient is known: w2 leaky'(W1 x + b1) W1."""
    torch.manual_seed(0)
    gan = FAnoGAN((3,), **SMALL, scaling="none", penalty=7.0)
    x, fake, weight = 2 * drawn(64, 3), drawn(64, 3, seed=1), torch.rand(64)
    (layer,) = [m for m in gan.features.modules() if isinstance(m, nn.Linear)]
    for w in (torch.ones(64), weight):
        torch.manual_seed(5)
        part = torch.rand(64, 1).double()
        torch.manual_seed(5)
        loss = gan.discriminator_loss(batch_of(x, w), fake)
        gan.zero_grad()
        loss.backward()
        w1, b1, w2 = (p.detach().double().requires_grad_(True) for p in (layer.weight, layer.bias, gan.head.weight))
        between = fake + part * (x - fake)

        def before(rows: Tensor, w1=w1, b1=b1) -> Tensor:
            return rows.double() @ w1.T + b1

        slope = (w2 * torch.where(before(between) > 0, 1.0, 0.2)) @ w1
        real, made = ((F.leaky_relu(before(rows), 0.2) @ w2.T).squeeze(1) for rows in (x, fake))
        truth = made.mean() + (w * (7.0 * (slope.square().sum(1).sqrt() - 1).square() - real)).mean()
        truth.backward()
        assert loss.item() == pytest.approx(truth.item(), rel=1e-5)
        for p, known in ((layer.weight, w1), (layer.bias, b1), (gan.head.weight, w2)):
            assert torch.allclose(p.grad.double(), known.grad, rtol=1e-4, atol=1e-5)


def test_the_generator_wants_what_the_critic_praises() -> None:
    torch.manual_seed(0)
    gan = FAnoGAN((3,), **SMALL, scaling="none")
    fake = drawn(16, 3)
    praise = dense(gan.head, dense(gan.features, fake.double().numpy())).mean()
    assert gan.generator_loss(fake).item() == pytest.approx(-praise, rel=1e-5)


def test_a_critics_head_has_no_bias() -> None:
    gan = FAnoGAN((3,), **SMALL)
    assert gan.head.bias is None and "head.bias" not in gan.state_dict()
    assert AnoGAN((3,), **SMALL).head.bias is not None


@pytest.mark.parametrize("kappa", [0.0, 0.7])
def test_fanogan_scores_residual_and_features_of_what_the_encoder_finds(kappa) -> None:
    torch.manual_seed(0)
    gan = FAnoGAN((1, 2, 2), **SMALL, scaling="none", kappa=kappa)
    x = drawn(12, 1, 2, 2)
    rows = x.flatten(1).double().numpy()
    made = dense(gan.generator, dense(gan.encoder, rows))
    features = dense(gan.features, rows) - dense(gan.features, made)
    truth = ((rows - made) ** 2).sum(1) / 4 + kappa * (features**2).sum(1) / 8
    assert np.allclose(gan(x).detach().numpy(), truth, rtol=1e-5)
    assert gan.losses(batch_of(x)) == {}  # in the first phase nothing is selected by
    assert gan.loss(batch_of(x)).item() == pytest.approx(truth.mean(), rel=1e-5)


def test_a_linear_encoder_learns_to_invert_a_linear_generator(trainer) -> None:
    torch.manual_seed(0)
    recipe = Optimization(lr=2e-2, schedule="cosine")
    options = {"latent": 2, "generator": [], "discriminator": [8], "scaling": "none", "kappa": 0.0}
    gan = FAnoGAN((5,), **options, phases={"gan": 0, "encoder": 1}, optimizer=recipe)
    (layer,) = [m for m in gan.generator.modules() if isinstance(m, nn.Linear)]
    torch.nn.init.normal_(layer.weight)
    before = weights(gan)
    x = drawn(400, 5) * torch.tensor([3.0, 1.0, 1.0, 1.0, 0.3])
    trainer(max_epochs=40).fit(gan, datamodule=Rows(x, batch_size=40))
    assert moved(before, weights(gan)) == {"encoder"}
    w, b = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    other = drawn(50, 5, seed=1)  # linear, it inverts what it was not trained on
    _, residual, *_ = np.linalg.lstsq(w, (other.double().numpy() - b).T, rcond=None)
    assert np.allclose(gan(other).detach().numpy(), residual / 5, rtol=1e-3, atol=1e-4)


# phases


@pytest.mark.parametrize(
    ("shares", "total", "first"),
    [((2, 1), 6, 4), ((2, 1), 3, 2), ((20, 10), 3000, 2000), ((1, 3), 8, 2), ((0, 1), 5, 0), ((0.5, 0.5), 10, 5)],
)
def test_shares_are_counts_of_mini_batches(shares, total, first) -> None:
    detector = fanogan(phases=dict(zip(("gan", "encoder"), shares, strict=True)))
    assert [detector.phase_at(step, total) for step in range(total)] == [0] * first + [1] * (total - first)
    assert detector.phase_at(total + 3, total) == 1


@pytest.mark.parametrize("total", range(1, 8))
def test_the_last_phase_is_never_left_out(total) -> None:
    assert fanogan(phases={"gan": 9, "encoder": 1}).phase_at(total - 1, total) == 1


@pytest.mark.parametrize(
    "phases", [{}, {"gan": 1}, {"gan": 1, "encode": 1}, {"gan": 1, "encoder": 1, "more": 1}, {"gan": -1, "encoder": 1}]
)
def test_phases_of_other_names_or_less_than_nothing_are_refused(phases) -> None:
    with pytest.raises(ValueError, match="must give gan and encoder a share"):
        fanogan(phases=phases)


@pytest.mark.parametrize(
    "phases", [{"gan": 1, "encoder": 0}, {"gan": 0, "encoder": 0}, {"gan": 1, "encoder": math.nan}]
)
def test_a_last_phase_without_a_share_is_refused(phases) -> None:
    with pytest.raises(ValueError, match="the last one more than zero"):
        fanogan(phases=phases)


class Validations(pl.Callback):
    """Whether each validation gave a loss to select by."""

    def __init__(self) -> None:
        self.selecting: list[bool] = []

    def on_validation_end(self, trainer, pl_module) -> None:
        self.selecting.append("val/loss" in trainer.callback_metrics)


def watched(detector: FAnoGAN) -> tuple[list[str], list[tuple[str, int]]]:
    """The phases that begin, and of each mini-batch the phase and how many tensors the optimiser has a history of."""
    begun: list[str] = []
    steps: list[tuple[str, int]] = []
    begin, step_in = detector.begin, detector.step_in

    def spy_begin(phase: str) -> None:
        begun.append(phase)
        begin(phase)

    def spy_step(phase: str, batch: Batch, optimizer, share: float) -> dict[str, Tensor]:
        steps.append((phase, len(optimizer.optimizer.state)))
        return step_in(phase, batch, optimizer, share)

    detector.begin, detector.step_in = spy_begin, spy_step
    return begun, steps


def test_each_phase_begins_once_with_a_fresh_optimiser_and_only_the_last_selects(trainer) -> None:
    torch.manual_seed(0)
    detector, validations = fanogan(), Validations()
    begun, steps = watched(detector)
    data = Rows(drawn(64, 3), drawn(20, 3, seed=1), batch_size=16, group=3)
    trainer(max_epochs=6, callbacks=[validations]).fit(detector, datamodule=data)
    assert begun == ["gan", "encoder"]
    assert [phase for phase, _ in steps] == ["gan"] * 16 + ["encoder"] * 8
    fresh = [number for number, (_, history) in enumerate(steps) if history == 0]
    assert fresh == [0, 16]
    assert validations.selecting == [False] * 4 + [True] * 2


@pytest.mark.parametrize(("step", "still"), [(2, ["encoder"]), (9, ["encoder"]), (10, ["encoder"]), (13, [])])
def test_a_resume_goes_on_in_the_phase_that_it_left(step, still, trainer, tmp_path) -> None:
    def parts() -> tuple[FAnoGAN, Rows]:
        torch.manual_seed(0)  # 5 mini-batches an epoch, 10 of the gan and 5 of the encoder
        return fanogan(), Rows(drawn(70, 3), drawn(20, 3, seed=1), batch_size=16, group=1)

    detector, data = parts()
    trainer(max_epochs=3, callbacks=[SaveAt(step, tmp_path / "a.ckpt")]).fit(detector, datamodule=data)
    resumed, data = parts()
    begun, steps = watched(resumed)
    torch.manual_seed(12345)  # whatever the generator's state was
    fit = trainer(max_epochs=3)
    fit.fit(resumed, datamodule=data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert begun == still
    assert [phase for phase, _ in steps] == ["gan"] * (10 - step) + ["encoder"] * min(5, 15 - step)
    assert fit.global_step == 15 and equal(weights(detector), weights(resumed))


def test_trained_a_second_time_it_begins_with_its_first_phase(trainer) -> None:
    torch.manual_seed(0)
    detector = fanogan()
    begun, steps = watched(detector)
    for _ in range(2):
        trainer(max_epochs=3).fit(detector, datamodule=Rows(drawn(64, 3), batch_size=16))
    assert [phase for phase, _ in steps] == (["gan"] * 8 + ["encoder"] * 4) * 2
    assert begun == ["gan", "encoder"] * 2


# adversarial autoencoder


def test_with_weight_zero_it_is_an_autoencoder(trainer) -> None:
    trained = []
    for kind, options in ((AAE, {"weight": 0.0, "critic": [8]}), (AutoEncoder, {})):
        torch.manual_seed(0)
        detector = kind((3,), hidden=[8], latent=2, optimizer=Optimization(lr=1e-2), **options)
        trainer(max_epochs=10).fit(detector, datamodule=Rows(drawn(70, 3), batch_size=16))
        trained.append(detector)
    aae, autoencoder = trained
    for name, p in autoencoder.named_parameters():
        assert torch.allclose(aae.get_parameter(name), p, rtol=1e-5, atol=1e-5), name
    x = drawn(20, 3, seed=1)
    assert torch.allclose(aae(x), autoencoder(x), rtol=1e-4)


def test_the_critic_makes_latents_look_normal(trainer) -> None:
    square = 2 * torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)) - 1
    x = square @ drawn(2, 4, seed=3)

    def latents(weight: float) -> np.ndarray:
        torch.manual_seed(0)
        recipe = Optimization(lr=2e-3, schedule="cosine")
        detector = AAE((4,), hidden=[32], latent=2, critic=[32], weight=weight, optimizer=recipe)
        trainer(max_epochs=60).fit(detector, datamodule=Rows(x, batch_size=50))
        with torch.no_grad():
            return detector.encoder(detector.scaling(x)).numpy()

    def off_normal(z: np.ndarray) -> float:
        """The largest distance from normal of any of 8 projections, in Kolmogorov's and Smirnov's sense."""
        angles = np.arange(8) * np.pi / 8
        return max(stats.kstest(z @ [np.cos(a), np.sin(a)], stats.norm.cdf).statistic for a in angles)

    def off_moments(z: np.ndarray) -> float:
        return max(np.abs(z.mean(0)).max(), np.abs(np.cov(z.T) - np.eye(2)).max())

    free, drilled = latents(0.0), latents(0.1)
    assert off_normal(drilled) < 0.1 < 0.15 < off_normal(free)
    assert off_moments(drilled) < 0.3 < 0.6 < off_moments(free)


def test_the_adversarial_autoencoder_scores_as_it_says() -> None:
    torch.manual_seed(0)
    x = drawn(10, 1, 2, 2)
    aae = AAE((1, 2, 2), hidden=[8], latent=2, critic=[8], weight=0.3, activation="leaky_relu_0.2", scaling="none")
    for layer in aae.critic.modules():
        if isinstance(layer, nn.LeakyReLU):
            layer.negative_slope = 0.2  # what `dense` knows
    rows = x.flatten(1).double().numpy()
    z = dense(aae.encoder, rows)
    reconstruction = ((dense(aae.decoder, z) - rows) ** 2).mean(1)
    critic = -np.log(1 / (1 + np.exp(-dense(aae.critic, z)[:, 0])))
    truth = {"reconstruction": reconstruction, "critic": critic, "both": reconstruction + 0.3 * critic}
    for aae.scored_by, score in truth.items():
        assert np.allclose(aae(x).detach().numpy(), score, rtol=1e-5), aae.scored_by
    losses = aae.loss(batch_of(x))
    assert losses["loss"].item() == pytest.approx(reconstruction.mean(), rel=1e-5)
    assert losses["generator"].item() == pytest.approx(critic.mean(), rel=1e-5)


def test_epochs_of_an_adversarial_autoencoder_are_selected_by_the_reconstruction_error(trainer) -> None:
    torch.manual_seed(0)
    detector = AAE((3,), hidden=[8], latent=1, critic=[8])
    val = drawn(20, 3, seed=1)
    fit = trainer(max_epochs=1)
    data = Rows(drawn(70, 3), val, batch_size=16)
    fit.fit(detector, datamodule=data)
    served = torch.cat([batch.x for batch in data.val_dataloader()])
    assert 0 < len(served) < 20  # the other half is for thresholds
    assert fit.callback_metrics["val/loss"].item() == pytest.approx(detector(served).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "said"), [({"score": "critics"}, "reconstruction, critic"), ({"weight": -1}, "weight")]
)
def test_what_an_adversarial_autoencoder_cannot_be_is_said(options, said) -> None:
    with pytest.raises(ValueError, match=said):
        AAE((3,), **options)
