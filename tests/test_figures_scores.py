"""What is drawn of scores, rankings and training, against other ways to compute it."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from given import rendered
from straylight.metrics.conformal import Calibration
from straylight.metrics.ranking import Ranked
from straylight.metrics.ranks import Column, Ranks
from straylight.report import figures
from straylight.report.figures.comparison import CURVE, curve
from straylight.report.figures.curves import roc_points, thinned, tied
from straylight.report.figures.span import Span, short, span
from straylight.report.figures.style import NOMINAL, look

KINDS = ("nominal", *(f"a kind with a long name {k}" for k in "ABCDE"))


def events(n: int = 5000, kinds: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, rounded so that many are tied, and labels."""
    random = np.random.default_rng(seed)
    y = random.choice(kinds + 1, n, p=[0.7, *[0.3 / kinds] * kinds])
    return np.round(random.normal(size=n) + y, 2).astype(np.float32), y


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


# the axis of scores


def test_an_axis_of_ordinary_scores_is_linear_and_holds_all_of_few() -> None:
    scores, y = events(1000)
    found = span(scores, y)
    assert found.width is None and found.beyond(scores) == 0
    assert (found.low, found.high) == (scores.min(), scores.max())


def test_an_axis_of_many_scores_leaves_a_thousandth_of_each_kind_beyond_its_ends() -> None:
    scores, y = events(100_000)
    found = span(scores, y)
    for k in range(3):
        assert 0 <= found.beyond(scores[y == k]) <= 0.0021 * (y == k).sum()
    assert found.beyond(scores) > 0


def test_a_rare_kind_far_away_is_on_the_axis() -> None:
    scores = np.r_[np.random.default_rng(0).normal(size=100_000), np.full(10, 30.0)]
    assert span(scores, np.r_[np.zeros(100_000, int), np.ones(10, int)]).high == 30


def test_long_tails_stretch_the_axis_and_leave_the_nominal_bulk_its_share() -> None:
    random = np.random.default_rng(0)
    scores = np.r_[random.normal(50, 5, 5000), 50 + 10 ** random.uniform(2, 8, 500)]
    found = span(scores, np.r_[np.zeros(5000, int), np.ones(500, int)])
    assert found.width is not None
    assert np.allclose(found.inverse(found.forward(scores)), scores, rtol=1e-9)
    places = found.forward(scores)
    assert np.ptp(places[:5000]) > 0.1 * np.ptp(places), "nominal scores are squeezed into less than a tenth"
    ticks = found.ticks()
    assert len(ticks) >= 4 and (np.diff(ticks) > 0).all() and all(len(short(t)) <= 6 for t in ticks)


@pytest.mark.parametrize("scores", [np.zeros(10), np.full(10, 1e30), np.r_[np.zeros(9), np.inf], np.full(10, np.inf)])
def test_an_axis_of_equal_or_infinite_scores_has_a_width(scores: np.ndarray) -> None:
    found = span(scores, np.arange(10) % 2)
    assert np.isfinite([found.low, found.high]).all() and found.low < found.high
    assert (np.diff(found.grid(20)) > 0).all()


@pytest.mark.parametrize(("scores", "said"), [([], "two columns"), ([1.0, np.nan], "1 of 2 scores are NaN")])
def test_an_axis_refuses_what_cannot_be_drawn(scores: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        span(scores, [0] * len(scores))


# histograms


def test_a_histogram_counts_every_event_of_every_kind() -> None:
    scores, y = events(50_000)
    figure = rendered(figures.score_histogram(scores, y, KINDS, {"quantile 0.95": 1.5, "far": 1e6}))
    counts, density = figure.axes
    assert counts.get_yscale() == "log" and density.get_yscale() == "linear"
    drawn = {s.get_label(): s.get_data() for s in counts.patches if s.get_label() in KINDS}
    assert list(drawn) == list(KINDS[:3])
    for k, name in enumerate(KINDS[:3]):
        edges = drawn[name].edges
        clipped = np.clip(scores[y == k].astype(float), edges[0], edges[-1])
        assert np.array_equal(drawn[name].values, np.histogram(clipped, edges)[0])
        assert drawn[name].values.sum() == (y == k).sum()
    for stairs in density.patches:
        values, edges, _ = stairs.get_data()
        assert np.sum(values * np.diff(edges)) == pytest.approx(1)
    assert [line.get_xdata()[0] for line in counts.lines if len(line.get_xdata())] == [1.5]
    assert "far: 1e+06 (off the axis)" in texts(figure)
    beyond = span(scores, y).beyond(scores)
    assert f"{beyond:,} of\n50,000 events beyond the ends" in counts.get_xlabel()


def test_weights_are_summed_in_a_histogram() -> None:
    scores, y = events(2000)
    weight = np.random.default_rng(1).uniform(0.1, 3, 2000)
    axis = figures.score_histogram(scores, y, KINDS, weight=weight).axes[0]
    drawn = {s.get_label(): s.get_data().values.sum() for s in axis.patches if s.get_label() in KINDS}
    assert drawn == pytest.approx({KINDS[k]: weight[y == k].sum() for k in range(3)})
    assert axis.get_ylabel() == "sum of event weights"


def test_a_kind_has_its_colour_whichever_others_are_there() -> None:
    scores, y = events(kinds=5)
    few = y >= 4
    for chosen in (y >= 0, few):
        axis = figures.score_histogram(scores[chosen], y[chosen], KINDS).axes[0]
        found = {s.get_label(): s.get_edgecolor() for s in axis.patches if s.get_label() in KINDS}
        lines = figures.selected_fraction(scores[chosen], y[chosen], KINDS).axes[0].lines
        for k in np.unique(y[chosen]):
            from matplotlib.colors import to_rgba

            assert found[KINDS[k]] == to_rgba(look(k, KINDS).colour)
            assert next(line for line in lines if line.get_label() == KINDS[k]).get_color() == look(k, KINDS).colour
    assert look(0, KINDS).colour == NOMINAL and len({look(k, KINDS).colour for k in range(6)}) == 6


@pytest.mark.parametrize("weighted", [False, True])
def test_the_selected_fraction_is_exact_at_every_point(weighted: bool) -> None:
    scores, y = events(3000)
    weight = np.random.default_rng(1).integers(0, 4, 3000).astype(float) if weighted else None
    axis = rendered(figures.selected_fraction(scores, y, KINDS, {"fpr 0.01": 2.0}, weight)).axes[0]
    w = np.ones(3000) if weight is None else weight
    for k, line in enumerate(axis.lines[:3]):
        at, fraction = line.get_data()
        own, share = scores[y == k].astype(float), w[y == k] / w[y == k].sum()
        expected = np.array([share[own > t].sum() for t in at])
        there = ~np.isnan(fraction)
        assert np.allclose(fraction[there], expected[there]) and np.allclose(expected[~there], 0)
    assert axis.get_yscale() == "log"


def test_a_confusion_matrix_shows_counts_and_shares_of_a_row() -> None:
    figure = rendered(figures.confusion({"quantile 0.95": [[90, 10], [1, 3]], "fdr 0.1": [[0, 0], [4, 0]]}))
    assert [axis.get_title() for axis in figure.axes] == ["quantile 0.95", "fdr 0.1"]
    assert [t.get_text() for t in figure.axes[0].texts] == ["90\n90 %", "10\n10 %", "1\n25 %", "3\n75 %"]
    assert np.allclose(figure.axes[1].images[0].get_array(), [[0, 0], [1, 0]])
    assert figures.confusion({}) is None


# curves


def stepped(fpr, tpr, at):
    """The largest TPR of a curve of steps whose FPR is not beyond."""
    return np.array([tpr[fpr <= rate * (1 + 1e-12)].max() for rate in at])


def ranks_of(scores, y, weight=None) -> Ranks:
    low, high = y == 0, y > 0
    w = [None, None] if weight is None else [weight[low], weight[high]]
    return Ranks(Column("n", scores[low], w[0]), Column("a", scores[high], w[1]))


#: Scores from none tied to all: of 3,000 rows, rounded, of a few values, of two, of one.
TIED = {
    "none": lambda s: s,
    "hundredths": lambda s: np.round(s, 2),
    "halves": lambda s: np.round(2 * s) / 2,
    "two": lambda s: (s > 1).astype(np.float32),
    "most": lambda s: np.where(s > 2, s, 0),
    "all": lambda s: np.zeros_like(s),
}


@pytest.mark.parametrize("tie", TIED)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_roc_curve_is_at_every_rate_what_the_table_says(tie: str, weighted: bool) -> None:
    scores, y = events(3000, kinds=1)
    scores = TIED[tie](scores)
    weight = np.random.default_rng(1).integers(1, 4, 3000).astype(float) if weighted else None
    ranks = ranks_of(scores, y, weight)
    rates = np.r_[np.geomspace(1e-4, 1, 97), 0.1, 0.01]
    table = [ranks.at(rate).tpr for rate in rates]
    assert np.allclose(stepped(*roc_points(ranks), rates), table, atol=1e-12)
    for axis in rendered(figures.roc(scores, y, weight=weight)).axes:  # and what is drawn, but for thinning
        fpr, tpr = axis.lines[0].get_data()
        drawn = rates > axis.get_xlim()[0]
        assert np.abs(stepped(fpr, tpr, rates[drawn]) - np.array(table)[drawn]).max() < 1 / 400
    overlay = curve(scores, y)
    if not weighted:
        assert np.allclose(overlay.tpr, [ranks.at(rate).tpr for rate in CURVE], atol=1e-12)


def test_a_tie_is_not_interpolated_where_the_table_does_not() -> None:
    # two values: at an FPR of 0.1 a threshold reaches a tenth of the anomalies, and a slanted edge would say 0.24
    scores = np.r_[np.repeat([2.0, 1.0, 0.0], [5, 50, 45]), np.repeat([2.0, 1.0, 0.0], [10, 70, 20])]
    y = np.repeat([0, 1], 100)
    assert Ranked(scores, y, ("nominal", "far")).metrics()["tpr@fpr=0.1"] == 0.1
    figure = rendered(figures.roc(scores, y))
    fpr, tpr = figure.axes[0].lines[0].get_data()
    assert np.interp([0.05 + 1e-9, 0.1, 0.5], fpr, tpr) == pytest.approx([0.1, 0.1, 0.1])
    assert all(np.diff(fpr)[i] == 0 or np.diff(tpr)[i] == 0 for i in range(len(fpr) - 1)), "steps alone"
    assert any("many scores are tied" in text for text in texts(figure))
    assert not any("tied" in text for text in texts(figures.roc(*events(3000, kinds=1))))


def test_the_area_of_ties_is_what_lies_between_the_steps_and_the_auroc() -> None:
    scores, y = events(3000, kinds=1)
    for tie in TIED.values():
        ranks = ranks_of(tie(scores), y)
        fpr, tpr = roc_points(ranks)
        below = float((np.diff(fpr) * tpr[:-1]).sum())
        assert below + tied(ranks) == pytest.approx(roc_auc_score(y, tie(scores)), abs=1e-12)


def test_a_roc_figure_draws_all_anomalies_and_each_kind_with_auroc_and_interval() -> None:
    scores, y = events(20_000, kinds=5)
    intervals = Ranked(scores, y, KINDS).intervals()
    figure = rendered(figures.roc(scores, y, KINDS, intervals=intervals))
    left, right = figure.axes
    assert left.get_xscale() == "linear" and right.get_xscale() == "log"
    assert right.get_xlim() == pytest.approx((10 / (y == 0).sum(), 1))
    assert len(left.lines) == len(right.lines) == 7  # all, five kinds, chance
    assert figure.legends[0].get_title().get_text() == "AUROC, 95 % interval"
    low, high = intervals["auroc"]
    assert texts(figure)[0] == f"all anomalies  {roc_auc_score(y > 0, scores):.3f} [{low:.3f}, {high:.3f}]"
    for k, line in enumerate(left.lines[1:6], 1):
        own = (y == 0) | (y == k)
        ranks = ranks_of(scores[own], y[own])
        fpr, tpr = line.get_data()
        grid = np.linspace(0.001, 1, 500)
        assert np.abs(stepped(fpr, tpr, grid) - [ranks.at(rate).tpr for rate in grid]).max() < 1 / 400
        # and on the logarithmic axis, down to ten nominal events
        fpr, tpr = right.lines[k].get_data()
        grid = np.geomspace(right.get_xlim()[0], 1, 500)
        off = np.abs(stepped(fpr, tpr, grid) - [ranks.at(rate).tpr for rate in grid])
        assert np.median(off) < 1 / 400 and off.max() < 0.02
        assert len(fpr) < 3000


def test_a_perfect_and_a_constant_detector_have_a_roc_curve() -> None:
    y = np.repeat([0, 1], 50)
    perfect = rendered(figures.roc(y.astype(float), y)).axes[0].lines[0].get_data()
    assert np.array_equal(np.unique(perfect[1][perfect[0] > 0]), [1])
    constant = rendered(figures.roc(np.zeros(100), y)).axes[0].lines[0].get_xydata().tolist()
    assert constant == [[0, 0], [1, 0], [1, 1]] or constant == [[0, 0], [1, 0], [1, 1], [1, 1]]


def test_weights_count_in_a_roc_curve_and_weightless_events_do_not() -> None:
    scores, y = events(2000, kinds=1)
    weight = np.random.default_rng(1).integers(0, 3, 2000)
    copies = np.repeat(np.arange(2000), weight)
    fpr, tpr = figures.roc(scores, y, weight=weight).axes[0].lines[0].get_data()
    ranks = ranks_of(scores[copies], y[copies])
    grid = np.linspace(0.001, 1, 500)
    assert np.abs(stepped(fpr, tpr, grid) - [ranks.at(rate).tpr for rate in grid]).max() < 1 / 400


def test_precision_and_recall_are_those_of_scikit_learn() -> None:
    scores, y = events(3000)
    figure = rendered(figures.precision_recall(scores, y, KINDS))
    axis = figure.axes[0]
    assert texts(figure)[0] == f"all anomalies  {average_precision_score(y > 0, scores):.3f}"
    precision, recall, _ = precision_recall_curve(y > 0, scores)
    points = {(round(r, 9), round(p, 9)) for r, p in zip(recall, precision, strict=True)}
    drawn = list(zip(*axis.lines[0].get_data(), strict=True))[1:]  # the first stands at recall 0
    assert {(round(r, 9), round(p, 9)) for r, p in drawn} <= points
    chance = [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == ":" and len(line.get_ydata()) == 2]
    assert chance[0] == pytest.approx((y > 0).mean())


def test_the_significance_improvement_reaches_its_largest_value_and_stops_at_25_events() -> None:
    scores, y = events(20_000)
    figure = rendered(figures.significance(scores, y, KINDS))
    metrics = Ranked(scores, y, KINDS).metrics()
    for line, name in zip(figure.axes[0].lines, ("", *(f"/{k}" for k in KINDS[1:3])), strict=False):
        tpr, sic = line.get_data()
        assert sic.max() == pytest.approx(metrics[f"max_sic{name}"], rel=0.005)
        fpr = (tpr / sic) ** 2
        assert fpr.min() * (y == 0).sum() >= 25 - 1e-6
        # one point, counted by hand
        i = len(tpr) // 2
        kind = y > 0 if not name else y == KINDS.index(name[1:])
        cut = np.sort(scores[kind])[::-1][round(tpr[i] * kind.sum()) - 1]
        assert sic[i] == pytest.approx(tpr[i] / np.sqrt((scores[y == 0] >= cut).mean()))


@pytest.mark.parametrize("draw", [figures.roc, figures.precision_recall, figures.significance])
def test_nothing_is_drawn_of_one_class_or_of_hidden_labels(draw) -> None:
    assert draw([1.0, 2.0], [0, 0]) is None
    assert draw([1.0, 2.0], [1, 2]) is None
    assert draw([1.0, 2.0], [-1, -1]) is None
    with pytest.raises(ValueError, match="two columns of one length"):
        draw([1.0, 2.0], [0])
    with pytest.raises(ValueError, match="NaN"):
        draw([1.0, np.nan], [0, 1])


def test_a_thinned_curve_keeps_its_ends_and_is_never_far_from_the_whole_one() -> None:
    x = np.sort(np.random.default_rng(0).random(200_000))
    y = x**8
    kept = thinned(x, y)
    assert kept[0] == 0 and kept[-1] == len(x) - 1 and len(kept) < 1700
    assert np.abs(np.interp(x, x[kept], y[kept]) - y).max() < 1 / 800


# training


def test_losses_are_drawn_linear_and_logarithmic_train_in_full_and_val_dashed() -> None:
    losses = {"val/loss": [(1, 2.0), (2, float("nan")), (3, 1.0)], "train/loss": [(1, 3.0), (2, 2.0), (3, 1.5)]}
    figure = rendered(figures.loss_curves(losses))
    left, right = figure.axes
    assert (left.get_yscale(), right.get_yscale()) == ("linear", "log")
    train, val = left.lines
    assert texts(figure) == ["train/loss", "val/loss"]
    assert np.array_equal(train.get_data(), [[1, 2, 3], [3, 2, 1.5]])
    assert np.array_equal(val.get_data(), [[1, 3], [2, 1]])
    assert train.get_color() == val.get_color() and (train.get_linestyle(), val.get_linestyle()) == ("-", "--")


def test_losses_below_zero_are_drawn_above_their_least_value() -> None:
    figure = rendered(figures.loss_curves({"train/loss": [(1, 3.0), (2, -1.0), (3, -2.0)]}))
    assert figure.axes[1].get_ylabel() == "loss above its least value"
    assert np.array_equal(figure.axes[1].lines[0].get_data(), [[1, 2], [5, 1]])
    assert figures.loss_curves({}) is None and figures.loss_curves({"train/loss": [(1, float("inf"))]}) is None


def test_auroc_by_epoch_draws_all_and_each_kind_in_its_colour() -> None:
    by_epoch = [{"epoch": e, "auroc": 0.5 + e / 10, "auroc/B": 0.4, "ap": 0.1} for e in (1, 2, 3)]
    figure = rendered(figures.auroc_by_epoch(by_epoch, ("nominal", "A", "B"), final=0.75))
    assert texts(figure) == ["all anomalies", "B", "as tested: 0.750"]
    overall, kind, final = figure.axes[0].lines
    assert np.allclose(overall.get_data(), [[1, 2, 3], [0.6, 0.7, 0.8]])
    assert kind.get_color() == look(2).colour and final.get_ydata()[0] == 0.75
    assert figures.auroc_by_epoch(by_epoch[:1]) is None


def test_a_span_is_linear_without_a_width() -> None:
    assert Span(0, 1).forward([0.5]).tolist() == [0.5]


# p-values


@pytest.mark.parametrize("weighted", [False, True])
def test_p_values_are_drawn_as_the_fraction_at_most_each_level(weighted) -> None:
    random = np.random.default_rng(3)
    y = np.repeat([0, 1], [200, 40])
    p = (random.integers(1, 101, 240) / 101) ** (1 + y)
    weight = random.uniform(0.5, 2, 240) if weighted else None
    (axis,) = rendered(figures.p_values(p, y, 100, KINDS, weight)).axes
    assert axis.get_xscale() == axis.get_yscale() == "log"
    ones = np.ones(240) if weight is None else weight
    for line, label in zip(axis.lines, (0, 1), strict=False):
        own = y == label
        for level, share in zip(*line.get_data(), strict=True):
            assert share == pytest.approx(ones[own & (p <= level * (1 + 1e-12))].sum() / ones[own].sum())
    assert len(axis.collections) == (not weighted)  # the band is of events that count alike
    assert figures.p_values(p, np.ones(240, int), 100) is None


def test_the_band_of_p_values_holds_nominal_samples() -> None:
    random = np.random.default_rng(4)
    inside = tried = 0
    for _ in range(40):
        p = Calibration(random.normal(size=99)).p_values(random.normal(size=300))
        (axis,) = figures.p_values(p, np.zeros(300, int), 99).axes
        ends = axis.collections[0].get_paths()[0].vertices
        levels = np.unique(ends[:, 0])
        for level in levels:
            column = ends[np.isclose(ends[:, 0], level)][:, 1]
            share = (p <= level * (1 + 1e-9)).mean()
            inside += column.min() - 1e-9 <= share <= column.max() + 1e-9
            tried += 1
    assert 0.9 < inside / tried <= 1  # 95 % or more, levels of one sample going together
