"""Criteria without labels as functions of arrays: made anomalies are what they are called, and numbers are right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from straylight.criteria import Layout, codes, excess_mass, kinds_for, made, mass_volume, separation, stability
from straylight.criteria.anomalies import BEYOND, INFLATED, KINDS, uniform
from straylight.criteria.codes import dead
from straylight.criteria.volume import volume_at


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def clouds(rng, n=600, d=4) -> np.ndarray:
    """Two correlated clouds, far from each other."""
    shape = rng.normal(size=(d, d))
    return rng.normal(size=(n, d)) @ shape + 30 * (np.arange(n) % 2)[:, None]


def one_hot(rng, n, k) -> np.ndarray:
    return np.eye(k)[rng.integers(0, k, n)]


# made anomalies


def test_local_anomalies_keep_the_means_of_components_and_inflate_their_covariance(rng) -> None:
    x = clouds(rng)
    layout = Layout.of(x)
    found = made(x, layout, "local", seed=1)
    assert found.base.tolist() == list(range(len(x)))
    component = layout.component(x)
    assert len(np.unique(component)) > 1
    for k in np.unique(component):
        own, of = x[component == k], found.x[component == k].astype(float)
        assert of.mean(0) == pytest.approx(own.mean(0), abs=1e-3)
        assert np.cov(of.T) == pytest.approx(INFLATED * np.cov(own.T), rel=1e-3, abs=1e-3)


def test_more_local_anomalies_than_rows_have_that_covariance_too(rng) -> None:
    x = rng.multivariate_normal([5.0, -3.0], [[2.0, 1.2], [1.2, 1.0]], 150)
    found = made(x, Layout.of(x), "local", seed=0, count=30_000)
    assert len(np.unique(found.x, axis=0)) == 30_000
    centres = Layout.of(x).centres
    component = Layout.of(x).component(x)
    moved = found.x - centres[component[found.base]]
    within = x - centres[component]
    assert moved.T @ moved / len(moved) == pytest.approx(INFLATED * within.T @ within / len(x), rel=0.05)


def test_dependency_keeps_what_features_hold_and_ends_what_they_have_to_do_with_each_other(rng) -> None:
    x = clouds(rng, n=2000)
    found = made(x, Layout.of(x), "dependency", seed=0).x
    assert (np.sort(found, 0) == np.sort(x.astype(np.float32), 0)).all()
    before, after = (np.corrcoef(rows.T)[np.triu_indices(4, 1)] for rows in (x, found))
    assert np.abs(before).min() > 0.5 and np.abs(after).max() < 0.1


def test_global_anomalies_fill_the_box(rng) -> None:
    x = clouds(rng, n=4000)
    layout = Layout.of(x)
    found = made(x, layout, "global", seed=0).x
    half = BEYOND * (x.max(0) - x.min(0)) / 2
    for column, low, width in zip(found.T, (x.max(0) + x.min(0)) / 2 - half, 2 * half, strict=True):
        assert stats.kstest(column, "uniform", (low, width)).pvalue > 1e-3


def test_clustered_anomalies_lie_about_few_places_as_wide_as_a_component(rng) -> None:
    x = clouds(rng)
    layout = Layout.of(x)
    found = made(x, layout, "clustered", seed=0)
    own = x - layout.centres[layout.component(x)]
    places = found.x - own[found.base]
    assert len(np.unique(np.round(places, 2), axis=0)) == 3  # without what is the row's own


def test_blocks_of_an_image_change_places(rng) -> None:
    x = rng.integers(0, 17, (50, 2, 8, 8)).astype(np.float32)
    found = made(x, Layout.of(x.reshape(50, -1)), "blocks", seed=0).x
    changed = (found != x).any(1)
    assert (np.sort(found.reshape(50, -1)) == np.sort(x.reshape(50, -1))).all()
    assert (changed.sum((1, 2)) <= 8).all() and changed.any((1, 2)).all()
    for one, was, where in zip(found, x, changed, strict=True):
        cells = {(i // 2, j // 2) for i, j in np.argwhere(where)}
        assert len(cells) == 2
        (a, b), (c, d) = cells
        first, second = np.s_[:, 2 * a : 2 * a + 2, 2 * b : 2 * b + 2], np.s_[:, 2 * c : 2 * c + 2, 2 * d : 2 * d + 2]
        assert (one[first] == was[second]).all() and (one[second] == was[first]).all()


def test_a_stretch_of_a_series_is_masked_or_shifted(rng) -> None:
    x = rng.normal(size=(40, 64, 3)).astype(np.float32)
    found = made(x, Layout.of(x.reshape(40, -1)), "shift", seed=0).x
    for i, (one, was) in enumerate(zip(found, x, strict=True)):
        changed = np.flatnonzero((one != was).any(1))
        stretch = np.s_[changed[0] : changed[-1] + 1]
        assert 1 <= len(changed) <= 33
        if i % 2:
            assert (np.sort(one[stretch], 0) == np.sort(was[stretch], 0)).all()
        else:
            assert (one[stretch] == one[changed[0]]).all()


def test_columns_keep_to_what_they_hold(rng) -> None:
    n = 400
    number, count, flag = rng.normal(size=(n, 1)), rng.poisson(3, (n, 1)), rng.integers(0, 2, (n, 1))
    padded = np.where(rng.random((n, 1)) < 0.4, 0, rng.normal(5, 1, (n, 1)))
    x = np.hstack([number, one_hot(rng, n, 3), one_hot(rng, n, 4), count, flag, padded, np.full((n, 1), 7.0)])
    layout = Layout.of(x)
    assert [group.tolist() for group in layout.groups] == [[1, 2, 3], [4, 5, 6, 7]]
    for kind in kinds_for((x.shape[1],), layout):
        found = made(x, layout, kind, seed=0)
        of = found.x
        assert (of[:, 1:4].sum(1) == 1).all() and (of[:, 4:8].sum(1) == 1).all(), kind
        assert (of[:, 8] == np.round(of[:, 8])).all() and (of[:, 8] >= 0).all()
        assert set(of[:, 9]) <= {0, 1} and set(of[:, 11]) == {7.0}
        if kind in ("local", "clustered"):
            assert ((of[:, 10] == 0) == (x[found.base, 10] == 0)).all()
    one_other = made(x, layout, "dependency", seed=0).x  # categories move together
    assert (one_other[:, 1:4].sum(0) == x[:, 1:4].sum(0)).all()


def test_categories_that_some_rows_lack_are_still_one_column(rng) -> None:
    x = one_hot(rng, 500, 3)
    x[:2] = 0
    assert [g.tolist() for g in Layout.of(x).groups] == [[0, 1, 2]]
    assert Layout.of(rng.integers(0, 2, (500, 3))).groups == ()  # flags that have nothing to do with each other


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_follows_from_rows_seed_and_kind_alone(rng, kind) -> None:
    x = rng.normal(size=(60, 1, 8, 8)) if kind != "shift" else rng.normal(size=(60, 16, 4))
    layout = Layout.of(x.reshape(60, -1))
    first, again, other = (made(x, layout, kind, seed=seed, count=130) for seed in (3, 3, 4))
    assert first.x.shape == (130, *x.shape[1:]) and first.x.dtype == np.float32
    assert np.array_equal(first.x, again.x) and np.array_equal(first.base, again.base)
    assert not np.array_equal(first.x, other.x)
    assert (np.bincount(first.base, minlength=60) >= 2).all()


@pytest.mark.parametrize(
    ("x", "shape", "kinds"),
    [
        (np.random.default_rng(0).normal(size=(50, 1)), (1,), ("local", "global", "clustered")),
        (np.eye(3)[np.arange(50) % 3], (3,), ("global",)),
        (np.ones((50, 2)), (2,), ()),
        (np.random.default_rng(0).normal(size=(50, 12)), (1, 3, 4), ("local", "global", "clustered", "dependency")),
    ],
)
def test_only_what_can_be_made_is(x, shape, kinds) -> None:
    assert kinds_for(shape, Layout.of(x)) == kinds


def test_images_keep_to_the_range_of_their_pixels(rng) -> None:
    x = rng.random((80, 1, 6, 6))
    layout = Layout.of(x.reshape(80, -1))
    for kind in kinds_for((1, 6, 6), layout):
        found = made(x, layout, kind, seed=0).x
        assert found.min() >= np.float32(x.min()) and found.max() <= np.float32(x.max()), kind


def test_nothing_is_made_of_nothing() -> None:
    with pytest.raises(ValueError, match="shape"):
        Layout.of(np.empty((0, 2)))
    with pytest.raises(ValueError, match="cannot be made of 0 rows"):
        made(np.empty((0, 2)), Layout.of([[0.0, 1.0]]), "local", seed=0)


# what scores tell


def test_separation_is_what_scikit_learn_finds(rng) -> None:
    nominal = np.round(rng.normal(size=300), 1)
    kinds = {"near": np.round(rng.normal(0.5, 1, 200), 1), "far": np.round(rng.normal(2, 1, 50), 1)}
    found = separation(nominal, kinds)
    expected = {
        kind: roc_auc_score(np.r_[np.zeros(300), np.ones(len(of))], np.r_[nominal, of]) for kind, of in kinds.items()
    }
    assert found.kinds == pytest.approx(expected) and found.mean == pytest.approx(np.mean(list(expected.values())))
    for kind in kinds:
        assert found.intervals[kind][0] < expected[kind] < found.intervals[kind][1]
    weight = rng.integers(1, 4, 300)
    weighted, repeated = separation(nominal, kinds, weight), separation(np.repeat(nominal, weight), kinds)
    assert weighted.mean == pytest.approx(repeated.mean)


def test_the_interval_of_the_mean_holds_the_truth(rng) -> None:
    truth = np.mean([stats.norm.cdf(shift / np.sqrt(2)) for shift in (0.5, 2.0)])
    held = 0
    for _ in range(300):
        found = separation(rng.normal(size=60), {"a": rng.normal(0.5, 1, 60), "b": rng.normal(2, 1, 60)})
        held += found.interval[0] <= truth <= found.interval[1]
    assert held >= 279  # 93 %; of 95 % fewer are seen once in ten


@pytest.mark.parametrize("mass", [0.5, 0.95])
def test_the_volume_of_a_mass_is_that_of_the_normal_law(rng, mass) -> None:
    rows, points = np.abs(rng.normal(size=40_000)), np.abs(rng.uniform(-5, 5, 40_000))
    assert volume_at(rows, points, mass) == pytest.approx(2 * stats.norm.ppf((1 + mass) / 2) / 10, rel=0.03)


def test_mass_volume_and_excess_mass_are_those_of_the_normal_law(rng) -> None:
    rows, points = np.abs(rng.normal(size=40_000)), np.abs(rng.uniform(-5, 5, 40_000))
    masses = np.linspace(0.9, 0.999, 4000)
    expected = np.trapezoid(2 * stats.norm.ppf((1 + masses) / 2) / 10, masses) / (masses[-1] - masses[0])
    assert mass_volume(rows, points) == pytest.approx(expected, rel=0.03)
    # EM(t) = 2 F(u) - 1 - t 2 u / 10, u the place where the density is t / 10
    density = stats.norm.pdf(0)
    t = np.linspace(1e-6, 10 * density, 200_000)
    u = np.sqrt(2 * np.log(10 * density / t))
    curve = 2 * stats.norm.cdf(u) - 1 - t * 2 * u / 10
    until = curve >= 0.9
    assert excess_mass(rows, points) == pytest.approx(np.trapezoid(curve[until], t[until]), rel=0.05)


def test_excess_mass_is_the_area_under_the_best_of_all_level_sets(rng) -> None:
    rows, points = np.round(rng.normal(size=80) ** 2, 1), np.round(rng.uniform(0, 9, 60), 1)
    limits = np.unique(rows)
    mass, volume = ((limits[:, None] >= of).mean(1) for of in (rows, points))
    t = np.linspace(0, 40, 400_001)
    curve = np.max(mass[:, None] - t * volume[:, None], axis=0)
    until = curve >= 0.9
    assert excess_mass(rows, points) == pytest.approx(np.trapezoid(curve[until], t[until]), rel=1e-3)


def test_a_score_that_follows_the_density_takes_less_volume(rng) -> None:
    rows, points = rng.normal(size=(4000, 2)) * [1, 0.2], rng.uniform(-4, 4, (4000, 2))
    right, wrong = (lambda x: (x**2 / [1, 0.04]).sum(1)), (lambda x: (x**2).sum(1))
    assert mass_volume(right(rows), right(points)) < 0.7 * mass_volume(wrong(rows), wrong(points))
    assert excess_mass(right(rows), right(points)) > 1.4 * excess_mass(wrong(rows), wrong(points))


def test_what_takes_no_volume_has_no_bound() -> None:
    assert excess_mass([0.0, 0.0, 0.0], [1.0, 2.0]) == np.inf
    with pytest.raises(ValueError, match="NaN"):
        mass_volume([np.nan], [1.0])


# rankings and codes


def test_stability_is_spearmans_correlation(rng) -> None:
    one = np.round(rng.normal(size=100), 1)
    other = one + rng.normal(size=100)
    value, interval = stability(one, other)
    assert value == pytest.approx(stats.spearmanr(one, other).statistic)
    assert interval is not None and interval[0] < value < interval[1]
    assert stability([1, 2, 3, 4], [5, 5, 5, 5]) == (0.0, pytest.approx((-0.961, 0.961), abs=1e-3))
    assert stability([1, 2], [1, 2]) == (1.0, None)
    with pytest.raises(ValueError, match="two rows or more"):
        stability([1.0], [2.0])


def test_the_effective_dimension_is_that_of_the_law_of_codes(rng) -> None:
    variances = np.array([1.0, 1.0, 0.25, 0.001])
    turned = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    z = rng.normal(size=(200_000, 4)) * np.sqrt(variances)
    expected = variances.sum() ** 2 / (variances**2).sum()
    assert codes(z @ turned).dimension == pytest.approx(expected, rel=0.01)
    assert codes(z, normal=True).active == 3 and codes(z).active == 4
    few = codes(z[:3])  # fewer rows than codes
    assert few.dimension == pytest.approx(np.trace(c := np.cov(z[:3].T)) ** 2 / (c**2).sum())


def test_codes_that_all_rows_share_are_none() -> None:
    same = np.tile([3.0, -1.0], (10, 1))
    assert codes(same) == (0.0, 0, 2) and codes(same, normal=True) == (0.0, 0, 2)
    with pytest.raises(ValueError, match="finite codes"):
        codes([[1.0]])


def test_reconstructions_that_follow_nothing_are_dead(rng) -> None:
    rows = rng.normal(size=(100, 3))
    assert dead(np.tile(rows.mean(0), (100, 1)), rows) and not dead(0.2 * rows, rows)
    assert not dead(np.zeros((5, 2)), np.zeros((5, 2)))  # nothing to follow


def test_a_box_is_drawn_from_uniformly(rng) -> None:
    points = uniform(Layout.of([[0.25, -3.5], [1.5, 2.25], [0.5, 0.5]]), 5000, rng, 1.0)
    assert stats.kstest(points[:, 0], "uniform", (0.25, 1.25)).pvalue > 1e-3
