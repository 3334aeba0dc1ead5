"""Several accepted rates: a threshold for each, in the record, the report and the figure."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from straylight.metrics.intervals import tpr
from straylight.metrics.ranks import Column, Ranks
from straylight.metrics.rules import Cuts, rules
from straylight.report.figures.rates import kept_at_rate
from straylight.report.figures.scores import selected_fraction
from straylight.run import Run


def asked(accept_hz, input_hz=1e5):
    return [rule for rule in rules(None, (), input_hz, accept_hz, None) if rule.name == "rate"]


@pytest.mark.parametrize(
    ("accept_hz", "fprs"),
    [
        (100, [1e-3]),
        (100.0, [1e-3]),
        (np.float64(100), [1e-3]),
        ([100], [1e-3]),
        ([10, 100, 1000], [1e-4, 1e-3, 1e-2]),
        ((1000, 10), [1e-2, 1e-4]),  # in the order that they were given
        ([10, 100, 10, 10.0], [1e-4, 1e-3]),  # one threshold for each
        (OmegaConf.create([10, 100]), [1e-4, 1e-3]),
    ],
)
def test_each_rate_has_its_rule(accept_hz, fprs) -> None:
    found = asked(accept_hz)
    assert [rule.fpr for rule in found] == pytest.approx(fprs)
    assert [rule.asked["accept_hz"] / rule.asked["input_hz"] for rule in found] == pytest.approx(fprs)


@pytest.mark.parametrize(
    ("accept_hz", "input_hz", "said"),
    [
        ([10, 1e6], 1e5, "accept_hz and input_hz: the accepted rate must be positive and below that of the input"),
        ([10, 1e5], 1e5, "not 100000.0 of 100000.0 Hz"),
        ([10, 0], 1e5, "must be positive and below that of the input, not 0 of"),
        ([10, -5], 1e5, "must be positive and below that of the input, not -5 of"),
        ([10, float("nan")], 1e5, "must be positive and below that of the input, not nan of"),
        ([10, float("inf")], 1e5, "must be positive and below that of the input, not inf of"),
        (10, float("inf"), "not 10 of inf Hz"),
        (10, float("nan"), "not 10 of nan Hz"),
        (10, 0, "not 10 of 0 Hz"),
        ("10", 1e5, "accept_hz must be a number or a list of numbers, not '10'"),
        ([10, "many"], 1e5, "accept_hz must be a number or a list of numbers, not 'many'"),
        ([10, None], 1e5, "accept_hz must be a number or a list of numbers, not None"),
        ([10, [20]], 1e5, r"accept_hz must be a number or a list of numbers, not \[20\]"),
        (True, 1e5, "accept_hz must be a number or a list of numbers, not True"),
        (10, "fast", "input_hz must be a number, not 'fast'"),
        (10, [1e5], "input_hz must be a number, not "),
        ([], 1e5, "input_hz and accept_hz go together"),
        (None, 1e5, "input_hz and accept_hz go together"),
        ([10], None, "input_hz and accept_hz go together"),
    ],
)
def test_a_rate_that_cannot_be_is_refused(accept_hz, input_hz, said) -> None:
    with pytest.raises(ValueError, match=said):
        asked(accept_hz, input_hz)


def test_each_threshold_keeps_the_rate_that_it_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    cuts = Cuts(rules(None, (), 1e4, [10, 100, 1000], None), rng.normal(size=20_000), np.zeros(20_000, int))
    values = [entry["value"] for entry in cuts.entries]
    assert values == sorted(values, reverse=True) and len(set(values)) == 3
    found = cuts.applied(rng.normal(size=50_000), np.zeros(50_000, int))
    for rate, entry in zip([10, 100, 1000], found, strict=True):
        assert entry["accept_hz"] == rate and entry["expected_hz"] <= rate
        assert entry["in_band"] and entry["observed_hz"] == pytest.approx(rate, rel=0.4)


def rows():
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1, 2], [2000, 200, 200])
    return np.concatenate([rng.exponential(size=2000), 3 + rng.normal(size=200), rng.exponential(size=200)]), y


def test_what_is_kept_of_each_kind_is_drawn_against_the_rate() -> None:
    s, y = rows()
    axis = Figure().subplots()
    assert kept_at_rate(axis, s, y, 1e4, [100, 500], ("nominal", "near", "same"))
    curves = [line for line in axis.lines if len(line.get_xdata()) > 2]
    assert len(curves) == 3 and axis.get_xscale() == "log"
    lines = [line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 2]
    assert lines == [100, 500]
    for line, anomalous in zip(curves, (y > 0, y == 1, y == 2), strict=True):
        for rate, kept in list(zip(*line.get_data(), strict=True))[::20]:
            at = np.sort(s[y == 0])[::-1][int(rate / 1e4 * 2000 * (1 + 1e-12))] if rate < 1e4 else -np.inf
            assert kept == pytest.approx(np.mean(s[anomalous] > at))
        assert line.get_xdata()[0] == pytest.approx(1e4 * 10 / 2000)  # ten nominal events lie above that


def test_bands_are_the_intervals_of_what_is_kept() -> None:
    s, y = rows()
    axis = Figure().subplots()
    kept_at_rate(axis, s, y, 1e4, (), ("nominal", "near", "same"))
    bands = [collection.get_paths()[0].vertices for collection in axis.collections]
    assert len(bands) == 3
    ranks = Ranks(Column("nominal", s[y == 0]), Column("near", s[y == 1]))
    near = bands[1]
    for rate in np.unique(near[:, 0])[1:-1:5]:
        low, high = tpr(ranks, float(rate / 1e4))
        at = near[np.isclose(near[:, 0], rate), 1]
        assert at.min() == pytest.approx(low) and at.max() == pytest.approx(high)


def test_the_figure_has_an_axis_in_hz_where_the_rate_is_known_alone() -> None:
    s, y = rows()
    assert len(selected_fraction(s, y).axes) == 1
    figure = selected_fraction(s, y, ("nominal", "near", "same"), {"rate 100 10000": 4.0}, None, 1e4, [100])
    left, right = figure.axes
    (hz,) = left.child_axes
    figure.savefig(io.BytesIO())
    assert hz.get_ylim() == pytest.approx(tuple(1e4 * end for end in left.get_ylim()))
    assert "Hz" in hz.get_ylabel() and "Hz" in right.get_xlabel()
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "100 Hz asked for" in texts and texts.count("near") == 1


def test_with_one_class_there_is_nothing_to_keep() -> None:
    figure = selected_fraction(np.arange(50.0), np.zeros(50, int), input_hz=1e4, accepted=[10])
    assert [axis.get_visible() for axis in figure.axes] == [True, False]


def test_weights_count() -> None:
    s, y = rows()
    heavy = np.where(s > np.median(s), 2.0, 1.0)
    axis, plain = Figure().subplots(), Figure().subplots()
    kept_at_rate(axis, s, y, 1e4, (), (), heavy)
    kept_at_rate(plain, s, y, 1e4)
    assert not np.allclose(axis.lines[0].get_ydata(), plain.lines[0].get_ydata())


def test_a_run_has_a_threshold_for_each_rate(straylight_train) -> None:
    options = ["callbacks.thresholds.input_hz=1000", "data.val_fraction=0.4", "callbacks.figures.only=[selected]"]
    several = "callbacks.thresholds.accept_hz=[100,20,300]"
    ended = straylight_train("detector=pca", "data=blobs", *options, several)
    assert ended.status == 0, ended.err
    found = [entry for entry in ended.result["thresholds"] if entry["rule"] == "rate"]
    assert [entry["accept_hz"] for entry in found] == [100, 20, 300]
    opened = Run.open(ended.run)
    assert {"rate=100", "rate=20", "rate=300"} <= set(opened.thresholds) and "rate" not in opened.thresholds
    assert opened.thresholds["rate=20"] > opened.thresholds["rate=100"] > opened.thresholds["rate=300"]
    flagged = [opened.flag(np.zeros((3, 2)) + 100, f"rate={rate}") for rate in (20, 100)]
    assert all(part.all() for part in flagged)
    assert (ended.run / "figures" / "selected.png").is_file() and "figures_failed" not in ended.result
    one = straylight_train("detector=pca", "data=blobs", *options, "callbacks.thresholds.accept_hz=100", output="one")
    assert "rate" in Run.open(one.run).thresholds
    assert one.result["thresholds"][2]["value"] == found[0]["value"]


@pytest.mark.parametrize(
    ("given", "said"),
    [("[10,fast]", "should be a number, not 'fast'."), ("fast", "should be a number, or a list, not 'fast'.")],
)
def test_what_is_no_rate_is_answered_by_its_key(given, said, straylight_train) -> None:
    options = ["callbacks.thresholds.input_hz=1000", f"callbacks.thresholds.accept_hz={given}"]
    ended = straylight_train("detector=pca", "data=blobs", *options)
    assert ended.status == 1 and f"callbacks.thresholds.accept_hz {said}" in ended.err
