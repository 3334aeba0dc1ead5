"""A run as a folder that another program uses without Straylight."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from straylight import cli
from straylight.errors import ConfigError, DataError
from straylight.export import ExportError, Model, calibration, to_folder, written
from straylight.metrics.conformal import Calibration
from straylight.run import Run
from test_doors import NAMES

#: Of images and of particles, of a search, of others, which take long, and of another library, which has no graph.
OTHERS = {"autoencoder_conv", "vae_conv", "multiplicity", "sum_pt", "anogan", "external"}
TABLES = [name for name in NAMES if name not in OTHERS]
SMALL = {"maf": ["detector.layers=2"], "nsf": ["detector.layers=2"], "realnvp": ["detector.layers=2"]}
#: Runs a program where nothing of ours is to be had, nor what numpy and ONNX Runtime do without.
ALONE = """
import runpy, sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"straylight", "torch", "pandas", "pyarrow", "sklearn", "scipy", "onnx"}:
            raise ImportError(name)
sys.meta_path.insert(0, Gone())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def table(path: Path, rows: int = 300, seed: int = 0, **own: list) -> Path:
    """Quoted texts, categories that are numbers, values that are missing, times in milliseconds, and a label."""
    random = np.random.default_rng(seed)
    columns = {
        "bytes": [f"{v:.4f}" for v in random.normal(5, 1, rows)],
        "ratio": ["" if u < 0.05 else "NA" if u < 0.1 else f"{u:.4g}" for u in random.random(rows)],
        "service": random.choice(["http, plain", 'sm"tp', "dns", ""], rows, p=[0.4, 0.3, 0.25, 0.05]).tolist(),
        "port": random.choice([80, 443, 53], rows).tolist(),
        "secure": random.choice(["true", "false"], rows).tolist(),
        "time": (1_700_000_000_000 + random.integers(0, 10**5, rows)).tolist(),
        "label": (np.arange(rows) % 10 == 0).astype(int).tolist(),
        **own,
    }
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


OF_FILE = [
    "data=file",
    "data.path=train.csv",
    "data.label=label",
    "data.categorical=[port]",
    "data.missing=median",
    "data.val_fraction=0.3",
    "data.batch_size=50",
]


def alone(folder: Path, *paths: Path | str) -> tuple[list[float], str]:
    """The scores that `score.py` prints, or what it says where errors go."""
    command = [sys.executable, "-I", "-c", ALONE, str(folder / "score.py"), *map(str, paths)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == (1 if ended.stderr else 0), ended.stderr
    head, *scores = ended.stdout.splitlines() or [""]
    assert head == ("" if ended.stderr else "score")
    return [float(score) for score in scores], ended.stderr


def straylight(*words: object, monkeypatch) -> int:
    """`straylight ...` in this process: its exit status."""
    monkeypatch.setattr(sys, "argv", ["straylight", *map(str, words)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory) -> Path:
    """The run of a VAE on blobs, exported."""
    folder = tmp_path_factory.mktemp("exported") / "folder"
    to_folder(Run.open(finished), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_scored_without_us(name, straylight_train, tmp_path) -> None:
    table(Path("train.csv"))
    run = Run.open(straylight_train(*OF_FILE, f"detector={name}", *SMALL.get(name, []), epochs=1).run)
    made = to_folder(run, "exported")
    assert all(one.difference <= one.tolerance for one in made.findings)
    new = table(Path("new.csv"), 50, seed=1, service=["dns", "ftp"] * 25, port=["443", "80.0", "7", "53", " 53"] * 10)
    expected = run.score(new)
    # a file is written with any columns, in any order
    with new.open(newline="") as file:
        head, *rows = csv.reader(file)
    with new.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([[*line[::-1], "more"] for line in (head, *rows)])
    scores, told = alone(tmp_path / "exported", new)
    assert not told
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-3 * np.nanstd(expected))
    model = Model.open("exported")
    assert model.recipe is not None and model.known == run.known and model.detector.shape == run.detector.shape
    parts = [model.score(part.x[:], part.context) for part in model.recipe.read(new)]
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-4, atol=1e-3 * np.nanstd(expected))


@pytest.mark.parametrize(
    ("missing", "style"),
    [
        ("indicator", {}),
        ("skip", {}),
        ("median", {"separator": ";", "decimal": ",", "encoding": "latin-1"}),
        ("error", {}),
    ],
)
def test_a_file_is_read_as_it_was_in_training(missing, style, straylight_train, tmp_path) -> None:
    whole = {"ratio": [f"{i}.5" for i in range(300)], "service": ["dns", "café"] * 150} if missing == "error" else {}
    path = table(Path("train.csv"), **whole)
    if style:
        text = path.read_text().replace('"http, plain"', "http").replace(",", ";").replace(".", ",")
        path.write_text(text, encoding="latin-1")
    shown = [f"data.csv.{key}='{value}'" for key, value in style.items()]
    own = [word for word in OF_FILE if not word.startswith("data.missing")]
    run = Run.open(straylight_train(*own, f"data.missing={missing}", *shown, "detector=pca").run)
    to_folder(run, "exported")
    scores, told = alone(tmp_path / "exported", path)
    assert not told
    expected = run.score(path)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-3 * np.nanstd(expected))


def test_images_and_context_are_arrays(straylight_train, tmp_path) -> None:
    run = Run.open(straylight_train("data=digits", "detector=autoencoder_conv", epochs=1).run)
    to_folder(run, "images")
    x = run.material.data.splits.test.x[:7].numpy()
    np.save("x.npy", x)
    np.testing.assert_allclose(alone(tmp_path / "images", "x.npy")[0], run.score(x), rtol=1e-4)
    table(Path("train.csv"), ratio=[f"{i}" for i in range(300)])
    given = ["data.context=[time,ratio]", "detector=maf", "detector.layers=2"]
    run = Run.open(straylight_train(*OF_FILE, *given, epochs=1, output="other").run)
    to_folder(run, "folder")
    expected = run.score("train.csv")
    np.testing.assert_allclose(alone(tmp_path / "folder", "train.csv")[0], expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ConfigError, match=r"2 columns of context, not .* with \(0,\)"):
        Model.open("folder").score(np.zeros((3, *run.detector.shape)))


def test_a_graph_of_torchs_scores_alike(finished, tmp_path) -> None:
    run = Run.open(finished)
    made = to_folder(run, tmp_path / "pt2", to="pt2")
    assert "model.pt2" in made.files and "model.onnx" not in made.files
    x = np.random.default_rng(0).normal(size=(40, *run.detector.shape)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    command = [sys.executable, tmp_path / "pt2" / "score.py", tmp_path / "x.npy"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    np.testing.assert_allclose(np.array(said[1:], float), run.score(x), rtol=1e-4)
    np.testing.assert_allclose(Model.open(tmp_path / "pt2").score(x), run.score(x), rtol=1e-4)


def test_a_folder_opened_again_is_like_the_run(finished, exported) -> None:
    run, model = Run.open(finished), Model.open(exported)
    x = run.material.data.splits.test.x[:].numpy()
    scores = run.score(x)
    np.testing.assert_allclose(model.score(x, batch_size=7), scores, rtol=1e-4)
    assert model.score(x[:0]).shape == (0,)
    assert model.thresholds == run.thresholds and model.recipe is None and model.kinds == run.kinds
    assert model.result["detector"] == "vae"
    np.testing.assert_array_equal(model.p_values(scores), run.p_values(x))
    with pytest.raises(DataError, match="NaN"):
        model.p_values([np.nan])
    with pytest.raises(ConfigError, match="events of shape"):
        model.score(x[:, :1])
    import pandas as pd

    with pytest.raises(ConfigError, match="not trained on a file"):
        model.score(pd.DataFrame(x))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("graph", "is not the graph that was exported"),
        ("no graph", "holds no model.onnx"),
        ("no model", "holds no model.json"),
        ("garbled", "model.json cannot be read"),
        ("other", "is not what straylight export writes"),
        ("version", "is of format 99"),
        ("lacking", "is damaged"),
    ],
)
def test_damage_is_told(fault, said, exported, tmp_path) -> None:
    folder = shutil.copytree(exported, tmp_path / "copy")
    graph, about = folder / "model.onnx", folder / "model.json"
    held = json.loads(about.read_text())
    match fault:
        case "graph":
            content = bytearray(graph.read_bytes())
            content[len(content) // 2] ^= 1
            graph.write_bytes(content)
        case "no graph":
            graph.unlink()
        case "no model":
            about.unlink()
        case "garbled":
            about.write_text(about.read_text()[:100])
        case "other":
            about.write_text("{}")
        case "version":
            about.write_text(json.dumps({**held, "format": 99}))
        case "lacking":
            about.write_text(json.dumps({key: value for key, value in held.items() if key != "thresholds"}))
    with pytest.raises(ConfigError, match=said):
        Model.open(folder)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"bytes": ["1"] * 8 + ["many", "2"]}, "could not convert string to float: 'many'"),
        ({"bytes": ["1"] * 8 + ["", "2"]}, "'bytes' lacks the value of row 9"),
        ({"service": ["dns"] * 9 + [""]}, "'service' lacks the value of row 10"),
        ({"bytes": None}, "there is no 'bytes', but ratio, service"),
    ],
)
def test_a_file_that_does_not_fit_gets_a_sentence(own, said, straylight_train, tmp_path) -> None:
    whole = {"ratio": [f"{i}.5" for i in range(300)], "service": ["dns", "http"] * 150}
    table(Path("train.csv"), **whole)
    fitting = [word for word in OF_FILE if not word.startswith("data.missing")]
    to_folder(Run.open(straylight_train(*fitting, "detector=pca").run), "exported")
    columns = {**{key: values[:10] for key, values in whole.items()}, **own}
    new = table(Path("new.csv"), 10, **{key: values for key, values in columns.items() if values is not None})
    if columns.get("bytes", ()) is None:  # the first
        new.write_text("\n".join(line.partition(",")[2] for line in new.read_text().splitlines()))
    scores, told = alone(tmp_path / "exported", new)
    assert not scores and told.startswith("Error: ") and said in told and told.count("\n") == 1

    new.write_text("bytes\n")
    assert alone(tmp_path / "exported", new)[1] == f"Error: {new} holds no rows\n"
    assert "No such file" in alone(tmp_path / "exported", "nowhere.csv")[1]
    new = table(Path("new.csv"), 10, **{key: values[:10] for key, values in whole.items()})
    new.write_text(new.read_text() + "1,2\n")
    assert alone(tmp_path / "exported", new)[1].startswith("Error: ")


def test_the_command_writes_a_folder_and_says_how_near_it_is(sent, tmp_path, monkeypatch, capfd) -> None:
    assert straylight("export", sent.path, "--json", monkeypatch=monkeypatch) == 0
    told = json.loads(capfd.readouterr().out)
    folder = sent.path / "export"
    assert told["folder"] == str(folder) and set(told["files"]) == {path.name for path in folder.iterdir()}
    assert {one["what"] for one in told["parity"]["findings"]} >= {"ordinary rows", "rows 1000 times as large"}
    assert json.loads((folder / "parity.json").read_text())["findings"] == told["parity"]["findings"]
    first = json.loads((folder / "model.json").read_text())
    assert first["result"]["run"] == sent.run and first["versions"]["torch"]
    (folder / "old").touch()
    assert straylight("export", sent.path, "--to", "pt2", monkeypatch=monkeypatch) == 0  # takes its place, whole
    said = capfd.readouterr().out
    assert "model.pt2" in said and "Parity: on" in said
    assert not (folder / "old").exists() and not (folder / "model.onnx").exists()
    assert [path.name for path in sent.path.iterdir() if path.name.startswith(".export")] == []
    sent.clear()
    assert not list(folder.glob("*"))


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["{run}", "--to", "tensorrt"], 2, "invalid choice: 'tensorrt'"),
        (["{run}", "--too"], 2, "there is no option --too"),
        ([], 2, "the following arguments are required: run"),
        (["nowhere"], 2, "there is no folder nowhere"),
        (["{empty}"], 2, "empty"),
        (["{run}", "-o", "{used}"], 2, "holds something that straylight export did not write"),
        (["{run}", "-o", "{used}/mine.txt"], 2, "holds something that straylight export did not write"),
    ],
)
def test_a_wrong_command_gets_a_sentence(words, status, said, finished, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "used"):
        (tmp_path / name).mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    places = {"run": finished, "empty": tmp_path / "empty", "used": tmp_path / "used"}
    assert straylight("export", *(word.format(**places) for word in words), monkeypatch=monkeypatch) == status
    told = capfd.readouterr()
    (error,) = [line for line in told.err.splitlines() if line.startswith("Error: ")]
    assert said in error and told.err.endswith(f"{error}\n") and not told.out
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["mine.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "used"]


def test_a_graph_that_scores_otherwise_leaves_nothing(finished, exported, tmp_path, monkeypatch, capfd) -> None:
    kind = written.GRAPHS["onnx"]

    def wrong(detector, path):
        other = Run.open(finished).detector
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        return kind.make(other, path)

    monkeypatch.setitem(written.GRAPHS, "onnx", kind._replace(make=wrong))
    assert straylight("export", finished, "-o", tmp_path / "new", monkeypatch=monkeypatch) == 1
    assert "is not the detector" in capfd.readouterr().err and not list(tmp_path.iterdir())
    before = shutil.copytree(exported, tmp_path / "before")
    with pytest.raises(ExportError, match="is not the detector"):
        to_folder(Run.open(finished), before)
    assert Model.open(before) and [path.name for path in tmp_path.iterdir()] == ["before"]  # the one before stays


def test_without_the_runs_data_rows_are_drawn(sent, tmp_path) -> None:
    sent.scores.unlink()
    made = to_folder(Run.open(sent.path), tmp_path / "folder")
    assert "rows drawn at random" in made.rows and made.findings[0].rows == 1000


def test_p_values_of_many_scores_are_as_near_as_is_said() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=50_000).astype(np.float32)
    new = np.r_[random.normal(size=5000), random.normal(3, 1, 5000), scores[:100], -9, 9]
    for weight in (None, random.random(50_000)):
        exact = Calibration(scores, weight).p_values(new)
        whole, few = calibration.written(scores, weight, most=10**6), calibration.written(scores, weight)
        np.testing.assert_allclose(calibration.p_values(whole, new), exact, rtol=1e-9)
        near = calibration.p_values(few, new)
        assert (near >= exact * (1 - 1e-9)).all() and (near <= exact * (1 + 1.001e-3)).all()
        assert few["accuracy"] == 1e-3 and len(few["scores"]) < 8000 and whole["accuracy"] == 0


def test_a_run_without_calibration_says_why_it_has_no_p_values(straylight_train, tmp_path) -> None:
    run = Run.open(straylight_train("data=blobs", "data.val_fraction=0", "data.smallest_fpr=null", "detector=pca").run)
    to_folder(run, "folder")
    with pytest.raises(ConfigError, match=r"no calibration scores.*\. The run set no threshold"):
        Model.open("folder").p_values([1.0])
