"""Figures of a search for an over-density, against other ways to compute what they show."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.colors import to_hex
from scipy import stats

from given import rendered
from straylight.callbacks.drawings import DRAWINGS
from straylight.callbacks.material import Material
from straylight.callbacks.scored import Scores
from straylight.folder import SweepFolder
from straylight.metrics.ranking import Ranked
from straylight.report import compared, figures
from straylight.report.choice import each
from straylight.report.figures.improvement import TPRS
from straylight.report.figures.score_plane import differing
from straylight.report.figures.significances import z_of
from straylight.report.figures.spectrum import poisson
from straylight.report.figures.style import series
from straylight.report.leaderboard import grouped, rows
from test_figures_axes import check
from test_report import result

RESONANCE = {"name": "m [TeV]", "column": 0, "low": 3.3, "high": 3.7}
EDGES = np.concatenate([np.linspace(3, 3.3, 7)[:-1], np.linspace(3.3, 3.7, 11)[:-1], np.linspace(3.7, 4.5, 17)])
OPTIMUM = {"tpr": [0.1, 0.5, 1.0], "sic": [None, 12.25, 1.0]}


def cut(efficiency=1.0, events=20_000, edges=EDGES, steep=1.0, **more):
    """What a record says of a cut: of m ~ exp(-steep m), fitted exactly."""
    edges = np.asarray(edges)
    law = -np.diff(np.exp(-steep * edges))
    fit = events * efficiency * law / law.sum()
    counts = np.random.default_rng(1).poisson(fit)
    inside = (edges[:-1] >= 3.3 - 1e-9) & (edges[1:] <= 3.7 + 1e-9)
    return {
        "efficiency": efficiency,
        "kept": int(counts.sum()),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "fit": fit.tolist(),
        "fit_error": (0.1 * np.sqrt(fit)).tolist(),
        "observed": int(counts[inside].sum()),
        "expected": float(fit[inside].sum()),
        "uncertainty": 12.0,
        "p": 0.3,
        "z": 0.5,
        "function": "exp2",
        "chi2": 20.0,
        "dof": 21,
        **more,
    }


def panels_of(figure):
    return [axis for axis in figure.axes if axis.get_visible()]


def texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def line_of(axis, name):
    return next(line for line in axis.lines if line.get_label().startswith(name))


# the spectrum


@pytest.mark.parametrize("n", [0, 1, 3, 10, 500])
def test_intervals_of_counts_are_those_of_poissons_law(n) -> None:
    below, above = poisson([n])
    tail = stats.norm.sf(1)
    assert stats.poisson.cdf(n, n + above[0]) == pytest.approx(tail, rel=1e-4)
    if n:
        assert stats.poisson.sf(n - 1, n - below[0]) == pytest.approx(tail, rel=1e-4)
    else:
        assert below[0] == 0


def test_a_spectrum_shows_counts_fit_region_and_pulls_of_each_cut() -> None:
    cuts = [cut(e) for e in (1.0, 0.1, 0.01, 0.001)]
    figure = rendered(figures.spectrum(cuts, RESONANCE, "a note"))
    check(figure)
    axes = panels_of(figure)
    assert len(axes) == 8 and figure.get_suptitle() == "a note"
    # two rows of two cuts, the pulls below each
    for one, upper, lower in zip(cuts, np.array(axes)[[0, 1, 4, 5]], np.array(axes)[[2, 3, 6, 7]], strict=True):
        counts, fit, widths = (np.array(one["counts"]), np.array(one["fit"]), np.diff(EDGES))
        unit = np.median(widths) / widths  # bins of the region are narrower
        points = upper.containers[0].lines[0].get_data()
        assert np.allclose(points[0], (EDGES[1:] + EDGES[:-1]) / 2) and np.allclose(points[1], counts * unit)
        drawn = next(s for s in upper.patches if s.get_label() == "fit to the sidebands")
        assert np.allclose(drawn.get_data().values, fit * unit) and np.allclose(drawn.get_data().edges, EDGES)
        assert np.allclose(lower.containers[0].lines[0].get_ydata(), (counts - fit) / np.sqrt(fit))
        shade = next(p for p in upper.patches if p.get_label() == "signal region")
        assert (shade.get_x(), shade.get_x() + shade.get_width()) == pytest.approx((3.3, 3.7))
        assert f"{one['observed']:,} observed" in upper.get_title() and "z = 0.50" in upper.get_title()
        assert upper.get_xlim() == lower.get_xlim() == (3.0, 4.5)
    assert axes[0].get_ylabel() == "events per 0.05 of m [TeV]" and axes[2].get_xlabel() == "m [TeV]"
    assert axes[0].get_title().startswith("all events: ") and axes[1].get_title().startswith("cut at 10 %: ")
    assert set(texts(figure)) == {"signal region", "fit to the sidebands", "its uncertainty", "counts"}


def test_bins_of_one_width_are_counted_as_they_are() -> None:
    axis = rendered(figures.spectrum([cut(edges=np.linspace(3, 4.5, 16))], RESONANCE)).axes[0]
    assert axis.get_ylabel() == "events in a bin" and axis.get_yscale() == "linear" and axis.get_ylim()[0] == 0


def test_a_steep_spectrum_has_a_logarithmic_axis_that_holds_every_point() -> None:
    one = cut(steep=6.0)
    figure = rendered(figures.spectrum([one], RESONANCE))
    check(figure)
    axis = figure.axes[0]
    scaled = np.array(one["counts"]) * np.median(np.diff(EDGES)) / np.diff(EDGES)
    low, high = axis.get_ylim()
    assert axis.get_yscale() == "log" and low < scaled[scaled > 0].min() and scaled.max() < high


def test_a_spectrum_of_few_events_is_not_logarithmic() -> None:
    figure = rendered(figures.spectrum([cut(steep=6.0, events=40)], RESONANCE))
    check(figure)
    assert figure.axes[0].get_yscale() == "linear"


def test_a_cut_without_a_fit_says_why_and_shows_what_there_is() -> None:
    said = "The fit of exp2 to the sidebands did not converge: take wider bins."
    bare = {"efficiency": 0.001, "failed": said}
    counted = {name: value for name, value in cut(0.01).items() if name in ("efficiency", "edges", "counts")} | bare
    figure = rendered(figures.spectrum([cut(), bare, counted], RESONANCE))
    check(figure)
    written = [" ".join(t.get_text().split()) for axis in panels_of(figure) for t in axis.texts]
    assert written.count(said) == 2
    titled = {axis.get_title(): axis for axis in panels_of(figure) if axis.get_title()}
    assert "cut at 0.1 %" in titled and len(panels_of(figure)) == 4  # neither has pulls
    points = [len(axis.containers[0].lines[0].get_xdata()) for axis in panels_of(figure) if axis.containers]
    assert points.count(len(EDGES) - 1) == 3
    assert figures.spectrum([], RESONANCE) is None and figures.spectrum([{"efficiency": 1.0}], RESONANCE) is None


def test_empty_bins_and_a_huge_bump_are_drawn() -> None:
    one = cut(0.001, counts=[0] * (len(EDGES) - 1))
    check(rendered(figures.spectrum([one], RESONANCE)))
    counts = np.array(cut()["counts"])
    counts[9] *= 30
    figure = rendered(figures.spectrum([cut(counts=counts.tolist())], RESONANCE))
    low, high = figure.axes[1].get_ylim()
    pulls = figure.axes[1].containers[0].lines[0].get_ydata()
    assert low < pulls.min() and pulls.max() < high and low > -10


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"counts": [1.0]}, "32 bins need as many counts"),
        ({"fit_error": [1.0]}, "32 bins need as many counts"),
        ({"edges": [3.0] * len(EDGES)}, "ascend"),
    ],
)
def test_a_spectrum_whose_columns_do_not_fit_is_refused(more, said) -> None:
    with pytest.raises(ValueError, match=said):
        figures.spectrum([{**cut(), **more}], RESONANCE)


# sculpting


def sculpted(efficiency, after, before=(400, 300, 200, 100), **more):
    return {
        "efficiency": efficiency,
        "jsd": 0.0123,
        "p": 0.04,
        "edges": [3.0, 3.3, 3.7, 4.0, 4.5],
        "before": list(before),
        "after": list(after),
        **more,
    }


def test_sculpting_shows_normalised_spectra_and_their_ratio() -> None:
    figure = rendered(figures.sculpting([sculpted(0.1, (40, 60, 20, 0)), sculpted(0.01, (44, 33, 22, 11))], RESONANCE))
    check(figure)
    upper, lower = figure.axes
    drawn = {s.get_label(): s.get_data() for s in upper.patches if hasattr(s, "get_data")}
    assert list(drawn) == ["before, 1,000 events", *(f"cut at {e} %: JSD 0.012, p 0.04" for e in (10, 1))]
    for values, edges, _ in drawn.values():
        assert (values * np.diff(edges)).sum() == pytest.approx(1)
    first, second = (container.lines[0].get_ydata() for container in lower.containers)
    assert np.allclose(first, np.array([40, 60, 20, 0]) / 120 / np.array([0.4, 0.3, 0.2, 0.1]))
    assert np.allclose(second, 1)
    assert "signal region" in texts(figure) and lower.get_ylabel() == "after / before"


def test_bins_of_few_events_are_joined_until_ten_are_expected() -> None:
    figure = rendered(
        figures.sculpting([sculpted(0.01, (20, 4, 6, 10)), sculpted(0.001, (9, 4, 3, 3), chance=0.02, dof=0)])
    )
    after = next(s for s in figure.axes[0].patches if s.get_label().startswith("cut at 1 %"))
    values, edges, _ = after.get_data()  # 16, 12, 8 and 4 are expected
    assert edges.tolist() == [3.0, 3.3, 3.7, 4.5]
    assert np.allclose(values * np.diff(edges), [0.5, 0.1, 0.4])
    assert np.allclose(figure.axes[1].containers[0].lines[0].get_ydata(), [20 / 16, 4 / 12, 16 / 12])
    assert "cut at 0.1 %: JSD 0.012 (0.02 by chance), 19 events" in texts(figure)


def test_sculpting_of_nothing_and_of_empty_bins() -> None:
    assert figures.sculpting([]) is None and figures.sculpting([{"efficiency": 0.1, "jsd": None}]) is None
    figure = rendered(
        figures.sculpting([sculpted(0.1, (40, 0, 20, 0), before=(40, 30, 20, 0)), sculpted(0.01, [0] * 4)])
    )
    check(figure)
    assert any("p 0.04, 0 events" in text for text in texts(figure))
    assert figure.axes[1].containers[0].lines[0].get_ydata() == pytest.approx([1.5, 0.0, 1.5])
    with pytest.raises(ValueError, match="4 bins need as many counts"):
        figures.sculpting([sculpted(0.1, (1, 2))])


# significance improvement


def ranked(shift=2.0, seed=0, nominal=9000, anomalous=1000, decimals=6):
    random = np.random.default_rng(seed)
    y = np.repeat([0, 1], [nominal, anomalous])
    return np.round(random.normal(size=len(y)) + shift * y, decimals), y


@pytest.mark.parametrize("decimals", [6, 1])
def test_an_improvement_is_that_of_the_highest_threshold_that_finds_as_many(decimals) -> None:
    scores, y = ranked(decimals=decimals)
    found = figures.improvement(scores, y)
    assert found.largest == Ranked(scores, y, ("nominal", "far")).metrics()["max_sic"]
    enough = np.sort(scores[y == 0])[-25]  # the highest threshold that leaves as many
    least_tpr = (scores[y == 1] >= enough).mean()
    for i in range(0, len(TPRS), 37):
        least = np.sort(scores[y == 1])[::-1][int(np.ceil(TPRS[i] * 1000 - 1e-9)) - 1]
        above = (scores[y == 0] >= least).sum()
        if TPRS[i] < least_tpr:
            assert np.isnan(found.sic[i])
        else:
            expected = (scores[y == 1] >= least).mean() / np.sqrt(above / 9000)
            assert found.sic[i] == pytest.approx(expected), TPRS[i]
    assert np.nanmax(found.sic) <= found.largest


def test_there_is_no_improvement_of_one_class_or_of_few_nominal_events() -> None:
    assert figures.improvement([1.0, 2.0], [0, 0]) is None
    assert figures.improvement(np.arange(30), np.repeat([0, 1], [20, 10])) is None
    assert figures.sic_curves({}) is None and figures.sic_curves({"bump": {"cwola": []}}) is None


def test_curves_of_improvement_are_means_with_the_range_of_seeds_beside_the_optimum() -> None:
    curves = [figures.improvement(*ranked(shift, seed)) for seed, shift in enumerate((1.5, 2.0, 2.5))]
    figure = rendered(figures.sic_curves({"bump": {"cwola": curves, "anode": curves[:1]}}, {"bump": OPTIMUM}))
    check(figure)
    (axis,) = panels_of(figure)
    values = np.stack([c.sic for c in curves])
    assert np.allclose(line_of(axis, "cwola").get_ydata(), values.mean(0), equal_nan=True)
    assert np.isnan(line_of(axis, "cwola").get_ydata()[0]), "all three have a floor"
    corners = np.concatenate([path.vertices for path in axis.collections[0].get_paths()])
    whole = np.isfinite(values).all(0)
    assert corners[:, 1].max() == pytest.approx(values.max(0)[whole].max())
    best = line_of(axis, "optimum")
    assert best.get_linestyle() == "--" and best.get_label() == "optimum  12.25"
    assert np.allclose(best.get_ydata(), [np.nan, 12.25, 1.0], equal_nan=True)
    largest = [c.largest for c in curves]
    said = f"cwola  {np.mean(largest):.2f} [{min(largest):.2f}, {max(largest):.2f}]"
    assert texts(figure)[:2] == [f"anode  {largest[0]:.2f}", said]
    assert line_of(axis, "cwola").get_color() == series(1, "").colour
    dots = [line for line in axis.lines if line.get_marker() == "o" and len(line.get_xdata())]
    dot = next(line for line in dots if line.get_color() == series(1, "").colour)
    assert dot.get_xdata()[0] == TPRS[np.flatnonzero(whole)[0]]


def test_a_detector_is_named_once_over_many_data_sets_and_so_is_the_optimum() -> None:
    one = figures.improvement(*ranked())
    names = [f"detector_{i} model.width={i}" for i in range(10)]
    curves = {f"bump, signal_fraction={q}": {name: [one, one] for name in names[: 4 + q]} for q in range(5)}
    figure = rendered(figures.sic_curves(curves, {"bump, signal_fraction=3": OPTIMUM}))
    check(figure)
    assert len(panels_of(figure)) == 5
    assert sorted(texts(figure)) == sorted([*names[:8], "chance", "25 nominal events left", "optimum"])


@pytest.mark.parametrize(("shift", "scale"), [(0.0, "log"), (2.0, "linear")])
def test_the_axis_of_improvements_is_logarithmic_where_they_are_far_apart(shift, scale) -> None:
    best, other = figures.improvement(*ranked(5.0, nominal=100_000)), figures.improvement(*ranked(shift))
    figure = rendered(figures.sic_curves({"bump": {"best": [best], "other": [other]}}))
    check(figure)
    assert figure.axes[0].get_yscale() == scale


def test_the_optimum_is_beside_the_curve_of_one_run() -> None:
    figure = rendered(figures.significance(*ranked(), ("nominal", "signal"), optimum=OPTIMUM))
    assert [line.get_label().split("  ")[0] for line in figure.axes[0].lines] == ["signal", "optimum", "chance"]
    for nothing in (None, {"tpr": [], "sic": []}, {"tpr": [0.5], "sic": [None]}):
        assert "optimum" not in str(texts(rendered(figures.significance(*ranked(), optimum=nothing))))


# the score over two features


def table(n=6000, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 6)).astype(np.float32)
    y = (np.arange(n) % 50 == 0).astype(int)
    x[y == 1, 1] += 2
    x[y == 1, 4] *= 0.05  # no shift of the mean: a clump
    return x, y


def test_the_plane_is_that_in_which_the_strangest_differ_most() -> None:
    x, y = table()
    scores = 5.0 * y + 0.01 * np.random.default_rng(1).normal(size=len(y))
    assert differing(x, scores) == (1, 4)
    distances = [stats.ks_2samp(x[np.argsort(scores)[-60:], j], x[:, j]).statistic for j in range(6)]
    assert set(np.argsort(distances)[-2:]) == {1, 4}
    figure = rendered(figures.score_plane(x, scores, y, [f"f{j}" for j in range(6)], kinds=("nominal", "signal")))
    check(figure)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("f1", "f4")
    assert texts(figure) == ["signal"]


def test_hexagons_hold_every_event_and_the_mean_of_its_score() -> None:
    x, _ = table()
    scores = x[:, 0] + 2 * x[:, 2]
    figure = rendered(figures.score_plane(x, scores, np.zeros(len(x), int), features=(0, 2)))
    left, right = figure.axes[:2]
    counts, means = (np.asarray(axis.collections[0].get_array()) for axis in (right, left))
    (low, high), (bottom, top) = left.get_xlim(), left.get_ylim()
    within = (x[:, 0] >= low) & (x[:, 0] <= high) & (x[:, 2] >= bottom) & (x[:, 2] <= top)
    assert counts.sum() == within.sum() and within.mean() > 0.99
    drawn = np.clip(scores, *left.collections[0].get_clim())
    assert (counts * means).sum() == pytest.approx(drawn[within].sum(), rel=1e-3)
    centres = left.collections[0].get_offsets()
    assert np.corrcoef(means, centres[:, 0] + 2 * centres[:, 1])[0, 1] > 0.98
    assert (left.get_xlabel(), left.get_title(), right.get_title()) == ("0", "mean score", "events")


@pytest.mark.parametrize("odd", [[0.0], [np.inf], [1e9] * 20])
def test_a_score_plane_of_odd_scores_is_drawn(odd) -> None:
    x, y = table(300)
    check(rendered(figures.score_plane(x, np.r_[odd, np.zeros(300 - len(odd))], y)))


@pytest.mark.parametrize(
    ("x", "scores", "y", "said"),
    [
        (np.zeros((3, 1)), np.zeros(3), [0, 0, 0], "two features or more"),
        (np.zeros((3, 2)), np.zeros(2), [0, 0, 0], "two features or more"),
        (np.zeros((3, 2)), np.array([0, 1, np.nan]), [0, 0, 0], "NaN"),
    ],
)
def test_a_score_plane_refuses_what_does_not_fit(x, scores, y, said) -> None:
    with pytest.raises(ValueError, match=said):
        figures.score_plane(x, scores, y)


# before and after


def legend_of(figure):
    legend = figure.legends[0] if figure.legends else next(a.get_legend() for a in figure.axes if a.get_legend())
    return legend.get_texts(), legend.legend_handles


def hunted(*z, direction="forward", **more):
    counted = {"kept": 10, "observed": 6, "expected": 4.0, "uncertainty": 1.0, "p": 0.1}
    cuts = [{"efficiency": e, "z": value, **counted} for e, value in zip((1.0, 0.1, 0.01), z, strict=False)]
    return {"bump": {"rows": 10, "direction": direction, "resonance": RESONANCE, "cuts": cuts, **more}}


def test_significances_are_points_of_runs_hollow_where_they_are_too_wide() -> None:
    cuts = {"bump": {"cuts": [{"efficiency": 1.0, "failed": "No fit."}, {"efficiency": 0.1, "z": 9.0}]}}
    groups = {
        ("bump", "cwola"): [hunted(2.0, 3.0, 8.0), hunted(1.0, 4.0), cuts, {}],
        ("bump", "anode"): [hunted(0.5, 6.0, 25.0, direction="all")],
    }
    figure = rendered(figures.significances(groups))
    check(figure)
    axes = panels_of(figure)
    assert [axis.get_title() for axis in axes] == ["bump, cut at 10 %", "bump, cut at 1 %"]
    for axis, expected in zip(axes, ({(2, 3), (1, 4), (0.5, 6)}, {(2, 8), (0.5, 25)}), strict=True):
        dots = [line for line in axis.lines if len(line.get_xdata()) == 1 and line.get_ls() == "None"]
        assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in dots} == expected
        for line in dots:
            hollow = to_hex(line.get_markerfacecolor()) == "#ffffff"
            assert hollow == (line.get_color() == series(0, "").colour)
        levels = [line.get_ydata()[0] for line in axis.lines if list(line.get_xdata()) == [0, 1]]
        assert levels == [3, 5]
        assert axis.get_ylim()[1] > 25
    assert texts(figure)[:2] == ["anode", "cwola"] and any("hollow" in text for text in texts(figure))
    assert z_of(cuts) == {0.1: 9.0} and z_of({}) == {}
    right = [hunted(1.0, 2.0), hunted(1.0, 2.0, direction="all", width=1.3)]
    assert not any("hollow" in t for t in texts(rendered(figures.significances({("a", "b"): right}))))


@pytest.mark.parametrize(("z", "scale"), [((1.0, -2.0, 8.0), "linear"), ((1.0, -23.0, 8.0), "symlog")])
def test_an_axis_of_significances_that_go_far_still_shows_three_and_five(z, scale) -> None:
    runs = [hunted(*z), hunted(2.0, 3.0, 4.0, direction="all")]
    figure = rendered(figures.significances({("bump", "cwola"): runs, ("bump", "anode"): runs[1:]}))
    check(figure)
    axis = panels_of(figure)[0]
    assert (axis.get_xscale(), axis.get_yscale()) == ("linear", scale)
    low, high = axis.transData.transform([(0, 3), (0, 5)])[:, 1]
    box = axis.get_window_extent()
    assert high - low > 0.1 * box.height, "they are apart"
    bottom = axis.transData.transform([(0, min(z))])[0, 1]
    assert bottom > box.y0 + 0.02 * box.height, "no point is cut"
    (same,) = (line for line in axis.lines if len(line.get_xdata()) > 2)
    assert np.array_equal(same.get_xdata(), same.get_ydata())
    keys = {text.get_text(): handle for text, handle in zip(*legend_of(figure), strict=True)}
    assert to_hex(keys["anode"].get_markerfacecolor()) == "#ffffff" != to_hex(keys["cwola"].get_markerfacecolor())


@pytest.mark.parametrize("runs", [[], [{}], [hunted(1.0)], [{"bump": None}]])
def test_without_two_significances_of_a_run_there_is_no_such_figure(runs) -> None:
    assert figures.significances({("bump", "cwola"): runs}) is None


# of a sweep and of a run


def test_a_sweep_over_fractions_of_signal_is_drawn_within_each(tmp_path) -> None:
    made = []
    for detector in ("cwola", "supervised"):
        for fraction in (0.01, 0.02):
            for seed in range(2):
                folder = tmp_path / f"{detector}-{fraction}-{seed}"
                folder.mkdir()
                more = hunted(1.0 + seed, 5.0, 9.0, optimum_curve=OPTIMUM) | {"truth": detector == "supervised"}
                override = [f"data.signal_fraction={fraction}"]
                made.append(result(detector, "bump", seed, overrides=override, **more))
                (folder / "result.json").write_text(json.dumps(made[-1]))
                scores, y = ranked(seed=seed, nominal=500, anomalous=50)
                pq.write_table(pa.table({"score": scores, "y": y}), folder / "scores.parquet")
    found = SweepFolder(tmp_path).results()
    names = ["cwola", "supervised (sees the truth)"]
    groups = grouped(found)
    settings = [f"bump, signal_fraction={q}" for q in (0.01, 0.02)]
    within = compared.by_setting(groups)
    assert sorted(within) == [(data, name) for data in settings for name in names]
    assert all(len(runs) == 2 for runs in within.values())
    assert {key: len(runs) for key, runs in compared.by_setting(groups, pooled=True).items()} == {
        ("bump", name): 4 for name in names
    }
    assert {"sic.png", "significances.png"} <= set(compared.draw(found, rows(found), tmp_path))
    figure = rendered(compared.PICTURES["sic.png"].figure(groups, []))
    assert [axis.get_title() for axis in panels_of(figure)] == settings
    assert "optimum" in texts(figure)


def test_a_sweep_without_a_resonance_has_neither_picture() -> None:
    groups = grouped([result("knn", "digits", seed) for seed in range(2)])
    assert compared.PICTURES["sic.png"].figure(groups, []) is None
    assert compared.PICTURES["significances.png"].figure(groups, []) is None


def material(bump):
    scores, y = ranked(nominal=500, anomalous=50)
    return Material(Scores(np.arange(550), scores, y), None, None, measured={"bump": bump})


def test_a_run_draws_what_was_looked_for() -> None:
    bump = {
        "resonance": RESONANCE,
        "folds": 5,
        "direction": "all",
        "cuts": [cut(), cut(0.1)],
        "sculpting": [sculpted(0.1, (4, 3, 2, 1))],
        "optimum_curve": OPTIMUM,
    }
    run = material(bump)
    drawn = {name: DRAWINGS[name](run) for name in ("spectrum", "sculpting", "significance")}
    for figure in drawn.values():
        rendered(figure)
    assert "too wide" in drawn["spectrum"].get_suptitle()
    assert "divided by 1.3" in DRAWINGS["spectrum"](material(bump | {"width": 1.3})).get_suptitle()
    assert "optimum  12.25" in texts(drawn["significance"])
    nothing = material(None)
    assert DRAWINGS["spectrum"](nothing) is None and DRAWINGS["sculpting"](nothing) is None
    assert DRAWINGS["score_plane"](nothing) is None


@pytest.mark.parametrize(
    ("applies", "own"),
    [
        ({"spectrum", "sculpting", "significance", "data", "extremes"}, ["spectrum", "significance"]),
        ({"sculpting", "significance", "data", "extremes"}, ["sculpting", "significance"]),
        ({"spectrum", "data", "extremes"}, ["spectrum", "extremes"]),
        ({"significance", "data", "extremes"}, ["extremes", "data"]),
    ],
)
def test_of_a_run_with_a_resonance_two_figures_of_it_are_essential(applies, own) -> None:
    tried: list[str] = []
    drawn: list[str] = []

    def draws(name: str) -> bool:
        tried.append(name)
        drawn.extend([name] * (name in applies))
        return name in applies

    each("essential", draws)
    assert drawn == own and len(set(tried)) == len(tried)
