"""Densities integrate to one in the data's own units, and what measures them equals closed forms and scipy.

Shapes: `B` events, `D` features.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from fitting import fitted
from straylight import detectors
from straylight.detectors import GMM, KDE, MAF, BayesianGMM, Detector, Mahalanobis, MoMKDE, RobustKDE
from straylight.detectors.fitted import FittedDetector
from straylight.detectors.flow import FlowDetector
from straylight.metrics.density import (
    BOUNDS,
    bits_per_dim,
    density_check,
    excess,
    ks_by_chance,
    ks_distance,
    ks_normal,
    ks_radius,
    mean,
    nll,
    repeating,
    sentence,
    verdict,
)
from straylight.metrics.two_sample import FEATURES, LEAST, TwoSample, two_sample
from straylight.nn import scaling_of

AFFINE = ("standard", "minmax", "standard_common", "minmax_common", "none")
DENSITIES = [
    found
    for name in detectors.__all__
    if isinstance(found := getattr(detectors, name), type) and issubclass(found, Detector) and found.density
]


def rows(n=300, seed=0) -> torch.Tensor:
    """Two correlated features of different scale, far from the origin."""
    z = np.random.default_rng(seed).normal(size=(n, 2))
    return torch.tensor(np.stack([7 + 3 * z[:, 0], -2 + 0.3 * z[:, 0] + 0.4 * z[:, 1]], 1), dtype=torch.float32)


def built(kind: type[Detector], scaling="standard", x=None, **options) -> Detector:
    """A detector fitted to rows; a flow has random weights, far from its beginning."""
    torch.manual_seed(1)
    x = rows() if x is None else x
    small = {"layers": 2, "hidden": 8} if issubclass(kind, FlowDetector) else {}
    detector = kind((x.shape[1],), scaling=scaling, **small, **options)
    detector.scaling.fit([x])
    if isinstance(detector, FittedDetector):
        return fitted(detector, detector.scaling(x)).eval()
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.mul_(1 + 0.3 * torch.randn_like(parameter))  # what is masked stays zero
    return detector.eval()


@torch.no_grad()
def on_a_grid(detector: Detector, n=501) -> tuple[torch.Tensor, torch.Tensor]:
    """Places in the data's own units and the probability of the cell about each, `(n^2, 2)` and `(n^2,)`."""
    scaled = detector.scaling(rows())
    flow = isinstance(detector, FlowDetector)  # whose weights are random: it is about zero whatever the rows
    centre, width = (torch.zeros(2), torch.ones(2)) if flow else (scaled.mean(0), scaled.std(0))
    line = torch.linspace(-14, 14, n) if flow else torch.linspace(-8, 8, n)
    axes = detector.scaling.inverse(torch.stack([centre + width * t for t in line]))
    steps = (axes[-1].double() - axes[0].double()) / (n - 1)
    places = torch.cartesian_prod(axes[:, 0], axes[:, 1])
    return places.double(), detector.log_density(places).exp() * steps.prod()


# detectors


def test_these_have_a_density() -> None:
    assert {kind.__name__ for kind in DENSITIES} >= {"MAF", "RealNVP", "NSF", "GMM", "KDE", "RobustKDE"}


VARIANTS = [(kind, {}) for kind in DENSITIES if kind is not GMM]
VARIANTS += [(GMM, {"components": 2, "covariance": covariance}) for covariance in ("full", "diag", "tied")]


@pytest.mark.parametrize("scaling", AFFINE)
@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)
def test_a_density_integrates_to_one_and_is_what_is_sampled(kind, options, scaling) -> None:
    detector = built(kind, scaling, **options)
    places, probability = on_a_grid(detector)
    assert float(probability.sum()) == pytest.approx(1, abs=2e-3)
    samples = detector.sample(40_000).double()
    assert samples.shape == (40_000, 2)
    # characteristic functions, along both features and across: bounded, where moments have heavy tails
    scale = samples.quantile(torch.tensor([0.16, 0.5, 0.84]).double(), dim=0)
    waves = torch.tensor([[1, 0], [0, 1], [1, 1], [1, -1], [3, 0], [0, 3]]).double().T
    drawn, there = ((u - scale[1]) / (scale[2] - scale[0]) @ waves for u in (samples, places))
    for wave in (torch.cos, torch.sin):
        torch.testing.assert_close(wave(drawn).mean(0), probability @ wave(there), rtol=0, atol=0.015)


@pytest.mark.parametrize("scaling", AFFINE)
def test_a_gaussian_has_the_density_of_scipys(scaling) -> None:
    x = rows()
    gmm = built(GMM, scaling, components=1, regularization=0.0)
    truth = stats.multivariate_normal(x.double().mean(0), np.cov(x.double().numpy().T, bias=True))
    np.testing.assert_allclose(gmm.log_density(x), truth.logpdf(x.double().numpy()), rtol=1e-5, atol=1e-5)


def test_scores_that_are_no_density_say_so() -> None:
    for kind in (MoMKDE, Mahalanobis, BayesianGMM):
        detector = built(kind)
        with pytest.raises(ValueError, match=f"score of {kind.__name__} is no log-density"):
            detector.log_density(rows())
        with pytest.raises(ValueError, match=f"{kind.__name__} has no density to draw events from"):
            detector.sample(3)


@pytest.mark.parametrize("kind", [MoMKDE, BayesianGMM])
def test_they_are_right_to(kind, monkeypatch) -> None:
    detector = built(kind, x=rows(40))
    monkeypatch.setattr(kind, "density", True)
    _, probability = on_a_grid(detector)
    assert abs(float(probability.sum()) - 1) > 0.02


@pytest.mark.parametrize("kind", [kind for kind in DENSITIES if issubclass(kind, FlowDetector)])
@pytest.mark.parametrize("context", [0, 1])
def test_latents_have_the_jacobian_that_the_density_says(kind, context) -> None:
    detector = built(kind, context=context).double().requires_grad_(False)
    x, c = rows(5).double(), torch.randn(5, context).double()
    z = detector.latents(x, c)
    for i in range(5):
        slope = torch.autograd.functional.jacobian(
            lambda row, i=i: detector.latents(row, c[i : i + 1])[0], x[i : i + 1]
        )
        expected = stats.norm.logpdf(z[i]).sum() + float(slope[:, 0].det().abs().log())
        assert float(detector.log_density(x, c)[i]) == pytest.approx(expected, rel=1e-6)


def test_samples_follow_the_context() -> None:
    detector = built(MAF, context=1)
    c = torch.cat([torch.full((2000, 1), -9.0), torch.full((2000, 1), 9.0)])
    torch.manual_seed(0)
    samples = detector.sample(4000, c)
    # their latents are normal with the context that they were drawn with, and not with the other
    assert ks_normal(detector.latents(samples, c).detach()).max() < 2.5 * ks_by_chance(4000)
    assert ks_normal(detector.latents(samples, -c).detach()).max() > 0.05


def test_one_kernel_density_of_weighted_rows_is_sampled_by_weight() -> None:
    kde = fitted(KDE((1,), bandwidth=0.1, scaling="none"), [[0.0], [10.0]], [1.0, 3.0])
    torch.manual_seed(0)
    samples = kde.sample(10_000)
    assert float((samples > 5).float().mean()) == pytest.approx(0.75, abs=0.02)
    assert float(samples[samples > 5].std()) == pytest.approx(0.1, rel=0.05)


def test_a_robust_density_is_sampled_without_the_outlier() -> None:
    x = torch.cat([torch.linspace(-1, 1, 99), torch.tensor([9.0])])[:, None]
    kde = fitted(RobustKDE((1,), bandwidth=0.5, scaling="none"), x)
    assert float(kde.sample(5000).max()) < 5


# the scaling's share


@pytest.mark.parametrize("scaling", AFFINE)
@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)])
def test_the_log_determinant_is_that_of_the_jacobian(scaling, shape) -> None:
    torch.manual_seed(0)
    x = 5 + torch.randn(50, *shape) * torch.rand(shape)
    unit = scaling_of(shape, scaling).fit([x]).double()
    for row, found in zip(x[:3].double(), unit.log_determinant(x[:3]), strict=True):
        slope = torch.autograd.functional.jacobian(lambda r: unit(r[None])[0], row)
        d = math.prod(shape)
        assert float(found) == pytest.approx(float(slope.reshape(d, d).det().abs().log()), abs=1e-9)
    assert unit.log_determinant(x).shape == (50,)


@pytest.mark.parametrize("scaling", ["particles", "particles_log"])
def test_the_log_determinant_of_particles_is_that_of_the_jacobian(scaling) -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 19, 3)
    x[..., 0] = x[..., 0].exp() * 20
    unit = scaling_of((19, 3), scaling).fit([x]).double()
    x = x.double()
    slope = torch.autograd.functional.jacobian(lambda r: unit(r[None])[0], x[0]).reshape(57, 57)
    found = unit.log_determinant(x)
    assert float(found[0]) == pytest.approx(float(slope.det().abs().log()), rel=1e-9)
    assert (found.std() > 1e-6) == (scaling == "particles_log")


@pytest.mark.parametrize("scaling", ["particles", "particles_log"])
def test_an_empty_slot_has_no_density(scaling) -> None:
    x = torch.ones(4, 57)
    x[1, 3:6] = 0
    with pytest.raises(ValueError, match="1 of 4 events have an empty slot"):
        scaling_of((57,), scaling).log_determinant(x)


def test_a_pt_whose_logarithm_is_cut_has_no_density() -> None:
    x = torch.ones(4, 57)
    x[2, 3] = 1e-4
    with pytest.raises(ValueError, match=r"1 of 4 events have a pT of 0\.001 GeV or less"):
        scaling_of((57,), "particles_log").log_determinant(x)
    assert scaling_of((57,), "particles").log_determinant(x).isfinite().all()


def test_contrast_normalisation_has_no_density() -> None:
    with pytest.raises(ValueError, match="gcn_l1 forgets the mean and the contrast"):
        scaling_of((4,), "gcn_l1").log_determinant(torch.rand(2, 4))


# likelihoods


def test_the_nll_of_gaussian_rows_is_their_entropy() -> None:
    law = stats.multivariate_normal([1, 2], [[2.0, 0.5], [0.5, 1.0]])
    found = nll(law.logpdf(law.rvs(20_000, random_state=0)))
    assert abs(found.value - law.entropy()) < 4 * found.error
    # -log p is entropy + (chi-squared_2 - 2) / 2, of variance 1
    assert found.error == pytest.approx(1 / math.sqrt(20_000), rel=0.03)
    assert bits_per_dim(found.value, 2) == pytest.approx(found.value / 2 / math.log(2))


def test_the_excess_is_the_divergence() -> None:
    true, model = stats.norm(0, 1), stats.norm(0.3, 1.2)
    x = true.rvs(100_000, random_state=1)
    found = excess(model.logpdf(x), true.logpdf(x))
    divergence = math.log(1.2) + (1 + 0.3**2) / (2 * 1.2**2) - 0.5
    assert abs(found.excess.value - divergence) < 4 * found.excess.error < 0.01
    assert abs(found.entropy.value - true.entropy()) < 4 * found.entropy.error
    assert found.excess.error < found.entropy.error / 2  # paired
    assert found.left_out == 0


def test_rows_without_a_true_density_are_counted_and_left_out() -> None:
    found = excess([-1.0, -50.0, -2.0, -7.0], [-0.5, -math.inf, -1.0, math.nan])
    assert (found.excess.value, found.entropy.value, found.left_out) == (0.75, 0.75, 2)
    with pytest.raises(ValueError, match="none of 2 rows has a finite true log-density"):
        excess([0, 0], [-math.inf, math.nan])
    with pytest.raises(ValueError, match="of the same rows"):
        excess([0, 0], [0])


def test_means_of_what_has_none() -> None:
    with pytest.raises(ValueError, match="1 of 2 values are NaN"):
        nll([0.0, math.nan])
    with pytest.raises(ValueError, match="non-empty column"):
        mean([])
    with pytest.raises(ValueError, match="one or more dimensions"):
        bits_per_dim(1.0, 0)
    assert nll([0.0, -math.inf]).value == math.inf
    assert math.isnan(nll([1.0]).error)


def test_a_log_density_as_large_as_float32_has_is_summed() -> None:
    least = torch.finfo(torch.float32).min
    assert nll(np.full(10, least, np.float32)).value == pytest.approx(-least)


# latents


@pytest.mark.parametrize("n", [1, 2, 37, 1000])
def test_distances_are_scipys(n) -> None:
    z = np.random.default_rng(n).normal(0.1, 1.1, (n, 4))
    z[:, 3] = np.round(z[:, 3])  # ties
    np.testing.assert_allclose(ks_normal(z), [stats.kstest(c, "norm").statistic for c in z.T], rtol=1e-12)
    radius = stats.kstest((z**2).sum(1), stats.chi2(4).cdf).statistic
    assert ks_radius(z) == pytest.approx(radius, rel=1e-12)
    uniform = stats.norm.cdf(z[:, 0])
    assert float(ks_distance(uniform)) == pytest.approx(stats.kstest(uniform, "uniform").statistic, rel=1e-12)


def test_the_radius_sees_what_no_latent_shows() -> None:
    z = np.random.default_rng(0).normal(size=(5000, 1)) * np.random.default_rng(1).choice([-1, 1], (5000, 2))
    assert ks_normal(z).max() < 2 * ks_by_chance(5000, 2)  # each is normal, and they are equal but for the sign
    assert ks_radius(z) > 0.1


def test_latents_far_out_or_absent() -> None:
    assert ks_normal([[1e30], [-math.inf]]).tolist() == [0.5]
    assert ks_radius([[1e300, 0.0]]) == 1.0
    for bad in ([[math.nan]], np.zeros((0, 2))):
        with pytest.raises(ValueError, match=r"one or more rows|row is NaN"):
            ks_normal(bad)


@pytest.mark.parametrize(("n", "laws"), [(10, 1), (100, 1), (100, 5), (1000, 20)])
def test_what_chance_makes_of_the_largest_distance(n, laws) -> None:
    rng = np.random.default_rng([n, laws])
    simulated = [ks_distance(rng.random((n, laws))).max() for _ in range(1000)]
    error = np.std(simulated) / math.sqrt(1000)
    assert ks_by_chance(n, laws) == pytest.approx(np.mean(simulated), abs=4 * error + 0.003)
    assert ks_by_chance(10**8) == pytest.approx(math.sqrt(math.pi / 2) * math.log(2) / 1e4, rel=1e-3)


def test_chance_needs_rows() -> None:
    with pytest.raises(ValueError, match="one or more rows and laws"):
        ks_by_chance(0)


def test_features_that_repeat_are_counted() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=100), rng.integers(0, 256, 100), rng.integers(0, 3, 100), np.zeros(100)], 1)
    assert repeating(x) == 2
    assert repeating(x[:1]) == repeating(x[:0]) == 0


# the classifier


def drawn(n, d, seed=0, **change):
    """Standard normal rows, and as many with one thing changed."""
    first, second = np.random.default_rng(seed).normal(size=(2, n, d))
    if rho := change.get("rho"):
        second[:, 1] = rho * second[:, 0] + math.sqrt(1 - rho**2) * second[:, 1]
    return first, second * change.get("width", 1.0) + change.get("shift", 0.0)


@pytest.mark.parametrize(
    ("d", "change", "least"),
    [
        (2, {"rho": 0.8}, 0.65),
        (10, {"rho": 0.8}, 0.62),  # one pair of ten features
        (40, {"rho": 0.8}, 0.55),
        (2, {"width": 1.3}, 0.53),
        (2, {"shift": 0.3}, 0.53),
        (FEATURES + 20, {"width": 1.5}, 0.9),
    ],
    ids=str,
)
def test_wrong_dependence_and_wrong_margins_are_both_seen(d, change, least) -> None:
    found = two_sample(*drawn(4000, d, **change))
    assert found.interval[0] > least
    assert found.components == (FEATURES // 2 if d > FEATURES else None)
    # and what is the same is not told apart
    low, high = two_sample(*drawn(4000, d, seed=2)).interval
    assert low < 0.51 and 0.49 < high < 0.54


def test_the_interval_holds_one_half_as_often_as_it_says() -> None:
    held = [low <= 0.5 <= high for low, high in (two_sample(*drawn(100, 2, s), seed=s).interval for s in range(200))]
    assert 0.90 <= np.mean(held) <= 0.985  # 0.95 +- 3 errors


def test_one_seed_one_number_whatever_the_units() -> None:
    first, second = drawn(1000, 3, rho=0.5)
    found = two_sample(first, second, seed=3)
    assert found == two_sample(first, second, seed=3, threads=2) == two_sample(8 * first, 8 * second, seed=3)
    assert found.auroc != two_sample(first, second, seed=4).auroc


def test_pairs_do_not_leak() -> None:
    context = np.random.default_rng(9).normal(size=(1000, 1))  # the same of a row and of its sample
    first, second = (np.hstack([part, context]) for part in drawn(1000, 1))
    low, high = two_sample(first, second).interval
    assert low < 0.5 < high


def test_samples_that_are_not_finite_are_told_apart() -> None:
    first, second = drawn(1000, 2)
    second[::2, 0] = np.inf
    second[1::4, 1] = np.nan
    assert two_sample(first, second).interval[0] > 0.75


def test_a_classifier_needs_rows_of_one_shape() -> None:
    with pytest.raises(ValueError, match=f"{LEAST} rows or more of each"):
        two_sample(*drawn(LEAST - 1, 2))
    with pytest.raises(ValueError, match="of one shape"):
        two_sample(np.zeros((60, 2)), np.zeros((61, 2)))


# in one word


GOOD = {
    "rows": 10_000,
    "nll": 2.0,
    "dimensions": 2,
    "excess": 0.01,
    "excess_se": 0.001,
    "two_sample_interval": [0.49, 0.53],
    "two_sample_rows": 10_000,
    "latent_ks_max": 0.02,
    "radius_ks": 0.02,
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "fits"),
        ({"nll": math.inf}, "does not fit"),
        ({"nll": None}, "does not fit"),
        ({"nll": math.nan}, "does not fit"),
        ({"two_sample_interval": [0.49, 0.551]}, "nearly"),
        ({"two_sample_interval": [0.6, 0.66]}, "does not fit"),
        ({"two_sample_interval": [0.45, 0.66]}, None),
        ({"two_sample_rows": 4999}, "fits"),
        ({"two_sample_rows": 4999, "excess": None, "latent_ks_max": None}, None),
        ({"excess": 0.057}, "fits"),
        ({"excess": 0.061}, "nearly"),
        ({"excess": 0.057, "excess_se": 0.002}, "nearly"),  # by the upper edge
        ({"excess": 0.31}, "does not fit"),
        ({"excess": math.inf, "excess_se": math.nan}, "does not fit"),
        ({"latent_ks_max": 0.0201}, "fits"),
        ({"latent_ks_max": 0.0203}, "nearly"),  # by the upper edge
        ({"latent_ks_max": 0.13}, "does not fit"),
        ({"radius_ks": 0.05}, "nearly"),
        ({"radius_ks": 0.12}, "does not fit"),
        ({"rows": 199}, None),
        ({"rows": 199, "radius_ks": 0.4}, "does not fit"),
        ({"rows": 1000}, "nearly"),
        ({"latent_ks_max": 0.6, "excess": None, "two_sample_interval": None}, "does not fit"),
        ({"latent_ks_max": None, "excess": None, "two_sample_interval": None}, None),
    ],
)
def test_the_worst_measure_decides(change, expected) -> None:
    assert verdict({**GOOD, **change}) == expected


TRIALS = 400
ALLOWED = stats.binom.ppf(0.999, TRIALS, 0.025)


def verdicts(shift, n, d=1, true=False):
    """Of a law that is wrong by a shift of every feature, in units of its width, on rows drawn anew."""
    random, found = np.random.default_rng([n, d, true]), []
    for _ in range(TRIALS):
        x = random.normal(size=(n, d))
        log_true = stats.norm.logpdf(x).sum(1) if true else None
        latents = None if true else x + shift
        log_density = stats.norm.logpdf(x, -shift).sum(1)
        found.append(density_check(log_density, d, log_true=log_true, latents=latents))
    return found


@pytest.mark.parametrize(("n", "d"), [(50, 1), (199, 1), (200, 1), (500, 3), (2000, 1), (4000, 2)])
def test_a_wrong_law_is_seldom_said_to_fit(n, d) -> None:
    at_the_bound = 2 * stats.norm.ppf((1 + BOUNDS["ks"][0]) / 2)  # the shift of that distance
    for shift, word in ((0.3, "fits"), (at_the_bound, "fits"), (0.3, "nearly")):
        assert sum(found["verdict"] == word for found in verdicts(shift, n, d)) <= ALLOWED, (shift, word)


@pytest.mark.parametrize("n", [30, 200, 1000])
def test_an_excess_at_the_bound_is_seldom_said_to_fit(n) -> None:
    at_the_bound = math.sqrt(2 * BOUNDS["excess_per_dim"][0])  # the shift of that divergence
    assert sum(found["verdict"] == "fits" for found in verdicts(at_the_bound, n, true=True)) <= ALLOWED


@pytest.mark.parametrize("d", [1, 4])
def test_as_many_rows_as_are_said_to_do_usually_do_and_a_right_law_is_not_refused(d) -> None:
    few = verdicts(0.0, 100, d)
    assert {found["verdict"] for found in few} <= {None, "does not fit"}
    assert sum(found["verdict"] == "does not fit" for found in few) <= 2 * ALLOWED  # latents, and their radius
    (needed,) = {found["rows_needed"] for found in few if found["verdict"] is None}
    assert f"on 100 rows, too few to say whether it fits (some {needed:,} would do)" in str(few)
    assert np.mean([found["verdict"] == "fits" for found in verdicts(0.0, needed, d)[:200]]) > 0.8


def test_what_is_near_says_what_would_tell_whether_it_fits() -> None:
    x = np.random.default_rng(0).normal(size=(1000, 1))
    found = density_check(stats.norm.logpdf(x[:, 0]), 1, latents=x)
    assert found["verdict"] == "nearly"
    assert found["sentence"].startswith(
        "The density nearly fits, or better: 5,397 rows would tell, not 1,000: held-out"
    )


def test_a_perfect_density_fits_and_a_wrong_one_does_not() -> None:
    law = stats.norm(0, 1)
    x = np.random.default_rng(0).normal(size=(8000, 2))
    log_true = law.logpdf(x).sum(1)
    same = two_sample(x, np.random.default_rng(1).normal(size=(8000, 2)))
    found = density_check(log_true, 2, log_true=log_true, latents=x, two_sample=same)
    assert found["verdict"] == "fits" and found["excess"] == 0 and found["sentence"].startswith("The density fits: ")
    assert "0.000 ± 0.000 above the true entropy; a classifier tells samples from events with AUROC 0." in str(found)
    wide = stats.norm(0, 1.5)
    found = density_check(wide.logpdf(x).sum(1), 2, log_true=log_true, latents=x / 1.5)
    assert found["verdict"] == "does not fit" and "does not fit" in found["sentence"]
    assert found["latent_ks_max"] == max(found["latent_ks"]) > 0.05 and "two_sample_auroc" not in found


def test_what_the_sentence_says() -> None:
    found = density_check(
        [-2.0, -3.0], 2, latents=np.zeros((2, 2)), two_sample=TwoSample(0.6, (0.55, 0.64), 100), units="scaled"
    )
    assert found["sentence"] == (
        "The density does not fit: held-out NLL 2.50 nats in scaled units (1.80 bits/dim); a classifier tells samples "
        "from events with AUROC 0.60 [0.55, 0.64]; the worst latent is 0.500 from normal in KS distance "
        f"({ks_by_chance(2, 2):.3f} by chance) and their radius 1.000 from chi ({ks_by_chance(2):.3f})."
    )
    assert "0.50 ± 0.01 below the true" in sentence({**found, "excess": -0.5, "excess_se": 0.01})
    assert "1.000e+12 nats" in sentence({**found, "nll": 1e12})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_density_that_diverged_says_so(bad) -> None:
    found = density_check([-1.0, bad, -1.0], 1, latents=[[math.nan]] * 3, log_true=[0, 0, 0])
    assert (found["verdict"], found["nll"], found["not_finite"]) == ("does not fit", None, 1)
    assert found["sentence"] == "The density does not fit: 1 of 3 held-out rows have no finite log-density."
