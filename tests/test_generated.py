"""Generated rows have the density that is stated, to be checked by quadrature, Monte Carlo and counting."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad, trapezoid
from scipy.special import logsumexp
from scipy.stats import chi2, multivariate_normal, norm
from sklearn.metrics import roc_auc_score

from given import sentence
from straylight.data import Blobs, Generated, Moons, Shells, Sinusoidal
from straylight.data.shells import log_mean
from straylight.errors import DataError

PLANE = {
    "moons": lambda **options: Moons(**{"noise": 0.15, **options}),
    "rings": lambda **options: Shells(**{"noise": 0.1, **options}),
    "sinusoidal": lambda **options: Sinusoidal(**{"noise": 0.15, **options}),
}
EVERY = PLANE | {"sphere": lambda **options: Shells(radii=[1.0], dimensions=3, **options)}
planar = pytest.mark.parametrize("name", PLANE)
every = pytest.mark.parametrize("name", EVERY)


def density(data, x):
    return data.log_prob(torch.as_tensor(np.asarray(x, float))).exp().numpy()


def anomalies(data):
    test = data.splits.test
    return test.x[test.y == 1]


# densities


@planar
def test_a_density_in_the_plane_integrates_to_one(name):
    data = EVERY[name](noise=0.2)
    low, high = (side + sign * 2 for side, sign in zip(data.box, (-1, 1), strict=True))
    if name == "sinusoidal":  # which jumps at the ends of its interval
        low[0], high[0] = data.interval
    x, y = (np.linspace(low[i], high[i], 401) for i in (0, 1))
    p = density(data, np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)).reshape(401, 401)
    assert trapezoid(trapezoid(p, y), x) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3, 5, 100])
@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_the_density_of_shells_integrates_to_one_over_the_radius(dimensions, noise):
    data = Shells(radii=[0.5, 2.0], dimensions=dimensions, noise=noise)
    r = np.linspace(1e-9, 2 + noise * (math.sqrt(dimensions) + 12), 20_001)
    rows = torch.zeros(len(r), dimensions, dtype=torch.float64)
    rows[:, -1] = torch.from_numpy(r)
    surface = math.log(2) + dimensions / 2 * math.log(math.pi) - math.lgamma(dimensions / 2)
    p = np.exp(data.log_prob(rows).numpy() + surface + (dimensions - 1) * np.log(r))
    assert trapezoid(p, r) == pytest.approx(1, abs=1e-6)


@every
def test_a_density_is_the_mean_of_gaussians_around_points_of_the_shape(name):
    data = EVERY[name](noise=0.3)
    near = data.draw(np.random.default_rng(1), 20)
    bare = EVERY[name](noise=1e-12).draw(np.random.default_rng(2), 400_000)
    if name == "sinusoidal":
        near, bare = near[:, 1:], bare[:, 1:]  # the first coordinate is not blurred: what is left is its margin
    kernels = [norm.pdf(row - bare, scale=0.3).prod(1) for row in near]
    if name == "sinusoidal":
        grid = np.linspace(*data.interval, 4001)
        truth = [trapezoid(density(data, np.stack([grid, np.full(4001, y)], 1)), grid) for y in near[:, 0]]
    else:
        truth = density(data, near)
    for found, exact in zip(kernels, truth, strict=True):
        assert abs(found.mean() - exact) < 5 * found.std() / math.sqrt(len(found))


@pytest.mark.parametrize("noise", [0.02, 0.1, 3.0])
@pytest.mark.parametrize("point", [(0, 0), (0, 1), (0.3, 0.2), (-1, -0.01), (0, -4), (5, 5), (1, 0.5), (-30, 2)])
def test_the_density_of_moons_is_an_adaptive_integral(noise, point):
    data = Moons(noise=noise)
    arcs = [lambda t: (np.cos(t), np.sin(t)), lambda t: (1 - np.cos(t), 0.5 - np.sin(t))]

    def exponent(arc, t):
        a, b = arc(t)
        return -((point[0] - a) ** 2 + (point[1] - b) ** 2) / (2 * noise**2)

    grid = np.linspace(0, np.pi, 100_001)
    highest = [grid[exponent(arc, grid).argmax()] for arc in arcs]
    top = max(exponent(arc, t) for arc, t in zip(arcs, highest, strict=True))
    total = 0.0
    for arc, t in zip(arcs, highest, strict=True):
        steps = {*np.clip(t + np.outer([-1, 1], np.geomspace(1e-7, 4, 30)).ravel(), 0, np.pi), 0.0, t, np.pi}
        steps |= set(np.pi - np.geomspace(1e-7, 3, 30)) | set(np.geomspace(1e-7, 3, 30))
        cuts = sorted(steps)
        for a, b in pairwise(cuts):
            total += quad(lambda t, arc=arc: math.exp(exponent(arc, t) - top), a, b)[0]
    truth = top + math.log(total / (4 * math.pi**2 * noise**2))
    found = data.log_prob(torch.tensor([point], dtype=torch.float64)).item()
    assert found == pytest.approx(truth, rel=1e-11, abs=1e-9)


@pytest.mark.parametrize("kappa", [1e-12, 1e-3, 1.0, 10.0, 700.0, 0.99e8, 1.01e8, 1e13])
def test_the_mean_over_the_sphere_is_the_closed_form_of_three_dimensions(kappa):
    truth = math.log(-math.expm1(-2 * kappa) / (2 * kappa))
    assert log_mean(np.array([kappa]), 3).item() == pytest.approx(truth, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("dimensions", [2, 4, 17, 100, 512])
@pytest.mark.parametrize("kappa", [0.01, 1.0, 12.0, 19.99, 20.01, 44.0, 46.0, 3000.0])
def test_the_mean_over_the_sphere_is_an_integral_over_the_angle(dimensions, kappa):
    t = np.linspace(0, np.pi, 200_001)[1:-1]
    weight = (dimensions - 2) * np.log(np.sin(t))
    truth = logsumexp(kappa * (np.cos(t) - 1) + weight) - logsumexp(weight)
    if dimensions == 2:  # whose integrand does not vanish at the ends
        ends = np.array([0, -2 * kappa]) - math.log(2)
        truth = logsumexp(np.r_[kappa * (np.cos(t) - 1), ends]) - math.log(len(t) + 1)
    assert log_mean(np.array([kappa]), dimensions).item() == pytest.approx(truth, rel=1e-9)


def test_blobs_have_the_density_of_a_mixture():
    data = Blobs(centers=[[0, 0, 1], [2, 0, 0], [0, 3, 0]], shift=[6, 6, 6], std=0.7)
    x = np.random.default_rng(0).normal(scale=3, size=(50, 3))
    truth = np.mean([multivariate_normal(mean, 0.49 * np.eye(3)).pdf(x) for mean in data.centers], axis=0)
    np.testing.assert_allclose(density(data, x), truth, rtol=1e-12)
    far = data.log_prob(torch.full((1, 3), 1e6))
    assert far.dtype == torch.float32 and far.item() == pytest.approx(-1.5e12 / 0.49, rel=1e-5)


@planar
def test_rows_are_drawn_from_the_density(name):
    data = EVERY[name]()
    low, high = (side + sign for side, sign in zip(data.box, (-1, 1), strict=True))
    if name == "sinusoidal":
        low[0], high[0] = data.interval
    fine, cells, n = 400, 20, 100_000
    edges = [np.linspace(low[i], high[i], fine + 1) for i in (0, 1)]
    middle = np.stack(np.meshgrid(*[(e[1:] + e[:-1]) / 2 for e in edges], indexing="ij"), -1).reshape(-1, 2)
    area = np.prod((high - low) / fine)
    p = (density(data, middle) * area).reshape(cells, fine // cells, cells, fine // cells).sum((1, 3)).ravel()
    rows = data.draw(np.random.default_rng(7), n)
    seen = np.histogram2d(*rows.T, bins=cells, range=np.stack([low, high], 1))[0].ravel()
    kept = n * p > 10
    seen, expected = (np.r_[a[kept], total - a[kept].sum()] for a, total in ((seen, n), (n * p, n)))
    expected = np.maximum(expected, 1)
    assert ((seen - expected) ** 2 / expected).sum() < chi2.isf(1e-4, kept.sum())


def test_rows_of_the_sphere_have_the_radii_of_the_density():
    data = Shells(radii=[1.0, 2.0], dimensions=3, noise=0.3)
    n = 50_000
    r = np.linalg.norm(data.draw(np.random.default_rng(0), n), axis=1)
    edges = np.linspace(0.2, 3.2, 31)
    fine = (np.linspace(0.2, 3.2, 3001)[1:] + np.linspace(0.2, 3.2, 3001)[:-1]) / 2
    p = density(data, np.c_[fine, 0 * fine, 0 * fine]) * 4 * np.pi * fine**2 * 0.001
    expected = n * p.reshape(30, 100).sum(1)
    seen = np.histogram(r, edges)[0]
    assert ((seen - expected) ** 2 / expected).sum() < chi2.isf(1e-4, 30)


# far away, and in another type


@every
def test_a_density_is_computed_in_float64_and_returned_as_it_came(name):
    data = EVERY[name]()
    x = torch.from_numpy(data.draw(np.random.default_rng(0), 100)).float()
    low, high = data.log_prob(x), data.log_prob(x.double())
    assert low.dtype == torch.float32 and high.dtype == torch.float64 and low.shape == (100,)
    torch.testing.assert_close(low, high.float(), rtol=1e-6, atol=1e-6)
    assert data.log_prob(x[:0]).shape == (0,)


@every
@pytest.mark.parametrize("far", [1e2, 1e6, 1e15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_far_row_has_a_finite_density_where_it_has_one(name, far, dtype):
    data = EVERY[name]()
    ways = torch.cat([torch.eye(len(data.box[0])), -torch.eye(len(data.box[0])), torch.ones(1, len(data.box[0]))])
    found = data.log_prob((ways * far).to(dtype))
    if name == "sinusoidal":  # nothing is nominal outside the interval
        outside = ways[:, 0] != 0
        assert (found[outside] == -math.inf).all()
        found = found[~outside]
    assert found.isfinite().all() and (found < -1e2).all()


def test_a_density_does_not_depend_on_the_chunks_it_is_computed_in():
    x = torch.rand(20_000, 2, dtype=torch.float64)
    data = Moons()
    torch.testing.assert_close(data.log_prob(x)[-5:], data.log_prob(x[-5:]), rtol=1e-14, atol=1e-14)


def test_rows_of_other_dimensions_have_no_density():
    with pytest.raises(DataError) as error:
        Moons().log_prob(torch.zeros(4, 3))
    assert "(B, 2)" in sentence(error) and "(4, 3)" in sentence(error)


# rows


@every
def test_a_seed_makes_the_rows_and_another_seed_others(name):
    first, again, other = (EVERY[name](events=400, seed=seed).splits for seed in (3, 3, 4))
    assert torch.equal(first.train.x, again.train.x) and torch.equal(first.test.x, again.test.x)
    assert not torch.isin(first.train.x, other.train.x).any()


@every
def test_anomalies_and_nominal_rows_are_drawn_independently(name):
    wide, narrow = EVERY[name](events=1000, noise=0.1), EVERY[name](events=1000, noise=0.2)
    assert torch.equal(anomalies(wide), anomalies(narrow))
    assert len(anomalies(wide)) == 50 and not torch.isin(anomalies(wide), wide.splits.train.x).any()
    own = np.random.default_rng(np.random.SeedSequence(0).spawn(2)[0])
    rows = torch.from_numpy(wide.draw(own, 950)).float()
    assert torch.isin(wide.splits.train.x, rows).all()


@every
def test_anomalies_fill_their_box(name):
    data = EVERY[name](events=4000, fraction=0.5, margin=0.25)
    found, (low, high) = anomalies(data).double().numpy(), data.box
    assert (found > low - 0.2501).all() and (found < high + 0.2501).all()
    places = (found - low + 0.25) / (high - low + 0.5)
    assert np.abs(places.mean(0) - 0.5).max() < 0.03 and np.abs(places.var(0) - 1 / 12).max() < 0.01


@every
def test_the_density_ranks_as_well_as_an_integral_over_it_says(name):
    """AUROC of -log p = P(p(nominal) > p(anomalous)), here from rows drawn afresh and not from those served."""
    data = EVERY[name](events=60_000, fraction=0.2)
    rng = np.random.default_rng(11)
    nominal = np.sort(density(data, data.draw(rng, 20_000)))
    low, high = data.box
    outside = density(data, rng.uniform(low - data.margin, high + data.margin, (20_000, len(low))))
    bayes = 1 - np.searchsorted(nominal, outside).mean() / len(nominal)
    test = data.splits.test
    reached = roc_auc_score(test.y, -data.log_prob(test.x).clamp(min=-1e9))
    assert reached == pytest.approx(bayes, abs=0.012) and reached > 0.7


def test_a_name_says_how_many_spheres_there_are_and_where():
    names = [Shells(radii=radii, dimensions=d).name for radii in ([1.0], [1.0, 2.0]) for d in (2, 3, 10)]
    assert names == ["ring", "sphere", "sphere_10d", "rings", "spheres", "spheres_10d"]


# bad values


@pytest.mark.parametrize(
    "kind, key, value",
    [
        *[(kind, "noise", value) for kind in (Moons, Shells, Sinusoidal) for value in (0, -1.0, math.nan, math.inf)],
        *[(Moons, "events", value) for value in (0, -5)],
        *[(Moons, "fraction", value) for value in (-0.1, 1.1, math.nan)],
        *[(Moons, "margin", value) for value in (-0.1, math.nan, math.inf)],
        *[(Shells, "radii", value) for value in ([], [0.0], [1.0, -1.0], [math.nan], [math.inf], [[1.0]], 1.0)],
        *[(Shells, "dimensions", value) for value in (1, 0, 513)],
        *[(Sinusoidal, "interval", value) for value in ([1.0, 1.0], [2.0, 1.0], [1.0], [0.0, math.nan])],
        *[(Sinusoidal, key, math.nan) for key in ("amplitude", "frequency")],
    ],
)
def test_a_bad_value_is_refused_by_its_key(kind, key, value):
    with pytest.raises(DataError) as error:
        kind(**{key: value})
    assert f"data.{key}" in sentence(error) and str(value) in sentence(error)


@pytest.mark.parametrize("what", ["box", "draw", "log_density"])
def test_a_generated_data_set_must_write_its_parts(what):
    data = Generated()
    with pytest.raises(NotImplementedError, match=f"must write {what}"):
        data.box if what == "box" else getattr(data, what)(*[None] * (2 if what == "draw" else 1))
