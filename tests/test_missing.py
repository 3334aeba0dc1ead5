"""What is missing is filled with what training rows say, and what is not said of it is an error."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from straylight.data import AnomalyDataModule
from straylight.errors import DataError
from straylight.rows import missing as page
from straylight.rows.batch import Events, Splits
from straylight.rows.mapped import Mapped
from straylight.rows.missing import filling, lacking, medians

few = settings(deadline=None, max_examples=60)
NAN = float("nan")
numbers = st.floats(-1e6, 1e6, width=32) | st.just(NAN)
tables = arrays.arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(1, 4)), elements=numbers)


def nanmedian(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns without a value
        return np.nanmedian(x, axis=0).astype(np.float32)


def mapped(x):
    return Mapped([x[: len(x) // 2], x[len(x) // 2 :].double()])


@few
@given(tables, st.booleans())
def test_medians_are_numpy_s_of_what_is_there(x, lazy):
    rows = torch.from_numpy(x)
    events = Events.of(mapped(rows) if lazy else rows)
    np.testing.assert_array_equal(medians(events).numpy(), nanmedian(x))
    for chunk in (1, 3, 65536):
        assert lacking(events, chunk).tolist() == np.isnan(x).any(0).tolist()


@few
@given(tables)
def test_only_what_is_missing_is_filled_and_columns_say_where_it_was(x):
    value = np.arange(x.shape[1], dtype=np.float32)
    indicate = np.isnan(x).any(0)
    expected = np.where(np.isnan(x), value, x)
    rows = torch.from_numpy(x.copy())
    assert np.array_equal(filling(torch.from_numpy(value), None)(rows), expected)
    filled = filling(torch.from_numpy(value), torch.from_numpy(indicate))(rows)
    assert np.array_equal(filled, np.hstack([expected, np.isnan(x)[:, indicate].astype(np.float32)]))
    assert np.array_equal(rows, x, equal_nan=True)  # the rows themselves stay as they were


def test_of_many_rows_on_disk_the_median_is_that_of_some_evenly_spaced(monkeypatch):
    monkeypatch.setattr(page, "SAMPLE", 10)
    x = torch.arange(95.0)[:, None]
    assert medians(Events.of(mapped(x))).item() == np.median(np.arange(95)[::10])
    assert medians(Events.of(x)).item() == 47  # in memory, all of them


# data sets


def sentence(error):
    """What an error says, once it is certain that it is one sentence."""
    said = str(error.value)
    assert said.endswith(".") and "\n" not in said and ". " not in said
    return said


class Table(AnomalyDataModule):
    """Training, validation, test and reserve rows as given, in memory or not."""

    columns = ("pt", "eta", "phi")

    def __init__(self, parts, lazy=False, then=None, **common):
        super().__init__(**common)
        self.parts, self.lazy, self.then = parts, lazy, then

    def load(self) -> Splits:
        events = []
        for x, kind in zip(self.parts, ([0, 0], [0, 0], [0, 1], [1, 1]), strict=True):
            rows = mapped(x) if self.lazy else x
            rows = rows.map(self.then) if self.then and self.lazy else self.then(rows) if self.then else rows
            events.append(
                Events.of(rows, torch.arange(len(x)) % 2 if kind == [0, 1] else torch.full((len(x),), kind[0]))
            )
        return Splits(*events)


def table(columns=3, seed=0, gone=((0, 0.3), (2, 0.1))):
    """Four splits of which some columns lack some values, each column on a scale of its own."""
    rng = np.random.default_rng(seed)
    parts = []
    for n in (40, 12, 30, 10):
        x = rng.normal(size=(n, columns)) * 10.0 ** np.arange(columns)
        for column, share in gone:
            x[rng.random(n) < share, column] = np.nan
        parts.append(torch.from_numpy(x.astype(np.float32)))
    return parts


lazily = pytest.mark.parametrize(
    "where", [{}, {"lazy": True}, {"lazy": True, "memory_mb": 0}], ids=["in memory", "read", "on disk"]
)


@lazily
def test_an_error_names_columns_and_the_way_out(where):
    parts = table()
    gone = sum(torch.stack([part.isnan().sum(0) for part in parts])).tolist()
    rows = sum(int(part.isnan().any(1).sum()) for part in parts)
    with pytest.raises(DataError) as error:
        Table(parts, **where).setup()
    said = sentence(error)
    assert f"{rows} of 92 rows" in said and "data.missing=median" in said
    assert f"column 'pt' ({gone[0]} rows), column 'phi' ({gone[2]} row" in said and "eta" not in said


@lazily
@pytest.mark.parametrize("how", ["median", "indicator"])
def test_all_splits_are_filled_with_the_median_of_training_rows_whatever_the_others_hold(where, how):
    parts = table()
    for part in parts[1:]:  # none of this may be looked at
        part.mul_(1e30)
    expected = nanmedian(parts[0].numpy())
    data = Table(parts, missing=how, **where)
    for part, served in zip(parts, data.splits, strict=True):
        x = served.x[:]
        assert torch.equal(x[:, :3], torch.where(part.isnan(), torch.from_numpy(expected), part))
        if how == "indicator":
            assert torch.equal(x[:, 3:], part.isnan()[:, [0, 2]].float())
    names = ["pt", "eta", "phi"]
    assert list(data.columns) == names + (["pt is missing", "phi is missing"] if how == "indicator" else [])
    assert data.shape == ((5,) if how == "indicator" else (3,))
    assert data.filled == {"pt": pytest.approx(expected[0]), "phi": pytest.approx(expected[2])}
    recipe = data.recipe()
    assert recipe == {"columns": list(data.columns), "filled": data.filled, "missing": how, "medians": data.medians}


@lazily
@pytest.mark.parametrize("how", ["median", "indicator"])
def test_a_feature_that_no_training_row_lacks_gets_no_column_and_is_filled_elsewhere(where, how):
    parts = table(gone=())
    parts[2][3, 1] = NAN
    data = Table(parts, missing=how, **where)
    data.setup()
    assert data.shape == (3,) and list(data.columns) == ["pt", "eta", "phi"] and data.filled == {}
    assert float(data.splits.test.x[:][3, 1]) == nanmedian(parts[0].numpy())[1]


@pytest.mark.parametrize("how", ["median", "indicator"])
def test_rows_of_which_nothing_is_missing_stay_as_they_are(how):
    parts = table(gone=())
    data = Table(parts, missing=how)
    assert all(torch.equal(part, served.x) for part, served in zip(parts, data.splits, strict=True))


def test_columns_without_names_are_named_by_their_number():
    data = Table(table(), missing="indicator")
    data.columns = ()
    data.setup()
    assert list(data.columns) == ["0", "1", "2", "0 is missing", "2 is missing"]


@lazily
@pytest.mark.parametrize("how", ["median", "indicator"])
def test_a_column_that_no_training_row_has_is_an_error_that_names_it(where, how):
    parts = table()
    parts[0][:, 1] = NAN
    with pytest.raises(DataError) as error:
        Table(parts, missing=how, **where).setup()
    assert "no training row has a value of column 'eta'" in sentence(error)


@lazily
@pytest.mark.parametrize("part", range(4))
def test_an_infinity_is_an_error_in_any_split(where, part):
    parts = table()
    parts[part][1, 1] = -float("inf")
    with pytest.raises(DataError) as error:
        Table(parts, missing="error", **where).setup()
    assert "'eta' (1 row)" in sentence(error) and "set data.missing=median" in sentence(error)


@lazily
@pytest.mark.parametrize("how", ["median", "indicator"])
@pytest.mark.parametrize("part", range(4))
def test_an_infinity_is_missing_where_what_is_missing_is_filled_in(where, how, part):
    infinite, gone = table(), table()
    infinite[part][1, 1], gone[part][1, 1] = -float("inf"), NAN
    for one, other in zip(
        Table(infinite, missing=how, **where).splits, Table(gone, missing=how, **where).splits, strict=True
    ):
        assert torch.equal(one.x[:], other.x[:]) and one.x[:].isfinite().all()


@lazily
@pytest.mark.parametrize("how", ["median", "indicator"])
def test_a_column_of_infinities_alone_has_nothing_to_be_filled_with(where, how):
    parts = table(gone=())
    parts[0][:, 1] = torch.tensor([float("inf"), -float("inf")]).repeat(20)
    with pytest.raises(DataError, match=r"no training row has a value of column 'eta'"):
        Table(parts, missing=how, **where).setup()


@lazily
def test_images_are_filled_pixel_by_pixel(where):
    rng = np.random.default_rng(0)
    parts = [torch.from_numpy(rng.random((n, 1, 2, 3), np.float32)) for n in (20, 4, 6, 2)]
    for part in parts:
        part[::3, 0, 1, 2] = NAN
    data = Table(parts, missing="median", **where)
    expected = torch.from_numpy(nanmedian(parts[0].numpy()))
    for part, served in zip(parts, data.splits, strict=True):
        assert torch.equal(served.x[:], torch.where(part.isnan(), expected, part))


@lazily
def test_images_with_an_indicator_are_refused(where):
    parts = [torch.full((n, 1, 2, 2), NAN) for n in (20, 4, 6, 2)]
    parts[0][1:] = 1
    with pytest.raises(DataError) as error:
        Table(parts, missing="indicator", **where).setup()
    assert "data.missing=indicator is for tables, not for events of shape (1, 2, 2)" in sentence(error)


@pytest.mark.parametrize("how", ["median", "indicator"])
@pytest.mark.parametrize("then", [None, lambda x: x * 2], ids=["plain", "prepared"])
@pytest.mark.parametrize("contamination", [None, 0.1])
def test_rows_on_disk_train_on_the_same_numbers_as_those_in_memory(how, then, contamination):
    common = {"missing": how, "contamination": contamination, "then": then}
    plain = Table(table(), **common)
    on_disk = Table(table(), lazy=True, memory_mb=0, **common)
    for a, b in zip(plain.splits, on_disk.splits, strict=True):
        assert isinstance(b.x, Mapped) and torch.equal(a.x, b.x[:]) and torch.equal(a.y, b.y)
    assert plain.filled == on_disk.filled and plain.columns == on_disk.columns


@lazily
def test_without_supervision_the_same_rows_are_filled_for_training_and_test(where):
    class All(Table):
        def load(self):
            train = super().load().train
            y = torch.arange(len(train)) % 2
            return self.split(Events(train.x, y, train.context, train.weight, {}))

    parts = table()
    data = All(parts, missing="median", protocol="unsupervised", **where)
    expected = torch.where(parts[0].isnan(), torch.from_numpy(nanmedian(parts[0].numpy())), parts[0])
    assert torch.equal(data.splits.train.x[:], expected) and torch.equal(data.splits.test.x[:], expected)
