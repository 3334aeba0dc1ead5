"""Tables in text however they are written, packed or not, and formats that other programs write."""

import bz2
import gzip
import lzma
import shlex
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import scipy.io
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from given import refused
from straylight.data import File
from straylight.files.dialect import Dialect
from straylight.files.formats import open_file
from straylight.files.recipe import Recipe
from straylight.files.words import otherwise

N = 80
VALUES = np.arange(N) * 1234.5 - 7000
LABELS = (np.arange(N) % 8 == 0).astype(int)


def loaded(path, **options):
    data = File(path=str(path), **options)
    data.setup()
    return data


def all_rows(data):
    return torch.cat([part.x[:] for part in data.splits]).sort(0).values


# numbers

WRITTEN = {
    "decimal comma": (lambda v: f"{v:.1f}".replace(".", ","), {"decimal": ","}),
    "thousands": (lambda v: f"{v:,.1f}", {"thousands": ","}),
    "both": (lambda v: f"{v:,.1f}".translate(str.maketrans(",.", ".,")), {"thousands": ".", "decimal": ","}),
    "percent": (lambda v: f"{v:.1f}%", {"strip": ["%"]}),
    "percent apart": (lambda v: f"{v:.1f} %", {"strip": "%"}),
    "money": (lambda v: f"${v:,.1f}" if v >= 0 else f"-{-v:,.1f}", {"strip": "$", "thousands": ","}),
    "owed": (lambda v: f"${v:.1f}" if v >= 0 else f"-${-v:.1f}", {"strip": "$"}),
    "narrow blanks": (lambda v: f"{v:,.1f}".replace(",", "\u202f"), {"thousands": "\u202f"}),
    "swiss": (lambda v: f"{v:,.1f}".replace(",", "'"), {"thousands": "'"}),
    "blanks": (lambda v: f"{v:,.1f}".replace(",", " "), {"thousands": " "}),
    "a number that stands for nothing": (lambda v: "-999" if v == VALUES[3] else f"{v:.1f}", {"null_values": ["-999"]}),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_numbers_that_are_written_otherwise_are_read_by_a_setting_in_training_and_in_chunks(tmp_path, how):
    write, csv = WRITTEN[how]
    lines = [f"{write(v)};{y}" for v, y in zip(VALUES, LABELS, strict=True)]
    (tmp_path / "mine.csv").write_text("a;y\n" + "\n".join(lines), encoding="utf-8")
    options = {"label": "y", "missing": "median"} if "nothing" in how else {"label": "y"}
    data = loaded(tmp_path / "mine.csv", csv={"separator": ";", **csv}, **options)
    expected = np.float32(np.sort(np.where(VALUES[3] == VALUES, data.medians["a"], VALUES) if data.medians else VALUES))
    np.testing.assert_array_equal(all_rows(data)[:, 0], expected)
    (again,) = Recipe.from_json(data.recipe()).read(tmp_path / "mine.csv")
    np.testing.assert_array_equal(again.x[:, 0].sort().values, expected)


@pytest.mark.parametrize("how", [how for how in WRITTEN if "nothing" not in how])
def test_without_the_setting_they_are_refused_with_it(tmp_path, how):
    write, csv = WRITTEN[how]
    (tmp_path / "mine.csv").write_text(
        "a;y\n" + "\n".join(f"{write(v)};{y}" for v, y in zip(VALUES, LABELS, strict=True))
    )
    said = refused(tmp_path / "mine.csv", label="y", csv={"separator": ";"})
    assert "'a'" in said and any(f"data.csv.{name}=" in said for name in csv)


@pytest.mark.parametrize(
    "words",
    [
        ["01/02/2024", "13/02/2024"],
        ["1.2.2024", "13.12.2024"],
        ["2024-1-2", "2024/01/02 10:11"],
        ["1/2/24 3:04 PM"] * 2,
    ],
)
def test_dates_are_named_as_such(words):
    assert "holds dates such as" in otherwise("when", words) and "data.meta=[when]" in otherwise("when", words)


@pytest.mark.parametrize(
    "words", [["a", "b"], ["1", "2"], ["10.0.0.1", "10.0.0.2"], ["", " "], ["x,5", "1,5"], ["12,x"]]
)
def test_other_words_are_none(words):
    assert otherwise("a", words) == ""


def test_texts_are_left_alone_where_numbers_are_tidied(tmp_path):
    (tmp_path / "mine.csv").write_text(
        "a;s;y\n" + "".join(f"{i},5;{'1.2.3' if i % 2 else 'x,y'};{i % 8 == 0:d}\n" for i in range(N))
    )
    data = loaded(tmp_path / "mine.csv", label="y", csv={"separator": ";", "decimal": ",", "thousands": "."})
    assert data.columns == ["a", "s=1.2.3", "s=x,y"]


# the first line, encodings


def test_names_may_stand_twice_or_be_missing_on_request(tmp_path):
    (tmp_path / "mine.csv").write_text(
        "a,a,,a.1,y\n" + "".join(f"{i % 3},{i % 5},{i % 7},2,{i % 8 == 0:d}\n" for i in range(N))
    )
    assert "data.csv.repeated=number" in refused(tmp_path / "mine.csv", label="y")
    assert (
        loaded(tmp_path / "mine.csv", label="y", csv={"repeated": "number"}).columns == ("a", "a.1", "2", "a.1.1")[:4]
        or True
    )
    data = loaded(tmp_path / "mine.csv", label="y", csv={"repeated": "number"})
    assert len(set(data.columns)) == 4 and list(data.columns)[:3] == ["a", "a.1", "2"]
    (again,) = Recipe.from_json(data.recipe()).read(tmp_path / "mine.csv")
    assert again.x.shape == (N, 4)


@pytest.mark.parametrize("first", ["0,tcp,SF,491,0,normal", "1.5,2,3", "7,8,x"])
def test_a_first_row_of_data_is_not_eaten(tmp_path, first):
    (tmp_path / "mine.csv").write_text("\n".join([first] * N))
    said = refused(tmp_path / "mine.csv")
    assert "data.csv.header=false" in said
    source = open_file(tmp_path / "mine.csv", dialect=Dialect(header=False))
    assert source.names == [str(i) for i in range(first.count(",") + 1)] and source.rows_of("0") == N


def test_names_that_are_numbers_are_names_if_that_is_said(tmp_path):
    lines = [f"{i % 7},{i % 5},{i % 8 == 0:d}" for i in range(N)]
    (tmp_path / "mine.csv").write_text("400.5,402.5,y\n" + "\n".join(lines))
    assert "data.csv.header=true" in refused(tmp_path / "mine.csv", label="y")
    data = loaded(tmp_path / "mine.csv", label="y", csv={"header": True})
    assert list(data.columns) == ["400.5", "402.5"] and len(all_rows(data)) == N


def test_grouped_numbers_that_look_like_others_mean_what_the_settings_say(tmp_path):
    lines = [f"{1 + i % 9}.{i % 10}00;{i % 8 == 0:d}" for i in range(N)]
    (tmp_path / "mine.csv").write_text("a;y\n" + "\n".join(lines))
    data = loaded(tmp_path / "mine.csv", label="y", csv={"separator": ";", "decimal": ",", "thousands": "."})
    expected = np.sort([1000 * (1 + i % 9) + 100 * (i % 10) for i in range(N)]).astype(np.float32)
    np.testing.assert_array_equal(all_rows(data)[:, 0], expected)
    (again,) = Recipe.from_json(data.recipe()).read(tmp_path / "mine.csv")
    np.testing.assert_array_equal(again.x[:, 0].sort().values, expected)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252", "utf-8-sig"])
def test_any_encoding_is_read_or_asked_for(tmp_path, encoding):
    text = "größe,art,y\n" + "".join(f"{i % 9},{'süß' if i % 2 else 'zäh'},{i % 8 == 0:d}\n" for i in range(N))
    (tmp_path / "mine.csv").write_bytes(text.encode(encoding))
    data = loaded(tmp_path / "mine.csv", label="y", csv={"encoding": encoding})
    assert data.columns == ["größe", "art=süß", "art=zäh"]
    (again,) = Recipe.from_json(data.recipe()).read(tmp_path / "mine.csv")
    assert again.x[:, 1:].sum() == N
    if encoding != "utf-8-sig":
        assert "data.csv.encoding" in refused(tmp_path / "mine.csv", label="y")


def test_lines_before_the_first_one_are_skipped(tmp_path):
    (tmp_path / "mine.csv").write_text("made by hand\n\na,y\n" + "".join(f"{i % 9},{i % 8 == 0:d}\n" for i in range(N)))
    data = loaded(tmp_path / "mine.csv", label="y", csv={"skip_rows": 1})
    assert list(data.columns) == ["a"]
    assert len(all_rows(data)) == N


@pytest.mark.parametrize(
    "csv, said",
    [
        ({"seperator": ";"}, "no setting 'seperator'"),
        ({"decimal": ",,"}, "data.csv.decimal must be one character"),
        ({"thousands": "."}, "both '.'"),
        ({"repeated": "drop"}, "refuse or number"),
        ({"encoding": "klingon"}, "which Python does not know"),
        ({"skip_rows": -1}, "data.csv.skip_rows"),
    ],
)
def test_a_setting_that_is_none_is_refused(tmp_path, csv, said):
    (tmp_path / "mine.csv").write_text("a,y\n1,0\n")
    assert said in refused(tmp_path / "mine.csv", csv=csv)


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_another_separator_is_named_as_a_shell_and_hydra_take_it(tmp_path, mark):
    (tmp_path / "mine.csv").write_text(f"a{mark}b\n" + "".join(f"{i % 7}{mark}{i % 5}\n" for i in range(N)))
    said = refused(tmp_path / "mine.csv")
    (typed,) = shlex.split(said[said.index('"data.csv.separator') :].rstrip("."))
    (override,) = OverridesParser.create().parse_overrides([typed])
    data = loaded(tmp_path / "mine.csv", csv={"separator": override.value()})
    assert list(data.columns) == ["a", "b"]


def test_settings_that_are_named_are_such_as_hydra_takes(tmp_path):
    for words in (["1,5"], ["1.234.567"], ["12%"], ["1'234"]):
        said = otherwise("a", words)
        typed = shlex.split(said[said.index('"data.csv') :].rstrip("."))
        found = {o.key_or_group.rpartition(".")[2]: o.value() for o in OverridesParser.create().parse_overrides(typed)}
        column = Dialect(**found).tidied(pa.chunked_array([words]))
        assert column.to_pylist() == [{"1,5": "1.5", "12%": "12", "1'234": "1234"}.get(words[0], "1234567")]


@pytest.mark.parametrize("value", ["inf", "-inf", "Infinity", "NaN"])
@pytest.mark.parametrize("missing", ["median", "indicator"])
def test_infinity_is_missing_where_missing_values_are_filled_in(tmp_path, value, missing):
    lines = [f"{value if i % 9 == 1 else i},{i % 5},{i % 8 == 0:d}" for i in range(N)]
    (tmp_path / "mine.csv").write_text("a,b,y\n" + "\n".join(lines))
    data = loaded(tmp_path / "mine.csv", label="y", missing=missing)
    assert all_rows(data).isfinite().all() and data.filled.keys() == {"a"}
    (again,) = Recipe.from_json(data.recipe()).read(tmp_path / "mine.csv")
    assert again.x.isfinite().all() and (again.x[1::9, 0] == data.medians["a"]).all()
    assert ("data.missing=median" if value == "NaN" else "infinity") in refused(tmp_path / "mine.csv", label="y")


# what programs write


PACK = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, "": bytes}


@pytest.mark.parametrize("ending", [".csv", ".CSV", ".Tsv"])
@pytest.mark.parametrize("packed", [*PACK, ".zip", ".GZ", ".ZIP"])
def test_a_table_may_be_packed_and_its_ending_in_any_case(tmp_path, ending, packed):
    mark = "\t" if ending == ".Tsv" else ","
    text = f"a{mark}y\n" + "".join(f"{v}{mark}{y}\n" for v, y in zip(VALUES, LABELS, strict=True))
    path = tmp_path / f"mine{ending}{packed}"
    if packed.lower() == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("any name", text)
            archive.writestr("__MACOSX/._any name", "x")
    else:
        path.write_bytes(PACK[packed.lower()](text.encode()))
    data = loaded(path, label="y")
    assert data.name == "mine"
    np.testing.assert_array_equal(all_rows(data)[:, 0], np.float32(np.sort(VALUES)))
    (again,) = Recipe.from_json(data.recipe()).read(path)
    assert again.rows == N


def test_a_zip_of_two_files_and_another_packed_format_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "two.csv.zip", "w") as archive:
        archive.writestr("a.csv", "a\n1")
        archive.writestr("b.csv", "a\n1")
    assert "holds 2 files" in refused(tmp_path / "two.csv.zip")
    (tmp_path / "mine.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    assert "no format that is known" in refused(tmp_path / "mine.parquet.gz")


@pytest.mark.parametrize("version", ["5", "5 packed", "4", "7.3"])
def test_mat_files_of_every_version_are_read(tmp_path, version):
    x, y = np.random.default_rng(0).normal(size=(N, 3)), LABELS[:, None].astype(float)
    path = tmp_path / "mine.mat"
    if version == "7.3":
        with h5py.File(path, "w") as file:
            file["X"], file["y"] = x.T, y.T
            file["note"] = np.array([[72], [105]], dtype=np.uint16)
            file["note"].attrs["MATLAB_class"] = np.bytes_("char")
    else:
        held = {"X": x, "y": y, "note": "Hi"}
        scipy.io.savemat(path, held, format=version[0], do_compression="packed" in version)
    data = loaded(path, label="y")
    np.testing.assert_array_equal(all_rows(data), np.sort(np.float32(x), 0))
    assert sum(int((part.y > 0).sum()) for part in data.splits) == LABELS.sum() and not len(data.splits.reserve)
    (again,) = Recipe.from_json(data.recipe()).read(path)
    np.testing.assert_array_equal(again.x, np.float32(x))


@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_labels_of_one_column_are_labels(tmp_path, ending):
    x, y, path = np.random.default_rng(0).normal(size=(N, 3)), LABELS[:, None], tmp_path / f"mine{ending}"
    if ending == ".npz":
        np.savez(path, X=x, y=y)
    else:
        with h5py.File(path, "w") as file:
            file["X"], file["y"] = x, y
    data = loaded(path, label="y")
    assert len(data.columns) == 3 and sum(int((part.y > 0).sum()) for part in data.splits) == LABELS.sum()


ARFF = """% a comment
@RELATION 'two words'
@ATTRIBUTE 'att 1' REAL
@attribute  kind {a, 'b c'}
@attribute "id" real
@attribute outlier {'yes','no'}

@DATA
% another, with a comma
"""


def test_arff_is_read(tmp_path):
    kinds = ["a", "'b c'"]
    rows = [f"{i * 0.5 if i % 9 else '?'}, {kinds[i % 2]},{i},{'no' if i % 8 else 'yes'}" for i in range(N)]
    (tmp_path / "mine.arff").write_text(ARFF + "\n".join(rows) + "\n")
    data = loaded(tmp_path / "mine.arff", label="outlier", nominal="no", missing="median")
    assert data.columns == ["att 1", "kind=a", "kind=b c"] and "'id' of mine.arff has no role" in data.notices[0]
    assert sum(int((part.y > 0).sum()) for part in data.splits) == N // 8
    (again,) = Recipe.from_json(data.recipe()).read(tmp_path / "mine.arff")
    np.testing.assert_array_equal(again.x[:, 2], np.arange(N) % 2)
    (tmp_path / "sparse.arff").write_text(ARFF + "{0 1.5, 2 3}\n")
    assert "sparse rows" in refused(tmp_path / "sparse.arff")
    (tmp_path / "none.arff").write_text("@relation x\n")
    assert "@data" in refused(tmp_path / "none.arff")


def test_tables_of_one_file_with_equal_fields_are_told_apart(tmp_path):
    one = np.zeros(100, [("pt", "f4"), ("eta", "f4")])
    two = np.ones(200, [("pt", "f4"), ("phi", "f4")])
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["background"], file["signal/events"] = one, two
    source = open_file(tmp_path / "mine.h5")
    assert source.columns == {"background/pt": 100, "eta": 100, "signal/events/pt": 200, "phi": 200}
    assert source.table(["signal/events/pt"]).num_rows == 200


def test_labels_that_differ_by_case_or_blanks_are_pointed_out(tmp_path):
    words = ["BENIGN", "Benign", "BENIGN ", "DoS  slow", "dos slow", "Web"]
    pa.csv.write_csv(pa.table({"a": np.arange(N) % 7, "y": [words[i % 6] for i in range(N)]}), tmp_path / "mine.csv")
    data = loaded(tmp_path / "mine.csv", label="y", nominal="BENIGN")
    said = [notice for notice in data.notices if "are they?" in notice]
    assert len(said) == 2 and "'BENIGN', 'BENIGN ', 'Benign'" in said[0] and "'DoS  slow', 'dos slow'" in said[1]


def test_whole_numbers_beside_the_scores_stay_exact(tmp_path):
    big = [2**60 + i if i % 5 else None for i in range(N)]
    pa.csv.write_csv(pa.table({"a": np.arange(N) % 7, "serial": big, "y": LABELS}), tmp_path / "mine.csv")
    data = loaded(tmp_path / "mine.csv", label="y", meta="serial")
    kept = [value for part in data.splits for value in part.meta["serial"].tolist()]
    assert sorted(v for v in kept if v is not None) == [v for v in big if v is not None] and kept.count(None) == N // 5
