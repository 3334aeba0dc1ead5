"""Rows keep their names: an id that is made of the features still belongs to them wherever a row ends."""

import csv
import datetime
import decimal
import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from straylight.callbacks.material import Material
from straylight.callbacks.scored import Scores
from straylight.data import ADBench, Digits, File
from straylight.data.digits import ContaminatedDigits
from straylight.errors import DataError
from straylight.report.strangest import strangest
from straylight.rows.batch import Events
from straylight.rows.mapped import Mapped
from straylight.rows.origin import OURS, Origin, Rows, column_name
from straylight.run import Run
from test_ddp import TWO, finish, start
from test_file import write

N = 120


def identity(a, b):
    """What a row is called, of its features."""
    return f"{a:+.2f}{b:+.2f}"


def table(n=N, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.permutation(4000)[:n] / 4 - 500, rng.integers(-1000, 1000, n) / 4
    y = (rng.random(n) < 0.3).astype(np.int64)
    a[n // 2], b[n // 2] = a[n // 2 + 1], b[n // 2 + 1]  # a pair of equal rows
    return {
        "a": a,
        "b": b,
        "id": np.array([identity(*row) for row in zip(a, b, strict=True)]),
        "serial": (4 * (a + 500)).astype(np.int64) * 10**9,
        "run": np.arange(n) // 3,
        "y": y,
    }


def belong(events, source, path):
    """The names of rows belong to their features, and say where in the file they stand."""
    names = {name: column.to_pylist() for name, column in events.named().items()}
    x = events.x[: len(events)].numpy()
    assert names["id"] == [identity(*row) for row in x]
    assert names["serial"] == [round(4 * (float(a) + 500)) * 10**9 for a in x[:, 0]]
    rows = np.array(names["row"], dtype=int)
    assert (rows >= 1).all() and (rows <= len(source["a"])).all()
    assert np.array_equal(np.stack([source["a"], source["b"]], 1)[rows - 1], x)
    assert set(names["file"]) <= {str(path)}
    assert events.meta["id"].tolist() == names["id"]
    return rows.tolist()


PATHS = {
    "as it is": {},
    "unsupervised": {"protocol": "unsupervised"},
    "groups": {"group": "run"},
    "contaminated": {"contamination": 0.1, "reserve_fraction": 0.5},
    "without anomalies": {"contamination": 0.0},
    "groups contaminated": {"group": "run", "contamination": 0.05, "reserve_fraction": 0.5},
    "without labels": {"label": None},
    "without copies": {"overlap": "drop"},
}


@pytest.mark.parametrize("way", PATHS)
@pytest.mark.parametrize(
    "ending, memory", [(".csv", 4096), (".parquet", 4096), (".parquet", 0), (".npz", 4096), (".h5", 0), (".npy", 4096)]
)
def test_names_belong_to_their_features_by_every_way_that_rows_take(tmp_path, ending, memory, way):
    source = table()
    path = write(tmp_path / f"mine{ending}", source)
    options = {"label": "y", "val_fraction": 0.3, **PATHS[way]}
    data = File(
        path=str(path), features=["a", "b"], meta=["id", "serial"], memory_mb=memory, batch_size=8, seed=3, **options
    )
    data.setup()
    found = [belong(part, source, path) for part in data.splits]
    for half in (*data._val_halves, data.selecting):
        belong(half, source, path)
    assert isinstance(data.splits.train.x, Mapped) == (not memory)
    train, val, test, _ = map(set, found)
    if way == "unsupervised":
        assert train == test == set(range(1, N + 1))
    else:
        assert not train & val and not train & test and not val & test
    if way in ("as it is", "groups", "without labels"):
        assert sorted(row for part in found for row in part) == list(range(1, N + 1))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("memory", [0, 4096])
def test_rows_of_a_second_file_are_named_by_it(tmp_path, ending, memory):
    one, two = table(seed=1), table(seed=2)
    first, second = write(tmp_path / f"one{ending}", one), write(tmp_path / f"two{ending}", two)
    data = File(
        path=str(first),
        test_path=str(second),
        label="y",
        features=["a", "b"],
        meta=["id", "serial"],
        memory_mb=memory,
        contamination=0.1,
        reserve_fraction=0.3,
    )
    data.setup()
    assert belong(data.splits.test, two, second) == list(range(1, N + 1))
    for part in (data.splits.train, data.splits.val, data.splits.reserve):
        belong(part, one, first)


# what a run leaves


@pytest.fixture
def ended(tmp_path, straylight_train):
    source = table(400)
    path = tmp_path / "mine.parquet"
    when = [None if i % 7 == 0 else datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) for i in range(400)]
    pq.write_table(pa.table({**source, "when": when, "score": np.arange(400)}), path)

    def run(*options, **how):
        found = straylight_train(
            "data=file",
            f"data.path={path}",
            "data.label=y",
            "data.features=[a,b]",
            "data.meta=[id,serial,when,score]",
            "data.val_fraction=0.3",
            *options,
            **how,
        )
        assert found.status == 0, found.err
        return found, source, path

    return run


def rightly_named(columns, source, path):
    """Columns of a table of scores say the truth about the file."""
    rows = np.array(columns["row"].to_pylist()) - 1
    assert columns["id"].to_pylist() == source["id"][rows].tolist()
    assert columns["serial"].to_pylist() == source["serial"][rows].tolist()
    assert columns["meta.score"].to_pylist() == rows.tolist()
    assert set(columns["file"].to_pylist()) == {str(path)}
    assert [value is None for value in columns["when"].to_pylist()] == [row % 7 == 0 for row in rows.tolist()]
    return rows


@pytest.mark.parametrize("memory", ["data.memory_mb=4096", "data.memory_mb=0"])
def test_what_a_run_leaves_says_of_each_row_which_it_is(ended, memory, capfd):
    found, source, path = ended(
        "detector=knn",
        memory,
        "callbacks=results_hdf5",
        "callbacks.figures.only=[extremes,contributions]",
        pictures=False,
    )
    scores = pq.read_table(found.run / "scores.parquet")
    assert scores.schema.field("when").type == pa.timestamp("us", tz="UTC")
    assert scores.schema.field("serial").type == pa.int64() and pa.types.is_dictionary(scores.schema.field("file").type)
    rows = rightly_named(scores, source, path)
    assert (source["y"][rows] == scores["y"].to_numpy()).all()
    # the score is of this row's features and of no other's
    run = Run.open(found.run)
    again = run.score(np.stack([source["a"], source["b"]], 1)[rows])
    np.testing.assert_allclose(again, scores["score"].to_numpy(), rtol=1e-5)
    assert run.rows.equals(scores)

    calibration = pq.read_table(found.run / "calibration.parquet")
    calibrated = rightly_named(calibration, source, path)
    np.testing.assert_allclose(
        run.score(np.stack([source["a"], source["b"]], 1)[calibrated]), calibration["score"].to_numpy(), rtol=1e-5
    )
    assert not set(calibrated.tolist()) & set(rows.tolist())

    with (found.run / "figures" / "extremes.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 200 and list(lines[0])[:6] == ["end", "rank", "index", "score", "kind", "file"]
    for line in lines:
        assert line["id"] == identity(float(line["a"]), float(line["b"])) == source["id"][int(line["row"]) - 1]
        assert line["meta.score"] == str(int(line["row"]) - 1) and line["file"] == str(path)
        assert scores["row"][int(line["index"])].as_py() == int(line["row"])

    with h5py.File(found.run / "results.h5") as file:
        for side in ("BKG", "SIG"):
            x, names = file[f"{side}_input"][:], file[f"{side}_rows"]
            assert names["id"].asstr()[:].tolist() == [identity(*row) for row in x]
            assert np.array_equal(source["a"][names["row"][:] - 1], x[:, 0])

    (sheet,) = strangest(found.run)
    first = scores.take(np.argsort(-scores["score"].to_numpy(), kind="stable")[:1]).to_pylist()[0]
    assert [column.heading for column in sheet.columns][:5] == ["strangest", "score", "kind", "row", "id"]
    from straylight.commands.report import main

    capfd.readouterr()
    main(["--details", str(found.run)])
    assert first["id"] in capfd.readouterr().out


def test_thresholds_across_folds_name_the_training_rows(ended):
    found, source, path = ended("detector=knn", "callbacks.thresholds.cross=3")
    calibration = pq.read_table(found.run / "calibration.parquet")
    rows = rightly_named(calibration, source, path)
    assert len(set(rows.tolist())) == len(rows) and (source["y"][rows] == 0).all()
    assert (Run.open(found.run).p_values(np.full((1, 2), 9e9)) < 0.2).all()


def test_a_test_of_a_part_names_the_rows_of_that_part(ended):
    found, source, path = ended("detector=knn", "+trainer.limit_test_batches=2", "data.batch_size=16")
    scores = pq.read_table(found.run / "scores.parquet")
    assert len(scores) == 32
    rightly_named(scores, source, path)


@pytest.mark.slow
def test_two_ranks_name_the_rows_as_one(ended, tmp_path):
    options = ("detector=knn", "data.eval_batch_size=50", "data.reserve_fraction=0.2", "data.contamination=0.05")
    one, source, path = ended(*options)
    typed = ["data=file", f"data.path={path}", "data.label=y", "data.features=[a,b]", "data.val_fraction=0.3"]
    two = start(tmp_path, *TWO, *typed, "data.meta=[id,serial,when,score]", *options, f"hydra.run.dir={tmp_path}/two")
    status, err = finish(two)
    assert status == 0, err
    for name in ("scores", "calibration"):
        first, second = (pq.read_table(run / f"{name}.parquet") for run in (one.run, tmp_path / "two"))
        assert first.equals(second)
    rightly_named(second, source, path)


def test_a_folder_of_an_earlier_version_is_read_as_before(ended):
    found, _, _ = ended("detector=knn", "callbacks.figures.only=[extremes]", pictures=False)
    for name in ("scores", "calibration"):
        path = found.run / f"{name}.parquet"
        kept = pq.read_table(path)
        ours = [n for n in kept.column_names if n in ("index", "score", "y", "kind")]
        pq.write_table(kept.select(ours), path)
    record = json.loads((found.run / "result.json").read_text())
    del record["digests"]
    (found.run / "result.json").write_text(json.dumps(record))
    run = Run.open(found.run)
    assert run.rows.column_names == ["index", "score", "y", "kind"]
    assert run.draw("scores") is not None and len(run.p_values(np.zeros((2, 2)))) == 2
    (sheet,) = strangest(found.run)
    assert [column.heading for column in sheet.columns] == ["strangest", "score", "kind", "index"]


# what columns are called


@given(st.lists(st.sampled_from([*"abxy", "score", "row", "meta.", "meta.score", "member_3", "flag", ""]), unique=True))
def test_no_two_columns_end_with_one_name_and_none_with_ours(names):
    found = [column_name(name) for name in names]
    assert len(set(found)) == len(names) and not any(map(OURS.fullmatch, found))


@pytest.mark.parametrize(
    "name", ["index", "score", "y", "kind", "file", "row", "weight", "fold", "member_0", "p_value"]
)
def test_a_column_called_like_one_of_ours_keeps_ours(tmp_path, name):
    values = {"a": np.arange(40.0), "label": (np.arange(40) % 4 == 0).astype(int), name: np.arange(40) + 100}
    path = write(tmp_path / "mine.csv", values)
    data = File(path=str(path), label="label", features=["a"], meta=name)
    data.setup()
    named = data.splits.test.named()
    assert list(named) == ["file", "row", f"meta.{name}"]
    assert (named[f"meta.{name}"].to_numpy() == data.splits.test.x[:, 0].numpy() + 100).all()


# types


TYPES = {
    "text": (pa.array(["a", None, "ü\n"] * 14), "a"),
    "whole": (pa.array([2**62 + i for i in range(41)] + [None]), 2**62),
    "short": (pa.array(range(42), pa.int8()), 0),
    "number": (pa.array([0.1, None, np.nan] * 14, pa.float32()), np.float32(0.1)),
    "decimal": (pa.array([decimal.Decimal("1.10")] * 42), decimal.Decimal("1.10")),
    "day": (pa.array([datetime.date(2026, 1, 1)] * 42), datetime.date(2026, 1, 1)),
    "nanoseconds": (pa.array(np.arange(42), pa.timestamp("ns")), None),
    "zoned": (pa.array(np.arange(42), pa.timestamp("ms", "Europe/Rome")), None),
    "duration": (pa.array(np.arange(42), pa.duration("us")), datetime.timedelta(0)),
    "of the day": (pa.array(np.arange(42, dtype=np.int64), pa.time64("us")), datetime.time(0)),
    "category": (pa.array(["u", None, "v"] * 14).dictionary_encode(), "u"),
    "boolean": (pa.array([True, None, False] * 14), True),
    "bytes": (pa.array([b"\xff\x00"] * 42), b"\xff\x00"),
    "large text": (pa.array(["a"] * 42, pa.large_string()), "a"),
    "nothing": (pa.nulls(42), None),
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("memory", [0, 4096])
def test_columns_keep_their_types_and_what_is_missing(tmp_path, kind, memory):
    values, first = TYPES[kind]
    pq.write_table(pa.table({"a": np.arange(42.0), "what": values}), tmp_path / "mine.parquet", row_group_size=10)
    data = File(path=str(tmp_path / "mine.parquet"), features=["a"], meta="what", memory_mb=memory)
    data.setup()
    test = data.splits.test
    column = test.named()["what"]
    rows = test.x[: len(test)][:, 0].long().numpy()
    expected = values.take(pa.array(rows))
    assert column.type == values.type and str(column.to_pylist()) == str(expected.to_pylist())
    if first is not None:
        place = np.flatnonzero(rows == 0)
        assert not len(place) or column[int(place[0])].as_py() == first
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table(test.named()), path)  # Parquet has the type
    assert len(test.meta["what"]) == len(test) and test.origin.called([0])[0]


@pytest.mark.parametrize(
    "values",
    [pa.array([[1, 2]] * 42), pa.array([{"u": 1}] * 42), pa.array([[("u", 1)]] * 42, pa.map_(pa.string(), pa.int64()))],
    ids=["list", "struct", "map"],
)
def test_several_values_a_row_are_refused(tmp_path, values):
    pq.write_table(pa.table({"a": np.arange(42.0), "what": values}), tmp_path / "mine.parquet")
    with pytest.raises(DataError, match=r"mine.parquet: column 'what' of data.meta holds .*one number, text or time"):
        File(path=str(tmp_path / "mine.parquet"), features=["a"], meta="what").setup()


@pytest.mark.parametrize(
    "written, kept",
    [
        (["007", "12", "3"], ["007", "12", "3"]),
        (["7", "12", "3"], [7, 12, 3]),
        (["0", "10", "-3"], [0, 10, -3]),
        (["12345678901234567890", "2", "3"], ["12345678901234567890", "2", "3"]),
        (["0x1F", "0x02", "0x03"], ["0x1F", "0x02", "0x03"]),
        (["0.5", "1.50", "3"], [0.5, 1.5, 3.0]),
        (["007", "", "3"], ["007", None, "3"]),
        (["true", "false", "true"], [True, False, True]),
    ],
    ids=str,
)
def test_an_id_of_a_table_in_text_is_kept_as_it_is_written(tmp_path, written, kept):
    lines = [f"{i},{written[i % 3]}" for i in range(30)]
    (tmp_path / "mine.csv").write_text("\n".join(["a,what", *lines]))
    data = File(path=str(tmp_path / "mine.csv"), features=["a"], meta="what")
    data.setup()
    test = data.splits.test
    assert test.named()["what"].to_pylist() == [kept[int(a) % 3] for a in test.x[:, 0]]


# the file's own numbers of rows


INDEXES = {
    "named": ("flow", np.arange(40) * 7 + 3),
    "unnamed": (None, np.arange(40)[::-1].copy()),
    "text": ("host", np.array([f"h{i}" for i in range(40)])),
    "a range": (None, range(100, 180, 2)),
    "a named range": ("event", range(40)),
}


@pytest.mark.parametrize("index", INDEXES)
def test_the_index_of_pandas_names_rows(tmp_path, index):
    pandas = pytest.importorskip("pandas")
    name, values = INDEXES[index]
    frame = pandas.DataFrame({"a": np.arange(40.0)}, index=pandas.Index(values, name=name))
    frame.to_parquet(tmp_path / "mine.parquet")
    data = File(path=str(tmp_path / "mine.parquet"))
    data.setup()
    test = data.splits.test
    called = name or "__index_level_0__"
    assert data.columns == ("a",) or list(data.columns) == ["a"]
    assert list(test.named()) == ["file", "row", called]
    assert test.named()[called].to_pylist() == [values[int(a)] for a in test.x[:, 0]]
    assert test.origin.called([0]) == [f"{called} {values[int(test.x[0, 0])]}"]


def test_a_plain_index_of_pandas_says_no_more_than_the_row(tmp_path):
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"a": np.arange(40.0)}).to_parquet(tmp_path / "mine.parquet")
    data = File(path=str(tmp_path / "mine.parquet"))
    data.setup()
    assert list(data.splits.test.named()) == ["file", "row"]
    assert data.splits.test.origin.called([0]) == [f"row {int(data.splits.test.x[0, 0]) + 1}"]


# positions


@settings(max_examples=200, deadline=None)
@given(st.data(), st.booleans())
def test_positions_follow_any_choice_and_any_joining(data, mapped):
    parts = []
    for number in range(data.draw(st.integers(1, 3))):
        n = data.draw(st.integers(0, 40))
        x = torch.arange(n)[:, None].float() + 1000 * number
        columns = {"id": pa.chunked_array([pa.array([f"{number}:{i}" for i in range(n)], pa.string())])}
        origin = Origin.of(f"{number}", n, columns if data.draw(st.booleans()) or not number else {})
        parts.append(Events.of(Mapped([x]) if mapped else x, origin=origin))
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            parts = [Events.cat(*parts)]
        else:
            rows = [
                data.draw(st.lists(st.integers(0, max(0, len(p) - 1)), max_size=60 if len(p) else 0)) for p in parts
            ]
            rows = [sorted(set(own)) if data.draw(st.booleans()) else own for own in rows]
            parts = [part.take(own) for part, own in zip(parts, rows, strict=True)]
    for part in parts:
        x = part.x[: len(part)][:, 0].long().numpy()
        assert part.origin.rows().tolist() == (x % 1000 + 1).tolist()
        assert part.origin.file().to_pylist() == [str(v // 1000) for v in x]
        if "id" in part.origin.names:
            ids = part.origin.column("id").to_pylist()
            assert all(i is None or i == f"{v // 1000}:{v % 1000}" for i, v in zip(ids, x, strict=True))
        some = list(range(0, len(part), 3))
        assert part.origin.rows(some).tolist() == (x[some] % 1000 + 1).tolist()


def test_positions_cost_nothing_on_disk_and_a_bit_a_row_in_memory():
    x, n = torch.zeros(100_000, 1), 100_000
    for mapped in (True, False):
        whole = Events.of(Mapped([x]) if mapped else x, origin=Origin.of("mine", n))
        assert whole.origin.places is None
        part = whole.take(np.arange(0, n, 2)).take(np.arange(1000, 50_000))
        if mapped:
            assert part.origin.places is part.x.rows
            both = Events.cat(part, whole.take([3, 1]))
            assert both.origin.places is both.x.rows
        else:
            assert part.origin._bits.nbytes == n // 8 and part.origin._places is None
        assert part.origin.rows([0]).tolist() == [2001]


def test_a_row_is_called_by_the_first_column_that_tells_rows_apart():
    columns = {
        "host": pa.chunked_array([["a", "a", "b", "b"]]),
        "id": pa.chunked_array([["p", None, "q", "r" * 50]]),
        "other": range(4),
    }
    origin = Origin.of("mine.csv", 4, columns)
    assert origin.called([0, 1, 2]) == ["id p", "row 2", "id q"] and len(origin.called([3])[0]) == 32
    two = Origin.cat([origin, Origin.of("sub/next.csv", 2)]).take([5, 0])
    assert two.called([0, 1]) == ["row 2 of next.csv", "row 1 of mine.csv"]
    with pytest.raises(DataError, match="'id' has 2 rows, and the features have 3"):
        Rows("mine.csv", 3, {"id": range(2)})


def test_types_that_do_not_go_together_are_named():
    one = Origin.of("one", 2, {"id": pa.chunked_array([[1, 2]])})
    other = Origin.of("other", 2, {"id": pa.chunked_array([["a", "b"]])})
    with pytest.raises(DataError, match="column 'id' holds int64 and string"):
        Origin.cat([one, other]).column("id")


def test_a_figure_calls_generated_rows_by_their_place_in_the_test_split():
    scores = Scores(np.array([3, 5]), np.zeros(2, np.float32), np.zeros(2, np.int64))

    class Data:
        class splits:
            test = Events.of(np.zeros((9, 2)))

    assert Material(scores, None, Data()).called(np.array([1])) == ["row 5"]
    assert Events.of(np.zeros((9, 2))).named() == {}


# data sets of ours


def test_our_data_sets_know_their_files(tmp_path):
    digits = Digits(nominal=3)
    for part in digits.splits:
        rows = part.origin.rows() - 1
        assert np.array_equal(load_digits().data[rows].reshape(-1, 1, 8, 8), part.x.numpy())
    assert digits.splits.test.named()["file"][0].as_py().endswith("digits.csv.gz")
    spoiled = ContaminatedDigits()
    for part in spoiled.splits:
        sound = part.y.numpy() == 0
        assert np.array_equal(load_digits().images[part.origin.rows() - 1][sound] / 16, part.x[:, 0].numpy()[sound])
    x, y = np.random.default_rng(0).normal(size=(300, 3)), np.arange(300) % 5 == 0
    np.savez(tmp_path / "7_mine.npz", X=x, y=y)
    bench = ADBench(root=str(tmp_path), name="7_mine", max_rows=200)
    for part in bench.splits:
        assert np.array_equal(x.astype(np.float32)[part.origin.rows() - 1], part.x.numpy())
