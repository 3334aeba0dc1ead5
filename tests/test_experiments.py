"""What stands in the heads of experiments and in the tables of docs/ was written by a script, of runs."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from straylight.groups import FOLDER, choices
from straylight.report.leaderboard import rows

PROJECT = Path(__file__).parents[1]
SCRIPT = PROJECT / "tests" / "benchmarks" / "experiments.py"
spec = importlib.util.spec_from_file_location("experiments", SCRIPT)
assert spec is not None and spec.loader is not None
experiments = importlib.util.module_from_spec(spec)
spec.loader.exec_module(experiments)

TUTORIALS = {
    "maf_gaussians",
    "vae_blobs",
    "mnist_contaminated_vae_conv",
    "mnist_autoencoder",
    "mnist_anogan",
    "adc2021_autoencoder",
    "adc2021_vae",
    "kddcup99_http",
    "sweep/house_prices_contamination",
}


def head(name: str) -> str:
    lines = (FOLDER / "experiment" / f"{name}.yaml").read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith("#"))


def test_each_result_of_the_tutorials_has_its_experiment() -> None:
    assert set(choices("experiment")) >= TUTORIALS


@pytest.mark.parametrize("name", choices("experiment"))
def test_the_head_of_an_experiment_has_its_command_and_its_numbers(name) -> None:
    found = head(name)
    assert re.search(rf"^#   straylight train (-m )?experiment={name}( |$)", found, re.MULTILINE)
    measured = re.search(r"^# Measured by tests/benchmarks/experiments.py.*?\n((#   .*\n?)+)", found, re.MULTILINE)
    assert measured is not None and re.search(r"\d minutes (a run|together)", measured[1])
    assert not re.search(r"AUROC \d|\d (minutes|s) ", found.replace(measured[0], "")), "typed by hand"


@pytest.fixture
def measured(tmp_path, straylight_train):
    """An experiment on blobs that was run, its head, and the two pages."""
    heads = tmp_path / "heads"
    heads.mkdir()
    shutil.copy(FOLDER / "experiment" / "vae_blobs.yaml", heads)
    straylight_train("-m", "experiment=vae_blobs", "seed=0,1,2", f"hydra.sweep.dir={tmp_path / 'exp' / 'vae_blobs'}")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "experiments.md").write_text("before\n<!-- experiments -->\nold\n<!-- /experiments -->\n")
    (docs / "detectors.md").write_text(
        "<!-- detectors -->\n| detector | what | a | b | c | d |\n|---|---|---|---|---|---|\n"
        "| `vae` | its ELBO | | | 0.5 | |\n<!-- /detectors -->\nafter\n"
    )
    return heads, docs, tmp_path / "exp"


def written(monkeypatch, heads, docs, out, *more) -> None:
    arguments = ["--heads", str(heads), "--docs", str(docs), "--out", str(out), "--write-only", *more]
    monkeypatch.setattr(sys, "argv", ["experiments.py", *arguments])
    experiments.main()


def test_it_writes_what_was_reached(measured, monkeypatch) -> None:
    heads, docs, out = measured
    pages = docs / "experiments.md", docs / "detectors.md"
    path = heads / "vae_blobs.yaml"
    before = path.read_text()
    written(monkeypatch, *measured)
    after = path.read_text()
    values = [json.loads(p.read_text())["metrics"]["test/auroc"] for p in sorted(out.glob("*/*/result.json"))]
    assert len(values) == 3
    mean, low, high = (f"{f(values):.3f}" for f in (lambda v: sum(v) / 3, min, max))
    assert f"AUROC {mean}" + (f" ({low}-{high})" if low != high else "") in after
    assert "seeds 0, 1, 2" in after and ". |" not in pages[0].read_text() and "minutes a run" in after
    config = [line for line in before.splitlines() if not line.startswith("#")]
    assert [line for line in after.splitlines() if not line.startswith("#")] == config
    assert max(map(len, after.splitlines())) <= 120
    table, detectors = (page.read_text() for page in pages)
    assert "old" not in table and "| `vae_blobs` | The 2-32-32-2 variational autoencoder" in table and mean in table
    assert "| `vae` | its ELBO |  |  | 0.5 |  |" in detectors, "without runs the cells stay"
    written(monkeypatch, *measured)
    again = tuple(page.read_text() for page in pages)
    assert path.read_text() == after and again == (table, detectors), "a second time changes nothing"


def test_of_a_sweep_that_did_not_come_to_its_end_nothing_is_written(measured, monkeypatch) -> None:
    heads, _, out = measured
    before = (heads / "vae_blobs.yaml").read_text()
    one = next(iter(sorted(out.glob("*/*/result.json"))))
    result = json.loads(one.read_text())
    one.write_text(json.dumps({**result, "status": "failed", "reason": "of want"}))
    with pytest.raises(SystemExit, match="nothing was written, of: vae_blobs"):
        written(monkeypatch, *measured)
    assert (heads / "vae_blobs.yaml").read_text() == before
    one.unlink()
    with pytest.raises(SystemExit, match="nothing was written, of: missing"):
        written(monkeypatch, *measured, "missing")


def run(data: str, detector: str, seed: int, auroc: float) -> dict:
    return {
        "status": "ok",
        "data": data,
        "detector": detector,
        "seed": seed,
        "variant": detector,
        "metrics": {"test/auroc": auroc, "test/ap": auroc},
        "duration_s": 6.0,
        "device": "cpu",
        "latency": [{"runtime": "eager", "batch": 1, "scaling": True, "p50_us": 12.3}],
    }


def test_runs_count_only_where_all_detectors_have_all_seeds(tmp_path) -> None:
    folders = {}
    for data, detector, seed in itertools.product(("a", "b"), ("knn", "pca"), (0, 1)):
        folder = folders[data, detector, seed] = tmp_path / f"{data}{detector}{seed}"
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps(run(data, detector, seed, 0.5)))
    table = tmp_path / "leaderboard.csv"
    assert experiments.ended(tmp_path) == [], "the sweep goes on"
    table.touch()
    assert len(experiments.ended(tmp_path)) == 8
    os.utime(table, (0, 0))
    assert experiments.ended(tmp_path) == [], "it was resumed and goes on"
    table.touch()
    shutil.rmtree(folders["b", "pca", 1])
    assert experiments.ended(tmp_path) == []
    shutil.rmtree(folders["b", "pca", 0])
    assert experiments.ended(tmp_path) == []
    assert experiments.ended(tmp_path / "nowhere") == []


BUMPS = {
    (0.005, "anode"): (0.25, 0.125),
    (0.005, "cwola"): (0.5, 0.75),
    (0.005, "idealized"): (0.875, 0.875),
    (0.01, "anode"): (1.0, 1.0),
    (0.01, "cwola"): (0.5, 0.5),
    (0.01, "idealized"): (0.75, 0.25),
}


def bumps(fraction: float, detector: str, seed: int, of: float, known: bool = True) -> dict:
    """A run of a search; the optimum of all is 12."""
    asked = ["data=bump", f"detector={detector}", f"data.signal_fraction={fraction}", f"seed={seed}"]
    optimum = {"test/optimum_fraction": of} if known else {}
    return run("bump", detector, seed, 0.5) | {
        "variant": f"{detector}{fraction}",
        "overrides": asked,
        "metrics": {"test/auroc": 0.5, "test/max_sic": 12 * of, **optimum},
        "bump": {"rows": 10},
        "truth": detector == "idealized",
    }


@pytest.mark.parametrize("known", [True, False])
def test_a_sweep_over_bumps_tells_the_improvement_within_each_fraction_of_signal(tmp_path, known) -> None:
    for (fraction, detector), values in BUMPS.items():
        for seed, of in enumerate(values):
            folder = tmp_path / f"{detector}{fraction}{seed}"
            (folder / ".hydra").mkdir(parents=True)
            (folder / ".hydra" / "config.yaml").touch()
            (folder / "result.json").write_text(json.dumps(bumps(fraction, detector, seed, of, known)))
    (tmp_path / "leaderboard.csv").touch()
    results = experiments.ended(tmp_path)
    assert len(results) == 12
    lines = experiments.block(results, True)
    told = [line.removeprefix("#   ") for line in lines[2:4]]
    if known:
        assert "largest significance improvement, in units of the optimum's; * has read" in " ".join(lines).lower()
        assert told == [
            "bump, signal_fraction=0.005: idealized* 0.875, cwola 0.625 (0.500-0.750), anode 0.188 (0.125-0.250)",
            "bump, signal_fraction=0.01: anode 1.000, cwola 0.500, idealized* 0.500 (0.250-0.750)",
        ]
    else:
        assert "optimum" not in " ".join(lines)
        assert told[1].endswith("anode 12.000, cwola 6.000, idealized* 6.000 (3.000-9.000)")
    assert "AUROC" not in " ".join(lines) and "12 runs, 1.2 minutes together" in lines[-1]
    shutil.rmtree(tmp_path / "cwola0.011")
    assert experiments.ended(tmp_path) == [], "a seed is missing"
    shutil.rmtree(tmp_path / "cwola0.010")
    assert experiments.ended(tmp_path) == [], "a detector lacks a fraction"


def test_numbers_of_detectors_and_of_many_data_sets() -> None:
    two = (("knn", 0.8), ("pca", 0.7))
    own = [run(d, n, s, v + s / 100) for d in experiments.COLUMNS for n, v in two for s in (0, 1)]
    over = [run(f"set{i}", n, 0, v + i / 100) for i in range(6) for n, v in two]
    page = ["| detector | what | a | b | c | d |", "|---|---|---|---|---|---|", "| `knn` | x | | | | |"]
    page.append("| `gmm` | x | 1 | 2 | 3 | 4 |")
    found = experiments.with_numbers(page, own, over)
    assert found[:2] == page[:2] and found[3] == page[3], "cells without runs stay"
    assert found[2] == "| `knn` | x | 0.805 (0.800-0.810) | 0.805 (0.800-0.810) | 0.825 | 12 |"
    assert experiments.with_numbers(page, own, [])[2].endswith("|  | 12 |")
    (line,) = experiments.over_many(over, rows(over), [f"set{i}" for i in range(6)])
    assert line == "#   mean AUROC over 6 data sets (average rank): knn 0.825 (1.0), pca 0.725 (2.0)."


def test_the_table_of_digits_has_each_and_their_mean_and_the_best_first() -> None:
    runs = [run(f"mnist_{k}", n, 0, v + k / 100) for k in range(3) for n, v in (("pca", 0.7), ("knn", 0.8))]
    assert experiments.digits_table(runs) == [
        "| detector | 0 | 1 | 2 | mean |",
        "|---|---|---|---|---|",
        "| `knn` | 80.0 | 81.0 | 82.0 | 81.0 |",
        "| `pca` | 70.0 | 71.0 | 72.0 | 71.0 |",
    ]


def test_missing_marks_are_named() -> None:
    with pytest.raises(ValueError, match="no marks <!-- experiments -->"):
        experiments.between("nothing", "experiments", list)


@pytest.mark.parametrize("before", ["# Measured once\n#   0.5\n", "# Not measured yet.\n"])
def test_what_was_measured_takes_the_place_of_what_was_there(before) -> None:
    found = experiments.with_block(f"# Title\n{before}# Published 0.9\nkey: 1\n", ["# Measured", "#   0.6"])
    assert found == "# Title\n# Measured\n#   0.6\n# Published 0.9\nkey: 1\n"
