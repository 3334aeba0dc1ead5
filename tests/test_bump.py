"""The bump is drawn from the laws that are stated, its optimum is theirs, and a region chooses among its rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import binom, chisquare, kstest, multivariate_normal, norm, truncexpon, truncnorm

from given import sentence
from straylight.data import Bump
from straylight.errors import DataError
from straylight.metrics import max_sic

ALPHA = 1e-4  # of tests whose seed is fixed: none of them is rejected by chance
A = [[1, 0.6, 0.36, 0.216], [0.6, 1, 0.6, 0.36], [0.36, 0.6, 1, 0.6], [0.216, 0.36, 0.6, 1]]
B = 1.69 * np.array([[1, -0.4, 0.16, -0.064], [-0.4, 1, -0.4, 0.16], [0.16, -0.4, 1, -0.4], [-0.064, 0.16, -0.4, 1]])
MEAN, SIGNAL = np.array([1.5, 0.5, 1.5, 0.5]), np.array([2.0, 0.0, 2.0, 0.0])
IN_REGION = (math.exp(-3.3) - math.exp(-3.7)) / (math.exp(-3) - math.exp(-4.5))  # of background
FEW = {"events": 2000, "test_background": 1000, "test_signal": 200}


def bump(**options):
    return Bump(**{**FEW, **options})


def falling(low=3.0, high=4.5):
    """exp(-m) within limits."""
    return truncexpon(high - low, loc=low)


def narrow(low=3.3, high=3.7, mean=3.5):
    return truncnorm((low - mean) / 0.08, (high - mean) / 0.08, mean, 0.08)


def of(events, kind):
    """m and the features of one kind, float64."""
    here = events.y == kind
    return events.context[here, 0].double().numpy(), events.x[here].double().numpy()


def hashes(events):
    rows = torch.cat([events.context, events.x], 1).numpy()
    return {row.tobytes() for row in rows}


def from_test(data, kind=0):
    return of(data.splits.test, kind)


# the laws


def test_the_background_falls_in_m_as_it_is_stated():
    m, _ = of(Bump(events=300_000, **{k: v for k, v in FEW.items() if k != "events"}).splits.train, 0)
    assert len(m) == 300_000 and m.min() >= 3 and m.max() <= 4.5
    assert kstest(m, falling().cdf).pvalue > ALPHA
    edges = np.linspace(3, 4.5, 61)
    assert chisquare(np.histogram(m, edges)[0], len(m) * np.diff(falling().cdf(edges))).pvalue > ALPHA
    in_region = int(((m >= 3.3) & (m <= 3.7)).sum())
    assert binom(len(m), IN_REGION).cdf([in_region - 1, in_region]) == pytest.approx(0.5, abs=0.5 - ALPHA)


@pytest.mark.parametrize("region", ["signal", "sidebands", "both"])
def test_every_split_has_the_laws_of_m_within_its_region(region):
    data = bump(events=100_000, region=region, signal_fraction=0.1, test_background=50_000, test_signal=20_000)
    train, val, test, reserve = data.splits
    inner, edges = falling(3.3, 3.7), np.array([3.0, 3.3, 3.7, 4.5])
    assert kstest(of(test, 0)[0], inner.cdf).pvalue > ALPHA and kstest(of(test, 1)[0], narrow().cdf).pvalue > ALPHA
    assert kstest(of(reserve, 1)[0], narrow().cdf).pvalue > ALPHA and len(reserve) == 10_000
    of_sidebands = falling().cdf(edges)
    for part in (train, val):
        m, _ = of(part, 0)
        if region == "sidebands":
            assert not data.resonance.holds(part.context).any() and not part.y.any()
            below, above = m[m < 3.5], m[m > 3.5]
            share = of_sidebands[1] / (1 - IN_REGION)
            assert binom(len(m), share).cdf([len(below) - 1, len(below)]) == pytest.approx(0.5, abs=0.5 - ALPHA)
            assert kstest(below, falling(3.0, 3.3).cdf).pvalue > ALPHA
            assert kstest(above, falling(3.7, 4.5).cdf).pvalue > ALPHA
        elif region == "signal" or part is val:
            assert data.resonance.holds(part.context).all() and kstest(m, inner.cdf).pvalue > ALPHA
        if region != "sidebands":
            assert kstest(of(part, 1)[0], narrow().cdf).pvalue > ALPHA


@pytest.mark.parametrize("correlation", [0.0, 4.0])
@pytest.mark.parametrize("part", ["train", "test"])
def test_projections_of_the_background_have_their_law(part, correlation):
    data = bump(events=60_000, test_background=60_000, correlation=correlation, seed=1)
    m, x = of(getattr(data.splits, part), 0)
    z = x - correlation * (m[:, None] - 3.5) * [1, 1, 0, 0]
    for w in (*np.eye(4), *np.random.default_rng(0).normal(size=(6, 4))):
        common, other = norm(0, math.sqrt(w @ A @ w)), norm(w @ MEAN, math.sqrt(w @ B @ w))
        assert kstest(z @ w, lambda t, a=common, b=other: 0.7 * a.cdf(t) + 0.3 * b.cdf(t)).pvalue > ALPHA
    assert abs(np.corrcoef(z.T, m)[-1, :-1]).max() < 4 / math.sqrt(len(m))


def test_the_signal_lies_where_it_is_stated_and_moves_with_nothing():
    data = bump(test_signal=50_000, correlation=4.0)
    m, x = from_test(data, 1)
    for i in range(4):
        assert kstest(x[:, i], norm(SIGNAL[i], 0.33).cdf).pvalue > ALPHA
    correlations = np.corrcoef(np.column_stack([m, x]).T) - np.eye(5)
    assert abs(correlations).max() < 5 / math.sqrt(len(m))


@pytest.mark.parametrize("correlation", [-2.0, 0.0, 4.0])
def test_a_correlation_moves_the_means_of_two_features_of_the_background_with_m(correlation):
    m, x = of(bump(events=100_000, correlation=correlation).splits.train, 0)
    slope, error = np.polyfit(m, x, 1)[0], x.std(0) / m.std() / math.sqrt(len(m))
    assert (abs(slope - correlation * np.array([1, 1, 0, 0])) < 5 * error).all()


def test_noise_is_normal_in_both_kinds_and_leaves_the_other_features_as_they_are():
    plain, noisy = bump(test_background=20_000), bump(test_background=20_000, noise_features=3)
    assert noisy.columns == ["x1", "x2", "x3", "x4", "noise1", "noise2", "noise3"] and noisy.shape == (7,)
    for a, b in zip(plain.splits, noisy.splits, strict=True):
        assert torch.equal(a.x, b.x[:, :4]) and torch.equal(a.context, b.context) and torch.equal(a.y, b.y)
    for kind in (0, 1):
        m, x = from_test(noisy, kind)
        assert all(kstest(x[:, i], norm.cdf).pvalue > ALPHA for i in (4, 5, 6))
        assert abs(np.corrcoef(np.column_stack([m, x]).T)[4 + 1 :, : 4 + 1]).max() < 5 / math.sqrt(len(m))


# the optimum


def by_quadrature(x, correlation, low, high):
    """The log-ratio of one row, its background integrated over m."""

    def background(m):
        z = x - correlation * (m - 3.5) * np.array([1, 1, 0, 0])
        of_z = 0.7 * multivariate_normal(np.zeros(4), A).pdf(z) + 0.3 * multivariate_normal(MEAN, B).pdf(z)
        return of_z * falling(low, high).pdf(m)

    middle = np.clip(3.5 + (x[0] + x[1]) / 2 / correlation, low, high) if correlation else 3.5
    total = quad(background, low, high, points=[middle], limit=200, epsabs=0, epsrel=1e-10)[0]
    return multivariate_normal(SIGNAL, 0.33**2 * np.eye(4)).logpdf(x) - math.log(total)


@pytest.mark.parametrize("limits", [(3.3, 3.7), (3.0, 3.25), (3.6, 4.5)], ids=str)
@pytest.mark.parametrize("correlation", [0.0, -0.5, 4.0, 30.0])
def test_the_log_ratio_is_that_of_the_densities_in_the_region(correlation, limits):
    data = bump(correlation=correlation, signal_region=limits, noise_features=2)
    x = data.splits.test.x[torch.cat([torch.arange(4), (data.splits.test.y == 1).nonzero()[:4, 0]])].double()
    found = data.log_ratio(x, torch.zeros(len(x), 1))
    expected = [by_quadrature(row[:4].numpy(), correlation, *limits) for row in x]
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)  # limits are single precision


@pytest.mark.parametrize("correlation", [0.0, 4.0])
def test_the_mean_ratio_over_background_of_the_region_is_one(correlation):
    """Whatever the densities are, if they are those that the rows are drawn from."""
    data = bump(test_background=400_000, correlation=correlation)
    test = data.splits.test
    ratio = data.log_ratio(test.x, test.context)[test.y == 0].double().exp()
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / math.sqrt(len(ratio)))
    assert data.log_ratio(test.x, test.context).dtype == torch.float32


def test_the_ratio_of_the_features_does_not_look_at_m():
    data = bump(correlation=4.0)
    x = data.splits.test.x
    assert torch.equal(data.log_ratio(x, torch.full((len(x), 1), 3.31)), data.log_ratio(x, data.splits.test.context))
    far = torch.tensor([[1e30, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, -1e18]])
    assert (data.log_ratio(far, far[:, :1]) < -1e30).all()
    with pytest.raises(DataError, match=r"of shape \(B, 4\), not \(3, 5\)"):
        data.log_ratio(torch.zeros(3, 5), torch.zeros(3, 1))


def test_the_largest_sic_of_the_optimum_is_the_one_that_is_stated():
    """11.9 with 16,000,000 events of background; of 200,000 the largest value moves by 2 % and is biased upwards."""
    data = Bump(events=2000)
    test = data.splits.test
    assert torch.bincount(test.y).tolist() == [200_000, 20_000] and data.resonance.holds(test.context).all()
    score = data.log_ratio(test.x, test.context)
    best, fpr = max_sic(score[test.y == 0], score[test.y == 1])
    assert 11.4 < best < 12.8 and 0.001 < fpr < 0.004
    m = test.context[:, 0].double().numpy()
    knowing = score.double().numpy() + narrow().logpdf(m) - falling(3.3, 3.7).logpdf(m)
    assert max_sic(knowing[test.y == 0], knowing[test.y == 1])[0] > 13, "one that knows m is another"


# what trains, and what does not hang on it


def test_by_default_630_events_of_signal_are_among_63_000_of_the_region():
    data = Bump(test_background=1000, test_signal=200)
    train, val, _, _ = data.splits
    assert data.kinds == ("nominal", "signal") and data.shape == (4,) and data.context == 1
    assert torch.bincount(train.y).tolist() == [200_000, 629]
    region = train.y[data.resonance.holds(train.context)]
    assert abs(int((region == 0).sum()) - 62_874) < 5 * math.sqrt(62_874) and int(region.sum()) == 629
    assert len(val) == 20_063 and int(val.y.sum()) == round(20_063 * 629 / (629 + 62_874))
    places = train.y.nonzero().flatten().double().numpy()
    assert kstest(places / len(train), "uniform").pvalue > ALPHA, "signal is all over the training rows"


def test_regions_are_parts_of_the_same_rows():
    both, signal, sidebands = (hashes(bump(region=r).splits.train) for r in ("both", "signal", "sidebands"))
    assert signal | sidebands == both and not signal & sidebands and signal and sidebands


@pytest.mark.parametrize(
    "other",
    [
        *[{"signal_fraction": 0.0}, {"signal_fraction": 0.2}, {"events": 500}, {"region": "signal"}],
        *[{"region": "sidebands"}, {"contamination": 0}, {"contamination": 0.1}, {"val_fraction": 0.5}],
    ],
    ids=str,
)
def test_the_test_split_hangs_on_nothing_that_trains(other):
    one, another = bump(seed=3), bump(seed=3, **other)
    for name in ("test", "reserve"):
        a, b = getattr(one.splits, name), getattr(another.splits, name)
        assert torch.equal(a.x, b.x) and torch.equal(a.context, b.context) and torch.equal(a.y, b.y)
    for a, b in zip(one.truth(), another.truth(), strict=True):
        assert torch.equal(a.x, b.x)


def test_more_signal_changes_no_background_that_trains():
    rows = [of(bump(signal_fraction=f).splits.train, 0) for f in (0.0, 0.01, 0.5)]
    everything = [{(m, *x) for m, x in zip(*part, strict=True)} for part in rows]
    assert everything[0] == everything[1] == everything[2] and len(everything[0]) == 2000


@pytest.mark.parametrize(
    ("options", "signal"),
    [
        *[({}, 6), ({"signal_fraction": 0.0}, 0), ({"contamination": 0}, 0), ({"contamination": 0.2}, 500)],
        *[({"signal_fraction": 0.5}, 314), ({"region": "sidebands"}, 0), ({"region": "signal"}, 6)],
    ],
    ids=str,
)
def test_so_much_signal_trains(options, signal):
    assert int(bump(**options).splits.train.y.sum()) == signal


def test_another_seed_draws_everything_anew():
    one, other = bump(), bump(seed=1)
    parts = [hashes(part) for data in (one, other) for part in (*data.splits, *data.truth())]
    assert len(set().union(*parts)) == sum(map(len, parts))  # and no row is in two of them


# the truth


def test_the_truth_is_background_and_signal_of_the_region_in_law():
    background, signal = bump(correlation=4.0, noise_features=1).truth()
    assert len(background) == len(signal) == 64_000 and not background.y.any() and (signal.y == 1).all()
    (m, x), (m_signal, x_signal) = of(background, 0), of(signal, 1)
    assert kstest(m, falling(3.3, 3.7).cdf).pvalue > ALPHA and kstest(m_signal, narrow().cdf).pvalue > ALPHA
    law = 0.7 * norm.cdf(-0.5) + 0.3 * norm.cdf(-0.5, 0.5, 1.3)
    below = int((x[:, 1] - 4 * (m - 3.5) < -0.5).sum())
    assert binom(64_000, law).cdf([below - 1, below]) == pytest.approx(0.5, abs=0.5 - ALPHA)
    assert kstest(x_signal[:, 2], norm(2, 0.33).cdf).pvalue > ALPHA and x.shape[1] == 5


def test_of_the_truth_there_is_four_times_what_is_in_the_region():
    sizes = {len(part) for part in bump(events=100_000).truth()}
    assert sizes == {round(4 * 100_000 * IN_REGION)}


# another region


@pytest.mark.parametrize("limits", [(3.5, 3.9), (3.0, 3.4), (2.0, 3.5)], ids=str)
def test_another_region_moves_what_is_looked_at_and_nothing_of_nature(limits):
    usual, moved = bump(events=20_000), bump(events=20_000, signal_region=limits)
    assert hashes(usual.splits.train) == hashes(moved.splits.train)
    low, high = limits
    for part in (moved.splits.test, moved.splits.val, *moved.truth()):
        assert moved.resonance.holds(part.context).all()
    m, _ = from_test(moved, 1)
    assert kstest(m, narrow(max(low, 3.3), min(high, 3.7)).cdf).pvalue > ALPHA and not moved.notices
    assert kstest(from_test(moved)[0], falling(max(low, 3.0), high).cdf).pvalue > ALPHA
    sidebands = bump(events=20_000, signal_region=limits, region="sidebands").splits
    signal = int(usual.splits.train.y.sum())
    inner = int(bump(events=20_000, signal_region=limits, region="signal").splits.train.y.sum())
    assert int(sidebands.train.y.sum()) == signal - inner > 0, "what the region leaves out is in the sidebands"
    assert not moved.resonance.holds(sidebands.val.context).any()


def test_where_nature_has_no_signal_that_of_the_test_is_in_the_middle():
    data = bump(signal_region=[3.9, 4.3], region="signal")
    assert not data.splits.train.y.any() and not data.splits.val.y.any()
    m, x = from_test(data, 1)
    assert kstest(m, narrow(3.9, 4.3, 4.1).cdf).pvalue > ALPHA and kstest(x[:, 0], norm(2, 0.33).cdf).pvalue > ALPHA
    assert data.resonance.holds(data.truth().signal.context).all()
    assert any("no signal in data.signal_region=[3.9,4.3]" in notice for notice in data.notices)


# bad values


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"signal_region": [3.7, 3.3]}, "data.signal_region must be two numbers, the lower first"),
        ({"signal_region": [3.3, 3.3]}, "data.signal_region must be two numbers, the lower first"),
        ({"signal_region": [3.3]}, "data.signal_region must be two numbers"),
        ({"signal_region": [3.3, 3.5, 3.7]}, "data.signal_region must be two numbers"),
        ({"signal_region": [3.3, math.nan]}, "data.signal_region must be two numbers"),
        ({"signal_region": ["a", "b"]}, "data.signal_region must be two numbers"),
        ({"signal_region": [5, 6]}, "lies outside the data, whose m is 3"),
        ({"signal_region": [0, 1]}, "data.signal_region=[0,1] lies outside the data"),
        ({"signal_region": [3.5, 3.50001]}, "too narrow for single precision"),
        ({"signal_region": [3.4, 3.401], "events": 20}, "none of 20 rows has m within data.signal_region=[3.4,3.401]"),
        ({"signal_region": [3.0, 4.5]}, "data.region=both needs sidebands"),
        ({"signal_region": [2, 5], "region": "sidebands"}, "data.region=sidebands needs sidebands, and all"),
        ({"region": "middle"}, "data.region must be one of signal, sidebands, both"),
        ({"events": 1}, "m is "),
        *[({key: 0}, f"data.{key} must be positive") for key in ("events", "test_background", "test_signal")],
        ({"signal_fraction": -0.1}, "data.signal_fraction"),
        ({"signal_fraction": math.nan}, "data.signal_fraction"),
        ({"noise_features": -1}, "data.noise_features"),
        ({"correlation": math.inf}, "data.correlation"),
        ({"protocol": "unsupervised"}, "splits of its own"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_in_one_sentence(options, said):
    with pytest.raises(DataError) as error:
        bump(**options).setup()
    assert said in sentence(error)


def test_without_sidebands_the_signal_region_alone_may_train():
    assert len(bump(signal_region=[3.0, 4.5], region="signal").splits.train) == 2006


@pytest.mark.parametrize(
    ("override", "said"), [("data.signal_region=[3.7,3.3]", "the lower first"), ("data.region=middle", "'sidebands'")]
)
def test_a_region_that_is_none_is_one_sentence_of_the_command(override, said, straylight_train):
    ended = straylight_train("data=bump", "data.events=2000", override)
    lines = [line for line in ended.err.splitlines() if line.strip()]
    assert ended.status == 1 and len(lines) == 1 and said in lines[0], ended.err


@pytest.mark.parametrize("detector", ["maf", "knn"])
def test_any_detector_trains_on_the_bump(detector, straylight_train):
    few = [f"data.{key}={value}" for key, value in FEW.items()]
    ended = straylight_train("data=bump", *few, f"detector={detector}")
    assert ended.status == 0, ended.err
    assert ended.result["data"] == "bump" and 0 <= ended.result["metrics"]["test/auroc"] <= 1
