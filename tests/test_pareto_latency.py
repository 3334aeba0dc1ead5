"""The Pareto front against its definition; latency with a clock that is planted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from straylight.metrics.latency import measure
from straylight.metrics.pareto import pareto_front

grid = st.one_of(st.integers(0, 5).map(float), st.just(float("nan")), st.just(float("inf")))


def unbeaten(points):
    """The definition, pair by pair."""
    known = [i for i, p in enumerate(points) if not np.isnan(p).any()]
    beats = lambda a, b: a[0] <= b[0] and a[1] >= b[1] and a != b  # noqa: E731
    return {i for i in known if not any(beats(points[j], points[i]) for j in known)}


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(grid, grid), max_size=12))
def test_front_is_what_no_point_beats(points):
    front = pareto_front([p[0] for p in points], [p[1] for p in points]).tolist()
    assert len(front) == len(set(front)) and set(front) == unbeaten(points)
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=30))
def test_front_of_real_numbers_is_what_no_point_beats(points):
    assert set(pareto_front([p[0] for p in points], [p[1] for p in points]).tolist()) == unbeaten(points)


def test_points_with_a_nan_are_left_out_of_the_front():
    assert pareto_front([1, np.nan, 2], [0.5, 0.9, np.nan]).tolist() == [0]
    assert pareto_front([np.nan], [np.nan]).tolist() == []


class Device:
    """A clock that moves by planted durations, and only while a call is under way."""

    def __init__(self, seconds):
        self.now, self.log, self.seconds = 0.0, [], iter(seconds)

    def call(self):
        self.log.append("call")
        self.now += next(self.seconds)

    def clock(self):
        self.log.append("clock")
        return self.now

    def synchronise(self):
        self.log.append("synchronise")


def measured(seconds, **options):
    device = Device(seconds)
    options = {"events": 1, "warmup": 0, "budget_s": 1e9, "repeats": (1, len(seconds))} | options
    return measure(device.call, clock=device.clock, synchronise=device.synchronise, **options), device.log


def test_percentiles_of_planted_durations_are_exact():
    seconds = np.random.default_rng(0).permutation(np.arange(1, 102)) * 2.0**-10  # exact in binary
    found, _ = measured(seconds, events=64)
    exact = {"p50_us": 51, "p95_us": 96, "p99_us": 100, "mean_us": 51}
    for name, thousandth in exact.items():
        assert found[name] == pytest.approx(thousandth * 2.0**-10 * 1e6, rel=1e-12)
    assert found["events_per_s"] == pytest.approx(64 / (51 * 2.0**-10), rel=1e-12)
    assert found["repeats"] == 101


def test_warm_up_calls_do_not_count():
    found, log = measured([100.0, 100.0, 1.0, 1.0, 1.0], warmup=2, repeats=(3, 3))
    assert found["p50_us"] == found["mean_us"] == 1e6
    assert log.count("call") == 5


@pytest.mark.parametrize(("repeats", "given"), [(5, []), (19, []), (20, ["p95_us"]), (99, ["p95_us"])])
def test_a_percentile_beyond_all_repeats_is_not_given(repeats, given):
    found, _ = measured([1.0] * repeats)
    assert [name for name in ("p95_us", "p99_us") if found[name] is not None] == given
    assert measured([1.0] * 100)[0]["p99_us"] == 1e6


def test_a_call_much_longer_than_the_budget_is_timed_once():
    found, log = measured([90.0, 50.0, 1.0, 1.0], warmup=3, budget_s=4.0, repeats=(2, 3))
    assert found["p50_us"] == 50e6 and found["repeats"] == 1 and log.count("call") == 2
    # the first may take as long as it likes: a network is compiled then
    found, log = measured([90.0, 3.0, 1.0, 2.0], warmup=2, budget_s=4.0, repeats=(2, 2))
    assert found["mean_us"] == 1.5e6 and log.count("call") == 4


@pytest.mark.parametrize(("seconds", "repeats"), [(5.0, 5), (10.0, 4), (15.0, 2), (19.0, 2), (21.0, 1)])
def test_a_call_longer_than_the_budget_is_timed_as_often_as_ten_budgets_allow(seconds, repeats):
    found, log = measured([seconds] * 100, warmup=3, budget_s=4.0, repeats=(5, 100))
    assert found["repeats"] == repeats and log.count("call") == 1 + repeats  # the second warm-up call counts


def test_device_is_synchronised_before_each_reading_of_the_clock():
    _, log = measured([1.0] * 6, warmup=2, repeats=(4, 4))
    # between two readings there is work only within a timed call, and that is waited for
    assert log == ["clock", "call", "synchronise", "clock"] * 6


def test_no_call_is_started_once_the_budget_is_spent():
    found, log = measured([1.0] * 100, budget_s=6.5, repeats=(2, 100))
    assert found["repeats"] == log.count("call") == 7


def test_least_repeats_are_made_whatever_the_budget():
    assert measured([10.0] * 100, budget_s=0.0, repeats=(5, 100))[0]["repeats"] == 5


def test_most_repeats_are_not_exceeded_whatever_the_budget():
    assert measured([1e-6] * 100, budget_s=1e9, repeats=(5, 17))[0]["repeats"] == 17


def test_a_clock_that_stands_still_gives_an_infinite_rate():
    assert measured([0.0] * 5, repeats=(5, 5))[0]["events_per_s"] == float("inf")
