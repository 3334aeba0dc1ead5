"""The restricted Boltzmann machine against enumeration of all its states, deep SVDD against its formulas."""

from __future__ import annotations

import copy
import itertools
import logging
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neural_network import BernoulliRBM
from torch import Tensor, nn

from given import Rows, SaveAt, batch_of, drawn, equal
from straylight.detectors import RBM, DeepSVDD, Detector
from straylight.nn import Optimization
from straylight.nn.normalization import BatchNorm, weighted


def weights(detector: Detector) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in detector.state_dict().items()}


# the restricted Boltzmann machine, 6 visible and 4 hidden units

D, H = 6, 4


def binary(n: int) -> np.ndarray:
    """All states of n binary units, `(2^n, n)`."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def machine(seed: int = 0, scale: float = 1.0, **options) -> RBM:
    """One with weights and biases of order one."""
    torch.manual_seed(seed)
    rbm = RBM((D,), hidden=H, scaling="none", **options)
    for p in rbm.parameters():
        nn.init.normal_(p, std=scale)
    return rbm


class Exact:
    """All that can be known of a machine by going through its states, in float64."""

    def __init__(self, rbm: RBM) -> None:
        self.w, self.a, self.b = (p.detach().double().numpy() for p in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
        self.gaussian = rbm.visible == "gaussian"
        self.hidden = binary(self.w.shape[1])

    def energy(self, v: np.ndarray) -> np.ndarray:
        """Of each visible with each hidden state, `(B, D)` to `(B, 2^H)`."""
        linear = -(v @ self.w) @ self.hidden.T - self.hidden @ self.b
        alone = ((v - self.a) ** 2).sum(1) / 2 if self.gaussian else -v @ self.a
        return alone[:, None] + linear

    def free_energy(self, v: np.ndarray) -> np.ndarray:
        return -np.logaddexp.reduce(-self.energy(v), axis=1)

    def hidden_given(self, v: np.ndarray) -> np.ndarray:
        """p(h | v), `(B, D)` to `(B, 2^H)`."""
        return np.exp(self.free_energy(v)[:, None] - self.energy(v))

    def visible_means(self) -> np.ndarray:
        """E[v | h] for each hidden state, `(2^H, D)`."""
        mean = self.hidden @ self.w.T + self.a
        return mean if self.gaussian else 1 / (1 + np.exp(-mean))

    def log_z(self) -> float:
        if not self.gaussian:
            return np.logaddexp.reduce(-self.free_energy(binary(len(self.a))))
        return np.logaddexp.reduce(self._log_hidden())

    def _log_hidden(self) -> np.ndarray:
        """log of the integral of exp(-E) over Gaussian visible units, `(2^H,)`."""
        square = ((self.hidden @ self.w.T + self.a) ** 2).sum(1) / 2 - (self.a**2).sum() / 2
        return square + self.hidden @ self.b + len(self.a) / 2 * np.log(2 * np.pi)

    def log_likelihood(self, v: np.ndarray) -> np.ndarray:
        return -self.free_energy(v) - self.log_z()

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of Gaussian visible units."""
        p, means = np.exp(self._log_hidden() - self.log_z()), self.visible_means()
        mean = p @ means
        return mean, np.eye(len(mean)) + (p[:, None] * (means - mean)).T @ (means - mean)

    def gradient(self, data: np.ndarray) -> dict[str, np.ndarray]:
        """Of minus the mean log-likelihood of Bernoulli visible units: E_data[dF] - E_model[dF]."""
        states = binary(len(self.a))
        p = np.exp(self.log_likelihood(states))

        def mean_slope(v: np.ndarray, share: np.ndarray) -> dict[str, np.ndarray]:
            h = self.hidden_given(v) @ self.hidden
            return {"weight": -(v * share[:, None]).T @ h, "visible_bias": -share @ v, "hidden_bias": -share @ h}

        seen, model = mean_slope(data, np.full(len(data), 1 / len(data))), mean_slope(states, p)
        return {name: seen[name] - model[name] for name in seen}


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_the_free_energy_is_minus_the_log_of_the_sum_over_hidden_states(visible) -> None:
    rbm = machine(visible=visible)
    v = torch.from_numpy(binary(D)).float() if visible == "bernoulli" else 2 * drawn(64, D)
    truth = Exact(rbm).free_energy(v.double().numpy())
    assert np.allclose(rbm.free_energy(v).detach().numpy(), truth, rtol=1e-5, atol=1e-5)
    assert np.allclose(rbm(v).detach().numpy(), truth, rtol=1e-5, atol=1e-5)


def test_the_free_energy_is_scikit_learns() -> None:
    rbm, v = machine(visible="bernoulli"), torch.rand(50, D)
    known = BernoulliRBM(n_components=H).fit(np.random.default_rng(0).uniform(size=(10, D)))
    known.components_ = rbm.weight.detach().double().numpy().T
    known.intercept_visible_ = rbm.visible_bias.detach().double().numpy()
    known.intercept_hidden_ = rbm.hidden_bias.detach().double().numpy()
    truth = known._free_energy(v.double().numpy())
    assert np.allclose(rbm(v).detach().numpy(), truth, rtol=1e-5, atol=1e-5)


def test_a_free_energy_of_large_weights_is_finite() -> None:
    for visible in ("bernoulli", "gaussian"):
        assert machine(scale=1e4, visible=visible)(torch.rand(20, D)).isfinite().all()


def test_images_are_flattened() -> None:
    torch.manual_seed(0)
    flat, image = RBM((D,), hidden=H, scaling="none"), RBM((1, 2, 3), hidden=H, scaling="none")
    image.load_state_dict({name: v for name, v in flat.state_dict().items() if "scaling" not in name}, strict=False)
    x = drawn(8, D)
    assert torch.equal(flat(x), image(x.view(8, 1, 2, 3)))


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("steps", [1, 2])
def test_gibbs_sampling_has_the_conditional_moments(visible, steps) -> None:
    rbm, n = machine(visible=visible), 200_000
    exact = Exact(rbm)
    start = np.array([[1.0, 0, 1, 1, 0, 0]])
    torch.manual_seed(1)
    v = rbm.gibbs(torch.from_numpy(start).float().expand(n, D), steps).double().numpy()
    if steps == 1:
        p = exact.hidden_given(start)[0]
        mean = p @ exact.visible_means()
        off = exact.visible_means() - mean
        if visible == "gaussian":
            covariance = np.eye(D) + (p[:, None] * off).T @ off
        else:  # given the hidden units, visible ones are independent
            covariance = (p[:, None] * off).T @ off
            np.fill_diagonal(covariance, mean * (1 - mean))
        assert np.abs((v.mean(0) - mean) / np.sqrt(np.diag(covariance) / n)).max() < 5
        assert np.abs(np.cov(v.T) - covariance).max() < 0.02 * covariance.max()
    elif visible == "bernoulli":  # a step from each state, by the matrix of transitions
        states = binary(D)
        means = exact.visible_means()
        kernel = exact.hidden_given(states) @ np.prod(
            np.where(states[None] > 0, means[:, None], 1 - means[:, None]), axis=2
        )
        truth = np.linalg.matrix_power(kernel, 2)[int((states == start).all(1).argmax())]
        counts = np.bincount((v @ 2 ** np.arange(D)[::-1]).astype(int), minlength=2**D)
        assert np.abs((counts - n * truth) / np.sqrt(n * truth * (1 - truth))).max() < 5
    if visible == "bernoulli":
        assert set(np.unique(v)) == {0.0, 1.0}


def test_gibbs_sampling_leaves_the_machines_own_distribution_as_it_is() -> None:
    rbm, n = machine(visible="bernoulli"), 200_000
    states = binary(D)
    p = np.exp(Exact(rbm).log_likelihood(states))
    assert p.sum() == pytest.approx(1, abs=1e-9)
    rng = np.random.default_rng(0)
    v = torch.from_numpy(states[rng.choice(len(states), n, p=p)]).float()
    torch.manual_seed(1)
    after = rbm.gibbs(v, 3).double().numpy()
    counts = np.bincount((after @ 2 ** np.arange(D)[::-1]).astype(int), minlength=2**D)
    assert np.abs((counts - n * p) / np.sqrt(n * p * (1 - p))).max() < 5
    assert not np.array_equal(after, v.numpy())


def gradient(rbm: RBM, data: Tensor) -> dict[str, np.ndarray]:
    rbm.zero_grad()
    rbm.loss(batch_of(data))["loss"].backward()
    return {name: p.grad.double().numpy() for name, p in rbm.named_parameters()}


def distance(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    return math.sqrt(sum(((first[name] - second[name]) ** 2).sum() for name in second))


def binary_rows(n: int) -> Tensor:
    """Rows that a machine with weights drawn at random does not expect."""
    torch.manual_seed(3)
    return torch.bernoulli(torch.tensor([0.9, 0.1, 0.8, 0.2, 0.7, 0.5]).expand(n, D))


def test_contrastive_divergence_nears_the_gradient_of_the_likelihood_as_its_chains_grow() -> None:
    rbm, data = machine(seed=2, scale=2.5, visible="bernoulli"), binary_rows(50_000)  # one that mixes slowly
    truth = Exact(rbm).gradient(data.double().numpy())
    size = distance(truth, {name: np.zeros_like(g) for name, g in truth.items()})
    off = []
    for rbm.k in (1, 10, 100):
        torch.manual_seed(4)
        off.append(distance(gradient(rbm, data), truth) / size)
    assert off[0] > 0.5 and off[0] > 5 * off[1] > 25 * off[2] and off[2] < 0.01


def test_the_gradient_of_the_likelihood_by_enumeration_is_that_of_the_likelihood() -> None:
    """Else the test before would compare with something wrong: by finite differences."""
    rbm, data = machine(visible="bernoulli"), binary_rows(100).double().numpy()
    exact = Exact(rbm)
    truth, h = exact.gradient(data), 1e-6
    for name, known in (("weight", exact.w), ("visible_bias", exact.a), ("hidden_bias", exact.b)):
        place = (1,) * known.ndim
        known[place] += h
        above = -exact.log_likelihood(data).mean()
        known[place] -= 2 * h
        below = -exact.log_likelihood(data).mean()
        known[place] += h
        assert (above - below) / (2 * h) == pytest.approx(truth[name][place], abs=1e-6)


def test_persistent_chains_reach_the_gradient_of_the_likelihood_without_longer_chains() -> None:
    rbm, data = machine(visible="bernoulli", persistent=True, chains=50_000), binary_rows(50_000)
    truth = Exact(rbm).gradient(data.double().numpy())
    size = distance(truth, {name: np.zeros_like(g) for name, g in truth.items()})
    torch.manual_seed(4)
    off = [distance(gradient(rbm, data), truth) / size for _ in range(80)]
    assert off[0] > 0.1 and max(off[-5:]) < 0.02


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_chains_go_on_from_mini_batch_to_mini_batch_and_are_kept(visible, trainer) -> None:
    torch.manual_seed(0)
    rbm = RBM((D,), hidden=H, visible=visible, persistent=True, chains=20, k=2, scaling="none")
    assert rbm.chain.shape == (20, D) and "chain" in rbm.state_dict() and "chain" not in dict(rbm.named_parameters())
    if visible == "bernoulli":
        assert set(rbm.chain.unique().tolist()) == {0.0, 1.0}
    first, gibbs, calls = rbm.chain.clone(), rbm.gibbs, []

    def spy(v: Tensor, k: int) -> Tensor:
        after = gibbs(v, k)
        calls.append((v.clone(), k, after.clone()))
        return after

    rbm.gibbs = spy
    trainer(max_epochs=2).fit(rbm, datamodule=Rows(binary_rows(64), batch_size=16))
    assert len(calls) == 8 and all(k == 2 for _, k, _ in calls)
    assert torch.equal(calls[0][0], first) and torch.equal(calls[-1][2], rbm.chain)
    for (_, _, before), (after, _, _) in itertools.pairwise(calls):
        assert torch.equal(before, after)
    assert all(not torch.equal(before, after) for before, _, after in calls)


def test_without_persistence_chains_begin_at_the_events() -> None:
    rbm, data = machine(visible="bernoulli", k=3), binary_rows(16)
    calls = []
    gibbs = rbm.gibbs
    rbm.gibbs = lambda v, k: calls.append((v, k)) or gibbs(v, k)
    rbm.loss(batch_of(data))
    ((v, k),) = calls
    assert torch.equal(v, data) and k == 3 and "chain" not in rbm.state_dict()


@pytest.mark.parametrize("persistent", [False, True])
def test_a_resumed_machine_ends_with_the_same_weights_and_chains(persistent, trainer, tmp_path) -> None:
    def parts() -> tuple[RBM, Rows]:
        torch.manual_seed(0)
        return RBM((D,), hidden=H, persistent=persistent, chains=10), Rows(drawn(70, D), batch_size=16, group=1)

    rbm, data = parts()
    trainer(max_epochs=3, callbacks=[SaveAt(7, tmp_path / "a.ckpt")]).fit(rbm, datamodule=data)
    again, data = parts()
    torch.manual_seed(12345)  # whatever the generator's state was
    fit = trainer(max_epochs=3)
    fit.fit(again, datamodule=data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert fit.global_step == 15 and equal(weights(rbm), weights(again))


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_the_reconstruction_is_the_squared_error_of_one_step_back(visible) -> None:
    rbm, x = machine(visible=visible), binary_rows(32)
    exact, v, weight = Exact(rbm), x.double().numpy(), torch.rand(32)
    back = 1 / (1 + np.exp(-(v @ exact.w + exact.b))) @ exact.w.T + exact.a
    back = back if visible == "gaussian" else 1 / (1 + np.exp(-back))
    error = ((back - v) ** 2).mean(1)
    assert rbm.loss(batch_of(x))["reconstruction"].item() == pytest.approx(error.mean(), rel=1e-5)
    weighted = rbm.loss(batch_of(x, weight))["reconstruction"].item()
    assert weighted == pytest.approx((error * weight.numpy()).mean(), rel=1e-5)


def test_a_bernoulli_machine_learns_which_patterns_there_are(trainer) -> None:
    patterns = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    flipped = torch.rand(2000, D, generator=torch.Generator().manual_seed(1)) < 0.05
    x = (patterns[torch.arange(2000) % 2] - flipped.float()).abs()
    torch.manual_seed(0)
    options = {"visible": "bernoulli", "k": 5, "optimizer": Optimization(lr=3e-2, schedule="cosine")}
    rbm = RBM((D,), hidden=H, scaling="none", **options)
    trainer(max_epochs=20).fit(rbm, datamodule=Rows(x, batch_size=50))
    states = binary(D)
    apart = np.abs(states[:, None] - patterns.numpy()).sum(2)
    truth = (0.05**apart * 0.95 ** (D - apart)).mean(1)
    found = np.exp(Exact(rbm).log_likelihood(states))
    assert (truth * np.log(truth / found)).sum() < 0.05  # nats; the uniform distribution is 2.1 away
    assert (truth * np.log(truth * 64)).sum() > 2


@pytest.mark.parametrize("options", [{"k": 5}, {"persistent": True, "chains": 200}])
def test_a_gaussian_machine_reaches_the_moments_and_the_density_of_a_mixture(options, trainer) -> None:
    towards = np.array([2.0, -1.0, 1.0])
    rng = np.random.default_rng(0)
    side = rng.choice([-1.0, 1.0], (4000, 1))
    x = rng.normal(size=(4000, 3)) + side * towards + [1.0, 0, 0]
    torch.manual_seed(0)
    recipe = Optimization(lr=2e-2, schedule="cosine")
    rbm = RBM((3,), hidden=H, scaling="none", optimizer=recipe, **options)
    trainer(max_epochs=20).fit(rbm, datamodule=Rows(torch.from_numpy(x), batch_size=50))
    exact = Exact(rbm)
    mean, covariance = exact.moments()
    assert np.abs(mean - [1, 0, 0]).max() < 0.2
    assert np.abs(covariance - np.eye(3) - np.outer(towards, towards)).max() < 0.5
    two = [-((x - [1, 0, 0] - sign * towards) ** 2).sum(1) / 2 for sign in (-1, 1)]
    density = np.logaddexp(*two) - np.log(2) - 1.5 * np.log(2 * np.pi)
    assert 0 < (density - exact.log_likelihood(x)).mean() + 0.01 < 0.05


def test_a_gaussian_machines_density_is_one_in_all() -> None:
    """Else the tests of its likelihood would compare with something wrong."""
    torch.manual_seed(0)
    rbm = RBM((1,), hidden=3, scaling="none")
    for p in rbm.parameters():
        nn.init.normal_(p)
    v = np.linspace(-30, 30, 60_001)[:, None]
    density, step = np.exp(Exact(rbm).log_likelihood(v)), 1e-3
    mean, covariance = Exact(rbm).moments()
    assert density.sum() * step == pytest.approx(1, abs=1e-6)
    assert (density * v[:, 0]).sum() * step == pytest.approx(mean[0], abs=1e-6)
    assert (density * (v[:, 0] - mean) ** 2).sum() * step == pytest.approx(covariance[0, 0], abs=1e-6)


def test_what_lies_beyond_the_bounds_of_a_bernoulli_machine_is_stranger_the_farther_it_lies() -> None:
    rbm = machine(visible="bernoulli")
    for direction in torch.eye(D):
        at = 0.5 * (1 - direction)  # the other features are inside
        above = torch.stack([at + direction * (1 + t) for t in (0, 0.5, 1, 10)])
        below = torch.stack([at - direction * t for t in (0, 0.5, 1, 10)])
        for rows in (above, below):
            scores = rbm(rows).detach()
            assert torch.allclose(scores - scores[0], torch.tensor([0, 0.5, 1, 10]), atol=1e-5)
    assert rbm(torch.full((1, D), 3.0)) > rbm(torch.full((1, D), 2.0)) > rbm(torch.ones(1, D))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hidden": 0}, "must be positive"),
        ({"k": 0}, "must be positive"),
        ({"chains": 0}, "must be positive"),
        ({"visible": "binary"}, "bernoulli or gaussian, not 'binary'"),
    ],
)
def test_what_a_boltzmann_machine_cannot_be_is_said(options, said) -> None:
    with pytest.raises(ValueError, match=said):
        RBM((3,), **options)


# deep SVDD


def svdd(shape: tuple[int, ...] = (4,), **options) -> DeepSVDD:
    """Plain layers and both phases, unless something else is asked for."""
    plain = {"normalization": "none", "phases": {"autoencoder": 1, "svdd": 1}}
    return DeepSVDD(shape, **{"hidden": [8], "latent": 3, **plain, **options})


def through(network: nn.Module, x: np.ndarray) -> np.ndarray:
    """A dense network without biases, leaky ReLUs of slope 0.01 between its layers, in float64."""
    layers = [m.weight.detach().double().numpy() for m in network.modules() if isinstance(m, nn.Linear)]
    for number, weight in enumerate(layers):
        x = x @ weight.T
        if number + 1 < len(layers):
            x = np.where(x > 0, x, 0.01 * x)
    return x


@pytest.mark.parametrize(("shape", "options"), [((4,), {}), ((1, 8, 8), {"channels": [4, 8]}), ((1, 8, 8), {})])
def test_no_layer_has_a_bias(shape, options) -> None:
    detector = svdd(shape, **options)
    assert not [name for name, _ in detector.named_parameters() if "bias" in name]
    layers = [m for m in detector.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) >= 4 and all(layer.bias is None for layer in layers)
    assert detector.encoder(torch.zeros(2, *shape)).abs().max() == 0
    assert detector.decoder(torch.zeros(2, 3)).abs().max() == 0


@pytest.mark.parametrize("weighted", [False, True])
def test_the_centre_is_the_mean_of_what_the_encoder_makes_of_the_training_rows(weighted, trainer) -> None:
    torch.manual_seed(0)
    detector = svdd(latent=6)
    detector.rows_at_once = 100  # several chunks, and a last one of another size
    x = drawn(450, 4) * 3 + 1
    weight = (x[:, 0] > 0).float() * 3 + 0.1 if weighted else None
    begin, seen = detector.begin, []

    def spy(phase: str) -> None:
        seen.append((phase, detector.centre.clone(), copy.deepcopy(detector.encoder)))
        begin(phase)
        seen[-1] += (detector.centre.clone(),)

    detector.begin = spy
    trainer(max_epochs=4).fit(detector, datamodule=Rows(x, weight=weight, batch_size=50))
    assert [phase for phase, *_ in seen] == ["autoencoder", "svdd"]
    assert torch.equal(seen[0][1], seen[0][3])  # the first phase needs none
    _, before, encoder, centre = seen[1]
    rows = x.double().numpy()
    mean = np.average(through(encoder, (rows - rows.mean(0)) / rows.std(0)), axis=0, weights=weight)
    truth = np.where(np.abs(mean) < 0.1, np.where(mean < 0, -0.1, 0.1), mean)
    assert np.allclose(centre.numpy(), truth, rtol=1e-4, atol=1e-5) and not torch.equal(before, centre)
    assert (np.abs(mean) < 0.09).any() and (np.abs(mean) > 0.11).any()  # or the test would see one side only
    assert torch.equal(detector.centre, centre)  # and stays where it is


def test_coordinates_of_the_centre_near_zero_are_moved_away_from_it() -> None:
    detector = svdd((1,), hidden=[], latent=7, scaling="none")
    with torch.no_grad():
        detector.encoder[-1].weight.copy_(torch.tensor([[0.5, 0.03, -0.03, -2.0, 0.0, 0.099, -0.101]]).T)
    chunks = [(torch.full((3, 1), 0.5), torch.ones(3)), (torch.full((1, 1), 2.5), torch.ones(1))]  # of mean 1
    detector.training_rows = lambda: iter(chunks)
    detector.begin("svdd")
    assert torch.allclose(detector.centre, torch.tensor([0.5, 0.1, -0.1, -2.0, 0.1, 0.1, -0.101]))


def test_a_hard_boundarys_loss_is_the_mean_of_its_scores() -> None:
    torch.manual_seed(0)
    detector, x, weight = svdd(scaling="none"), drawn(40, 4), torch.rand(40)
    detector.centre.copy_(torch.tensor([0.3, -1.0, 2.0]))
    scores = ((through(detector.encoder, x.double().numpy()) - [0.3, -1, 2]) ** 2).sum(1)
    assert np.allclose(detector(x).detach().numpy(), scores, rtol=1e-5)
    assert detector.loss(batch_of(x)).item() == pytest.approx(scores.mean(), rel=1e-5)
    assert detector.loss(batch_of(x, weight)).item() == pytest.approx((scores * weight.numpy()).mean(), rel=1e-5)


@pytest.mark.parametrize("nu", [0.05, 0.3])
def test_a_soft_boundarys_objective_is_the_papers(nu) -> None:
    torch.manual_seed(0)
    detector, x, weight = svdd(scaling="none", boundary="soft", nu=nu), drawn(40, 4), torch.rand(40)
    detector.centre.copy_(torch.tensor([0.3, -1.0, 2.0]))
    detector.radius2.fill_(4.6)
    distance = ((through(detector.encoder, x.double().numpy()) - [0.3, -1, 2]) ** 2).sum(1)
    assert (distance < 4.6).any() and (distance > 4.6).any()
    over = np.maximum(0, distance - 4.6)
    assert np.allclose(detector(x).detach().numpy(), distance - 4.6, rtol=1e-5, atol=1e-5)
    assert detector.loss(batch_of(x)).item() == pytest.approx(4.6 + over.mean() / nu, rel=1e-5)
    weighted = 4.6 + (over * weight.numpy()).mean() / nu
    assert detector.loss(batch_of(x, weight)).item() == pytest.approx(weighted, rel=1e-5)


@pytest.mark.parametrize("boundary", ["hard", "soft"])
def test_its_training_is_two_loops_one_after_the_other_each_with_an_optimiser_of_its_own(boundary, trainer) -> None:
    torch.manual_seed(0)
    x = drawn(70, 4)
    data = Rows(x, batch_size=16, group=3)
    recipe = Optimization(lr=5e-3)
    detector = svdd(scaling="none", boundary=boundary, nu=0.2, phases={"autoencoder": 2, "svdd": 3}, optimizer=recipe)
    twin = copy.deepcopy(detector)
    fit = trainer(max_epochs=5)
    fit.fit(detector, datamodule=data)
    loader, batches = data.train_dataloader(), []
    for epoch in range(5):
        loader.set_epoch(epoch)
        batches += [batch.x for group in loader for batch, _ in group.minibatches()]
    adam = torch.optim.Adam([*twin.encoder.parameters(), *twin.decoder.parameters()], lr=5e-3)
    for rows in batches[:10]:
        adam.zero_grad()
        F.mse_loss(twin.decoder(twin.encoder(rows)), rows).backward()
        adam.step()
    with torch.no_grad():
        mean = twin.encoder(x).mean(0)
        centre = torch.where(mean.abs() < 0.1, torch.where(mean < 0, -0.1, 0.1), mean)
    adam = torch.optim.Adam(twin.encoder.parameters(), lr=5e-3)
    losses, radius2 = [], 0.0
    for rows in batches[10:]:
        distance = (twin.encoder(rows) - centre).square().sum(1)
        loss = distance.mean()
        if boundary == "soft":
            radius2 = float(np.quantile(distance.detach().numpy(), 0.8))
            loss = radius2 + (distance - radius2).clamp(min=0).mean() / 0.2
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    for name, p in detector.named_parameters():
        assert torch.allclose(p, twin.get_parameter(name), rtol=1e-4, atol=1e-5), name
    assert torch.allclose(detector.centre, centre, rtol=1e-4)
    assert detector.radius2.item() == pytest.approx(radius2, rel=1e-4)
    sizes = [len(rows) for rows in batches[-5:]]
    assert fit.callback_metrics["train/loss"].item() == pytest.approx(np.average(losses[-5:], weights=sizes), rel=1e-4)
    assert {"train/autoencoder", "train/loss", "train/spread"} == set(fit.callback_metrics)


@pytest.mark.parametrize("nu", [0.1, 0.3])
def test_a_fraction_nu_of_the_training_rows_ends_outside_a_soft_boundary(nu, trainer) -> None:
    torch.manual_seed(0)
    x = drawn(1000, 4)
    detector = svdd(boundary="soft", nu=nu, optimizer=Optimization(schedule="cosine"))
    trainer(max_epochs=20).fit(detector, datamodule=Rows(x, batch_size=250))
    scores = detector(x)
    assert (scores > 0).float().mean().item() == pytest.approx(nu, abs=0.04)
    assert detector.radius2 > 0
    again = svdd(boundary="soft", nu=nu)
    again.load_state_dict(detector.state_dict())
    assert torch.equal(again(x), scores)


def test_rows_of_weight_zero_do_not_set_the_radius_of_a_soft_boundary(trainer) -> None:
    radii = []
    for beyond in (0.0, 50.0):
        torch.manual_seed(0)
        x = drawn(64, 4)
        x[32:] += beyond
        detector = svdd(boundary="soft", scaling="none")
        weight = torch.tensor([2.0, 0.0]).repeat_interleave(32)
        trainer(max_epochs=2).fit(detector, datamodule=Rows(x, weight=weight, batch_size=16))
        radii.append(detector.radius2.item())
    assert radii[0] == pytest.approx(radii[1], rel=1e-4)


def test_it_gathers_nominal_events_and_leaves_others_outside(trainer) -> None:
    torch.manual_seed(0)
    x = drawn(500, 4) @ torch.diag(torch.tensor([3.0, 1.0, 0.2, 0.2]))
    detector = svdd()
    trainer(max_epochs=20).fit(detector, datamodule=Rows(x, batch_size=50))
    strange = drawn(200, 4, seed=1) * 3
    assert detector(strange).median() > detector(x).quantile(0.9)


def warnings_of(detector: DeepSVDD, x: Tensor, trainer, caplog, epochs: int = 4) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="straylight"):
        trainer(max_epochs=epochs).fit(detector, datamodule=Rows(x, batch_size=16))
    return [record.getMessage() for record in caplog.records if "collapsed" in record.getMessage()]


def test_a_network_that_maps_all_events_to_one_point_is_reported_once(trainer, caplog) -> None:
    torch.manual_seed(0)
    (line,) = warnings_of(svdd(scaling="none"), torch.zeros(64, 4), trainer, caplog)
    assert line.startswith("Epoch 2: The network of DeepSVDD has collapsed") and "autoencoder a larger share" in line
    # and with events that differ, if the weights are gone
    detector = svdd(phases={"autoencoder": 0, "svdd": 1})
    for p in detector.parameters():
        nn.init.zeros_(p)
    assert len(warnings_of(detector, drawn(64, 4), trainer, caplog)) == 1


@pytest.mark.parametrize("boundary", ["hard", "soft"])
def test_a_network_that_does_not_is_not(boundary, trainer, caplog) -> None:
    torch.manual_seed(0)
    assert warnings_of(svdd(boundary=boundary), drawn(64, 4), trainer, caplog, epochs=10) == []


def test_the_spread_is_that_of_the_latents_beside_the_centre(trainer) -> None:
    torch.manual_seed(0)
    x = drawn(64, 4)
    recipe = Optimization(lr=1e-9)
    detector = svdd(scaling="none", phases={"autoencoder": 0, "svdd": 1}, optimizer=recipe)
    fit = trainer(max_epochs=1)
    fit.fit(detector, datamodule=Rows(x, batch_size=64))
    z = through(detector.encoder, x.double().numpy())
    truth = math.sqrt(z.var(0).sum()) / np.linalg.norm(detector.centre.numpy())
    assert fit.callback_metrics["train/spread"].item() == pytest.approx(truth, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"activation": "sigmoid"}, "unbounded, not 'sigmoid'"),
        ({"activation": "tanh"}, "unbounded, not 'tanh'"),
        ({"boundary": "firm"}, "hard or soft"),
        ({"nu": 0.0}, "nu between 0 and 1"),
        ({"nu": 1.0}, "nu between 0 and 1"),
        ({"phases": {"autoencoder": 1}}, "must give autoencoder and svdd a share"),
    ],
)
def test_what_deep_svdd_cannot_be_is_said(options, said) -> None:
    with pytest.raises(ValueError, match=said):
        svdd(**options)


def test_unbounded_activations_are_taken() -> None:
    for activation in ("relu", "leaky_relu", "elu", "gelu", "silu", "identity"):
        assert svdd(activation=activation)(torch.zeros(2, 4)).shape == (2,)


@pytest.mark.parametrize("step", [3, 10, 13])  # 5 mini-batches an epoch, 10 of each phase
def test_a_resume_keeps_the_centre_and_ends_with_the_same_weights(step, trainer, tmp_path) -> None:
    def parts() -> tuple[DeepSVDD, Rows]:
        torch.manual_seed(0)
        return svdd(boundary="soft"), Rows(drawn(70, 4), batch_size=16, group=1)

    detector, data = parts()
    trainer(max_epochs=4, callbacks=[SaveAt(step, tmp_path / "a.ckpt")]).fit(detector, datamodule=data)
    resumed, data = parts()
    torch.manual_seed(12345)
    fit = trainer(max_epochs=4)
    fit.fit(resumed, datamodule=data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert fit.global_step == 20 and equal(weights(detector), weights(resumed))


# deep SVDD with batch normalization


def normalized(shape: tuple[int, ...] = (4,), **options) -> DeepSVDD:
    return svdd(shape, **{"normalization": "batch", "scaling": "none", **options})


@pytest.mark.parametrize(("shape", "options"), [((4,), {}), ((1, 8, 8), {"channels": [4, 8]})])
def test_every_hidden_layer_is_normalized_without_a_bias(shape, options) -> None:
    detector = normalized(shape, **options)
    layers = [m for m in detector.encoder if not isinstance(m, nn.Flatten)]
    kinds = [type(m).__name__ for m in layers]
    expected = ["Conv2d", "BatchNorm", "LeakyReLU"] * len(options.get("channels", []))
    assert kinds == [*expected, "Linear", "BatchNorm", "LeakyReLU", "Linear"]
    assert not [name for name, _ in detector.named_parameters() if "bias" in name]
    x = drawn(64, math.prod(shape)).view(64, *shape) * 5 + 3
    units = detector.encoder.train()[: kinds.index("BatchNorm") + 1](x)  # before any flattening
    axes = [0, *range(2, units.ndim)]
    assert torch.allclose(units.mean(axes), torch.zeros(units.shape[1]), atol=1e-4)
    assert torch.allclose(units.var(axes, correction=0), torch.ones(units.shape[1]), atol=1e-2)


def test_a_score_depends_on_its_row_alone_and_is_not_homogeneous(trainer) -> None:
    torch.manual_seed(0)
    x = drawn(300, 4) + 2
    detector = normalized()
    trainer(max_epochs=3).fit(detector, datamodule=Rows(x, batch_size=50))
    detector.eval()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with torch.no_grad():
        whole, alone = detector(x), torch.cat([detector(row[None]) for row in x[:20]])
        assert torch.allclose(whole[:20], alone, rtol=1e-5, atol=1e-6)
        e = detector.encoder
        assert e(torch.zeros(1, 4)).abs().max() > 0.01 and not torch.allclose(e(3 * x), 3 * e(x), rtol=0.05)
    assert equal(before, detector.state_dict())  # scoring moves no running mean


@pytest.mark.parametrize("shares", [{"autoencoder": 0, "svdd": 1}, {"autoencoder": 1, "svdd": 1}])
def test_the_centre_is_of_the_training_rows_by_their_own_means(shares, trainer) -> None:
    torch.manual_seed(0)
    x = drawn(450, 4) * 3 + 1
    detector = normalized(latent=6, phases=shares)
    begin, seen = detector.begin, []

    def spy(phase: str) -> None:
        begin(phase)
        if phase == "svdd":
            seen.append((copy.deepcopy(detector.encoder), detector.centre.clone()))

    detector.begin = spy
    trainer(max_epochs=2).fit(detector, datamodule=Rows(x, batch_size=50))
    ((encoder, centre),) = seen
    assert encoder.training and all(m.momentum == 0.1 for m in encoder if hasattr(m, "momentum"))
    with torch.no_grad():
        first, norm, _, last = encoder
        h = first(x)
        assert torch.allclose(norm.running_mean, h.mean(0), rtol=1e-4, atol=1e-5)
        mean = last(F.leaky_relu((h - h.mean(0)) / (h.var(0) + 1e-4).sqrt())).mean(0)
    truth = torch.where(mean.abs() < 0.1, torch.where(mean < 0, -0.1, 0.1), mean)
    assert torch.allclose(centre, truth, rtol=1e-3, atol=1e-4)


def test_a_last_mini_batch_of_one_row_is_normalized_by_the_means_so_far(trainer) -> None:
    torch.manual_seed(0)
    detector = normalized()
    trainer(max_epochs=2).fit(detector, datamodule=Rows(drawn(33, 4), batch_size=16))
    assert detector.eval()(drawn(5, 4, seed=1)).isfinite().all()


@pytest.mark.parametrize(("shape", "options"), [((4,), {}), ((1, 4, 4), {"channels": [4]})])
def test_an_event_weight_is_so_many_rows_of_a_mini_batch(shape, options) -> None:
    torch.manual_seed(0)
    one = normalized(shape, **options)
    two, x = copy.deepcopy(one), drawn(6, math.prod(shape)).view(6, *shape)
    count = torch.tensor([1, 2, 0, 3, 1, 1])
    with weighted(one.encoder, count.float()), torch.no_grad():
        z = one.encoder.train()(x)
    with torch.no_grad():
        expected = two.encoder.train()(x.repeat_interleave(count, 0))
    assert torch.allclose(z.repeat_interleave(count, 0), expected, atol=1e-4)
    first, second = (next(m for m in d.encoder if hasattr(m, "running_mean")) for d in (one, two))
    assert torch.allclose(first.running_mean, second.running_mean, atol=1e-5) and first.weight_of_rows is None


def test_a_resume_keeps_the_running_means(trainer, tmp_path) -> None:
    def parts() -> tuple[DeepSVDD, Rows]:
        torch.manual_seed(0)
        return normalized(), Rows(drawn(70, 4), batch_size=16, group=1)

    detector, data = parts()
    trainer(max_epochs=4, callbacks=[SaveAt(7, tmp_path / "a.ckpt")]).fit(detector, datamodule=data)
    resumed, data = parts()
    trainer(max_epochs=4).fit(resumed, datamodule=data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert equal(weights(detector), weights(resumed))
    assert [name for name in weights(detector) if "running_mean" in name]


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((5,), {}, "batch"),
        ((19, 3), {}, "batch"),
        ((1, 19, 3), {}, "batch"),
        ((1, 8, 8), {}, "none"),
        ((3, 28, 28), {"channels": [4]}, "none"),
        ((1, 8, 8), {"reduce": 4}, "batch"),
        ((1, 8, 8), {"normalization": "batch"}, "batch"),
        ((5,), {"normalization": "none"}, "none"),
    ],
)
def test_hidden_units_of_tables_are_normalized_and_those_of_images_are_not(shape, options, expected) -> None:
    detector = DeepSVDD(shape, latent=2, **options)
    assert any(isinstance(part, BatchNorm) for part in detector.modules()) == (expected == "batch")


def test_an_unknown_normalization_is_refused() -> None:
    with pytest.raises(ValueError, match=r"detector\.normalization must be one of none, batch, not 'layer'"):
        svdd(normalization="layer")
