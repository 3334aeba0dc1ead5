"""Detectors by moments, neighbours, tails, histograms and scikit-learn's estimators against second calculations."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import skew, spearmanr
from sklearn.cluster import DBSCAN as SklearnDBSCAN
from sklearn.covariance import EllipticEnvelope as SklearnEnvelope
from sklearn.covariance import EmpiricalCovariance, LedoitWolf, ShrunkCovariance, ledoit_wolf_shrinkage
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.ensemble import IsolationForest as SklearnForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import SGDOneClassSVM
from sklearn.mixture import BayesianGaussianMixture
from sklearn.neighbors import LocalOutlierFactor as SklearnFactor
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM as SklearnSVM

from fitting import fitted, loaded, scores
from straylight.detectors import (
    COPOD,
    DBSCAN,
    ECOD,
    GMM,
    HBOS,
    KDE,
    KNN,
    PCA,
    BayesianGMM,
    EllipticEnvelope,
    IsolationForest,
    LocalOutlierFactor,
    Mahalanobis,
    OneClassSVM,
    Residual,
    Views,
)
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.moments import Sums
from straylight.errors import DataError
from straylight.nn import Neighbours
from straylight.nn.neighbours import least
from straylight.rows.batch import Events
from straylight.rows.mapped import Mapped


def cloud(n=300, d=4, offset=0.0, seed=0) -> np.ndarray:
    """Correlated features of somewhat different spread."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(d).normal(size=(d, d)) + np.diag(np.linspace(1, 3, d))
    return (rng.normal(size=(n, d)) @ mix + offset).astype(np.float32)


def counts(n=300, seed=1) -> np.ndarray:
    """Event weights from 0 to 3."""
    return np.random.default_rng(seed).integers(0, 4, n).astype(np.float32)


def repeated(rows, weight) -> np.ndarray:
    return np.repeat(rows, weight.astype(int), axis=0)


def drawn(rows, limit, seed=0) -> np.ndarray:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:limit]
    return rows[np.sort(order.numpy())]


# principal components

VARIANTS = ["whitened", "reconstruction", "whitened_reconstruction"]


def sklearn_pca(train, test, components, variant) -> np.ndarray:
    q = SklearnPCA(components, svd_solver="full").fit(train.astype(float)).n_components_
    z = SklearnPCA(whiten=True, svd_solver="full").fit(train.astype(float)).transform(test.astype(float)) ** 2
    if variant == "reconstruction":
        pca = SklearnPCA(q, svd_solver="full").fit(train.astype(float))
        return np.square(test - pca.inverse_transform(pca.transform(test.astype(float)))).sum(1)
    return z[:, :q].sum(1) if variant == "whitened" else z[:, q:].sum(1)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(
    ("variant", "components"), [("whitened", None), *((v, q) for v in VARIANTS for q in (1, 2, 0.5, 0.9))]
)
@pytest.mark.parametrize("budget_mb", [64, 0.001])
def test_pca_is_scikit_learns(variant, components, offset, budget_mb) -> None:
    train, test = cloud(offset=offset), 3 * cloud(100, seed=1) + np.float32(offset)
    pca = fitted(PCA((4,), components=components, variant=variant, budget_mb=budget_mb, scaling="none"), train)
    np.testing.assert_allclose(scores(pca, test), sklearn_pca(train, test, components, variant), rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_event_weight_is_so_many_rows_of_a_pca(variant) -> None:
    train, weight = cloud(offset=100.0), counts()
    pca = fitted(PCA((4,), components=2, variant=variant, scaling="none"), train, weight)
    truth = sklearn_pca(repeated(train, weight), train, 2, variant)
    np.testing.assert_allclose(scores(pca, train), truth, rtol=1e-5)


def test_images_are_flattened_for_a_pca() -> None:
    train = cloud(100, 12)
    images, flat = PCA((3, 2, 2), components=5, scaling="none"), PCA((12,), components=5, scaling="none")
    assert np.array_equal(
        scores(fitted(images, train.reshape(-1, 3, 2, 2)), train.reshape(-1, 3, 2, 2)),
        scores(fitted(flat, train), train),
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: PCA((4,), scaling="none"),
        lambda: PCA((4,), components=2, variant="reconstruction", scaling="none"),
        lambda: Mahalanobis((4,), scaling="none"),
    ],
    ids=["pca", "reconstruction", "mahalanobis"],
)
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_sums_taken_as_rows_come_are_those_of_all_rows(make, offset, trainer, serving) -> None:
    x = torch.from_numpy(cloud(500, offset=offset))
    x = x[x[:, 0].argsort()]
    streamed = make()
    trainer(max_epochs=1).fit(streamed, datamodule=serving(x, batch_size=16, group=2))
    np.testing.assert_allclose(scores(streamed, x), scores(fitted(make(), x), x), rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize(
    "make",
    [
        lambda: PCA((4,), scaling="none"),
        lambda: PCA((4,), components=2, variant="reconstruction", scaling="none"),
        lambda: PCA((4,), components=2, variant="whitened_reconstruction", scaling="none"),
        lambda: Mahalanobis((4,), shrinkage=0.0, scaling="none"),
    ],
    ids=["whitened", "reconstruction", "whitened_reconstruction", "mahalanobis"],
)
def test_a_row_that_leaves_the_plane_of_all_others_is_the_strangest(make, offset) -> None:
    def plane(n, seed) -> np.ndarray:
        a, b = np.random.default_rng(seed).integers(-500, 500, (2, n)) / 128
        return (np.stack([a, b, a + b, np.full(n, 7.0)], 1) + offset).astype(np.float32)

    detector, others = fitted(make(), plane(300, 0)), plane(50, 1)
    for column in (2, 3):
        left = plane(1, 2)
        left[0, column] += 1
        found = scores(detector, np.concatenate([others, left]))
        assert np.isfinite(found).all()
        assert found[-1] > 10 * found[:-1].max()


@pytest.mark.parametrize("kind", [PCA, Mahalanobis])
def test_moments_of_equal_rows_give_finite_scores(kind) -> None:
    detector = fitted(kind((3,), scaling="none"), np.full((20, 3), 0.1, np.float32))
    here, there = scores(detector, np.array([[0.1] * 3, [100] * 3], np.float32))
    assert here < there < math.inf


def test_a_reconstruction_from_all_components_is_refused() -> None:
    with pytest.raises(DataError, match=r"lower detector\.components"):
        fitted(PCA((4,), variant="reconstruction", scaling="none"), cloud())


@pytest.mark.parametrize("kind", [PCA, Mahalanobis])
def test_a_covariance_beyond_the_budget_and_a_single_row_are_refused(kind, trainer, serving) -> None:
    with pytest.raises(DataError, match=r"detector\.budget_mb"):
        trainer(max_epochs=1).fit(kind((40,), budget_mb=0.01), datamodule=serving(torch.randn(50, 40)))
    with pytest.raises(DataError, match="two training rows"):
        fitted(kind((4,), scaling="none"), cloud(1))


# Mahalanobis


@pytest.mark.parametrize(
    ("shrinkage", "estimator"),
    [(0.0, EmpiricalCovariance()), (0.3, ShrunkCovariance(shrinkage=0.3)), ("ledoit_wolf", LedoitWolf())],
    ids=["empirical", "shrunk", "ledoit_wolf"],
)
@pytest.mark.parametrize("n", [30, 300])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_mahalanobis_is_scikit_learns(shrinkage, estimator, n, offset) -> None:
    train, test = cloud(n, 8, offset), cloud(100, 8, offset, seed=1)
    detector = fitted(Mahalanobis((8,), shrinkage=shrinkage, scaling="none"), train)
    truth = estimator.fit(train.astype(float)).mahalanobis(test.astype(float))
    np.testing.assert_allclose(scores(detector, test), truth, rtol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(5, 20), (40, 8), (1000, 3)])
@pytest.mark.parametrize("offset", [0.0, -300.0, 1e4])
@pytest.mark.parametrize("chunk", [7, 1000])
def test_the_shrinkage_is_scikit_learns(n, d, offset, chunk) -> None:
    rows = torch.from_numpy(cloud(n, d, offset))
    sums = Sums(rows[:3].double().mean(0))
    for part in rows.split(chunk):
        sums.add(part, torch.ones(len(part)))
    assert sums.ledoit_wolf() == pytest.approx(ledoit_wolf_shrinkage(rows.double().numpy()), rel=1e-6)
    np.testing.assert_allclose(sums.covariance.numpy(), np.cov(rows.double().numpy().T, ddof=0), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("shrinkage", "estimator"),
    [(0.0, EmpiricalCovariance()), ("ledoit_wolf", LedoitWolf())],
    ids=["empirical", "ledoit_wolf"],
)
def test_an_event_weight_is_so_many_rows_of_a_covariance(shrinkage, estimator) -> None:
    train, weight = cloud(offset=100.0), counts()
    detector = fitted(Mahalanobis((4,), shrinkage=shrinkage, scaling="none"), train, weight)
    truth = estimator.fit(repeated(train, weight).astype(float)).mahalanobis(train.astype(float))
    np.testing.assert_allclose(scores(detector, train), truth, rtol=1e-5)


# neighbours

METRICS = ["euclidean", "manhattan", "cosine"]


def nearest(train, test, k, metric="euclidean") -> np.ndarray:
    search = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric).fit(train.astype(float))
    return search.kneighbors(test.astype(float))[0]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("n", [5, 12, 200, 3001])
@pytest.mark.parametrize("budget_mb", [64, 0.05])
def test_neighbours_are_scikit_learns(metric, k, n, budget_mb) -> None:
    train, test = cloud(n, 6), cloud(60, 6, seed=1)
    found = Neighbours(6, metric, budget_mb).fit(torch.from_numpy(train))(torch.from_numpy(test), k)
    np.testing.assert_allclose(found.numpy(), nearest(train, test, k, metric), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("wide", [3, 100, 699])
def test_neighbours_are_found_beyond_the_rows_looked_at_together(metric, wide, monkeypatch) -> None:
    monkeypatch.setattr(Neighbours, "WIDE", wide)
    train, test = cloud(700, 6), cloud(60, 6, seed=1)
    found = Neighbours(6, metric).fit(torch.from_numpy(train))(torch.from_numpy(test), 5)
    np.testing.assert_allclose(found.numpy(), nearest(train, test, 5, metric), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("distance", ["kth", "mean"])
@pytest.mark.parametrize("metric", METRICS)
def test_knn_of_every_metric_is_scikit_learns_and_comes_back_from_a_file(distance, metric) -> None:
    train, test = cloud(), cloud(50, seed=1)
    options = {"k": 3, "distance": distance, "metric": metric, "scaling": "none"}
    knn, near = fitted(KNN((4,), **options), train), nearest(train, test, 3, metric)
    np.testing.assert_allclose(
        scores(knn, test), near[:, -1] if distance == "kth" else near.mean(1), rtol=2e-5, atol=1e-6
    )
    assert np.array_equal(scores(loaded(knn, KNN((4,), **options)), test), scores(knn, test))


def test_a_row_of_zeros_has_cosine_distance_one_from_all_others() -> None:
    train, test = np.abs(cloud(40)), -np.abs(cloud(10, seed=1))
    train[3] = test[4] = 0
    found = Neighbours(4, "cosine").fit(torch.from_numpy(train))(torch.from_numpy(test), 40)
    np.testing.assert_allclose(found.numpy(), nearest(train, test, 40, "cosine"), rtol=1e-5)
    assert found[4].allclose(torch.ones(40)) and found[:, 0].allclose(torch.ones(10))


@pytest.mark.parametrize("length", [1e-30, 1e-10, 1e10, 1e18])
def test_cosine_distances_do_not_depend_on_length(length) -> None:
    train, test = torch.from_numpy(cloud(100)), torch.from_numpy(cloud(20, seed=1))
    plain = Neighbours(4, "cosine").fit(train)(test, 5)
    assert torch.allclose(Neighbours(4, "cosine").fit(train)(test * length, 5), plain, rtol=1e-4, atol=1e-6)
    assert torch.allclose(Neighbours(4, "cosine").fit(train * length)(test, 5), plain, rtol=1e-4, atol=1e-6)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    m=st.integers(1, 700), lines=st.integers(1, 4), q=st.integers(1, 30), levels=st.integers(1, 2000), data=st.data()
)
def test_the_least_values_are_the_first_when_sorted_and_are_where_they_are_said_to_be(
    m, lines, q, levels, data
) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    values = torch.randint(levels, (lines, m), generator=generator).float()
    value, place = least(values, q)
    assert torch.equal(value.sort(1).values, values.sort(1).values[:, :q])
    assert torch.equal(values.gather(1, place), value)
    assert all(len(set(line)) == min(q, m) for line in place.tolist())


def test_more_neighbours_than_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"detector\.k=5.*3 training rows"):
        fitted(KNN((4,), scaling="none"), cloud(3))
    with pytest.raises(ValueError, match="4 neighbours cannot be found among 3 rows"):
        Neighbours(4).fit(torch.from_numpy(cloud(3)))(torch.zeros(1, 4), 4)


# tails


def skewed(n=200, seed=0) -> np.ndarray:
    """Skewed to the right, to the left, hardly, and in a few whole numbers."""
    rng = np.random.default_rng(seed)
    columns = [rng.exponential(size=n), -rng.exponential(size=n), rng.normal(size=n), rng.poisson(2, n)]
    return np.stack(columns, 1).astype(np.float32)


def tail_sums(train, test, floor, aggregate, copula) -> np.ndarray:
    """The papers' formulas, event by event and feature by feature."""
    left_skewed = skew(train.astype(float), axis=0) < 0
    found = []
    for event in test:
        l, r = np.zeros(train.shape[1]), np.zeros(train.shape[1])
        for j, value in enumerate(event):
            l[j] = -np.log(max(np.mean(train[:, j] <= value), floor))
            r[j] = -np.log(max(np.mean(train[:, j] >= value), floor))
        s = np.where(left_skewed, l, r)
        if aggregate == "total":
            found.append(max(l.sum(), r.sum(), s.sum()))
        else:
            found.append(np.maximum(s, (l + r) / 2).sum() if copula else np.maximum(l, r).sum())
    return np.array(found)


@pytest.mark.parametrize("kind", [ECOD, COPOD])
@pytest.mark.parametrize("aggregate", ["total", "feature"])
@pytest.mark.parametrize("budget_mb", [64, 0.001])
def test_tail_scores_are_the_papers_formulas(kind, aggregate, budget_mb) -> None:
    train, test = skewed(), np.concatenate([skewed(40, seed=1), skewed(10), 100 * skewed(10, seed=2)])
    detector = fitted(kind((4,), aggregate=aggregate, budget_mb=budget_mb, scaling="none"), train)
    truth = tail_sums(train, test, 1 / 201, aggregate, kind is COPOD)
    np.testing.assert_allclose(scores(detector, test), truth, rtol=1e-5)


@pytest.mark.parametrize("kind", [ECOD, COPOD])
@pytest.mark.parametrize("aggregate", ["total", "feature"])
def test_an_event_weight_is_so_many_rows_in_the_tails(kind, aggregate) -> None:
    train, weight, test = skewed(), counts(200), np.concatenate([skewed(40, seed=1), skewed(10), skewed(10) * 100])
    detector = fitted(kind((4,), aggregate=aggregate, scaling="none"), train, weight)
    floor = 1 / ((weight > 0).sum() + 1)
    truth = tail_sums(repeated(train, weight), test, floor, aggregate, kind is COPOD)
    np.testing.assert_allclose(scores(detector, test), truth, rtol=1e-5)
    again = loaded(detector, kind((4,), aggregate=aggregate, scaling="none"))
    assert np.array_equal(scores(again, test), scores(detector, test))


@pytest.mark.parametrize("kind", [ECOD, COPOD])
def test_rows_beyond_all_training_rows_are_as_strange_as_finite_numbers_allow(kind) -> None:
    detector = fitted(kind((4,), scaling="none"), skewed())
    found = scores(detector, np.array([[1e3] * 4, [1e30] * 4, [-1e3] * 4, [-1e30] * 4], np.float32))
    np.testing.assert_allclose(found, 4 * np.log(201), rtol=1e-6)


# histograms


def heights_looked_up(edges, heights, outside, values) -> np.ndarray:
    """-log of a histogram's height in units of its highest bin, which have lower edges and the last an upper one."""
    found = []
    for value in values:
        bin = max((i for i in range(len(heights)) if edges[i] <= value), default=None)
        found.append(outside if bin is None or value > edges[-1] else heights[bin])
    return -np.log(np.array(found) / max(heights))


def static_score(train, test, bins) -> np.ndarray:
    total, n = np.zeros(len(test)), len(train)
    for j in range(train.shape[1]):
        rows, edges = np.histogram(train[:, j].astype(float), bins)
        least = n / (n + 1)
        total += heights_looked_up(edges, np.where(rows > 0, rows, least), least, test[:, j])
    return total


def dynamic_score(train, test, bins) -> np.ndarray:
    total, n = np.zeros(len(test)), len(train)
    for j in range(train.shape[1]):
        edges = np.sort(train[:, j].astype(float))[np.round(np.linspace(0, n - 1, bins + 1)).astype(int)]
        widths = np.diff(edges)
        widths[widths == 0] = widths[widths > 0].min()
        rows = np.zeros(bins)
        for value in train[:, j]:
            rows[max(i for i in range(bins) if edges[i] <= value)] += 1
        least = n / (n + 1)
        heights = np.where(rows > 0, rows, least) / widths
        total += heights_looked_up(edges, heights, least / (edges[-1] - edges[0]), test[:, j])
    return total


@pytest.mark.parametrize("bins", ["sqrt", 1, 2, 7, 50])
@pytest.mark.parametrize(("widths", "direct"), [("static", static_score), ("dynamic", dynamic_score)])
def test_hbos_is_the_histograms_heights_directly(widths, direct, bins) -> None:
    train = np.stack([*skewed().T, cloud(200, 1, seed=3)[:, 0]], 1)
    test = np.concatenate([2 * train[:50], train[50:100], 1000 * train[:10]]).astype(np.float32)
    hbos = fitted(HBOS((5,), bins=bins, widths=widths, scaling="none"), train)
    np.testing.assert_allclose(
        scores(hbos, test), direct(train, test, 14 if bins == "sqrt" else bins), rtol=1e-5, atol=1e-5
    )
    again = loaded(hbos, HBOS((5,), bins=bins, widths=widths, scaling="none"))
    assert np.array_equal(scores(again, test), scores(hbos, test))


def test_an_event_weight_is_so_many_rows_in_a_histogram() -> None:
    train, weight = np.random.default_rng(0).uniform(size=(300, 3)).astype(np.float32), counts()
    train = train[weight > 0]
    weight = weight[weight > 0]
    inside = train[((train > train.min(0)) & (train < train.max(0))).all(1)]
    hbos = fitted(HBOS((3,), bins=5, scaling="none"), train, weight)
    np.testing.assert_allclose(scores(hbos, inside), static_score(repeated(train, weight), inside, 5), rtol=1e-5)


@pytest.mark.parametrize("widths", ["static", "dynamic"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_constant_feature_has_one_value_that_is_not_strange(widths, value) -> None:
    hbos = fitted(HBOS((1,), widths=widths, scaling="none"), np.full((50, 1), value, np.float32))
    here, below, above = scores(hbos, np.array([[value], [value - 1], [value + 1]], np.float32))
    assert here == 0 and below == above == pytest.approx(np.log(51))


@pytest.mark.parametrize("widths", ["static", "dynamic"])
def test_rows_out_of_a_histograms_range_are_finite_and_no_less_strange_than_any_within(widths) -> None:
    train = skewed()
    hbos = fitted(HBOS((4,), widths=widths, scaling="none"), train)
    within, out = scores(hbos, train), scores(hbos, np.array([[1e30] * 4, [-1e30] * 4], np.float32))
    assert np.isfinite(out).all() and out.min() >= within.max()


# scikit-learn's estimators


def sklearn_svm_of_many(train, seed) -> object:
    features = Nystroem(gamma=1 / (train.shape[1] * train.astype(float).var()), n_components=50, random_state=seed)
    return make_pipeline(features, SGDOneClassSVM(nu=0.2, random_state=seed, tol=1e-4))


def told(estimator, rows) -> np.ndarray:
    """Its scores; of a support vector machine those of coefficients that sum to one, and not to nu N."""
    found = estimator.score_samples(rows.astype(float))
    return found / estimator.dual_coef_.sum() if isinstance(estimator, SklearnSVM) else found


SCIKIT = {
    "isolation_forest": (
        lambda d: IsolationForest((d,), n_estimators=15, max_features=0.5, scaling="none"),
        lambda train, seed: SklearnForest(n_estimators=15, max_samples=256, max_features=0.5, random_state=seed),
    ),
    "one_class_svm": (
        lambda d: OneClassSVM((d,), nu=0.2, scaling="none"),
        lambda train, seed: SklearnSVM(nu=0.2, gamma="scale"),
    ),
    "one_class_svm of many": (
        lambda d: OneClassSVM((d,), nu=0.2, max_rows=299, landmarks=50, scaling="none"),
        sklearn_svm_of_many,
    ),
    "local_outlier_factor": (
        lambda d: LocalOutlierFactor((d,), k=10, scaling="none"),
        lambda train, seed: SklearnFactor(n_neighbors=10, novelty=True),
    ),
    "bayesian_gmm": (
        lambda d: BayesianGMM((d,), components=3, restarts=2, concentration=0.1, scaling="none"),
        lambda train, seed: BayesianGaussianMixture(
            n_components=3, n_init=2, weight_concentration_prior=0.1, max_iter=200, random_state=seed
        ),
    ),
    "elliptic_envelope": (
        lambda d: EllipticEnvelope((d,), support_fraction=0.8, scaling="none"),
        lambda train, seed: SklearnEnvelope(support_fraction=0.8, random_state=seed),
    ),
    "elliptic_envelope projected": (
        lambda d: EllipticEnvelope((d,), max_features=2, scaling="none"),
        lambda train, seed: make_pipeline(SklearnPCA(2, random_state=seed), SklearnEnvelope(random_state=seed)),
    ),
}


@pytest.mark.parametrize("name", SCIKIT)
@pytest.mark.parametrize("d", [4, 20])
def test_scores_are_scikit_learns_before_and_after_a_file(name, d) -> None:
    make, direct = SCIKIT[name]
    train, test = cloud(300, d), np.concatenate([cloud(50, d, seed=1), 100 * cloud(5, d, seed=2)])
    detector = fitted(make(d), train)
    truth = told(direct(train, detector.seed).fit(train.astype(float)), test)
    np.testing.assert_allclose(scores(detector, test), -truth, rtol=1e-6)
    assert np.array_equal(scores(loaded(detector, make(d)), test), scores(detector, test))


def shaped(shape, n, seed) -> np.ndarray:
    """Rows of a shape that estimators are sometimes wrong about."""
    rows = cloud(n, {"one feature": 1, "many features": 50}.get(shape, 3), seed=seed)
    match shape:
        case "rows that come several times":
            return np.repeat(rows[: n // 6 + 1], 6, axis=0)[:n]
        case "more equal rows than neighbours":
            rows[: n // 2] = 1.5
        case "a constant feature":
            rows[:, 1] = 7
        case "far from zero":
            rows += 1000
    return rows


SHAPES = ["one feature", "many features", "rows that come several times", "more equal rows than neighbours"]
SHAPES += ["a constant feature", "far from zero"]


@pytest.mark.parametrize(
    ("name", "shape"), [(n, s) for n in SCIKIT for s in SHAPES if (n, s) != ("elliptic_envelope projected", SHAPES[0])]
)
@pytest.mark.parametrize("budget_mb", [64, 0.01])
def test_scores_of_rows_of_any_shape_are_scikit_learns_in_any_budget(name, shape, budget_mb) -> None:
    (make, direct), train = SCIKIT[name], shaped(shape, 300, 0)
    test = np.concatenate([shaped(shape, 60, 1), train[:20], np.float32(2) * train[-5:]])
    detector = make(train.shape[1])
    detector.budget_mb = budget_mb if name != "one_class_svm of many" else 64  # which bounds its training rows too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = -told(direct(train, detector.seed).fit(train.astype(float)), test)
    found = scores(fitted(detector, train), test)
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=1e-9 * np.abs(truth).max())
    with_gradients = detector(torch.as_tensor(test).requires_grad_())
    np.testing.assert_array_equal(with_gradients.detach().double().numpy(), found)


@pytest.mark.parametrize("name", SCIKIT)
def test_a_single_row_and_no_row_are_batches_too(name) -> None:
    detector, test = fitted(SCIKIT[name][0](4), cloud()), cloud(10, seed=1)
    np.testing.assert_allclose([scores(detector, row[None])[0] for row in test], scores(detector, test), rtol=1e-6)
    assert detector(torch.empty(0, 4)).shape == (0,) and detector(torch.empty(0, 4)).dtype == torch.float32


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 400),
    d=st.integers(1, 9),
    levels=st.integers(2, 50),
    samples=st.integers(2, 400),
    features=st.floats(0.01, 1),
    weighted=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_an_isolation_forest_is_scikit_learns_to_the_last_cut(n, d, levels, samples, features, weighted, seed) -> None:
    """Of values that lie in a grid, so that many rows are equal and some lie on a cut."""
    rng = np.random.default_rng(seed)
    train, test = (rng.integers(0, levels, (rows, d)).astype(np.float32) / 3 for rows in (n, 50))
    weight = rng.integers(1, 4, n).astype(np.float32)
    options = {"n_estimators": 7, "max_features": features}
    forest = IsolationForest((d,), max_samples=samples, scaling="none", **options)
    fitted(forest, train, weight if weighted else None)
    direct = SklearnForest(max_samples=min(samples, n), random_state=forest.seed, **options)
    direct.fit(train.astype(float), sample_weight=weight if weighted and (weight != weight[0]).any() else None)
    edge = forest.threshold[forest.threshold.isfinite()][: 50 * d].numpy()
    test = np.concatenate([test, np.resize(edge, (50, d))]) if len(edge) else test
    np.testing.assert_allclose(scores(forest, test), -direct.score_samples(test.astype(float)), rtol=1e-6)


@pytest.mark.parametrize(("k", "n"), [(1, 2), (1, 50), (5, 6), (20, 300), (40, 41)])
@pytest.mark.parametrize("d", [2, 12])
@pytest.mark.parametrize("few", [0, 20])
def test_a_local_outlier_factor_is_scikit_learns_by_a_tree_and_by_products(k, n, d, few, monkeypatch) -> None:
    monkeypatch.setattr("straylight.detectors.local_outlier_factor.FEW", few)
    train, test = cloud(n, d), cloud(50, d, seed=1)
    factor = fitted(LocalOutlierFactor((d,), k=k, scaling="none"), train)
    direct = SklearnFactor(n_neighbors=k, novelty=True).fit(train.astype(float))
    np.testing.assert_allclose(scores(factor, test), -direct.score_samples(test.astype(float)), rtol=1e-6)
    np.testing.assert_allclose(factor.reachability.numpy(), direct._lrd, rtol=1e-9)
    other = fitted(LocalOutlierFactor((d,), k=k, scaling="none"), cloud(n, d, seed=2))
    scores(other, test)  # by a tree of other rows
    assert np.array_equal(scores(loaded(factor, other), test), scores(factor, test))


@pytest.mark.parametrize("d", [3, 12])
def test_of_training_rows_that_are_as_near_the_same_are_neighbours_in_any_batch(d) -> None:
    train, test = np.random.default_rng(0).integers(0, 2, (2, 1500, d)).astype(np.float32)
    factor = fitted(LocalOutlierFactor((d,), scaling="none"), train)
    single = np.concatenate([scores(factor, row[None]) for row in test[:60]])
    np.testing.assert_allclose(single, scores(factor, test)[:60], rtol=1e-6)


def test_a_local_outlier_factor_takes_rows_that_no_number_holds_the_square_of() -> None:
    for d in (2, 12):
        factor = fitted(LocalOutlierFactor((d,), scaling="none"), cloud(100, d))
        near, far = scores(factor, np.array([[0.0] * d, [1e38] * d], np.float32))
        assert np.isfinite([near, far]).all() and far > 1e6 * near


@pytest.mark.parametrize("d", [3, 40])
@pytest.mark.parametrize("budget_mb", [64, 0.05])
def test_the_places_of_neighbours_are_theirs_in_single_and_double_precision(d, budget_mb) -> None:
    train, test = torch.from_numpy(cloud(3000, d)).double(), torch.from_numpy(cloud(90, d, seed=1)).double()
    train[:500] = train[500] + 1e-6 * train[:500]  # a crowd that single precision does not resolve
    test[:40] = train[:40] + 1e-7 * test[:40]
    truth = torch.cdist(test, train, compute_mode="donot_use_mm_for_euclid_dist").topk(7, largest=False)
    distances, places = Neighbours(d, budget_mb=budget_mb).fit(train).nearest(test, 7)
    assert torch.equal(places, truth.indices) and torch.allclose(distances, truth.values, rtol=1e-9)
    distances, places = Neighbours(d, budget_mb=budget_mb).fit(train[500:].float()).nearest(test[40:].float(), 7)
    truth = torch.cdist(test[40:], train[500:]).gather(1, places)
    assert torch.allclose(distances.double(), truth, rtol=1e-5) and distances.dtype == torch.float32


def test_neighbours_in_double_precision_come_back_in_it() -> None:
    train, test = torch.from_numpy(cloud(50)).double() + 1e-9, torch.from_numpy(cloud(9, seed=1)).double()
    again = loaded(found := Neighbours(4).fit(train), Neighbours(4).fit(train[:5].float()))
    assert again(test, 3).dtype == torch.float64 and torch.equal(again(test, 3), found(test, 3))


def damaged(detector) -> list[dict[str, torch.Tensor]]:
    """States with one buffer too short, of one axis too many, or leading elsewhere."""
    state, found = detector.state_dict(), []
    for name in detector.sized_by_data:
        found += [
            {**state, name: state[name][:-1]},
            {**state, name: state[name][None]},
            {**state, name: state[name][0]},
        ]
    if isinstance(detector, IsolationForest):
        for feature in (-1, 4):
            found.append({**state, "feature": torch.full_like(state["feature"], feature)})
        found.append({**state, "share": torch.cat([state["share"], state["share"][:15]])})
    return found


@pytest.mark.parametrize("name", SCIKIT)
def test_a_state_that_does_not_belong_together_is_refused(name) -> None:
    make = SCIKIT[name][0]
    for state in damaged(fitted(make(4), cloud())):
        with pytest.raises((ValueError, RuntimeError), match=r"do not belong together|size mismatch"):
            make(4).load_state_dict(state)


@pytest.mark.parametrize("name", SCIKIT)
def test_a_state_that_holds_an_estimator_is_refused_and_not_read(name) -> None:
    state = {"_extra_state": {"skops": torch.zeros(10, dtype=torch.uint8)}}
    with pytest.raises(ValueError, match=r"earlier version of Straylight: train it again$"):
        SCIKIT[name][0](4).load_state_dict(state)


@pytest.mark.parametrize("name", SCIKIT)
def test_what_is_kept_of_a_fit_is_numbers_that_move_with_the_detector(name) -> None:
    make = SCIKIT[name][0]
    detector = fitted(make(4), cloud())
    assert all(isinstance(value, torch.Tensor) for value in detector.state_dict().values())
    assert all(value.is_contiguous() for value in detector.state_dict().values())
    assert np.array_equal(scores(copy.deepcopy(detector), cloud()), scores(detector, cloud()))
    assert {value.device.type for value in copy.deepcopy(detector).to("meta").state_dict().values()} == {"meta"}
    loaded(make(4), detector)  # as before a fit


@pytest.mark.parametrize("covariance", ["full", "diag", "tied", "spherical"])
def test_every_covariance_of_a_bayesian_mixture_is_scikit_learns(covariance) -> None:
    train = cloud()
    gmm = fitted(BayesianGMM((4,), components=2, covariance=covariance, scaling="none"), train)
    direct = BayesianGaussianMixture(n_components=2, covariance_type=covariance, max_iter=200, random_state=gmm.seed)
    np.testing.assert_allclose(
        scores(gmm, train), -direct.fit(train.astype(float)).score_samples(train.astype(float)), rtol=1e-6
    )
    again = loaded(gmm, BayesianGMM((4,), components=2, covariance=covariance, scaling="none"))
    assert np.array_equal(scores(again, train), scores(gmm, train))


@pytest.mark.parametrize(
    ("make", "direct"),
    [
        (
            lambda: IsolationForest((4,), n_estimators=10, scaling="none"),
            lambda seed: SklearnForest(n_estimators=10, max_samples=256, random_state=seed),
        ),
        (lambda: OneClassSVM((4,), scaling="none"), lambda seed: SklearnSVM()),
    ],
    ids=["isolation_forest", "one_class_svm"],
)
def test_weights_are_given_to_estimators_that_read_them(make, direct) -> None:
    train, weight = cloud(), counts() + 0.5
    detector = fitted(make(), train, weight)
    truth = told(direct(detector.seed).fit(train.astype(float), sample_weight=weight), train)
    np.testing.assert_allclose(scores(detector, train), -truth, rtol=1e-6)
    assert detector.notices == [] and not np.allclose(scores(detector, train), scores(fitted(make(), train), train))


@pytest.mark.parametrize(
    "make",
    [
        lambda: LocalOutlierFactor((4,), scaling="none"),
        lambda: BayesianGMM((4,), components=1, scaling="none"),
        lambda: EllipticEnvelope((4,), scaling="none"),
        lambda: OneClassSVM((4,), max_rows=100, scaling="none"),
    ],
    ids=["local_outlier_factor", "bayesian_gmm", "elliptic_envelope", "one_class_svm of many"],
)
def test_weights_that_are_not_read_are_said_not_to_be(make) -> None:
    detector = fitted(make(), cloud(), counts() + 0.5)
    assert any("does not read event weights" in notice for notice in detector.notices)
    assert np.array_equal(scores(detector, cloud()), scores(fitted(make(), cloud()), cloud()))


@pytest.mark.parametrize(
    ("make", "direct"),
    [
        (lambda: LocalOutlierFactor((4,), max_rows=100, scaling="none"), lambda: SklearnFactor(novelty=True)),
        (
            lambda: BayesianGMM((4,), components=1, max_rows=100, scaling="none"),
            lambda: BayesianGaussianMixture(max_iter=200, random_state=0),
        ),
        (lambda: EllipticEnvelope((4,), max_rows=100, scaling="none"), lambda: SklearnEnvelope(random_state=0)),
    ],
    ids=["local_outlier_factor", "bayesian_gmm", "elliptic_envelope"],
)
def test_an_estimator_beyond_its_limit_is_that_of_the_rows_drawn_and_says_so(make, direct) -> None:
    detector = fitted(make(), cloud())
    truth = direct().fit(drawn(cloud(), 100, detector.seed).astype(float)).score_samples(cloud().astype(float))
    np.testing.assert_allclose(scores(detector, cloud()), -truth, rtol=1e-6)
    (notice,) = detector.notices
    assert "100 of 300 training rows" in notice and "detector.max_rows" in notice


@pytest.mark.parametrize(
    ("detector", "n", "said"),
    [
        (LocalOutlierFactor((4,), k=20, scaling="none"), 7, "7 training rows for detector.k=20 and takes k=6"),
        (BayesianGMM((4,), components=9, scaling="none"), 5, "5 rows for detector.components=9"),
        (EllipticEnvelope((4,), max_features=3, scaling="none"), 300, "first 3 principal components of 4 features"),
        (EllipticEnvelope((4,), scaling="none"), 12, "first 2 principal components of 4 features"),
        (OneClassSVM((4,), max_rows=100, landmarks=20, scaling="none"), 300, "300 training rows, above"),
    ],
    ids=["k", "components", "max_features", "a fifth of the rows", "max_rows"],
)
def test_what_is_done_otherwise_than_asked_for_is_said(detector, n, said) -> None:
    assert any(said in notice for notice in fitted(detector, cloud(n)).notices)
    assert np.isfinite(scores(detector, cloud())).all()


def test_what_scikit_learn_warns_of_becomes_a_notice() -> None:
    train = cloud()
    gmm = fitted(BayesianGMM((4,), components=4, max_iterations=1, scaling="none"), train)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        BayesianGaussianMixture(n_components=4, max_iter=1, random_state=gmm.seed).fit(train.astype(float))
    (warning,) = caught
    assert warning.category is ConvergenceWarning
    assert gmm.notices == [f"BayesianGMM: {' '.join(str(warning.message).split())}"]


def test_an_approximated_machine_ranks_events_as_the_exact_one() -> None:
    train, test = cloud(2000), 2 * cloud(500, seed=1)
    exact, many = (fitted(OneClassSVM((4,), nu=0.1, max_rows=n, scaling="none"), train) for n in (None, 1000))
    assert exact.notices == [] and spearmanr(scores(exact, test), scores(many, test)).statistic > 0.95


# DBSCAN


def grains(n=300, seed=0) -> np.ndarray:
    """Two dense grains and some dust between them."""
    rng = np.random.default_rng(seed)
    dust = rng.uniform(-6, 6, (n // 5, 3))
    beside = rng.choice([-3, 3], (n - len(dust), 1)) + rng.normal(size=(n - len(dust), 3))
    return rng.permutation(np.concatenate([dust, beside])).astype(np.float32)


@pytest.mark.parametrize(("eps", "min_samples"), [(0.5, 3), (1.0, 5), (1.0, 1), (2.0, 20)])
@pytest.mark.parametrize("budget_mb", [64, 0.01])
def test_core_points_are_scikit_learns_and_the_score_is_the_distance_to_the_nearest(
    eps, min_samples, budget_mb
) -> None:
    train, test = grains(), np.concatenate([grains(seed=1), 10 * grains(20, seed=2)])
    options = {"eps": eps, "min_samples": min_samples, "budget_mb": budget_mb, "scaling": "none"}
    detector = fitted(DBSCAN((3,), **options), train)
    core = train[SklearnDBSCAN(eps=eps, min_samples=min_samples).fit(train.astype(float)).core_sample_indices_]
    kept = (detector.cores.memory[:, :-1] + detector.cores.centre).numpy()
    np.testing.assert_allclose(kept, core, atol=1e-5)
    np.testing.assert_allclose(scores(detector, test), nearest(core, test, 1)[:, 0], rtol=1e-5, atol=1e-6)
    assert np.array_equal(scores(loaded(detector, DBSCAN((3,), **options)), test), scores(detector, test))


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9, 1.0])
def test_where_eps_is_not_given_it_is_the_quantile_of_the_distances_to_the_last_neighbour(quantile) -> None:
    train = grains(301)
    detector = fitted(DBSCAN((3,), quantile=quantile, min_samples=4, scaling="none"), train)
    radius = nearest(train, train, 4)[:, -1]
    assert float(detector.eps) == pytest.approx(np.quantile(radius, quantile), rel=1e-6)
    assert len(detector.cores.memory) == math.floor(300 * quantile) + 1


def test_data_without_a_core_point_are_refused_with_the_radius_that_would_do() -> None:
    train = grains()
    closest = nearest(train, train, 5)[:, -1].min()
    with pytest.raises(DataError, match=rf"detector\.eps=0\.001; the closest are within {closest:.3g}"):
        fitted(DBSCAN((3,), eps=0.001, scaling="none"), train)


def test_dbscan_says_when_rows_are_too_many_or_too_few() -> None:
    many = fitted(DBSCAN((3,), max_rows=100, scaling="none"), grains())
    few = fitted(DBSCAN((3,), min_samples=9, scaling="none"), grains(5))
    again = fitted(DBSCAN((3,), scaling="none"), drawn(grains(), 100, many.seed))
    assert "100 of 300 training rows" in many.notices[0]
    assert np.array_equal(scores(many, grains()), scores(again, grains()))
    assert "5 training rows for detector.min_samples=9 and takes 5" in few.notices[0]


# all of them


class Keeping(FittedDetector):
    """Keeps what it is given, up to 20 rows."""

    def fit(self, x, context, weight) -> None:
        self.given, self.reduced = x, torch.is_autocast_enabled(x.device.type)
        self.kept, self.weight = self.drawn(20, x, weight, why="a test looks at them")
        self.drawn(20, x, why="a test looks at them")

    def score(self, x, context):
        return x.flatten(1).sum(1)


@pytest.mark.parametrize("seed", [0, 5])
def test_rows_come_in_the_order_of_the_split_and_those_kept_are_drawn_by_seed(seed, trainer, serving) -> None:
    x = torch.arange(90.0)[:, None]
    for options in ({"batch_size": 7, "group": 2}, {"batch_size": 64, "seed": 3}):
        torch.manual_seed(seed)
        detector = Keeping((1,), scaling="none")
        trainer(max_epochs=1).fit(detector, datamodule=serving(x, **options))
        assert torch.equal(detector.given, x)
        assert detector.kept[:, 0].tolist() == drawn(x[:, 0].numpy(), 20, seed).tolist()
        assert len(detector.weight) == 20


def test_columns_are_drawn_together() -> None:
    detector, rows = Keeping((1,), scaling="none"), torch.arange(90.0)
    a, b = detector.drawn(30, rows, rows * 2, why="two are wanted")
    assert torch.equal(b, 2 * a) and len(set(a.tolist())) == 30
    assert detector.drawn(None, rows, why="")[0] is rows and detector.drawn(90, rows, why="")[0] is rows


def test_notices_are_recorded_once_and_forgotten_at_the_next_fit(trainer, serving) -> None:
    detector = Keeping((1,), scaling="none")
    for n, said in ((90, 1), (60, 1), (10, 0)):
        trainer(max_epochs=1).fit(detector, datamodule=serving(torch.randn(n, 1)))
        assert len(detector.notices) == said
        assert not said or f"20 of {n} training rows" in detector.notices[0]


def test_autocast_is_off_while_a_detector_is_fitted(trainer, serving) -> None:
    detector = Keeping((1,), scaling="none")
    trainer(max_epochs=1, precision="bf16-mixed").fit(detector, datamodule=serving(torch.randn(10, 1)))
    assert not detector.reduced


ALL = {
    "pca": lambda: PCA((4,)),
    "reconstruction": lambda: PCA((4,), components=2, variant="reconstruction"),
    "mahalanobis": lambda: Mahalanobis((4,)),
    **{f"knn {metric}": lambda metric=metric: KNN((4,), metric=metric) for metric in METRICS},
    "dbscan": lambda: DBSCAN((4,)),
    "ecod": lambda: ECOD((4,)),
    "copod": lambda: COPOD((4,), aggregate="feature"),
    "hbos": lambda: HBOS((4,)),
    "dynamic": lambda: HBOS((4,), widths="dynamic"),
    "isolation_forest": lambda: IsolationForest((4,), n_estimators=10),
    "one_class_svm": lambda: OneClassSVM((4,)),
    "local_outlier_factor": lambda: LocalOutlierFactor((4,)),
    "residual": lambda: Residual((4,)),
    "views": lambda: Views((4,)),
    "bayesian_gmm": lambda: BayesianGMM((4,), components=2),
    "elliptic_envelope": lambda: EllipticEnvelope((4,)),
}


@pytest.mark.parametrize("name", ALL)
def test_a_detector_fitted_under_bfloat16_is_that_of_full_precision(name, trainer, serving) -> None:
    x, found = torch.from_numpy(cloud(offset=10.0)), []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        detector = ALL[name]()
        trainer(max_epochs=1, precision=precision).fit(detector, datamodule=serving(x, batch_size=32, group=2))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            found.append(detector(x))
    assert found[1].dtype == torch.float32
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (PCA, {"components": 0}, "components"),
        (PCA, {"components": 3}, "components"),
        (PCA, {"components": -1}, "components"),
        (PCA, {"components": 0.0}, "components"),
        (PCA, {"components": 1.0}, "components"),
        (PCA, {"components": math.nan}, "components"),
        (PCA, {"variant": "white"}, "variant"),
        (PCA, {"budget_mb": 0}, "budget_mb"),
        (Mahalanobis, {"shrinkage": -0.1}, "shrinkage"),
        (Mahalanobis, {"shrinkage": 1.1}, "shrinkage"),
        (Mahalanobis, {"shrinkage": math.nan}, "shrinkage"),
        (Mahalanobis, {"shrinkage": "oas"}, "shrinkage"),
        (KNN, {"k": 0}, "k"),
        (KNN, {"distance": "median"}, "distance"),
        (KNN, {"metric": "chebyshev"}, "metric"),
        (KNN, {"budget_mb": -1}, "budget_mb"),
        (ECOD, {"aggregate": "mean"}, "aggregate"),
        (COPOD, {"aggregate": "mean"}, "aggregate"),
        (HBOS, {"bins": 0}, "bins"),
        (HBOS, {"bins": "log"}, "bins"),
        (HBOS, {"widths": "equal"}, "widths"),
        (IsolationForest, {"n_estimators": 0}, "n_estimators"),
        (IsolationForest, {"max_samples": 1}, "max_samples"),
        (IsolationForest, {"max_features": 0.0}, "max_features"),
        (IsolationForest, {"max_features": 1.1}, "max_features"),
        (OneClassSVM, {"nu": 0.0}, "nu"),
        (OneClassSVM, {"nu": 1.1}, "nu"),
        (OneClassSVM, {"gamma": 0.0}, "gamma"),
        (OneClassSVM, {"gamma": "auto"}, "gamma"),
        (OneClassSVM, {"max_rows": 0}, "max_rows"),
        (OneClassSVM, {"landmarks": 0}, "landmarks"),
        (LocalOutlierFactor, {"k": 0}, "k"),
        (LocalOutlierFactor, {"max_rows": 1}, "max_rows"),
        (BayesianGMM, {"components": 0}, "components"),
        (BayesianGMM, {"restarts": 0}, "restarts"),
        (BayesianGMM, {"max_iterations": 0}, "max_iterations"),
        (BayesianGMM, {"covariance": "round"}, "covariance"),
        (BayesianGMM, {"concentration": 0.0}, "concentration"),
        (BayesianGMM, {"regularization": -1.0}, "regularization"),
        (BayesianGMM, {"regularization": math.nan}, "regularization"),
        (BayesianGMM, {"max_rows": 1}, "max_rows"),
        (EllipticEnvelope, {"support_fraction": 0.5}, "support_fraction"),
        (EllipticEnvelope, {"support_fraction": 1.1}, "support_fraction"),
        (EllipticEnvelope, {"max_features": 0}, "max_features"),
        (EllipticEnvelope, {"max_rows": 1}, "max_rows"),
        (DBSCAN, {"eps": 0.0}, "eps"),
        (DBSCAN, {"eps": math.nan}, "eps"),
        (DBSCAN, {"quantile": 0.0}, "quantile"),
        (DBSCAN, {"quantile": 1.1}, "quantile"),
        (DBSCAN, {"min_samples": 0}, "min_samples"),
        (DBSCAN, {"max_rows": 0}, "max_rows"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused_by_name(kind, options, name) -> None:
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        kind((2,), **options)


def test_one_far_training_row_leaves_the_search_of_the_others_fast(monkeypatch) -> None:
    train = torch.randn(3000, 10, generator=torch.Generator().manual_seed(0))
    train[0] = 3000
    again = []
    differences = Neighbours._differences
    monkeypatch.setattr(
        Neighbours,
        "_differences",
        lambda self, rows, *a, **k: again.append(len(rows)) or differences(self, rows, *a, **k),
    )
    Neighbours(10).fit(train)(torch.randn(500, 10, generator=torch.Generator().manual_seed(1)), 5)
    assert sum(again) < 10


def test_neighbours_of_rows_beyond_float32s_squares_are_finite_and_far() -> None:
    knn = KNN((2,), scaling="none")
    fitted(knn, np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32))
    near, far = knn(torch.tensor([[0.0, 0.0], [1e30, -1e30]], requires_grad=True))
    assert near.isfinite() and far.isfinite() and far > 1e10 * near


def test_a_score_beyond_float32_is_the_largest_there_is() -> None:
    pca = fitted(PCA((2,), scaling="none"), np.ones((20, 2), dtype=np.float32))
    assert pca(torch.tensor([[1.0, 1.0], [1e9, 1.0]])).isfinite().all()


@pytest.mark.parametrize("variant", ["whitened", "reconstruction"])
def test_what_ranks_exchange_is_contiguous_and_as_small_as_it_looks(variant) -> None:
    pca = fitted(
        PCA((6,), components=2, variant=variant, scaling="none"), np.random.default_rng(0).normal(size=(50, 6))
    )
    whole = fitted(Mahalanobis((6,), scaling="none"), np.random.default_rng(0).normal(size=(50, 6)))
    for buffer in (pca.directions, whole.directions):
        assert buffer.is_contiguous() and buffer.untyped_storage().nbytes() == 8 * buffer.numel()


def test_the_one_class_svm_draws_rows_where_their_features_exceed_the_budget() -> None:
    svm = OneClassSVM((3,), max_rows=50, landmarks=20, budget_mb=0.02, scaling="none")
    fitted(svm, np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32))
    assert "131 of 400" in svm.notices[0] and "detector.budget_mb" in svm.notices[0]


def test_a_detector_that_reads_no_weights_says_so() -> None:
    for detector in (KNN((2,), scaling="none"), DBSCAN((2,), scaling="none"), LocalOutlierFactor((2,), k=3)):
        x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
        detector.fit(x, x[:, :0], torch.linspace(0.5, 1.5, 40))
        assert "does not read event weights" in " ".join(detector.notices)


def test_a_long_fit_is_announced_before_it_begins(monkeypatch) -> None:
    announced = []
    monkeypatch.setattr(BayesianGMM, "expect", lambda self, operations, advice: announced.append(operations))
    fitted(
        BayesianGMM((3,), components=2, max_iterations=7, scaling="none"), np.random.default_rng(0).normal(size=(40, 3))
    )
    assert announced == [4 * 7 * 2 * 40 * 3 * 3]
    knn = KNN((1,))
    knn.expect(9e11, "never said")
    knn.expect(2e12, "take fewer rows")
    assert len(knn.notices) == 1 and "2e+12" in knn.notices[0] and knn.notices[0].endswith("take fewer rows.")


@pytest.mark.parametrize("kind", [IsolationForest, LocalOutlierFactor, KDE, GMM, DBSCAN, OneClassSVM])
def test_rows_that_are_not_drawn_are_never_kept_and_the_others_are_the_same(kind, trainer, serving) -> None:
    """Drawn while they come in, from rows on disk too, they are those that the fit draws from all rows at once."""
    x = torch.randn(600, 3, generator=torch.Generator().manual_seed(1))
    few = {"max_rows": 100, **({"budget_mb": 0.01, "landmarks": 20} if kind is OneClassSVM else {})}
    seen = []

    class Watched(kind):
        def fit(self, x, context, weight):
            seen.append(len(x))
            super().fit(x, context, weight)

    def trained(rows):
        detector, data = Watched((3,), **few), serving(x, batch_size=32)
        data.splits = data.load()._replace(train=Events.of(rows))
        trainer(max_epochs=1).fit(detector, datamodule=data)
        return detector.eval()

    inside, mapped, whole = trained(x), trained(Mapped([x[:250], x[250:]])), Watched((3,), **few)
    whole._noise_seed, whole.scaling = inside._noise_seed, inside.scaling
    whole.fit(inside.scaling(x), x[:, :0], torch.ones(len(x)))
    assert seen == [100, 100, 600]
    assert torch.equal(inside(x), whole.eval()(x)) and torch.equal(mapped(x), whole(x))
    assert inside.notices == whole.notices != []


# fits that cannot tell rows apart

EQUAL, TWO = torch.ones(300, 3), torch.eye(3)[torch.arange(300) % 2]
MOSTLY = torch.cat([torch.zeros(270, 3), torch.randn(30, 3, generator=torch.Generator().manual_seed(0))])


@pytest.mark.parametrize(
    "kind, rows, said",
    [
        (LocalOutlierFactor, EQUAL, "300 of 300 training rows are equal to more than k=20 others"),
        (LocalOutlierFactor, TWO, "300 of 300 training rows"),
        (LocalOutlierFactor, MOSTLY, "270 of 300 training rows"),
        (EllipticEnvelope, TWO, "does not vary in"),
        (IsolationForest, EQUAL, "100 of 100 trees"),
    ],
)
def test_a_fit_that_cannot_tell_rows_apart_says_so(kind, rows, said):
    detector = kind((3,))
    detector.fit(rows, rows[:, :0], torch.ones(len(rows)))
    assert any(said in notice for notice in detector.notices), detector.notices


@pytest.mark.parametrize("kind", [LocalOutlierFactor, EllipticEnvelope, IsolationForest])
def test_an_ordinary_fit_gives_no_such_notice(kind):
    rows = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    detector = kind((3,))
    detector.fit(rows, rows[:, :0], torch.ones(len(rows)))
    assert not detector.notices
