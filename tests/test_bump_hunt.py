"""The statistics of a bump hunt: bins, fits, counts and sculpting, against independent computations."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import chi2_contingency, gamma, kstest, nbinom, norm, poisson

from straylight.metrics.bump import Bins, Excess, NoFit, Spectrum, excess, fit, global_excess, hunt, sculpting
from straylight.metrics.bump.fitting import chosen
from straylight.metrics.bump.shapes import NESTED

REGION, SPAN = (3.3, 3.7), (3.0, 4.5)


def falling(rng: np.random.Generator, events: float, slope: float = 1.0) -> NDArray[np.float64]:
    """m of a Poisson number of events of law exp(-slope m) on [3, 4.5]."""
    u = rng.random(rng.poisson(events))
    return 3 - np.log1p(-u * (1 - np.exp(-slope * 1.5))) / slope


# bins


@pytest.mark.parametrize("region", [(3.3, 3.7), (3.02, 3.06), (4.1, 4.45), (3.01, 4.49)])
@pytest.mark.parametrize("sidebands", [4, 10, 40])
def test_edges_lie_on_the_limits_and_sidebands_are_divided_evenly(region: tuple[float, float], sidebands: int) -> None:
    edges, inside = Bins.around(region, SPAN, sidebands)
    assert (np.diff(edges) > 0).all() and (edges[0], edges[-1]) == SPAN
    assert edges[:-1][inside][0] == region[0] and edges[1:][inside][-1] == region[1]
    for part in (edges[edges <= region[0]], edges[edges >= region[1]]):
        assert len(part) > 2 and np.diff(part) == pytest.approx(np.diff(part)[0])
    assert sidebands <= (~inside).sum() <= sidebands + 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits_belong_to_the_region_and_ends_to_the_spectrum(dtype: type) -> None:
    m = np.array([3.0, 3.3, 3.7, 4.5, 2.9, 4.6], dtype)
    spectrum = Spectrum.of(m, Bins.around(REGION, SPAN, 10))
    assert spectrum.observed == 2 and spectrum.counts.sum() == 4
    assert spectrum.counts[0] == 1 and spectrum.counts[-1] == 1


def test_events_are_counted_as_numpy_does() -> None:
    m = np.random.default_rng(0).uniform(2.9, 4.6, 10_000)
    spectrum = Spectrum.of(m, Bins.around(REGION, SPAN, 40))
    assert (spectrum.counts == np.histogram(m, spectrum.bins.edges)[0]).all()


@pytest.mark.parametrize(
    ("region", "said"),
    [
        ((3.0, 3.4), "no sideband below"),
        ((4.0, 4.5), "no sideband above"),
        ((5.0, 6.0), "no sideband above"),
        ((3.7, 3.3), "the lower first"),
        ((math.nan, 3.3), "two finite limits"),
    ],
)
def test_a_region_without_two_sidebands_is_refused(region: tuple[float, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hunt(np.linspace(3, 4.5, 1000), region)


def test_a_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 3 values of the resonant variable are NaN"):
        Spectrum.of([3.0, math.nan, 4.0], Bins.around(REGION, SPAN, 10))


# fits

LAWS: dict[str, Callable[[float, NDArray[np.float64]], float]] = {
    "exp2": lambda m, p: math.exp(np.polyval(p, m - 3.75)),
    "exp3": lambda m, p: math.exp(np.polyval(p, m - 3.75)),
    "exp4": lambda m, p: math.exp(np.polyval(p, m - 3.75)),
    "dijet3": lambda m, p: math.exp(p[0]) * (1 - m / 9) ** p[1] * (m / 9) ** -p[2],
    "dijet4": lambda m, p: math.exp(p[0]) * (1 - m / 9) ** p[1] * (m / 9) ** (-p[2] - p[3] * math.log(m / 9)),
    "dijet5": lambda m, p: (
        math.exp(p[0]) * (1 - m / 9) ** p[1] * (m / 9) ** (-p[2] - p[3] * math.log(m / 9) - p[4] * math.log(m / 9) ** 2)
    ),
}


@pytest.mark.parametrize("function", LAWS)
def test_a_fit_is_the_maximum_that_scipy_finds_or_a_better_one(function: str) -> None:
    spectrum = Spectrum.of(falling(np.random.default_rng(1), 4000), Bins.around(REGION, SPAN, 12))
    edges, inside = spectrum.bins
    sides, law = np.flatnonzero(~inside), LAWS[function]
    n = spectrum.counts[sides]

    def expected(p: NDArray[np.float64], bins: NDArray[np.intp]) -> NDArray[np.float64]:
        # Simpson's rule with 20 intervals, which knows nothing of Gauss and Legendre
        found = []
        for b in bins:
            m = np.linspace(edges[b], edges[b + 1], 21)
            w = np.array([1, *[4, 2] * 9, 4, 1]) * (m[1] - m[0]) / 3
            found.append(sum(a * law(x, p) for a, x in zip(w, m, strict=True)))
        return np.array(found)

    def lost(p: NDArray[np.float64]) -> float:
        mu = expected(p, sides)
        return float(np.sum(mu - n * np.log(mu))) if (mu > 0).all() and np.isfinite(mu).all() else 1e9

    start = np.zeros(int(function[-1]) + function.startswith("exp"))
    if function.startswith("exp"):
        start[-2:] = [-1.0, math.log(n.sum() / 1.1)]
    else:
        start[:3] = [6.0, 2.0, 3.0]
    ours = fit(spectrum, function)
    best = minimize(lost, start, method="BFGS", options={"gtol": 1e-4})
    constant = float(np.sum(n - np.where(n > 0, n * np.log(np.maximum(n, 1)), 0)))
    assert ours.deviance <= 2 * (best.fun - constant) + 1e-5  # n - n log n is that of a perfect fit
    if function in ("exp2", "exp3", "exp4", "dijet3"):  # where BFGS arrives
        assert ours.deviance == pytest.approx(2 * (best.fun - constant), abs=2e-3)
        inside_ = expected(best.x, np.flatnonzero(inside)).sum()
        assert ours.background == pytest.approx(inside_, abs=0.1 * ours.uncertainty)


def test_the_uncertainty_is_that_of_the_likelihood() -> None:
    """Against the profile: how far the region's count moves until 2 log L falls by one."""
    spectrum = Spectrum.of(falling(np.random.default_rng(2), 60_000), Bins.around(REGION, SPAN, 12))
    edges, inside = spectrum.bins
    n, middle, wide = spectrum.counts, (edges[1:] + edges[:-1]) / 2 - 3.75, np.diff(edges)
    found = fit(spectrum, "exp2")

    def lost(p: NDArray[np.float64], region: float | None) -> float:
        shape = np.exp(p[0] * middle + p[1] * middle**2) * wide
        mu = shape * (np.exp(p[2]) if region is None else region / shape[inside].sum())
        return float(2 * np.sum((mu - n * np.log(mu))[~inside]))

    start = np.array([-1.0, 0.0, math.log(n.sum() / 1.1)])
    free = minimize(lost, start, (None,), "BFGS").fun

    def fallen(by: float) -> float:
        return float(minimize(lost, start[:2], (found.background + by * found.uncertainty,), "BFGS").fun) - free

    assert fallen(1) == pytest.approx(1, abs=0.15) and fallen(-1) == pytest.approx(1, abs=0.15)


def test_a_bins_expectation_is_the_integral_over_it() -> None:
    m = 3 - np.log1p(-np.linspace(0, 1, 200_001)[:-1] * (1 - np.exp(-1.5)))  # exp(-m), each quantile
    spectrum = Spectrum.of(m, Bins.around(REGION, SPAN, 4))
    found = fit(spectrum, "exp2")  # three parameters, four bins
    edges = spectrum.bins.edges
    true = [200_000 * quad(lambda x: math.exp(3 - x) / (1 - math.exp(-1.5)), a, b)[0] for a, b in pairwise(edges)]
    assert found.expected == pytest.approx(true, rel=1e-3)


def test_units_of_m_change_nothing() -> None:
    m = falling(np.random.default_rng(3), 4000)
    for function in ("exp4", "dijet5"):
        tev = hunt(m, REGION, SPAN, function=function)
        gev = hunt(1000 * m, (3300, 3700), (3000, 4500), function=function)
        assert gev.fit.background == pytest.approx(tev.fit.background, rel=1e-6)
        assert gev.fit.uncertainty == pytest.approx(tev.fit.uncertainty, rel=1e-5)


def test_events_of_the_region_change_no_fit() -> None:
    rng = np.random.default_rng(4)
    m = falling(rng, 4000)
    more = np.append(m, rng.uniform(3.31, 3.69, 5000))
    plain, signal = (fit(Spectrum.of(x, Bins.around(REGION, SPAN, 40)), "exp3") for x in (m, more))
    assert (plain.expected == signal.expected).all() and plain.uncertainty == signal.uncertainty


def test_an_f_test_takes_a_higher_order_where_it_is_needed_and_seldom_else() -> None:
    rng = np.random.default_rng(5)
    bins = Bins.around(REGION, SPAN, 40)
    orders = ("exp2", "exp3", "exp4")
    plain = [chosen(Spectrum.of(falling(rng, 4000), bins), orders).function for _ in range(100)]
    assert plain.count("exp2") >= 95
    x = rng.uniform(3, 4.5, 400_000)
    bent = x[rng.random(len(x)) < np.exp(-((x - 3) ** 3))]
    assert chosen(Spectrum.of(bent, bins), orders).function in ("exp3", "exp4")


SLIM = Bins.around(REGION, SPAN, 10)


def counted(**at: int) -> Spectrum:
    counts = np.zeros(len(SLIM.inside), np.int64)
    for bin_, n in at.items():
        counts[int(bin_[1:])] = n
    return Spectrum(SLIM, counts)


@pytest.mark.parametrize("function", ["exp2", "dijet3"])
@pytest.mark.parametrize(
    ("spectrum", "said"),
    [
        (counted(), "no event is left in the sideband below"),
        (counted(_0=50, _1=30), "no event is left in the sideband above"),
        (counted(_6=50, _7=30), "no event is left in the sideband below"),
        (counted(_0=5, _9=3), "fill 2 of their bins, and .* has 3 parameters"),
    ],
    ids=["none", "below alone", "above alone", "two bins"],
)
def test_what_cannot_be_fitted_says_so(spectrum: Spectrum, said: str, function: str) -> None:
    with pytest.raises(NoFit, match=said):
        fit(spectrum, function)


def test_a_fit_that_takes_too_many_steps_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    spectrum = Spectrum.of(np.linspace(3, 4.5, 1000) ** 2 / 4.5, SLIM)
    monkeypatch.setattr("straylight.metrics.bump.fitting.STEPS", 1)
    with pytest.raises(NoFit, match=r"the fit of exp2 to the \d+ events of the sidebands does not converge"):
        fit(spectrum, "exp2")


@pytest.mark.parametrize("counts", [[10**15, 0] * 8, [0, 1] * 8, [10**9, *[0] * 14, 1], [*range(16)]])
@pytest.mark.parametrize("function", ["exp2", "exp4", "dijet3"])
def test_odd_counts_end_in_numbers_or_in_a_sentence(counts: list[int], function: str) -> None:
    spectrum = Spectrum(SLIM, np.array(counts[: len(SLIM.inside)]))
    try:
        found = fit(spectrum, function)
    except NoFit:
        return
    assert np.isfinite([found.background, found.uncertainty, found.deviance, *found.expected, *found.error]).all()


def test_sparse_sidebands_give_a_wide_answer_or_a_sentence() -> None:
    rng, fitted = np.random.default_rng(6), 0
    for _ in range(300):
        try:
            found = hunt(falling(rng, rng.choice([3, 6, 12, 25])), REGION, SPAN, function="exp2")
        except ValueError as error:
            assert "\n" not in str(error) and "converge" not in str(error)
            continue
        fitted += 1
        assert np.isfinite([found.fit.background, found.fit.uncertainty, found.excess.z]).all()
        assert found.fit.uncertainty > 0
    assert fitted > 150


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"function": "exp9"}, "there is no function 'exp9': exp2"),
        ({"bins": 4}, "10 bins or more"),
        ({"level": 0.0}, "a level between 0 and 1"),
        ({"width": 0.0}, "a width above 0"),
        ({"function": "dijet3", "scale": 4.0}, "below its scale, 4,"),
    ],
)
def test_settings_are_checked(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hunt(falling(np.random.default_rng(0), 1000), REGION, SPAN, **given)  # type: ignore[arg-type]


def test_no_event_is_refused() -> None:
    with pytest.raises(ValueError, match="no event to look for an excess in"):
        hunt([], REGION, SPAN)


# counts


@pytest.mark.parametrize("observed", [0, 1, 5, 30, 90])
@pytest.mark.parametrize(("expected", "uncertainty"), [(4.0, 0.5), (25.0, 6.0), (25.0, 0.0), (0.3, 0.3), (80.0, 1e-12)])
def test_p_is_the_sum_over_the_negative_binomial(observed: int, expected: float, uncertainty: float) -> None:
    if uncertainty > 1e-9:
        a = (expected / uncertainty) ** 2
        law = nbinom(a, a / (a + expected))
    else:
        law = poisson(expected)
    found = excess(observed, expected, uncertainty)
    assert found.p == pytest.approx(law.sf(observed - 1), rel=1e-9)
    assert excess(observed, expected, uncertainty, mid=True).p == pytest.approx(
        law.sf(observed) + law.pmf(observed) / 2, rel=1e-9
    )
    if found.p < 0.5:
        assert found.z == pytest.approx(norm.isf(found.p))
    else:
        assert found.z == pytest.approx(min(norm.ppf(law.cdf(observed)), 0.0), abs=1e-9)


def test_p_is_what_gamma_and_poisson_give_when_drawn() -> None:
    rng = np.random.default_rng(7)
    n = rng.poisson(gamma(25, scale=4).rvs(1_000_000, random_state=rng))  # mean 100, deviation 20
    for observed in (100, 130, 150):
        p = excess(observed, 100, 20).p
        assert (n >= observed).mean() == pytest.approx(p, abs=4 * math.sqrt(p / 1_000_000))


@pytest.mark.parametrize("uncertainty", [0.0, 1e-5, 3.0])
def test_the_far_tail_goes_on_where_p_ends(uncertainty: float) -> None:
    z = [excess(n, 100, uncertainty).z for n in range(100, 3000, 10)]
    steps = np.diff(z)
    assert (steps > 0).all() and (np.diff(steps)[1:] < 1e-3).all()  # no kink where the sum takes over
    far = excess(2000, 100, uncertainty)
    assert far.p == 0.0 and far.z > 38 and np.isfinite(far.log_p)


def test_a_tail_summed_is_the_tail_of_the_beta_function(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ((300, 100.0, 12.0), (300, 100.0, 0.0), (10_200, 10_000.0, 35.0)):
        plain = excess(*given)
        with monkeypatch.context() as patched:
            patched.setattr("straylight.metrics.bump.counting.TINY", 1.0)
            assert excess(*given).log_p == pytest.approx(plain.log_p, rel=1e-8)


def test_a_width_divides_z() -> None:
    plain = excess(150, 100, 5)
    narrow = plain.narrowed(1.3)
    assert narrow.z == pytest.approx(plain.z / 1.3) and narrow.p == pytest.approx(norm.sf(plain.z / 1.3))
    assert plain.narrowed(1.0) is plain


@pytest.mark.parametrize(
    ("n", "expected", "uncertainty"), [(-1, 1.0, 0.0), (1, 0.0, 0.0), (1, 1.0, -1.0), (1, 1.0, math.inf)]
)
def test_a_count_that_is_none_is_refused(n: int, expected: float, uncertainty: float) -> None:
    with pytest.raises(ValueError, match="compared with an expectation above 0"):
        excess(n, expected, uncertainty)


def test_a_global_p_value_is_that_of_the_smallest_of_independent_ones() -> None:
    rng = np.random.default_rng(8)
    smallest = rng.random((200_000, 7)).min(1)
    assert (smallest < 0.01).mean() == pytest.approx(global_excess(Excess.of(math.log(0.01)), 7).p, rel=0.03)
    tail = global_excess(excess(2000, 100, 3.0), 7)
    assert tail.log_p == pytest.approx(excess(2000, 100, 3.0).log_p + math.log(7))
    assert global_excess(Excess.of(math.log(0.01)), 1).p == pytest.approx(0.01)
    with pytest.raises(ValueError, match="one region or more"):
        global_excess(Excess.of(-1.0), 0)


# calibration


@pytest.mark.parametrize(
    ("law", "events", "function"),
    [("bump", 4000, "ftest"), ("bump", 60_000, "ftest"), ("steep", 4000, "exp2"), ("steep", 60_000, "exp2")],
)
def test_p_values_of_backgrounds_are_uniform_and_leaving_the_uncertainty_out_is_wrong(
    law: str, events: int, function: str
) -> None:
    rng, with_it, without = np.random.default_rng(9), [], []
    bins, slope = Bins.around(REGION, SPAN, 40), 1.0 if law == "bump" else 4.0
    shares = np.diff(-np.exp(-slope * (bins.edges - 3))) / (1 - math.exp(-slope * 1.5))
    for _ in range(500):
        spectrum = Spectrum(bins, rng.poisson(events * shares))
        found = chosen(spectrum, NESTED.get(function, (function,)))
        for kept, uncertainty in ((with_it, found.uncertainty), (without, 0.0)):
            kept.append(excess(spectrum.observed, found.background, uncertainty, mid=True))
    p, z = (np.array([getattr(one, name) for one in with_it]) for name in ("p", "z"))
    assert kstest(p, "uniform").pvalue > 0.01
    assert abs(z.mean()) < 0.15 and 0.9 < z.std() < 1.1
    assert 10 <= (p < 0.05).sum() <= 42  # 25 are expected
    narrow = np.array([one.p for one in without])
    assert kstest(narrow, "uniform").pvalue < 0.01
    assert (narrow < 0.05).sum() > 1.7 * (p < 0.05).sum()  # twice the false alarms


def test_a_signal_is_found() -> None:
    rng = np.random.default_rng(10)
    m = np.append(falling(rng, 20_000), rng.normal(3.5, 0.05, 600))
    found = hunt(m, REGION, SPAN)
    assert found.excess.z > 5
    entry = found.entry()
    assert entry["observed"] == sum(entry["counts"][i] for i in np.flatnonzero(found.spectrum.bins.inside))
    assert len(entry["edges"]) == len(entry["fit"]) + 1 == len(entry["fit_error"]) + 1


# sculpting


def test_the_chi_squared_is_pearsons_of_kept_and_removed() -> None:
    before, after = np.array([500, 300, 200, 100]), np.array([60, 25, 30, 5])
    found = sculpting(before, after)
    other = chi2_contingency([after, before - after], correction=False)
    assert (found.chi2, found.dof, found.p) == pytest.approx((other.statistic, other.dof, other.pvalue))


def test_the_divergence_is_by_hand() -> None:
    p, q = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    middle = (p + q) / 2
    bits = 0.5 * np.sum(p * np.log2(p / middle)) + 0.5 * np.sum(q * np.log2(q / middle))
    assert sculpting([500, 500], [90, 10]).jsd == pytest.approx(bits)
    assert sculpting([500, 500], [50, 50]).jsd == pytest.approx(0, abs=1e-15)
    assert sculpting([100, 10**6], [100, 0]).jsd == pytest.approx(1, abs=0.01)  # nothing in common


def test_by_chance_p_is_uniform_and_the_divergence_as_large_as_said() -> None:
    rng = np.random.default_rng(11)
    m, edges = np.sort(falling(rng, 20_000)), np.linspace(3, 4.5, 31)
    before = np.histogram(m, edges)[0]
    found = [sculpting(before, np.histogram(rng.choice(m, 6000, replace=False), edges)[0]) for _ in range(300)]
    assert kstest([one.p for one in found], "uniform").pvalue > 0.01
    assert np.mean([one.jsd for one in found]) == pytest.approx(found[0].chance, rel=0.05)


def test_very_many_events_are_no_trouble() -> None:
    found = sculpting([10**9, 10**9], [10**6, 10**6 + 500])
    assert found.jsd < 1e-6 and found.chance < 1e-6 and found.p > 0.5


def test_a_cut_that_bends_is_seen() -> None:
    rng = np.random.default_rng(12)
    m, edges = falling(rng, 20_000), np.linspace(3, 4.5, 31)
    kept = m[rng.random(len(m)) < 0.1 * (1 + 0.5 * (m - 3.5))]
    assert sculpting(np.histogram(m, edges)[0], np.histogram(kept, edges)[0]).p < 1e-6


def test_next_to_no_event_has_no_chi_squared_and_none_is_refused() -> None:
    found = sculpting([100, 100], [1, 1])
    assert found.dof == 0 and found.p == 1.0
    with pytest.raises(ValueError, match="no event is kept"):
        sculpting([100, 100], [0, 0])
    with pytest.raises(ValueError, match="a part of those that there were"):
        sculpting([1, 100], [2, 0])
