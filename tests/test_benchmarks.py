"""The benchmark scripts run, check what they compare, and end with the ratio. How large it is no test says."""

from __future__ import annotations

import csv
import importlib.util
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from straylight.groups import choices

FOLDER = Path(__file__).parent / "benchmarks"


SMALL = {
    "sweep.py": ["--jobs", "2"],
    "training_loop.py": ["--rows", "5000"],
    "scoring.py": ["--rows", "5000"],
    "flow.py": ["--rows", "2048", "--epochs", "1", "--seeds", "1"],
    "anogan_search.py": ["--images", "8", "--steps", "20"],
    "detectors.py": ["--rows", "512", "--epochs", "1"],
    "ranking.py": ["--rows", "20000"],
    "figures.py": ["--rows", "20000"],
    "knn.py": ["--rows", "2000"],
    "small_job.py": ["--rows", "200", "--only", "hbos,pca"],
    "adbench.py": ["--seeds", "1", "--detectors", "pca,knn,knn distance=kth", "--data", "{data}/adbench"],
    "criteria.py": ["--rounds", "1", "--epochs", "1"],
    "datasets.py": ["--only", "1_", "--data", "{data}"],
    "gpu.py": ["--device", "cpu", "--rows", "1024"],
    "explain.py": [
        "--rows",
        "200",
        "--events",
        "10",
        "--epochs",
        "1",
        "--detectors",
        "pca,autoencoder,isolation_forest",
    ],
    "export.py": ["--only", "pca,hbos"],
    "over_density.py": [
        *(
            [
                "--events",
                "4000",
                "--toys",
                "2",
                "--signal-toys",
                "1",
                "--members",
                "1",
                "--epochs",
                "1",
                "--tested",
                "2000",
            ]
        )
    ],
    "large_data.py": ["--rows", "20000", "--folder", "{data}"],
    "many_jobs.py": ["--jobs", "20"],
    "parts.py": ["--rows", "6000", "--parts", "6", "--rounds", "1", "--folder", "{data}"],
    "report.py": ["--sets", "1", "--detectors", "2"],
    "score.py": ["--rows", "20000", "--memory-rows", "30000", "--rounds", "1", "--folder", "{data}"],
    "search.py": ["--trials", "6", "--samplers", "random,tpe"],
    "score_files.py": ["--files", "4", "--rows", "8000", "--rounds", "1", "--folder", "{data}"],
}
#: Those that start programs, each of which is forked here.
STARTING = {"sweep.py", "large_data.py", "score.py", "score_files.py"}


def test_every_benchmark_is_tested() -> None:
    below = {"first_result.py", "defaults.py", "published.py"}
    elsewhere = {"interleaved.py", "experiments.py", *below}  # test_experiments, and below
    assert {p.name for p in FOLDER.glob("*.py")} == {*SMALL, *elsewhere}


def test_detectors_are_held_against_each_other_over_sets() -> None:
    held = runpy.run_path(str(FOLDER / "adbench.py"))["held"]
    found = held([90.0, 80.0, 70.0, 65.0], [80.0, 79.95, 70.0, 70.0])
    assert found[:5] == (1, 2, 1, 10.0, 5.0) and found.p == pytest.approx(stats.wilcoxon([10, 0.05, 0, -5]).pvalue)
    assert held([1.0, 2.0], [1.0, 2.0]) == (0, 2, 0, 0.0, 0.0, 1.0)


def test_a_first_result_is_timed_as_the_command_that_is_typed(monkeypatch, capsys, tmp_path) -> None:
    module = runpy.run_path(str(FOLDER / "first_result.py"))
    seconds = iter([9.0, 9.0, 9.0, 10.0, 15.0, 20.0, 20.0, 14.0, 10.0])  # the order turns, and the first are left out
    commands: list[list[str]] = []
    monkeypatch.setitem(module["main"].__globals__, "cpu", lambda c, folder: commands.append(c) or next(seconds))
    monkeypatch.setattr(sys, "argv", ["first_result.py", "--rounds", "2", "--pyod", "false"])
    module["main"]()
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "ratio: 1.45" and len(commands) == 9
    typed = [command[command.index("straylight") :] for command in commands if "straylight" in command]
    assert ["straylight", "train", "detector=knn", "data=blobs"] in typed
    assert runpy.run_path(str(FOLDER / "first_result.py"))["cpu"]([sys.executable, "-c", "sum(range(10**6))"], tmp_path)


def test_a_default_is_chosen_on_some_sets_and_confirmed_on_others(monkeypatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    module = runpy.run_path(str(FOLDER / "defaults.py"))
    assert module["choosing"](["2_c", "1_a", "10_b", "digits_contaminated", "3_d"]) == {"10_b", "2_c"}
    first = dict.fromkeys("abc", 80.0)
    assert module["wins"]({"a": 81.0, "b": 81.0, "c": 79.5}, first, "abc")
    assert not module["wins"]({"a": 99.0, "b": 79.0, "c": 79.0}, first, "abc")  # one set carries the mean
    assert not module["wins"]({"a": 81.0, "b": 81.0, "c": 70.0}, first, "abc")  # or one does the harm
    assert not module["wins"](first, first, "abc")
    for detector, alternatives in module["TRIED"].items():
        assert len(alternatives) > 1 and detector in choices("detector")


def test_defaults_are_tried_and_what_was_is_not_tried_again(tmp_path, fresh) -> None:
    x = np.random.default_rng(0).normal(size=(400, 4)) ** 3
    x[380:] += 4
    for name in ("1_a", "2_b"):
        np.savez(tmp_path / name, X=x, y=np.arange(400) >= 380)
    np.savez(tmp_path / "3_few", X=x, y=np.arange(400) >= 399)  # too few anomalies
    command = [sys.executable, FOLDER / "defaults.py", "copod", "--data", tmp_path, "--sets", "1_a,2_b,3_few"]
    command += ["--rows", "300", "--contamination", "0.05", "--out", tmp_path / "out.csv", "--seeds"]
    fresh.run([*command, "1"], check=True)
    before = (tmp_path / "out.csv").read_text()
    said = fresh.run([*command, "2"], check=True).stdout
    after = (tmp_path / "out.csv").read_text()
    assert after.startswith(before) and len(before.splitlines()) == 1 + 4 and len(after.splitlines()) == 1 + 8
    assert {line.split(",")[4] for line in after.splitlines()[1:]} == {"1_a", "2_b"}
    assert "2 sets" in said and [line.split()[0] for line in said.splitlines()[-2:]] == ["total", "feature"]
    refused = fresh.run([*command[:2], "knn", *command[3:], "1"])
    assert refused.returncode == 2 and "no alternatives are stated for knn" in refused.stderr


@pytest.mark.slow
def test_published_values_are_made_again_and_a_run_is_not_run_twice(fresh, tmp_path) -> None:
    draw = np.random.default_rng(0)
    for name, rows in (("1_small", 300), ("2_larger", 1200)):
        np.savez(tmp_path / f"{name}.npz", X=draw.normal(size=(rows, 4)), y=np.arange(rows) % 20 == 0)
    head = "# source\nsetting,dataset,model,auroc_mean_pct\n"
    (tmp_path / "published_auroc.csv").write_text(f"{head}semi,small,KNN,1.0\nunsup,larger,KNN,2.0\n")
    runs, out = tmp_path / "runs.csv", tmp_path / "out.csv"
    given = ["--data", tmp_path, "--runs", runs, "--out", out, "--detectors", "knn,isolation_forest", "--seeds", "0,1"]
    said = fresh.run([sys.executable, FOLDER / "published.py", *given], check=True).stdout
    before = runs.read_text()
    assert fresh.run([sys.executable, FOLDER / "published.py", *given], check=True).stdout == said
    assert runs.read_text() == before and len(before.splitlines()) == 1 + 2 * (2 + 2) + (1 + 2) + (2 + 2)
    with out.open() as file:
        table = {(row["dataset"], row["detector"]): row for row in csv.DictReader(file)}
    small, larger = table["1_small", "knn"], table["2_larger", "knn"]
    assert (small["published"], small["seeds"], larger["published"], larger["seeds"]) == ("1.00", "2", "", "1")
    assert float(small["copies"]) > 50 and float(small["clean_copies"]) == float(larger["copies"]) == 0
    assert re.search(r"^knn: [\d.]+ off on average, .* beyond 0\.5: 1_small \d", said, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("script", SMALL)
def test_a_benchmark_ends_with_its_ratio(script, tmp_path, fresh, monkeypatch, capsys) -> None:
    (tmp_path / "adbench").mkdir()
    x = np.random.default_rng(0).normal(size=(200, 4))
    np.savez(tmp_path / "adbench" / "1_small.npz", X=x, y=np.arange(200) >= 180)
    given = [argument.format(data=tmp_path) for argument in SMALL[script]]
    given += [] if script == "adbench.py" else ["--rounds", "1"]
    if script in STARTING:
        monkeypatch.syspath_prepend(FOLDER)
        monkeypatch.setattr(sys, "argv", [script, *given])
        spec = importlib.util.spec_from_file_location("benchmark", FOLDER / script)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        start = SimpleNamespace(
            run=lambda command, **_: print(fresh.run(command, check=True).stdout, end=""), DEVNULL=None
        )
        monkeypatch.setattr(module, "subprocess", start)
        module.main()
        said = capsys.readouterr().out
    else:
        said = fresh.run([sys.executable, FOLDER / script, *given], check=True).stdout
    unmeasured = "|not measured, PyOD is not installed" if script == "adbench.py" else ""
    assert re.fullmatch(rf"ratio: ([\d.]+(e\+\d+)?{unmeasured})", said.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_benchmark_says_so_in_a_sentence(fresh) -> None:
    ended = fresh.run([sys.executable, str(FOLDER / "gpu.py")])
    assert ended.returncode == 1 and not ended.stdout
    assert ended.stderr.splitlines()[-1].startswith("There is no GPU here; --device cpu")
