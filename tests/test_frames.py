"""`study` of names and of what is in memory: the same numbers as the command on the same rows in a file."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from straylight.data import Blobs, Frame
from straylight.detectors import KNN
from straylight.errors import ConfigError, DataError
from straylight.study import study

needs_pandas = pytest.mark.skipif(find_spec("pandas") is None, reason="no pandas: pip install 'straylight[mlflow]'")
needs_polars = pytest.mark.skipif(find_spec("polars") is None, reason="polars is not installed")
LIBRARIES = [
    "pyarrow",
    pytest.param("pandas", marks=needs_pandas),
    pytest.param("polars", marks=needs_polars),
    pytest.param("pandas categories", marks=needs_pandas),
]
QUICK = {"epochs": 2, "progress": False}


def table() -> pa.Table:
    """Numbers with an offset, whole numbers, text, a label in words and a name of each row."""
    random = np.random.default_rng(0)
    n = 400
    bad = np.arange(n) >= 360
    return pa.table(
        {
            "bytes": random.normal(1e6, 1, n) + 9 * bad,
            "hops": random.integers(0, 9, n),
            "service": np.where(bad, "odd", random.choice(["http", "dns"], n)),
            "status": np.where(bad, "attack", "ok"),
            "name": [f"flow {i}" for i in range(n)],
        }
    )


def as_frame(rows: pa.Table, library: str):
    if library == "pyarrow":
        return rows
    if library == "polars":
        import polars

        return polars.from_arrow(rows)
    frame = rows.to_pandas()
    return frame.astype({"service": "category"}) if library == "pandas categories" else frame


ROLES = {"label": "status", "nominal": "ok", "meta": ["name"]}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_frame_has_the_numbers_of_the_command_on_its_file(library, straylight_train, tmp_path) -> None:
    rows = table()
    pa.csv.write_csv(rows, tmp_path / "mine.csv")
    of_frame = study("vae", as_frame(rows, library), **ROLES, latent=3, hidden=[8], lr=0.01, batch_size=64, **QUICK)
    of_file = study("vae", tmp_path / "mine.csv", **ROLES, latent=3, hidden=[8], lr=0.01, batch_size=64, **QUICK)
    typed = ["data=file", "data.path=mine.csv", "data.label=status", "data.nominal=ok", "data.meta=[name]"]
    chosen = ["detector=vae", "detector.latent=3", "detector.hidden=[8]", "optimizer.lr=0.01", "data.batch_size=64"]
    ended = straylight_train(*typed, *chosen, epochs=2)
    assert ended.status == 0, ended.err
    scores = pq.read_table(ended.run / "scores.parquet")["score"].to_numpy()
    np.testing.assert_array_equal(of_file.scores, scores)
    np.testing.assert_array_equal(of_frame.scores, scores)
    assert of_frame.kinds == ("nominal", "attack")
    assert of_frame.data.columns == ["bytes", "hops", "service=dns", "service=http"]
    assert list(of_frame.meta) and of_frame.data.recipe()["categories"] == {"service": ["dns", "http"]}
    assert (of_frame.result["detector"], of_frame.result["data"]) == ("vae", "frame")


def test_arrays_with_labels_beside_them_or_in_a_column() -> None:
    random = np.random.default_rng(0)
    x, y = np.r_[random.normal(size=(300, 3)), random.normal(6, 1, (30, 3))], np.repeat([0, 1], [300, 30])
    beside = study("knn", x, label=y, **QUICK)
    inside = study("knn", np.c_[x, y], label=3, **QUICK)
    named = study("knn", {"X": x, "y": y}, label="y", **QUICK)
    assert beside.metric("auroc") == 1.0
    np.testing.assert_array_equal(beside.scores, inside.scores)
    np.testing.assert_array_equal(beside.scores, named.scores)


def test_images_in_memory_go_through_a_convolutional_detector() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(200, 1, 8, 8)), np.arange(200) > 179
    assert study("autoencoder_conv", x, label=y, epochs=1, progress=False).x.shape[1:] == (1, 8, 8)


def test_a_second_frame_is_tested_as_it_is() -> None:
    rows = table()
    found = study("knn", rows.slice(0, 300), test=rows.slice(300), **ROLES, **QUICK)
    assert len(found.scores) == 100 and (found.y > 0).sum() == 40
    assert found.metric("auroc") == 1.0


def test_names_of_data_sets_and_of_files_mix_with_objects(tmp_path) -> None:
    by_name = study("knn", "blobs", k=5, **QUICK)
    data = Blobs(seed=0)
    np.testing.assert_array_equal(by_name.scores, study(KNN(data.shape, k=5), data, **QUICK).scores)
    np.testing.assert_array_equal(by_name.scores, study("knn", Blobs(seed=0), k=5, **QUICK).scores)


@needs_pandas
def test_what_pandas_numbers_rows_by_is_no_feature() -> None:
    frame = table().to_pandas()
    frame.index = frame.pop("hops").rename("flow_number") + 7 * np.arange(len(frame))
    data = Frame(frame, **ROLES)
    data.setup()
    assert data.columns == ["bytes", "service=dns", "service=http"]


@needs_pandas
def test_numbers_that_are_declared_categories_are_categories() -> None:
    frame = table().to_pandas().astype({"hops": "category"})
    data = Frame(frame, **ROLES)
    data.setup()
    assert [name for name in data.columns if name.startswith("hops=")] == [f"hops={i}" for i in range(9)]


X, Y = np.zeros((20, 2)), np.arange(20) > 15


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (lambda: study("vea", X), r"there is no detector 'vea' \(did you mean 'vae'\?\); there are aae, "),
        (lambda: study("vae", "blob"), r"there is no data set and no file 'blob' \(did you mean 'blobs'\?\)\."),
        (lambda: study("vae", "absent.csv"), r"absent\.csv"),
        (lambda: study("vae", X, latnet=3), r"There is no setting 'latnet' \(did you mean 'latent'\?\); there are of"),
        (lambda: study("vae", X, latent="three"), r"detector\.latent should be .*, not 'three'"),
        (lambda: study("vae", X, latent=object()), r"latent cannot be <object"),
        (lambda: study("vae", [[1.0, 2.0]]), r"the data are a list; give a table of pandas, polars or pyarrow"),
        (lambda: study("vae", X, path="mine.csv"), r"path is no setting here: give the path in the place of the frame"),
        (lambda: study("aae", X, weight=2.0), r"weight is a setting of the detector and of the data: say \*\*\{"),
        (
            lambda: study(KNN((2,)), Blobs(), k=3),
            r"k is a setting of what is named, and both the detector and the data",
        ),
        (lambda: study(3, X), r"the detector is a int; give one of ours, or the name of one\."),
        (lambda: study("vae", X, label=Y[:5]), r"the frame: .*rows"),
        (lambda: study("vae", X, label=Y[:, None]), r"the frame: 'label' must be one value a row"),
        (lambda: study("vae", X, label=Y, test=X), r"label must be the name of a column, not the labels"),
        (lambda: study("vae", table(), label="stats"), r"the frame has no column 'stats' \(did you mean 'status'\?\)"),
        (lambda: study("vae", table(), meta=["name"]), r"the frame has a column 'status', which may be a label"),
        (lambda: study("vae", np.array([["a", "b"]] * 9)), r"the frame must hold numbers in its array"),
        (lambda: Frame(X, csv={}), r"csv is of files; give their path in the place of the frame\."),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(given, sentence) -> None:
    with pytest.raises((ConfigError, DataError), match=sentence) as raised:
        given()
    assert "\n" not in str(raised.value)


def test_a_weight_is_of_whom_it_is_said_to_be() -> None:
    rows = table().append_column("w", pa.array(np.ones(400)))
    found = study("aae", rows, **ROLES, **{"data.weight": "w", "detector.weight": 2.0}, epochs=1, progress=False)
    assert "w" not in found.data.columns
