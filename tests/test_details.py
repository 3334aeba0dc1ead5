"""`straylight report --details`: all that a run measured, from a result that is made up."""

import json

import pytest

from straylight.commands.report import main as report_main

FPRS = ("0.1", "0.001", "1e-05")
RESULT = {
    "status": "ok",
    "reason": None,
    "detector": "maf",
    "data": "adc2021",
    "seed": 4,
    "metrics": {
        "test/nominal": 2000,
        "test/anomalous": 300,
        "test/auroc": 0.91234,
        "test/ap": 0.81234,
        "test/partial_auroc@fpr=0.1": 0.71234,
        "test/max_sic": 4.25,
        "test/max_sic_fpr": 0.0125,
        "test/sic@fpr=0.1": 1.75,
        **{f"test/tpr@fpr={f}": 0.5 + i / 10 for i, f in enumerate(FPRS)},
        **{f"test/nominal_above@fpr={f}": n for f, n in zip(FPRS, (200, 2, 0), strict=True)},
        "test/auroc/a[4l]": 0.95,
        "test/ap/a[4l]": 0.85,
        "test/tpr@fpr=0.1/a[4l]": 0.65,
    },
    "intervals": {"test/auroc": [0.901, 0.922], "test/tpr@fpr=0.1": [0.45, 0.55], "test/auroc/a[4l]": [0.93, 0.97]},
    "interval_level": 0.9,
    "nominal_needed": {"0.001": 10000, "1e-05": 1000000},
    "by_epoch": [{"epoch": 2, "auroc": 0.7, "ap": 0.4}, {"epoch": 4, "auroc": 0.9, "ap": 0.6}],
    "thresholds": [
        {
            "rule": "quantile",
            "asked": {"quantile": 0.95},
            "value": 3.25,
            "calibration": 400,
            "expected_fpr": 0.0499,
            "observed_fpr": 0.0715,
            "band": [0.03, 0.07],
            "in_band": False,
            "precision": 0.75,
            "recall": 0.6,
            "f1": 0.6667,
            "flagged": 1234,
            "confusion": [[1857, 143], [120, 180]],
            "recall_per_kind": {"a[4l]": [0.65, 0.6, 0.7], "h": [0.5, 0.4, 0.6]},
            "report": "a classification report",
        },
        {"rule": "fpr", "asked": {"fpr": 0.001}, "value": None, "flagged": 0, "remark": "it takes 999 rows"},
    ],
    "criteria": {"val/separation": 0.87654, "val/nll": 1.25, "val/loss": None, "val/of_another_version": 1.0},
    "criteria_intervals": {"val/separation": [0.8, 0.93]},
    "density": {"sentence": "The density fits.", "remarks": ["Pixels are discrete."]},
    "latency": [
        {"runtime": "eager", "batch": 1, "scaling": True, "p50_us": 80.0, "p95_us": 90.0, "p99_us": 99.0}
        | {"mean_us": 81.0, "events_per_s": 12500.0},
        {"runtime": "eager", "batch": 1, "scaling": False, "p50_us": 70.0, "events_per_s": 14000.0},
        {"runtime": "onnx", "batch": 1, "scaling": True, "p50_us": 19.0, "events_per_s": 52631.0},
    ],
    "cost": {
        "state_bytes": 123456,
        "flops_per_event": 2048.0,
        "shared": {"others": True, "cpu_cores": 1.38, "gpu_processes": 2},
    },
    "parameters": 1234,
    "duration_s": 2.5,
    "notices": ["rows were left out"],
    "command": "straylight train detector=maf",
}


@pytest.fixture
def shown(tmp_path, capsys):
    def show(result, *options):
        (tmp_path / "result.json").write_text(json.dumps(result))
        report_main([str(tmp_path), *options])
        return capsys.readouterr().out

    return show


def cells(out, start):
    """The cells of the first line that begins so."""
    return next(line.removeprefix(start).split() for line in out.splitlines() if line.startswith(start))


def test_all_numbers_are_shown_with_their_intervals(shown):
    out = shown(RESULT, "--details")
    assert cells(out, "all anomalies") == ["0.9123", "0.8123", "0.7123", "4.2500"]
    assert "0.901-0.922" in out and "0.930-0.970" in out and "0.450-0.550" in out
    assert cells(out, "a[4l]")[:2] == ["0.9500", "0.8500"]
    assert "SIC @ 1e-1" in out and "1.7500" in out and "SIC @ 1e-3" not in out
    assert "TPR @ 1e-1" in out and "TPR @ 1e-5" in out and "the largest, 4.25, is at FPR 0.0125" in out


def test_what_is_not_resolvable_says_how_many_events_would_resolve_it(shown):
    out = shown(RESULT, "--details")
    line = [line for line in out.splitlines() if line.startswith("all anomalies")][1]
    assert line.split()[2:] == ["0.5000", "n.r.", "n.r."]
    assert "of 2,000 nominal rows" in out and "10,000 for FPR 0.001, 1,000,000 for FPR 1e-05" in out


def test_thresholds_stand_beside_what_was_expected_and_warn_where_it_was_missed(shown):
    out = shown(RESULT, "--details")
    row = cells(out, "quantile 0.95")
    assert row == ["3.2500", "0.0499", "0.0715", "0.03", "to", "0.07", "0.7500", "0.6000", "0.6667", "1,234"]
    assert "quantile 0.95: the observed FPR lies outside the band" in out and "fpr 0.001: it takes 999 rows" in out
    assert cells(out, "nominal") == ["1,857", "143"] and cells(out, "anomalous") == ["120", "180"]
    assert "a classification report" in out and "0.600-0.700" in out


def test_latency_density_cost_epochs_and_notes_are_there(shown):
    out = shown(RESULT, "--details")
    assert cells(out, "eager  ") == ["1", "~80", "~90", "~99", "~81", "~12,500"]
    assert cells(out, "eager, already scaled") == ["1", "~70", "~14,000"]
    assert cells(out, "onnx") == ["1", "~19", "~52,631"] and "~: taken while others used the machine." in out
    for said in (
        "1.38 CPU cores and, with 2 processes, the card meanwhile",
        "The density fits.",
        "Pixels are discrete.",
        "123,456",
        "2,048",
        "note: rows were left out",
    ):
        assert said in out
    assert cells(out, "4 ") == ["0.9000", "0.6000"] and "command: straylight train detector=maf" in out


def test_criteria_are_shown_with_their_interval_and_which_way_is_better(shown):
    out = shown(RESULT, "--details")
    assert cells(out, "val/separation") == ["0.8765", "higher"] and "0.800-0.930" in out
    assert cells(out, "val/nll") == ["1.2500", "lower"]
    assert "val/loss" not in out and "val/of_another_version" not in out


def test_the_short_page_says_how_to_see_more_and_the_level_of_its_intervals(shown, tmp_path):
    out = shown(RESULT)
    assert "90 % interval" in out and "0.9010-0.9220" in out and f"straylight report --details {tmp_path}" in out
    assert "quantile" not in out


@pytest.mark.parametrize("field", [name for name in RESULT if name != "status"])
def test_a_result_of_an_earlier_version_lacks_fields_and_is_shown(shown, field):
    assert "ok" in shown({name: value for name, value in RESULT.items() if name != field}, "--details")


def test_details_of_a_sweep_are_refused(tmp_path, capsys):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").write_text(json.dumps(RESULT))
    with pytest.raises(SystemExit) as ended:
        report_main([str(tmp_path), "--details"])
    assert ended.value.code == 1 and "--details is for the folder of one run" in capsys.readouterr().err


def test_a_threshold_that_flags_nothing_has_no_matrix(shown):
    nothing = RESULT["thresholds"][0] | {"flagged": 0}
    out = shown(RESULT | {"thresholds": [nothing]}, "--details")
    assert "a classification report" not in out and "quantile 0.95" in out


def test_others_are_not_mentioned_where_there_were_none(shown):
    out = shown(RESULT | {"cost": {"shared": {"others": False, "cpu_cores": 0.01}}}, "--details")
    assert "meanwhile" not in out and "~" not in out


NETWORK = [
    {"name": "scaling", "layer": "Scaling", "shape": [57], "parameters": 0},
    {"name": "encoder.0", "layer": "Linear", "shape": [3], "parameters": 174},
    {"name": "decoder.0", "layer": "Linear", "shape": [1, 57], "parameters": 1228},
    {"name": "critic[0]", "layer": "Linear", "shape": None, "parameters": 4},
]


def test_the_network_is_shown_layer_by_layer(shown):
    lines = [line.split() for line in shown({**RESULT, "layers": NETWORK}, "--details").splitlines()]
    assert ["encoder.0", "Linear", "3", "174"] in lines
    assert ["decoder.0", "Linear", "1", "x", "57", "1,228"] in lines
    assert ["critic[0]", "Linear", "4"] in lines, "which scoring does not call"
    assert ["1,406", "parameters:", "encoder", "174,", "decoder", "1,228,", "critic[0]", "4."] in lines


@pytest.mark.parametrize("layers", [None, [], NETWORK[:1]], ids=["an older run", "none", "nothing learned"])
def test_without_a_network_none_is_shown(shown, layers):
    assert "network" not in shown({**RESULT, "layers": layers}, "--details")


def cut(efficiency, z, **more):
    return {
        "efficiency": efficiency,
        "kept": round(20000 * efficiency),
        "observed": 640,
        "expected": 570.25,
        "uncertainty": 12.5,
        "p": 0.0125,
        "log_p": -4.38,
        "z": z,
        "function": "exp2",
        "chi2": 31.25,
        "dof": 37,
    } | more


BUMP = {
    "resonance": {"name": "m", "low": 3.3, "high": 3.7},
    "rows": 20000,
    "folds": 5,
    "direction": "forward",
    "max_sic_bias": 0.3,
    "cuts": [
        cut(1.0, 2.25),
        cut(0.1, 39.0, p=0.0, log_p=-1000.0),
        {"efficiency": 0.01, "kept": 200, "failed": "The fit failed."},
        {"efficiency": 0.001, "kept": 20, "failed": "The fit failed."},
    ],
    "sculpting": [
        {"efficiency": 0.1, "jsd": 0.0123, "chance": 0.0021, "chi2": 80.0, "dof": 40, "p": 0.0002},
        {"efficiency": 0.01, "jsd": 0.02, "chance": 0.02, "chi2": 0.0, "dof": 0, "p": 1.0},
    ],
    "remarks": ["Fold j of 5 is scored by a model of the folds before it."],
}
EXPECTED, FITTED = ("570.2", "+-", "12.5"), ("exp2", "31.2", "/", "37")
SEARCH = RESULT | {
    "detector": "supervised",
    "bump": BUMP,
    "metrics": RESULT["metrics"] | {"test/optimum_max_sic": 5.0, "test/optimum_fraction": 0.85},
    "intervals": RESULT["intervals"] | {"test/max_sic": [3.9, 4.6]},
}


def test_a_signal_region_has_its_optimum_its_hunt_and_its_sculpting(shown):
    out = shown(SEARCH, "--details")
    assert (
        "largest SIC: 4.25 (3.90 to 4.60), 0.85 of the optimum, 5.00; as the largest of many it lies about 0.3" in out
    )
    assert "signal region: 3.3 <= m <= 3.7" in out
    assert cells(out, "no cut") == ["20,000", "640", *EXPECTED, "2.25", "0.0125", *FITTED]
    assert cells(out, "10 %") == ["2,000", "640", *EXPECTED, "39.00", "1e-434", *FITTED]
    assert "1 %, 0.1 %: The fit failed." in out
    assert "0.012" in out and "80.0 / 40" in out and "The cut at 10 % bends the background" in out
    assert BUMP["remarks"][0] in out and "yardstick" not in out
    flat = {**BUMP, "sculpting": [BUMP["sculpting"][0] | {"p": 0.4}]}
    assert "No cut is seen to bend" in shown(SEARCH | {"bump": flat}, "--details")


def test_the_short_page_has_the_hunt_alone(shown):
    out = shown(SEARCH)
    assert cells(out, "no cut")[-5:-3] == ["2.25", "0.0125"] or "2.25" in cells(out, "no cut")
    assert "JSD" not in out and "z" not in shown(RESULT).split()


def test_what_has_seen_the_truth_is_called_a_yardstick(shown):
    assert "supervised has read which events are signal" in shown(SEARCH | {"truth": True}, "--details")


def test_a_bump_without_rows_that_can_be_cut_on_has_its_remarks(shown):
    out = shown(SEARCH | {"bump": {"resonance": BUMP["resonance"], "remarks": ["No bump is hunted for."]}}, "--details")
    assert "No bump is hunted for." in out and "JSD" not in out
