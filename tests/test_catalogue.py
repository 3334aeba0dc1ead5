"""`straylight data` says what is there, in the numbers of the data themselves; `data.name=all` trains on all of it."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from straylight.commands.data import main
from straylight.commands.listing import needed
from straylight.commands.rows import build
from straylight.data import LHCO, AnomalyDataModule, Stored
from straylight.groups import FOLDER, choices
from straylight.rows.batch import Events, Splits


@pytest.fixture
def said(capsys, monkeypatch, tmp_path):
    """`straylight data` in this process, on a wide screen and in an empty folder: status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("STRAYLIGHT_CACHE", str(tmp_path / "cache"))
    root = logging.getLogger()
    for handler in [h for h in root.handlers if getattr(getattr(h, "stream", None), "closed", False)]:
        root.removeHandler(handler)  # of a run in another test, whose output is no more

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            main(list(arguments))
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        ended = capsys.readouterr()
        return status, ended.out, ended.err

    return run


def sentence(ended) -> str:
    status, out, err = ended
    lines = [line for line in err.splitlines() if line.strip()]
    assert status == 1 and not out and len(lines) == 1, (status, out, err)
    assert lines[0].startswith("Error: ") and lines[0].endswith(".")
    return lines[0]


def shown(ended) -> str:
    status, out, err = ended
    assert status == 0 and "Traceback" not in err, err
    return out


def table(out, head):
    """The rows of a printed table by their first cell, up to the first line of another kind."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == [head])
    columns = lines[start].split()[1:]
    rows = {}
    for line in lines[start + 1 :]:
        cells = re.split(r"\s{2,}", line.strip())
        if len(cells) != len(columns) + 1:
            break
        rows[cells[0]] = dict(zip(columns, cells[1:], strict=True))
    return rows


def npz(path, n=60, d=3, seed=0, **changes):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), (np.arange(n) % 5 == 0).astype(int)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **({"X": x, "y": y} | changes))
    return x, y


# the list


def test_every_data_set_is_listed_with_whether_it_is_there(said, tmp_path) -> None:
    npz(tmp_path / "data" / "adbench" / "2_two.npz")
    npz(tmp_path / "data" / "adbench" / "1_one.npz")
    out = shown(said())
    first = [line.split()[0] for line in out.splitlines()[1:]]
    assert first == choices("data") and "base" not in first
    lines = dict(zip(first, out.splitlines()[1:], strict=True))
    assert lines["blobs"].rstrip().endswith("needs no files")
    assert "2 files in data/adbench" in lines["adbench"]
    assert "no innerdata_train.npy in data/lhco/separated_data" in lines["lhco"]
    assert "no background_for_training.h5 in data/adc2021" in lines["adc2021"]
    for name in first:  # what its config says of itself first
        head = (FOLDER / "data" / f"{name}.yaml").read_text().splitlines()[0]
        assert head[2:7] in lines[name], name


def test_what_is_there_is_listed_as_present(said, tmp_path) -> None:
    root = tmp_path / "elsewhere" / "lhco" / "separated_data"
    root.mkdir(parents=True)
    for name in ("train", "val", "test", "extrasig_train", "extrasig_val"):
        (root / f"innerdata_{name}.npy").write_bytes(b"")
    out = shown(said(f"paths.data={tmp_path / 'elsewhere'}"))
    (line,) = (line for line in out.splitlines() if line.startswith("lhco"))
    assert f"present in {tmp_path / 'elsewhere' / 'lhco'}" in line


@pytest.mark.parametrize("name", choices("data"))
def test_the_files_that_a_config_names_are_those_that_its_class_reads(name, tmp_path) -> None:
    if name in ("adbench", "file"):  # which are told a name or a path
        assert not needed(name)
        return
    data = build(name, [f"paths.data={tmp_path}"], [])
    read = [str(path.relative_to(data.root)) for path in data.files()] if isinstance(data, Stored) else []
    assert [either[0] for either in needed(name)] == read
    for other in (o for either in needed(name) for o in either[1:]):
        data.root.mkdir(exist_ok=True)
        (data.root / other).write_text("")
        assert not data.missing()


def test_listing_imports_nothing_heavy(tmp_path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "straylight", "data", f"paths.data={tmp_path}"]
    wide = {**os.environ, "COLUMNS": "250"}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=wide)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.stderr.splitlines() if "|" in line}
    assert not loaded & {"torch", "pytorch_lightning", "hydra", "omegaconf", "numpy", "scipy"}
    assert [line.split()[0] for line in ended.stdout.splitlines()[1:]] == choices("data")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["blobs", "--help"], ["fetch", "-h"], ["nothing", "-h"]])
def test_help_says_what_can_be_typed(arguments, said) -> None:
    out = shown(said(*arguments))
    assert "data fetch NAME" in out and "data NAME" in out


def test_help_fits_a_narrow_screen(said) -> None:
    assert max(map(len, shown(said("--help")).splitlines())) <= 80


# one data set


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("blobs", []),
        ("blobs", ["seed=3", "data.reserve_fraction=0.5", "data.contamination=0.04"]),
        ("digits", []),
        ("moons", ["data.events=500", "data.protocol=unsupervised"]),
        ("gaussians", []),
    ],
)
def test_what_is_printed_is_what_the_data_hold(name, overrides, said) -> None:
    out = shown(said(name, *overrides))
    data = build(name, list(overrides), [])
    splits = data.splits
    assert f"{data.name}: events of shape {data.shape}, {data.context} columns of context" in out
    assert f"protocol {data.protocol}, seed {data.seed}" in out
    counted = table(out, "split")
    for split, part in splits._asdict().items():
        assert counted[split]["rows"] == f"{len(part):,}"
        for k, kind in enumerate(data.kinds):
            assert counted[split][kind] == f"{int((part.y == k).sum()):,}"
    x = splits.train.x.flatten(1).double()
    strange = float((splits.train.y > 0).double().mean())
    assert f"contamination of the training rows: {100 * strange:.4f}%" in out
    assert f"training rows range from {x.min():g} to {x.max():g}" in out
    constant = int((x == x[:1]).all(0).sum())
    assert (f"{constant} of {x.shape[1]} features are constant" in out) == bool(constant)
    assert ("the true density of nominal rows is known" in out) == (data.log_prob is not None)
    if data.protocol == "nominal_only":
        others = torch.cat([splits.train.x, splits.val.x, splits.reserve.x])
        there = {row.tobytes() for row in others.numpy()}
        n = sum(row.tobytes() in there for row in splits.test.x.numpy())
        assert f"test rows that stand in another split too: {n:,} of {len(splits.test):,}" in out
    else:
        assert "another split" not in out
    if len(data.shape) == 1:
        ranges = table(out, "feature")
        for i in range(min(20, x.shape[1])):
            row = ranges[data.feature(i)]
            assert row["least"] == f"{x[:, i].min():g}" and row["largest"] == f"{x[:, i].max():g}"
            assert float(row["mean"]) == pytest.approx(x[:, i].mean().item(), rel=1e-5, abs=1e-6)


def test_equal_rows_are_counted_and_dropped_rows_are_not(said, tmp_path) -> None:
    x, y = npz(tmp_path / "x.npz")
    x[y == 1] = x[1]  # all anomalies are rows of nominal events
    npz(tmp_path / "x.npz", X=np.concatenate([x, x]), y=np.concatenate([y, y]))
    data = build("adbench", ["data.path=x.npz"], [])
    others = {row.tobytes() for part in (data.splits.train, data.splits.val) for row in part.x.numpy()}
    n = sum(row.tobytes() in others for row in data.splits.test.x.numpy())
    assert n
    out = shown(said("adbench", "data.path=x.npz"))
    assert f"test rows that stand in another split too: {n} of {len(data.splits.test)}" in out


def test_many_features_are_cut_short_and_named(said, tmp_path) -> None:
    x, _ = npz(tmp_path / "x.npz", d=23)
    x[:, 22] = 7
    npz(tmp_path / "x.npz", X=x)
    out = shown(said("adbench", "data.path=x.npz"))
    assert "and 3 more features" in out and "1 of 23 features are constant" in out
    assert list(table(out, "feature")) == [str(i) for i in range(20)]


def test_what_was_filled_in_is_shown(said, tmp_path) -> None:
    x, _ = npz(tmp_path / "x.npz")
    x[::3, 1] = np.nan
    x[::4, 2] = np.nan
    npz(tmp_path / "x.npz", X=x)
    data = build("adbench", ["data.path=x.npz", "data.missing=median"], [])
    assert data.splits
    train = np.isin(x[:, 0].astype(np.float32), data.splits.train.x[:, 0].numpy())
    one, two = (np.nanmedian(x[train, i].astype(np.float32)) for i in (1, 2))
    out = shown(said("adbench", "data.path=x.npz", "data.missing=median"))
    assert f"filled in where missing: 1 with {one:g}, 2 with {two:g}" in out
    out = shown(said("adbench", "data.path=x.npz", "data.missing=indicator"))
    assert "shape (5,)" in out and "1 is missing" in out and "2 is missing" in out
    assert "column 1 " in sentence(said("adbench", "data.path=x.npz"))


def test_columns_beside_the_features_are_named(said, tmp_path) -> None:
    root = tmp_path / "data" / "adc2021"
    root.mkdir(parents=True)
    rows = np.random.default_rng(0).normal(size=(100, 19, 4)).astype(np.float32)
    for name in ("background_for_training.h5", "Ato4l_lepFilter_13TeV.h5"):
        with h5py.File(root / name, "w") as file:
            file["Particles"], file["Group"], file["Process"] = rows, np.arange(100) // 2, np.zeros(100, np.int8)
        rows = rows + 1
    out = shown(said("adc2021", "data.use=[a_to_4l]", "data.layout=particles"))
    assert out.startswith("adc2021_standin: events of shape (19, 3)")
    assert "columns for figures and tables: group, process" in out
    assert table(out, "split")["train"] == {"rows": "64", "nominal": "64", "a_to_4l": "0"}
    assert table(out, "split")["test"] == {"rows": "120", "nominal": "20", "a_to_4l": "100"}
    assert "MET pT" in out and "and 37 more features" in out


class Mine(AnomalyDataModule):
    """A data set of a user's own: without labels, or with weights and context."""

    def __init__(self, what: str = "plain", **common) -> None:
        super().__init__(**common)
        self.what = what

    def load(self) -> Splits:
        x = np.random.default_rng(self.seed).normal(size=(200, 2))
        y = np.full(200, -1) if self.what == "no labels" else np.arange(200) % 4 == 0
        weight = np.linspace(0.5, 1.5, 200) if self.what == "weights" else None
        return self.split(Events.of(x, y.astype(int), context=x[:, :1], weight=weight))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of configs with a data set of the user's own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine_of_a_user.py").write_text(f"import sys\nMine = sys.modules[{__name__!r}].Mine\n")
    monkeypatch.delitem(sys.modules, "mine_of_a_user", raising=False)
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _here())
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "mine.yaml").write_text(
        "# Rows of my own, drawn by seed. Of no use.\ndefaults: [base, _self_]\n"
        "_target_: mine_of_a_user.Mine\nwhat: plain\n"
    )
    yield tmp_path / "own"
    sys.modules.pop("mine_of_a_user", None)


def _here():
    module = types.ModuleType(__name__)
    module.Mine = Mine
    return module


@pytest.mark.parametrize("form", ["--config-dir {}", "--config-dir={}", "-cd {}"])
def test_a_data_set_of_the_users_own_is_listed_and_summarised(form, own, said) -> None:
    option = form.format(own).split()
    out = shown(said(*option))
    (line,) = (line for line in out.splitlines() if line.startswith("mine "))
    assert "Rows of my own" in line and "Of no use" not in line and line.rstrip().endswith("needs no files")
    out = shown(said("mine", *option, "seed=2"))
    assert out.startswith("mine: events of shape (2,), 1 columns of context; protocol nominal_only, seed 2")
    assert table(out, "split")["test"]["anomaly"] == "50"
    assert shown(said(*option, "fetch", "mine")) == "mine needs no files.\n"


def test_programs_have_the_same_as_json(own, said) -> None:
    listed = json.loads(shown(said("--json")))
    assert [line["name"] for line in listed] == list(choices("data"))
    assert all(line["what"] and line["where"] for line in listed)
    mine = json.loads(shown(said("--json", "--config-dir", str(own))))
    assert {"name": "mine", "what": "Rows of my own", "where": "needs no files"} in mine
    asked = ["data.contamination=0.05", "data.reserve_fraction=0.5", "seed=3"]
    found = json.loads(shown(said("blobs", *asked, "--json")))
    data = build("blobs", asked, [])
    parts = data.splits
    assert found["rows"] == {split: len(part) for split, part in zip(parts._fields, parts, strict=True)}
    assert found["kinds"]["test"] == {kind: int((parts.test.y == i).sum()) for i, kind in enumerate(data.kinds)}
    assert found["contamination"] == float((parts.train.y > 0).float().mean()) > 0
    assert (found["name"], found["seed"], found["shape"], found["protocol"]) == ("blobs", 3, [2], "nominal_only")
    first = found["features"]["of"][data.feature(0)]
    assert first["least"] == float(parts.train.x[:, 0].min()) and first["largest"] == float(parts.train.x[:, 0].max())
    assert first["mean"] == pytest.approx(float(parts.train.x[:, 0].mean()), abs=1e-6)
    silent = json.loads(shown(said("mine", "data.what='no labels'", "--config-dir", str(own), "--json")))
    assert not silent["labels"] and silent["kinds"] is None and silent["contamination"] is None
    assert "not for fetching" in sentence(said("fetch", "blobs", "--json"))


def test_of_two_configs_of_one_name_the_one_listed_is_the_one_built(own, said) -> None:
    (own / "data" / "blobs.yaml").write_text((own / "data" / "mine.yaml").read_text())
    out = shown(said("--config-dir", str(own)))
    (line,) = (line for line in out.splitlines() if line.startswith("blobs"))
    built = shown(said("--config-dir", str(own), "blobs")).startswith("mine: ")
    assert ("Rows of my own" in line) == built


def test_rows_without_labels_are_summarised_without_contamination(own, said) -> None:
    out = shown(said("mine", "data.what='no labels'", "--config-dir", str(own)))
    assert "no labels" in out.splitlines()[0] and "contamination" not in out
    lines = out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("split"))
    rows = {cells[0]: cells[1:] for cells in map(str.split, lines[first + 1 : first + 5])}
    assert rows["train"] == ["90"] and rows["val"] == ["10"] and rows["test"] == ["100"] and rows["reserve"] == ["0"]


def test_event_weights_are_shown_as_they_are_served(own, said) -> None:
    data = build("mine", ["data.what=weights"], [own])
    weight = data.splits.train.weight
    assert float(weight.mean()) == pytest.approx(1)
    out = shown(said("mine", "data.what=weights", "--config-dir", str(own)))
    assert f"event weights: {weight.min():g} to {weight.max():g}" in out


# fetching


def test_what_needs_no_files_or_has_them_is_not_fetched(said, tmp_path) -> None:
    assert shown(said("fetch", "blobs")) == "blobs needs no files.\n"
    npz(tmp_path / "data" / "adbench" / "6_cardio.npz")
    out = shown(said("fetch", "adbench", "data.name=cardio"))
    assert out == "6_cardio: all files are there already, in data/adbench.\n"


def test_what_has_no_checksum_is_named_and_not_fetched(said) -> None:
    words = sentence(said("fetch", "adc2021"))
    assert "zenodo.org" in words and "by hand" in words and "data/adc2021" in words


def test_what_is_fetched_is_named(said, tmp_path, monkeypatch) -> None:
    def fetch_one(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        return True

    monkeypatch.setattr(LHCO, "_fetch_one", fetch_one)
    out = shown(said("fetch", "lhco"))
    assert len(out.splitlines()) == 5 and "fetched data/lhco/separated_data/innerdata_test.npy" in out
    assert shown(said("fetch", "lhco")) == "lhco: all files are there already, in data/lhco.\n"


# what is wrong


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["blob"], ("'blob'", "'blobs'", "adbench")),
        (["fetch", "blob"], ("'blob'", "'blobs'")),
        (["blobs", "mnist"], ("one data set",)),
        (["fetch", "blobs", "mnist"], ("one data set",)),
        (["fetch"], ("one data set",)),
        (["digits", "data.nominl=3"], ("'data.nominl'", "'nominal'")),
        (["digits", "data.nominal=12"], ("data.nominal", "0 to 9")),
        (["digits", "data.nominal=x"], ("data.nominal", "'x'")),
        (["digits", "seeed=3"], ("'seed'",)),
        (["digits", "detector=vea"], ("'vae'",)),
        (["adbench"], ("data.name=6_cardio",)),
        (["adbench", "data.name=nothing"], ("'nothing'", "data/adbench")),
        (["lhco"], ("innerdata_train.npy", "straylight data fetch lhco", "https://")),
        (["digits", "data.contamination=0.1"], ("reserve_fraction",)),
        (["digits", "data.nominal=[3"], ()),
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_said_in_a_sentence(arguments, words, said) -> None:
    if arguments[-1] == "data.nominal=[3":  # Hydra's grammar answers in several lines
        status, out, err = said(*arguments)
        assert status == 1 and not out and "Traceback" not in err and "[3" in err
        return
    line = sentence(said(*arguments))
    assert all(word in line for word in words), line


def test_what_can_be_chosen_leaves_out_what_cannot(said) -> None:
    assert not re.search(r"\bbase\b", sentence(said("blob")))


@pytest.mark.parametrize("arguments", [["blobs", "--fetch"], ["--sed=3", "blobs"]], ids=" ".join)
def test_an_option_that_there_is_not_is_named(arguments, said) -> None:
    assert next(a for a in arguments if a.startswith("-")).partition("=")[0] in sentence(said(*arguments))


def test_a_config_that_cannot_be_built_is_not_listed_as_a_file_of_ones_own(own, said) -> None:
    (own / "data" / "mine.yaml").write_text("# Mine\ndefaults: [base, _self_]\n_target_: nowhere.Mine\n")
    out = shown(said("--config-dir", str(own)))
    (line,) = (line for line in out.splitlines() if line.startswith("mine "))
    assert "your own file" not in line


def test_a_config_that_is_no_yaml_is_named(own, said) -> None:
    (own / "data" / "mine.yaml").write_text("# Mine\na: [1,\n")
    for arguments in ([], ["mine"]):
        assert "mine" in sentence(said(*arguments, "--config-dir", str(own)))


@pytest.mark.parametrize("arguments", [[], ["blobs"]])
def test_a_folder_of_configs_that_there_is_not_is_named(arguments, said) -> None:
    assert "nowhere" in sentence(said(*arguments, "--config-dir", "nowhere"))


def test_the_command_itself(tmp_path) -> None:
    command = Path(sys.executable).with_name("straylight")
    if not command.is_file():
        pytest.skip("the console command is not installed")
    npz(tmp_path / "data" / "adbench" / "2_two.npz")
    ended = subprocess.run(
        [command, "data", "adbench", "data.name=two", "seed=1"],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "250"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("2_two: events of shape (3,), 0 columns of context; protocol nominal_only, seed 1")
    assert not (tmp_path / "outputs").exists()
    assert table(ended.stdout, "split")["test"] == {"rows": "36", "nominal": "24", "anomaly": "12"}


# every file of a folder


def test_all_files_of_a_folder_are_trained_on_once_each(straylight_train, tmp_path) -> None:
    for i, name in enumerate(("10_ten", "2_two")):
        npz(tmp_path / "data" / "adbench" / f"{name}.npz", seed=i)
    (tmp_path / "data" / "adbench" / "README.txt").write_text("no data")
    ended = straylight_train("-m", "data=adbench", "data.name=all", "detector=pca")
    assert ended.status == 0, ended.err
    assert sorted(result["data"] for result in ended.results) == ["10_ten", "2_two"]
    assert all(result["status"] == "ok" for result in ended.results)
    order = re.findall(r"#(\d+) pca on (\w+)", ended.out)
    assert sorted(order) == [("0", "2_two"), ("1", "10_ten")]  # by their numbers, whichever ends first


@pytest.mark.parametrize("where", ["paths.data={}", "data.root={}/adbench"])
def test_all_files_of_another_folder(where, straylight_train, tmp_path) -> None:
    for i, name in enumerate(("b", "a")):
        npz(tmp_path / "else" / "adbench" / f"{name}.npz", seed=i)
    ended = straylight_train(
        "-m", "data=adbench", "detector=pca,copod", "data.name=all", where.format(tmp_path / "else")
    )
    assert ended.status == 0, ended.err
    ran = sorted((result["detector"], result["data"]) for result in ended.results)
    assert ran == [("copod", "a"), ("copod", "b"), ("pca", "a"), ("pca", "b")]


def test_a_folder_of_one_file(straylight_train, tmp_path) -> None:
    npz(tmp_path / "data" / "adbench" / "only.npz")
    ended = straylight_train("-m", "data=adbench", "data.name=all", "detector=pca")
    assert ended.status == 0, ended.err
    assert ended.result["data"] == "only"


@pytest.mark.parametrize("name", ["a b", "a-b.c", "7", "1e5", "true", "null", "a,b", "a(b)", "a=b", "a'b"])
def test_names_that_mean_something_to_hydra(name, straylight_train, tmp_path) -> None:
    npz(tmp_path / "data" / "adbench" / f"{name}.npz")
    npz(tmp_path / "data" / "adbench" / "plain.npz")
    ended = straylight_train("-m", "data=adbench", "data.name=all", "detector=pca")
    assert ended.status == 0, ended.err
    assert sorted(result["data"] for result in ended.results) == sorted([name, "plain"])


@pytest.mark.parametrize(("sweep", "present"), [(False, True), (True, False), (False, False)])
def test_all_without_a_sweep_or_without_files_is_answered_with_what_to_do(
    sweep, present, straylight_train, tmp_path
) -> None:
    (tmp_path / "data" / "adbench").mkdir(parents=True)
    if present:
        npz(tmp_path / "data" / "adbench" / "only.npz")
    ended = straylight_train(*(["-m"] if sweep else []), "data=adbench", "data.name=all", "detector=pca")
    lines = [line for line in ended.err.splitlines() if line.strip()]
    assert ended.status == 1 and len(lines) == 1 and "Traceback" not in ended.err
    assert "all.npz" not in lines[0], lines[0]
    assert ("-m" in lines[0]) if present else ("data/adbench" in lines[0])


def test_a_listing_reads_no_rows(said, monkeypatch, tmp_path) -> None:
    npz(tmp_path / "data" / "adbench" / "2_two.npz")
    monkeypatch.setattr(np, "load", lambda *a, **k: pytest.fail("rows were read"))
    monkeypatch.setattr(h5py, "File", lambda *a, **k: pytest.fail("rows were read"))
    assert "adbench" in shown(said())
