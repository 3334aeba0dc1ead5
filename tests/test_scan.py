"""A scan of signal regions, and detectors that have seen the truth, in the report of a sweep."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import norm

from straylight.commands.report import main as report_main
from straylight.report.scan import scans


def searched(low: float, z: float, detector: str = "cwola", seed: int = 0, more: tuple[str, ...] = (), **fields: Any):
    """What a finished run in one signal region writes."""
    p = float(norm.sf(z))
    cuts = [
        {"efficiency": e, "kept": 100, "observed": 9, "expected": 8.0, "uncertainty": 1.0}
        | ({"failed": "No fit."} if math.isnan(value) else {"p": q, "log_p": math.log(q), "z": value})
        for e, value, q in ((1.0, 0.5, float(norm.sf(0.5))), (0.01, z, p))
    ]
    overrides = [f"detector={detector}", "data=bump", f"seed={seed}", f"data.signal_region=[{low},{low + 0.4}]", *more]
    return {
        "status": "ok",
        "detector": detector,
        "data": "bump",
        "seed": seed,
        "overrides": overrides,
        "variant": f"{detector}{low}{more}",
        "metrics": {"test/auroc": 0.8},
        "bump": {"resonance": {"name": "m", "low": low, "high": low + 0.4}, "cuts": cuts},
    } | fields


def write(root: Path, *results: dict[str, Any]) -> Path:
    for number, values in enumerate(results):
        (root / str(number)).mkdir(parents=True)
        (root / str(number) / "result.json").write_text(json.dumps(values))
    return root


def test_the_smallest_p_value_is_corrected_for_the_regions_looked_at() -> None:
    runs = [searched(3.2, 1.0), searched(3.3, 4.0), searched(3.4, 2.0), searched(3.5, math.nan)]
    found = {scan.efficiency: scan for scan in scans(runs)}
    cut = found[0.01]
    assert (cut.regions, cut.region, cut.z) == (3, (3.3, 3.6999999999999997), 4.0)  # in one nothing was fitted
    assert cut.global_p == pytest.approx(1 - (1 - norm.sf(4.0)) ** 3)
    assert cut.global_z == pytest.approx(norm.isf(cut.global_p))
    assert found[1.0].regions == 4 and found[1.0].global_z < 0.5


def test_only_runs_that_differ_in_the_region_alone_are_a_scan() -> None:
    runs = [
        searched(3.2, 1.0),
        searched(3.3, 4.0, seed=1),
        searched(3.4, 2.0, "anode"),
        searched(3.5, 2.0, more=("detector.folds=forward",)),
        searched(3.2, 2.0, more=("detector.folds=forward",)),
        searched(3.9, 9.0, status="failed"),
        {"status": "ok", "detector": "knn", "data": "bump"},
    ]
    found = scans(runs)
    assert {(scan.detector, scan.seed, scan.regions) for scan in found} == {("cwola detector.folds=forward", 0, 2)}
    same = [searched(3.2, 1.0, more=("data.events=10",)), searched(3.3, 1.0, more=("data.events=10",))]
    assert {scan.detector for scan in scans(same)} == {"cwola"}


def test_the_report_shows_a_scan_and_marks_yardsticks(tmp_path, capsys) -> None:
    runs = [searched(3.3, 4.0), searched(3.4, 2.0), searched(3.3, 6.0, "supervised", truth=True)]
    report_main([str(write(tmp_path, *runs))])
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("cwola") and "1 %" in line)
    assert line.split()[1:] == ["0", "1", "%", "2", "3.3", "to", "3.7", "3.17e-05", "4.00", "6.33e-05", "3.83"]
    assert "upper bound" in out
    assert "supervised *" in out and "*: has read which events are signal" in out and "cwola *" not in out
    with (tmp_path / "leaderboard.csv").open() as file:
        assert {row["detector"].split()[0]: row["truth"] for row in csv.DictReader(file)} == {
            "cwola": "false",
            "supervised": "true",
        }
    report_main([str(tmp_path), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert len(told["scans"]) == 2 and told["scans"][1]["regions"] == 2
    assert {row["detector"].split()[0]: row["truth"] for row in told["leaderboard"]}["supervised"] is True


def test_without_a_scan_and_a_yardstick_nothing_is_said_of_them(tmp_path, capsys) -> None:
    report_main([str(write(tmp_path, searched(3.3, 4.0))), "--json"])
    assert "scans" not in json.loads(capsys.readouterr().out)
    report_main([str(tmp_path)])
    out = capsys.readouterr().out
    assert "upper bound" not in out and "*:" not in out
