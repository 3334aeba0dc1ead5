"""`straylight score`: rows of files become tables of scores, each row once, whole or not at all."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import sys
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from conftest import finished_run
from straylight.commands import asked, explain, score
from straylight.commands.score import main
from straylight.errors import ConfigError
from straylight.explain.contributions import Method
from straylight.files.fitting import Lacking, Unseen
from straylight.metrics.conformal import Calibration, benjamini_hochberg
from straylight.metrics.drift import Compared
from straylight.metrics.judge import Judge
from straylight.run import Run
from straylight.scoring import ranks as ranks_module
from straylight.scoring import target
from straylight.scoring.inputs import gathered
from straylight.scoring.ledger import Ledger
from straylight.scoring.ranks import ranks
from straylight.scoring.target import Target

N = 400


def mine(n=N, seed=0, first=0):
    """Rows whose id says which they are."""
    rng = np.random.default_rng(seed)
    strange = np.arange(n) % 20 == 0
    return pa.table(
        {
            "id": [f"r{first + i}" for i in range(n)],
            "a": rng.normal(size=n) + 4 * strange,
            "b": rng.normal(size=n),
            "service": np.array(["http", "dns", "smtp"])[np.arange(n) % 3],
            "port": np.array([80, 53, 25])[np.arange(n) % 3],
            "status": np.where(strange, "bad", "ok"),
        }
    )


def write(path: Path, table: pa.Table) -> Path:
    name = path.name
    if name.endswith((".csv", ".csv.gz")):
        out = io.BytesIO()
        pa.csv.write_csv(table, out)
        path.write_bytes(gzip.compress(out.getvalue()) if name.endswith(".gz") else out.getvalue())
    elif name.endswith(".parquet"):
        pq.write_table(table, path)
    else:
        arrays = {n: table[n].to_numpy() for n in table.column_names}
        arrays = {n: v.astype("U") if v.dtype == object else v for n, v in arrays.items()}
        np.savez(path, **arrays)
    return path


def read(path: Path) -> pa.Table:
    name = path.name
    if name.endswith((".csv", ".csv.gz")):
        return pa.csv.read_csv(path)
    if name.endswith(".parquet"):
        return pq.read_table(path)
    with np.load(path) as held:
        return pa.table({n: held[n] for n in held.files})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    path = write(folder / "mine.parquet", mine())
    options = ["data.label=status", "data.nominal=ok", "data.meta=[id]", "data.categorical=[port]", "detector=knn"]
    more = ["data.val_fraction=0.4", "callbacks.thresholds.fprs=[0.1,1e-6]", f"hydra.run.dir={folder / 'run'}"]
    return finished_run(folder / "run", "data=file", f"data.path={path}", *options, *more)


def typed(*arguments: object) -> int:
    """The exit status of the command."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


# tables of scores


@pytest.mark.parametrize("out", [".parquet", ".csv", ".csv.gz", ".npz"])
@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet", ".npz"])
def test_every_row_has_the_score_of_the_run_beside_what_names_it(run, tmp_path, ending, out, capsys):
    table = mine(150, seed=1, first=1000)
    path = write(tmp_path / f"new{ending}", table)
    assert typed(run, path, "-o", tmp_path / f"scores{out}", "--keep", "b,service") == 0
    found, opened = read(tmp_path / f"scores{out}"), Run.open(run)
    names = ["row", "id", "b", "service", "score", "p_value", "flag_quantile", "flag_fpr=0.1", "flag_fdr", "rank"]
    assert found.column_names == names
    scores = opened.score(path)
    np.testing.assert_array_equal(found["score"].to_numpy().astype(np.float32), scores)
    np.testing.assert_array_equal(scores, opened.score(table))
    assert found["row"].to_pylist() == list(range(1, 151)) and found["id"].to_pylist() == table["id"].to_pylist()
    np.testing.assert_allclose(found["p_value"], opened.p_values(path))
    for rule in ("quantile", "fpr=0.1", "fdr"):
        np.testing.assert_array_equal(found[f"flag_{rule}"].to_numpy().astype(bool), opened.flag(path, rule))
    np.testing.assert_array_equal(found["rank"], stats.rankdata(-scores, method="min"))
    np.testing.assert_allclose(found["b"].to_numpy().astype(float), table["b"])
    said = capsys.readouterr()
    assert "could set no threshold 'fpr=1e-06'" in said.err and "150 rows, " in said.out and "drift" in said.out.lower()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_several_files_are_one_table_or_one_each(run, tmp_path, capsys):
    (tmp_path / "days" / "deep").mkdir(parents=True)
    one = write(tmp_path / "days" / "mon.csv", mine(30, 1))
    two = write(tmp_path / "days" / "deep" / "tue.parquet", mine(40, 2))
    (tmp_path / "days" / "notes.txt").write_text("nothing")
    assert typed(run, tmp_path / "days", "-o", tmp_path / "all.parquet", "--threshold", "none") == 0
    whole = pq.read_table(tmp_path / "all.parquet")
    scores = {path: Run.open(run).score(path) for path in (one, two)}
    assert whole["file"].to_pylist() == [str(two)] * 40 + [str(one)] * 30
    assert whole["row"].to_pylist() == [*range(1, 41), *range(1, 31)]
    joined = np.concatenate([scores[two], scores[one]])
    np.testing.assert_array_equal(whole["score"], joined)
    np.testing.assert_array_equal(whole["rank"], stats.rankdata(-joined, method="min"))
    assert typed(run, tmp_path / "days", "-o", tmp_path / "each") == 0
    np.testing.assert_array_equal(pq.read_table(tmp_path / "each" / "mon.parquet")["score"], scores[one])
    np.testing.assert_array_equal(pq.read_table(tmp_path / "each" / "deep" / "tue.parquet")["score"], scores[two])
    assert typed(run, str(tmp_path / "days" / "**" / "*.*sv"), "-o", f"{tmp_path}/csv/*.csv") == 0
    assert [path.name for path in sorted((tmp_path / "csv").iterdir())] == ["mon.csv", "scored.json"]


def test_files_whose_ids_are_of_several_types_are_one_table(run, tmp_path):
    one, two = mine(5, 1), mine(5, 2)
    ids = pa.array(range(100, 105))
    write(tmp_path / "a.parquet", one.set_column(0, "id", ids).append_column("day", pa.array(["mon"] * 5)))
    write(tmp_path / "b.parquet", two.set_column(0, "id", two["id"].dictionary_encode()))
    write(tmp_path / "c.parquet", two.drop_columns(["id"]).append_column("day", pa.array([[1]] * 5)))
    for out in ("s.parquet", "s.csv", "s.npz"):
        assert typed(run, tmp_path / "a.parquet", tmp_path / "b.parquet", "-o", tmp_path / out) == 0
        found = read(tmp_path / out)
        assert found["id"].to_pylist() == [*map(str, range(100, 105)), *two["id"].to_pylist()]
        assert found["row"].to_pylist() == [1, 2, 3, 4, 5] * 2
    assert typed(run, tmp_path / "a.parquet", tmp_path / "c.parquet", "-o", tmp_path / "t.parquet") == 0
    assert pq.read_table(tmp_path / "t.parquet")["id"].to_pylist() == [*range(100, 105), *[None] * 5]
    assert typed(run, tmp_path / "c.parquet", "-o", tmp_path / "t.csv", "--keep", "day") == 1


def test_what_was_scored_before_is_not_scored_again_unless_something_changed(run, tmp_path, capsys):
    path = write(tmp_path / "new.csv", mine(30, 1))
    out = tmp_path / "scores"

    def scored(*options):
        before = (out / "new.parquet").stat().st_ino if out.is_dir() else None
        assert typed(run, path, "-o", out, *options) == 0
        return (out / "new.parquet").stat().st_ino != before

    assert scored() and not scored()
    assert "scored before" in capsys.readouterr().out
    assert scored("--threshold", "fpr=0.2") and scored() and not scored()
    write(path, mine(31, 1))
    assert scored() and len(pq.read_table(out / "new.parquet")) == 31
    (out / "new.parquet").write_bytes(b"damaged")
    assert scored() and len(pq.read_table(out / "new.parquet")) == 31


def test_standard_input_and_output_take_a_file_as_it_is(run, tmp_path, monkeypatch, capfdbinary):
    table = mine(20, 1)
    scores = Run.open(run).score(table)
    for ending in (".csv", ".csv.gz", ".parquet", ".npz"):
        held = write(tmp_path / f"new{ending}", table).read_bytes()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(held)))
        assert typed(run, "-", "-o", "-") == 0
        found = pa.csv.read_csv(io.BytesIO(capfdbinary.readouterr().out))
        np.testing.assert_array_equal(found["score"].to_numpy().astype(np.float32), scores)


def test_the_strangest_are_shown_and_what_came_of_it_is_told_as_json(run, tmp_path, capsys):
    path = write(tmp_path / "new.csv", mine(60, 1))
    assert typed(run, path, "--top", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    order = np.argsort(-Run.open(run).score(path))
    assert [line.split()[2] for line in lines[-3:]] == [f"r{i}" for i in order[:3]]
    assert typed(run, path, "--top", "2", "--json", "--threshold", "fpr=0.1") == 0
    told = json.loads(capsys.readouterr().out)
    (file,) = told["files"].values()
    assert file["rows"] == 60 and file["flagged"]["fpr=0.1"] == Run.open(run).flag(path, "fpr=0.1").sum()
    assert [row["id"] for row in told["top"]] == [f"r{i}" for i in order[:2]] and told["drift"]["rows"] == 60


def test_a_graph_scores_as_torch_does(tmp_path, straylight_train):
    path = write(tmp_path / "mine.csv", mine())
    own = ["data.label=status", "data.nominal=ok", "data.features=[a,b,service]", "trainer.max_epochs=1"]
    run = straylight_train("data=file", f"data.path={path}", *own, "detector=autoencoder").run
    for runtime in ("onnx", "auto", "torch"):
        assert typed(run, path, "-o", tmp_path / f"{runtime}.parquet", "--runtime", runtime, "--threads", "1") == 0
    expected = Run.open(run).score(path)
    for runtime in ("onnx", "auto", "torch"):
        np.testing.assert_allclose(pq.read_table(tmp_path / f"{runtime}.parquet")["score"], expected, rtol=1e-4)


def test_an_exported_folder_scores_as_the_run_that_it_is_of(run, tmp_path, capsys):
    from straylight.commands.export import main as export

    export([str(run), "-o", str(tmp_path / "served")])
    table = mine(50, 1)
    path, bad = write(tmp_path / "new.csv", table), write(tmp_path / "bad.csv", table.rename_columns([*"xyzuvw"]))
    for name, options in {"run": [run], "served": [tmp_path / "served", "--runtime", "onnx"]}.items():
        where = tmp_path / f"{name}.parquet"
        assert typed(options[0], path, "-o", where, *options[1:], "--threshold", "fpr=0.1", "--threshold", "fdr") == 0
    one, other = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("run", "served"))
    assert one.column_names == other.column_names
    np.testing.assert_allclose(one["score"], other["score"], rtol=1e-4, atol=1e-5)
    for name in ("id", "flag_fpr=0.1", "flag_fdr", "rank", "p_value"):
        assert one[name].to_pylist() == other[name].to_pylist()
    for wrong, said in {
        (path, "--members"): "has no members",
        (path, "--explain", "2"): "a graph is not taken apart",
        (path, "--runtime", "torch"): "was exported as onnx",
        (path, "--device", "cuda"): "scores on the processor",
        (bad,): "lacks 4 of the columns",
    }.items():
        capsys.readouterr()
        assert typed(tmp_path / "served", *wrong) != 0 and said in capsys.readouterr().err


def test_the_features_that_contribute_most_stand_beside_the_score(run, tmp_path):
    path = write(tmp_path / "new.csv", mine(12, 1))
    assert typed(run, path, "-o", tmp_path / "s.parquet", "--explain", "2") == 0
    found, why = pq.read_table(tmp_path / "s.parquet"), Run.open(run).explain(path)
    for i in range(12):
        names = [why.features.names[k] for k in why.first(i, 2)]
        assert [found[f"feature_{k}"][i].as_py() for k in (1, 2)] == names
        assert found["contribution_1"][i].as_py() == pytest.approx(why.contributions[i].max(), rel=1e-4)


def test_members_of_an_ensemble_stand_beside_its_score(tmp_path, straylight_train):
    path = write(tmp_path / "mine.csv", mine())
    own = ["data.label=status", "data.nominal=ok", "data.features=[a,b]", "trainer.max_epochs=1"]
    run = straylight_train("data=file", f"data.path={path}", *own, "detector=ensemble", "detector.members=3").run
    assert typed(run, path, "-o", tmp_path / "scores.parquet", "--members") == 0
    found = pq.read_table(tmp_path / "scores.parquet")
    members = np.stack([found[f"member_{i}"] for i in range(3)], 1)
    np.testing.assert_allclose(members.mean(1), found["score"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["score"], Run.open(run).score(path), rtol=1e-4, atol=1e-5)


def test_a_run_that_calibrated_across_folds_has_its_p_values(tmp_path, straylight_train):
    path = write(tmp_path / "mine.csv", mine(120))
    own = ["data.label=status", "data.nominal=ok", "data.features=[a,b]", "callbacks.thresholds.cross=3"]
    run = straylight_train(
        "data=file", f"data.path={path}", *own, "detector=knn", "callbacks.thresholds.fprs=[0.1]"
    ).run
    assert typed(run, path, "-o", tmp_path / "scores.parquet", "--threshold", "fpr=0.1", "--threshold", "fdr") == 0
    found, opened = pq.read_table(tmp_path / "scores.parquet"), Run.open(run)
    np.testing.assert_allclose(found["p_value"], opened.p_values(path))
    for rule in ("fpr=0.1", "fdr"):
        np.testing.assert_array_equal(found[f"flag_{rule}"].to_numpy(zero_copy_only=False), opened.flag(path, rule))


# rows that do not fit

MISFITS = [
    ("a", None, "'a' is missing"),
    ("a", "abc", "column 'a' holds 'abc', which is no number"),
    ("a", "inf", "'a' is missing"),
    ("service", None, "'service' is missing"),
    ("port", None, "'port' is missing"),
    ("service", "ftp", "column 'service' holds 'ftp', which no training row has"),
    ("port", "8080", "column 'port' holds '8080', which no training row has"),
]


@pytest.mark.parametrize("name, value, said", MISFITS, ids=str)
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_row_that_does_not_fit_is_refused_filled_in_or_left_out_as_the_user_says(
    run, tmp_path, name, value, said, ending, capsys
):
    table = mine(30, 1)
    texts = table[name].cast(pa.string()).to_pylist()
    texts[7] = value
    place = table.column_names.index(name)
    path = write(tmp_path / f"new{ending}", table.set_column(place, name, pa.array(texts)))
    rules = ("--missing", "error", "--unseen", "error")
    assert typed(run, path, "-o", tmp_path / "scores.csv", *rules) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"row 8: {said}" in error and str(path) in error and error.endswith(".")
    assert not (tmp_path / "scores.csv").exists() and len(list(tmp_path.iterdir())) == 1
    assert typed(run, path, "-o", tmp_path / "scores.csv", "--missing", "skip", "--unseen", "skip") == 0
    assert f"1 row cannot be scored: {said}" in capsys.readouterr().err
    found = pa.csv.read_csv(tmp_path / "scores.csv")
    assert [i for i, score in enumerate(found["score"].to_pylist()) if score is None] == [7]
    assert said in found["reason"][7].as_py() and found["reason"].to_pylist().count("") + 1 == 30
    assert found["rank"][7].as_py() is None and found["flag_quantile"].to_pylist()[7] in (None, "")
    expected = Run.open(run).score(table)
    np.testing.assert_array_equal(np.delete(found["score"].to_numpy().astype(np.float32), 7), np.delete(expected, 7))
    rules = {"missing": "skip", "unseen": "skip"}
    scores, flags = Run.open(run).score(path, **rules), Run.open(run).flag(path, **rules)
    np.testing.assert_array_equal(np.isnan(scores), np.arange(30) == 7)
    assert np.ma.is_masked(flags) and flags.mask.tolist() == np.isnan(scores).tolist()
    assert np.isnan(Run.open(run).p_values(path, **rules)[7])
    if value != "abc":
        assert typed(run, path, "-o", tmp_path / "scores.csv", "--missing", "median", "--unseen", "other") == 0
        notice = capsys.readouterr().err
        assert "1 row lacks a value" in notice or "1 row holds a category" in notice
        assert np.isfinite(pa.csv.read_csv(tmp_path / "scores.csv")["score"].to_numpy()).all()


def test_a_row_alone_is_scored_as_in_its_file(run, tmp_path):
    table = mine(60, 1)
    scores = Run.open(run).score(write(tmp_path / "all.csv", table))
    for row in (0, 1, 2, 20):
        for ending in (".csv", ".parquet"):
            alone = Run.open(run).score(write(tmp_path / f"alone{ending}", table.slice(row, 1)))
            np.testing.assert_array_equal(alone, scores[row : row + 1])


# kills

PROGRAM = """
import sys
from straylight.files import recipe
recipe.BYTES = 2**14  # chunks of some rows
from straylight.commands import asked, explain, score
from straylight.commands.score import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("out", ["scores/*.csv", "scores.csv"])
def test_a_kill_at_any_moment_loses_nothing_and_repeats_nothing(run, tmp_path, out, fresh):
    for day in range(6):
        write(tmp_path / f"day{day}.csv", mine(3000, seed=day, first=3000 * day))
    files = [str(tmp_path / f"day{day}.csv") for day in range(6)]

    def start(where):
        options = ["-o", f"{tmp_path}/{where}/{out}", "--threads", "1"]
        return fresh.start([sys.executable, "-c", PROGRAM, str(run), *files, *options])

    for _ in range(2):  # what starts it imports at the first time
        begun = time.monotonic()
        assert start("whole").wait(300) == 0
        took = time.monotonic() - begun
        expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").rglob("*.csv")}
        shutil.rmtree(tmp_path / "whole")
    assert sum(held.count(b"\n") - 1 for held in expected.values()) == 18000
    rng, round_, ended = random.Random(0), 0, 0
    for _ in range(30):
        place = tmp_path / f"killed{round_}"
        before = {path.name: path.stat().st_ino for path in place.rglob("*.csv")} if place.exists() else {}
        program = start(place.name)
        time.sleep(rng.uniform(0.1, took))
        program.kill()
        status = program.wait(60)
        found = {path.name: path for path in place.rglob("*.csv")}
        for name, path in found.items():
            assert path.read_bytes() == expected[name]
            assert before.get(name, path.stat().st_ino) == path.stat().st_ino or out == "scores.csv"
        if status == 0:
            assert set(found) == set(expected)
            ended, round_ = ended + 1, round_ + 1
    last = tmp_path / f"killed{round_}"
    assert start(last.name).wait(300) == 0
    assert {path.name: path.read_bytes() for path in last.rglob("*.csv")} == expected
    left = {path.name for path in last.rglob("*") if path.is_file()} - set(expected)
    assert left <= {"scored.json"} and not list(last.rglob(".*"))


def test_two_commands_do_not_score_to_one_place(run, tmp_path, capsys):
    from straylight.sweep.lease import leased

    path = write(tmp_path / "new.csv", mine(30, 1))
    with leased(Target.of(str(tmp_path / "scores.csv")).scratch, alone=True):
        assert typed(run, path, "-o", tmp_path / "scores.csv") == 2
    assert "is running in" in capsys.readouterr().err
    assert typed(run, path, "-o", tmp_path / "scores.csv") == 0


# what is typed


@pytest.mark.parametrize(
    "arguments, status, said",
    [
        (["RUN", "nowhere.csv"], 1, "there is no file nowhere.csv"),
        (["RUN", "nowhere*.csv"], 1, "no file is called like nowhere*.csv"),
        (["nowhere", "FILE"], 2, "nowhere"),
        (["RUN", "FILE", "-o", "scores.txt"], 2, "scores.txt must end in .parquet, .csv, .csv.gz or .npz"),
        (["RUN", "FILE", "-o", "out/*.txt"], 2, "must end in"),
        (["RUN", "FILE", "--threshold", "fpr=2"], 2, "must lie between 0 and 1"),
        (["RUN", "FILE", "--threshold", "best"], 2, "has no threshold 'best', but quantile"),
        (["RUN", "FILE", "--threshold", "fpr=1e-5"], 2, "takes 99,999 nominal calibration rows"),
        (["RUN", "FILE", "--keep", "nix"], 1, "no column 'nix'"),
        (["RUN", "FILE", "--members"], 2, "KNN has no members: --members is for a run of detector=ensemble"),
        (["RUN", "FILE", "--missing", "drop"], 2, "invalid choice: 'drop'"),
        (["RUN", "FILE", "--device", "cuda:9"], 2, "there is no device 'cuda:9'"),
        (["RUN", "FILE", "--device", "tpu"], 2, "there is no device 'tpu'"),
        (["RUN", "FILE", "--threads", "0"], 2, "--threads must be 1 or more"),
        (["RUN", "FILE", "--top", "-1"], 2, "--top must be 0 or more"),
        (["RUN", "FILE", "--nix"], 2, "there is no option --nix"),
        (["RUN"], 2, "FILE"),
        (["RUN", "OTHER"], 1, "lacks 4 of the columns that it must have: 'a', 'b', 'service', 'port'"),
    ],
    ids=str,
)
def test_what_is_asked_wrongly_is_one_sentence(run, tmp_path, monkeypatch, arguments, status, said, capsys):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": run, "FILE": write(tmp_path / "new.csv", mine(30, 1)), "OTHER": tmp_path / "other.csv"}
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    before = sorted(tmp_path.rglob("*"))
    assert typed(*(places.get(word, word) for word in arguments)) == status
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and said in errors[0] and errors[0].endswith(".")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_words_that_can_be_typed_are_those_that_are_known() -> None:
    assert (get_args(Lacking), get_args(Unseen)) == (asked.MISSING, asked.UNSEEN)
    assert get_args(Method) == explain.METHODS and score.STDOUT == target.STDOUT


def test_help_fits_a_screen(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert typed("--help") == 0
    assert len(capsys.readouterr().out.splitlines()) <= 30


def test_columns_that_nobody_asked_for_are_named(run, tmp_path, capsys):
    table = mine(30, 1).append_column("comment", pa.array(["x"] * 30))
    assert typed(run, write(tmp_path / "new.csv", table), "-o", tmp_path / "s.csv") == 0
    assert "1 column is ignored: 'comment'." in capsys.readouterr().err


def test_a_file_that_does_not_fit_among_others_is_told_and_the_others_are_scored(run, tmp_path, capsys):
    write(tmp_path / "a.csv", mine(30, 1))
    (tmp_path / "b.csv").write_text("x\n1\n")
    write(tmp_path / "c.csv", mine(30, 2))
    assert typed(run, *(tmp_path / f"{name}.csv" for name in "abc"), "-o", tmp_path / "out") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.parquet", "c.parquet", "scored.json"]
    assert "Error: " in capsys.readouterr().err


def test_files_of_one_name_are_told_apart_or_refused(tmp_path):
    for day in "ab":
        (tmp_path / day).mkdir()
        (tmp_path / day / "x.csv").write_text("a\n1\n")
    found = gathered([str(tmp_path)], io.BytesIO(), tmp_path)
    assert [one.name for one in found] == ["a/x", "b/x"]
    with pytest.raises(Exception, match="are both called 'x'"):
        gathered([str(tmp_path / "a" / "x.csv"), str(tmp_path / "b" / "x.csv")], io.BytesIO(), tmp_path)


def test_memory_does_not_grow_with_the_rows(run, tmp_path, monkeypatch):
    monkeypatch.setattr("straylight.files.formats.BLOCK", 2**14)
    monkeypatch.setattr("straylight.files.formats.BYTES", 2**15)
    monkeypatch.setattr("straylight.files.recipe.BYTES", 2**15)
    monkeypatch.setattr(ranks_module, "FEW", 500)

    def peak(rows):
        path = write(tmp_path / f"{rows}.parquet", mine(rows, 1))
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        assert typed(run, path, "-o", tmp_path / f"s{rows}.parquet", "--threads", "1") == 0
        held = tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - before
        tracemalloc.stop()
        return held

    peak(500)  # what is imported
    few, many = peak(4_000), peak(24_000)
    assert many < few + 2**20


# thresholds, ranks, drift


def test_a_threshold_that_the_run_did_not_set_is_set_on_its_calibration_rows():
    scores = np.random.default_rng(0).normal(size=500)
    judge = Judge("mine", [], {"score": scores, "y": np.zeros(500, int)})
    new = np.random.default_rng(1).normal(size=300)
    p = Calibration(scores).p_values(new)
    for rule, fpr in (("fpr=0.05", 0.05), ("quantile=0.9", 0.1), ("fpr=0.002", 0.002)):
        np.testing.assert_array_equal(judge.cut(rule).flags(new, None), p <= fpr * (1 + 1e-9))
    np.testing.assert_array_equal(judge.cut("fdr=0.2").flags(new, p), benjamini_hochberg(p, 0.2))
    assert judge.cut("score=1.5").flags(new, None).tolist() == (new > 1.5).tolist()
    with pytest.raises(ConfigError, match="nothing can be flagged"):
        judge.cut("fpr=0.001")
    with pytest.raises(ConfigError, match="no other"):
        Judge("mine", [], None).cut("fpr=0.1")


NUMBERS = st.floats(width=32, allow_nan=True) | st.sampled_from([0.0, -0.0, 1.5])


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, st.integers(0, 200), elements=NUMBERS), st.integers(1, 50), st.sampled_from([0, 1, 7, 2**20])
)
def test_ranks_are_those_of_sorting(scores, size, few):
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks_module, "FEW", few)
        parts = [scores[start : start + size] for start in range(0, len(scores), size)]
        if not few and not len(scores):
            return
        found = np.array(ranks(lambda: parts, len(scores), Path(folder, "ranks.npy")))
    there = ~np.isnan(scores)
    expected = np.zeros(len(scores), dtype=np.int64)
    expected[there] = stats.rankdata(-scores[there], method="min")
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 10**6), st.booleans())
def test_drift_is_the_two_sample_test(n, m, seed, tied):
    rng = np.random.default_rng(seed)
    known, new = rng.normal(size=n), rng.normal(0.3, 1.2, m)
    if tied:
        known, new = known.round(), new.round()
    compared = Compared(known)
    for part in np.array_split(new, 3):
        compared.add(part)
    drift = compared.drift()
    assert drift.below == pytest.approx(stats.ks_2samp(new, known, "greater", method="asymp").statistic, abs=1e-12)
    assert drift.above == pytest.approx(stats.ks_2samp(new, known, "less", method="asymp").statistic, abs=1e-12)
    p = Calibration(known).p_values(new)
    for at, share in drift.quantiles.items():
        assert share == pytest.approx(np.mean(p <= at * (1 + 1e-13)))
    assert 0 <= drift.p_value <= 1
    if min(n, m) >= 50:
        assert drift.p_value == pytest.approx(stats.ks_2samp(new, known, method="asymp").pvalue, abs=0.1)


@pytest.mark.parametrize(
    "shift, share, said",
    [(0, 0, "No drift"), (6, 0.05, "as if"), (6, 0.5, "Drift, or many anomalies"), (-3, 0.5, "Drift: ")],
)
def test_the_sentence_tells_anomalies_from_drift(shift, share, said):
    rng = np.random.default_rng(0)
    compared = Compared(rng.normal(size=3000))
    compared.add(np.where(rng.random(20_000) < share, rng.normal(shift, 1, 20_000), rng.normal(size=20_000)))
    assert compared.drift().sentence().startswith(said) or said in compared.drift().sentence()


def test_a_ledger_forgets_what_another_job_made(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("whole")
    Ledger(tmp_path / "done.json", {"cut": 1}).enter(path, path, [1], {"rows": 2})
    assert Ledger(tmp_path / "done.json", {"cut": 1}).done(path, [1]) == {"rows": 2}
    assert Ledger(tmp_path / "done.json", {"cut": 2}).done(path, [1]) is None
    assert Ledger(tmp_path / "done.json", {"cut": 1}).done(path, [2]) is None
    os.utime(path, ns=(1, 1))
    assert Ledger(tmp_path / "done.json", {"cut": 1}).done(path, [1]) is None
    (tmp_path / "done.json").write_text("{")
    assert Ledger(tmp_path / "done.json", {"cut": 1}).known == {}
