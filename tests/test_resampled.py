"""The interval of the largest significance improvement."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import norm

from straylight.metrics.ranking import max_sic
from straylight.metrics.resampled import max_sic_interval


def true_max_sic(mean: float, deviation: float, nominal: int) -> float:
    """Of a normal signal beside a standard normal background, where 25 events are expected above."""
    t = np.linspace(-3, 6, 20_001)
    fpr = norm.sf(t)
    return float((norm.sf((t - mean) / deviation) / np.sqrt(fpr))[fpr * nominal >= 25].max())


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng, truth, held = np.random.default_rng(1), true_max_sic(2, 0.5, 5000), 0
    for seed in range(120):
        found = max_sic_interval(rng.normal(size=5000), rng.normal(2, 0.5, 500), seed=seed)
        assert found is not None
        held += found.interval[0] <= truth <= found.interval[1]
    assert 105 <= held <= 120  # of 120: 0.875 and more


def test_the_resamples_are_those_of_rows_drawn_one_by_one() -> None:
    rng = np.random.default_rng(2)
    nominal, anomalous = rng.normal(size=400).round(1), rng.normal(1.5, 1, 60).round(1)  # with ties
    slow = []
    for _ in range(2000):
        a, b = (np.repeat(x, rng.poisson(1, len(x))) for x in (nominal, anomalous))
        slow.append(max_sic(a, b)[0])  # type: ignore[index]
    value = max_sic(nominal, anomalous)[0]  # type: ignore[index]
    found = max_sic_interval(nominal, anomalous, resamples=2000)
    assert found is not None and found.value == value
    assert found.bias == pytest.approx(np.mean(slow) - value, abs=4 * np.std(slow) / np.sqrt(1000))
    limits = np.quantile(slow, [0.025, 0.975]) - 2 * (np.mean(slow) - value)
    assert found.interval == pytest.approx([min(limits[0], value), max(limits[1], value)], abs=0.25 * np.std(slow))


def test_weights_of_one_change_nothing_and_a_constant_weight_next_to_nothing() -> None:
    rng = np.random.default_rng(3)
    nominal, anomalous = rng.normal(size=2000), rng.normal(2, 1, 300)
    plain = max_sic_interval(nominal, anomalous)
    assert max_sic_interval(nominal, anomalous, np.ones(2000), np.ones(300)) == plain
    heavy = max_sic_interval(nominal, anomalous, np.full(2000, 3.0), np.full(300, 0.5))
    assert plain is not None and heavy is not None
    assert heavy.interval == pytest.approx(plain.interval)


def test_too_few_nominal_events_have_no_interval_and_settings_are_checked() -> None:
    assert max_sic_interval(np.arange(24.0), np.arange(5.0)) is None
    for wrong in ({"level": 1.0}, {"resamples": 1}):
        with pytest.raises(ValueError, match="level between 0 and 1 and two resamples"):
            max_sic_interval(np.arange(30.0), np.arange(5.0), **wrong)  # type: ignore[arg-type]


def test_220_000_rows_take_well_under_two_seconds() -> None:
    rng = np.random.default_rng(4)
    nominal, anomalous = rng.normal(size=200_000), rng.normal(2.5, 1, 20_000)
    took = time.thread_time()
    max_sic_interval(nominal, anomalous)
    assert time.thread_time() - took < 2
