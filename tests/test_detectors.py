"""Each detector against an independent oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest as SklearnForest
from sklearn.neighbors import NearestNeighbors

from straylight.batch import Events, Splits
from straylight.data import AnomalyDataModule, Gaussians
from straylight.detectors import KNN, MAF, VAE, AutoEncoder, IsolationForest
from straylight.nn import Optimization


class Rows(AnomalyDataModule):
    def __init__(self, x, **common) -> None:
        super().__init__(contamination=None, **common)
        self.x = x

    def load(self) -> Splits:
        test = Events.of(self.x[:2], [0, 1])
        return Splits(Events.of(self.x), Events.of(self.x[:0]), test, test.take([]))


def fit_rows(detector, x) -> None:
    detector.fit(x, x.flatten(1)[:, :0], torch.ones(len(x)))


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("distance", ["kth", "mean"])
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("budget_mb", [64, 0.01])
def test_knn_is_scikit_learns(k, distance, offset, budget_mb) -> None:
    rng = np.random.default_rng(0)
    train = (rng.normal(size=(500, 6)) + offset).astype(np.float32)
    test = (rng.normal(size=(200, 6)) * 2 + offset).astype(np.float32)
    knn = KNN((6,), k=k, distance=distance, scaling="none", budget_mb=budget_mb)
    fit_rows(knn, torch.from_numpy(train))
    near, _ = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(train.astype(float)).kneighbors(test.astype(float))
    truth = near[:, -1] if distance == "kth" else near.mean(1)
    assert np.allclose(knn(torch.from_numpy(test)).numpy(), truth, rtol=1e-4 if offset else 1e-5, atol=1e-6)


def test_knn_finds_neighbours_beyond_one_tile_of_its_memory(monkeypatch) -> None:
    train, test = torch.randn(70_000, 2), torch.randn(20, 2)
    knn = KNN((2,), k=3, scaling="none")
    fit_rows(knn, train)
    truth = torch.cdist(test.double(), train.double()).topk(3, largest=False).values[:, -1]
    assert torch.allclose(knn(test).double(), truth, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigma", [1e-2, 1e-3, 1e-4])
def test_knn_is_exact_in_tight_crowds_far_from_the_centre(sigma) -> None:
    """There the product form of the distance is all rounding in float32."""
    rng = np.random.default_rng(0)
    train, test = (
        (rng.choice([-1, 1], (n, 1)) + sigma * rng.normal(size=(n, 4))).astype(np.float32) for n in (4000, 300)
    )
    knn = KNN((4,), scaling="none")
    fit_rows(knn, torch.from_numpy(train))
    near, _ = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(train.astype(float)).kneighbors(test.astype(float))
    assert np.allclose(knn(torch.from_numpy(test)).numpy(), near[:, -1], rtol=1e-2)


def test_a_context_that_was_trained_with_is_asked_for() -> None:
    with pytest.raises(ValueError, match="context of 1 column"):
        MAF((2,), context=1)(torch.zeros(1, 2))


def test_knn_keeps_a_row_at_distance_zero_of_itself() -> None:
    x = torch.randn(100, 5) + 1000
    knn = KNN((5,), k=1, scaling="none")
    fit_rows(knn, x)
    assert knn(x).max() == 0


def test_isolation_forest_is_scikit_learns(trainer) -> None:
    x = torch.randn(300, 4)
    torch.manual_seed(7)
    forest = IsolationForest((4,), n_estimators=20, scaling="none")
    trainer(max_epochs=1).fit(forest, datamodule=Rows(x))
    truth = SklearnForest(n_estimators=20, max_samples=256, random_state=7).fit(x.numpy())
    assert np.allclose(forest(x).numpy(), -truth.score_samples(x.numpy()), rtol=1e-6)


def test_isolation_forest_refuses_a_checkpoint_with_foreign_types() -> None:
    import skops.io

    forest = IsolationForest((1,))
    with pytest.raises(ValueError, match="types that are not"):
        forest.set_extra_state({"skops": torch.frombuffer(bytearray(skops.io.dumps(_Foreign())), dtype=torch.uint8)})


class _Foreign:
    pass


def test_a_linear_autoencoder_reaches_the_error_of_principal_components(trainer) -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(2000, 3)) @ rng.normal(size=(3, 8)) + 0.3 * rng.normal(size=(2000, 8)))
    data = Rows(x.float(), batch_size=200)
    torch.manual_seed(0)
    recipe = Optimization(lr=1e-2, schedule="cosine")
    linear = AutoEncoder((8,), hidden=[], latent=3, activation="identity", scaling="standard", optimizer=recipe)
    trainer(max_epochs=100).fit(linear, datamodule=data)
    scaled = linear.scaling(x.float()).detach().numpy()
    pca = PCA(3).fit(scaled)
    error = np.square(scaled - pca.inverse_transform(pca.transform(scaled))).mean()
    assert linear(x.float()).mean().item() == pytest.approx(error, rel=0.01)


def test_the_autoencoders_loss_is_the_mean_of_its_scores() -> None:
    detector = AutoEncoder((1, 4, 4), hidden=[8], latent=2, scaling="none")
    x = torch.randn(32, 1, 4, 4)
    from straylight.batch import Batch

    batch = Batch(x, torch.full((32,), -1), torch.empty(32, 0), torch.ones(1).expand(32), torch.arange(32))
    assert torch.allclose(detector.loss(batch), detector(x).mean())
    assert torch.allclose(detector.score(x, batch.context), (detector.reconstruct(x) - x).square().mean((1, 2, 3)))


def test_the_tutorials_networks_are_configurations() -> None:
    def widths(network) -> list[int]:
        linear = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
        return [linear[0].in_features, *(m.out_features for m in linear)]

    mnist = AutoEncoder((1, 28, 28), hidden=[128, 64, 12], latent=3)
    assert widths(mnist.encoder) == [784, 128, 64, 12, 3] and widths(mnist.decoder) == [3, 12, 64, 128, 784]
    trigger = AutoEncoder((57,), hidden=[], latent=8)
    assert widths(trigger.encoder) == [57, 8] and widths(trigger.decoder) == [8, 57]
    blobs = VAE((2,), hidden=[32, 32], latent=2)
    assert widths(blobs.encoder) == [2, 32, 32, 4] and widths(blobs.decoder) == [2, 32, 32, 2]  # mean and log-variance


def test_the_vaes_terms_are_those_of_torchs_distributions() -> None:
    torch.manual_seed(0)
    x = torch.rand(16, 5)
    for likelihood in ("gaussian", "bernoulli"):
        vae = VAE((5,), hidden=[7], latent=3, likelihood=likelihood, variance=0.3, scaling="none")
        mu, log_variance = vae.encode(x)
        posterior = torch.distributions.Normal(mu, (log_variance / 2).exp())
        kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1)
        out = vae.decoder(mu)
        if likelihood == "gaussian":
            nll = -torch.distributions.Normal(out, math.sqrt(0.3)).log_prob(x).sum(1)
        else:
            nll = torch.nn.BCEWithLogitsLoss(reduction="none")(out, x).sum(1)
        truth = {"elbo": nll + kl, "reconstruction": nll, "kl": kl, "mu2": mu.square().sum(1)}
        for vae.scored_by, score in truth.items():
            assert torch.allclose(vae(x), score, rtol=1e-5), (likelihood, vae.scored_by)


def test_the_vaes_loss_is_minus_the_evidence_bound_of_a_linear_model() -> None:
    """With a linear decoder and the exact posterior, -ELBO is -log N(x; b, W W^T + v 1)."""
    torch.manual_seed(0)
    d, z, v = 4, 2, 0.5
    vae = VAE((d,), hidden=[], latent=z, variance=v, scaling="none")
    w, b = torch.randn(d, z), torch.randn(d)
    (decoder,) = [m for m in vae.decoder.modules() if isinstance(m, torch.nn.Linear)]
    (encoder,) = [m for m in vae.encoder.modules() if isinstance(m, torch.nn.Linear)]
    basis, singular, _ = torch.linalg.svd(w, full_matrices=False)
    w = basis * singular  # orthogonal columns: the exact posterior is diagonal
    variance = 1 / (1 + singular.square() / v)
    with torch.no_grad():
        decoder.weight.copy_(w), decoder.bias.copy_(b)
        gain = variance[:, None] * w.T / v
        encoder.weight.copy_(torch.cat([gain, torch.zeros(z, d)]))
        encoder.bias.copy_(torch.cat([-gain @ b, variance.log()]))
    x = torch.randn(1, d).expand(200_000, d)
    from straylight.batch import Batch

    batch = Batch(x, torch.full((len(x),), -1), x[:, :0], torch.ones(1).expand(len(x)), torch.arange(len(x)))
    truth = -torch.distributions.MultivariateNormal(b, w @ w.T + v * torch.eye(d)).log_prob(x[0])
    assert vae.loss(batch)["loss"].item() == pytest.approx(truth.item(), abs=0.02)


def test_maf_learns_a_gaussian(trainer) -> None:
    data = Gaussians(events=20_000, batch_size=512, seed=0)
    torch.manual_seed(0)
    flow = MAF((2,), layers=2, hidden=16, optimizer=Optimization(lr=5e-3, schedule="cosine"))
    trainer(max_epochs=15).fit(flow, datamodule=data)
    test = data.splits.test.x[data.splits.test.y == 0]
    with torch.no_grad():
        # the density of scaled features is that of the data times |dx/dx'|
        log_prob = -flow(test) + flow.scaling.factor.log().sum()
    gap = (data.log_prob(test.double()) - log_prob).mean().item()
    assert abs(gap) < 0.02


def test_maf_in_one_dimension_with_context_depends_on_it() -> None:
    flow = MAF((1,), layers=2, hidden=8, context=1, scaling="none")
    x = torch.zeros(2, 1)
    low, high = flow(x, torch.tensor([[-3.0], [3.0]]))
    assert low != high
