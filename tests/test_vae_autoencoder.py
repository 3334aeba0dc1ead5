"""Autoencoders against principal components and hand computation, variational ones against linear models.

Shapes: `B` events, `D` features, `P` particles, `F` features of one, `Z` latent dimensions, `K` samples.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from straylight.detectors import VAE, AutoEncoder, vae
from straylight.nn import Optimization, decoder, encoder
from straylight.rows.batch import Batch


def batch_of(x, weight=None):
    """Rows without context as a loader serves them."""
    n = len(x)
    weight = torch.ones(1).expand(n) if weight is None else weight
    return Batch(x, torch.full((n,), -1), torch.empty(n, 0), weight, torch.arange(n))


def linear_layers(network):
    return [m for m in network.modules() if isinstance(m, nn.Linear)]


def widths(network):
    linear = linear_layers(network)
    return [linear[0].in_features, *(m.out_features for m in linear)]


def count(network):
    return sum(weight.numel() for weight in network.parameters())


# the networks


def test_the_tutorials_networks_are_configurations():
    mnist = AutoEncoder((1, 28, 28), hidden=[128, 64, 12], latent=3)
    assert widths(mnist.encoder) == [784, 128, 64, 12, 3] and widths(mnist.decoder) == [3, 12, 64, 128, 784]
    trigger = AutoEncoder((57,), hidden=[], latent=8)
    assert widths(trigger.encoder) == [57, 8] and widths(trigger.decoder) == [8, 57]
    blobs = VAE((2,), hidden=[32, 32], latent=2)
    assert widths(blobs.encoder) == [2, 32, 32, 4] and widths(blobs.decoder) == [2, 32, 32, 2]  # mean and log-variance


def test_the_keras_pair_has_the_numbers_of_parameters_that_its_tutorial_prints():
    keras = VAE((1, 28, 28), channels=[32, 64], hidden=[16], latent=2, likelihood="bernoulli", scaling="minmax")
    assert count(keras.encoder) == 69_076 and count(keras.decoder) == 65_089


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 27, 29), (1, 7, 5), (3, 9, 8), (2, 1, 1), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("channels", [[4], [4, 6], [3, 4, 5]], ids=str)
def test_images_of_any_size_come_back_in_their_own_shape(shape, channels):
    x = torch.randn(5, *shape)
    for detector in (AutoEncoder, VAE):
        one = detector(shape, channels=channels, hidden=[7], latent=3)
        assert one.reconstruct(x).shape == x.shape and one(x).shape == (5,)
    smallest = math.prod(math.ceil(n / 2 ** len(channels)) for n in shape[1:])  # each convolution halves, rounding up
    assert widths(one.encoder) == [channels[-1] * smallest, 7, 6]


@pytest.mark.parametrize("shape", [(8,), (4, 4)], ids=str)
@pytest.mark.parametrize("detector", [AutoEncoder, VAE])
def test_convolutions_over_events_that_are_no_images_are_refused_in_words(detector, shape):
    with pytest.raises(ValueError, match=r"images of shape \(C, H, W\).*cannot be used on events of shape"):
        detector(shape, channels=[4])


def test_a_convolution_without_channels_is_refused():
    with pytest.raises(ValueError, match=r"detector.channels.*\[4, 0\]"):
        encoder((1, 8, 8), 2, channels=[4, 0])


def test_networks_without_biases_have_none():
    for make in (encoder, decoder):
        names = [name for name, _ in make((1, 8, 8), 2, channels=[3], hidden=[4], bias=False).named_parameters()]
        assert names and all(name.endswith("weight") for name in names)


# AutoEncoder


def test_a_linear_autoencoder_reaches_the_error_of_principal_components(trainer, serving):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(2000, 3)) @ rng.normal(size=(3, 8)) + 0.3 * rng.normal(size=(2000, 8)))
    x = x.float()
    torch.manual_seed(0)
    recipe = Optimization(lr=1e-2, schedule="cosine")
    linear = AutoEncoder((8,), hidden=[], latent=3, activation="identity", scaling="standard", optimizer=recipe)
    trainer(max_epochs=100).fit(linear, datamodule=serving(x, batch_size=200))
    scaled = linear.scaling(x).numpy()
    pca = PCA(3).fit(scaled)
    error = np.square(scaled - pca.inverse_transform(pca.transform(scaled))).mean()
    assert linear(x).mean().item() == pytest.approx(error, rel=0.01)


def test_the_score_of_an_autoencoder_is_its_mean_squared_error_and_the_loss_the_mean_of_scores():
    torch.manual_seed(0)
    detector = AutoEncoder((1, 4, 4), hidden=[8], latent=2, scaling="none")
    x, weight = torch.randn(32, 1, 4, 4), 2 * torch.rand(32)
    with torch.no_grad():
        error = np.square(detector.reconstruct(x).numpy() - x.numpy()).reshape(32, -1).mean(1)
        np.testing.assert_allclose(detector(x).numpy(), error, rtol=1e-5)
        assert detector.loss(batch_of(x)).item() == pytest.approx(error.mean(), rel=1e-5)
        assert detector.loss(batch_of(x, weight)).item() == pytest.approx((error * weight.numpy()).mean(), rel=1e-5)


class Fixed(nn.Module):
    """A decoder that says the same whatever it hears."""

    def __init__(self, out):
        super().__init__()
        self.out = nn.Parameter(out)

    def forward(self, z):
        return self.out


def masked_autoencoder(scaling):
    """A fitted one, five events of three particles, and which of these are real, `(B, P)`."""
    torch.manual_seed(0)
    x = 3 * torch.randn(5, 3, 2) + 20
    x[0, 2], x[1, 1:], x[2, 0], x[4] = 0, 0, 0, 0
    x[3, 1, 0] = 0  # of a real particle
    detector = AutoEncoder((3, 2), hidden=[4], latent=2, mask=True, scaling=scaling)
    detector.scaling.fit([x])
    detector.decoder = Fixed(torch.randn(5, 3, 2))
    real = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0]], dtype=bool)
    return detector, x, real


SCALINGS = ["none", "standard", "minmax", "standard_common", "minmax_common"]


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_masked_score_is_the_mean_over_the_features_of_real_particles(scaling):
    detector, x, real = masked_autoencoder(scaling)
    with torch.no_grad():
        score = detector(x).numpy()
        error = np.square(detector.decoder.out.numpy() - detector.scaling(x).numpy())
    for event in range(4):
        assert score[event] == pytest.approx(error[event][real[event]].mean(), rel=1e-5)
    assert score[4] == 0  # nothing there is real


@pytest.mark.parametrize("scaling", SCALINGS)
def test_what_a_network_says_of_padded_particles_counts_for_nothing(scaling):
    detector, x, real = masked_autoencoder(scaling)
    batch = batch_of(detector.scaling(x))
    score, loss = detector(x), detector.loss(batch)
    assert loss.item() == pytest.approx(score.mean().item(), rel=1e-6)
    loss.backward()
    gradient = detector.decoder.out.grad.numpy()
    assert (gradient[~real] == 0).all() and (gradient[real] != 0).all()
    with torch.no_grad():
        detector.decoder.out[torch.from_numpy(~real)] += 1e6
        assert torch.equal(detector(x), score) and torch.equal(detector.loss(batch), loss)
        detector.decoder.out[0, 0] += 1
        assert detector(x)[0] != score[0]


def test_a_masked_loss_is_the_weighted_mean_of_scores():
    detector, x, _ = masked_autoencoder("standard")
    weight = torch.tensor([0.5, 2.0, 1.0, 0.0, 1.5])
    loss = detector.loss(batch_of(detector.scaling(x), weight))
    assert loss.item() == pytest.approx((detector(x) * weight).mean().item(), rel=1e-6)


@pytest.mark.parametrize("shape", [(6,), (1, 3, 2)], ids=str)
def test_a_mask_over_events_without_particles_is_refused_in_words(shape):
    with pytest.raises(ValueError, match=r"detector.mask needs events of particles by features, \(P, F\), not \("):
        AutoEncoder(shape, mask=True)


# VAE


def test_the_terms_of_a_vae_are_those_of_torchs_distributions():
    torch.manual_seed(0)
    x = torch.rand(16, 5)
    for likelihood in ("gaussian", "bernoulli"):
        one = VAE((5,), hidden=[7], latent=3, likelihood=likelihood, variance=0.3, scaling="none")
        mu, log_variance = one.encode(x)
        posterior = torch.distributions.Normal(mu, (log_variance / 2).exp())
        kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1)
        out = one.decoder(mu)
        if likelihood == "gaussian":
            nll = -torch.distributions.Normal(out, math.sqrt(0.3)).log_prob(x).sum(1)
        else:
            nll = nn.BCEWithLogitsLoss(reduction="none")(out, x).sum(1)
        truth = {"elbo": nll + kl, "reconstruction": nll, "kl": kl, "mu2": mu.square().sum(1)}
        for one.scored_by, score in truth.items():
            assert torch.allclose(one(x), score, rtol=1e-5), (likelihood, one.scored_by)


def test_the_scores_of_the_encoder_alone_are_their_formulas():
    torch.manual_seed(0)
    x = torch.randn(20, 5)
    one = VAE((5,), hidden=[], latent=3, scaling="none")
    (layer,) = linear_layers(one.encoder)
    w, b = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    numbers = x.double().numpy() @ w.T + b
    mu, variance = numbers[:, :3], np.exp(numbers[:, 3:])
    expected = {
        "mu2": (mu**2).sum(1),
        "rz": (mu**2 / variance).sum(1),
        "kl": ((mu**2 + variance - 1 - np.log(variance)) / 2).sum(1),
    }
    for one.scored_by, score in expected.items():
        np.testing.assert_allclose(one(x).detach().numpy(), score, rtol=1e-4, atol=1e-6)


def test_bernoulli_pixels_outside_of_zero_and_one_cost_their_distance_more():
    torch.manual_seed(0)
    one = VAE((2,), hidden=[], latent=1, likelihood="bernoulli", scaling="none")
    z = torch.randn(3, 1)
    logits = one.decoder(z)
    edge, beyond = torch.tensor([[0.0, 1.0]]).expand(3, 2), torch.tensor([[-0.25, 1.5]]).expand(3, 2)
    log_odds = torch.log1p((logits[:, 0]).exp()) + torch.log1p((-logits[:, 1]).exp())
    torch.testing.assert_close(one.nll(edge, z), log_odds)
    torch.testing.assert_close(one.nll(beyond, z), log_odds + 0.75)
    torch.testing.assert_close(one.reconstruct(edge), one.decoder(one.encode(edge)[0]).sigmoid())


def linear_model(features=5, latent=2, variance=0.5, *, widened=1.0, moved=0.0, samples=64):
    """A VAE that knows everything: x = W z + b + noise, with W's columns orthogonal so that posteriors are diagonal.

    Returns:
        the VAE in float64; the density of x; and the posterior for some x, which is the encoder's unless that is
        `widened` in standard deviation or `moved`.
    """
    torch.manual_seed(0)
    basis, sizes, _ = torch.linalg.svd(torch.randn(features, latent, dtype=torch.float64), full_matrices=False)
    w, b = basis * sizes, torch.randn(features, dtype=torch.float64)
    exact = 1 / (1 + sizes.square() / variance)
    gain = exact[:, None] * w.T / variance
    one = VAE(
        (features,),
        hidden=[],
        latent=latent,
        variance=variance,
        scaling="none",
        score="log_likelihood",
        samples=samples,
    )
    one.double()
    (encode,), (decode,) = linear_layers(one.encoder), linear_layers(one.decoder)
    with torch.no_grad():
        decode.weight.copy_(w), decode.bias.copy_(b)
        encode.weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
        encode.bias.copy_(torch.cat([moved - gain @ b, (widened**2 * exact).log()]))
    covariance = w @ w.T + variance * torch.eye(features, dtype=torch.float64)
    return (
        one,
        torch.distributions.MultivariateNormal(b, covariance),
        lambda x: torch.distributions.Normal((x - b) @ gain.T, exact.sqrt()),
    )


@torch.no_grad()
def test_with_the_exact_posterior_every_weight_is_the_likelihood_whatever_the_noise():
    one, density, _ = linear_model()
    x = 3 * torch.randn(20, 5, dtype=torch.float64)
    found = one.log_weights(x, 2 * torch.randn(100, 2, dtype=torch.float64))
    torch.testing.assert_close(found, density.log_prob(x).expand(100, 20))
    torch.testing.assert_close(one(x), -density.log_prob(x))


@torch.no_grad()
def test_importance_weighted_bounds_rise_from_the_evidence_bound_to_the_likelihood_with_the_samples():
    one, density, posterior = linear_model(widened=1.4, moved=0.3)
    x = 2 * torch.randn(6, 5, dtype=torch.float64)
    truth = density.log_prob(x)
    encoded = torch.distributions.Normal(one.encode(x)[0], (one.encode(x)[1] / 2).exp())
    divergence = torch.distributions.kl_divergence(encoded, posterior(x)).sum(1)
    torch.manual_seed(1)
    weights = one.log_weights(x, torch.randn(40_000, 2, dtype=torch.float64))

    evidence = weights.mean(0)
    torch.testing.assert_close(evidence, truth - divergence, rtol=0, atol=0.02)
    gaps = [(truth - evidence).mean()]
    for samples in (10, 100, 1000, 40_000):
        bounds = weights.view(-1, samples, 6).logsumexp(1) - math.log(samples)
        assert (bounds.mean(0) >= evidence).all() and (bounds.mean(0) < truth + 0.02).all()
        gaps.append((truth - bounds.mean(0)).mean())
    assert gaps[0] > 0.3 and gaps[1] < gaps[0] / 3 and gaps[2] < gaps[1] / 3 and abs(gaps[3]) < gaps[2] / 2
    torch.testing.assert_close(bounds[0], truth, rtol=0, atol=0.02)


@torch.no_grad()
def test_the_score_log_likelihood_is_within_hundredths_of_the_true_one():
    one, density, _ = linear_model(widened=1.4, moved=0.3, samples=20_000)
    x = 2 * torch.randn(50, 5, dtype=torch.float64)
    torch.testing.assert_close(one(x), -density.log_prob(x), rtol=0, atol=0.05)
    assert (one(x) + density.log_prob(x)).mean().abs() < 0.01


@torch.no_grad()
def test_weights_are_the_same_however_many_are_decoded_at_once(monkeypatch):
    one, _, _ = linear_model(widened=1.4)
    x, noise = torch.randn(7, 5, dtype=torch.float64), torch.randn(50, 2, dtype=torch.float64)
    whole = one.log_weights(x, noise)
    assert whole.shape == (50, 7)
    for at_once in (1, 20, 50):
        monkeypatch.setattr(vae, "AT_ONCE", at_once)
        torch.testing.assert_close(one.log_weights(x, noise), whole)
    by_hand = torch.stack([one.log_weights(x[i : i + 1], noise[k : k + 1])[0, 0] for k in (0, 49) for i in range(7)])
    torch.testing.assert_close(by_hand.view(2, 7), whole[[0, 49]])


@torch.no_grad()
def test_the_score_log_likelihood_is_the_same_each_time_and_for_each_batch_size_and_travels_in_the_state_dict():
    def made(seed):
        torch.manual_seed(seed)
        return VAE((1, 5, 5), hidden=[9], latent=3, score="log_likelihood", samples=32, scaling="none")

    one, other, x = made(0), made(1), torch.randn(40, 1, 5, 5)
    score = one(x)
    state = torch.get_rng_state()
    assert torch.equal(one(x), score) and torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(torch.cat([one(row) for row in x.split(1)]), score, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one(x.flip(0)).flip(0), score, rtol=1e-5, atol=1e-5)

    assert (other(x) != score).all()
    other.load_state_dict({name: value for name, value in one.state_dict().items() if name != "noise"}, strict=False)
    assert (other(x) != score).all()  # by its noise
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(x), score)
    assert "noise" not in VAE((2,), score="elbo").state_dict()


def test_the_loss_of_a_vae_is_minus_the_evidence_bound_of_a_linear_model():
    """With the exact posterior that is -log p(x)."""
    one, density, _ = linear_model()
    x = torch.randn(1, 5, dtype=torch.float64)
    loss = one.loss(batch_of(x.expand(100_000, 5)))["loss"]
    assert loss.item() == pytest.approx(-density.log_prob(x).item(), abs=0.02)


def test_the_loss_of_a_vae_weighs_the_divergence_by_beta_and_events_by_their_weights():
    torch.manual_seed(0)
    one, x, weight = VAE((4,), hidden=[6], latent=2, beta=0.25, scaling="none"), torch.randn(30, 4), 2 * torch.rand(30)
    losses = one.loss(batch_of(x, weight))
    assert losses["loss"].item() == pytest.approx((losses["reconstruction"] + 0.25 * losses["kl"]).item(), rel=1e-6)
    one.scored_by = "kl"
    assert losses["kl"].item() == pytest.approx((one(x) * weight).mean().item(), rel=1e-5)


class Watched(VAE):
    """Remembers what beta was, and what came of it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen = {True: [], False: []}

    def loss(self, batch):
        losses = super().loss(batch)
        effective = (losses["loss"] - losses["reconstruction"]) / losses["kl"]
        self.seen[self.training].append((self.beta_now(), effective.item()))
        return losses


@pytest.mark.parametrize("fraction, rising", [(0.0, 0), (0.5, 20), (1.0, 40)])
@pytest.mark.parametrize("group", [1, 3, 32])
def test_beta_rises_linearly_over_its_fraction_of_the_steps_and_is_the_last_one_in_validation(
    trainer, serving, fraction, rising, group
):
    torch.manual_seed(0)
    detector = Watched((3,), hidden=[8], latent=2, beta=2.0, beta_warmup=fraction)
    x = torch.randn(100, 3)
    trainer(max_epochs=4).fit(detector, datamodule=serving(x, x[:20], batch_size=10, group=group))
    betas, effective = zip(*detector.seen[True], strict=True)
    assert list(betas) == pytest.approx([2.0 * min(1.0, step / rising) if rising else 2.0 for step in range(40)])
    assert list(effective) == pytest.approx(list(betas), rel=1e-3, abs=1e-3)
    assert len(detector.seen[False]) == 4 and all(beta == 2.0 for beta, _ in detector.seen[False])


def test_a_far_row_has_finite_vae_scores():
    torch.manual_seed(0)
    one, x = VAE((4,), hidden=[6], latent=2, samples=8, scaling="none"), 1e4 * torch.randn(50, 4)
    one.register_buffer("noise", torch.randn(8, 2))
    for one.scored_by in ("elbo", "log_likelihood", "reconstruction", "kl", "mu2", "rz"):
        assert one(x).isfinite().all(), one.scored_by


@pytest.mark.parametrize(
    "wrong",
    [
        {"score": "likelihood"},
        {"likelihood": "poisson"},
        {"variance": 0.0},
        {"variance": math.nan},
        {"beta": -1.0},
        {"beta_warmup": 1.5},
        {"samples": 0},
    ],
    ids=str,
)
def test_a_vae_out_of_range_is_refused_by_its_key(wrong):
    ((key, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"(detector\.| and ){key}.* (not|and) .*{value}"):
        VAE((2,), **wrong)
