"""Figures of a sweep, from run folders that are made up."""

import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib import image
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from given import rendered
from straylight.folder import SweepFolder
from straylight.report import compared, figures
from straylight.report.figures.comparison import CURVE, curve
from straylight.report.figures.style import look, series
from straylight.report.leaderboard import grouped, rows
from test_report import result


def runs(metrics, seeds=1, **more):
    return [{"metrics": metrics, "seed": seed, **more} for seed in range(seeds)]


def shown(figure):
    return [axis for axis in figure.axes if axis.get_visible()]


# ROC overlay


def test_a_curve_is_that_of_scikit_learn_at_every_rate() -> None:
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 4000)
    scores = random.normal(size=4000) + y
    found = curve(scores, y)
    false, true, _ = roc_curve(y, scores, drop_intermediate=False)
    # a curve of steps: the TPR of the largest threshold whose FPR is not yet above
    expected = [true[false <= rate * (1 + 1e-12)].max() for rate in CURVE]
    assert np.allclose(found.tpr, expected, atol=1e-12)
    assert found.least == 10 / (y == 0).sum()
    assert curve([1.0, 2.0], [0, 0]) is None


def test_the_overlay_draws_the_mean_and_the_range_over_seeds() -> None:
    random = np.random.default_rng(0)
    y = np.repeat([0, 1], [900, 100])
    curves = [curve(random.normal(size=1000) + y * shift, y) for shift in (1, 2, 3)]
    figure = rendered(figures.roc_overlay({"digits": {"knn": curves, "pca": curves[:1]}, "none": {}}))
    (axis,) = shown(figure)
    at = CURVE >= 10 / 900
    assert axis.get_xlim() == (10 / 900, 1) and axis.get_xscale() == "log" and axis.get_title() == "digits"
    knn, pca = (next(line for line in axis.lines if line.get_label() == name) for name in ("knn", "pca"))
    assert np.allclose(knn.get_ydata(), np.mean([c.tpr for c in curves], axis=0)[at])
    assert np.allclose(pca.get_ydata(), curves[0].tpr[at])
    (band,) = axis.collections
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    assert low == min(c.tpr[at].min() for c in curves) and high == 1
    assert knn.get_color() == series(0, "").colour and pca.get_color() == series(1, "").colour
    assert figures.roc_overlay({}) is None


def test_a_detector_looks_the_same_in_every_panel_and_is_named_once() -> None:
    one = curve(range(100), [0] * 50 + [1] * 50)
    figure = rendered(figures.roc_overlay({"a": {"pca": [one]}, "b": {"knn": [one], "pca": [one]}}))
    first, second = shown(figure)
    colours = [
        {line.get_label(): line.get_color() for line in axis.lines if line.get_label() == "pca"}
        for axis in (first, second)
    ]
    assert colours[0] == colours[1]
    assert sorted(t.get_text() for t in figure.legends[0].get_texts()) == ["knn", "pca"]


def test_ten_detectors_of_long_names_on_twelve_data_sets_fit() -> None:
    one = curve(range(100), [0] * 50 + [1] * 50)
    names = [f"detector of twenty-five {i}" for i in range(10)]
    sets = [f"data set number {i:02}" for i in range(14)]
    figure = rendered(figures.roc_overlay({data: {name: [one] for name in names} for data in sets}))
    assert len(shown(figure)) == 12 and figure.get_suptitle() == "the first 12 of 14 data sets"
    groups = {
        (d, n): runs({"test/auroc": 0.9, "test/auroc/A": 0.8, "test/auroc/B": 0.9}, 2) for d in sets for n in names
    }
    rendered(figures.heat_map(groups))
    assert len(shown(rendered(figures.seeds(groups)))) == 12
    rendered(figures.kind_bars(groups))


# heat map


def test_the_heat_map_holds_means_in_the_order_of_detectors() -> None:
    groups = {
        ("a", "knn"): [*runs({"test/auroc": 0.7}), *runs({"test/auroc": 0.9})],
        ("a", "pca"): runs({"test/auroc": 0.95}),
        ("b", "knn"): runs({"test/auroc": 0.6}),
        ("b", "pca"): runs({"test/auroc": 0.9}),
        ("c", "pca"): runs({"test/auroc": 0.4}),
        ("d", "pca"): runs({}),
    }
    axis = rendered(figures.heat_map(groups)).axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["pca", "knn"]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["a", "b", "c"]
    assert [t.get_text() for t in axis.texts] == ["0.950", "0.800", "0.900", "0.600", "0.400", "–"]
    assert axis.images[0].get_clim() == (0.4, 1)
    assert figures.heat_map({("a", "knn"): runs({"test/auroc": 0.7})}) is None


# seeds


def test_every_seed_is_a_point_and_the_best_detector_stands_on_top() -> None:
    groups = {
        ("a", "knn"): [{"metrics": {"test/auroc": v}} for v in (0.7, 0.8, 0.9)],
        ("a", "pca"): [{"metrics": {"test/auroc": v}} for v in (0.95, None)],
    }
    (axis,) = shown(rendered(figures.seeds(groups)))
    assert [t.get_text() for t in axis.get_yticklabels()] == ["pca", "knn"]
    points = {tuple(line.get_xdata()): set(line.get_ydata()) for line in axis.lines if line.get_marker() != "None"}
    assert points == {(0.95,): {0}, (0.7, 0.8, 0.9): {1}}
    means = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "None"]
    assert means == pytest.approx([0.95, 0.8])
    assert axis.get_ylim() == (1.5, -0.5)
    assert figures.seeds({("a", "knn"): runs({"test/auroc": 0.7})}) is None


# kinds


def test_bars_of_kinds_are_means_with_the_range_of_seeds() -> None:
    groups = {
        ("a", "knn"): [{"metrics": {"test/auroc": 0.9, "test/auroc/A": v, "test/auroc/B": 0.6}} for v in (0.7, 0.9)],
        ("a", "pca"): runs({"test/auroc": 0.9, "test/auroc/B": 0.95}),
        ("b", "pca"): runs({"test/auroc": 0.9}),
    }
    (axis,) = shown(rendered(figures.kind_bars(groups)))
    assert axis.get_title() == "a" and axis.get_ylim() == (0.5, 1)  # from chance
    assert [t.get_text() for t in axis.get_xticklabels()] == ["pca", "knn"]
    bar_groups = [container for container in axis.containers if hasattr(container, "patches")]
    heights = {bars.get_label(): [p.get_y() + p.get_height() for p in bars] for bars in bar_groups}
    assert {k: sorted(v) for k, v in heights.items()} == {"B": pytest.approx([0.6, 0.95]), "A": pytest.approx([0.8])}
    colours = {bars.get_label(): bars.patches[0].get_facecolor() for bars in bar_groups}
    from matplotlib.colors import to_rgba

    assert set(colours.values()) == {to_rgba(look(1).colour), to_rgba(look(2).colour)}
    arms = [segment[:, 1] for c in axis.collections for segment in c.get_segments() if np.ptp(segment[:, 1]) > 0]
    assert len(arms) == 1 and arms[0] == pytest.approx([0.7, 0.9])
    assert figures.kind_bars({("b", "pca"): runs({"test/auroc": 0.9})}) is None


# contamination


def test_contamination_joins_runs_that_differ_in_it_alone() -> None:
    made = [
        result("knn", "blobs", seed, auroc=0.9 - fraction + 0.01 * seed, contamination=fraction)
        | {"overrides": ["detector=knn", "data=blobs", f"data.contamination={fraction}", f"seed={seed}"]}
        | {"variant": str(fraction)}
        for fraction in (0.0, 0.05, 0.2)
        for seed in (0, 1)
    ]
    made.append(result("pca", "blobs", contamination=0.0))
    groups = grouped(made)
    (axis,) = shown(rendered(figures.by_contamination(groups)))
    knn = next(line for line in axis.lines if line.get_label() == "knn")
    assert np.allclose(knn.get_data(), [[0, 5, 20], [0.905, 0.855, 0.705]])
    assert axis.get_xlabel() == "anomalies in training (%)"
    assert figures.by_contamination(grouped(made[-1:])) is None


# both rows of the Pareto figure


def test_the_second_row_of_the_pareto_figure_is_tpr_at_a_thousandth_where_it_is_resolved() -> None:
    resolved = {"test/tpr@fpr=0.001": 0.4, "test/nominal_above@fpr=0.001": 20}
    made = [result("knn", "a"), result("knn", "b")]
    made[1]["metrics"] |= resolved
    axes = shown(rendered(figures.pareto(rows(made))))
    assert [(axis.get_title(), axis.get_ylabel()) for axis in axes] == [
        ("a", "AUROC"),
        ("b", "AUROC"),
        ("b", "TPR at FPR 1e-3"),
    ]
    assert axes[2].containers[0].lines[0].get_ydata()[0] == 0.4


def test_the_pareto_figure_names_those_that_are_in_it_where_there_are_more_data_sets_than_panels() -> None:
    made = [result("knn", f"set {i:02}") for i in range(13)] + [result("pca", "set 12")]
    figure = rendered(figures.pareto(rows(made)))
    assert len(shown(figure)) == 12 and [text.get_text() for text in figure.legends[0].get_texts()] == ["knn"]
    assert figure.get_suptitle() == "the first 12 of 13 data sets"


# files


def folder_of(root, name, seed, scores=True, **more):
    folder = root / f"{name}-{seed}"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result(name, "digits", seed, **more)))
    if scores:
        y = np.repeat([0, 1], 50)
        table = pa.table({"score": np.random.default_rng(seed).normal(size=100) + y, "y": y})
        pq.write_table(table, folder / "scores.parquet")


def test_a_sweep_leaves_the_pictures_that_apply_and_none_of_before(tmp_path) -> None:
    folder_of(tmp_path, "knn", 0)
    (tmp_path / "contamination.png").write_bytes(b"of an earlier sweep")
    found = SweepFolder(tmp_path).results()
    assert compared.draw(found, rows(found), tmp_path) == ["pareto.png", "roc.png"]
    assert sorted(p.name for p in tmp_path.glob("*")) == ["knn-0", "pareto.png", "roc.png"]


def test_a_picture_that_fails_is_said_and_the_others_are_drawn(tmp_path, monkeypatch, capsys) -> None:
    def fails(groups, table):
        raise RuntimeError("no such\ncurve")

    folder_of(tmp_path, "knn", 0)
    folder_of(tmp_path, "knn", 1)
    (tmp_path / "roc.png").write_bytes(b"of an earlier sweep")
    monkeypatch.setitem(compared.PICTURES, "roc.png", compared.PICTURES["roc.png"]._replace(figure=fails))
    found = SweepFolder(tmp_path).results()
    assert compared.draw(found, rows(found), tmp_path) == ["pareto.png", "seeds.png"]
    assert "roc.png was not drawn: RuntimeError: no such curve" in capsys.readouterr().err
    assert not (tmp_path / "roc.png").exists()


def test_a_picture_of_what_runs_say_now_is_left_and_another_is_drawn_anew(tmp_path) -> None:
    for seed in (0, 1):
        folder_of(tmp_path, "knn", seed)

    def drawn_again():
        """Which pictures are others than before."""
        found = SweepFolder(tmp_path).results()
        before = {path.name: path.stat().st_ino for path in tmp_path.glob("*.png")}
        assert compared.draw(found, rows(found), tmp_path) == ["pareto.png", "roc.png", "seeds.png"]
        after = {path.name: path.stat().st_ino for path in tmp_path.glob("*.png")}
        return {name for name in after if after[name] != before.get(name)}

    every = {"pareto.png", "roc.png", "seeds.png"}
    assert drawn_again() == every and drawn_again() == set()
    record = json.loads((tmp_path / "knn-0" / "result.json").read_text())
    record["metrics"]["test/auroc"] = 0.123456
    (tmp_path / "knn-0" / "result.json").write_text(json.dumps(record))
    assert drawn_again() == every
    (tmp_path / "seeds.png").write_bytes(b"no picture")
    assert drawn_again() == {"seeds.png"}
    os.utime(tmp_path / "knn-1" / "scores.parquet", ns=(1, 1))
    assert drawn_again() == every
    found, shown = SweepFolder(tmp_path).results(), []
    compared.draw(found, rows(found), tmp_path, lambda name, figure: shown.append(name))
    assert set(shown) == every  # who asks for figures gets them, drawn before or not


@pytest.mark.parametrize("damaged", [True, False])
def test_scores_that_cannot_be_read_are_named_and_cost_no_other_run_its_curve(tmp_path, capsys, damaged) -> None:
    for seed in (0, 1):
        folder_of(tmp_path, "knn", seed)
    path = tmp_path / "knn-1" / "scores.parquet"
    if damaged:
        path.write_bytes(b"damaged")
    else:
        pq.write_table(pa.table({"score": [1.0, 2.0]}), path)  # of nobody knows what
    found = SweepFolder(tmp_path).results()
    shown = {}
    assert compared.draw(found, rows(found), tmp_path, shown.__setitem__) == ["pareto.png", "roc.png", "seeds.png"]
    assert list(shown) == ["pareto.png", "roc.png", "seeds.png"]
    assert f"{path} cannot be read" in capsys.readouterr().err
    (line,) = (line for line in shown["roc.png"].axes[0].lines if line.get_label() == "knn")
    assert len(line.get_xdata()) and not shown["roc.png"].axes[0].collections  # of one run there is no range


@pytest.mark.parametrize("name", ["$x", "$\\frac{$", "a$b$c", "_hidden", "x_{i}^$"])
def test_names_are_shown_as_they_are_and_begin_no_formula(tmp_path, capsys, name) -> None:
    for data in ("digits", "moons"):
        for seed in (0, 1):
            folder = tmp_path / f"{data}-{seed}"
            folder.mkdir()
            metrics = {f"test/auroc/{name}": 0.9, "test/auroc/B": 0.8, "test/auroc": 0.85}
            record = result(name, data + name, seed)
            record["metrics"] |= metrics
            other = result("pca", data + name, seed)
            (folder / "result.json").write_text(json.dumps(record))
            (tmp_path / f"other-{data}-{seed}").mkdir()
            (tmp_path / f"other-{data}-{seed}" / "result.json").write_text(json.dumps(other))
    found = SweepFolder(tmp_path).results()
    drawn = compared.draw(found, rows(found), tmp_path)
    assert drawn == ["pareto.png", "heat_map.png", "ranks.png", "seeds.png", "kinds.png"], capsys.readouterr().err


def test_a_figure_that_was_drawn_stays_in_its_place_when_it_is_drawn_again(tmp_path) -> None:
    for seed in (0, 1):
        folder_of(tmp_path, "knn", seed)
        folder_of(tmp_path, "pca", seed)
    found = SweepFolder(tmp_path).results()
    shown: dict[str, Figure] = {}
    names = compared.draw(found, rows(found), tmp_path, shown.__setitem__)
    for name in names:
        again = io.BytesIO()
        shown[name].savefig(again, dpi=compared.DPI)
        again.seek(0)
        assert np.array_equal(image.imread(again), image.imread(tmp_path / name)), name


def test_runs_without_scores_have_no_roc_curves(tmp_path) -> None:
    folder_of(tmp_path, "knn", 0, scores=False)
    found = SweepFolder(tmp_path).results()
    assert compared.draw(found, rows(found), tmp_path) == ["pareto.png"]
