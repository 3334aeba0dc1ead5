"""Intervals of ranking metrics: against independent variances, and by how often they hold the truth."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from straylight.metrics.intervals import ap_sides, area_sides, around, auroc_sides, tpr
from straylight.metrics.ranking import Ranked
from straylight.metrics.ranks import Column, Ranks


def ranks(nominal, anomalous, *weights):
    low, high = weights or (None, None)
    return Ranks(Column("nominal", nominal, low), Column("anomalous", anomalous, high))


def drawn(seed, n=150, m=60, ties=False):
    random = np.random.default_rng(seed)
    nominal, anomalous = random.normal(size=n), random.normal(1.2, 1.5, m)
    return (nominal.round(1), anomalous.round(1)) if ties else (nominal, anomalous)


def delong(nominal, anomalous):
    """Variances by DeLong's own double sum over all pairs."""
    pairs = (anomalous[:, None] > nominal) + 0.5 * (anomalous[:, None] == nominal)
    return pairs.mean(0).var(ddof=1) / len(nominal), pairs.mean(1).var(ddof=1) / len(anomalous)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_variances_of_auroc_are_delongs(seed, ties):
    sides = auroc_sides(ranks(*drawn(seed, ties=ties)))
    assert [side.variance for side in sides] == pytest.approx(delong(*drawn(seed, ties=ties)), rel=1e-10)


def jackknifed(metric, nominal, anomalous):
    """Variances from derivatives by the weight of each event, taken numerically."""
    y, scores = np.repeat([0, 1], [len(nominal), len(anomalous)]), np.concatenate([nominal, anomalous])
    step, slopes = 1e-5, []
    for i in range(len(y)):
        values = []
        for sign in (1, -1):
            weight = np.ones(len(y))
            weight[i] += sign * step
            weight[y == y[i]] *= (y == y[i]).sum() / weight[y == y[i]].sum()  # the ratio of the classes is held fixed
            values.append(metric(y, scores, weight))
        slopes.append((values[0] - values[1]) / (2 * step))
    slopes = np.array(slopes)
    return [np.sum(slopes[y == k] ** 2) * (n / (n - 1)) for k, n in ((0, len(nominal)), (1, len(anomalous)))]


@pytest.mark.parametrize("ties", [False, True])
def test_the_variances_of_average_precision_are_those_of_its_derivatives(ties):
    expected = jackknifed(lambda y, s, w: average_precision_score(y, s, sample_weight=w), *drawn(0, 60, 25, ties))
    found = [side.variance for side in ap_sides(ranks(*drawn(0, 60, 25, ties)))]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("max_fpr", [0.123, 0.5])
def test_the_variances_of_the_partial_area_are_those_of_its_derivatives(max_fpr):
    def mean_tpr(y, s, w):
        standardised = roc_auc_score(y, s, sample_weight=w, max_fpr=max_fpr)
        return (2 * standardised - 1) * (1 - max_fpr / 2) + max_fpr / 2

    nominal, anomalous = drawn(1, 61, 25)
    found = [side.variance for side in area_sides(ranks(nominal, anomalous), max_fpr)]
    # a derivative sees the step of an empirical ROC curve where the bound lies: the classes are compared apart
    expected = jackknifed(mean_tpr, nominal, anomalous)
    assert found[1] == pytest.approx(expected[1], rel=1e-4)
    assert found[0] == pytest.approx(expected[0], rel=0.1)


def test_equal_weights_are_no_weights_and_a_common_factor_changes_nothing():
    nominal, anomalous = drawn(3)
    random = np.random.default_rng(0)
    low, high = random.random(len(nominal)) + 0.1, random.random(len(anomalous)) + 0.1
    scores, y = np.concatenate([nominal, anomalous]), np.repeat([0, 1], [len(nominal), len(anomalous)])
    plain = Ranked(scores, y).intervals()
    assert Ranked(scores, y, weight=np.ones(len(y))).intervals() == plain
    weight = np.concatenate([low, high])
    once, twice = (Ranked(scores, y, weight=factor * weight).intervals() for factor in (1, 8))
    assert set(once) == set(plain) and once["auroc"] != plain["auroc"]
    for name, interval in once.items():
        assert interval == pytest.approx(twice[name], rel=1e-9), name


def test_weights_widen_an_interval_as_their_effective_number_says():
    scores, y = np.concatenate(drawn(4, 4000, 4000)), np.repeat([0, 1], 4000)
    weight = np.where(np.random.default_rng(0).random(8000) < 0.5, 0.02, 1.0)  # half of the events hardly count
    plain, weighted = Ranked(scores, y, fprs=(0.1,)), Ranked(scores, y, weight=weight, fprs=(0.1,))
    for name, (low, high) in weighted.intervals().items():
        before = plain.intervals()[name]
        assert (high - low) / (before[1] - before[0]) == pytest.approx(2**0.5, rel=0.12), name


@pytest.mark.parametrize("flip", [1, -1])
def test_perfect_and_hopeless_rankings_have_intervals_that_end_there(flip):
    nominal, anomalous = flip * np.arange(100.0), flip * np.arange(200.0, 230.0)
    y = np.repeat([0, 1], [100, 30])
    found = Ranked(np.concatenate([nominal, anomalous]), y, fprs=(0.1,)).intervals()
    low, high = found["auroc"]
    assert (high == 1 and 0.8 < low < 0.95) if flip == 1 else (low == 0 and 0.05 < high < 0.2)
    assert all(low < high for low, high in found.values())


def test_a_higher_level_is_wider_and_a_wrong_one_refused():
    ranked = Ranked(np.concatenate(drawn(0)), np.repeat([0, 1], [150, 60]), fprs=(0.1,))
    narrow, wide = ranked.intervals(0.5), ranked.intervals(0.99)
    assert all(wide[name][0] < narrow[name][0] < narrow[name][1] < wide[name][1] for name in narrow)
    with pytest.raises(ValueError, match="level of an interval lies between 0 and 1, not at 95"):
        ranked.intervals(95)


def test_intervals_hold_their_value_and_are_the_same_twice():
    for seed in range(20):
        scores, y = np.concatenate(drawn(seed, 30, 5, ties=True)), np.repeat([0, 1], [30, 5])
        ranked = Ranked(scores, y)
        metrics, found = ranked.metrics(), ranked.intervals()
        assert found == Ranked(scores, y).intervals()
        assert not any(name.startswith("tpr") for name in found)  # of 30 nominal scores none is resolvable
        for name, (low, high) in found.items():
            assert low <= metrics[name] <= high, name


# coverage: of 1,000 intervals between 93 and 97 % hold the truth, give or take what 1,000 can say

REPEATS = 1000
MARGIN = 2 * np.sqrt(0.95 * 0.05 / REPEATS)
LAWS = {  # of anomalous scores, nominal ones being standard normal
    "of equal width, AUROC 0.8": (norm.ppf(0.8) * 2**0.5, 1.0),
    "of equal width, AUROC 0.95": (norm.ppf(0.95) * 2**0.5, 1.0),
    "three times as wide, AUROC 0.8": (norm.ppf(0.8) * 10**0.5, 3.0),
    "three times as wide, AUROC 0.95": (norm.ppf(0.95) * 10**0.5, 3.0),
}


def truths(shift, width, n, m):
    t = np.linspace(-12, 12 + shift + 8 * width, 200_001)
    fpr, recall = norm.sf(t), norm.sf((t - shift) / width)
    ap = -np.trapezoid(m * recall / (m * recall + n * fpr), recall)
    f = np.linspace(1e-12, 0.1, 20_001)
    kept = norm.sf((norm.isf(f) - shift) / width)
    return {
        "auroc": norm.cdf(shift / np.hypot(1, width)),
        "ap": ap,
        "mean tpr": np.trapezoid(kept, f) / 0.1,
        "tpr": kept[-1],
    }


@pytest.mark.parametrize("sizes", [(1000, 100), (1000, 1000), (5000, 200)], ids=str)
@pytest.mark.parametrize("law", LAWS)
def test_ninety_five_percent_of_intervals_hold_the_truth(law, sizes):
    shift, width = LAWS[law]
    truth = truths(shift, width, *sizes)
    random = np.random.default_rng([list(LAWS).index(law), *sizes])
    held = dict.fromkeys(truth, 0)
    for repeat in range(REPEATS):
        r = ranks(random.normal(size=sizes[0]), random.normal(shift, width, sizes[1]))
        intervals = {
            "auroc": around(r.auroc(), auroc_sides(r)),
            "ap": around(r.average_precision(), ap_sides(r)),
            "mean tpr": around(r.area(0.1) / 0.1, area_sides(r, 0.1)),
            "tpr": tpr(r, 0.1, seed=repeat),
        }
        for name, (low, high) in intervals.items():
            held[name] += low <= truth[name] <= high
    for name, count in held.items():
        assert 0.93 - MARGIN <= count / REPEATS <= 0.97 + MARGIN, (name, count)


@pytest.mark.parametrize("allowed", [10, 30])
@pytest.mark.parametrize("law", LAWS)
def test_where_as_few_as_ten_nominal_rows_lie_above_intervals_of_the_tpr_hold(law, allowed):
    (shift, width), n = LAWS[law], 10_000
    fpr = allowed / n
    truth = norm.sf((norm.isf(fpr) - shift) / width)
    random = np.random.default_rng([list(LAWS).index(law), allowed])
    held = 0
    for repeat in range(REPEATS):
        # the highest scores of n are all that a working point sees
        tail = norm.isf(np.cumsum(random.exponential(size=20 * allowed)) / (n + random.normal() * n**0.5))
        nominal = np.concatenate([np.full(n - len(tail), -1e3), tail])
        low, high = tpr(ranks(nominal, random.normal(shift, width, 300)), fpr, seed=repeat)
        held += low <= truth <= high
    assert 0.93 - MARGIN <= held / REPEATS <= 0.98 + MARGIN, held


def test_a_working_point_that_is_not_resolvable_has_no_interval():
    scores, y = np.concatenate(drawn(0, 2000, 100)), np.repeat([0, 1], [2000, 100])
    ranked = Ranked(scores, y, ["nominal", "a"], fprs=(1e-2, 5e-3, 4e-3, 1e-4, 1e-6))
    metrics, found = ranked.metrics(), ranked.intervals()
    for fpr in ranked.fprs:
        assert (f"tpr@fpr={fpr:g}" in found) == (metrics[f"nominal_above@fpr={fpr:g}"] >= 10) == (fpr >= 5e-3)
        assert (f"sic@fpr={fpr:g}" in found) == (f"sic@fpr={fpr:g}" in metrics)
    assert tpr(ranks(*drawn(0, 2000, 100)), 1e-4) is None


def test_weights_that_leave_few_effective_rows_above_leave_no_interval():
    nominal, anomalous = drawn(0, 2000, 100)
    weight = np.where(nominal > np.sort(nominal)[-40], np.where(np.arange(2000) % 10, 1e-3, 1.0), 1.0)
    r = ranks(nominal, anomalous, weight, np.ones(100))
    assert not r.at(1e-3).resolvable and tpr(r, 1e-3) is None
