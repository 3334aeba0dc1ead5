"""Ranking metrics against scikit-learn, against their definitions, and under what must not change them."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from straylight.metrics.ranking import (
    RESOLVABLE,
    SIC_FLOOR,
    Ranked,
    Working,
    auroc,
    average_precision,
    max_sic,
    needed,
    partial_auroc,
    ranking,
    sic,
    sic_curve,
    tpr_at_fpr,
)

LAWS = {
    "normal": lambda r, n, s: r.normal(s, 1, n),
    "normal float32": lambda r, n, s: r.normal(s, 1, n).astype(np.float32),
    "normal float16": lambda r, n, s: r.normal(s, 1, n).astype(np.float16),
    "exponential": lambda r, n, s: r.exponential(1 + s, n),
    "integers with ties": lambda r, n, s: r.integers(0, 5 + s, n),
    "two values": lambda r, n, s: r.integers(0, 2, n) * (1 + s),
    "bytes": lambda r, n, s: r.integers(0, 250, n).astype(np.uint8) + np.uint8(s),
    "constant": lambda r, n, s: np.full(n, 3.5),
    "two constants": lambda r, n, s: np.full(n, 3.5 + s),
    "float32 of 1e30": lambda r, n, s: (r.normal(s, 1, n) * 1e30).astype(np.float32),
    "float32 of 1e-30": lambda r, n, s: (r.normal(s, 1, n) * 1e-30).astype(np.float32),
    "float64 of 1e-300": lambda r, n, s: r.normal(s, 1, n) * 1e-300,
    "float64 of 1e300": lambda r, n, s: r.normal(s, 1, n) * 1e300,
    "Cauchy": lambda r, n, s: r.standard_cauchy(n) + s,
    "log-normal over 40 decades": lambda r, n, s: np.exp(20 * r.normal(s / 5, 1, n)),
    "float32 at 1e6": lambda r, n, s: (1e6 + r.normal(s, 1, n)).astype(np.float32),
    "float32 at -1e7": lambda r, n, s: (-1e7 + r.normal(s, 3, n)).astype(np.float32),
    "float64 at 1e15": lambda r, n, s: 1e15 + r.normal(s, 1, n),
    "signed zeros": lambda r, n, s: r.choice([-0.0, 0.0, float(s)], n),
    "clipped at zero": lambda r, n, s: np.maximum(r.normal(s - 1, 1, n), 0),
    "anomalies below": lambda r, n, s: r.normal(-s, 1, n),
    "separated": lambda r, n, s: r.uniform(0, 1, n) + 2 * s,
}
SIZES = [(400, 60), (37, 251), (1, 1), (1000, 1)]
FPRS = (0.0, 1e-3, 1e-2, 0.1, 0.29, 0.5, 0.999, 1.0)


def drawn(law, sizes):
    r = np.random.default_rng([list(LAWS).index(law), *sizes])
    return LAWS[law](r, sizes[0], 0), LAWS[law](r, sizes[1], 1)


def joined(nominal, anomalous):
    return np.repeat([0, 1], [len(nominal), len(anomalous)]), np.concatenate([nominal, anomalous])


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("law", LAWS)
def test_auroc_and_ap_equal_scikit_learns(law, sizes):
    nominal, anomalous = drawn(law, sizes)
    y, scores = joined(nominal, anomalous)
    assert auroc(nominal, anomalous) == pytest.approx(roc_auc_score(y, scores), rel=0, abs=1e-12)
    assert average_precision(nominal, anomalous) == pytest.approx(average_precision_score(y, scores), rel=0, abs=1e-12)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("law", LAWS)
def test_tpr_is_that_of_the_largest_fpr_not_above_the_target(law, sizes):
    nominal, anomalous = drawn(law, sizes)
    y, scores = joined(nominal, anomalous)
    fpr, tpr, _ = roc_curve(y, scores, drop_intermediate=False)
    for target in FPRS:
        working = tpr_at_fpr(nominal, anomalous, target)
        last = np.flatnonzero(fpr <= target * (1 + 1e-12))[-1]  # the best TPR among equal FPRs comes last
        assert working.above == round(fpr[last] * len(nominal))
        assert working.tpr == np.mean(anomalous > working.threshold)
        assert working.above == np.sum(nominal > working.threshold)
        assert working.tpr == pytest.approx(tpr[last], abs=1e-12)


@pytest.mark.parametrize("n", [10, 70, 100, 1000, 12345])
def test_allowance_is_not_lost_to_a_rounded_product(n):
    nominal = np.arange(n)
    for allowed in range(0, n, max(1, n // 97)):
        assert tpr_at_fpr(nominal, [n], allowed / n).above == allowed


small = st.lists(st.integers(-4, 4), min_size=1, max_size=20)


@settings(deadline=None, max_examples=80)
@given(small, small, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_a_strictly_increasing_map_of_the_scores_changes_nothing(nominal, anomalous, scale, offset):
    a, b = np.array(nominal, float), np.array(anomalous, float)
    for f in (lambda x: scale * x + offset, np.exp, np.arctan, lambda x: x**3):
        assert auroc(f(a), f(b)) == auroc(a, b)
        assert average_precision(f(a), f(b)) == average_precision(a, b)
        assert tpr_at_fpr(f(a), f(b), 0.3)[:2] == tpr_at_fpr(a, b, 0.3)[:2]


@settings(deadline=None, max_examples=80)
@given(small, small)
def test_swapping_the_labels_or_the_sign_mirrors_auroc_and_both_restore_it(nominal, anomalous):
    a, b = np.array(nominal), np.array(anomalous)
    value = auroc(a, b)
    assert auroc(b, a) == pytest.approx(1 - value, abs=1e-15)
    assert auroc(-a, -b) == pytest.approx(1 - value, abs=1e-15)
    assert auroc(-b, -a) == value


@settings(deadline=None, max_examples=80)
@given(small, small, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(nominal, anomalous, random):
    before = auroc(nominal, anomalous), average_precision(nominal, anomalous)
    random.shuffle(nominal), random.shuffle(anomalous)
    assert (auroc(nominal, anomalous), average_precision(nominal, anomalous)) == before


def test_scores_are_not_sorted_in_place():
    nominal, anomalous = np.array([3.0, 1.0, 2.0]), np.array([5.0, 0.0])
    auroc(nominal, anomalous)
    assert nominal.tolist() == [3, 1, 2] and anomalous.tolist() == [5, 0]


def test_infinite_scores_are_ranked_as_the_largest_and_the_smallest():
    assert auroc([0.0, -np.inf], [np.inf, 1.0]) == 1
    assert auroc([np.inf, 0.0], [np.inf]) == 0.75


MEASURES = {
    "auroc": auroc,
    "average_precision": average_precision,
    "tpr_at_fpr": lambda nominal, anomalous: tpr_at_fpr(nominal, anomalous, 0.1),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_a_nan_is_refused_with_its_count_and_side(measure):
    with pytest.raises(ValueError, match="2 of 3 nominal scores are NaN"):
        measure([np.nan, 1, np.nan], [1, 2])
    with pytest.raises(ValueError, match="1 of 2 anomalous scores are NaN"):
        measure([0, 1, 2], [np.nan, 2])


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize("empty", [[], np.zeros((2, 2))], ids=["empty", "matrix"])
def test_an_empty_side_or_a_matrix_is_refused_with_its_side(measure, empty):
    with pytest.raises(ValueError, match="nominal scores must be a non-empty column"):
        measure(empty, [1, 2])
    with pytest.raises(ValueError, match="anomalous scores must be a non-empty column"):
        measure([1, 2], empty)


@pytest.mark.parametrize("fpr", [-0.1, 1.1, float("nan")])
def test_a_false_positive_rate_outside_its_range_is_refused(fpr):
    with pytest.raises(ValueError, match="between 0 and 1"):
        tpr_at_fpr([0, 1], [2], fpr)


@pytest.mark.parametrize("above, resolvable", [(0, False), (9, False), (10, True), (11, True)])
def test_a_working_point_is_resolvable_from_ten_nominal_events_on(above, resolvable):
    assert RESOLVABLE == 10
    assert Working(0.5, above, 0.0).resolvable is resolvable
    assert tpr_at_fpr(range(100), [1], above / 100).resolvable is resolvable


SCORES, Y = np.random.default_rng(5).normal(size=200), np.random.default_rng(6).choice([0, 0, 0, 1, 2, 4], 200)
KINDS = ("nominal", "a", "b", "c")


def test_ranking_names_every_metric_overall_and_per_kind():
    found = ranking(SCORES, Y, KINDS, fprs=(0.1, 1e-4))
    each = {"auroc", "ap", "partial_auroc@fpr=0.1", "tpr@fpr=0.1", "tpr@fpr=0.0001", "max_sic", "max_sic_fpr"}
    above = {"nominal_above@fpr=0.1", "nominal_above@fpr=0.0001"}  # of 100 nominal events no SIC at an FPR of 0.1
    assert set(found) == each | above | {f"{m}/{k}" for m in each for k in ("a", "b", "4")} | {"nominal", "anomalous"}
    assert (found["nominal"], found["anomalous"]) == ((Y == 0).sum(), (Y > 0).sum())
    for kind, side in {"": Y > 0, "/a": Y == 1, "/b": Y == 2, "/4": Y == 4}.items():
        assert found[f"auroc{kind}"] == auroc(SCORES[Y == 0], SCORES[side])
        assert found[f"ap{kind}"] == average_precision(SCORES[Y == 0], SCORES[side])
        assert found[f"partial_auroc@fpr=0.1{kind}"] == partial_auroc(SCORES[Y == 0], SCORES[side])
        assert (found[f"max_sic{kind}"], found[f"max_sic_fpr{kind}"]) == max_sic(SCORES[Y == 0], SCORES[side])
        assert found[f"tpr@fpr=0.1{kind}"] == tpr_at_fpr(SCORES[Y == 0], SCORES[side], 0.1).tpr
    assert found["nominal_above@fpr=0.1"] == tpr_at_fpr(SCORES[Y == 0], SCORES[Y > 0], 0.1).above


def test_one_kind_of_anomaly_is_not_reported_twice():
    assert not [name for name in ranking(SCORES, (Y > 0).astype(int), KINDS) if "/" in name]


def test_hidden_rows_are_left_out_even_where_their_score_is_nan():
    hidden = np.full(30, -1)
    with_hidden = ranking(np.r_[SCORES, np.full(30, np.nan)], np.r_[Y, hidden], KINDS)
    assert with_hidden == ranking(SCORES, Y, KINDS)


@pytest.mark.parametrize("y, counts", [([0, 0, -1], (2, 0)), ([1, 2, 2], (0, 3)), ([-1, -1, -1], (0, 0))], ids=str)
def test_only_the_counts_are_given_where_a_class_is_empty(y, counts):
    assert ranking([1.0, 2.0, 3.0], y) == {"nominal": counts[0], "anomalous": counts[1]}


def test_ranking_refuses_a_nan_score_of_a_labelled_row():
    with pytest.raises(ValueError, match=r"^1 of 2 scores of 'nominal' are NaN$"):
        ranking([np.nan, 1.0, 2.0], [0, 0, 1])
    with pytest.raises(ValueError, match=r"^1 of 1 scores of 'good', 2 of 3 scores of 'far/off' are NaN$"):
        ranking([np.nan, 1.0, 2.0, np.nan, np.nan], [0, 1, 2, 2, 2], ("good", "near", "far/off"))


def test_numbers_are_plain_so_that_json_takes_them():
    assert {type(v) for v in ranking(SCORES.astype(np.float32), Y).values()} <= {int, float}


@pytest.mark.parametrize("max_fpr", [1e-3, 0.1, 0.29, 1.0])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("law", LAWS)
def test_partial_auroc_equals_scikit_learns(law, sizes, max_fpr):
    nominal, anomalous = drawn(law, sizes)
    y, scores = joined(nominal, anomalous)
    expected = roc_auc_score(y, scores, max_fpr=max_fpr) if max_fpr < 1 else roc_auc_score(y, scores)
    assert partial_auroc(nominal, anomalous, max_fpr) == pytest.approx(expected, rel=0, abs=1e-11)


@pytest.mark.parametrize("law", LAWS)
def test_the_largest_sic_is_that_of_all_thresholds_with_enough_nominal_events(law):
    nominal, anomalous = drawn(law, (400, 60))
    tried = np.unique(np.concatenate([nominal, anomalous]))
    above, kept = ((tried[:, None] <= side).sum(1) for side in (nominal, anomalous))
    enough = above >= SIC_FLOOR
    expected = (kept[enough] / 60 / np.sqrt(above[enough] / 400)).max()
    value, fpr = max_sic(nominal, anomalous)
    assert value == pytest.approx(expected, rel=1e-12) and fpr * 400 >= SIC_FLOOR
    assert any(value == pytest.approx(k / 60 / fpr**0.5) for k in kept[np.isclose(above, fpr * 400)])


@pytest.mark.parametrize("points", [1, 7, 200])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_curve_of_sic_is_of_thresholds_with_enough_nominal_events_and_has_the_largest(law, points, weighted):
    nominal, anomalous = drawn(law, (400, 60))
    rng = np.random.default_rng(0)
    low, high = (rng.uniform(0.5, 1.5, len(side)) if weighted else np.ones(len(side)) for side in (nominal, anomalous))
    given = (low, high) if weighted else ()
    tpr, improved = sic_curve(nominal, anomalous, *given, points=points)
    assert 1 <= len(tpr) <= points and (np.diff(tpr) > 0).all()
    assert improved.max() == max_sic(nominal, anomalous, *given)[0]
    allowed = []
    for threshold in np.unique(np.concatenate([nominal, anomalous])):
        above = low[nominal >= threshold]
        if above.sum() ** 2 >= SIC_FLOOR * (above**2).sum() > 0:
            kept = high[anomalous >= threshold].sum() / high.sum()
            allowed.append((kept, kept / np.sqrt(above.sum() / low.sum())))
    for pair in zip(tpr, improved, strict=True):
        assert any(pair == pytest.approx(other) for other in allowed), pair


def test_no_sic_is_given_below_the_floor_of_nominal_events():
    nominal = np.arange(1000.0)
    assert sic(tpr_at_fpr(nominal, [2000.0], 0.024)) is None
    assert sic(tpr_at_fpr(nominal, [2000.0], 0.025)) == pytest.approx(1 / 0.025**0.5)
    assert max_sic(np.arange(24.0), [100.0]) is None and max_sic(np.arange(25.0), [100.0]) == (1.0, 1.0)
    # one nominal event above: its square root alone would be 31
    assert max_sic(nominal, [998.5] * 5)[0] == pytest.approx(1 / 0.025**0.5)


@pytest.mark.parametrize("law", LAWS)
def test_weights_are_scikit_learns_and_whole_ones_are_copies(law):
    nominal, anomalous = drawn(law, (400, 60))
    y, scores = joined(nominal, anomalous)
    random = np.random.default_rng(1)
    weight = random.random(460) * (random.random(460) < 0.9)
    found = Ranked(scores, y, weight=weight, fprs=(0.1,), max_fpr=0.2).metrics()
    chosen = weight > 0  # scikit-learn's partial area stumbles over weights of zero
    y_, scores_, weight_ = y[chosen], scores[chosen], weight[chosen]
    assert found["auroc"] == pytest.approx(roc_auc_score(y_, scores_, sample_weight=weight_), abs=1e-12)
    assert found["ap"] == pytest.approx(average_precision_score(y_, scores_, sample_weight=weight_), abs=1e-12)
    area = roc_auc_score(y_, scores_, sample_weight=weight_, max_fpr=0.2)
    assert found["partial_auroc@fpr=0.2"] == pytest.approx(area, abs=1e-11)
    copies = random.integers(0, 4, 460)
    weighted = Ranked(scores, y, weight=copies, fprs=(0.1, 0.01)).metrics()
    copied = Ranked(np.repeat(scores, copies), np.repeat(y, copies), fprs=(0.1, 0.01)).metrics()
    for name in ("auroc", "ap", "partial_auroc@fpr=0.1", "tpr@fpr=0.1", "tpr@fpr=0.01"):
        assert weighted[name] == pytest.approx(copied[name], abs=1e-12), name


def test_weighted_working_points_count_effective_nominal_events():
    nominal, weight = np.arange(100.0), np.repeat([1.0, 0.5], [80, 20])
    working = tpr_at_fpr(nominal, [95.5], 0.05, nominal_weight=weight)
    assert (working.fpr, working.above) == (4.5 / 90, 9.0) and working.tpr == 1
    uneven = np.where(np.arange(100) == 99, 50.0, 1.0)  # one event holds a third of the weight
    assert tpr_at_fpr(nominal, [99.0], 0.5, nominal_weight=uneven).above == pytest.approx(74**2 / (50**2 + 24))


@pytest.mark.parametrize(
    "weight, said",
    [
        ([1, -1, 1], "1 of 3 weights of all events are negative or not finite"),
        ([1, np.nan, np.inf], "2 of 3 weights of all events are negative or not finite"),
        ([1, 1], r"the weights of all events are of shape \(2,\), their scores of \(3,\)"),
    ],
    ids=str,
)
def test_wrong_weights_are_named(weight, said):
    with pytest.raises(ValueError, match=said):
        Ranked([0.0, 1.0, 2.0], [0, 0, 1], weight=weight)


def test_what_is_not_resolvable_says_how_many_nominal_events_would_resolve_it():
    few = tpr_at_fpr(np.arange(2000), np.arange(1990, 2100), 1e-5)
    assert not few.resolvable
    assert few.remark() == (
        "not resolvable: 0 nominal events lie above the threshold; about 1,000,000 nominal events would resolve an FPR "
        "of 1e-05"
    )
    assert needed(1e-5) == 1_000_000 and needed(0.1) == 100 and needed(1) == 10
    assert needed(1 - 0.9) == 100, "a rate that was computed is a little off"
    for fpr in ("0.0999", "0.3", "0.07", "7e-4", "3.3e-5", "0.99999"):
        assert needed(float(fpr)) == math.ceil(10 / Fraction(fpr)), fpr
    tied = tpr_at_fpr(np.repeat([0, 1], [500, 500]), [1, 2], 0.1)
    assert "shared by too many" in tied.remark()
    assert tpr_at_fpr(np.arange(1000), [1], 0.1).remark() is None
    with pytest.raises(ValueError, match="no number of nominal events resolves"):
        needed(0)


@pytest.mark.parametrize("options", [{"fprs": (0.0,)}, {"fprs": (1.1,)}, {"max_fpr": 0.0}], ids=str)
def test_false_positive_rates_that_nothing_is_ranked_at_are_refused(options):
    with pytest.raises(ValueError, match="false-positive rate lies above 0, at most at 1"):
        Ranked([0.0, 1.0], [0, 1], **options)
    with pytest.raises(ValueError, match="partial AUROC lies above 0"):
        partial_auroc([0.0], [1.0], 0)
