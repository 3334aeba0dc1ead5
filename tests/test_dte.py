"""The protocol of DTE's tables: the rows of its generator, what is said of it, what it refuses, how it stays apart."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet as pq
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from given import refused, sentence
from straylight import config
from straylight.callbacks import Density
from straylight.data import ADBench, AnomalyDataModule, File
from straylight.data.steps.dte import dte
from straylight.data.steps.splits import Places
from straylight.detectors import KNN
from straylight.errors import DataError
from straylight.metrics import auroc
from straylight.report.leaderboard import rows
from straylight.rows.batch import Events, Splits
from straylight.rows.mapped import Mapped
from straylight.run import Run


def made(path: Path, n: int, strange: int, lacking: float = 0.0) -> Path:
    """A file as those of ADBench, anomalies among its nominal rows, no two rows alike."""
    draw = np.random.default_rng(n)
    x, y = draw.normal(size=(n, 3)), draw.permutation(np.r_[np.zeros(n - strange, int), np.ones(strange, int)])
    x[draw.random(x.shape) < lacking] = np.nan
    x = x.astype(np.float32).astype(float)
    np.savez(path, X=x, y=y)
    return path


def restated(path: Path, seed: int, most: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the authors' generator does, put differently: rows to train on, rows to test, labels of these; unscaled."""
    before = np.random.get_state()  # noqa: NPY002, the generator that is restated
    with np.load(path) as file:
        rows = np.c_[file["X"], file["y"]]
    if len(rows) < 1000:
        np.random.seed(seed)  # noqa: NPY002
        rows = np.stack([rows[np.random.randint(len(rows))] for _ in range(1000)])  # noqa: NPY002
    if most is not None and len(rows) > most:
        np.random.seed(seed)  # noqa: NPY002
        rows = rows[np.random.permutation(len(rows))][:most]  # noqa: NPY002
    np.random.set_state(before)  # noqa: NPY002
    nominal = [row for row in rows if row[-1] == 0]
    half = int(np.rint(len(nominal) / 2))
    test = np.array(nominal[half:] + [row for row in rows if row[-1] == 1])
    return np.array(nominal[:half])[:, :-1], test[:, :-1], test[:, -1]


@pytest.mark.parametrize("seed", [0, 6, 12345])
@pytest.mark.parametrize(
    ("n", "strange", "most"),
    [
        *((80, 13, 50_000), (501, 1, 50_000), (999, 300, None), (1000, 30, 50_000), (1001, 300, 50_000)),
        *((2000, 50, 1200), (2000, 50, 1999), (2000, 50, 2000), (2000, 50, None), (100, 20, 400)),
    ],
)
def test_the_rows_are_those_of_the_generator_and_in_its_order(tmp_path, n, strange, most, seed):
    path = made(tmp_path / "rows.npz", n, strange)
    train, test, y = restated(path, seed, most)
    splits = ADBench(path=str(path), protocol="dte", max_rows=most, seed=seed).splits
    np.testing.assert_array_equal(splits.train.x.numpy(), train.astype(np.float32))
    np.testing.assert_array_equal(splits.test.x.numpy(), test.astype(np.float32))
    np.testing.assert_array_equal(splits.test.y.numpy(), y)
    assert not splits.train.y.any() and not len(splits.val) and not len(splits.reserve)
    with np.load(path) as file:  # a row is named by its place in the file, however often it was drawn
        named = file["X"][splits.test.origin.rows() - 1]
    np.testing.assert_array_equal(named, test)


def test_more_than_fifty_thousand_rows_are_drawn_to_as_many_by_default():
    y = np.arange(60_000) % 100 == 0
    places = dte(y, seed=2)
    assert len(places.train) + len(places.test) == 50_000 == len({*places.train, *places.test})
    assert len(dte(y, seed=2, most=None).test) == 29_700 + 600
    np.random.seed(2)  # noqa: NPY002
    drawn = np.random.choice(np.arange(60_000), 50_000, replace=False)  # noqa: NPY002
    np.testing.assert_array_equal(places.train, drawn[~y[drawn]][: len(places.train)])


def test_no_other_random_number_is_spent():
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    dte([0] * 50 + [1] * 5, seed=0)
    assert np.random.random() == expected  # noqa: NPY002


@pytest.mark.parametrize("where", [{}, {"memory_mb": 0}], ids=["in memory", "on disk"])
@pytest.mark.parametrize("n", [80, 2000])
def test_what_is_missing_is_filled_as_the_generator_fills_it(tmp_path, n, where):
    path = made(tmp_path / "rows.npz", n, n // 8, lacking=0.1)
    train, test, _ = restated(path, 3, 50_000)
    scaler = StandardScaler().fit(train)
    expected = []
    for part in map(scaler.transform, (train, test)):
        means = np.nanmean(part, axis=0)
        expected.append(np.where(np.isnan(part), means, part))

    class OnDisk(ADBench):
        def split(self, events: Events) -> Splits:
            return super().split(Events.of(Mapped([events.x]), events.y))

    data = (OnDisk if where else ADBench)(path=str(path), protocol="dte", seed=3, **where)
    for part, wanted in zip((data.splits.train, data.splits.test), expected, strict=True):
        assert isinstance(part.x, Mapped) == bool(where)
        np.testing.assert_allclose(scaler.transform(part.x[:].double().numpy()), wanted, atol=1e-5)
    lacking = int(np.isnan(train).any(1).sum() + np.isnan(test).any(1).sum())
    assert (
        sum(f"{lacking:,} rows lack a value and get the mean of their own split" in said for said in data.notices) == 1
    )


@pytest.mark.parametrize("missing", ["median", "skip"])
def test_what_is_missing_is_treated_otherwise_if_that_is_asked_for(tmp_path, missing):
    path = made(tmp_path / "rows.npz", 200, 20, lacking=0.1)
    train, *_ = restated(path, 0, None)
    x = ADBench(path=str(path), protocol="dte", missing=missing).splits.train.x.numpy()
    gone = np.isnan(train)
    if missing == "skip":
        np.testing.assert_array_equal(x, train[~gone.any(1)].astype(np.float32))
    else:
        np.testing.assert_allclose(x, np.where(gone, np.nanmedian(train, 0), train), rtol=1e-6)


class Given(AnomalyDataModule):
    """Rows that are given."""

    def __init__(self, x, y, group=None, **common):
        super().__init__(protocol="dte", **common)
        self.rows = Events.of(x, y, meta={} if group is None else {"group": group})

    def load(self) -> Splits:
        return self.split(self.rows)


def test_an_infinity_is_refused_as_by_every_protocol():
    x = torch.rand(50, 2)
    x[7, 1] = torch.inf
    with pytest.raises(DataError) as error:
        Given(x, np.arange(50) % 10 == 0).setup()
    assert "rows hold a NaN or an infinity, in column 1" in sentence(error)


def test_a_feature_that_no_training_row_has_is_refused_and_one_that_no_test_row_has_is_filled():
    x, y = torch.rand(2000, 2), np.arange(2000) % 10 == 0
    first = torch.arange(2000) < 1100
    x[first, 1] = torch.nan
    with pytest.raises(DataError) as error:
        Given(x, y).setup()
    assert "no training row has a value of column 1" in sentence(error)
    x, places = torch.rand(2000, 2), dte(y, seed=0)
    x[places.test, 1] = torch.nan
    splits = Given(x, y).splits
    torch.testing.assert_close(splits.test.x[:, 1], splits.train.x[:, 1].mean().expand(len(places.test)))


# what is said of it


@pytest.mark.parametrize("n", [80, 500, 999])
def test_small_sets_are_said_to_test_copies_of_training_rows(tmp_path, n, caplog):
    path = made(tmp_path / "rows.npz", n, n // 8)
    train, test, y = restated(path, 0, None)
    there = {tuple(row) for row in train}
    share = np.mean([tuple(row) in there for row in test[y == 0]])
    data = ADBench(path=str(path), protocol="dte")
    data.setup()
    said = data.notices[0]
    assert said in caplog.text and "comparison with the tables of DTE only" in said
    assert f"the {n} rows were drawn with replacement to 1,000 before that, and {share:.0%} of the nominal" in said
    assert data.shared_rows == {"nominal": round(share * (y == 0).sum()), "anomalous": 0}
    assert not any("data.overlap=drop" in notice for notice in data.notices)


def test_sets_that_are_not_drawn_are_said_to_be_for_comparison_only(tmp_path, caplog):
    data = ADBench(path=str(made(tmp_path / "rows.npz", 1000, 100)), protocol="dte")
    data.setup()
    assert data.notices == [
        "data.protocol=dte splits nominal rows in the order of the file; results are for comparison with the tables of "
        "DTE only."
    ]
    assert data.shared_rows == {"nominal": 0, "anomalous": 0} and data.notices[0] in caplog.text


def test_the_density_is_said_to_be_compared_on_copies():
    data, density = Given(torch.rand(100, 2), np.arange(100) % 10 == 0), Density()
    density._remarks = []
    density._held_out(data.splits.test, data)
    assert "Test rows may be copies of those trained on (data.protocol=dte)." in density._remarks


# what it refuses


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"contamination": 0.1}, "data.contamination=0.1"),
        ({"contamination": 0.0}, "data.contamination=0.0"),
        ({"train_fraction": 0.7}, "data.train_fraction=0.7"),
        ({"reserve_fraction": 0.5}, "data.reserve_fraction=0.5"),
        ({"overlap": "drop"}, "data.overlap=drop"),
    ],
)
def test_what_would_make_another_protocol_of_it_is_refused(option, said):
    with pytest.raises(DataError) as error:
        ADBench(path="rows.npz", protocol="dte", **option)
    assert f"data.protocol=dte is that of published tables, and knows no {said}" in sentence(error)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"y": np.full(50, -1)}, "needs labels"),
        ({"group": np.arange(50)}, "tears groups apart"),
        ({"seed": -1}, "whose seed is 0 to 2^32 - 1, not -1"),
        ({"seed": 2**32}, "not 4294967296"),
        ({"y": np.zeros(50)}, "holds no anomalous row"),
        ({"y": np.ones(50)}, "no nominal rows to train on"),
    ],
)
def test_rows_that_it_cannot_split_are_refused(given, said):
    with pytest.raises(DataError) as error:
        Given(torch.rand(50, 2), **({"y": np.arange(50) % 10 == 0} | given)).setup()
    assert said in sentence(error)


class Split(AnomalyDataModule):
    """Splits of its own."""

    def load(self) -> Splits:
        test = Events.of(torch.rand(4, 2), [0, 1, 0, 1])
        return Splits(Events.of(torch.rand(10, 2)), test.take([]), test, test.take([]))


def test_splits_that_were_made_before_are_refused(tmp_path):
    with pytest.raises(DataError) as error:
        Split(protocol="dte").setup()
    assert "data.protocol=dte is not for it" in sentence(error)
    pq.write_table(pa.table({"a": np.arange(9.0), "y": np.arange(9) % 2}), path := tmp_path / "rows.parquet")
    assert "leave data.test_path out" in refused(path, test_path=str(path), label="y", protocol="dte")


# rows that were drawn several times go through the house


def test_as_many_rows_as_there_are_but_not_each_of_them_are_taken_for_what_they_are():
    events = Events.of(torch.arange(3.0)[:, None], [0, 1, 1])
    drawn = Places(np.array([0, 0, 2]), np.arange(0), np.arange(3), np.arange(0)).of(events)
    assert drawn.train.x.flatten().tolist() == [0.0, 0.0, 2.0] and drawn.test is events


@pytest.mark.parametrize("memory_mb", [0, 4096])
@pytest.mark.parametrize("ending", ["csv", "parquet", "h5", "npz"])
def test_a_file_of_ones_own_is_drawn_like_one_of_the_collection(tmp_path, ending, memory_mb):
    import h5py

    path = made(tmp_path / "rows.npz", 300, 40)
    train, test, y = restated(path, 1, None)
    with np.load(path) as file:
        x, label = file["X"] + 1.7e9, file["y"]  # times of day, as it were: an offset is learnt of training rows
    own = tmp_path / f"own.{ending}"
    table = pa.table({**{f"x{i}": x[:, i] for i in range(3)}, "y": label})
    if ending == "csv":
        pa.csv.write_csv(table, own)
    elif ending == "parquet":
        pq.write_table(table, own)
    elif ending == "npz":
        np.savez(own, x=x, y=label)
    else:
        with h5py.File(own, "w") as h5:
            h5["x"], h5["y"] = x, label
    splits = File(path=str(own), label="y", protocol="dte", seed=1, memory_mb=memory_mb).splits
    offset = splits.train.x[:].double().numpy()[0] - train[0]
    np.testing.assert_allclose(splits.train.x[:].numpy(), train + offset, atol=1e-5)
    np.testing.assert_allclose(splits.test.x[:].numpy(), test + offset, atol=1e-5)
    np.testing.assert_array_equal(splits.test.y.numpy(), y)


@pytest.mark.parametrize("detector", ["knn", "autoencoder"])
def test_a_run_by_it_is_opened_and_scores_new_files(straylight_train, tmp_path, detector):
    path = made(tmp_path / "rows.npz", 120, 20)
    ended = straylight_train(f"detector={detector}", "data=adbench", f"data.path={path}", "data.protocol=dte", "seed=3")
    assert ended.status == 0, ended.err
    assert ended.result["data"] == "rows (dte)"
    assert sum("comparison with the tables of DTE only" in notice for notice in ended.result["notices"]) == 1
    run = Run.open(ended.run)
    again = config.build(run.cfg, "data").splits.test
    kept = run.rows
    np.testing.assert_allclose(run.score(again.x.numpy()), kept["score"].to_numpy(), rtol=1e-4, atol=1e-6)
    train, test, y = restated(path, 3, 50_000)
    if detector == "knn":
        scaler = StandardScaler().fit(train)
        apart = NearestNeighbors(n_neighbors=5).fit(scaler.transform(train)).kneighbors(scaler.transform(test))[0]
        expected = auroc(apart[y == 0].mean(1), apart[y == 1].mean(1))
        assert ended.result["metrics"]["test/auroc"] == pytest.approx(expected, abs=1e-4)
    with np.load(path) as file:
        x = file["X"].astype(np.float32)
    np.savez(new := tmp_path / "new.npz", X=x)
    scores = run.score(new)
    np.testing.assert_allclose(scores, run.score(x), rtol=1e-6)
    np.testing.assert_allclose(scores[kept["row"].to_numpy() - 1], kept["score"].to_numpy(), rtol=1e-4, atol=1e-6)


# it stays apart


def test_what_is_reached_by_another_protocol_is_another_data_set_in_a_leaderboard(straylight_train, tmp_path):
    path = made(tmp_path / "rows.npz", 120, 20)
    protocols = "data.protocol=nominal_only,unsupervised,dte"
    ended = straylight_train("-m", "detector=knn", "data=adbench", f"data.path={path}", protocols, pictures=False)
    assert ended.status == 0, ended.err
    table = rows(ended.results)
    assert [(row.data, row.detector) for row in table] == [
        ("rows", "knn"),
        ("rows (dte)", "knn"),
        ("rows (unsupervised)", "knn"),
    ]


# the published table


def test_published_values_are_made_again_on_the_real_rows(shared):
    folder = shared / "adbench"
    if not (folder / "20_letter.npz").is_file():
        pytest.skip("no ADBench data sets beside the checkout")
    published = {"20_letter": (35.43, [0]), "14_glass": (92.04, [0, 1, 2, 3, 6]), "46_WPBC": (63.67, [0, 1, 2, 3, 6])}
    for name, (value, seeds) in published.items():
        found = []
        for seed in seeds:
            data = ADBench(path=str(folder / f"{name}.npz"), protocol="dte", seed=seed)
            train, test = data.splits.train, data.splits.test
            knn = KNN(data.shape, scaling="standard", k=5, distance="kth")
            knn.scaling.fit([train.x])
            knn.fit(knn.scaling(train.x), train.context, train.weight)
            score = knn(test.x).detach().numpy()
            found.append(100 * auroc(score[test.y.numpy() == 0], score[test.y.numpy() == 1]))
        assert math.isclose(np.mean(found), value, abs_tol=0.01), name
