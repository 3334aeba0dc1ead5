"""Detectors compared over data sets, against scipy and by hand, and what a report makes of it."""

from __future__ import annotations

import io
import itertools
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from straylight.folder import SweepFolder
from straylight.metrics.across import Pair, across, alike, holm
from straylight.metrics.signed_ranks import friedman, ranked, wilcoxon
from straylight.report import compared, figures
from straylight.report.leaderboard import grouped, interval
from straylight.report.runs import write_parquet
from test_report import result, said, write


def test_ranks_share_the_mean_of_ties() -> None:
    found = across([[0.9, 0.9, 0.1], [0.5, 0.6, 0.7]])
    assert found.average_ranks.tolist() == [2.25, 1.75, 2.0]


def test_few_data_sets_are_ranked_and_not_tested() -> None:
    table = np.random.default_rng(0).random((5, 3))
    found = across(table)
    assert found.friedman is None and found.pairs == ()
    assert found.sentence == (
        "5 data sets are too few to test whether detectors differ (6 are needed): average ranks only."
    )


def test_friedman_comes_first_and_stops_where_nothing_differs() -> None:
    table = np.random.default_rng(0).random((12, 4))
    found = across(table)
    assert found.friedman == pytest.approx(stats.friedmanchisquare(*table.T).pvalue)
    assert found.friedman > 0.05 and found.pairs == () and "does not tell the detectors apart" in found.sentence


def test_pairs_are_wilcoxons_with_holms_correction() -> None:
    random = np.random.default_rng(1)
    table = random.random((15, 4)) * 0.2 + [0.7, 0.5, 0.5, 0.1]
    found = across(table)
    assert found.friedman is not None and found.friedman < 0.05
    assert len(found.pairs) == 6
    for pair in found.pairs:
        assert pair.p == pytest.approx(stats.wilcoxon(table[:, pair.first], table[:, pair.second]).pvalue)
    expected = stats.false_discovery_control  # not Holm's: another correction must not do
    assert holm([p.p for p in found.pairs]) == [p.corrected for p in found.pairs]
    assert not np.allclose([p.corrected for p in found.pairs], expected([p.p for p in found.pairs]))
    by = {(p.first, p.second): p.corrected for p in found.pairs}
    assert by[0, 3] < 0.05 < by[1, 2]
    assert found.sentence.startswith("Friedman's test says that they differ (p = ")


def test_two_detectors_are_compared_by_wilcoxon_alone() -> None:
    table = np.c_[np.linspace(0.6, 0.9, 8), np.linspace(0.5, 0.8, 8)]
    found = across(table)
    assert found.friedman is None and found.pairs[0].p == pytest.approx(1 / 128)
    assert found.sentence == "Of 1 pair, 1 differ by Wilcoxon's test with Holm's correction at 0.05 (8 data sets)."


@pytest.mark.parametrize(("detectors", "sets", "needed"), [(8, 10, 11), (4, 7, 8), (4, 6, 8), (3, 6, 7)])
def test_too_many_pairs_for_so_few_data_sets_are_said_to_be(detectors: int, sets: int, needed: int) -> None:
    table = np.arange(detectors) + np.linspace(0, 0.5, sets)[:, None] * np.arange(1, detectors + 1)
    found = across(table)  # as different as can be
    assert not any(pair.corrected < 0.05 for pair in found.pairs)
    assert found.sentence.endswith(f"cannot differ on fewer than {needed} data sets: compare fewer detectors.")
    table = np.arange(detectors) + np.linspace(0, 0.5, needed)[:, None] * np.arange(1, detectors + 1)
    found = across(table)
    assert all(pair.corrected < 0.05 for pair in found.pairs) and "cannot" not in found.sentence


def test_detectors_that_are_always_equal_do_not_differ() -> None:
    assert across(np.ones((8, 3))).friedman == 1.0
    assert across(np.ones((8, 2))).pairs[0].p == 1.0


@pytest.mark.parametrize("table", [[0.5], [[0.5, np.nan]], np.empty((0, 3))])
def test_a_table_with_gaps_is_refused(table) -> None:
    with pytest.raises(ValueError, match="full table of data sets by detectors"):
        across(table)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_step_by_step(p: list[float]) -> None:
    corrected = holm(p)
    for level in (0.01, 0.05, 0.3):
        rejected, m = set(), len(p)
        for k, i in enumerate(sorted(range(m), key=lambda i: p[i])):
            if p[i] * (m - k) >= level:
                break
            rejected.add(i)
        assert {i for i in range(m) if corrected[i] < level} == rejected


def test_groups_that_cannot_be_told_apart_are_the_largest_ones() -> None:
    def pairs(*apart):
        places = [(i, j) for i in range(4) for j in range(i + 1, 4)]
        return [Pair(i, j, 0.0, 0.001 if (i, j) in apart else 0.9) for i, j in places]

    assert alike(4, pairs(), [1, 2, 3, 4]) == [(0, 1, 2, 3)]
    assert alike(4, pairs((0, 3)), [1, 2, 3, 4]) == [(0, 1, 2), (1, 2, 3)]
    assert alike(4, pairs((0, 3), (1, 3), (2, 3)), [4, 2, 3, 1]) == [(1, 2, 0)]
    assert alike(4, pairs(*[(i, j) for i in range(4) for j in range(i + 1, 4)]), [1, 2, 3, 4]) == []


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_picture_places_detectors_by_rank_and_joins_groups(count: int) -> None:
    random = np.random.default_rng(0)
    names = [f"a detector of long name {i}" for i in range(count)]
    found = across(random.random((20, count)) * 0.4 + np.linspace(0.6, 0, count))
    figure = figures.critical_difference(found, names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png")
    axis = figure.axes[0]
    assert {t.get_text().strip() for t in axis.texts} == {
        f"{name}  {rank:.2f}" for name, rank in zip(names, found.average_ranks, strict=True)
    }
    feet = sorted(line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 3)
    assert feet == pytest.approx(sorted(found.average_ranks))
    bars = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 2]
    assert len(bars) == len(alike(count, found.pairs, found.average_ranks))
    boxes = [t.get_window_extent() for t in axis.texts]
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k]), "names overlap"
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes), "a name is cut"
    with pytest.raises(ValueError, match="names given"):
        figures.critical_difference(found, names[1:])


def test_an_interval_over_seeds_is_students() -> None:
    values = [0.8, 0.83, 0.9, 0.7]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert interval(values) == pytest.approx(expected)
    assert interval([0.8]) is None


def made(sets: int = 7) -> list[dict]:
    quality = {"knn": 0.9, "pca": 0.6, "vae": 0.3}
    return [
        result(name, f"set {k}", seed, auroc=base + 0.01 * k + 0.001 * seed)
        for name, base in quality.items()
        for k in range(sets)
        for seed in (0, 1)
    ]


def test_the_unit_is_a_data_sets_mean_over_seeds() -> None:
    found = compared.over_sets(grouped([*made(), result("knn", "alone")]))
    assert found is not None
    across_sets, names = found
    assert names == ["knn", "pca", "vae"] and across_sets.sets == 7
    assert across_sets.average_ranks.tolist() == [1, 2, 3]
    assert compared.over_sets(grouped(made(1))) is None


def test_a_report_says_how_detectors_compare_and_keeps_every_run(tmp_path) -> None:
    write(tmp_path, *made())
    (tmp_path / "0" / ".hydra").mkdir()
    (tmp_path / "0" / ".hydra" / "config.yaml").write_text("seed: 0\ndetector: {k: 5, hidden: [3, 4]}\n")
    (tmp_path / "1" / ".hydra").mkdir()
    (tmp_path / "1" / ".hydra" / "config.yaml").write_text("seed: 1\ndetector: {k: all}\n")
    out, _ = said(tmp_path)
    assert "average rank" in out and "Friedman's test says that they differ" in out
    assert (tmp_path / "ranks.png").is_file()
    table = pq.read_table(tmp_path / "runs.parquet").to_pydict()
    assert len(table["status"]) == 42 and table["metrics.test/auroc"][0] == 0.9
    assert table["config.seed"][:3] == [0, 1, None]
    assert table["config.detector.k"][:2] == ["5", '"all"'] and table["config.detector.hidden"][0] == "[3, 4]"
    first = (tmp_path / "runs.parquet").read_bytes()
    said(tmp_path)
    assert (tmp_path / "runs.parquet").read_bytes() == first


def test_a_sweep_of_failed_runs_alone_has_a_table_of_runs(tmp_path) -> None:
    write_parquet([{"folder": str(tmp_path), "status": "failed", "reason": "it broke"}], tmp_path / "runs.parquet")
    assert pq.read_table(tmp_path / "runs.parquet").to_pydict()["reason"] == ["it broke"]
    assert SweepFolder(tmp_path).results() == []


# the tests themselves


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=30))
def test_ranks_are_scipys(values) -> None:
    assert ranked(values).tolist() == stats.rankdata(values).tolist()


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_signed_ranks_with_ties_and_zeros_are_counted_out(values) -> None:
    known = np.array([v for v in values if v], float)
    if not len(known):
        assert wilcoxon(values) == 1.0
        return
    ranks = stats.rankdata(np.abs(known))
    sums = np.array([ranks[np.array(signs, bool)].sum() for signs in itertools.product((0, 1), repeat=len(known))])
    own = ranks[known > 0].sum()
    assert wilcoxon(values) == pytest.approx(min(1.0, 2 * min((sums <= own).mean(), (sums >= own).mean())))


@pytest.mark.parametrize("n", [1, 2, 6, 13, 14, 30, 50, 51, 200])
def test_signed_ranks_without_ties_are_scipys(n) -> None:
    random = np.random.default_rng(n)
    for shift in (0.0, 0.3, 2.0):
        values = random.normal(size=n) + shift
        assert wilcoxon(values) == pytest.approx(
            stats.wilcoxon(values, method="exact" if n <= 50 else "asymptotic").pvalue
        )


def test_many_signed_ranks_with_ties_have_the_variance_that_ties_leave() -> None:
    values = np.random.default_rng(0).integers(-5, 8, 300).astype(float)
    assert wilcoxon(values) == pytest.approx(stats.wilcoxon(values, method="asymptotic").pvalue)


@pytest.mark.parametrize("levels", [2, 3, 50])
def test_friedman_is_scipys_with_ties_and_without(levels) -> None:
    for seed in range(5):
        table = np.random.default_rng(seed).integers(0, levels, (8, 4)) + np.arange(4) * 0.3 * (seed % 2)
        assert friedman(table) == pytest.approx(stats.friedmanchisquare(*table.T).pvalue)
