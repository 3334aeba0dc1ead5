"""`detector.reduce`: a detector that looks at principal components scores as one that is given them."""

from __future__ import annotations

import copy
import inspect
import math
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.decomposition import PCA as Sklearn

from straylight.detectors import (
    GMM,
    HBOS,
    KDE,
    KNN,
    MAF,
    PCA,
    VAE,
    AutoEncoder,
    DeepSVDD,
    Detector,
    Ensemble,
    IsolationForest,
    Mahalanobis,
    OneClassSVM,
    ParticleBaseline,
    Residual,
)
from straylight.errors import ConfigError, DataError
from straylight.explain import contributions
from straylight.export import parity, session, to_onnx
from straylight.nn import Reduced, Scaling, scaling_of
from straylight.run import Run

D = 6


def rows(n: int = 400, seed: int = 0, d: int = D) -> torch.Tensor:
    """Of three strong directions and weak ones, about a point that is not the origin."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(3, d, generator=torch.Generator().manual_seed(99))
    return 5 + torch.randn(n, 3, generator=generator) @ mixing + 0.1 * torch.randn(n, d, generator=generator)


def fitted(trainer, serving, detector: Detector, x: torch.Tensor, epochs: int = 2) -> Detector:
    trainer(max_epochs=epochs).fit(detector, datamodule=serving(x))
    return detector.eval()


# the components


@pytest.mark.parametrize("chunk", [1, 7, 400])
@pytest.mark.parametrize("components", [1, 4, D, 0.5, 0.9, 0.999])
def test_components_are_scikit_learns_whatever_the_chunks(components, chunk) -> None:
    x = rows()
    reduced = Reduced(scaling_of((D,), "standard"), components).fit(x.split(chunk))
    found = reduced.reduce(zip(x.split(chunk), torch.ones(len(x)).split(chunk), strict=True))
    scaled = reduced.first(x).double().numpy()
    reference = Sklearn(components, svd_solver="full").fit(scaled)
    assert found == reduced.width == reference.n_components_
    np.testing.assert_allclose(reduced(x).abs().numpy(), np.abs(reference.transform(scaled)), rtol=1e-4, atol=1e-5)
    assert bool(reduced.fitted) and (reduced.directions.amax(0) >= -reduced.directions.amin(0)).all()


def test_a_weight_counts_as_so_many_rows() -> None:
    x, weight = rows(50), torch.arange(50) % 4
    weighted, repeated = (Reduced(scaling_of((D,), "none"), 2) for _ in range(2))
    weighted.reduce([(x, weight.float())])
    many = x.repeat_interleave(weight, 0)
    repeated.reduce([(many, torch.ones(len(many)))])
    torch.testing.assert_close(weighted.mean, repeated.mean)
    torch.testing.assert_close(weighted.directions, repeated.directions)


def test_components_lead_back_to_the_events_that_lie_in_their_plane() -> None:
    x = rows().view(-1, 1, 2, 3)
    reduced = Reduced(scaling_of((1, 2, 3), "minmax"), 3).fit([x])
    reduced.reduce([(x, torch.ones(len(x)))])
    there = reduced.inverse(reduced(x))
    assert there.shape == x.shape and (there - x).square().mean() < 0.05 * x.var()
    torch.testing.assert_close(reduced(there), reduced(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("few", [0, 1])
def test_too_few_rows_are_refused(few) -> None:
    with pytest.raises(DataError, match="reduce needs two training rows"):
        Reduced(scaling_of((D,), "none"), 2).reduce([(rows(few), torch.ones(few))])


def test_equal_rows_leave_one_component() -> None:
    reduced = Reduced(Scaling((D,), "none"), 1)
    reduced.reduce([(torch.ones(9, D), torch.ones(9))])
    assert (reduced(torch.ones(2, D)) == 0).all()


@pytest.mark.parametrize("components", [0, 7, -1, 1.0, 0.0, 1.5, True, "half"])
def test_what_is_no_number_of_components_is_refused(components) -> None:
    with pytest.raises(ValueError, match=r"detector\.reduce must be null, a number of components from 1 to 6"):
        KNN((D,), reduce=components)


def test_a_covariance_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="covariance of 10,000 features, and takes 8,192"):
        KNN((1, 100, 100), reduce=5)


# detectors

FITTED = {
    "knn": KNN,
    "kde": KDE,
    "gmm": partial(GMM, components=2, restarts=1),
    "mahalanobis": Mahalanobis,
    "pca": partial(PCA, components=1, variant="reconstruction"),
    "one_class_svm": OneClassSVM,
    "residual": Residual,
}


@pytest.mark.parametrize("reduce", [3, 0.9], ids=str)
@pytest.mark.parametrize("name", FITTED)
def test_it_scores_as_one_that_is_given_the_components(name, reduce, trainer, serving) -> None:
    x, new = rows(), rows(50, seed=1)
    detector = fitted(trainer, serving, FITTED[name]((D,), reduce=reduce), x)
    scaled = Scaling((D,), "standard").fit([x])
    plain = Sklearn(reduce, svd_solver="full").fit(scaled(x).double().numpy())
    z, there = (torch.tensor(plain.transform(scaled(some).double().numpy())).float() for some in (x, new))
    other = fitted(trainer, serving, FITTED[name]((z.shape[1],), scaling="none"), z)
    assert detector.shape == other.shape and detector.event_shape == (D,)
    torch.testing.assert_close(detector(new), other(there), rtol=2e-3, atol=2e-4)


NETWORKS = {
    "autoencoder": lambda **options: AutoEncoder((D,), hidden=[8], latent=2, **options),
    "vae": lambda **options: VAE((D,), hidden=[8], latent=2, **options),
    "maf": lambda **options: MAF((D,), layers=1, hidden=8, **options),
    "deep_svdd": lambda **options: DeepSVDD((D,), hidden=[8], latent=2, **options),
    "ensemble": lambda **options: Ensemble(
        (D,), member=partial(AutoEncoder, hidden=[8], latent=2, **options), members=3
    ),
    "ensemble itself": lambda **options: Ensemble((D,), member=partial(VAE, hidden=[8]), members=2, **options),
    "ensemble of forests": lambda **options: Ensemble(
        (D,), member=partial(IsolationForest, n_estimators=5, **options), members=2
    ),
}


@pytest.mark.parametrize("reduce", [3, 0.9], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_built_before_there_are_rows_is_as_wide_as_the_components(name, reduce, trainer, serving) -> None:
    detector = fitted(trainer, serving, NETWORKS[name](reduce=reduce), x := rows())
    assert detector.shape == (3,) and detector(x).isfinite().all() and detector(x).std() > 0
    parts = [part for part in detector.modules() if isinstance(part, Detector)]
    assert all(part.scaling is detector.scaling and part.shape == (3,) for part in parts)
    again = NETWORKS[name](reduce=reduce)
    again.load_state_dict(copy.deepcopy(detector.state_dict()))
    assert torch.equal(again.eval()(x), detector(x))


def test_of_other_rows_it_is_fitted_anew_and_to_another_number_of_components(trainer, serving) -> None:
    detector = fitted(trainer, serving, KNN((D,), reduce=0.9), rows())
    assert detector.shape == (3,)
    detector.scaling.forget()
    fitted(trainer, serving, detector.train(), x := torch.randn(300, D, generator=torch.Generator().manual_seed(0)))
    assert detector.shape == (6,) and detector(x).isfinite().all()


def test_components_that_a_detector_cannot_be_built_of_are_refused_by_their_number(trainer, serving) -> None:
    with pytest.raises(DataError, match=r"reduce=0\.9 keeps 3 components, and detector\.components .* from 1 to 3"):
        fitted(trainer, serving, PCA((D,), components=5, reduce=0.9), rows())


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: AutoEncoder((1, 4, 4), channels=[4], reduce=3), "channels need an image"),
        (lambda: DeepSVDD((1, 4, 4), channels=[4], reduce=0.9), "channels need an image"),
        (lambda: AutoEncoder((4, 3), mask=True, reduce=3), "mask needs events of particles"),
        (lambda: VAE((D,), likelihood="bernoulli", scaling="minmax", reduce=3), "needs features between 0 and 1, and"),
        (lambda: ParticleBaseline((D,), reduce=3), "sum_pt counts particles"),
    ],
)
def test_what_needs_the_features_themselves_refuses_components(build, why) -> None:
    with pytest.raises(ValueError, match=why):
        build()


def test_of_some_components_there_is_no_density_and_of_all_the_same(trainer, serving) -> None:
    x = rows()
    some, whole, plain = (
        fitted(trainer, serving, KDE((D,), bandwidth=0.5, **more), x) for more in ({"reduce": 3}, {"reduce": D}, {})
    )
    with pytest.raises(ValueError, match="keeps 3 of 6 components, so that a density of these is none of the events"):
        some.log_density(x)
    torch.testing.assert_close(whole.log_density(x), plain.log_density(x), rtol=1e-4, atol=1e-4)


def test_its_constructor_is_seen_as_it_is_written() -> None:
    assert [*inspect.signature(KNN).parameters][:3] == ["shape", "k", "distance"]
    assert "member" in inspect.signature(Ensemble).parameters


# explained


@pytest.mark.parametrize("detector", [KNN, HBOS, KDE, partial(PCA, components=2)], ids=["knn", "hbos", "kde", "pca"])
def test_contributions_are_of_the_features(detector, trainer, serving) -> None:
    x, new = rows(), rows(5, seed=1)
    found = contributions(fitted(trainer, serving, detector((D,), reduce=3), x), new, reference=x[:4])
    assert found.of.shape == (5, D) and found.method == ("gradients" if detector is KDE else "shapley")
    np.testing.assert_allclose(found.of.sum(1) + found.baseline, found.score, rtol=1e-6)


def test_a_feature_that_no_component_holds_adds_nothing(trainer, serving) -> None:
    x = torch.cat([rows(d=5), 0.001 * torch.randn(400, 1, generator=torch.Generator().manual_seed(0))], 1)
    kde = fitted(trainer, serving, KDE((D,), scaling="none", reduce=2), x)
    strange = x[:3] + torch.tensor([0, 0, 3.0, 0, 0, 3.0])
    of = contributions(kde, strange, reference=x[:4]).of
    assert (np.abs(of[:, 5]) < 0.01 * np.abs(of[:, 2])).all()


def test_exact_parts_of_components_are_refused_as_those_of_features(trainer, serving) -> None:
    x = rows()
    with pytest.raises(ConfigError, match=r"looks at principal components \(detector\.reduce\)"):
        contributions(fitted(trainer, serving, HBOS((D,), reduce=3), x), x[:2], method="exact")


# runs


@pytest.mark.parametrize("detector", ["knn", "kde", "isolation_forest", "autoencoder"])
def test_its_graph_scores_alike(detector, trainer, serving, tmp_path: Path) -> None:
    built = {"knn": KNN, "kde": KDE, "isolation_forest": IsolationForest, "autoencoder": AutoEncoder}[detector]
    made = fitted(trainer, serving, built((1, 2, 3), scaling="unit", reduce=0.9), rows().view(-1, 1, 2, 3))
    graph = session(to_onnx(made, tmp_path / "model.onnx").path)
    assert parity(made, graph, rows(64, seed=1).view(-1, 1, 2, 3), batches=(1, 7)) < 1e-3


@pytest.mark.parametrize("detector", ["knn", "autoencoder"])
def test_a_run_is_opened_scored_explained_and_judged_by_folds(detector, straylight_train, tmp_path: Path) -> None:
    more = ["callbacks.thresholds.cross=3"] if detector == "knn" else []
    ended = straylight_train(f"detector={detector}", "data=digits", "detector.reduce=0.8", *more)
    assert ended.status == 0, ended.err
    run = Run.open(ended.run)
    x = run.material.data.splits.test.x[:20].numpy()
    assert run.detector.event_shape == (1, 8, 8) and 5 < math.prod(run.detector.shape) < 40
    kept = pq.read_table(ended.run / "scores.parquet")["score"].to_numpy()[:20]
    np.testing.assert_allclose(run.score(x), kept, rtol=1e-5)
    assert run.explain(x[:2]).contributions.shape == (2, 64)


def test_an_interrupted_training_goes_on_with_its_components(trainer, serving, tmp_path: Path) -> None:
    x = rows()

    def build() -> AutoEncoder:
        torch.manual_seed(0)
        return AutoEncoder((D,), hidden=[8], latent=2, reduce=0.9)

    whole = build()
    trainer(max_epochs=4).fit(whole, datamodule=serving(x))
    first, then = build(), build()
    some = trainer(max_epochs=2)
    some.fit(first, datamodule=serving(x))
    some.save_checkpoint(tmp_path / "some.ckpt")
    trainer(max_epochs=4).fit(then, datamodule=serving(x), ckpt_path=tmp_path / "some.ckpt", weights_only=True)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(then.state_dict()[name], value, msg=name)
