"""A row of a file becomes the same event wherever it stands: in training, in a chunk, alone, and in another format."""

import gzip
import itertools
import json
import re
import tracemalloc

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from straylight.data import File
from straylight.errors import DataError
from straylight.files.fitting import Tally
from straylight.files.formats import open_file
from straylight.files.recipe import Recipe, of_arrays
from straylight.files.resolution import learnt, sampled
from straylight.files.roles import Roles
from straylight.run import Run

N = 60
ENDINGS = (".csv", ".csv.gz", ".tsv", ".parquet", ".npz", ".h5", ".npy")
CODES = ("007", "7", "x07", "true", "2020-01-02", "nix")
NULLS = (".csv", ".csv.gz", ".tsv", ".parquet")  # which tell a text or a whole number that is missing


def mixture(ending, missing):
    """A column of each type that the format knows, hard to read alone; with some values missing if that is allowed."""
    rng = np.random.default_rng(0)
    even = np.arange(N) % 2 == 0
    table = {
        "id": pa.array(np.arange(N)),
        "y": pa.array((np.arange(N) % 8 == 0).astype(np.int64)),
        "small": pa.array(rng.integers(0, 3, N).astype(np.int8)),
        "large": pa.array(rng.integers(2**60, 2**62, N) | 1),
        "unsigned": pa.array(rng.integers(2**62, 2**63, N).astype(np.uint64) * 2 + 1),
        "real": pa.array(rng.normal(size=N) * 10.0 ** rng.integers(-30, 30, N)),
        "mostly whole": pa.array(np.where(np.arange(N) == 50, 0.5, rng.integers(2**54, 2**60, N))),
        "float32": pa.array(rng.normal(size=N).astype(np.float32)),
        "flag": pa.array(even),
        "code": pa.array([CODES[i % 6] for i in range(N)]),
        "port": pa.array(rng.integers(0, 4, N) * 2**58 + 1),
        "level": pa.array(rng.choice([0.5, 1.0, 1e20, -3.0], N)),
        "lit": pa.array(even),
        "mass": pa.array(rng.integers(1, 9, N)),
        "other mass": pa.array(rng.normal(size=N)),
    }
    if missing != "error":
        lacking = np.arange(N) % 7 == 3
        for name in ("real", "mostly whole", "float32", "level"):
            values = table[name].to_numpy()
            table[name] = pa.array(np.where(lacking, np.nan, values).astype(values.dtype))
        if ending in NULLS:
            for name in ("small", "large", "flag", "code", "port", "lit"):
                values = table[name].to_pylist()
                table[name] = pa.array(
                    [None if gone else v for v, gone in zip(values, lacking, strict=True)], table[name].type
                )
            table["almost empty"] = pa.array([i if i in (1, 2, 9, 17, 22, 31, 45) else None for i in range(N)])
    return pa.table(table)


def write(path, table, rows=13):
    """A table in the format that the path's ending says, in pieces of so many rows where it has such."""
    name = path.name
    if name.endswith((".csv", ".csv.gz", ".tsv")):
        plain = path.with_suffix(".plain")
        pa.csv.write_csv(table, plain, pa.csv.WriteOptions(delimiter="\t" if name.endswith(".tsv") else ","))
        path.write_bytes(gzip.compress(plain.read_bytes()) if name.endswith(".gz") else plain.read_bytes())
        return path
    if name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=rows)
        return path
    arrays = {n: table[n].combine_chunks().to_numpy(zero_copy_only=False) for n in table.column_names}
    if name.endswith(".h5"):
        with h5py.File(path, "w") as file:
            for n, values in arrays.items():
                file.create_dataset(n, data=values, chunks=(min(rows, len(values)),))
        return path
    arrays = {n: values.astype("U") if values.dtype == object else values for n, values in arrays.items()}
    if name.endswith(".npz"):
        np.savez_compressed(path, **arrays)
        return path
    rows = np.empty(len(table), [(n, values.dtype) for n, values in arrays.items()])
    for n, values in arrays.items():
        rows[n] = values
    np.save(path, rows)
    return path


def served(path, **options):
    """Features and context of all rows of a file as its splits have them, in the file's order, and the recipe."""
    data = File(path=str(path), label="y", meta="id", reserve_fraction=0.3, **options)
    order = np.argsort(np.concatenate([part.meta["id"] for part in data.splits]))
    x, context = (torch.cat([getattr(p, name)[: len(p)] for p in data.splits])[order] for name in ("x", "context"))
    return x, context, Recipe.from_json(json.loads(json.dumps(data.recipe()))), data


def joined(events):
    parts = list(events)
    return torch.cat([part.x for part in parts]), torch.cat([part.context for part in parts])


def columns_of(recipe):
    return [*recipe.roles.features, *recipe.roles.context]


def equal(one, other):
    assert all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(one, other, strict=True))


CATEGORICAL = ["port", "level", "lit"]
CONTEXT = ["mass", "other mass"]


@pytest.mark.parametrize("missing", ["error", "median", "indicator"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_row_is_the_same_event_in_training_in_any_chunk_alone_and_in_another_format(tmp_path, ending, missing):
    table = mixture(ending, missing)
    path = write(tmp_path / f"mine{ending}", table)
    *expected, recipe, data = served(path, categorical=CATEGORICAL, context=CONTEXT, missing=missing)
    assert expected[0].shape == (N, len(data.columns)) and recipe.categories["code"] == sorted(CODES)
    equal(joined(recipe.read(path)), expected)
    for rows in (1, 7, N - 1, N):
        chunks = list(open_file(path).chunks(columns_of(recipe), rows))
        assert [len(chunk) for chunk in chunks] == [min(rows, N - start) for start in range(0, N, rows)]
        equal(joined(recipe.parts(chunks)), expected)
    for row in (0, 3, 10, 14, 27, 50):
        alone = write(tmp_path / f"{row}{ending}", table.slice(row, 1))
        equal(joined(recipe.read(alone)), [part[row : row + 1] for part in expected])
    backwards = table.select(sorted(columns_of(recipe), reverse=True))  # another order, and neither label nor meta
    for other in ENDINGS if ending not in NULLS or missing == "error" else NULLS:
        equal(joined(recipe.read(write(tmp_path / f"other{other}", backwards))), expected)


@pytest.mark.parametrize("memory", [4096, 0])
@pytest.mark.parametrize("dtype", ["f4", "f8", ">f8", "i8", "u2", "F"])
@pytest.mark.parametrize("shape", [(4,), (1, 5, 3)])
@pytest.mark.parametrize("ending", [".npz", ".npy", ".h5"])
def test_arrays_are_the_same_events_in_training_in_any_chunk_and_alone(tmp_path, ending, shape, dtype, memory):
    x = np.random.default_rng(0).normal(size=(N, *shape)) * 2.0**60
    x = np.abs(x) / 2**50 if dtype == "u2" else x
    x = x.astype(dtype if dtype != "F" else "f4", order="F" if dtype == "F" else "C")
    if x.dtype.kind == "f":
        x[::5, ..., 1] = np.nan

    def save(path, x):
        if ending == ".npy":
            np.save(path, x)
        elif ending == ".npz":
            np.savez(path, X=x)
        else:
            with h5py.File(path, "w") as file:
                file.create_dataset("X", data=x, chunks=(min(len(x), 7), *shape))
        return path

    path = save(tmp_path / f"mine{ending}", x)
    data = File(path=str(path), protocol="unsupervised", missing="median", memory_mb=memory)
    expected, recipe = data.splits.test.x[:], Recipe.from_json(json.loads(json.dumps(data.recipe())))
    equal(joined(recipe.read(path))[:1], [expected])
    name = [*recipe.roles.features] or [recipe.roles.array]
    for rows in (1, 7, N):
        equal(joined(recipe.parts(open_file(path).chunks(name, rows)))[:1], [expected])
    equal(joined(recipe.read(save(tmp_path / f"one{ending}", x[3:4])))[:1], [expected[3:4]])


@pytest.mark.parametrize("missing", ["error", "median", "indicator"])
@pytest.mark.parametrize("ending", [".parquet", ".h5"])
def test_columns_that_were_converted_to_disk_are_the_same_events(tmp_path, ending, missing):
    table = mixture(ending, missing).drop_columns(["code", "port", "level", "lit"])
    path = write(tmp_path / f"mine{ending}", table)
    *expected, recipe, _ = served(path, context=CONTEXT, missing=missing, memory_mb=0)
    equal(joined(recipe.read(path)), expected)
    equal(joined(recipe.read(write(tmp_path / "mine.csv", table))), expected)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_second_file_is_tested_as_it_is_scored(tmp_path, ending):
    table = mixture(ending, "median")
    first, second = write(tmp_path / f"one{ending}", table), write(tmp_path / f"two{ending}", table.slice(8, 5))
    options = {"categorical": CATEGORICAL, "context": CONTEXT, "missing": "indicator", "label": "y"}
    data = File(path=str(first), test_path=str(second), meta="id", **options)
    test = data.splits.test
    equal(joined(Recipe.from_json(data.recipe()).read(second)), (test.x, test.context))


# what is said


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".h5"])
def test_categories_of_no_training_row_are_zeros_and_named_once(tmp_path, ending, monkeypatch):
    number = np.arange(N)
    table = pa.table({"a": number, "s": ["u", "v"] * 30, "port": number % 3, "y": number % 8 == 0})
    data = File(path=str(write(tmp_path / f"mine{ending}", table)), label="y", nominal=False, categorical="port")
    recipe = Recipe.from_json(data.recipe())
    new = pa.table({"a": np.arange(9.0), "s": ["u", "new", "newer"] * 3, "port": [0, 1, 2] * 2 + [7, 0, 0]})
    monkeypatch.setattr("straylight.files.recipe.BYTES", 8 * 6 * 2)  # two rows at a time
    tally = Tally()
    x, _ = joined(recipe.read(write(tmp_path / f"new{ending}", new), tally=tally))
    assert x[:, 1:].sum(1).tolist() == [2, 1, 1, 2, 1, 1, 1, 1, 1]
    said = sorted(tally.sentences(), reverse=True)
    assert len(said) == 2 and all(sentence.endswith(".") for sentence in said)
    assert "6 rows hold a category of column 's' that no training row has" in said[0]
    assert "1 row holds a category of column 'port'" in said[1]
    tally = Tally()
    list(recipe.parts([new], tally=tally))
    assert sorted(tally.sentences(), reverse=True) == said


@pytest.mark.parametrize(
    "values, read",
    [
        (["5.0", "7"], [5, 7]),  # as pandas writes whole numbers where one is missing
        (["5.5", " 1e3"], [5.5, 1000]),
        (["0x1F", "2"], [31, 2]),
        (["True", "false"], [1, 0]),
        (["18446744073709551615", "1"], [2.0**64, 1]),
        (["x", "1"], "1: column 'n' holds 'x', which is no number, as training rows have there"),
        (["1", "1;2"], "holds '1;2'"),
        (["1", ""], "2: 'n' is missing"),
        (["1", "2020-01-02"], "holds '2020-01-02'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_text_is_read_as_the_number_that_training_had_or_refused_with_it(tmp_path, ending, values, read):
    recipe = Recipe.fit(pa.table({"n": [1, 2], "s": ["u", "v"]}), Roles(("n", "s")), [0, 1])
    column = pa.array([value or None for value in values])
    path = tmp_path / f"new{ending}"
    if ending == ".csv":
        path.write_text("n,s\n" + "".join(f"{value},u\n" for value in values))
    else:
        pq.write_table(pa.table({"n": column, "s": ["u", "u"]}), path)
    if isinstance(read, list):
        assert joined(recipe.read(path))[0][:, 0].tolist() == read
        return
    with pytest.raises(DataError) as error:
        joined(recipe.read(path))
    said = str(error.value)
    assert said.startswith(f"{path}: row ") and read in said and said.endswith(".") and ". " not in said


@pytest.mark.parametrize(
    "trained, new, expected",
    [
        ([80, 443], ["080", "443.0", "x", "80.5"], [0, 1, None, None]),
        ([80.0, 0.5], ["80", "5e-1", "0.50", "x"], [1, 0, 0, None]),
        ([True, False], ["True", "0", "FALSE", "2"], [1, 0, 0, None]),
        (["080", "80", "x"], ["080", "80", "x", "80.0"], [0, 1, 2, None]),
        (np.array(["2020-01-02", "2020-01-03"], "M8[D]"), ["2020-01-03", "x"], [1, None]),
    ],
    ids=str,
)
def test_a_category_is_the_value_that_its_type_in_training_tells_apart(tmp_path, trained, new, expected):
    recipe = Recipe.fit(pa.table({"s": trained}), Roles(("s",)), range(len(trained)), categorical=["s"])
    recipe = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    (tmp_path / "new.csv").write_text("s\n" + "".join(f"{value}\n" for value in new))
    x, _ = joined(recipe.read(tmp_path / "new.csv"))
    assert [row.index(1) if any(row) else None for row in x.tolist()] == expected


def test_a_column_that_is_called_like_a_category_is_refused():
    table = pa.table({"s": ["u", "v"], "s=u": [1, 2]})
    with pytest.raises(DataError, match="'s=u'"):
        Recipe.fit(table, Roles(("s", "s=u")), [0, 1])


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_without_rows_has_nothing_to_score(tmp_path, ending):
    recipe = Recipe.fit(pa.table({"a": [1.0, 2.0]}), Roles(("a",)), [0, 1])
    if ending == ".h5":
        with h5py.File(tmp_path / "new.h5", "w") as file:
            file["a"] = np.empty(0)
        path = tmp_path / "new.h5"
    else:
        path = write(tmp_path / f"new{ending}", pa.table({"a": np.empty(0)}))
    with pytest.raises(DataError, match="holds no rows of data"):
        list(recipe.read(path))


# recipes of earlier versions


def test_a_recipe_that_an_earlier_version_kept_is_read(tmp_path):
    kept = {
        "features": ["a", "s", "port"], "array": None,
        "label": "y", "weight": None, "group": None, "context": ["m"], "meta": [],
        "categories": {"s": ["u", "v"], "port": ["80", "443"]}, "nominal": 0, "kinds": ["nominal", "anomaly"],
        "columns": ["a", "s=u", "s=v", "port=80", "port=443", "a is missing"],
        "missing": "indicator", "filled": {"a": 2.5},
        "medians": {"a": 2.5, "s=u": 0.0, "s=v": 0.0, "port=80": 1.0, "port=443": 0.0},
    }  # fmt: skip
    (tmp_path / "new.csv").write_text("m,port,s,a\n7,443.0,v,\n8,80,new,1\n")
    x, context = joined(Recipe.from_json(kept).read(tmp_path / "new.csv"))
    assert x.tolist() == [[2.5, 0, 1, 0, 1, 1], [1, 0, 0, 1, 0, 0]] and context.tolist() == [[7], [8]]
    images = {**kept, "features": [], "array": "X", "context": [], "categories": {}, "filled": {}, "medians": {}}
    np.savez(tmp_path / "new.npz", X=np.ones((3, 2, 2)))
    assert joined(Recipe.from_json({**images, "missing": "error"}).read(tmp_path / "new.npz"))[0].shape == (3, 2, 2)


# memory


def wide(rows):
    rng = np.random.default_rng(0)
    table = {f"f{i}": rng.normal(size=rows).round(4) for i in range(9)}
    return pa.table({**table, "s": np.array(["u", "v"])[np.arange(rows) % 2]})


@pytest.mark.parametrize("ending", ENDINGS)
def test_memory_does_not_grow_with_the_file(tmp_path, ending, monkeypatch):
    monkeypatch.setattr("straylight.files.formats.BLOCK", 2**13)
    for module in ("formats", "recipe"):
        monkeypatch.setattr(f"straylight.files.{module}.BYTES", 2**15)
    recipe = Recipe.fit(wide(10), Roles(tuple(wide(10).column_names)), range(10))

    def peak(rows):
        path = write(tmp_path / f"{rows}{ending}", wide(rows), 500)
        tracemalloc.start()
        before, most, seen = pa.total_allocated_bytes(), 0, 0
        for events in recipe.read(path, 16):
            most, seen = max(most, pa.total_allocated_bytes() - before), seen + events.rows
        held = most + tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert seen == rows
        return held

    peak(1000)  # what is imported
    few, many = peak(6_000), peak(24_000)
    assert many < few + 2**19 and many < 24_000 * 10 * 8


# a run


def test_a_run_scores_a_file_in_chunks_as_it_scored_its_own_rows(straylight_train, tmp_path, monkeypatch):
    table = mixture(".csv", "median")
    path = write(tmp_path / "mine.csv", table)
    options = ["data.categorical=[port,level,lit]", "data.meta=[id]", "data.missing=indicator", "detector=knn"]
    run = Run.open(straylight_train("data=file", f"data.path={path}", "data.label=y", *options).run)
    kept = pq.read_table(run.folder / "scores.parquet")
    scores = run.score(path)
    test = File(path=str(path), label="y", meta="id", categorical=CATEGORICAL, missing="indicator").splits.test
    np.testing.assert_array_equal(scores[test.meta["id"]], kept["score"].to_numpy().astype(np.float32))
    monkeypatch.setattr("straylight.files.recipe.BYTES", 1)
    np.testing.assert_allclose(run.score(path), scores, rtol=1e-5)
    for row, other in itertools.product((3, 14), (".csv.gz", ".parquet")):
        alone = write(tmp_path / f"{row}{other}", table.slice(row, 1))
        np.testing.assert_allclose(run.score(alone), scores[row : row + 1], rtol=1e-5)


# numbers that single precision would not tell apart

CONSTANTS = {
    "milliseconds": (1.7e12, np.arange(N) * 40 % 1000),
    "seconds": (1.7e9, np.arange(N) % 49),
    "counter": (2.0**52, np.arange(N)[::-1]),
    "whole": (10**15, np.arange(N, dtype=np.int64) * 3 % 70),
    "depth": (-1e7, np.arange(N) % 7 / 8),
}


def constant(name, added=True):
    """A table of one column, also as context, with a constant added to it or without."""
    offset, values = CONSTANTS[name]
    column = values + (np.int64(offset) if values.dtype.kind == "i" and name == "whole" else offset) * added
    labels = (np.arange(N) % 8 == 0).astype(np.int64)
    return pa.table({"id": np.arange(N), "y": labels, "a": column, "b": column, "c": np.arange(N) / 7})


@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize(("ending", "memory"), [*((e, 4096) for e in ENDINGS), (".parquet", 0), (".h5", 0)])
def test_an_added_constant_changes_no_difference_between_rows(tmp_path, ending, memory, name):
    path = write(tmp_path / f"with{ending}", constant(name))
    x, context, recipe, data = served(path, context=["b"], memory_mb=memory)
    bare, _, plain, _ = served(
        write(tmp_path / f"without{ending}", constant(name, False)), context=["b"], memory_mb=memory
    )
    assert torch.equal(x[:, 0] - x[0, 0], bare[:, 0] - bare[0, 0]) and torch.equal(x[:, 1], bare[:, 1])
    assert torch.equal(context[:, 0], x[:, 0]) and recipe.centres.keys() == {"a", "b"} and not plain.centres
    assert any("an offset is taken out" in notice and "'a'" in notice for notice in data.notices)
    equal(joined(recipe.read(path)), (x, context))
    equal(joined(recipe.read(write(tmp_path / "one.csv", constant(name).slice(5, 1)))), (x[5:6], context[5:6]))


@pytest.mark.parametrize("memory", [4096, 0])
def test_an_added_constant_changes_no_difference_between_fields_of_a_table(tmp_path, memory):
    table = np.zeros(N, [("ms", "i8"), ("v", "f4")])
    table["ms"], table["v"] = 1_700_000_000_000 + np.arange(N) * 7 % 100, np.arange(N) % 5
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["events"] = table
    data = File(path=str(tmp_path / "mine.h5"), protocol="unsupervised", memory_mb=memory)
    x = data.splits.test.x[:]
    np.testing.assert_array_equal(x[:, 0] - x[0, 0], np.arange(N) * 7 % 100)


def test_a_sample_of_parquet_reads_a_few_groups_of_rows(tmp_path, monkeypatch):
    rows = np.arange(5000)
    pq.write_table(pa.table({"a": rows + 0.5, "b": -rows / 2}), tmp_path / "mine.parquet", row_group_size=300)
    monkeypatch.setattr("straylight.files.resolution.LOOKED_AT", 640)
    train = rows[rows % 3 > 0]
    held = open_file(tmp_path / "mine.parquet").sample(["b", "a"], sampled(train, 2))
    assert (
        40 <= len(held) <= 80 and np.isin(held[:, 1] - 0.5, train).all() and (held[:, 0] * -2 + 0.5 == held[:, 1]).all()
    )
    assert np.ptp(held[:, 1]) > 3000, "from all over"


@pytest.mark.parametrize("detector", ["isolation_forest", "knn"])
def test_an_added_constant_changes_no_ranking(straylight_train, tmp_path, detector):
    draw = np.random.default_rng(0)
    y = np.arange(400) % 10 == 0
    late = draw.integers(0, 10_000, 400) + 40_000 * y  # milliseconds, in which anomalies stand apart
    for name, offset in {"bare": 0, "unix": 1_700_000_000_000}.items():
        pa.csv.write_csv(
            pa.table({"ms": late + offset, "v": draw.normal(size=400) * 0, "y": y}), tmp_path / f"{name}.csv"
        )
    file = ("data=file", "data.label=y", "data.nominal=false", f"detector={detector}", "callbacks=numbers")
    paths = {name: f"data.path={tmp_path / name}.csv" for name in ("bare", "unix")}
    runs = [straylight_train(*file, path, pictures=False, output=name) for name, path in paths.items()]
    bare, unix = (run.result["metrics"]["test/auroc"] for run in runs)
    assert bare > 0.99 and unix == pytest.approx(bare, abs=1e-6)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)])
@pytest.mark.parametrize(("ending", "memory"), [(".npz", 4096), (".npy", 4096), (".npy", 0), (".h5", 4096), (".h5", 0)])
def test_an_added_constant_changes_no_difference_between_rows_of_arrays(tmp_path, ending, memory, shape):
    bare = (np.arange(N * np.prod(shape)) * 7 % 100).astype("f8").reshape(N, *shape)
    path, whole = tmp_path / f"mine{ending}", bare.copy()
    whole[:, ..., 1] += 1.7e12
    if ending == ".npy":
        np.save(path, whole)
    elif ending == ".npz":
        np.savez(path, X=whole)
    else:
        with h5py.File(path, "w") as file:
            file["X"] = whole
    data = File(path=str(path), protocol="unsupervised", memory_mb=memory, batch_size=7)
    x, recipe = data.splits.test.x[:], Recipe.from_json(json.loads(json.dumps(data.recipe())))
    np.testing.assert_array_equal(x - x[0], bare - bare[0])
    equal(joined(recipe.read(path))[:1], [x])
    for batch in data.train_dataloader():  # rows of a map that are read in another order
        np.testing.assert_array_equal((batch.rows().x - x[0]).numpy(), (bare - bare[0])[batch.rows().index])


@pytest.mark.parametrize("values", [np.random.default_rng(0).normal(size=5000), np.arange(5000) * 1e-3, np.ones(50)])
def test_a_column_that_single_precision_resolves_as_well_as_it_can_stays_as_it_is(values):
    assert learnt(values) == (None, "")


def test_what_cannot_be_told_apart_even_so_is_named(tmp_path):
    far = np.arange(N) * 1e-3 + np.where(np.arange(N) % 2 == 0, 1e9, -1e9)
    data = File(path=str(write(tmp_path / "mine.csv", pa.table({"a": far, "b": np.arange(N)}))), missing="error")
    assert len(data.splits.train) and any("column 'a' holds" in n and "tells" in n for n in data.notices), data.notices
    centre, lost = learnt(np.concatenate([[-1e300, 1e300], np.arange(9) * 1e299]))
    assert centre.scale > 1e290 and not lost and len(np.unique(centre(np.arange(9) * 1e299))) == 9


# a run whose data set was no file


def test_events_and_context_of_another_data_set_are_arrays_of_a_file(tmp_path):
    x, mass = np.random.default_rng(0).normal(size=(6, 4)), np.arange(6.0)[:, None]
    np.savez(tmp_path / "new.npz", events=x, context=mass, other=np.zeros((6, 3)), y=np.zeros(6))
    recipe = of_arrays(tmp_path / "new.npz", {}, (4,), 1)
    (part,) = recipe.read(tmp_path / "new.npz")
    np.testing.assert_array_equal(part.x, x.astype(np.float32))
    np.testing.assert_array_equal(part.context, mass.astype(np.float32))
    both = np.random.default_rng(0).normal(size=(6, 2))
    np.savez(tmp_path / "two.npz", a=x, context=both)
    (part,) = of_arrays(tmp_path / "two.npz", {}, (4,), 2).read(tmp_path / "two.npz")
    np.testing.assert_array_equal(part.context, both.astype(np.float32))
    x[2, 1] = np.nan
    np.savez(tmp_path / "gone.npz", a=x, context=mass)
    kept = {"missing": "median", "medians": {"a": 0.0, "b": 7.0, "c": 0.0, "d": 0.0}, "columns": list("abcd")}
    (part,) = of_arrays(tmp_path / "gone.npz", kept, (4,), 1).read(tmp_path / "gone.npz")
    assert part.x[2, 1] == 7
    indicating = {**kept, "missing": "indicator", "filled": {"b": 7.0}, "columns": [*"abcd", "b is missing"]}
    (part,) = of_arrays(tmp_path / "gone.npz", indicating, (5,), 1).read(tmp_path / "gone.npz")
    assert part.x[:, 4].tolist() == [0, 0, 1, 0, 0, 0] and part.x[2, 1] == 7
    for shape, context, said in (((3,), 1, "shape (N, 3) and an array context"), ((4,), 2, "shape (N, 2)")):
        with pytest.raises(DataError, match=re.escape(said)):
            of_arrays(tmp_path / "gone.npz", {}, shape, context)
    np.savez(tmp_path / "both.npz", a=x, b=x)
    with pytest.raises(DataError, match="must hold one array of events"):
        of_arrays(tmp_path / "both.npz", {}, (4,), 0)
