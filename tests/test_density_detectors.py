"""Kernel densities and Gaussian mixtures against scikit-learn and the papers' formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.special import logsumexp
from scipy.stats import gaussian_kde
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from fitting import fitted, loaded, scores
from straylight.detectors import GMM, KDE, MoMKDE, RobustKDE
from straylight.errors import DataError


def cloud(n=300, d=3, offset=0.0, seed=0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, d)) * np.linspace(0.5, 2, d) + offset).astype(np.float32)


def two_clouds(n=400, d=3, offset=0.0, seed=0) -> np.ndarray:
    side = np.random.default_rng(seed + 100).choice([-3.0, 3.0], (n, 1))
    return (cloud(n, d, offset, seed) + side).astype(np.float32)


def counts(n=300, seed=1) -> np.ndarray:
    """Event weights from 0 to 3."""
    return np.random.default_rng(seed).integers(0, 4, n).astype(np.float32)


def sklearn_kde(rows, width, weight=None) -> KernelDensity:
    return KernelDensity(bandwidth=width).fit(rows.astype(float), sample_weight=weight)


# kernel densities


@pytest.mark.parametrize("width", [0.3, 1.0])
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("budget_mb", [64, 0.01])
def test_kde_is_scikit_learns(width, offset, budget_mb) -> None:
    train, test = cloud(offset=offset), cloud(100, offset=offset, seed=1)
    kde = fitted(KDE((3,), bandwidth=width, budget_mb=budget_mb, scaling="none"), train)
    truth = -sklearn_kde(train, width).score_samples(test.astype(float))
    np.testing.assert_allclose(scores(kde, test), truth, rtol=1e-5)


def test_kde_weighs_rows_as_scikit_learn_does() -> None:
    train, test, weight = cloud(), cloud(100, seed=1), counts()
    kde = fitted(KDE((3,), bandwidth=0.7, scaling="none"), train, weight)
    seen = weight > 0
    truth = -sklearn_kde(train[seen], 0.7, weight[seen]).score_samples(test.astype(float))
    np.testing.assert_allclose(scores(kde, test), truth, rtol=1e-5)
    assert len(kde.memory) == seen.sum()


@pytest.mark.parametrize("rule", ["scott", "silverman"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_rules_bandwidth_is_scipys_factor_times_the_features_spread(rule, weighted) -> None:
    train = cloud(offset=100.0).astype(float)
    weight = counts() if weighted else np.ones(len(train), np.float32)
    train, weight = train[weight > 0], weight[weight > 0]
    kde = fitted(KDE((3,), bandwidth=rule, scaling="none"), train.astype(np.float32), weight)
    mean = np.average(train, axis=0, weights=weight)
    spread = math.sqrt(np.average((train - mean) ** 2, axis=0, weights=weight).mean())
    factor = gaussian_kde(train.T, bw_method=rule, weights=weight).factor
    assert float(kde.width) == pytest.approx(spread * factor, rel=1e-6)


def most_likely_width(rows, weight, grid) -> float:
    """The bandwidth of a grid under which the rows left out one by one are most probable."""
    squared = np.square(rows[:, None].astype(float) - rows.astype(float)).sum(2)
    np.fill_diagonal(squared, np.inf)
    share = weight / weight.sum()
    found = [
        share @ (logsumexp(-squared / (2 * h**2), axis=1, b=share) - np.log1p(-share) - rows.shape[1] * np.log(h))
        for h in grid
    ]
    return grid[int(np.argmax(found))]


@pytest.mark.parametrize("weighted", [False, True])
def test_the_likeliest_bandwidth_is_that_of_a_fine_grid(weighted) -> None:
    train = two_clouds(120, 2)
    weight = counts(120) + 1 if weighted else np.ones(120, np.float32)
    kde = fitted(KDE((2,), bandwidth="likelihood", scaling="none"), train, weight)
    truth = most_likely_width(train, weight.astype(float), np.geomspace(0.2, 2, 2000))
    assert float(kde.width) == pytest.approx(truth, rel=2e-3)
    assert kde.notices == []


def test_the_likeliest_bandwidth_of_some_rows_is_narrowed_for_all() -> None:
    train, n = two_clouds(200, 2), 100
    kde = fitted(KDE((2,), bandwidth="likelihood", budget_mb=24 * n**2 / 2**20, scaling="none"), train)
    some = torch.randperm(200, generator=torch.Generator().manual_seed(kde.seed))[:n]
    truth = most_likely_width(train[some], np.ones(n), np.geomspace(0.2, 2, 2000))
    assert float(kde.width) == pytest.approx(truth * (200 / n) ** (-1 / 6), rel=2e-3)
    assert "100 of 200 training rows" in kde.notices[0]


def test_far_rows_are_told_apart_where_the_density_is_zero() -> None:
    train, far = cloud(), np.array([[1.0], [30], [1e3], [1e5], [1e6]], np.float32) * np.ones(3, np.float32)
    found = scores(fitted(KDE((3,), bandwidth=0.5, scaling="none"), train), far)
    squared = np.square(far[:, None].astype(float) - train.astype(float)).sum(2)
    norm = 3 * math.log(0.5 * math.sqrt(2 * math.pi)) + math.log(len(train))
    np.testing.assert_allclose(found, norm - logsumexp(-squared / 0.5, axis=1), rtol=1e-6)
    assert (np.diff(found) > 0).all() and np.isfinite(found).all()


def test_kde_beyond_its_limit_is_that_of_the_rows_drawn_and_says_so() -> None:
    train, test = cloud(), cloud(50, seed=1)
    kde = fitted(KDE((3,), bandwidth=0.7, max_rows=80, scaling="none"), train)
    some = torch.randperm(300, generator=torch.Generator().manual_seed(kde.seed))[:80].numpy()
    np.testing.assert_allclose(
        scores(kde, test), -sklearn_kde(train[some], 0.7).score_samples(test.astype(float)), rtol=1e-5
    )
    (notice,) = kde.notices
    assert "80 of 300 training rows" in notice and "detector.max_rows" in notice


def test_many_equal_rows_have_no_likeliest_bandwidth_and_scotts_is_taken() -> None:
    train = np.tile(cloud(5), (20, 1))
    kde = fitted(KDE((3,), bandwidth="likelihood", scaling="none"), train)
    (notice,) = kde.notices
    assert "many rows are equal" in notice
    assert float(kde.width) == float(fitted(KDE((3,), bandwidth="scott", scaling="none"), train).width)


@pytest.mark.parametrize("n", [6, 300, 5000])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_bandwidth_by_neighbours_is_a_part_of_the_median_distance_to_the_fifth(n, offset) -> None:
    train = cloud(n, offset=offset)
    kde = fitted(KDE((3,), bandwidth="neighbours", scaling="none"), train)
    fifth = cKDTree(train.astype(float)).query(train.astype(float), 6)[0][:, -1]
    close = 1e-3 if n <= 2000 else 0.1  # beyond, of 2000 rows that are drawn
    assert float(kde.width) == pytest.approx(0.15 * np.quantile(fifth, 0.5, method="lower"), rel=close)
    assert not kde.notices


@pytest.mark.parametrize("train", [cloud(5), np.repeat(cloud(20), 6, 0)], ids=["five rows", "six of each"])
def test_where_there_is_no_fifth_neighbour_the_bandwidth_is_scotts_and_said_so(train) -> None:
    kde, scott = (fitted(KDE((3,), bandwidth=rule, scaling="none"), train) for rule in ("neighbours", "scott"))
    assert float(kde.width) == float(scott.width) and "takes Scott's bandwidth" in kde.notices[0]


@pytest.mark.parametrize("kind", [KDE, RobustKDE, MoMKDE])
@pytest.mark.parametrize("rule", ["scott", "silverman", "likelihood"])
@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_equal_rows_give_finite_scores_that_rise_with_distance(kind, rule, n) -> None:
    kde = fitted(kind((2,), bandwidth=rule, scaling="none"), np.full((n, 2), 0.1, np.float32))
    found = scores(kde, np.array([[0.1, 0.1], [1, 1], [1e3, 1e3]], np.float32))
    assert np.isfinite(found).all() and (np.diff(found) > 0).all()


# robust kernel density


def kernel(rows, width) -> np.ndarray:
    return np.exp(-np.square(rows[:, None].astype(float) - rows.astype(float)).sum(2) / (2 * width**2))


def distances(gram, weight) -> np.ndarray:
    """Of each row's image from the weighted mean of all images, Kim and Scott's equation (6)."""
    return np.sqrt(np.diag(gram) - 2 * gram @ weight + weight @ gram @ weight)


def reweighted(gram, phi, rounds=5000) -> np.ndarray:
    """Iteratively reweighted least squares, their algorithm 1, for phi(d) = rho'(d) / d."""
    weight = np.full(len(gram), 1 / len(gram))
    for _ in range(rounds):
        found = phi(distances(gram, weight))
        weight = found / found.sum()
    return weight


def bends(gram) -> np.ndarray:
    return np.quantile(distances(gram, reweighted(gram, lambda d: 1 / d)), [0.5, 0.75, 0.95])


def huber(d, a) -> np.ndarray:
    return np.where(d <= a, d**2 / 2, a * d - a**2 / 2)


def huber_phi(d, a, b, c) -> np.ndarray:
    return np.minimum(d, a) / d


def hampel_phi(d, a, b, c) -> np.ndarray:
    return np.select([d < a, d < b, d < c], [d, a, a * (c - d) / (c - b)], 0.0) / d


def contaminated(d=2) -> tuple[np.ndarray, np.ndarray]:
    """180 rows of a cloud and 20 of a tighter one beside it."""
    return cloud(180, d), (cloud(20, d, seed=1) * 0.4 + 5).astype(np.float32)


@pytest.mark.parametrize("rho", ["huber", "hampel"])
def test_robust_kde_is_kim_and_scotts_by_a_direct_solution(rho) -> None:
    train, test = np.concatenate(contaminated()), cloud(100, 2, seed=2)
    kde = fitted(RobustKDE((2,), rho=rho, bandwidth=0.6, scaling="none"), train)
    gram, phi = kernel(train, 0.6), {"huber": huber_phi, "hampel": hampel_phi}[rho]
    a, b, c = bends(gram)
    truth = reweighted(gram, lambda d: phi(d, a, b, c))
    np.testing.assert_allclose(kde.weights.numpy(), truth, atol=0.02 * truth.max())
    squared = np.square(test[:, None].astype(float) - train.astype(float)).sum(2)
    density = logsumexp(-squared / (2 * 0.6**2), axis=1, b=truth) - 2 * math.log(0.6 * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(scores(kde, test), -density, rtol=2e-3)


@pytest.mark.parametrize("rho", ["huber", "hampel"])
def test_robust_weights_stay_where_reweighting_puts_them(rho) -> None:
    train = np.concatenate(contaminated())
    weight = fitted(RobustKDE((2,), rho=rho, bandwidth=0.6, scaling="none"), train).weights.numpy()
    gram = kernel(train, 0.6)
    again = {"huber": huber_phi, "hampel": hampel_phi}[rho](distances(gram, weight), *bends(gram))
    np.testing.assert_allclose(weight, again / again.sum(), atol=0.01 * weight.max())
    assert weight.sum() == pytest.approx(1)


def test_no_other_weights_lower_hubers_loss_which_is_convex() -> None:
    train, rng = np.concatenate(contaminated()), np.random.default_rng(3)
    weight = fitted(RobustKDE((2,), rho="huber", bandwidth=0.6, scaling="none"), train).weights.numpy()
    gram = kernel(train, 0.6)
    a, _, _ = bends(gram)
    reached = huber(distances(gram, weight), a).sum()
    for step in (1e-3, 1e-2, 1e-1, 1.0):
        for other in rng.dirichlet(np.full(len(train), 0.3), 50):
            assert huber(distances(gram, (1 - step) * weight + step * other), a).sum() >= reached * (1 - 1e-6)


@pytest.mark.parametrize("rho", ["huber", "hampel"])
def test_a_robust_density_is_lower_where_the_contamination_is(rho) -> None:
    bulk, beside = contaminated()
    train = np.concatenate([bulk, beside])
    plain = fitted(KDE((2,), bandwidth=0.6, scaling="none"), train)
    robust = fitted(RobustKDE((2,), rho=rho, bandwidth=0.6, scaling="none"), train)
    assert (scores(robust, beside) > scores(plain, beside)).all()
    assert np.median(scores(robust, bulk)) < np.median(scores(plain, bulk))
    assert robust.weights[-20:].max() < 1 / len(train) < robust.weights[:-20].max()


def test_hampels_loss_drops_the_farthest_rows_altogether() -> None:
    train = np.concatenate([cloud(190, 2), cloud(10, 2, seed=1) * 30])
    kde = fitted(RobustKDE((2,), rho="hampel", quantiles=(0.5, 0.75, 0.9), scaling="none"), train)
    assert len(kde.memory) == len(kde.log_weight) == (kde.weights > 0).sum() < 200


@pytest.mark.parametrize("rho", ["huber", "hampel"])
@pytest.mark.parametrize("same", [100, 192, 199])
def test_a_robust_density_of_mostly_equal_rows_is_finite(rho, same) -> None:
    train = cloud(200, 2)
    train[:same] = train[0]
    kde = fitted(RobustKDE((2,), rho=rho, bandwidth=0.6, scaling="none"), train)
    assert np.isfinite(scores(kde, train)).all()


@pytest.mark.parametrize("rho", ["huber", "hampel"])
def test_a_robust_density_of_rows_far_from_each_other_is_that_of_all(rho) -> None:
    for n in range(2, 60):
        train = np.arange(n, dtype=np.float32)[:, None]
        kde = fitted(RobustKDE((1,), rho=rho, bandwidth=1e-3, scaling="none"), train)
        assert kde.weights.isfinite().all() and kde.weights.sum() == pytest.approx(1), n


def test_robust_kde_keeps_no_more_rows_than_their_kernels_fit_the_budget() -> None:
    kde = fitted(RobustKDE((3,), bandwidth=0.7, budget_mb=8 * 90**2 / 2**20, scaling="none"), cloud())
    assert len(kde.weights) == 90
    assert "90 of 300 training rows" in kde.notices[0]


# median of means


@pytest.mark.parametrize("blocks", [1, 2, 5, 6])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("budget_mb", [64, 0.01])
def test_mom_kde_is_the_median_of_scikit_learns_densities_of_the_blocks(blocks, weighted, budget_mb) -> None:
    train, test = cloud(203), cloud(100, seed=1)
    weight = counts(203) + 0.5 if weighted else np.ones(203, np.float32)
    kde = fitted(MoMKDE((3,), blocks=blocks, bandwidth=0.8, budget_mb=budget_mb, scaling="none"), train, weight)
    dealt = torch.randperm(203, generator=torch.Generator().manual_seed(kde.seed)).numpy()
    logs = [
        sklearn_kde(train[dealt[b::blocks]], 0.8, weight[dealt[b::blocks]]).score_samples(test.astype(float))
        for b in range(blocks)
    ]
    np.testing.assert_allclose(scores(kde, test), -np.log(np.median(np.exp(logs), axis=0)), rtol=1e-5)


def test_blocks_have_the_bandwidth_of_all_rows() -> None:
    train = cloud(200)
    widths = [float(fitted(kind((3,), scaling="none"), train).width) for kind in (KDE, MoMKDE)]
    assert widths[0] == widths[1]


def test_a_median_of_means_does_not_see_fewer_contaminated_rows_than_half_its_blocks() -> None:
    train = cloud(200)
    train[:5] = 1000
    plain, median = (fitted(kind((3,), bandwidth=1.0, scaling="none"), train) for kind in (KDE, MoMKDE))
    assert scores(plain, train[:1]) < 10 and scores(median, train[:1]) > 1e5


def test_fewer_rows_than_blocks_are_blocks_of_their_own_and_are_loaded_as_such() -> None:
    train, test = cloud(4), cloud(20, seed=1)
    kde = fitted(MoMKDE((3,), blocks=9, bandwidth=1.0, scaling="none"), train)
    densities = np.exp([sklearn_kde(train[i : i + 1], 1.0).score_samples(test.astype(float)) for i in range(4)])
    np.testing.assert_allclose(scores(kde, test), -np.log(np.median(densities, axis=0)), rtol=1e-5)
    (notice,) = kde.notices
    assert "4 rows for detector.blocks=9" in notice
    again = loaded(kde, MoMKDE((3,), blocks=9, bandwidth=1.0, scaling="none"))
    assert np.array_equal(scores(again, test), scores(kde, test))


# mixtures

COVARIANCES = ["full", "diag", "tied"]


def sklearn_from(gmm, start, rows, origin, turn=0, **options) -> GaussianMixture:
    """scikit-learn's mixture after climbing from one of our starts."""
    weights, means, factors = (part[turn].numpy() for part in start)
    precisions = factors**2 if gmm.covariance == "diag" else factors @ np.swapaxes(factors, -1, -2)
    return GaussianMixture(
        gmm.components,
        covariance_type=gmm.covariance,
        reg_covar=gmm.regularization,
        tol=gmm.tolerance,
        max_iter=gmm.max_iterations,
        init_params="random_from_data",
        weights_init=weights / weights.sum(),
        means_init=means + origin,
        precisions_init=precisions[0] if gmm.covariance == "tied" else precisions,
        random_state=0,
    ).fit(rows.astype(float))


def starts(gmm, rows, n=1):
    """Where the first n restarts begin, and the point that they are about."""
    x, even = torch.as_tensor(rows), torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
    origin = even @ x.double()
    return gmm._start(x, even, origin, gmm.components, range(n)), origin.numpy()


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_mixture_climbs_as_scikit_learns_does_step_by_step(covariance, offset) -> None:
    train, test = two_clouds(offset=offset), two_clouds(100, offset=offset, seed=1)
    options = {"components": 3, "restarts": 1, "tolerance": 0.0, "max_iterations": 7, "scaling": "none"}
    gmm = fitted(GMM((3,), covariance=covariance, **options), train)
    start, origin = starts(gmm, train)
    truth = sklearn_from(gmm, start, train, origin)
    assert truth.n_iter_ == 7
    np.testing.assert_allclose(gmm.weights.numpy(), truth.weights_, rtol=1e-4)
    np.testing.assert_allclose(gmm.means.numpy(), truth.means_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores(gmm, test), -truth.score_samples(test.astype(float)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_mixture_ends_where_and_when_scikit_learns_does(covariance) -> None:
    train, test = two_clouds(), two_clouds(100, seed=1)
    gmm = GMM((3,), components=2, covariance=covariance, restarts=1, tolerance=1e-5, max_iterations=500, scaling="none")
    fitted(gmm, train)
    start, origin = starts(gmm, train)
    truth = sklearn_from(gmm, start, train, origin)
    assert truth.converged_
    np.testing.assert_allclose(gmm.weights.numpy(), truth.weights_, rtol=1e-4)
    np.testing.assert_allclose(gmm.means.numpy(), truth.means_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores(gmm, test), -truth.score_samples(test.astype(float)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_start_is_the_mean_and_covariance_of_the_rows_nearest_to_each_of_some_rows(covariance) -> None:
    train = two_clouds(200)
    gmm = GMM((3,), components=3, covariance=covariance, regularization=0.0, scaling="none")
    start, origin = starts(gmm, train, 2)
    for turn in range(2):
        even = torch.full((200,), 1 / 200, dtype=torch.float64)
        seed = gmm.seed * 65537 + turn
        centres = gmm._spread(torch.as_tensor(train), even, torch.as_tensor(origin), 3, seed).numpy() + origin
        squared = np.square(train[:, None].astype(float) - centres).sum(2)
        assert np.allclose(squared.min(0), 0) and len(set(squared.argmin(0))) == 3
        nearest = squared.argmin(1)
        inside = [train[nearest == k].astype(float) for k in range(3)]
        np.testing.assert_allclose(start.weights[turn].numpy(), np.bincount(nearest) / 200, rtol=1e-9)
        np.testing.assert_allclose(
            start.means[turn].numpy() + origin, [rows.mean(0) for rows in inside], rtol=1e-7, atol=1e-7
        )
        full = [np.cov(rows.T, ddof=0) for rows in inside]
        tied = np.tensordot(np.bincount(nearest) / 200, full, 1)
        factors = start.factors[turn].numpy()
        if covariance == "diag":
            np.testing.assert_allclose(factors**-2.0, [np.diag(c) for c in full], rtol=1e-6)
        else:
            shaped = full if covariance == "full" else [tied]
            np.testing.assert_allclose(factors @ np.swapaxes(factors, 1, 2), np.linalg.inv(shaped), rtol=1e-6)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_mixture_does_not_depend_on_the_memory_it_has(covariance) -> None:
    train = two_clouds()
    options = {"components": 3, "covariance": covariance, "restarts": 3, "max_iterations": 20, "scaling": "none"}
    whole, parts = (fitted(GMM((3,), budget_mb=budget, **options), train) for budget in (64, 0.001))
    np.testing.assert_allclose(parts.means.numpy(), whole.means.numpy(), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(scores(parts, train), scores(whole, train), rtol=1e-6)


def test_the_best_of_several_restarts_is_kept() -> None:
    centres = np.array([[x, y] for x in (0, 4, 8) for y in (0, 4)])
    train = np.concatenate([0.4 * cloud(40, 2, seed=i) + centre for i, centre in enumerate(centres)]).astype(np.float32)
    gmm = GMM((2,), components=6, restarts=6, tolerance=1e-6, max_iterations=500, scaling="none")
    fitted(gmm, train)
    start, origin = starts(gmm, train, 6)
    reached = [sklearn_from(gmm, start, train, origin, turn).score(train) for turn in range(6)]
    assert max(reached) - min(reached) > 0.1
    assert -scores(gmm, train).mean() == pytest.approx(max(reached), abs=1e-4)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_an_event_weight_is_so_many_rows_of_a_mixture(covariance) -> None:
    train, weight = two_clouds(), counts(400)
    options = {"components": 3, "covariance": covariance, "scaling": "none"}
    weighted = fitted(GMM((3,), **options), train, weight)
    repeated = fitted(GMM((3,), **options), np.repeat(train, weight.astype(int), axis=0))
    np.testing.assert_allclose(weighted.weights.numpy(), repeated.weights.numpy(), rtol=1e-6)
    np.testing.assert_allclose(scores(weighted, train), scores(repeated, train), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_fewer_rows_than_components_are_a_component_each(covariance) -> None:
    train = cloud(3)
    gmm = fitted(GMM((3,), components=5, covariance=covariance, regularization=0.1, scaling="none"), train)
    assert gmm.weights.shape == (3,)
    assert np.isfinite(scores(gmm, cloud(20, seed=1))).all()
    (notice,) = gmm.notices
    assert "3 rows for detector.components=5" in notice
    again = loaded(gmm, GMM((3,), components=5, covariance=covariance, scaling="none"))
    assert np.array_equal(scores(again, train), scores(gmm, train))


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_mixture_of_equal_rows_is_finite(covariance) -> None:
    gmm = fitted(GMM((2,), components=3, covariance=covariance, scaling="none"), np.full((50, 2), 0.1, np.float32))
    assert np.isfinite(scores(gmm, np.array([[0.1, 0.1], [100, 100]], np.float32))).all()


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_a_feature_twice_cannot_be_inverted_without_regularization(covariance) -> None:
    train = two_clouds()[:, [0, 1, 1]]
    with pytest.raises(DataError, match=r"raise detector\.regularization"):
        fitted(GMM((3,), covariance=covariance, regularization=0.0, scaling="none"), train)
    regular = fitted(GMM((3,), covariance=covariance, scaling="none"), train)
    assert np.isfinite(scores(regular, train * 100)).all()


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_constant_feature_cannot_be_inverted_without_regularization(covariance) -> None:
    train = two_clouds()
    train[:, 1] = 0.1
    with pytest.raises(DataError, match=r"raise detector\.regularization"):
        fitted(GMM((3,), covariance=covariance, regularization=0.0, scaling="none"), train)


def test_a_mixture_beyond_its_limit_is_that_of_the_rows_drawn_and_says_so() -> None:
    train = two_clouds()
    gmm = fitted(GMM((3,), components=1, max_rows=100, scaling="none"), train)
    some = torch.randperm(400, generator=torch.Generator().manual_seed(gmm.seed))[:100].numpy()
    np.testing.assert_allclose(gmm.means[0].numpy(), train[some].mean(0, dtype=float), rtol=1e-6)
    (notice,) = gmm.notices
    assert "100 of 400 training rows" in notice


# all of them

KINDS = [KDE, RobustKDE, MoMKDE, GMM]


@pytest.mark.parametrize("kind", KINDS)
def test_a_density_fitted_under_bfloat16_is_that_of_full_precision(kind, trainer, serving) -> None:
    x, found = torch.from_numpy(two_clouds(offset=10.0)), []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        detector = kind((3,))
        trainer(max_epochs=1, precision=precision).fit(detector, datamodule=serving(x, batch_size=32, group=2))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            found.append(detector(x))
    assert found[1].dtype == torch.float32
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_density_comes_back_from_a_file_as_it_was(kind) -> None:
    train, test = two_clouds(), two_clouds(50, seed=1)
    detector = fitted(kind((3,), scaling="none"), train)
    assert np.array_equal(scores(loaded(detector, kind((3,), scaling="none")), test), scores(detector, test))


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (KDE, {"bandwidth": 0.0}, "bandwidth"),
        (KDE, {"bandwidth": -1.0}, "bandwidth"),
        (KDE, {"bandwidth": math.nan}, "bandwidth"),
        (KDE, {"bandwidth": "scot"}, "bandwidth"),
        (KDE, {"max_rows": 0}, "max_rows"),
        (KDE, {"budget_mb": 0}, "budget_mb"),
        (KDE, {"budget_mb": math.nan}, "budget_mb"),
        (RobustKDE, {"rho": "tukey"}, "rho"),
        (RobustKDE, {"quantiles": (0.5, 0.75)}, "quantiles"),
        (RobustKDE, {"quantiles": (0.0, 0.75, 0.95)}, "quantiles"),
        (RobustKDE, {"quantiles": (0.8, 0.75, 0.95)}, "quantiles"),
        (RobustKDE, {"quantiles": (0.5, 0.75, 1.1)}, "quantiles"),
        (RobustKDE, {"bandwidth": 0.0}, "bandwidth"),
        (RobustKDE, {"max_rows": 0}, "max_rows"),
        (MoMKDE, {"blocks": 0}, "blocks"),
        (MoMKDE, {"bandwidth": 0.0}, "bandwidth"),
        (GMM, {"components": 0}, "components"),
        (GMM, {"restarts": 0}, "restarts"),
        (GMM, {"max_iterations": 0}, "max_iterations"),
        (GMM, {"covariance": "spherical"}, "covariance"),
        (GMM, {"regularization": -1e-6}, "regularization"),
        (GMM, {"regularization": math.nan}, "regularization"),
        (GMM, {"tolerance": -1.0}, "tolerance"),
        (GMM, {"tolerance": math.nan}, "tolerance"),
        (GMM, {"max_rows": 0}, "max_rows"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused_by_name(kind, options, name) -> None:
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        kind((2,), **options)
