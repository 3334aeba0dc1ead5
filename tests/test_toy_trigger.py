"""Collisions of the toy trigger obey kinematics that are known without it, and its events the layout of ADC2021."""

import logging
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import binom, cauchy, chi2, kstest

from straylight.data import ToyTrigger
from straylight.data.kinematics import REACH, boosted, breit_wigner, falling, four_vector, mass, two_body
from straylight.data.toy_processes import (
    ABSENT,
    BACKGROUND,
    ELECTRON,
    INVISIBLE,
    JET,
    MUON,
    SIGNALS,
    Truth,
    _semileptonic,
    h0_to_tautau,
    hplus_to_taunu,
    leptoquark,
    qcd,
    top_pair,
    w_boson,
    z_boson,
)
from straylight.data.toy_trigger import CONSTANT, LEAST, LEPTON, NOISE, SOFT, kept, measured
from straylight.errors import DataError
from straylight.nn import ParticleScaling

PROCESSES = [*BACKGROUND, *SIGNALS]
every = pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.__name__)
ALPHA = 1e-4  # of tests whose seed is fixed: none of them is rejected by chance


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def invariant(*particles):
    """Mass of a system from pT, eta and phi of massless particles, `(n, 3)` each: the textbook's other formula."""
    total = 0.0
    for i, a in enumerate(particles):
        for b in particles[i + 1 :]:
            total = total + 2 * a[:, 0] * b[:, 0] * (np.cosh(a[:, 1] - b[:, 1]) - np.cos(a[:, 2] - b[:, 2]))
    return np.sqrt(total)


# kinematics


def test_a_boost_is_the_matrix_of_the_textbook(rng) -> None:
    frame = four_vector(
        rng.exponential(50, 200), rng.normal(0, 2, 200), rng.uniform(-3, 3, 200), rng.uniform(1, 90, 200)
    )
    p = four_vector(rng.exponential(20, 200), rng.normal(0, 1, 200), rng.uniform(-3, 3, 200), rng.uniform(0, 5, 200))
    for one, of, found in zip(p, frame, boosted(p, frame), strict=True):
        beta = of[:3] / of[3]
        gamma = 1 / math.sqrt(1 - beta @ beta)
        matrix = np.eye(4)
        matrix[:3, :3] += (gamma - 1) * np.outer(beta, beta) / (beta @ beta)
        matrix[:3, 3] = matrix[3, :3] = gamma * beta
        matrix[3, 3] = gamma
        np.testing.assert_allclose(found, matrix @ one, rtol=1e-6, atol=1e-6 * of[3])


def test_a_decay_conserves_momentum_and_has_the_masses_asked_for(rng) -> None:
    m = rng.uniform(20, 200, 5000)
    parent = four_vector(rng.exponential(60, 5000), rng.normal(0, 2, 5000), rng.uniform(-3, 3, 5000), m)
    first, second = two_body(rng, parent, 0.3 * m, 0.6 * m)
    np.testing.assert_allclose(first + second, parent, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mass(parent), m, rtol=1e-6)
    np.testing.assert_allclose(mass(first), 0.3 * m, rtol=1e-4)
    np.testing.assert_allclose(mass(second), 0.6 * m, rtol=1e-4)
    with pytest.raises(ValueError, match="heavier"):
        two_body(rng, parent, 0.6 * m, 0.5 * m)


@pytest.mark.parametrize("axis", range(3))
def test_a_decay_is_isotropic_in_the_rest_frame(axis, rng) -> None:
    """Boosted back by the opposite momentum, each coordinate of a direction on the sphere is even from -1 to 1."""
    n = 20_000
    parent = four_vector(rng.exponential(60, n), rng.normal(0, 1, n), rng.uniform(-3, 3, n), 80.0)
    first, _ = two_body(rng, parent)
    back = boosted(first, parent * [-1, -1, -1, 1])
    np.testing.assert_allclose(back[:, 3], 40, rtol=1e-6)
    assert kstest(back[:, axis] / back[:, 3], "uniform", (-1, 2)).pvalue > ALPHA


def test_masses_are_of_a_cauchy_law_within_its_reach(rng) -> None:
    drawn = breit_wigner(rng, 50_000, 91.2, 2.5)
    law = cauchy(91.2, 1.25)
    low, high = law.cdf(91.2 - REACH * 2.5), law.cdf(91.2 + REACH * 2.5)
    assert abs(drawn - 91.2).max() <= REACH * 2.5
    assert kstest(drawn, lambda m: (law.cdf(m) - low) / (high - low)).pvalue > ALPHA


def test_a_falling_spectrum_is_the_density_it_says(rng) -> None:
    drawn = falling(rng, 50_000, 30, 5.0)
    whole = quad(lambda pt: (1 + pt / 30) ** -5, 0, np.inf)[0]
    for pt in (1, 5, 10, 20, 50, 100):
        share = quad(lambda pt: (1 + pt / 30) ** -5, 0, pt)[0] / whole
        assert (drawn < pt).mean() == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 50_000))
    assert drawn.mean() == pytest.approx(30 / 3, rel=0.03)


def test_a_leptonic_tau_has_the_spectrum_of_a_weak_decay(rng) -> None:
    """Without polarisation x = 2 E / m has the density 2 x^2 (3 - 2 x) of Michel in the rest frame."""
    tau = np.tile([0.0, 0.0, 0.0, 1.777], (40_000, 1))
    lepton, _ = _semileptonic(rng, tau, 0.0)
    # isotropic decays in a chain know nothing of the spin of the W, which moves the mean by some percent
    assert (2 * lepton[:, 3] / 1.777).mean() == pytest.approx(
        quad(lambda x: x * 2 * x**2 * (3 - 2 * x), 0, 1)[0], rel=0.08
    )


# processes


@every
def test_transverse_momenta_of_a_collision_add_up_to_zero(process, rng) -> None:
    kind, p = process(rng, 3000)
    assert np.abs(p.sum(1)[:, :2]).max() < 1e-6
    assert (p[kind == ABSENT] == 0).all() and (p[kind != ABSENT][:, 3] > 0).all()
    assert set(np.unique(kind)) <= {ABSENT, ELECTRON, MUON, JET, INVISIBLE}


@pytest.mark.parametrize("first", [1, 5], ids=["electrons", "muons"])
def test_lepton_pairs_of_z_have_its_mass(first, rng) -> None:
    """In a perfect detector, from pT, eta and phi, of events without a neutrino."""
    x = kept(z_boson, 20_000, rng, resolution=0.0)
    x = x[(x[:, first + 1, 0] > 0) & (x[:, 0, 0] < 1e-6)]
    found = invariant(x[:, first], x[:, first + 1])
    law = cauchy(91.2, 1.25)
    low, high = law.cdf(91.2 - REACH * 2.5), law.cdf(91.2 + REACH * 2.5)
    assert len(found) > 3000 and np.median(found) == pytest.approx(91.2, abs=0.15)
    # the filter favours heavier ones a little, so that it is near the law rather than of it
    assert kstest(found, lambda m: (law.cdf(m) - low) / (high - low)).statistic < 0.04


def test_resolution_widens_the_peak_by_what_it_should(rng) -> None:
    """sigma(m) / m of two independent leptons is their resolution over the square root of two."""
    truth = Truth(np.full((20_000, 2), MUON), np.stack(_at_rest(rng, 20_000), 1))
    x = measured(truth, rng)
    both = x[:, 6, 0] > 0
    found = invariant(x[both, 5], x[both, 6])
    assert found.std() / 91.2 == pytest.approx(CONSTANT[MUON] / math.sqrt(2), rel=0.05)


def _at_rest(rng, n):
    return two_body(rng, four_vector(np.zeros(n), np.zeros(n), np.zeros(n), 91.2))


def test_missing_energy_of_w_is_its_neutrino(rng) -> None:
    """From the objects alone, since all of a collision adds up to zero; and the transverse mass ends at the W's."""
    truth = w_boson(rng, 20_000)
    kind, p = truth
    x = measured(truth, rng, resolution=0.0)
    seen = (p * (kind != INVISIBLE)[..., None]).sum(1)
    np.testing.assert_allclose(x[:, 0, 0], np.hypot(seen[:, 0], seen[:, 1]), atol=1e-6)
    across = np.cos(x[:, 0, 2] - np.arctan2(-seen[:, 1], -seen[:, 0]))
    np.testing.assert_allclose(across[x[:, 0, 0] > 0.1], 1, atol=1e-9)
    x = x[np.maximum(x[:, 1, 0], x[:, 5, 0]) > LEPTON]
    lepton = np.where((x[:, 1, 0] > x[:, 5, 0])[:, None], x[:, 1], x[:, 5])
    transverse = np.sqrt(2 * lepton[:, 0] * x[:, 0, 0] * (1 - np.cos(lepton[:, 2] - x[:, 0, 2])))
    assert transverse.max() < 80.4 + REACH * 2.1 + 1e-6
    counts, edges = np.histogram(transverse, 50, (0, 100))
    assert 70 < edges[counts.argmax()] < 82  # the Jacobian peak below the mass


def test_top_quarks_are_a_b_and_a_w(rng) -> None:
    kind, p = top_pair(rng, 5000)
    for first in (0, 4):  # b, what is seen of the W's first, its neutrinos, and the second
        np.testing.assert_array_equal(kind[:, first], JET)
        assert np.median(mass(p[:, first : first + 4].sum(1))) == pytest.approx(172.5, abs=0.1)
        assert np.median(mass(p[:, first + 1 : first + 4].sum(1))) == pytest.approx(80.4, abs=0.1)
        hadronic = ((kind[:, first + 1] == JET) & (kind[:, first + 3] == JET)).mean()
        assert hadronic == pytest.approx(2 / 3, abs=0.03)


@pytest.mark.parametrize(
    ("process", "places", "pole"),
    [
        (leptoquark, [slice(0, 3), slice(3, 6)], 80),
        (h0_to_tautau, [slice(0, 4)], 60),
        (hplus_to_taunu, [slice(0, 3)], 60),
        (SIGNALS[1], [slice(0, 8)], 50),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_signals_have_the_masses_of_the_challenge(process, places, pole, rng) -> None:
    _, p = process(rng, 3000)
    for place in places:
        found = mass(p[:, place].sum(1))
        assert np.median(found) == pytest.approx(pole, abs=0.01) and np.abs(found - pole).max() < 1.1


def test_a_lepton_of_qcd_is_in_a_jet(rng) -> None:
    kind, p = qcd(rng, 5000)
    lepton, jet = p[:, 0], p[:, 2]
    assert np.isin(kind[:, 0], (ELECTRON, MUON)).all() and (kind[:, 2:4] == JET).all()
    cosine = (lepton[:, :3] * jet[:, :3]).sum(1)
    cosine /= np.linalg.norm(lepton[:, :3], axis=1) * np.linalg.norm(jet[:, :3], axis=1)
    assert np.median(cosine) > 0.95


# the detector


def test_a_perfect_detector_sees_what_is_there_in_its_place() -> None:
    """Two electrons out of order, a muon beyond its range, a soft one, and jets on both sides of their threshold."""
    pt = [30.0, 50.0, 40.0, 2.9, 14.9, 15.1, 25.0]
    eta = [2.9, -1.0, 2.2, 0.0, 0.0, 3.9, 0.5]
    kind = [ELECTRON, ELECTRON, MUON, MUON, JET, JET, INVISIBLE]
    phi = np.linspace(-3, 3, 7)
    p = four_vector(pt, eta, phi)[None]  # massless: rapidity is pseudorapidity
    (x,) = measured(Truth(np.array([kind]), p), np.random.default_rng(0), resolution=0.0)
    expected = np.zeros((19, 3))
    expected[0] = 25, 0, phi[6]
    expected[1], expected[2] = (50, -1, phi[1]), (30, 2.9, phi[0])
    expected[9] = 15.1, 3.9, phi[5]
    np.testing.assert_allclose(x, expected, atol=1e-12)


def test_the_highest_ten_jets_are_kept(rng) -> None:
    pt = rng.permutation(np.arange(20.0, 35))
    p = four_vector(pt, np.zeros(15), np.zeros(15))[None]
    (x,) = measured(Truth(np.full((1, 15), JET), p), rng, resolution=0.0)
    np.testing.assert_allclose(x[9:, 0], np.arange(34.0, 24, -1), rtol=1e-12)
    assert not x[1:9].any()


@pytest.mark.parametrize("kind", [ELECTRON, MUON, JET])
@pytest.mark.parametrize("resolution", [1.0, 0.5])
def test_objects_are_off_by_the_resolution_and_so_is_the_missing_energy(kind, resolution, rng) -> None:
    n, pt = 20_000, 100.0
    p = four_vector(np.full(n, pt), np.zeros(n), np.full(n, 0.5))[:, None]
    x = measured(Truth(np.full((n, 1), kind), p), rng, resolution)
    sigma = resolution * math.hypot(NOISE[kind] / math.sqrt(pt), CONSTANT[kind])
    seen = x[:, {ELECTRON: 1, MUON: 5, JET: 9}[kind], 0] / pt
    assert seen.mean() == pytest.approx(1, abs=4 * sigma / math.sqrt(n)) and seen.std() == pytest.approx(
        sigma, rel=0.03
    )
    along = x[:, 0, 0] * np.cos(x[:, 0, 2] - 0.5) + pt * (seen - 1)  # what is left is noise
    assert along.std() == pytest.approx(resolution * SOFT, rel=0.03)


# events


@pytest.fixture(scope="module")
def data():
    made = ToyTrigger(background=6000, signal=300, seed=3)
    made.setup()
    return made


def everything(data):
    parts = [part for part in data.splits if len(part)]
    return (
        np.concatenate([part.x.numpy().reshape(-1, 19, 3) for part in parts]),
        np.concatenate([part.y.numpy() for part in parts]),
        np.concatenate([part.meta["process"] for part in parts]),
    )


def test_particles_are_ordered_and_empty_slots_come_last_and_are_zero(data) -> None:
    x, _, _ = everything(data)
    for first, last in ((1, 5), (5, 9), (9, 19)):
        pt = x[:, first:last, 0]
        assert (np.diff(pt, axis=1) <= 0).all()
        assert not x[:, first:last][pt == 0].any()
    assert (x[:, 0, 0] > 0).all() and not x[:, 0, 1].any()
    assert (np.abs(x[..., 2]) <= math.pi + 1e-6).all()


def test_thresholds_and_ranges_are_those_of_the_detector(data) -> None:
    x, _, _ = everything(data)
    for kind, places, reach in ((ELECTRON, slice(1, 5), 3.0), (MUON, slice(5, 9), 2.1), (JET, slice(9, 19), 4.0)):
        there = x[:, places][x[:, places, 0] > 0]
        assert there[:, 0].min() >= LEAST[kind] and np.abs(there[:, 1]).max() <= reach
    assert (np.maximum(x[:, 1, 0], x[:, 5, 0]) >= LEPTON).all()


def test_processes_have_the_shares_of_the_challenge(data) -> None:
    _, y, process = everything(data)
    for number, share in enumerate((0.592, 0.338, 0.067, 0.003)):
        low, high = binom.interval(1 - ALPHA, 6000, share)
        assert low <= (process[y == 0] == number).sum() <= high
    assert (process[y > 0] == -1).all() and np.bincount(y).tolist() == [6000, 300, 300, 300, 300]


def test_events_are_alike_around_the_beam(data) -> None:
    """Nothing prefers an azimuth: phi of the missing energy and of the leading lepton is even."""
    x, _, _ = everything(data)
    lepton = np.where(x[:, 1, 0] > x[:, 5, 0], x[:, 1, 2], x[:, 5, 2])
    for phi in (x[:, 0, 2], lepton):
        counts, _ = np.histogram(phi, 20, (-math.pi, math.pi))
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < chi2.isf(ALPHA, 19)


def test_splits_are_those_of_the_challenge(data) -> None:
    train, val, test, reserve = data.splits
    assert [len(train), len(val), len(reserve)] == [3840, 960, 0]
    assert [int((test.y == kind).sum()) for kind in range(5)] == [1200, 300, 300, 300, 300]
    assert data.name == "toy_trigger" and data.columns[:3] == ["MET pT", "MET eta", "MET phi"]


def test_a_seed_makes_the_events_and_another_seed_others(data) -> None:
    again, other = (ToyTrigger(background=6000, signal=300, seed=seed) for seed in (3, 4))
    for mine, theirs in zip(data.splits, again.splits, strict=True):
        assert torch.equal(mine.x, theirs.x) and torch.equal(mine.y, theirs.y)
    assert not torch.isin(data.splits.train.x[:, 0], other.splits.train.x[:, 0]).any()


def test_signals_do_not_depend_on_how_much_background_there_is_and_fewer_are_the_first_ones(data) -> None:
    small = ToyTrigger(background=50, signal=100, seed=3).splits.test
    test = data.splits.test
    for kind in range(1, 5):
        assert torch.equal(small.x[small.y == kind], test.x[test.y == kind][:100])


@pytest.mark.parametrize("layout, shape", [("flat", (57,)), ("particles", (19, 3)), ("image", (1, 19, 3))])
def test_every_layout_holds_the_same_events(layout, shape) -> None:
    flat = ToyTrigger(background=60, signal=3).splits.test.x
    data = ToyTrigger(background=60, signal=3, layout=layout)
    assert data.shape == shape and torch.equal(data.splits.test.x.flatten(1), flat)
    assert ParticleScaling(shape).fit([data.splits.train.x])(flat.view(-1, *shape)).isfinite().all()


def test_it_says_that_it_is_a_toy(caplog) -> None:
    data = ToyTrigger(background=60, signal=3)
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert "say nothing of ADC2021" in caplog.text and "say nothing of ADC2021" in data.notices[0]
    assert "say nothing of ADC2021" in ToyTrigger.__doc__


@pytest.mark.parametrize(
    "key, value",
    [("background", 0), ("signal", 0), ("layout", "round"), ("resolution", -0.1), ("resolution", math.nan)],
)
def test_a_bad_value_is_refused_by_its_key(key, value) -> None:
    with pytest.raises(DataError) as error:
        ToyTrigger(**{key: value})
    said = str(error.value)
    assert f"data.{key}" in said and str(value) in said and said.endswith(".") and ". " not in said


def test_objects_are_seen_where_the_scaling_of_particles_expects_them() -> None:
    from straylight.data import toy_trigger
    from straylight.nn.particles import RANGES

    assert [reach for _, reach in RANGES[1:]] == [toy_trigger.REACH[kind] for kind in (ELECTRON, MUON, JET)]
