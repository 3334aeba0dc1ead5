"""Where to cut and what comes of it, against scikit-learn, SciPy, brute force and simulations."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from straylight.metrics.conformal import Calibration, Threshold, benjamini_hochberg, fpr_band, held_nominal, needed
from straylight.metrics.decisions import decisions, report
from straylight.metrics.rules import Cuts, rules, settable
from straylight.metrics.thresholds import best_f1, fpr_of_quantile, fpr_of_rate

REPEATS = 200
SCORES = st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, 1.0, 2.0])  # ties and infinities among them


def p_value(score, calibration) -> float:
    return (1 + sum(c >= score for c in calibration)) / (len(calibration) + 1)


# thresholds asked for otherwise


def test_a_quantile_and_a_rate_are_false_positive_rates() -> None:
    assert fpr_of_quantile(0.99) == pytest.approx(0.01)
    assert fpr_of_rate(1_000, 40_000_000) == pytest.approx(2.5e-5)


@pytest.mark.parametrize("quantile", [0, 1, -0.1, 95, math.nan])
def test_a_quantile_beyond_its_range_is_named(quantile) -> None:
    with pytest.raises(ValueError, match=f"a quantile must lie between 0 and 1, not at {quantile}"):
        fpr_of_quantile(quantile)


@pytest.mark.parametrize("rates", [(0, 10), (-1, 10), (10, 10), (11, 10), (1, math.inf), (math.nan, 1), (1, math.nan)])
def test_rates_that_cannot_be_are_named(rates) -> None:
    with pytest.raises(ValueError, match=f"below that of the input, not {rates[0]} of {rates[1]} Hz"):
        fpr_of_rate(*rates)


@settings(deadline=None)
@given(st.lists(st.tuples(SCORES, st.booleans(), st.integers(0, 3)), min_size=2, max_size=12), st.booleans())
def test_best_f1_is_the_highest_of_the_best_cuts_of_all(rows, weighted) -> None:
    scores, strange, weight = (np.array(column) for column in zip(*rows, strict=True))
    scores = scores.astype(np.float32)
    w = weight if weighted else np.ones(len(rows), int)
    if not w[strange].any() or not w[~strange].any():
        return
    with np.errstate(over="ignore"):
        cuts = [*scores, np.nextafter(scores.min(), np.float32(-np.inf))]
    tried = {
        c: Fraction(int(2 * w[strange & (scores > c)].sum()), int((w * strange + w * (scores > c)).sum())) for c in cuts
    }
    best = max(tried.values())
    found = best_f1(scores, strange, weight if weighted else None)
    assert found == (max(c for c, f1 in tried.items() if f1 == best), float(best))
    assert type(found.value) is type(found.f1) is float


@pytest.mark.parametrize("weighted", [False, True])
def test_best_f1_is_scikit_learns(weighted) -> None:
    rng = np.random.default_rng(0)
    y = rng.random(300) < 0.2
    scores, weight = np.round(rng.normal(size=300) + y, 1), rng.random(300) if weighted else None
    f1 = [sk.f1_score(y, scores > cut, sample_weight=weight) for cut in np.unique(scores)[:-1]]
    found = best_f1(scores, y, weight)
    assert found == (np.unique(scores)[np.argmax(f1)], pytest.approx(max(f1)))


def test_best_f1_flags_the_fewest_of_equally_good_cuts_and_everything_where_that_is_best() -> None:
    # F1 is 2/3 for one right and one missed, as for two right and two wrong
    assert best_f1([1, 2, 3, 4], [1, 0, 0, 1]) == (3, 2 / 3)
    low = best_f1(np.array([7, 7, 7], np.float32), [0, 1, 1])
    assert low == (np.nextafter(np.float32(7), np.float32(0)), 0.8)
    assert best_f1([-np.inf, 1, 2], [1, 0, 1]) == (1, 2 / 3)  # nothing lies below minus infinity
    assert best_f1([-np.inf, -np.inf], [0, 1]) == (-np.inf, 0)
    assert best_f1([-np.finfo(np.float64).max, 0], [1, 0]) == (-np.inf, 2 / 3)


def test_best_f1_by_weights_is_that_of_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    scores, y, weight = rng.integers(0, 9, 40), rng.integers(0, 2, 40), rng.integers(0, 4, 40)
    repeated = best_f1(np.repeat(scores, weight), np.repeat(y, weight))
    assert best_f1(scores, y, weight) == pytest.approx(repeated)
    assert best_f1(scores, y, weight) != pytest.approx(best_f1(scores, y))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([1, np.nan], [0, 1]), "1 of 2 scores are NaN"),
        (([1, 2], [0, -1]), "labelled rows, nominal and anomalous"),
        (([1, 2], [0, 0]), "labelled rows, nominal and anomalous"),
        (([1, 2], [1, 2]), "labelled rows, nominal and anomalous"),
        (([1, 2], [0, 1], [1, 0]), "labelled rows, nominal and anomalous"),
        (([], []), "labelled rows, nominal and anomalous"),
        (([1, 2, 3], [0, 1]), r"of shape \(3,\), and their labels of \(2,\)"),
        (([1, 2], [0, 1], [1, -1]), "1 of 2 weights of validation events are negative"),
    ],
)
def test_best_f1_refuses(arguments, said) -> None:
    with pytest.raises(ValueError, match=said):
        best_f1(*arguments)


# conformal thresholds and p-values


@settings(deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=30), st.lists(SCORES, max_size=10))
def test_p_values_are_counted(scores, new) -> None:
    found = Calibration(np.array(scores, np.float32)).p_values(np.array(new, np.float32))
    assert found.tolist() == [p_value(np.float32(s), np.array(scores, np.float32)) for s in new]


@settings(deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=60), st.integers(1, 99), st.booleans())
def test_what_exceeds_a_threshold_is_what_has_such_a_p_value(scores, percent, weighted) -> None:
    fpr = percent / 100
    weight = np.random.default_rng(percent).random(len(scores)) + 0.1 if weighted else None
    calibration = Calibration(scores, weight)
    threshold = calibration.at_fpr(fpr)
    new = np.unique([*scores, *np.nextafter(np.unique(scores), np.inf), -math.inf, math.inf])
    assert np.array_equal(new > threshold.value, calibration.p_values(new) <= fpr * (1 + 1e-12))
    assert threshold.expected_fpr <= fpr * (1 + 1e-12)
    if threshold.k and not weighted:
        assert threshold.value == np.sort(scores)[::-1][threshold.k - 1]
        assert threshold.above == np.sum(np.array(scores) > threshold.value)
        assert threshold.tied == (scores.count(threshold.value) > 1 or math.isinf(threshold.value))


def test_rates_that_rounding_would_lower_are_met() -> None:
    for n in range(1, 400):
        calibration = Calibration(np.arange(n))
        for k in range(1, n + 1):
            assert calibration.at_fpr(k / (n + 1)).k == k
    assert Calibration(np.arange(99)).at_fpr(0.07).k == 7  # 0.07 * 100 is 7.000000000000001
    assert Calibration(np.arange(99)).at_fpr(0.29).k == 29  # and 0.29 * 100 is 28.999999999999996


@pytest.mark.parametrize("fpr", [0.5, 0.3, 0.29, 0.1, 0.05, 0.07, 0.01, 1e-3, 1e-4])
def test_one_row_less_than_needed_flags_nothing(fpr) -> None:
    n = needed(fpr)
    enough, few = Calibration(np.arange(n)).at_fpr(fpr), Calibration(np.arange(max(1, n - 1))).at_fpr(fpr)
    assert (enough.value, enough.k) == (n - 1, 1)
    if n > 1:
        assert few == (math.inf, 0, n - 1, 0, False, False)
        assert few.expected_fpr == 0 and few.band(100) == (0, 0)


def test_equal_weights_are_none_and_rows_of_weight_zero_are_left_out() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=200)
    plain = Calibration(scores)
    for weight in (np.full(200, 0.1), np.full(200, 7)):
        assert Calibration(scores, weight).at_fpr(0.1) == plain.at_fpr(0.1)
    weight = 3.0 * (np.arange(200) < 150)
    calibration = Calibration(scores, weight)
    assert calibration.rows == 150 and not calibration.weighted
    assert calibration.at_fpr(0.1) == Calibration(scores[:150]).at_fpr(0.1)
    assert np.array_equal(calibration.p_values(scores), Calibration(scores[:150]).p_values(scores))


def test_weights_are_as_repeated_rows_but_for_the_number_that_they_are_worth() -> None:
    rng = np.random.default_rng(1)
    scores, weight = rng.integers(0, 50, 300), rng.integers(1, 5, 300)
    weighted, repeated = Calibration(scores, weight), Calibration(np.repeat(scores, weight))
    n = weight.sum() ** 2 / (weight**2).sum()
    assert weighted.n == pytest.approx(n) and weighted.n < 300 and weighted.rows == 300
    new = np.arange(-1, 52)
    share = (repeated.p_values(new) * (repeated.n + 1) - 1) / repeated.n  # of calibration scores that are not lower
    assert weighted.p_values(new) == pytest.approx((1 + n * share) / (n + 1))
    found = weighted.at_fpr(0.1)
    assert found.approximate and found.tied and found.n == pytest.approx(n)
    over = float(weight[scores > found.value].sum() / weight.sum())
    assert found.above == pytest.approx(n * over) and found.k == pytest.approx(n * over + 1)
    low, high = found.band(1000)
    assert low < 0.1 < high
    assert Calibration(scores, weight * 1e-3).at_fpr(0.1) == pytest.approx(found)  # whatever their scale


def test_no_p_value_is_above_one_whatever_the_weights_add_up_to() -> None:
    for seed in range(200):
        weight = np.random.default_rng(seed).uniform(0.5, 2, 29)
        assert Calibration(np.arange(29.0), weight).p_values(np.full(3, -1.0)).max() <= 1


def test_few_weights_flag_nothing() -> None:
    found = Calibration([1, 2, 3], [1, 1, 2]).at_fpr(0.1)
    assert found.value == math.inf and found.approximate and found.expected_fpr == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([],), "calibration scores must be a non-empty column"),
        (([1, np.nan],), "1 of 2 calibration scores are NaN"),
        (([1, 2], [1, -1]), "1 of 2 weights of calibration events are negative or not finite"),
        (([1, 2], [np.inf, np.inf]), "2 of 2 weights of calibration events are negative or not finite"),
        (([1, 2], [np.nan, 1]), "1 of 2 weights of calibration events are negative or not finite"),
        (([1, 2], [2, 2, 2]), r"of shape \(3,\), their scores of \(2,\)"),
        (([1, 2], [0, 0]), "all calibration events have weight zero"),
    ],
)
def test_a_calibration_refuses(arguments, said) -> None:
    with pytest.raises(ValueError, match=said):
        Calibration(*arguments)


def test_other_bad_input_is_named() -> None:
    calibration = Calibration([1.0, 2.0])
    for fpr in (0, 1, -0.1, math.nan):
        with pytest.raises(
            ValueError, match=f"a threshold's false-positive rate must lie between 0 and 1, not at {fpr}"
        ):
            calibration.at_fpr(fpr)
    with pytest.raises(ValueError, match="2 of 3 scores are NaN and have no p-value"):
        calibration.p_values([np.nan, 1, np.nan])
    for arguments in ((-1, 9, 9), (10, 9, 9), (1, 0, 9), (1, 9, 0), (1, 9, 9, 0), (1, 9, 9, 1)):
        with pytest.raises(ValueError, match="an FPR band needs"):
            fpr_band(*arguments)


def test_rows_without_a_label_calibrate_only_where_none_is_known_to_be_nominal() -> None:
    for y, held in (
        ([0, 0, 1], [True, True, False]),
        ([0, -1, 1], [True, False, False]),
        ([-1, 1], [True, False]),
        ([1, 2], [False, False]),
        ([], []),
    ):
        assert held_nominal(y).tolist() == held


# the band of the observed FPR


@pytest.mark.parametrize("n", [1, 2, 19, 100, 999, 20_000, 1_000_000])
@pytest.mark.parametrize("n_test", [1, 7, 1000, 300_000])
def test_the_band_is_that_of_the_beta_binomial_law(n, n_test) -> None:
    for k in {1, 2, max(1, n // 100), max(1, n // 20), max(1, n // 2), n}:
        if k > n:
            continue
        law = stats.betabinom(n_test, k, n + 1 - k)
        low, high = np.rint(np.array(fpr_band(k, n, n_test)) * n_test)
        # the lowest and the highest numbers with no more than 2.5 % beyond them, whatever the oracle's rounding
        assert law.cdf(low - 1) <= 0.025 + 1e-8 and law.sf(high) <= 0.025 + 1e-8
        assert law.cdf(low) >= 0.025 - 1e-8 and (high == 0 or law.sf(high - 1) >= 0.025 - 1e-8)


def test_the_band_widens_with_its_level_and_holds_calibration_noise() -> None:
    bands = [fpr_band(50, 999, 10**6, level) for level in (0.5, 0.9, 0.99)]
    assert bands[0][0] > bands[1][0] > bands[2][0] and bands[0][1] < bands[1][1] < bands[2][1]
    # of endless test rows the law is that of the FPR itself
    assert fpr_band(50, 999, 10**9) == pytest.approx(stats.beta(50, 950).ppf([0.025, 0.975]), rel=1e-4)
    assert fpr_band(0, 999, 100) == (0, 0)


def without_calibration_noise(threshold: Threshold, n_test: int) -> tuple[float, float]:
    """A band that takes the threshold's FPR to be what is expected of it."""
    law = stats.binom(n_test, threshold.expected_fpr)
    return law.ppf(0.025) / n_test, law.ppf(0.975) / n_test


def conformal_fprs(law, n, n_test, fpr, seed=0):
    """Thresholds on repeated calibration samples, and the FPR of each on a test sample of its own."""
    rng = np.random.default_rng(seed)
    for _ in range(REPEATS):
        threshold = Calibration(law(rng, n)).at_fpr(fpr)
        yield threshold, float(np.mean(law(rng, n_test) > threshold.value))


def accepted(inside: int) -> bool:
    """Whether so many of the repeats may well lie in a band that holds 95 % of them or, by its rounding, a bit more."""
    return bool(stats.binom(REPEATS, 0.95).cdf(inside) > 1e-3 and stats.binom(REPEATS, 0.975).sf(inside - 1) > 1e-3)


@pytest.mark.parametrize("law", [lambda rng, n: rng.normal(size=n), lambda rng, n: np.exp(30 * rng.normal(size=n))])
@pytest.mark.parametrize(("n", "n_test", "fpr"), [(500, 2000, 0.05), (2000, 20_000, 0.01), (199, 5000, 0.2)])
def test_the_conformal_fpr_stays_in_its_band_and_not_in_one_without_calibration_noise(law, n, n_test, fpr) -> None:
    found = list(conformal_fprs(law, n, n_test, fpr))

    def inside(band) -> int:
        return sum(low <= rate <= high for (t, rate) in found for low, high in [band(t, n_test)])

    assert accepted(inside(Threshold.band))
    assert not accepted(inside(without_calibration_noise))
    assert not accepted(inside(lambda t, n_test: fpr_band(t.k, t.n, n_test, 0.8)))
    rates = [rate for _, rate in found]
    expected = found[0][0].expected_fpr
    assert abs(np.mean(rates) - expected) < 4 * np.std(rates) / math.sqrt(REPEATS)


@pytest.mark.parametrize("values", [2, 5, 40])
def test_of_tied_scores_the_fpr_is_at_most_the_expected_one_and_the_band_says_so(values) -> None:
    found = list(conformal_fprs(lambda rng, n: rng.geometric(2 / values, n), 500, 2000, 0.05))
    bands = [(t, rate, t.band(2000)) for t, rate in found]
    assert sum(low <= rate <= high for _, rate, (low, high) in bands) >= stats.binom(REPEATS, 0.95).ppf(1e-3)
    rates = [rate for _, rate in found]
    assert np.mean(rates) < 0.05 + 4 * np.std(rates) / math.sqrt(REPEATS)
    t, _, (low, _) = next(entry for entry in bands if entry[0].tied)
    assert low == fpr_band(int(t.above), t.n, 2000)[0] < fpr_band(t.k, t.n, 2000)[0]


def test_with_weights_the_band_holds_about_as_often() -> None:
    rng = np.random.default_rng(6)
    n, n_test, inside, noiseless = 300, 3000, [], []
    for _ in range(REPEATS):
        threshold = Calibration(rng.normal(size=n), rng.exponential(size=n)).at_fpr(0.1)
        flagged, weight = rng.normal(size=n_test) > threshold.value, rng.exponential(size=n_test)
        worth = weight.sum() ** 2 / (weight**2).sum()
        fpr = np.average(flagged, weights=weight)
        for held, (low, high) in (
            (inside, threshold.band(worth)),
            (noiseless, without_calibration_noise(threshold, round(worth))),
        ):
            held.append(low <= fpr <= high)
    assert np.mean(inside) > 0.9 > np.mean(noiseless) + 0.1


def test_of_infinite_scores_nothing_is_above() -> None:
    threshold = Calibration([1.0, 2.0, *[math.inf] * 10]).at_fpr(0.5)
    assert threshold[:4] == (math.inf, 6, 12, 0) and threshold.tied
    assert threshold.band(100)[0] == 0 < threshold.band(100)[1]
    lower = Calibration([-math.inf] * 9 + [0.0]).at_fpr(0.5)
    assert lower[:4] == (-math.inf, 5, 10, 1) and lower.tied


# the false-discovery rate


@settings(deadline=None)
@given(st.lists(st.integers(1, 40).map(lambda i: i / 40), max_size=30), st.sampled_from([0.05, 0.1, 0.25, 0.5]))
def test_benjamini_hochberg_flags_what_scipys_adjusted_p_values_allow(p, q) -> None:
    found = benjamini_hochberg(p, q)
    assert found.dtype == bool and found.shape == (len(p),)
    if p:
        assert np.array_equal(found, stats.false_discovery_control(p, method="bh") <= q * (1 + 1e-12))


@pytest.mark.parametrize(
    ("p", "q", "said"),
    [
        ([0.1], 0, "a false-discovery rate must lie between 0 and 1, not at 0"),
        ([0.1], 1, "a false-discovery rate must lie between 0 and 1, not at 1"),
        ([0.1, np.nan, -1, 1.1], 0.1, "3 of 4 p-values do not lie between 0 and 1"),
    ],
)
def test_benjamini_hochberg_refuses(p, q, said) -> None:
    with pytest.raises(ValueError, match=said):
        benjamini_hochberg(p, q)


def test_the_false_discovery_rate_is_q_times_the_nominal_share() -> None:
    rng = np.random.default_rng(0)
    share, q, false = 0.8, 0.2, {"conformal": [], "uncorrected": []}
    found = 0
    for _ in range(REPEATS):
        calibration = Calibration(rng.normal(size=1000))
        strange = np.arange(500) >= share * 500
        p = calibration.p_values(rng.normal(size=500) + 3 * strange)
        for name, flagged in (("conformal", benjamini_hochberg(p, q)), ("uncorrected", p <= q)):
            false[name].append((flagged & ~strange).sum() / max(1, flagged.sum()))
        found += int((benjamini_hochberg(p, q) & strange).sum())

    def above(rates) -> float:
        """By how many standard errors their mean exceeds what is promised."""
        return (np.mean(rates) - q * share) * math.sqrt(REPEATS) / np.std(rates)

    assert -3 < above(false["conformal"]) < 3  # and not merely nothing flagged
    assert above(false["uncorrected"]) > 10
    assert found / REPEATS > 50


def test_nothing_is_flagged_of_nominal_rows_in_most_repeats() -> None:
    rng = np.random.default_rng(1)
    some = sum(
        benjamini_hochberg(Calibration(rng.normal(size=200)).p_values(rng.normal(size=100)), 0.1).any()
        for _ in range(REPEATS)
    )
    assert some <= stats.binom(REPEATS, 0.1).ppf(0.999)


# what becomes of the test rows


@pytest.fixture(params=[False, True], ids=["plain", "weighted"])
def rows(request):
    rng = np.random.default_rng(2)
    y = rng.choice([0, 1, 3], 500, p=[0.7, 0.2, 0.1])
    flagged = rng.random(500) < np.where(y > 0, 0.6, 0.1)
    return flagged, y, rng.random(500) * 3 if request.param else None


def test_decisions_are_scikit_learns(rows) -> None:
    flagged, y, weight = rows
    found = decisions(flagged, y, ("nominal", "one", "two"), weight)
    strange = y > 0
    assert found["flagged"] == flagged.sum()
    assert found["confusion"] == pytest.approx(sk.confusion_matrix(strange, flagged, sample_weight=weight))
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        strange, flagged, average="binary", sample_weight=weight
    )
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((precision, recall, f1))
    w = np.ones(500) if weight is None else weight
    assert found["observed_fpr"] == pytest.approx(np.average(flagged[~strange], weights=w[~strange]))
    assert list(found["recall_per_kind"]) == ["one", "3"]
    for kind, k in (("one", 1), ("3", 3)):
        assert found["recall_per_kind"][kind][0] == pytest.approx(np.average(flagged[y == k], weights=w[y == k]))
    if weight is None:
        assert all(isinstance(cell, int) for line in found["confusion"] for cell in line)


def test_the_report_is_scikit_learns(rows) -> None:
    flagged, y, weight = rows
    found = decisions(flagged, y, weight=weight)["report"]
    theirs = sk.classification_report(
        y > 0, flagged, target_names=["nominal", "anomalous"], digits=4, sample_weight=weight
    )

    def numbers(text: str) -> list[float]:
        return [float(word) for word in text.split() if word[0].isdigit()]

    if weight is None:
        assert found == theirs
    assert numbers(found) == pytest.approx(numbers(theirs), rel=1e-4)


def test_intervals_are_clopper_and_pearsons_on_effective_numbers(rows) -> None:
    flagged, y, weight = rows
    found = decisions(flagged, y, weight=weight)
    for name, chosen in (("observed_fpr", y == 0), ("recall", y > 0)):
        w = np.ones(chosen.sum()) if weight is None else weight[chosen]
        n = w.sum() ** 2 / (w**2).sum()
        k = found[name] * n
        if name == "observed_fpr":
            assert found["nominal"] == pytest.approx(n)
        expected = stats.beta(k, n - k + 1).ppf(0.025), stats.beta(k + 1, n - k).ppf(0.975)
        assert found[f"{name}_interval"] == pytest.approx(expected)
        if weight is None:
            exact = stats.binomtest(int(flagged[chosen].sum()), int(n)).proportion_ci(0.95, "exact")
            assert found[f"{name}_interval"] == pytest.approx(exact)
    low, high = decisions(flagged, y, weight=weight, level=0.5)["recall_interval"]
    assert found["recall_interval"][0] < low < found["recall"] < high < found["recall_interval"][1]


def test_whole_weights_are_repeated_rows_in_all_but_intervals() -> None:
    rng = np.random.default_rng(3)
    y, flagged, weight = rng.integers(0, 2, 60), rng.random(60) < 0.5, rng.integers(0, 4, 60)
    found, repeated = decisions(flagged, y, weight=weight), decisions(*(np.repeat(c, weight) for c in (flagged, y)))
    for name in ("confusion", "precision", "recall", "f1", "observed_fpr"):
        assert found[name] == pytest.approx(np.array(repeated[name]))
    assert found["report"] == repeated["report"]
    # events that count more than once know less than as many events
    assert np.ptp(found["recall_interval"]) > np.ptp(repeated["recall_interval"])
    constant = decisions(flagged, y, weight=np.full(60, 2.5))
    assert constant["recall_interval"] == pytest.approx(decisions(flagged, y)["recall_interval"])


def test_what_has_no_value_is_none() -> None:
    nothing = decisions([False, False], [0, 1])
    assert (nothing["precision"], nothing["recall"], nothing["f1"]) == (None, 0, 0)
    assert nothing["recall_interval"][0] == 0 and "nan" in nothing["report"]
    nominal = decisions([True, True], [0, 0])
    assert (nominal["recall"], nominal["recall_interval"], nominal["recall_per_kind"]) == (None, None, {})
    assert nominal["observed_fpr"] == 1 and nominal["observed_fpr_interval"][1] == 1
    strange = decisions([True, True], [1, 1])
    assert (strange["observed_fpr"], strange["observed_fpr_interval"], strange["nominal"]) == (None, None, 0)
    unweighted = decisions([True, True], [0, 1], weight=[0, 1])
    assert unweighted["observed_fpr"] is None and unweighted["recall"] == 1


def test_rows_without_a_label_are_counted_as_flagged_and_no_more() -> None:
    flagged, y = np.array([True, False, True, True]), np.array([0, 0, 1, -1])
    known, weight = y >= 0, np.arange(1.0, 5)
    found = decisions(flagged, y, weight=weight)
    assert found == decisions(flagged[known], y[known], weight=weight[known]) | {"flagged": 3}
    assert decisions(flagged, np.full(4, -1)) == {"flagged": 3}


def test_decisions_refuse() -> None:
    with pytest.raises(ValueError, match=r"decisions are of shape \(2,\), and their labels of \(1,\)"):
        decisions([True, False], [0])
    with pytest.raises(ValueError, match="1 of 2 weights of test events are negative or not finite"):
        decisions([True, False], [0, 1], weight=[1, np.inf])


def test_a_report_of_no_rows_has_no_numbers() -> None:
    assert set(report([[0, 0], [0, 0]]).split()) >= {"nan", "0"}


# several rules at once


def test_rules_are_set_on_nominal_rows_and_f1_on_labelled_ones() -> None:
    rng = np.random.default_rng(4)
    scores, y = rng.normal(size=400).astype(np.float32), rng.choice([-1, 0, 1, 2], 400)
    scores += 2 * (y > 0)
    weight = rng.random(400)
    for w in (None, weight):
        cuts = Cuts(rules(fprs=[0.02, 1e-6], input_hz=1e5, accept_hz=1e4, f1=True), scores, y, w)
        nominal = Calibration(scores[y == 0], None if w is None else w[y == 0])
        by_rule = {(e["rule"], *e["asked"].values()): e for e in cuts.entries}
        assert by_rule["quantile", 0.95]["value"] == nominal.at_fpr(0.05).value
        assert by_rule["fpr", 0.02]["value"] == nominal.at_fpr(0.02).value
        assert by_rule["fpr", 1e-6]["value"] is None and "it takes 999,999 nominal" in by_rule["fpr", 1e-6]["remark"]
        at_rate = by_rule["rate", 1e4, 1e5]
        assert at_rate["value"] == nominal.at_fpr(0.1).value
        assert at_rate["expected_hz"] == pytest.approx(1e5 * nominal.at_fpr(0.1).expected_fpr)
        known = y >= 0
        best = best_f1(scores[known], y[known], None if w is None else w[known])
        assert by_rule[("f1",)]["value"] == best.value and f"(F1 {best.f1:.4f})" in by_rule[("f1",)]["remark"]
        assert {e["calibration"] for e in cuts.entries} == {(y == 0).sum()}
        assert all(("calibration_effective" in e) == (w is not None) for e in cuts.entries)
        assert "approximate" in by_rule["quantile", 0.95]["remark"] if w is not None else True


def test_what_is_applied_is_what_was_set() -> None:
    rng = np.random.default_rng(5)
    cuts = Cuts(rules(input_hz=100, accept_hz=10, f1=True), rng.normal(size=300), np.zeros(300, int))
    scores, y, weight = rng.normal(size=500), rng.choice([0, 1, 2], 500), rng.random(500)
    scores += y
    for w in (None, weight):
        found = cuts.applied(scores, y, ("nominal", "near", "far"), w)
        for entry, before in zip(found, cuts.entries, strict=True):
            assert {name: entry[name] for name in before} == before and "nominal" not in entry
            if entry["rule"] == "f1":
                assert entry == before and "not set" in entry["remark"]
                continue
            p = cuts.calibration.p_values(scores)
            flagged = scores > entry["value"] if entry["value"] else benjamini_hochberg(p, 0.1)
            theirs = decisions(flagged, y, ("nominal", "near", "far"), w, one_by_one=entry["rule"] != "fdr")
            nominal = theirs.pop("nominal")
            assert {name: entry[name] for name in theirs} == theirs
            if entry["rule"] == "fdr":
                assert "band" not in entry and "all test rows together" in entry["remark"]
                continue
            low, high = cuts.calibration.at_fpr(entry["expected_fpr"]).band(nominal)
            assert entry["band"] == [low, high] and entry["in_band"] == (low <= entry["observed_fpr"] <= high)
        assert next(e["observed_hz"] / e["observed_fpr"] for e in found if e["rule"] == "rate") == pytest.approx(100)
    strange = cuts.applied(scores + 9, y)
    assert strange[0]["observed_fpr"] == 1 and strange[0]["in_band"] is False
    assert cuts.applied(scores, np.full(500, -1))[0]["flagged"] == found[0]["flagged"]
    assert not {"confusion", "band", "observed_fpr"} & set(cuts.applied(scores, np.full(500, -1))[0])
    with pytest.raises(ValueError, match="1 of 2 test scores are NaN and can be neither flagged nor passed"):
        cuts.applied([1, np.nan], [0, 1])


def test_without_labels_all_rows_count_as_nominal_and_it_is_said() -> None:
    cuts = Cuts(rules(f1=True), np.arange(40.0), np.full(40, -1))
    assert cuts.entries[0]["value"] == 38 and "count as nominal" in cuts.entries[0]["remark"]
    assert cuts.entries[-1]["value"] is None and "not labelled" in cuts.entries[-1]["remark"]
    with pytest.raises(ValueError, match="non-empty"):
        Cuts(rules(), [1.0, 2.0], [1, 1])


@pytest.mark.parametrize(("top", "said"), [(math.inf, "or more calibration scores are infinite"), (3.0, "are tied")])
def test_ties_and_infinities_are_remarked(top, said) -> None:
    scores = [0.0] * 30 + [top] * 10
    entry = Cuts(rules(), scores, [0] * 40).applied([1.0, top], [0, 1])[0]
    assert said in entry["remark"] and entry["flagged"] == 0
    # a score below all finite ones is a number in JSON, too, and flags all of them
    lowest = Cuts(rules(quantile=0.1), [-math.inf] * 40, [0] * 40)
    assert lowest.applied(np.float32([-math.inf, -3e38, 0]), [0, 0, 1])[0]["flagged"] == 2
    assert math.isfinite(lowest.entries[0]["value"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantile": 95}, "quantile must lie between 0 and 1, not 95"),
        ({"fprs": [0.1, 0]}, "fprs must lie between 0 and 1, not 0"),
        ({"fdr": 1.0}, "fdr must lie between 0 and 1, not 1.0"),
        ({"input_hz": 10}, "input_hz and accept_hz go together"),
        ({"accept_hz": 10}, "input_hz and accept_hz go together"),
        ({"input_hz": 10, "accept_hz": 20}, "accept_hz and input_hz: the accepted rate .* not 20 of 10 Hz"),
    ],
)
def test_rules_that_cannot_be_are_named(options, said) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        rules(**options)


def test_rules_can_be_left_out() -> None:
    assert rules(quantile=None, fprs=[], fdr=None) == []


def test_rows_that_are_flagged_together_have_no_intervals() -> None:
    random = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [400, 50, 50])
    scores = random.normal(size=500) + 3.0 * y
    cuts = Cuts(rules(quantile=0.9, fprs=[], fdr=0.2), random.normal(size=500), np.zeros(500))
    alone, together = cuts.applied(scores, y, ["nominal", "near", "far"])
    for entry in (alone, together):
        one = entry is alone
        assert (entry["observed_fpr_interval"] is not None) == (entry["recall_interval"] is not None) == one
        assert [len(recall) for recall in entry["recall_per_kind"].values()] == [3 if one else 1] * 2
        assert entry["observed_fpr"] is not None and entry["recall"] is not None
    assert "no interval of its rates" in together["remark"]


def test_the_binomial_interval_of_rows_flagged_together_would_not_hold() -> None:
    """Its width is that of rows one by one, and what is flagged by all of them varies by far more."""
    random, trials = np.random.default_rng(0), 400
    y = np.repeat([0, 1], [300, 30])
    rates, intervals = [], []
    for _ in range(trials):
        scores = random.normal(size=330) + 2.0 * y
        flagged = benjamini_hochberg(Calibration(random.normal(size=200)).p_values(scores), 0.2)
        found = decisions(flagged, y)
        rates.append(found["observed_fpr"])
        intervals.append(found["observed_fpr_interval"])
    held = np.mean([low <= np.mean(rates) <= high for low, high in intervals])
    assert held < 0.9  # of a nominal 95 %


@pytest.mark.parametrize("rows", [1, 8, 9, 18, 19, 98, 99, 1000])
def test_what_is_said_to_be_settable_is_what_can_be_set(rows) -> None:
    asked = rules(quantile=0.95, fprs=[0.3, 0.01], input_hz=1000.0, accept_hz=100.0, fdr=None)
    said, complete = settable(asked, rows)
    set_here = [entry["value"] is not None for entry in Cuts(asked, np.arange(rows), np.zeros(rows)).entries]
    can, _, cannot = said.partition(" not ")
    names = ["quantile 0.95", "fpr 0.3", "fpr 0.01", "rate 100"]
    assert [name in can for name in names] == set_here and [name in cannot for name in names] == [
        not one for one in set_here
    ]
    assert complete == all(set_here) and said.endswith(".")
