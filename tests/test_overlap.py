"""Rows that stand in two splits are counted as sets of rows would count them, and left out where asked to."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from given import sentence
from straylight.data import AnomalyDataModule, base
from straylight.data.steps.overlap import found_in, row_hashes
from straylight.errors import DataError
from straylight.rows.batch import Events, Splits
from straylight.rows.mapped import Mapped

few = settings(deadline=None, max_examples=80)
# few values, so that rows are often equal, and such whose bits are near
values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.0 + 2**-23, 2.0**-149, 3e38, 0.5, 65536.0])


def tables(columns):
    return arrays.arrays(np.float32, st.tuples(st.integers(0, 12), st.just(columns)), elements=values)


pairs = st.integers(1, 4).flatmap(lambda columns: st.tuples(tables(columns), tables(columns)))


def key(row):
    """The row's bytes, those of 0 for -0."""
    return np.where(row == 0, np.float32(0), row).astype(np.float32).tobytes()


def chunks(x, size):
    return torch.from_numpy(x).split(size)


@few
@given(pairs, st.integers(1, 5))
def test_rows_have_the_same_hash_if_and_only_if_they_are_the_same_numbers(tables, size):
    rows = np.concatenate(tables)
    hashes = row_hashes(chunks(rows, size)).tolist()
    assert len(hashes) == len(rows)
    for i, a in enumerate(rows):
        assert [h == hashes[i] for h in hashes] == [key(b) == key(a) for b in rows]


@few
@given(pairs, st.integers(1, 5), st.integers(1, 5))
def test_rows_are_found_among_others_as_in_a_set_of_them(tables, size, other):
    rows, others = tables
    there = {key(row) for row in others}
    assert found_in(chunks(rows, size), chunks(others, other)).tolist() == [key(row) in there for row in rows]


def test_events_of_any_shape_and_type_are_told_by_their_numbers():
    x = torch.rand(10, 2, 3)
    assert (row_hashes([x]) == row_hashes([x.double()])).all()
    assert (row_hashes([x]) == row_hashes([x.flatten(1)])).all()
    assert (row_hashes([x.transpose(1, 2).contiguous().transpose(1, 2)]) == row_hashes([x])).all()
    assert len(row_hashes([])) == len(found_in([], [x])) == 0 and not found_in([x], []).any()


def test_many_rows_have_hashes_of_their_own():
    n = 300_000
    number = torch.arange(n)
    for x in (number[:, None].float(), torch.stack([number % 1000, number // 1000], 1).float()):
        hashes = row_hashes(x.split(65536))
        assert len(np.unique(hashes)) == n
        bits = np.unpackbits(hashes.view(np.uint8)).reshape(n, 64).mean(0)
        assert abs(bits - 0.5).max() < 0.02


def test_columns_are_not_taken_for_each_other():
    x = torch.eye(50)
    assert len(np.unique(row_hashes([x, 2 * x, x.cumsum(1), x + 1]))) == 199  # of the sums one is the last of eye
    assert row_hashes([torch.tensor([[1.0, 2.0]])]) != row_hashes([torch.tensor([[2.0, 1.0]])])


# data sets


class Twins(AnomalyDataModule):
    """Splits as given, of labels as given."""

    def __init__(self, parts, labels, lazy=False, **common):
        super().__init__(**common)
        self.given = [
            Events.of(Mapped([x]) if lazy else x, y, meta={"row": np.arange(len(x))})
            for x, y in zip(parts, labels, strict=True)
        ]

    def load(self) -> Splits:
        return Splits(*self.given)


def twins(seed, n=(60, 20, 50, 15)):
    """Rows of few different values, in which many stand in two splits."""
    rng = np.random.default_rng(seed)
    parts = [torch.from_numpy(rng.integers(0, 4, (k, 3)).astype(np.float32)) for k in n]
    parts[2][0] = torch.tensor([9.0, 0.0, 9.0])  # one nominal and one anomalous row of their own
    parts[2][1] = torch.tensor([9.0, -0.0, 8.0])
    labels = [np.zeros(n[0], int), np.zeros(n[1], int), rng.integers(0, 3, n[2]), np.ones(n[3], int)]
    labels[2][:2] = 0, 1
    return parts, labels


def shared(parts):
    there = {key(row) for part in (parts[0], parts[1], parts[3]) for row in part.numpy()}
    return np.array([key(row) in there for row in parts[2].numpy()])


kinds_of_rows = pytest.mark.parametrize(
    "where", [{}, {"lazy": True}, {"lazy": True, "memory_mb": 0}], ids=["in memory", "read", "on disk"]
)


@kinds_of_rows
@pytest.mark.parametrize("seed", range(3))
def test_a_report_counts_exactly_and_changes_nothing(where, seed, caplog):
    parts, labels = twins(seed)
    expected = shared(parts)
    data = Twins(parts, labels, **where)
    with caplog.at_level(logging.WARNING, "straylight"):
        data.setup()
        data.setup()
    anomalous = int((expected & (labels[2] > 0)).sum())
    assert data.shared_rows == {"nominal": int(expected.sum()) - anomalous, "anomalous": anomalous}
    said = (
        f"{expected.sum()} of 50 test rows ({anomalous} anomalous) stand in another split too; data.overlap=drop "
        "leaves them out of the test."
    )
    assert data.notices == [said] and [r.getMessage() for r in caplog.records] == [f"twins: {said}"]
    assert torch.equal(data.splits.test.x[:], parts[2])


@kinds_of_rows
@pytest.mark.parametrize("seed", range(3))
def test_what_is_dropped_is_exactly_what_stands_elsewhere(where, seed):
    parts, labels = twins(seed)
    kept = ~shared(parts)
    data = Twins(parts, labels, overlap="drop", **where)
    test = data.splits.test
    assert test.meta["row"].tolist() == np.flatnonzero(kept).tolist()
    assert torch.equal(test.x[:], parts[2][torch.from_numpy(kept)]) and test.y.tolist() == labels[2][kept].tolist()
    for part, number in zip((data.splits.train, data.splits.val, data.splits.reserve), (0, 1, 3), strict=True):
        assert torch.equal(part.x[:], parts[number])
    assert len(data.notices) == 1 and data.notices[0].endswith("and are left out of the test.")
    again = Twins([parts[0], parts[1], test.x[:], parts[3]], [labels[0], labels[1], test.y, labels[3]], overlap="drop")
    again.setup()
    assert again.notices == [] and again.shared_rows == {"nominal": 0, "anomalous": 0}


def test_the_test_is_the_same_for_every_contamination_where_rows_are_dropped():
    parts, labels = twins(0)
    tests = [
        Twins(parts, labels, overlap="drop", contamination=c).splits.test.meta["row"].tolist() for c in (None, 0, 0.1)
    ]
    assert tests[0] == tests[1] == tests[2]


def test_rows_that_are_twice_in_the_test_alone_are_no_overlap():
    x = torch.rand(5, 2)
    parts = [torch.rand(30, 2), torch.rand(5, 2), torch.cat([x, x]), x[:0]]
    data = Twins(parts, [np.zeros(30), np.zeros(5), np.arange(10) % 2, np.zeros(0)])
    data.setup()
    assert data.shared_rows == {"nominal": 0, "anomalous": 0} and not data.notices


def test_where_nothing_is_left_to_test_it_is_said():
    x = torch.rand(30, 2)
    with pytest.raises(DataError, match="test split of 0 rows") as error:
        Twins([x, x[:3], x[:10], x[:0]], [np.zeros(30), np.zeros(3), np.arange(10) % 2, []], overlap="drop").setup()
    sentence(error)


def test_very_much_is_not_looked_through_unless_asked_to(monkeypatch):
    parts, labels = twins(0)
    size = sum(part.numel() for part in parts)
    looked = []
    monkeypatch.setattr(base, "found_in", lambda rows, others: looked.append(1) or found_in(rows, others))
    for at_most, times in ((size, 1), (size - 1, 0)):
        monkeypatch.setattr(base, "LOOKED_AT", at_most)
        looked.clear()
        data = Twins(parts, labels)
        data.setup()
        assert len(looked) == times and len(data.notices) == times and (data.shared_rows is None) == (not times)
    dropped = Twins(parts, labels, overlap="drop")
    assert len(dropped.splits.test) == int((~shared(parts)).sum()) and looked == [1]
