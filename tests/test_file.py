"""A user's own file: every format gives the same events, and what cannot be used is refused in one sentence."""

import gzip
import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from given import refused
from straylight.data import File, Frame
from straylight.errors import DataError
from straylight.files.formats import open_file
from straylight.files.recipe import Recipe
from straylight.rows.batch import Events
from straylight.rows.mapped import Mapped
from straylight.rows.resonance import Resonance
from straylight.run import Run

N = 80
NUMBERED = (".csv", ".csv.gz", ".tsv", ".parquet", ".npz", ".h5", ".npy")  # .npy by its fields


def columns(n=N, seed=0):
    rng = np.random.default_rng(seed)
    # numbers that text and float32 keep as they are
    return {
        "a": rng.integers(-1000, 1000, n) / 4,
        "b": np.arange(n, dtype=np.int64),
        "mass": rng.integers(1, 100, n) / 2,
        "w": 1 + np.arange(n) % 3 / 4,
        "run": np.arange(n) // 4,
        "y": (np.arange(n) % 8 == 0).astype(np.int64) * (1 + np.arange(n) // 40),
    }


def write(path, table):
    """A table in the format that the path's ending says."""
    name = path.name
    if name.endswith((".csv", ".csv.gz", ".tsv")):
        options = pa.csv.WriteOptions(delimiter="\t" if name.endswith(".tsv") else ",")
        pa.csv.write_csv(pa.table(table), path.with_suffix(".plain"), options)
        text = path.with_suffix(".plain").read_bytes()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    elif name.endswith(".parquet"):
        pq.write_table(pa.table(table), path, row_group_size=30)
    elif name.endswith(".npz"):
        np.savez(path, **table)
    elif name.endswith(".h5"):
        with h5py.File(path, "w") as file:
            for key, values in table.items():
                values = values.astype(object) if values.dtype.kind == "U" else values
                file.create_dataset(key, data=values, chunks=(min(16, len(values)),) if len(values) else None)
    else:
        array = np.empty(len(table["a"]), [(key, values.dtype) for key, values in table.items()])
        for key, values in table.items():
            array[key] = values
        np.save(path, array)
    return path


def loaded(path, **options):
    data = File(path=str(path), **options)
    data.setup()
    return data, data.splits


def same(one, other):
    for a, b in zip(one, other, strict=True):
        for name in ("x", "y", "context", "weight"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0)
        assert a.meta.keys() == b.meta.keys()
        for name in a.meta:
            np.testing.assert_array_equal(a.meta[name], b.meta[name])


ROLES = {"label": "y", "context": ["mass"], "weight": "w", "group": "run", "meta": ["b", "run"]}


@pytest.mark.parametrize("ending", NUMBERED)
def test_every_format_gives_the_events_of_the_same_table(tmp_path, ending):
    table = columns()
    data, splits = loaded(write(tmp_path / f"mine{ending}", table), **ROLES, reserve_fraction=0.3)
    assert data.name == "mine" and data.columns == ["a"] and data.kinds == ("nominal", "1", "2")
    everything = np.concatenate([part.meta["b"] for part in splits])
    assert sorted(everything) == list(range(N))  # disjoint, and all there
    for part in splits:
        rows = part.meta["b"]
        np.testing.assert_array_equal(part.x[:, 0], table["a"][rows])
        np.testing.assert_array_equal(part.y, table["y"][rows])
        np.testing.assert_array_equal(part.context[:, 0], table["mass"][rows])
        np.testing.assert_array_equal(part.meta["group"], table["run"][rows])
    train = splits.train
    ratio = train.weight.numpy() / table["w"][train.meta["b"]]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
    groups = [set(part.meta["group"]) for part in splits[:3]]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] - set(splits.reserve.meta["group"])
    same(splits, loaded(write(tmp_path / "other.csv", table), **ROLES, reserve_fraction=0.3)[1])


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".npz", ".h5"])
def test_text_is_one_hot_encoded_from_every_format(tmp_path, ending):
    table = columns() | {"service": np.array([["http", "smtp", "dns"][i % 3] for i in range(N)])}
    data, splits = loaded(write(tmp_path / f"mine{ending}", table), features=["a", "service"], label="y", meta=["b"])
    assert data.columns == ["a", "service=dns", "service=http", "service=smtp"]
    assert (splits.test.x[:, 1:].argmax(1).numpy() == np.array([1, 2, 0])[splits.test.meta["b"] % 3]).all()
    assert data.recipe()["categories"] == {"service": ["dns", "http", "smtp"]}
    assert data.recipe()["features"] == ["a", "service"]


def arrays(tmp_path, ending, d=4, shape=None):
    x = np.random.default_rng(0).normal(size=(N, *(shape or (d,)))).astype(np.float32)
    y = (np.arange(N) % 8 == 0).astype(np.int64)
    path = tmp_path / f"mine{ending}"
    if ending == ".npz":
        np.savez(path, X=x, y=y, other=np.arange(N))
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("X", data=x, chunks=(7, *x.shape[1:]))
            file["y"], file["other"], file["deep/note"] = y, np.arange(N), "text"
    return path, x, y


@pytest.mark.parametrize("ending", [".npz", ".h5"])
@pytest.mark.parametrize("shape", [(4,), (1, 5, 3)])
@pytest.mark.parametrize("memory", [4096, 0])
def test_a_named_array_is_the_features_or_the_events(tmp_path, ending, shape, memory):
    path, x, _ = arrays(tmp_path, ending, shape=shape)
    data, splits = loaded(path, label="y", meta=["other"], memory_mb=memory)
    assert data.shape == shape and data.kinds == ("nominal", "anomaly")
    assert isinstance(splits.train.x, Mapped) == (ending == ".h5" and not memory)
    for part in splits[:3]:
        np.testing.assert_array_equal(part.x[: len(part)], x[part.meta["other"]])
    assert list(data.columns) == ([f"X[{i}]" for i in range(4)] if len(shape) == 1 else [])


def test_columns_of_an_array_have_roles_of_their_own(tmp_path):
    path, x, _ = arrays(tmp_path, ".npz")
    data, splits = loaded(path, label="y", context="X[1]", meta="other")
    assert data.columns == ("X[0]", "X[2]", "X[3]")
    np.testing.assert_array_equal(splits.test.context[:, 0], x[splits.test.meta["other"], 1])
    np.testing.assert_array_equal(splits.test.x, x[splits.test.meta["other"]][:, [0, 2, 3]])
    data, splits = loaded(path, label="y", features=["X[3]", "X[0]"], meta="other")
    np.testing.assert_array_equal(splits.test.x, x[splits.test.meta["other"]][:, [3, 0]])
    data, _ = loaded(path, label="y", features=["X[3]", "other"])
    assert data.columns == ["X[3]", "other"]


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "f2", "i2", "u2", "longdouble"])
@pytest.mark.parametrize("memory", [4096, 0])
def test_npy_is_read_where_it_lies_without_its_label(tmp_path, dtype, memory):
    x = np.arange(N * 4).reshape(N, 4) % 97
    x[:, 2] = np.arange(N) % 8 == 0
    x[:, 3] = np.arange(N)
    np.save(tmp_path / "mine.npy", x.astype(dtype))
    data, splits = loaded(tmp_path / "mine.npy", label=2, meta=3, memory_mb=memory)
    assert data.columns == ("0", "1") and data.shape == (2,)
    assert isinstance(splits.train.x, Mapped) == (not memory and dtype not in (">f4", "longdouble"))
    for part in splits[:3]:
        rows = part.meta["3"].astype(int)
        np.testing.assert_array_equal(part.x[: len(part)], x[rows][:, :2])
        np.testing.assert_array_equal(part.y, rows % 8 == 0)


def test_mapped_rows_are_contaminated(tmp_path):
    x = np.random.default_rng(0).normal(size=(N, 3))
    x[:, 2] = np.arange(N) % 4 == 0
    np.save(tmp_path / "mine.npy", x)
    _data, splits = loaded(
        tmp_path / "mine.npy", label=2, memory_mb=0, reserve_fraction=0.5, contamination=0.1, overlap="drop"
    )
    assert isinstance(splits.train.x, Mapped) and int((splits.train.y > 0).sum()) == 3


@pytest.mark.parametrize("ending", [".parquet", ".h5"])
def test_columns_larger_than_memory_are_converted_once(tmp_path, ending, monkeypatch):
    path = write(tmp_path / f"mine{ending}", columns())
    monkeypatch.setattr("straylight.files.formats.BYTES", 400)
    _data, splits = loaded(path, **ROLES, memory_mb=0)
    assert isinstance(splits.test.x, Mapped)
    np.testing.assert_array_equal(splits.test.x[: len(splits.test)][:, 0], columns()["a"][splits.test.meta["b"]])
    (made,) = (tmp_path / ".straylight").glob("*/x.npy")
    before = made.stat().st_mtime_ns
    loaded(path, **ROLES, memory_mb=0)
    assert made.stat().st_mtime_ns == before
    loaded(path, label="y", features=["b", "a"], memory_mb=0)
    assert len(list((tmp_path / ".straylight").glob("*/x.npy"))) == 2


@pytest.mark.parametrize(
    "values, nominal, kinds",
    [
        ([0, 1], 0, ("nominal", "anomaly")),
        ([1, -1], 1, ("nominal", "anomaly")),
        ([False, True], False, ("nominal", "anomaly")),
        ([False, True], 0, ("nominal", "anomaly")),
        ([0.0, 2.0, 1.0], 0, ("nominal", "1", "2")),
        ([2, 10, 9], 9, ("nominal", "2", "10")),
        (["BENIGN", "DoS", "Bot"], "BENIGN", ("nominal", "Bot", "DoS")),
        (["a", "b", "c"], ["a", "c"], ("nominal", "b")),
        (["True", "False"], False, ("nominal", "anomaly")),
    ],
    ids=str,
)
def test_each_label_that_is_not_nominal_is_a_kind(tmp_path, values, nominal, kinds):
    labels = np.array([values[i % 2 if i < 60 else i % len(values)] for i in range(N)])
    if nominal == 9:
        labels[: N // 2] = 9
    path = write(tmp_path / "mine.csv", {"a": np.arange(N), "kind": labels})
    data, splits = loaded(path, label="kind", nominal=nominal, meta="kind")
    assert data.kinds == kinds
    wanted = [nominal] if not isinstance(nominal, list) else nominal
    for part in splits:
        for y, was in zip(part.y.tolist(), part.meta["kind"], strict=True):
            assert (y == 0) == (str(was).lower() in [str(w).lower() for w in wanted] or was in wanted)


def test_without_labels_rows_are_split_and_nobody_knows(tmp_path):
    table = columns()
    del table["y"]
    _, splits = loaded(write(tmp_path / "mine.csv", table))
    assert [len(part) for part in splits] == [36, 4, 40, 0] and all((part.y == -1).all() for part in splits)
    _, splits = loaded(tmp_path / "mine.csv", protocol="unsupervised")
    assert [len(part) for part in splits] == [N, 0, N, 0]
    assert "data.contamination" in refused(tmp_path / "mine.csv", contamination=0.1)


def test_a_second_file_is_tested_as_it_is(tmp_path):
    first, second = columns(), columns(20, seed=1)
    second = {name: second[name] for name in reversed(second)}  # in another order
    one, two = write(tmp_path / "one.csv", first), write(tmp_path / "two.parquet", second)
    data, splits = loaded(one, test_path=str(two), label="y", features=["a", "mass"], meta=["b"], val_fraction=0.2)
    assert [len(part) for part in splits] == [N - 14, 14, 20, 0]
    np.testing.assert_array_equal(splits.test.x.numpy(), np.stack([second["a"], second["mass"]], 1))
    assert not splits.val.y.any() and int((splits.train.y > 0).sum()) == 10 and data.kinds == ("nominal", "1", "2")
    rows = np.concatenate([splits.train.meta["b"], splits.val.meta["b"]])
    assert sorted(rows) == list(range(N))
    _, clean = loaded(one, test_path=str(two), label="y", features=["a", "mass"], contamination=0)
    assert not clean.train.y.any() and len(clean.train) == 63
    assert "unsupervised" in refused(one, test_path=str(two), protocol="unsupervised", label="y")


def test_the_file_that_trains_may_lack_the_label(tmp_path):
    first = {name: values for name, values in columns().items() if name != "y"}
    one, two = write(tmp_path / "one.csv", first), write(tmp_path / "two.csv", columns(20))
    data, splits = loaded(one, test_path=str(two), label="y")
    assert (splits.train.y == -1).all() and splits.test.y.tolist() == columns(20)["y"].tolist()
    assert data.columns == ["a", "b", "mass", "w", "run"] and data.recipe()["label"] == "y"
    data, splits = loaded(two, test_path=str(one), label="y")
    assert (splits.test.y == -1).all() and splits.train.y.max() > 0 and len(splits.test) == N
    assert any("no column 'y': its rows are scored, and nothing is ranked" in notice for notice in data.notices)
    assert "'z'" in refused(two, test_path=str(one), label="z")
    assert "5 groups" in loaded(two, test_path=str(two), label="y", group="run")[0].notices[0]


@pytest.mark.parametrize("categorical", [(), ("run",)])
@pytest.mark.parametrize("missing", ["error", "median", "indicator", "skip"])
@pytest.mark.parametrize("unseen", ["error", "other", "skip"])
def test_rows_of_the_second_file_that_do_not_fit_are_refused_filled_in_or_left_out(
    tmp_path, missing, unseen, categorical
):
    first = columns() | {"s": np.array(["u", "v"] * 40)}
    second = columns(20) | {"s": np.array(["u", "v"] * 10)}
    second["a"][3], second["s"][7] = np.nan, "n"
    options = {"label": "y", "unseen": unseen, "missing": missing, "categorical": categorical, "meta": "b"}
    one, two = write(tmp_path / "one.parquet", first), write(tmp_path / "two.parquet", second)
    if missing == "error" or unseen == "error":
        said = refused(one, test_path=str(two), **options)
        assert ("row 8: column 's' holds 'n'" if unseen == "error" else "1 of ") in said
        return
    data, splits = loaded(one, test_path=str(two), **options)
    kept = [i for i in range(20) if not (i == 3 and missing == "skip") and not (i == 7 and unseen == "skip")]
    assert splits.test.meta["b"].tolist() == first["b"][kept].tolist() and splits.test.x.isfinite().all()
    if unseen == "other":
        place = data.columns.index("s=u")
        assert splits.test.x[kept.index(7), place : place + 2].tolist() == [0, 0]
    assert any("1 row" in notice or "1 of" in notice for notice in data.notices)


def test_rows_that_lack_a_value_are_left_out_of_all_splits(tmp_path):
    table = columns() | {"s": np.array(["u", "v", "", "v"] * 20)}
    table["a"][::7] = np.nan
    pq.write_table(
        pa.table({n: pa.array([v or None for v in c]) if n == "s" else c for n, c in table.items()}),
        tmp_path / "mine.parquet",
    )
    data, splits = loaded(tmp_path / "mine.parquet", label="y", missing="skip", meta="b")
    whole = ~np.isnan(table["a"]) & (table["s"] != "")
    assert sorted(b for part in splits for b in part.meta["b"]) == sorted(table["b"][whole])
    assert any(f"{(~whole).sum()} of 80 rows lack a value and are left out" in notice for notice in data.notices)
    (part,) = Recipe.from_json(json.loads(json.dumps(data.recipe()))).read(tmp_path / "mine.parquet")
    np.testing.assert_array_equal(part.kept, np.flatnonzero(whole))
    assert set(part.reasons) == set(np.flatnonzero(~whole))


def test_a_second_file_of_arrays(tmp_path):
    path, x, y = arrays(tmp_path, ".npz")
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["X"], file["y"] = x[:30], y[:30]
    _data, splits = loaded(path, test_path=str(tmp_path / "two.h5"), label="y", context=["X[0]"])
    assert torch.equal(splits.test.x, torch.from_numpy(x[:30, 1:])) and splits.test.y.tolist() == y[:30].tolist()
    with h5py.File(tmp_path / "three.h5", "w") as file:
        file["X"], file["y"] = x[:30, :3], y[:30]
    assert "no column 'X[3]'" in refused(path, test_path=str(tmp_path / "three.h5"), label="y")


def test_a_category_of_the_second_file_makes_no_feature(tmp_path):
    first = columns() | {"s": np.array(["u", "v"] * 40)}
    second = columns(20) | {"s": np.array(["u", "new"] * 10)}
    one, two = write(tmp_path / "one.csv", first), write(tmp_path / "two.csv", second)
    data, splits = loaded(one, test_path=str(two), label="y", features=["a", "s"])
    assert data.columns == ["a", "s=u", "s=v"] and splits.test.x[:, 1:].sum() == 10
    assert any("10 rows hold a category of column 's'" in notice for notice in data.notices)


# a resonance


def masses(n=400, seed=0, **more):
    rng = np.random.default_rng(seed)
    m = rng.integers(3000, 4500, n) / 1000
    return {
        "m": m,
        "a": rng.normal(size=n).astype(np.float32),
        "b": rng.normal(size=n).astype(np.float32),
        "row": np.arange(n),
        "y": (rng.random(n) < 0.2).astype(np.int64),
        **more,
    }


RESONANCE = {"resonance": "m", "signal_region": [3.3, 3.7], "label": "y", "meta": ["row"]}


def of_region(table, region="signal", low=3.3, high=3.7):
    m = table["m"].astype(np.float32)
    there = (m >= np.float32(low)) & (m <= np.float32(high))
    return np.flatnonzero({"signal": there, "sidebands": ~there, "both": there | ~there}[region])


@pytest.mark.parametrize("ending", NUMBERED)
@pytest.mark.parametrize("region", ["both", "signal", "sidebands"])
def test_all_rows_of_a_region_train_as_found_and_those_of_the_signal_region_are_tested(tmp_path, ending, region):
    table = masses()
    table["m"][:2] = 3.3, 3.7  # which belong to it
    data, (train, val, test, reserve) = loaded(write(tmp_path / f"mine{ending}", table), **RESONANCE, region=region)
    assert tuple(data.columns) == ("a", "b") and not len(val) and not len(reserve)
    assert data.resonance == Resonance("m", 0, 3.3, 3.7) and data.recipe()["context"] == ["m"]
    np.testing.assert_array_equal(train.meta["row"].astype(int), of_region(table, region))
    np.testing.assert_array_equal(test.meta["row"].astype(int), of_region(table))
    for part in (train, test):
        rows = part.meta["row"].astype(int)
        np.testing.assert_array_equal(part.context[:, 0], table["m"][rows].astype(np.float32))
        np.testing.assert_array_equal(part.x, np.stack([table["a"], table["b"]], 1)[rows])
        np.testing.assert_array_equal(part.y, table["y"][rows])
    assert data.resonance.holds(test.context).all()
    (notice,) = (notice for notice in data.notices if "train as found" in notice)
    assert f"all {len(train)} rows" in notice and f"the {len(test)} with m within [3.3,3.7] are tested" in notice
    assert ("seen in training" in notice) == (data.title == "mine (unsupervised)") == (region != "sidebands")


@pytest.mark.parametrize("memory", [4096, 0])
def test_a_resonance_is_a_column_of_an_array_and_stays_on_disk(tmp_path, memory):
    table = masses()
    np.save(tmp_path / "mine.npy", np.stack([table["a"], table["m"], table["b"], table["row"], table["y"]], 1))
    options = {"label": 4, "meta": 3, "resonance": 1, "signal_region": [3.3, 3.7]}
    data, splits = loaded(tmp_path / "mine.npy", **options, memory_mb=memory)
    assert isinstance(splits.train.x, Mapped) == (not memory) and data.columns == ("0", "2")
    np.testing.assert_array_equal(splits.test.meta["3"].astype(int), of_region(table))
    np.testing.assert_array_equal(splits.test.x[: len(splits.test)][:, 0], table["a"][of_region(table)])
    assert len(splits.train) == 400 and data.resonance.name == "1"


def test_a_resonance_is_one_column_of_context_among_others(tmp_path):
    path = write(tmp_path / "mine.csv", masses())
    for context, column in (["a", "m"], 1), (["m", "a"], 0), (["a"], 1):
        data, splits = loaded(path, **RESONANCE, context=context)
        assert data.resonance.column == column and splits.train.context.shape == (400, 2)
        assert data.resonance.holds(splits.test.context).all() and tuple(data.columns) == ("b",)


def test_labels_of_a_resonance_are_of_use_but_no_truth(tmp_path):
    table = masses()
    path = write(tmp_path / "mine.parquet", table)
    data, splits = loaded(path, **RESONANCE, contamination=0)
    assert not splits.train.y.any() and len(splits.train) == int((table["y"] == 0).sum()) and splits.test.y.any()
    with pytest.raises(DataError, match="does not know which events are signal"):
        data.truth()
    unlabelled = {name: values for name, values in table.items() if name != "y"}
    data, splits = loaded(write(tmp_path / "bare.parquet", unlabelled), **{**RESONANCE, "label": None})
    assert (splits.train.y == -1).all() and (splits.test.y == -1).all() and len(splits.train) == 400


@pytest.mark.parametrize("region", ["both", "signal", "sidebands"])
@pytest.mark.parametrize("labelled", [True, False])
def test_of_a_second_file_the_rows_of_the_signal_region_are_tested(tmp_path, region, labelled):
    first, second = masses(), masses(100, seed=1)
    if not labelled:
        first.pop("y")
    one, two = write(tmp_path / "one.csv", first), write(tmp_path / "two.parquet", second)
    data, (train, val, test, _) = loaded(one, **RESONANCE, test_path=str(two), region=region, val_fraction=0.2)
    np.testing.assert_array_equal(test.meta["row"].astype(int), of_region(second))
    rows = np.concatenate([train.meta["row"], val.meta["row"]]).astype(int)
    np.testing.assert_array_equal(np.sort(rows), of_region(first, region))
    assert len(val) == pytest.approx(0.2 * len(rows), abs=6 * len(rows) ** 0.5 / 2) and data.protocol == "nominal_only"
    if labelled and region == "both":
        assert val.y.any() and abs(val.y.float().mean() - train.y.float().mean()) < 0.15, "as found, both of them"


def test_values_of_the_resonance_stay_in_the_units_of_its_region(tmp_path):
    """However near each other they are: other columns have an offset taken out."""
    rng = np.random.default_rng(0)
    near = 3500 + rng.random(4000) / 1000
    table = masses(4000, m=near, a=near[rng.permutation(4000)])
    data, splits = loaded(write(tmp_path / "mine.parquet", table), **{**RESONANCE, "signal_region": [3400, 3500.0005]})
    assert "a" in data.recipe()["centres"] and "m" not in data.recipe()["centres"]
    np.testing.assert_array_equal(splits.train.context[:, 0], near.astype(np.float32))
    np.testing.assert_array_equal(splits.test.meta["row"].astype(int), of_region(table, "signal", 3400, 3500.0005))


def test_the_recipe_of_a_resonance_scores_another_file(straylight_train, tmp_path):
    path = write(tmp_path / "mine.csv", masses())
    words = ["data.resonance=m", "data.signal_region=[3.3,3.7]", "data.label=y", "data.meta=[row]"]
    ended = straylight_train("data=file", f"data.path={path}", *words, "detector=knn")
    assert ended.status == 0, ended.err
    assert ended.result["data"] == "mine (unsupervised)"
    assert any("400 rows of the file train as found" in notice for notice in ended.result["notices"])
    kept = pq.read_table(ended.run / "scores.parquet").to_pydict()
    again = {name: masses()[name] for name in ("b", "m", "a")}
    scores = Run.open(ended.run).score(write(tmp_path / "new.parquet", again))
    np.testing.assert_array_equal(scores[of_region(masses())], np.float32(kept["score"]))
    again.pop("m")
    with pytest.raises(DataError, match="no column 'm'"):
        Run.open(ended.run).score(write(tmp_path / "new.csv", again))


@pytest.mark.parametrize(
    ("more", "options", "said"),
    [
        ({}, {"signal_region": None}, "data.resonance=m needs the limits"),
        ({}, {"resonance": None}, "data.signal_region and data.region are of a resonance"),
        ({}, {"resonance": None, "signal_region": None, "region": "signal"}, "say in which column it is"),
        ({}, {"signal_region": [3.7, 3.3]}, "data.signal_region must be two numbers, the lower first"),
        ({}, {"signal_region": [3.3]}, "data.signal_region must be two numbers"),
        ({}, {"signal_region": [3.3, float("nan")]}, "data.signal_region must be two numbers"),
        ({}, {"signal_region": ["x", 3]}, "data.signal_region must be two numbers"),
        ({}, {"region": "middle"}, "data.region must be one of signal, sidebands, both"),
        ({}, {"features": ["a", "m"]}, "data.features names 'm', the resonance"),
        ({"m2": masses()["m"]}, {}, "feature 'm2' rises with 'm', the resonance, in every row"),
        ({"m2": -(masses()["m"] ** 3)}, {}, "feature 'm2' falls with 'm'"),
        ({"m2": np.floor(masses()["m"] * 4)}, {"features": ["a", "m2"]}, "leave it out of data.features"),
        ({"m": np.full(400, 3.5)}, {}, "mine.csv: m is 3.5 in every row, and a resonance must vary"),
        ({}, {"signal_region": [5, 6]}, "data.signal_region=[5,6] lies outside the data, whose m is 3.0"),
        ({}, {"signal_region": [3.3001, 3.3008]}, "none of 400 rows has m within data.signal_region"),
        ({}, {"signal_region": [3.5, 3.50001]}, "too narrow for single precision, which takes m there in steps of"),
        ({}, {"signal_region": [2, 5]}, "data.region=both needs sidebands, and all 400 rows have m within"),
        ({}, {"signal_region": [2, 5], "region": "sidebands"}, "or set data.region=signal"),
        ({"m": np.where(np.arange(400) == 3, np.nan, masses()["m"])}, {}, "1 of 400 rows lack a value of column 'm'"),
        ({"m": np.array(["x", "y"] * 200)}, {}, "column 'm'"),
        ({}, {"resonance": "mass"}, "no column 'mass'"),
        ({}, {"resonance": "y"}, "column 'y' has two roles"),
        ({}, {"protocol": "dte"}, "data.protocol=dte draws rows for training"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_resonance_is_said_in_one_sentence(tmp_path, more, options, said):
    path = write(tmp_path / "mine.csv", masses(**more))
    assert said in refused(path, **{**RESONANCE, **options})


def test_a_second_file_must_have_rows_in_the_signal_region(tmp_path):
    one, two = write(tmp_path / "one.csv", masses()), write(tmp_path / "two.csv", masses(m=masses()["m"] + 2))
    assert "two.csv: data.signal_region=[3.3,3.7] lies outside the data" in refused(
        one, **RESONANCE, test_path=str(two)
    )
    assert len(loaded(one, **{**RESONANCE, "signal_region": [2, 5]}, region="signal")[1].train) == 400


def test_a_table_in_memory_has_a_resonance(tmp_path):
    table = masses()
    data = Frame(pa.table(table), **RESONANCE)
    data.setup()
    same(data.splits, loaded(write(tmp_path / "mine.csv", table), **RESONANCE)[1])


# another file, by the recipe of the first


def read(path, recipe):
    """All events of a file in one piece."""
    parts = list(Recipe.from_json(recipe).read(path))
    x, context = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "context"))
    return Events.of(x, context=context)


@pytest.mark.parametrize("missing", ["error", "median", "indicator"])
def test_a_recipe_makes_the_same_events_of_the_file_it_is_of(tmp_path, missing):
    table = columns() | {"s": np.array(["u", "v", "w", "x"] * 20)}
    if missing != "error":
        table["a"][::5] = np.nan
    path = write(tmp_path / "mine.parquet", table)
    data, splits = loaded(path, features=["s", "a", "w"], label="y", context="mass", meta="b", missing=missing)
    recipe = json.loads(json.dumps(data.recipe()))
    again = {name: table[name] for name in ("w", "mass", "s", "a")}  # in another order, and without a label
    events = read(write(tmp_path / "new.csv", again), recipe)
    assert recipe["kinds"] == ["nominal", "1", "2"]
    for part in splits:
        assert torch.equal(part.x, events.x[part.meta["b"]])
        assert torch.equal(part.context, events.context[part.meta["b"]])
    assert len(data.columns) == events.x.shape[1]


def test_a_recipe_holds_for_arrays(tmp_path):
    x = np.arange(N * 3.0).reshape(N, 3)
    x[:, 1] = np.arange(N) % 8 == 0
    np.save(tmp_path / "mine.npy", x)
    data, _splits = loaded(tmp_path / "mine.npy", label=1, meta=0, features=["2", "0"])
    events = read(tmp_path / "mine.npy", data.recipe())
    np.testing.assert_array_equal(events.x, x[:, [2, 0]])
    path, images, _ = arrays(tmp_path, ".h5", shape=(1, 5, 3))
    data, _ = loaded(path, label="y")
    np.testing.assert_array_equal(read(path, data.recipe()).x, images)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"a": None}, "no column 'a'"),
        ({"a": np.array(["t"] * N)}, "row 1: column 'a' holds 't', which is no number"),
        ({"a": np.full(N, np.nan)}, "row 1: 'a' is missing"),
        ({"s": np.array(["u", ""] * 40)}, "row 2: 's' is missing"),
        ({"mass": np.full(N, np.nan)}, "row 1: 'mass' is missing; a density is conditioned on it"),
    ],
)
def test_a_file_that_does_not_fit_the_recipe_is_refused(tmp_path, change, said):
    table = columns() | {"s": np.array(["u", "v"] * 40)}
    data, _ = loaded(write(tmp_path / "mine.csv", table), features=["a", "s"], label="y", context="mass")
    new = {name: values for name, values in (table | change).items() if values is not None}
    if change.get("s") is not None:  # an empty text is written in quotes, which says that it is none
        (tmp_path / "new.csv").write_text("a,mass,s\n1,2,u\n1,2,\n")
    else:
        write(tmp_path / "new.csv", new)
    with pytest.raises(DataError) as error:
        read(tmp_path / "new.csv", data.recipe())
    assert said in str(error.value) and "new.csv" in str(error.value)


# what must not happen


NAMES = ["y", "Label", "is_anomaly", "TARGET", "Class", "attack_cat", "isFraud", "Outlier", "Attack_label", "label.2"]
NAMES += ["events/label", "true labels", "binaryTarget", "Type of Attack", "is_outlier", "fraud_bool"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", [".csv", ".npz"])
def test_a_label_never_becomes_a_feature_unseen(tmp_path, name, ending):
    table = {"a": np.arange(N), name: np.arange(N) % 2}
    path = write(tmp_path / f"mine{ending}", table)
    said = refused(path)
    assert repr(name) in said and f"data.label={name}" in said and "data.features" in said
    assert loaded(path, features="a")[0].columns == ["a"]
    assert loaded(path, meta=name)[0].columns == ["a"]
    assert loaded(path, label=name)[0].columns == ["a"]
    assert repr(name) in refused(write(tmp_path / f"two{ending}", table | {"z": np.arange(N) % 2}), label="z")


@pytest.mark.parametrize("name", ["status", "outcome", "Normal", "diagnosis", "event class"])
def test_what_may_be_a_label_is_asked_for_where_none_is_named(tmp_path, name):
    table = {"a": np.arange(N), name: np.arange(N) % 2, "z": np.arange(N) % 2}
    assert repr(name) in refused(write(tmp_path / "mine.csv", table))
    assert loaded(tmp_path / "mine.csv", label="z")[0].columns == ["a", name]


@pytest.mark.parametrize("name", ["class_size", "vehicle_class", "signal_strength", "target_temp", "valid", "faulty"])
def test_a_feature_that_is_called_like_no_label_is_one(tmp_path, name):
    table = {"a": np.arange(N), name: np.arange(N) % 3, "z": np.arange(N) % 2}
    assert loaded(write(tmp_path / "mine.csv", table), label="z")[0].columns == ["a", name]


def test_a_label_beside_an_array_is_asked_for(tmp_path):
    path, *_ = arrays(tmp_path, ".npz")
    assert "'y'" in refused(path) and "data.label=y" in refused(path)
    _data, splits = loaded(path, features="X")
    assert (splits.test.y == -1).all()
    assert "'other' of mine.npz has no role" in loaded(path, label="y")[0].notices[0]


def test_row_numbers_of_pandas_are_no_feature(tmp_path):
    text = ",a\n" + "".join(f"{i},{i * 2}\n" for i in range(N))
    (tmp_path / "mine.csv").write_text(text)
    data, _ = loaded(tmp_path / "mine.csv")
    assert data.columns == ["a"] and "has no role" in data.notices[0]


@pytest.mark.parametrize("name", ["id", "ID", "row_id", "Row No.", "uuid", "index", "__index_level_1__", "record id"])
@pytest.mark.parametrize("ending", [".csv", ".npz"])
def test_a_number_of_the_row_is_no_feature_unless_asked_for(tmp_path, name, ending):
    path = write(tmp_path / f"mine{ending}", {name: np.arange(N), "a": np.arange(N) % 5, "y": np.arange(N) % 2})
    data, _ = loaded(path, label="y")
    assert data.columns == ["a"] and f"{name!r} of mine{ending} has no role" in data.notices[0]
    assert loaded(path, label="y", features=[name, "a"])[0].columns == [name, "a"]


def test_an_index_that_pandas_named_is_no_feature(tmp_path):
    table = pa.table({"a": np.arange(N) % 5, "flow": np.arange(N), "y": np.arange(N) % 2})
    said = {b"pandas": b'{"index_columns": ["flow", {"kind": "range"}], "columns": []}'}
    pq.write_table(table.replace_schema_metadata(said), tmp_path / "mine.parquet")
    data, _ = loaded(tmp_path / "mine.parquet", label="y")
    assert data.columns == ["a"] and "'flow' of mine.parquet has no role" in data.notices[0]


def telling_table(n=400):
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.25).astype(int)
    return {
        "ordinary": rng.normal(size=n),
        "few": rng.integers(0, 3, n),
        "shuffled": rng.permutation(n) * 3,
        "backwards": np.arange(n)[::-1] / 7,
        "code": rng.random(n) - 5 * y,
        "still": np.where(y == 1, rng.integers(0, 2, n), 7),
        "fixed": np.ones(n),
        "y": y,
    }


@pytest.mark.parametrize("ending", [".csv", ".npz", ".parquet"])
@pytest.mark.parametrize("second", [False, True])
def test_features_that_tell_too_much_or_nothing_are_named(tmp_path, ending, second):
    path = write(tmp_path / f"mine{ending}", telling_table())
    tested = {"test_path": write(tmp_path / f"other{ending}", telling_table(300))} if second else {}
    data, _ = loaded(path, label="y", **tested)
    said = {
        **({} if second else {"constant in training": {"still"}}),  # anomalies of the first file would train
        "alone": {"code", "still"},
        "sorted along": {"backwards"},
        "no two rows": {"shuffled"},
    }
    for words, names in said.items():
        (notice,) = [n for n in data.notices if words in n]
        assert {name for name in telling_table() if repr(name) in notice} == names, notice
    unlabelled, _ = loaded(path, features=["ordinary", "code", "few"])
    assert not unlabelled.notices


def test_features_that_tell_too_much_are_named_with_values_missing(tmp_path):
    table = {name: values.astype(float) for name, values in telling_table().items()}
    table["code"][::7] = table["ordinary"][3] = np.nan
    data, _ = loaded(write(tmp_path / "mine.csv", table), label="y", missing="median")
    (notice,) = [n for n in data.notices if "alone" in n]
    assert "'code'" in notice and "'ordinary'" not in notice


@pytest.mark.parametrize("memory", [4096, 0])
def test_of_many_rows_some_from_all_over_are_looked_at(tmp_path, monkeypatch, memory):
    monkeypatch.setattr("straylight.data.steps.telling.VALUES", 7 * 100)
    data, _ = loaded(write(tmp_path / "mine.parquet", telling_table(4000)), label="y", memory_mb=memory)
    said = " ".join(data.notices)
    assert "'backwards' is sorted" in said and "'shuffled' is a whole number" in said and "'code', 'still'" in said


def test_what_the_columns_are_for_is_said_before_training(tmp_path, caplog):
    path = write(tmp_path / "mine.csv", telling_table() | {"word": np.where(np.arange(400) % 2, "a", "b")})
    with caplog.at_level("INFO"):
        loaded(path, label="y", context="few", meta=["shuffled", "backwards"])
    said = caplog.text
    assert "4 features ordinary, code, still, fixed" in said and "2 features of categories word (2)" in said
    assert "label y" in said and "context few" in said and "meta shuffled, backwards" in said


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    trap = np.array([Trap()] * 3, dtype=object)
    np.save(tmp_path / "trap.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "trap.npz", X=trap)
    assert "trap.npy" in refused(tmp_path / "trap.npy") and "trap.npz" in refused(tmp_path / "trap.npz")


# unfit files


@pytest.mark.parametrize("ending", NUMBERED)
@pytest.mark.parametrize("spoil", ["gone", "empty", "cut", "noise", "no rows"])
def test_a_damaged_file_is_refused_by_its_name(tmp_path, ending, spoil):
    path = write(tmp_path / f"mine{ending}", columns())
    whole = path.read_bytes()
    match spoil:
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "cut":
            if ending in (".csv", ".tsv"):
                whole = whole[: whole.rfind(b"," if ending == ".csv" else b"\t")]  # a last line of fewer columns
            path.write_bytes(whole[: len(whole) if ending in (".csv", ".tsv") else len(whole) * 2 // 3])
        case "noise":
            path.write_bytes(np.random.default_rng(0).bytes(5000))
        case "no rows":
            write(path, columns(0))
    assert path.name in refused(path, label="y")


@pytest.mark.parametrize(
    "text, options, said",
    [
        ("a,b\n1,2\n", {"label": "lable"}, "has no column 'lable'"),
        ("a,Label\n1,2\n", {"label": "lable"}, "did you mean 'Label'?"),
        ("a,a\n1,2\n", {}, "more than one column 'a'"),
        ("1.5,2\n1,2\n", {}, "numbers in its first line"),
        ("a;b\n1;2\n", {}, "separate columns by commas"),
        ("a\n", {}, "no rows"),
        ("a,b\n1,2\n3\n", {}, "2 columns"),
        ("a,when\n1,2020-01-02\n2,2020-01-03\n", {}, "column 'when' holds dates"),
        ("a,n\n1,2\n1,3\n1,x\n", {}, "'n' holds numbers in most rows, and 'x'"),
        ("a,y\n1,0\n2,\n3,1\n", {"label": "y"}, "1 of 3 rows lack a value of column 'y', the label"),
        ("a,w\n1,1\n2,\n3,\n", {"weight": "w"}, "2 of 3 rows lack a value of column 'w', the weight"),
        ("a,g\n1,1\n2,\n3,\n", {"group": "g"}, "2 of 3 rows lack a value of column 'g', the group"),
        ("a,c\n1,1\n2,nan\n", {"context": "c"}, "column 'c', the context"),
        ("a,c\n1,x\n2,z\n", {"context": "c"}, "column 'c' must hold numbers"),
        ("a,s\n1,u\n2,\n3,v\n", {}, "column 's' lacks 1 value;"),
        ("a,s\n1,u\n2,\n3,v\n", {"features": ["a", "x"]}, "no column 'x'"),
        ("a,y\n1,u\n2,v\n", {"label": "y"}, "holds no 0"),
        ("a,y\n1,u\n2,v\n", {"label": "y", "nominal": ["u", "w"]}, "holds no 'w'"),
        ("a,y\n1,0\n2,1\n", {"label": "y", "nominal": "benign"}, "holds no 'benign'"),
        ("a,b\n1,0\n2,1\n", {"label": "b", "features": ["a", "b"]}, "'b' has two roles"),
        ("a,b\n1,0\n2,1\n", {"label": "b", "context": ["a"]}, "no column left to be a feature"),
        ("a,group\n1,0\n2,1\n", {"meta": "group"}, "data.group"),
        ("a,b\n1,0\n2,1\n", {"features": "a", "categorical": "b"}, "data.categorical names 'b'"),
        ("a,b\n" + "".join(f"{i},{i}\n" for i in range(200)), {"label": "b"}, "200 different values"),
        ("a,b\n" + "".join(f"{i},t{i}\n" for i in range(1200)), {}, "1,200 different texts"),
        ("a,b\n1,inf\n2,3\n4,5\n", {}, "column 'b' (1 row)"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(tmp_path, text, options, said):
    (tmp_path / "mine.csv").write_text(text)
    assert said in refused(tmp_path / "mine.csv", **{"train_fraction": 1.0, "val_fraction": 0.0} | options)


def test_a_number_after_megabytes_of_whole_ones_is_read(tmp_path):
    rows = "".join(f"{i},{i % 7}\n" for i in range(600_000))
    (tmp_path / "mine.csv").write_text("a,b\n" + rows + "0.5,x\n")
    table = open_file(tmp_path / "mine.csv").table(["a", "b"])
    assert table["a"][-1].as_py() == 0.5 and table["b"][-1].as_py() == "x"


@pytest.mark.parametrize(
    "name, arrays_, options, said",
    [
        ("k.npz", {"X": np.zeros((9, 2)), "Z": np.zeros((9, 3))}, {}, "X (9, 2), Z (9, 3); say data.features=NAME"),
        ("k.npz", {"X": np.zeros((9, 2)), "y": np.zeros(8)}, {"label": "y"}, "8 rows"),
        ("k.npz", {"X": np.full((9, 2), "a"), "y": np.zeros(9)}, {"label": "y"}, "must hold numbers in X"),
        ("k.npz", {"a": np.zeros(9), "b": np.zeros(8)}, {}, "'b' has 8 rows"),
        ("k.npz", {}, {}, "no rows"),
        ("k.npz", {"X": np.zeros((9, 2))}, {"features": ["X", "X[0]"]}, "name it alone"),
        ("k.npz", {"X": np.zeros((9, 2))}, {"label": "X[2]"}, "'X[2]' (did you mean"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_sentence(tmp_path, name, arrays_, options, said):
    np.savez(tmp_path / name, **arrays_)
    assert said in refused(tmp_path / name, **options)


def test_a_path_is_needed_and_of_a_format_that_is_known(tmp_path):
    with pytest.raises(DataError, match=r"data\.path=FILE"):
        File()
    (tmp_path / "mine.xls").write_text("a")
    assert ".parquet" in refused(tmp_path / "mine.xls")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(20, 60), st.integers(0, 9), st.sampled_from([0.3, 0.5, 0.8]), st.sampled_from([0.0, 0.4]))
def test_splits_of_a_file_cover_it_and_are_disjoint(tmp_path, n, seed, train, reserve):
    path = write(tmp_path / f"{n}.npz", columns(n))
    _, splits = loaded(path, label="y", meta="b", seed=seed, train_fraction=train, reserve_fraction=reserve)
    assert sorted(np.concatenate([part.meta["b"] for part in splits])) == list(range(n))
    assert all(isinstance(part, Events) for part in splits) and not splits.train.y.any()


# from the command line


def test_a_file_is_trained_on_from_the_command_line(straylight_train, tmp_path):
    path = write(tmp_path / "mine.csv", columns(200) | {"s": np.array(["u", "v"] * 100)})
    ended = straylight_train(
        "data=file", f"data.path={path}", "data.label=y", "data.features=[a,b,s]", "data.meta=[run]"
    )
    assert ended.status == 0, ended.err
    assert ended.result["status"] == "ok" and ended.result["data"] == "mine"


@pytest.mark.parametrize(
    "override, said",
    [
        ([], "data.path=FILE"),
        (["data.path=PATH"], "data.label=y"),
        (["data.path=PATH", "data.label=Y"], "did you mean 'y'?"),
        (["data.path=PATH", "data.label=y", "data.features=[a,c]"], "no column 'c'"),
        (["data.path=PATH", "data.lable=y"], "'label'"),
        (["data.path=PATH.gz"], "no file"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence_of_the_command(straylight_train, tmp_path, override, said):
    path = write(tmp_path / "mine.csv", columns())
    ended = straylight_train("data=file", *(o.replace("PATH", str(path)) for o in override))
    lines = [line for line in ended.err.splitlines() if line.strip()]
    assert ended.status == 1 and len(lines) == 1 and lines[0].startswith("Error: ") and said in lines[0], ended.err


# a run scores another file


def test_a_run_scores_a_file_whose_columns_stand_in_another_order_and_lack_other_values(straylight_train, tmp_path):
    table = columns() | {"s": np.array(["u", "v", "w", "x"] * 20)}
    table["a"][::5] = np.nan
    path = write(tmp_path / "mine.csv", table)
    ended = straylight_train(
        "data=file", f"data.path={path}", "data.label=y", "data.missing=median", "data.features=[s,a,w]", "detector=knn"
    )
    run, again = Run.open(ended.run), {name: table[name] for name in ("w", "mass", "s", "a")}
    scores = run.score(write(tmp_path / "new.parquet", again))
    kept = pq.read_table(ended.run / "scores.parquet").to_pydict()
    _, splits = loaded(path, features=["s", "a", "w"], label="y", missing="median", meta="b")
    np.testing.assert_array_equal(scores[splits.test.meta["b"].astype(int)], np.float32(kept["score"]))
    np.testing.assert_array_equal(run.score(pa.table(again).select(["s", "w", "a"])), scores)
    assert run.p_values(pa.table(again)).shape == (N,)
    with pytest.raises(DataError, match="no column 's'"):
        run.score(pa.table({"w": again["w"], "a": again["a"]}))
    again["w"] = np.where(np.arange(N) == 3, np.nan, again["w"])  # of which no training row lacked a value
    assert np.isfinite(run.score(write(tmp_path / "new.csv", again))).all()
    again.pop("w")
    with pytest.raises(DataError, match="no column 'w'"):
        run.score(write(tmp_path / "new.csv", again))


def test_a_run_on_other_data_scores_the_one_array_of_a_file_that_holds_such_events(straylight_train, tmp_path):
    run = Run.open(straylight_train("data=blobs", "detector=knn").run)
    (tmp_path / "new.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"must hold one array of events of shape \(N, 2\).*data=file"):
        run.score(tmp_path / "new.csv")
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    np.savez(tmp_path / "new.npz", X=x, y=np.zeros(5), other=np.zeros((5, 3)))
    np.testing.assert_array_equal(run.score(tmp_path / "new.npz"), run.score(x))
