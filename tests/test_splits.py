"""Who trains, who selects and who is tested: disjoint, covering, in proportion and by seed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from given import sentence
from straylight.data import Blobs
from straylight.data.steps.contamination import contaminate
from straylight.data.steps.splits import halves, one_class
from straylight.data.steps.splits import nominal_only as places
from straylight.errors import DataError
from straylight.metrics.conformal import needed
from straylight.rows.batch import Events


def events(nominal, anomalous, weighted=False, seed=0):
    """Rows that carry their own number in every column, in mixed order, with two kinds of anomaly."""
    n = nominal + anomalous
    y = np.random.default_rng(seed).permutation(np.r_[np.zeros(nominal, int), 1 + np.arange(anomalous) % 2])
    number = np.arange(n)
    return Events.of(
        np.stack([number, -number], 1).reshape(n, 2),
        y,
        context=number[:, None] + 0.5,
        weight=number + 1.0 if weighted else None,
        meta={"row": number},
    )


def nominal_only(rows, *, seed, **fractions):
    return places(rows.y, seed=seed, group=rows.meta.get("group"), **fractions).of(rows)


def ids(part):
    """The rows' own numbers, once it is certain that no column was moved away from the others."""
    number = part.x[:, 0].long().tolist()
    assert part.x[:, 1].tolist() == [-i for i in number]
    assert part.context[:, 0].tolist() == [i + 0.5 for i in number]
    assert part.meta["row"].tolist() == number
    return number


def same(a, b):
    return ids(a) == ids(b) and torch.equal(a.y, b.y) and torch.equal(a.weight, b.weight)


fractions = st.floats(0, 1)
counts = st.integers(0, 60)
seeds = st.integers(0, 2**31)
few = settings(deadline=None, max_examples=40)


@few
@given(counts, counts, seeds, fractions, fractions, fractions, st.booleans())
def test_one_class_splits_are_disjoint_covering_and_in_proportion(n, m, seed, train, val, reserve, weighted):
    rows = events(n, m, weighted)
    splits = nominal_only(rows, seed=seed, train=train, val=val, reserve=reserve)
    everyone = [i for part in splits for i in ids(part)]
    assert sorted(everyone) == list(range(n + m))
    assert all(ids(part) == sorted(ids(part)) for part in splits)
    assert not splits.train.y.any() and not splits.val.y.any() and (splits.reserve.y > 0).all()
    assert abs(len(splits.train) + len(splits.val) - train * n) <= 0.5
    assert abs(len(splits.val) - val * (len(splits.train) + len(splits.val))) <= 0.5
    assert abs(len(splits.reserve) - reserve * m) <= 0.5
    for part in splits:  # labels and weights stay with their row
        assert part.y.tolist() == rows.y[ids(part)].tolist()
        assert part.weight.tolist() == rows.weight[ids(part)].tolist()


def test_a_seed_makes_the_split_and_another_seed_another():
    rows = events(200, 40)
    first, again, other = (nominal_only(rows, seed=s, reserve=0.5) for s in (3, 3, 4))
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert all(ids(a) != ids(b) for a, b in zip(first, other, strict=True))


@few
@given(st.integers(20, 80), st.integers(20, 60), seeds, st.floats(0, 0.2), st.floats(0, 0.2))
def test_the_test_split_is_the_same_for_every_contamination(n, m, seed, one, other):
    rows = events(n, m)
    splits = nominal_only(rows, seed=seed, reserve=0.5)
    before = ids(splits.test)
    for fraction in (one, other, None):
        train = contaminate(splits.train, splits.reserve, fraction, seed)
        assert not set(ids(train)) & {*ids(splits.test), *ids(splits.val)}
        assert len(set(ids(train))) == len(train)
    assert ids(splits.test) == before == ids(nominal_only(rows, seed=seed, reserve=0.5).test)


@few
@given(st.integers(2, 200), st.integers(0, 30), st.floats(0, 0.4), seeds, st.booleans())
def test_contamination_is_the_fraction_asked_for_within_rounding(n, found, fraction, seed, weighted):
    nominal, strange = events(n, found, weighted), events(0, 200, weighted, seed=1)
    train = contaminate(nominal, strange, fraction, seed)
    anomalous = int((train.y > 0).sum())
    assert len(train) - anomalous == n
    assert abs(anomalous - fraction / (1 - fraction) * n) <= 0.5
    if anomalous != 1:  # a single row has no stride to tell by
        assert (train.weight.stride(0) == 0) is (not weighted)
    ids(train)


def test_contamination_none_leaves_the_rows_as_found():
    found = events(30, 5)
    assert contaminate(found, events(0, 50), None, 0) is found


def test_contamination_zero_takes_out_the_anomalies_that_were_found():
    assert ids(contaminate(events(30, 5), events(0, 50), 0.0, 0)) == torch.where(events(30, 5).y == 0)[0].tolist()


def test_contamination_is_drawn_by_seed():
    train, reserve = events(100, 0), events(0, 100)
    a, b, c = (contaminate(train, reserve, 0.2, seed) for seed in (1, 1, 2))
    assert same(a, b) and ids(a) != ids(c)
    assert set(a.y[a.y > 0].tolist()) == {1, 2}


def test_a_larger_contamination_contains_the_smaller_one():
    train, reserve = events(100, 0), events(0, 100)
    small, large = (contaminate(train, reserve, fraction, 7) for fraction in (0.1, 0.3))
    rows = [[i for i, y in zip(ids(part), part.y.tolist(), strict=True) if y] for part in (small, large)]
    assert rows[1][: len(rows[0])] == rows[0]


@few
@given(counts, seeds)
def test_halves_are_disjoint_covering_and_differ_by_one_row_at_most(n, seed):
    first, second = halves(events(n, 0), seed)
    assert sorted(ids(first) + ids(second)) == list(range(n))
    assert len(first) - len(second) == n % 2
    assert same(first, halves(events(n, 0), seed)[0])


def test_halves_differ_by_seed():
    assert ids(halves(events(60, 0), 0)[0]) != ids(halves(events(60, 0), 1)[0])


# groups


def grouped(sizes, seed, anomalous=0.0):
    """Rows in groups of these sizes, in mixed order, labels by chance."""
    rng = np.random.default_rng(seed)
    rows = events(0, sum(sizes))
    number = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows.meta["group"] = 7 - 3 * number  # neither from 0 nor rising
    rows.y.copy_(torch.from_numpy((rng.random(len(number)) < anomalous) * rng.integers(1, 3, len(number))))
    return rows


def groups_of(part):
    return set(part.meta["group"].tolist())


groups = st.lists(st.integers(1, 8), max_size=25)
rare = st.sampled_from([0.0, 0.05, 0.3, 1.0])


@few
@given(groups, seeds, rare, fractions, fractions, fractions)
def test_a_group_is_on_one_side_and_every_row_in_one_split(sizes, seed, anomalous, train, val, reserve):
    rows = grouped(sizes, seed, anomalous)
    splits = nominal_only(rows, seed=seed, train=train, val=val, reserve=reserve)
    assert sorted(i for part in splits for i in ids(part)) == list(range(len(rows)))
    assert all(ids(part) == sorted(ids(part)) for part in splits)
    there = [groups_of(part) for part in splits]
    assert not there[0] & there[1] and not there[0] & there[2] and not there[1] & there[2]
    assert not there[3] & (there[1] | there[2])  # a group set aside trains, if anything
    assert not splits.train.y.any() and not splits.val.y.any() and (splits.reserve.y > 0).all()


@few
@given(groups, seeds, rare, fractions, fractions, fractions)
def test_a_group_with_an_anomaly_is_tested_whole_or_set_aside_with_nominal_rows_in_training(
    sizes, seed, anomalous, train, val, reserve
):
    rows = grouped(sizes, seed, anomalous)
    splits = nominal_only(rows, seed=seed, train=train, val=val, reserve=reserve)
    where = {i: name for name, part in zip(splits._fields, splits, strict=True) for i in ids(part)}
    for number in groups_of(rows):
        members = np.flatnonzero(rows.meta["group"] == number).tolist()
        sides = {(where[i], bool(rows.y[i] > 0)) for i in members}
        if any(rows.y[i] > 0 for i in members):
            assert sides <= {("test", True), ("test", False)} or sides <= {("reserve", True), ("train", False)}
        else:
            assert len(sides) == 1 and sides != {("reserve", False)}


@few
@given(st.lists(st.integers(1, 5), min_size=80, max_size=150), seeds, fractions, fractions)
def test_of_many_small_groups_the_proportions_are_within_a_group(sizes, seed, train, val):
    splits = nominal_only(grouped(sizes, seed), seed=seed, train=train, val=val)
    n, largest = sum(sizes), max(sizes)
    assert abs(len(splits.train) + len(splits.val) - train * n) <= largest + 1
    assert abs(len(splits.val) - val * train * n) <= largest / 2 + 1


@few
@given(st.lists(st.integers(1, 5), min_size=80, max_size=150), seeds, st.floats(0.4, 0.6), fractions)
def test_of_many_small_groups_the_reserve_is_within_a_group_and_training_as_asked(sizes, seed, train, reserve):
    rows = grouped(sizes, seed, anomalous=0.02)
    splits = nominal_only(rows, seed=seed, train=train, val=0.1, reserve=reserve)
    anomalous = int((rows.y > 0).sum())
    assert abs(len(splits.reserve) - reserve * anomalous) <= max(sizes)
    assert abs(len(splits.train) + len(splits.val) - train * (len(rows) - anomalous)) <= max(sizes) + 1


def test_groups_of_a_row_each_are_in_proportion_as_rows_without_a_group_are():
    rows = events(200, 40)
    rows.meta["group"] = np.array([f"row {i}" for i in range(240)])
    with_groups = [len(part) for part in nominal_only(rows, seed=0, train=0.5, val=0.2, reserve=0.5)]
    del rows.meta["group"]
    assert with_groups == [len(part) for part in nominal_only(rows, seed=0, train=0.5, val=0.2, reserve=0.5)]


def test_groups_are_dealt_out_by_seed_and_not_by_what_they_are_called():
    rows = grouped([3] * 60, 0, 0.05)
    first, again, other = (nominal_only(rows, seed=s, reserve=0.5) for s in (3, 3, 4))
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert ids(first.train) != ids(other.train)
    rows.meta["group"] = np.array([f"{chr(97 + g % 26)}{g:05d}" for g in rows.meta["group"] + 500])
    named = nominal_only(rows, seed=3, reserve=0.5)
    assert [len(part) for part in named][3] <= len(first.reserve) + 3
    assert not groups_of(named.train) & groups_of(named.test)


def test_the_test_split_of_groups_is_the_same_for_every_contamination():
    rows = grouped([2] * 100, 0, 0.1)
    splits = nominal_only(rows, seed=0, reserve=0.5)
    for fraction in (0.0, 0.01, 0.05, None):
        train = contaminate(splits.train, splits.reserve, fraction, 0)
        assert not groups_of(train) & (groups_of(splits.test) | groups_of(splits.val))
        assert len(set(ids(train))) == len(train)


@few
@given(groups, seeds)
def test_halves_keep_groups_whole_and_are_as_near_to_equal_as_that_allows(sizes, seed):
    rows = grouped(sizes, seed)
    first, second = halves(rows, seed)
    assert sorted(ids(first) + ids(second)) == list(range(len(rows)))
    assert not groups_of(first) & groups_of(second)
    assert abs(len(first) - len(second)) <= max(sizes, default=0) + 1
    assert same(first, halves(rows, seed)[0])


NAMES = "abcdefg"


@few
@given(
    st.lists(st.integers(0, 6), max_size=40),
    st.one_of(st.integers(0, 6), st.lists(st.integers(0, 6), min_size=1, max_size=6)),
)
def test_one_class_labels_keep_the_order_and_the_names_of_the_others(labels, nominal):
    y, kinds = one_class(np.array(labels, int), nominal, NAMES)
    wanted = {nominal} if isinstance(nominal, int) else set(nominal)
    assert kinds[0] == "nominal" and list(kinds[1:]) == [c for i, c in enumerate(NAMES) if i not in wanted]
    assert len(y) == len(labels)
    for label, kind in zip(labels, y.tolist(), strict=True):
        assert kinds[kind] == ("nominal" if label in wanted else NAMES[label])


@pytest.mark.parametrize("key", ["train", "val", "reserve"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_fraction_outside_its_range_is_refused_by_its_key(key, value):
    with pytest.raises(DataError) as error:
        nominal_only(events(10, 2), seed=0, **{key: value})
    assert f"data.{key}_fraction" in sentence(error) and f"not {value}" in sentence(error)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_a_contamination_outside_its_range_is_refused(fraction):
    with pytest.raises(DataError) as error:
        contaminate(events(10, 0), events(0, 10), fraction, 0)
    assert "data.contamination" in sentence(error) and f"not {fraction}" in sentence(error)


def test_too_few_anomalies_in_reserve_are_refused_with_both_numbers():
    with pytest.raises(DataError) as error:
        contaminate(events(90, 0), events(0, 9), 0.1, 0)
    assert "takes 10 anomalies, but only 9" in sentence(error)
    assert len(contaminate(events(90, 1), events(0, 9), 0.1, 0)) == 100  # one that was found helps out


@pytest.mark.parametrize("nominal", [7, -1, [0, 7], []], ids=str)
def test_a_nominal_class_that_does_not_exist_is_refused(nominal):
    with pytest.raises(DataError) as error:
        one_class([0, 1], nominal, NAMES)
    assert "classes 0 to 6" in sentence(error)


def test_naming_every_class_nominal_is_refused():
    with pytest.raises(DataError) as error:
        one_class([0, 1], [0, 1], "ab")
    assert "none is left" in sentence(error)


@pytest.mark.parametrize("fpr", [0.05, 0.02])
def test_validation_is_as_large_as_the_smallest_threshold_takes(fpr) -> None:
    for seed in range(3):
        few, enough = (Blobs(seed=seed, smallest_fpr=smallest) for smallest in (None, fpr))
        calibrating = [len(data._val_halves[1]) for data in (few, enough)]
        assert calibrating[1] >= needed(fpr) and len(enough.splits.test) == len(few.splits.test)
        assert calibrating[1] <= max(calibrating[0], needed(fpr) + 1)
    most = Blobs(seed=0, smallest_fpr=1e-6).splits
    assert abs(len(most.val) - len(most.train)) <= 1  # no more than half
    with pytest.raises(DataError, match=r"data\.smallest_fpr must lie between 0 and 1"):
        Blobs(smallest_fpr=5)
