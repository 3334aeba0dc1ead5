"""The rules of axes, looked for in every figure as it is drawn, over data of every range."""

import math
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from straylight.metrics.across import across
from straylight.metrics.conformal import Calibration
from straylight.report import figures
from straylight.report.figures.axes import CLOSEST, WIDTHS, logarithmic, quality, symmetric
from straylight.report.figures.span import crowded, span
from straylight.report.leaderboard import grouped, rows
from test_report import result

KINDS = ("nominal", "far", "a kind of a long name")


def drawn(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


def boxes(axis):
    """Of each label within the axis: its box before it is turned, its angle and its text."""
    low, high = sorted(axis.get_view_interval())
    pad = (high - low) * 1e-6
    found = []
    for tick in axis.get_major_ticks() + axis.get_minor_ticks():
        label = tick.label2 if tick.label2.get_visible() and tick.label2.get_text() else tick.label1
        if label.get_visible() and label.get_text() and low - pad <= tick.get_loc() <= high + pad:
            found.append((label.get_window_extent(), label.get_rotation(), label.get_text()))
    return found


def overlapping(axis) -> list[tuple[str, str]]:
    """Pairs of neighbouring labels that cover each other; turned ones are told apart by the height of a line."""
    found = sorted(boxes(axis), key=lambda box: (box[0].x0 + box[0].x1, box[0].y0 + box[0].y1))
    pairs = []
    for (a, angle, one), (b, _, other) in pairwise(found):
        if angle % 90:
            apart = abs((b.x0 + b.x1) - (a.x0 + a.x1)) / 2 * math.sin(math.radians(angle % 180))
            if apart < 7 / 72 * axis.axes.figure.dpi:
                pairs.append((one, other))
        elif a.overlaps(b) and min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5:
            pairs.append((one, other))
    return pairs


def check(figure: Figure) -> None:
    """All rules that a drawn figure can be asked for."""
    drawn(figure)
    for panel in figure.axes:
        if not panel.get_visible() or not panel.axison or panel.name == "3d":
            continue
        for axis in (panel.xaxis, panel.yaxis):
            assert not overlapping(axis), (panel.get_title(), panel.get_xlabel(), overlapping(axis))
            there = boxes(axis)
            if axis.get_scale() in ("log", "function") and (panel.lines or panel.collections or panel.patches):
                assert len(there) >= 3, (axis.get_label_text(), axis.get_view_interval(), [t for *_, t in there])
        for bar in [patch for container in panel.containers for patch in getattr(container, "patches", [])]:
            assert isinstance(bar, Rectangle)
            across_it = bar.get_x() == 0 and panel.get_xscale() == "linear" and not len(panel.get_yticks())
            starts = bar.get_x() if across_it else bar.get_y()
            chance = 0.5 if "AUROC" in panel.get_ylabel() else 0.0
            assert starts == pytest.approx(chance)
            low, high = sorted(panel.get_xlim() if across_it else panel.get_ylim())
            assert low <= chance <= high
            assert (panel.get_xscale() if across_it else panel.get_yscale()) == "linear"


# logarithmic axes


ENDS = [
    *((331, 331), (205, 480), (1e-6, 1), (0.5, 1), (0.02, 1), (1, 1e30), (30, 2000), (999, 1001), (1, 9), (90, 110)),
    *((1e5, 3e5), (2e-5, 1e-3), (19, 42), (26, 331), (1e-9, 1e-3), (0.056, 1), (7e6, 9e6), (1e-30, 2e-30)),
]


@pytest.mark.parametrize("size", [(2.4, 1.8), (4.6, 3.6), (12, 3)])
def test_a_logarithmic_axis_has_three_labels_that_do_not_overlap(size) -> None:
    figure = Figure(figsize=(6 * size[0], 3 * size[1]))
    panels = figure.subplots(3, 6, gridspec_kw={"wspace": 0.3, "hspace": 0.3}).ravel()
    for panel, ends in zip(panels, ENDS, strict=True):
        panel.plot(ends, ends, "o")
        logarithmic(panel.xaxis, panel.yaxis)
        low, high = panel.get_xlim()
        assert low <= min(ends) and max(ends) <= high and high >= 1.99 * low
    check(figure)


def test_an_axis_whose_ends_are_given_keeps_them() -> None:
    panel = Figure().subplots()
    panel.plot([0.6, 1], [1, 2])
    panel.set_xlim(0.6, 1)
    logarithmic(panel.xaxis)
    assert panel.get_xlim() == (0.6, 1)


@pytest.mark.parametrize("ends", [(-0.5, 0.5), (-3, 40), (0, 1e12), (-1e6, 1e6), (-1e9, -5)])
def test_an_axis_that_is_linear_near_zero_has_labels_that_do_not_overlap(ends) -> None:
    figure = Figure(figsize=(4, 3), layout="constrained")
    panel = figure.subplots()
    panel.plot([0, 1], ends, "o")
    symmetric(panel.yaxis)
    drawn(figure)
    assert len(boxes(panel.yaxis)) >= 2 and not overlapping(panel.yaxis)


# qualities


@pytest.mark.parametrize("values", [[0.998, 0.9985, 0.999, 0.9993, 0.9996], [0.5], [0.1, 0.9], [0.0, 1.0], [1.0, 1.0]])
@pytest.mark.parametrize("width", [None, 1e-5, 0.002, 0.05, 0.9])
def test_an_axis_of_qualities_holds_them_and_zooms_no_further_than_intervals_allow(values, width) -> None:
    low, high = quality(values, [] if width is None else [width])
    assert low <= min(values) and max(values) <= high
    assert high - low >= min(CLOSEST if width is None else WIDTHS * width, 1.0) * (1 - 1e-9)
    assert high - low <= 1.1 and high <= 1.05
    if width == 0.002 and len(values) == 5:
        assert np.ptp(values) < 0.15 * (high - low), "what cannot be told apart does not fill a page"


# every figure


def scored(name: str, n: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    y = np.r_[np.zeros(n, int), np.ones(n // 10, int), np.full(12, 2)]
    normal = random.normal(size=len(y))
    return {
        "normal": lambda: normal + 2 * y,
        "constant": lambda: np.full(len(y), 0.25),
        "two values": lambda: (normal + y > 1).astype(float),
        "mostly one value": lambda: np.where(np.arange(len(y)) % 10 > 0, 0.0, normal) + 5 * (y > 0),
        "heavy tails": lambda: random.standard_cauchy(len(y)) + y,
        "lognormal": lambda: np.exp(5 * normal + y),
        "shifted": lambda: 1e4 + np.exp(4 * normal),
        "negative": lambda: -np.exp(4 * normal),
        "one outlier": lambda: np.where(np.arange(len(y)) == 7, 1e12, normal),
        "far": lambda: normal + 1e6 * (y == 1),
        "near": lambda: normal + 35 * (y == 1),
        "tiny": lambda: 1e-12 * (normal + 3 * y),
        "huge": lambda: 1e25 * np.abs(normal + 3 * y),
        "offset": lambda: 1e6 + 1e-2 * normal,
        "infinite": lambda: np.where(y == 2, np.inf, normal),
    }[name](), y


SCORES = (
    *("normal", "constant", "two values", "mostly one value", "heavy tails", "lognormal", "shifted", "negative"),
    *("one outlier", "far", "near", "tiny", "huge", "offset", "infinite"),
)
OF_SCORES = {
    "scores": lambda s, y: figures.score_histogram(s, y, KINDS, {"quantile 0.95": float(np.quantile(s, 0.95))}),
    "selected": lambda s, y: figures.selected_fraction(s, y, KINDS),
    "p_values": lambda s, y: figures.p_values(Calibration(s[y == 0]).p_values(s), y, int((y == 0).sum()), KINDS),
    "roc": lambda s, y: figures.roc(s, y, KINDS),
    "precision_recall": lambda s, y: figures.precision_recall(s, y, KINDS),
    "significance": lambda s, y: figures.significance(s, y, KINDS),
    "line": lambda s, y: figures.line(s, y, KINDS),
    "overlay": lambda s, y: figures.roc_overlay({"digits": {"knn": [figures.curve(s, y)]}}),
}


#: Curves go by ranks alone, and see of scores no more than which are tied.
RANKED = ("normal", "constant", "two values", "mostly one value", "infinite")


@pytest.mark.parametrize(
    ("figure", "name"),
    [
        (figure, name)
        for figure in OF_SCORES
        for name in (SCORES if figure in ("scores", "selected", "line") else RANKED)
    ],
)
def test_figures_of_scores_keep_the_rules(figure, name) -> None:
    made = OF_SCORES[figure](*scored(name))
    if made is not None:
        check(made)


@pytest.mark.parametrize("name", SCORES)
def test_no_bin_of_scores_holds_most_events_unless_one_value_does(name) -> None:
    scores, y = scored(name)
    figure = figures.score_histogram(scores, y, KINDS)
    counts, edges, _ = next(s for s in figure.axes[0].patches if s.get_label() == "nominal").get_data()
    own = np.clip(scores[y == 0], edges[0], edges[-1])
    share = np.unique(own, return_counts=True)[1].max() / len(own)
    assert counts.sum() == len(own)
    assert counts.max() / len(own) <= share + 0.3
    if share > 0.5:  # no bins can part what is the same, but it is said
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert any("of them score" in text for text in legend)
    found = span(scores, y)
    assert crowded(found, np.sort(scores[(y == 0) & np.isfinite(scores)])) <= 0.25


def groups_of(aurocs, seeds=3, width=None):
    """Made-up runs of several detectors on two data sets, of two kinds and several contaminations."""
    made = []
    for data in ("digits", "moons of a long name"):
        for i, auroc in enumerate(aurocs):
            for seed in range(seeds):
                value = min(1.0, auroc + 1e-4 * seed)
                run = result(
                    f"detector_{i}", data, seed, auroc=value, p50=20.0 * 1.7**i, contamination=0.01 * (seed + 1)
                )
                run["metrics"] |= {"test/auroc/A": value, "test/auroc/B": max(0.0, value - 0.1)}
                if width:
                    run["intervals"] = {"test/auroc": [value - width / 2, value + width / 2]}
                made.append(run)
    return made


SWEEPS = {
    "close": [0.998, 0.9985, 0.999, 0.9993, 0.9996],
    "one": [0.9],
    "spread": [0.1, 0.5, 0.9],
    "perfect": [1.0, 1.0],
    "below chance": [0.2, 0.3],
    "many": [0.6 + i / 40 for i in range(14)],
}


@pytest.mark.parametrize(("sweep", "width"), [*((name, None) for name in SWEEPS), ("close", 0.002)])
def test_figures_of_a_sweep_keep_the_rules(sweep, width) -> None:
    made = groups_of(SWEEPS[sweep], width=width)
    groups = grouped(made)
    drawn_of = [
        figures.pareto(rows(made)),
        figures.heat_map(groups),
        figures.seeds(groups),
        figures.kind_bars(groups),
        figures.by_contamination(groups),
    ]
    for figure in drawn_of:
        if figure is not None:
            check(figure)
    for panel in drawn_of[0].axes:
        if panel.get_visible():
            low, high = panel.get_ylim()
            assert high - low >= (CLOSEST if width is None else WIDTHS * width) * 0.999


def test_bars_of_kinds_begin_at_chance_and_go_down_below_it() -> None:
    figure = drawn(figures.kind_bars(grouped(groups_of([0.9, 0.2]))))
    bars = [bar for container in figure.axes[0].containers for bar in getattr(container, "patches", [])]
    assert {bar.get_y() for bar in bars} == {0.5}
    assert sorted(round(bar.get_y() + bar.get_height(), 1) for bar in bars) == [0.1, 0.2, 0.8, 0.9]
    low, high = figure.axes[0].get_ylim()
    assert low <= 0.1 and high == 1
    written = {text.get_text() for text in figure.axes[0].texts}
    assert len(written) == 4 and all(float(text) for text in written)
    # other qualities have no such place
    other = [{"metrics": {"test/ap": 0.5, "test/ap/A": 0.4, "test/ap/B": 0.6}}]
    figure = drawn(figures.kind_bars({("digits", "knn"): other}, "test/ap", "AP"))
    assert {bar.get_y() for c in figure.axes[0].containers for bar in getattr(c, "patches", [])} == {0}


RANGES = [(1e-6, 1.0), (0.5, 0.6), (300, 480), (1, 1e9)]


@pytest.mark.parametrize("ends", RANGES)
def test_other_figures_keep_the_rules(ends) -> None:
    random = np.random.default_rng(0)
    values = np.geomspace(*ends, 9)
    epochs = np.arange(1, 10)
    x, y = random.normal(size=(900, 2)) * ends[1], np.repeat([0, 1, 2], [700, 190, 10])
    particles = np.abs(random.normal(size=(300, 19, 3))) * ends[1]
    particles[:, 3:5] = 0
    for figure in (
        figures.trend(values, {"a": values[::-1]}, ("x", "y"), log="xy"),
        figures.loss_curves({"train/loss": list(zip(epochs, values, strict=True))}),
        figures.loss_curves({"train/loss": list(zip(epochs, values - values[4], strict=True))}),
        figures.auroc_by_epoch([{"epoch": e, "auroc": 0.9 + e / 1e5} for e in epochs], final=0.9),
        figures.agreement(-values, -values[::-1], np.arange(9) % 2, KINDS),
        figures.leading_particles(particles, np.arange(300) % 2, KINDS),
        figures.scatter(x, y, KINDS),
        figures.by_score(x, y, (x**2).sum(1), lambda p: (p**2).sum(1), ("fpr 0.1", float(ends[1])), KINDS),
        figures.found(x, y, (x**2).sum(1), ("fpr 0.1", float(ends[1])), KINDS),
        figures.latent_2d(x, y, KINDS),
        figures.latent_normal(x / ends[1]),
        figures.samples(x[:, :1], x[:, :1]),
        figures.contributions(x[:5], x[:5], values[:5], y[:5], KINDS, ("mass", "angle")),
        figures.critical_difference(across(random.random((6, 5))), [f"detector {i}" for i in range(5)]),
    ):
        check(figure)
