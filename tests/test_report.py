"""The leaderboard, its files and its figure, from run folders that are made up."""

import csv
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from straylight.commands.report import main as report_main
from straylight.folder import RunFolder, SweepFolder
from straylight.report import page
from straylight.report.figures import pareto
from straylight.report.leaderboard import COLUMNS, POINTS, Spread, rows, write_csv


def result(detector="vae", data="digits", seed=0, auroc=0.9, *, above=50, p50=100.0, overrides=(), **more):
    """What a finished run writes."""
    overrides = [f"detector={detector}", f"data={data}", f"seed={seed}", *overrides]
    computed = sorted(o for o in overrides if not o.startswith("seed="))
    metrics = {
        "test/auroc": auroc,
        "test/ap": auroc / 2,
        "test/tpr@fpr=0.1": auroc / 3,
        "test/tpr@fpr=0.01": auroc / 4,
        "test/nominal_above@fpr=0.1": above,
        "test/nominal_above@fpr=0.01": above // 10,
    }
    entry = {"runtime": "eager", "p95_us": 2 * p50, "p99_us": 3 * p50}
    return {
        "status": "ok",
        "reason": None,
        "metrics": metrics,
        "latency": [
            {"batch": 1, "p50_us": p50, "events_per_s": 1e6 / p50} | entry,
            {"batch": 1024, "p50_us": 10 * p50, "events_per_s": 1e5} | entry,
        ],
        "parameters": 1234,
        "duration_s": 2.5,
        "seed": seed,
        "detector": detector,
        "data": data,
        "variant": hashlib.sha256(" ".join(computed).encode()).hexdigest()[:12],
        "overrides": overrides,
        "command": f"straylight train {' '.join(overrides)}",
    } | more


def write(root, *results):
    for number, values in enumerate(results):
        folder = root / str(number)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(values))
    return root


def said(root):
    """What `report` prints, and the rows it makes."""
    out = io.StringIO()
    table = page.report(root, Console(file=out, width=200))
    return out.getvalue(), table


def names(results):
    return [row.detector for row in rows(results)]


# rows


def test_a_row_is_the_mean_and_the_range_over_seeds():
    (row,) = rows([result(seed=s, auroc=a, p50=p) for s, a, p in ((0, 0.5, 10.0), (1, 0.75, 30.0), (2, 1.0, 80.0))])
    assert (row.data, row.detector, row.seeds) == ("digits", "vae", 3)
    assert row.numbers["auroc"] == (0.75, 0.5, 1.0)
    assert row.numbers["ap"] == (0.375, 0.25, 0.5)
    assert row.numbers["tpr@fpr=0.1"] == pytest.approx((0.25, 0.5 / 3, 1 / 3))
    assert row.numbers["p50_us"] == (40.0, 10.0, 80.0)  # of one event
    assert row.numbers["events_per_s"] == (1e5, 1e5, 1e5)  # of 1,024
    assert row.numbers["parameters"] == (1234, 1234, 1234)


def test_rows_are_ordered_by_data_set_and_then_by_auroc():
    made = [result("vae", "b", auroc=0.7), result("knn", "b", auroc=0.8), result("maf", "a", auroc=0.1)]
    for order in itertools.permutations(made):
        assert [(row.data, row.detector) for row in rows(order)] == [("a", "maf"), ("b", "knn"), ("b", "vae")]


@pytest.mark.parametrize("above, known", [(9, False), (10, True), (0, False), (100, True)])
def test_a_working_point_with_fewer_than_ten_nominal_events_above_is_not_resolvable(above, known):
    numbers = rows([result(above=above)])[0].numbers
    assert (numbers["tpr@fpr=0.1"].mean is not None) is known
    assert (numbers["tpr@fpr=0.01"].mean is not None) is (above // 10 >= 10)


def test_a_working_point_is_not_resolvable_if_it_is_not_for_one_of_the_seeds():
    (row,) = rows([result(seed=0, above=9), result(seed=1, above=11)])
    assert row.numbers["tpr@fpr=0.1"] == (None, None, None)
    assert row.numbers["auroc"].mean == pytest.approx(0.9)


def test_a_seed_that_was_run_twice_counts_once_and_the_later_run_holds(tmp_path):
    write(tmp_path, result(seed=0, auroc=0.1), *(result(seed=s, auroc=0.5) for s in range(1, 10)), result(auroc=0.7))
    (row,) = rows(SweepFolder(tmp_path).results())  # folder 10 comes after folder 9
    assert row.seeds == 10 and row.numbers["auroc"] == pytest.approx((0.52, 0.5, 0.7))


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_run_that_did_not_finish_is_not_averaged(status):
    (row,) = rows([result(seed=0, auroc=0.5), result(seed=1, auroc=1.0, status=status)])
    assert row.seeds == 1 and row.numbers["auroc"].mean == 0.5


def test_a_spread_needs_every_value():
    assert Spread.of([1, 2, 6]) == (3, 1, 6)
    assert Spread.of([1, None]) == Spread.of([]) == (None, None, None)


def test_missing_numbers_leave_their_cells_open_and_nothing_else():
    (row,) = rows([result(latency=[], parameters=None)])
    assert row.numbers["p50_us"].mean is row.numbers["events_per_s"].mean is row.numbers["parameters"].mean is None
    assert row.numbers["auroc"].mean == 0.9


# names of variants


def test_a_detector_alone_is_called_by_its_name_whatever_its_overrides():
    assert names([result(overrides=["detector.latent=2"], seed=s) for s in (0, 1)]) == ["vae"]


def test_variants_are_not_averaged_and_are_called_by_the_overrides_that_tell_them_apart():
    common = "trainer.max_epochs=5"
    made = [
        result(seed=seed, auroc=auroc, overrides=[common, *own])
        for seed in (0, 1)
        for auroc, own in ((0.9, ["detector.latent=8"]), (0.8, ["detector.latent=2"]), (0.7, []))
    ]
    assert [(r.detector, r.seeds) for r in rows(made)] == [
        ("vae detector.latent=8", 2),
        ("vae detector.latent=2", 2),
        ("vae (default)", 2),
    ]


def test_overrides_of_places_and_seeds_name_nothing():
    a = result(overrides=["paths.output=a", "hydra.verbose=true", "detector.latent=2"])
    b = result(overrides=["paths.output=b", "detector.latent=3"], auroc=0.8)
    assert names([a, b]) == ["vae detector.latent=2", "vae detector.latent=3"]


def test_variants_of_equal_overrides_are_told_apart_by_their_hash():
    made = [result(variant="aaaaaa111111"), result(variant="bbbbbb222222", auroc=0.8)]
    assert names(made) == ["vae (default) [aaaaaa]", "vae (default) [bbbbbb]"]


def test_names_are_not_changed_by_a_collision_among_others():
    made = [result("vae", "a"), result("vae", "b")]
    collision = [result("knn", "a", auroc=0.5, variant=variant) for variant in ("aaaaaa111111", "bbbbbb222222")]
    found = {(row.data, row.detector) for row in rows(made + collision)}
    assert {("a", "vae"), ("b", "vae")} <= found and len(found) == 4


# result.json


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1, 2]", b'{"metrics": {}}', b"\xff\xfe", b"null"], ids=lambda c: repr(c)
)
def test_an_unreadable_result_is_a_failed_run_that_is_listed(tmp_path, content):
    write(tmp_path, result())
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "result.json").write_bytes(content)
    found = RunFolder(tmp_path / "1").read()
    assert found["status"] == "failed" and "cannot be read" in found["reason"]
    out, table = said(tmp_path)
    assert f"failed: {tmp_path / '1'}" in out and len(table) == 1


@pytest.mark.parametrize("field", ["metrics", "latency", "parameters", "overrides", "duration_s"])
def test_a_finished_run_that_lacks_a_field_does_not_stop_the_report(tmp_path, field):
    lacking = result("knn")
    del lacking[field]
    _, table = said(write(tmp_path, result(), lacking))
    assert "vae" in [row.detector for row in table]


def test_results_are_found_below_a_folder_in_natural_order(tmp_path):
    for name in ("10", "9", "b/2", "b/11", "1", "a"):
        write(tmp_path / name, result())
    found = [r["folder"] for r in SweepFolder(tmp_path).results()]
    assert found == [str(tmp_path / name / "0") for name in ("1", "9", "10", "a", "b/2", "b/11")]
    assert RunFolder(tmp_path).read() is None


def test_runs_without_a_result_are_counted_and_the_first_is_named(tmp_path):
    write(tmp_path, result())
    for name in ("0", "20", "3"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "config.yaml").write_text("seed: 0")
    assert SweepFolder(tmp_path).unfinished() == [tmp_path / "3", tmp_path / "20"]
    assert f"2 more without a result: running, or killed ({tmp_path / '3'})" in said(tmp_path)[0]


# the page


def test_failed_and_interrupted_runs_are_listed_with_their_reason(tmp_path):
    write(
        tmp_path,
        result(),
        result(seed=1, status="failed", reason="DataError: no rows."),
        result("knn", seed=2, status="interrupted"),
    )
    out, table = said(tmp_path)
    assert f"failed: {tmp_path / '1'} (vae on digits, seed 1) DataError: no rows." in out
    assert f"interrupted: {tmp_path / '2'} (knn on digits, seed 2)" in out
    assert [row.detector for row in table] == ["vae"]


def test_a_sweep_in_which_every_run_failed_has_a_table_of_failures(tmp_path):
    out, table = said(write(tmp_path, result(status="failed", reason="boom")))
    assert table == [] and "boom" in out
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["data"], row["detector"], row["seeds"]) == ("digits", "vae", "0") and row["auroc_mean"] == ""
    assert (row["status"], row["reason"], row["folder"]) == ("failed", "boom", "0")
    assert (tmp_path / "runs.parquet").is_file() and not list(tmp_path.glob("*.png"))


def test_page_shows_mean_and_range_and_explains_what_is_not_resolvable(tmp_path):
    write(tmp_path, result(seed=0, auroc=0.5, above=9), result(seed=1, auroc=0.75, above=9))
    out, _ = said(tmp_path)
    assert "0.6250" in out and "0.5000-0.7500" in out
    assert "n.r." in out and "fewer than ten nominal rows" in out
    assert "n.r." not in said(write(tmp_path / "other", result(above=100)))[0]


@pytest.mark.parametrize("text", ["[red]", "[/nothing]", "[pt,eta]", "[abc123]"])
def test_brackets_in_names_and_reasons_are_printed_as_they_are(tmp_path, text):
    made = [result(overrides=[f"data.columns={text}"]), result(auroc=0.8)]
    out, _ = said(write(tmp_path, *made, result(seed=5, status="failed", reason=f"KeyError: {text}")))
    assert f"vae data.columns={text}" in out and f"KeyError: {text}" in out


def test_page_of_one_run_shows_its_numbers_its_kinds_and_its_command(tmp_path, capsys):
    values = result(above=50)
    values["metrics"] |= {"test/auroc/3": 0.1234, "test/ap/3": 0.5678, "test/tpr@fpr=0.1/3": 0.25}
    (tmp_path / "result.json").write_text(json.dumps(values | {"command": "straylight train data.columns=[pt,eta]"}))
    report_main([str(tmp_path)])
    out = capsys.readouterr().out
    cells = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    timed = {line.split()[1]: line.split()[2:] for line in out.splitlines() if line.startswith("eager")}
    assert cells["all"] == ["anomalies", "0.9000", "0.4500", "0.3000", "n.r."]
    assert cells["3"][:3] == ["0.1234", "0.5678", "0.2500"]
    assert timed["1,024"] == ["1,000", "200", "300", "100,000"]
    assert "command: straylight train data.columns=[pt,eta]" in out


def test_page_of_a_failed_run_says_why(tmp_path, capsys):
    failed = result(status="failed", reason="DataError: [/x] no rows.", metrics={}, latency=[])
    (tmp_path / "result.json").write_text(json.dumps(failed))
    report_main([str(tmp_path)])
    assert "DataError: [/x] no rows." in capsys.readouterr().out


@pytest.mark.parametrize("name, reason", [("nowhere", "there is no folder"), ("", "no result.json")])
def test_a_folder_without_runs_exits_with_one_and_a_sentence(tmp_path, capsys, name, reason):
    with pytest.raises(SystemExit) as end:
        report_main([str(tmp_path / name)])
    out, err = capsys.readouterr()
    assert end.value.code == 1 and out == ""
    assert reason in err and str(tmp_path) in err and err.startswith("Error: ") and err.count("\n") == 1


# leaderboard.csv


def test_csv_holds_mean_least_and_largest_of_every_number(tmp_path):
    made = [result(seed=0, auroc=0.5, above=9), result(seed=1, auroc=0.75), result("knn", auroc=0.9, latency=[])]
    write_csv(rows(made), made, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        knn, vae = csv.DictReader(file)
    assert (vae["data"], vae["detector"], vae["seeds"]) == ("digits", "vae", "2")
    assert [float(vae[f"auroc_{part}"]) for part in ("mean", "min", "max")] == [0.625, 0.5, 0.75]
    assert {vae[f"tpr@fpr=0.1_{part}"] for part in ("mean", "min", "max")} == {""}
    assert vae["tpr@fpr=0.1_resolvable"] == "false" and knn["tpr@fpr=0.1_resolvable"] == "true"
    assert float(knn["tpr@fpr=0.1_mean"]) == 0.9 / 3  # every digit is kept
    assert knn["p50_us_mean"] == knn["p50_us_max"] == "" and knn["detector"] == "knn"
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_every_number_of_the_csv_is_read_as_one_and_what_is_missing_is_null(tmp_path):
    from pyarrow import csv as arrow
    from pyarrow import types

    made = [result(seed=s, auroc=0.5 + s / 10, above=9 if s else 99) for s in (0, 1, 2)]
    made += [
        result("knn", latency=[]),
        result("pca", status="failed", reason='it, "broke"', folder=str(tmp_path / "7")),
    ]
    write_csv(rows(made), made, tmp_path / "t.csv")
    words = {"data", "detector", "status", "reason", "overrides", "folder", "p50_us_runtime", "events_per_s_runtime"}
    true_or_false = {"shared", "truth", *(f"{name}_resolvable" for name in POINTS)}
    table = arrow.read_csv(tmp_path / "t.csv", convert_options=arrow.ConvertOptions(strings_can_be_null=True))
    assert table.column_names == list(COLUMNS)
    for field in table.schema:
        if field.name in true_or_false:
            assert types.is_boolean(field.type)
        elif field.name not in words:
            assert types.is_floating(field.type) or types.is_integer(field.type) or types.is_null(field.type), field
    assert table["tpr@fpr=0.1_mean"].to_pylist() == [0.3, None, None]
    assert table["tpr@fpr=0.1_resolvable"].to_pylist() == [True, False, None]
    low, mean, high = (table[f"auroc_{part}"].to_pylist()[1] for part in ("low", "mean", "high"))
    assert low < mean < high and table["auroc_low"].to_pylist()[0] is None
    assert table["detector"].to_pylist() == ["knn", "vae", "pca"]


@pytest.mark.parametrize("content", ["{", '{"metrics": {}}', "null"])
def test_a_run_that_failed_is_of_its_detector_whatever_its_record_says(tmp_path, content):
    write(tmp_path, result(status="failed", reason="boom", overrides=["detector.latent=3"]))
    (tmp_path / "1" / ".hydra").mkdir(parents=True)
    (tmp_path / "1" / "result.json").write_text(content)
    (tmp_path / "1" / ".hydra" / "hydra.yaml").write_text(
        "hydra: {runtime: {choices: {detector: knn, data: moons, hydra/help: default}}}"
    )
    out, _ = said(tmp_path)
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        known, broken = csv.DictReader(file)
    assert (known["detector"], broken["detector"], broken["data"]) == ("vae", "knn", "moons")
    assert "detector.latent=3" in known["overrides"] and "(knn on moons" in out


# runtimes


def in_runtimes(name, seed=0, others=False, **times):
    """A result timed in these runtimes, each microseconds a batch of one and of 1,024."""
    latency = [
        {"runtime": runtime, "batch": batch, "scaling": True, "p50_us": p50, "events_per_s": batch / p50 * 1e6}
        for runtime, both in times.items()
        for batch, p50 in zip((1, 1024), both, strict=True)
    ]
    return result(name, seed=seed, latency=latency, cost={"shared": {"others": others}})


@pytest.mark.parametrize(
    ("runtime", "p50", "per_s"),
    [
        ("best", ("onnx", 42.0), ("eager", 1e6)),
        ("eager", ("eager", 219.0), ("eager", 1e6)),
        ("onnx", ("onnx", 42.0), ("onnx", 1024 / 9000 * 1e6)),
        ("compile", ("", None), ("", None)),
    ],
)
def test_times_are_those_of_the_fastest_runtime_or_of_the_one_asked_for(runtime, p50, per_s):
    (row,) = rows([in_runtimes("pca", eager=(219.0, 1024.0), onnx=(42.0, 9000.0))], runtime)
    for key, (name, value) in (("p50_us", p50), ("events_per_s", per_s)):
        assert row.runtimes.get(key, "") == name
        assert row.numbers[key].mean == (value if value is None else pytest.approx(value))


def test_a_runtime_that_one_of_the_seeds_lacks_or_that_scores_otherwise_is_not_the_best():
    both = [in_runtimes("pca", 0, eager=(9.0, 9.0), onnx=(1.0, 1.0)), in_runtimes("pca", 1, eager=(7.0, 7.0))]
    (row,) = rows(both)
    assert row.runtimes["p50_us"] == "eager" and row.numbers["p50_us"] == (8.0, 7.0, 9.0)
    wrong = in_runtimes("vae", eager=(9.0, 9.0), compiled=(1.0, 1.0))
    for entry in wrong["latency"]:
        entry["agrees"] = entry["runtime"] == "eager"
    assert rows([wrong])[0].runtimes["p50_us"] == "eager"
    assert rows([wrong], "compile")[0].numbers["p50_us"].mean == 1.0  # as asked


def test_the_runtime_is_named_and_times_beside_others_are_marked_in_table_and_csv(tmp_path, capsys):
    made = [
        in_runtimes("pca", eager=(219.0, 500.0), onnx=(42.0, 9000.0), others=True),
        in_runtimes("knn", eager=(67.0, 67.0)),
    ]
    write(tmp_path, *made)
    report_main([str(tmp_path)])
    out = capsys.readouterr().out
    assert "~42" in out and "~67" not in out and "67" in out and "~219" not in out
    assert "onnx" in out and "eager" in out and "~: taken while others used the machine" in out
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        found = {row["detector"]: row for row in csv.DictReader(file)}
    assert (found["pca"]["p50_us_runtime"], found["pca"]["shared"]) == ("onnx", "true")
    assert (found["knn"]["p50_us_runtime"], found["knn"]["shared"]) == ("eager", "false")
    report_main([str(tmp_path), "--runtime", "eager"])
    out = capsys.readouterr().out
    assert "~219" in out and "onnx" not in out


def test_the_figure_names_the_runtime_and_hollows_what_was_timed_beside_others():
    made = [
        in_runtimes("pca", eager=(219.0, 500.0), onnx=(42.0, 9000.0), others=True),
        in_runtimes("knn", eager=(67.0, 67.0)),
    ]
    figure = pareto(rows(made))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "knn (eager)",
        "pca (onnx)",
        "hollow: taken while\nothers used the machine",
    ]
    hollow = {c.lines[0].get_xydata()[0][0]: c.lines[0].get_markerfacecolor() for c in figure.axes[0].containers}
    assert hollow[42.0] == "white" and hollow[67.0] != "white"


def test_a_second_report_writes_the_same_bytes(tmp_path):
    write(tmp_path, *(result(d, data, s) for d in ("vae", "knn") for data in ("a", "b") for s in (0, 1)))
    said(tmp_path)
    first = (tmp_path / "leaderboard.csv").read_bytes()
    out, _ = said(tmp_path)
    assert (tmp_path / "leaderboard.csv").read_bytes() == first
    assert (
        f"Written to {tmp_path}: leaderboard.csv, runs.parquet, pareto.png, heat_map.png, ranks.png, seeds.png" in out
    )
    pictures = ["heat_map.png", "pareto.png", "ranks.png", "seeds.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == sorted(
        ["leaderboard.csv", "runs.parquet", *pictures]
    )


# pareto.png


def made_for(detectors, sets):
    """Better the slower, but for every third, which is beaten; three seeds that differ."""
    return [
        result(f"d{i}", data, seed, auroc=0.6 + 0.03 * i - 0.2 * (i % 3 == 2) + 0.01 * seed, p50=10.0 * 2**i + seed)
        for i in range(detectors)
        for data in sets
        for seed in (0, 1, 2)
    ]


def drawn(axis):
    """Each point of a panel, with its bars, colour and marker, by its place."""
    points = {}
    for container in axis.containers:
        line, _, bars = container.lines
        ((x, y),) = line.get_xydata().tolist()
        across, along = (bar.get_xydata().tolist() for bar in bars)
        points[x, y] = (across[0][0], across[1][0], along[0][1], along[1][1], line.get_color(), line.get_marker())
    return points


@pytest.mark.parametrize("sets", [["a"], ["a", "b", "c"], ["a", "b", "c", "d"]], ids=len)
@pytest.mark.parametrize("detectors", [1, 10])
def test_figure_shows_every_detector_in_a_panel_for_each_data_set(detectors, sets):
    table = rows(made_for(detectors, sets))
    figure = pareto(table)
    panels = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in panels] == sets
    for axis in panels:
        assert (axis.get_xscale(), axis.get_yscale()) == ("log", "linear")
        assert axis.get_xlabel() == "median latency of one event (µs, eager)" and axis.get_ylabel() == "AUROC"
        points = drawn(axis)
        expected = {(r.numbers["p50_us"].mean, r.numbers["auroc"].mean): r for r in table if r.data == axis.get_title()}
        assert set(points) == set(expected)
        for place, row in expected.items():
            bars = (*row.numbers["p50_us"][1:], *row.numbers["auroc"][1:])
            assert points[place][:4] == pytest.approx(bars)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == sorted(f"d{i}" for i in range(detectors))


def test_a_detector_looks_the_same_in_every_panel_and_unlike_the_others():
    table = rows([r for r in made_for(10, ["a", "b"]) if (r["detector"], r["data"]) != ("d0", "b")])
    looks = {"a": {}, "b": {}}
    for axis in pareto(table).axes:
        points = drawn(axis)
        for row in table:
            if row.data == axis.get_title():
                looks[row.data][row.detector] = points[row.numbers["p50_us"].mean, row.numbers["auroc"].mean][4:]
    assert len(set(looks["a"].values())) == 10
    assert looks["b"] == {name: look for name, look in looks["a"].items() if name != "d0"}


def test_front_runs_through_the_points_that_none_beats():
    table = rows(made_for(6, ["a"]))
    (axis,) = pareto(table).axes
    (front,) = [line for line in axis.lines if line.get_drawstyle() == "steps-post"]
    places = {row.detector: (row.numbers["p50_us"].mean, row.numbers["auroc"].mean) for row in table}
    corners = [tuple(xy) for xy in front.get_xydata().tolist()]
    assert corners[:-1] == [places[name] for name in ("d0", "d1", "d3", "d4")]
    assert corners[-1] == (places["d5"][0], places["d4"][1])  # on to the slowest at the best AUROC


def test_what_was_not_timed_is_not_drawn():
    figure = pareto(rows([result("knn"), result("vae", latency=[])]))
    assert len(drawn(figure.axes[0])) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["knn"]
    assert not [axis for axis in pareto([]).axes if axis.get_visible()]


# without torch


def test_report_is_made_without_torch_or_lightning(tmp_path):
    write(tmp_path, result(), result("knn"))
    code = (
        "import sys; from straylight.commands.report import main; early = set(sys.modules); main(sys.argv[1:]);"
        "heavy = {'torch', 'pytorch_lightning', 'lightning'};"
        "assert not heavy & early and not heavy & set(sys.modules) and 'matplotlib' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "leaderboard.csv").is_file()


def test_a_program_reads_what_a_report_says(tmp_path, capsys):
    for seed in (0, 1):
        written = {**result(seed=seed), "folder": str(tmp_path / str(seed))}
        RunFolder(tmp_path / str(seed)).write_result(written)
    report_main([str(tmp_path), "--json"])
    told = json.loads(capsys.readouterr().out)
    (row,) = told["leaderboard"]
    assert row["detector"] == "vae" and row["seeds"] == 2 and row["numbers"]["auroc"]["mean"] == pytest.approx(0.9)
    assert [run["seed"] for run in told["runs"]] == [0, 1] and (tmp_path / "leaderboard.csv").is_file()
    report_main([str(tmp_path / "1"), "--json"])
    assert json.loads(capsys.readouterr().out)["seed"] == 1


def test_what_nobody_can_write_again_costs_no_other_run_its_report(tmp_path):
    write(tmp_path, result(), result("knn", auroc=float("nan")), result("pca", duration_s=10**400))
    odd = tmp_path / os.fsdecode(b"half-\xff")
    odd.mkdir()
    (odd / "result.json").write_text(json.dumps(result("mom") | {"detector": "m\ud83d", "status": "failed"}))
    _, table = said(tmp_path)
    assert [(row.detector, row.numbers["auroc"].mean) for row in table] == [("vae", 0.9), ("knn", None)]
    assert "m\ufffd" in (tmp_path / "leaderboard.csv").read_text(encoding="utf-8")
    reasons = {run["detector"]: run["reason"] for run in SweepFolder(tmp_path).results()}
    assert "duration_s must be a number" in reasons["pca"] and reasons["knn"] is None
