"""`residual` and `views` against their formulas in plain numpy, row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from fitting import fitted, loaded, scores
from straylight.detectors import KNN, Residual, Views
from straylight.errors import DataError
from straylight.metrics import auroc
from straylight.nn import LogTail, Neighbourhood, NormalScores

Rows = NDArray[np.float64]


def cloud(n: int, d: int, seed: int = 0) -> NDArray[np.float32]:
    """Correlated features of one scale, skewed."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(3, d)) / 2
    rows = generator.normal(size=(n, 3)) @ mixing + 0.2 * generator.normal(size=(n, d))
    return np.sinh(rows).astype(np.float32)


# the formulas, one row at a time


def nearest(x: Rows, train: Rows, left_out: int | None = None) -> tuple[Rows, NDArray[np.int64]]:
    """Distances and places of the ten nearest, or of all but one."""
    distances = np.sqrt(((train - x) ** 2).sum(1))
    if left_out is not None:
        distances[left_out] = np.inf
    order = np.argsort(distances, kind="stable")[: min(10, len(train) - 1)]
    return distances[order], order


def residuals(x: Rows, train: Rows, left_out: int | None = None) -> dict[int, Rows]:
    order = nearest(x, train, left_out)[1]
    return {k: x - train[order[:k]].mean(0) for k in (2, 3, 5, 10)}


class Oracle:
    """g and w, from what is learned of the training rows, each left out."""

    def __init__(self, train: Rows) -> None:
        self.train = train
        n = range(len(train))
        first = np.array([nearest(train[i], train, i)[0][:5] for i in n])
        self.c = 0.1 * np.median(first)
        errors = [residuals(train[i], train, i) for i in n]
        self.inverse = {}
        for k in (2, 3, 5, 10):
            cov = np.atleast_2d(np.cov(np.array([e[k] for e in errors]).T))
            variances = np.diag(cov)
            c = np.diag(variances) if train.shape[1] > 300 else 0.8 * cov + 0.2 * np.diag(variances)
            self.inverse[k] = np.linalg.inv(c + 0.001 * variances.mean() * np.eye(len(cov)))
        self.own_g = np.array([self.g(train[i], i) for i in n])

    def g(self, x: Rows, left_out: int | None = None) -> float:
        return float(np.mean(np.log(nearest(x, self.train, left_out)[0][:5] + self.c)))

    def w(self, x: Rows, left_out: int | None = None) -> float:
        found = residuals(x, self.train, left_out)
        return float(np.mean([0.5 * np.log(0.01 + r @ self.inverse[k] @ r / len(r)) for k, r in found.items()]))

    def both(self, x: Rows, left_out: int | None = None) -> float:
        return self.g(x, left_out) + self.w(x, left_out)

    def relative(self, x: Rows, left_out: int | None = None) -> float:
        around = nearest(x, self.train, left_out)[1]
        return self.g(x, left_out) - 0.4 * float(self.own_g[around].mean())


def calibrated(new: Rows, own: Rows) -> Rows:
    u = np.quantile(own, 0.95)
    excess = (own[own > u] - u).mean()
    n = len(own)
    low = np.array([-np.log((1 + (own >= s).sum()) / (n + 2)) for s in new])
    return np.where(new > u, -np.log(0.05) + (new - u) / excess, low)


def normal_scores(new: Rows, train: Rows) -> Rows:
    out, n = np.empty_like(new), len(train)
    for j in range(train.shape[1]):
        column, width = train[:, j], train[:, j].std()
        for i, v in enumerate(new[:, j]):
            share = ((column < v).sum() + 0.5 * (column == v).sum()) / n
            z = stats.norm.ppf(np.clip(share, 0.5 / n, 1 - 0.5 / n))
            beyond = (v - np.clip(v, column.min(), column.max())) / width
            out[i, j] = z + np.clip(beyond, -5, 5)
    return out


def signed_logs(new: Rows, train: Rows) -> Rows:
    def f(x: Rows) -> Rows:
        return np.sign(x) * np.log(1 + np.abs(x))

    return (f(new) - f(train).mean(0)) / f(train).std(0)


def views(new: Rows, train: Rows) -> Rows:
    """The four views of new rows, on one scale, `(4, B)`."""
    z, logs, ranks = Oracle(train), Oracle(signed_logs(train, train)), Oracle(normal_scores(train, train))
    coordinates = [(z, new), (logs, signed_logs(new, train)), (z, new), (ranks, normal_scores(new, train))]
    seen = []
    for i, (oracle, x) in enumerate(coordinates):
        score = oracle.both if i < 2 else oracle.relative
        own = np.array([score(row, place) for place, row in enumerate(oracle.train)])
        seen.append(calibrated(np.array([score(row) for row in x]), own))
    return np.array(seen)


# and ours


@pytest.mark.parametrize(("n", "d"), [(60, 5), (200, 1), (12, 3), (11, 2), (40, 301)])
def test_residual_is_its_formula(n, d) -> None:
    train, test = cloud(n, d), np.concatenate([cloud(20, d, 1), 4 * cloud(10, d, 2)])
    oracle = Oracle(train.astype(float))
    expected = [oracle.both(row) for row in test.astype(float)]
    found = scores(fitted(Residual((d,), scaling="none"), train), test)
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_training_rows_are_left_out_and_test_rows_are_not() -> None:
    train = cloud(60, 4)
    near, oracle = Neighbourhood(4), Oracle(train.astype(float))
    rows = torch.from_numpy(train)
    own, again = near.fit(rows), near(rows)
    assert own.distances.shape == again.distances.shape == (60, 10)
    assert (own.places != torch.arange(60)[:, None]).all() and (again.places[:, 0] == torch.arange(60)).all()
    assert np.allclose(near.distance(own), oracle.own_g, atol=1e-6)
    assert np.allclose(near.error(rows, own), [oracle.w(oracle.train[i], i) for i in range(60)], atol=1e-6)
    assert np.allclose(near.distance(again), [oracle.g(row) for row in oracle.train], atol=1e-6)


@pytest.mark.parametrize("strongest", [1, 2, 4])
@pytest.mark.parametrize(("n", "d"), [(80, 4), (30, 2)])
def test_views_are_their_formula(strongest, n, d) -> None:
    train, test = cloud(n, d), np.concatenate([cloud(20, d, 1), 4 * cloud(10, d, 2)])
    seen = views(test.astype(float), train.astype(float))
    expected = {1: seen.max(0), 2: np.sort(seen, 0)[2:].mean(0), 4: seen.mean(0)}[strongest]
    assert len(set(seen.argmax(0))) > 1, "more than one of the views decides"
    found = scores(fitted(Views((d,), strongest=strongest, scaling="none"), train), test)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_normal_scores_are_quantiles_of_mid_ranks() -> None:
    generator = np.random.default_rng(0)
    train = np.stack([generator.normal(size=50), generator.integers(0, 3, 50), np.arange(50) > 44], 1).astype(float)
    scoring = NormalScores(3)
    scoring.fit(torch.from_numpy(train))
    own = scoring(torch.from_numpy(train)).numpy()
    expected = stats.norm.ppf((stats.rankdata(train, axis=0) - 0.5) / 50)
    assert np.allclose(own, expected)
    assert own[:, 2].min() > -0.2, "45 of 50 equal values stand at the middle of their ranks, not at the end"
    new = np.concatenate([generator.normal(size=(20, 3)) * 3, [[100.0, 100.0, 100.0], [-100.0, -100.0, -100.0]]])
    assert np.allclose(scoring(torch.from_numpy(new)), normal_scores(new, train))
    scoring.traced = True
    assert np.allclose(scoring(torch.from_numpy(new)), normal_scores(new, train))


def test_normal_scores_of_a_constant_feature_tell_what_leaves_it() -> None:
    scoring = NormalScores(1)
    scoring.fit(torch.full((9, 1), 3.0))
    assert scoring(torch.tensor([[3.0], [4.0], [-90.0]]))[:, 0] - scoring(torch.tensor([[3.0]]))[0, 0] == pytest.approx(
        torch.tensor([0.0, 1.0, -5.0]), abs=0.01 + abs(float(stats.norm.ppf(0.5 / 9)))
    )


@pytest.mark.parametrize("kind", ["continuous", "tied", "few"])
def test_a_log_tail_is_its_formula_and_never_falls(kind) -> None:
    own = np.random.default_rng(0).exponential(size=6 if kind == "few" else 300)
    own = own.round(1) if kind == "tied" else own
    tail = LogTail()
    tail.fit(torch.from_numpy(own).float() if kind == "tied" else torch.from_numpy(own))
    own = tail.ordered.numpy()
    new = np.sort(np.concatenate([own, np.linspace(-1, 20, 200), [np.quantile(own, 0.95)]]))
    found = tail(torch.from_numpy(new)).numpy()
    assert np.allclose(found, calibrated(new, own))
    assert (np.diff(found) >= 0).all()
    tail.traced = True
    assert np.array_equal(tail(torch.from_numpy(new)).numpy(), found)


def test_a_log_tail_is_an_exponential_laws_own() -> None:
    """Of exponential scores -log p is s itself, far beyond the largest of them."""
    own = np.random.default_rng(0).exponential(size=20_000)
    tail = LogTail()
    tail.fit(torch.from_numpy(own))
    found = tail(torch.tensor([0.5, 2.0, 5.0, 50.0])).numpy()
    assert np.allclose(found, [0.5, 2.0, 5.0, 50.0], rtol=0.1)


def test_a_log_tail_of_equal_scores_is_finite_and_keeps_nan() -> None:
    tail = LogTail()
    tail.fit(torch.ones(20))
    low, same, above, nan = tail(torch.tensor([0.0, 1.0, 1.1, math.nan])).tolist()
    assert 0 <= low <= same < above < math.inf and math.isnan(nan)


@pytest.mark.parametrize("kind", [Residual, Views])
@pytest.mark.parametrize("n", [2, 3, 7, 10, 11])
def test_few_rows_look_at_all_others(kind, n) -> None:
    detector = fitted(kind((3,)), cloud(n, 3))
    far, near = scores(detector, np.stack([np.full(3, 50), cloud(n, 3)[0]]).astype(np.float32))
    assert np.isfinite([far, near]).all() and far > near
    assert [f"{n} training rows for 10 neighbours" in note for note in detector.notices] == [True] * (n <= 10)


@pytest.mark.parametrize("kind", [Residual, Views])
def test_one_row_is_refused(kind) -> None:
    with pytest.raises(DataError, match=f"{kind.__name__} needs two training rows or more"):
        fitted(kind((3,)), cloud(1, 3))


@pytest.mark.parametrize("kind", [Residual, Views])
def test_event_weights_are_not_read_and_a_notice_says_so(kind) -> None:
    train, weight = cloud(50, 3), np.linspace(0, 1, 50, dtype=np.float32)
    plain, weighed = fitted(kind((3,)), train), fitted(kind((3,)), train, weight)
    assert np.array_equal(scores(plain, train), scores(weighed, train))
    assert not plain.notices and "does not read event weights" in weighed.notices[0]


DUPLICATES = {
    "binary": lambda n, seed: np.random.default_rng(seed).integers(0, 2, (n, 4)).astype(np.float32),
    "half equal": lambda n, seed: np.where(np.arange(n)[:, None] % 2, cloud(n, 3, seed), 0.25).astype(np.float32),
    "all equal": lambda n, seed: np.full((n, 3), 7.0, np.float32),
    "far off": lambda n, seed: (1e4 + cloud(n, 3, seed).round(1)).astype(np.float32),
    "a constant": lambda n, seed: np.concatenate([cloud(n, 3, seed), np.ones((n, 1), np.float32)], 1),
}


@pytest.mark.parametrize("kind", [Residual, Views])
@pytest.mark.parametrize("rows", DUPLICATES)
@torch.no_grad()
def test_equal_rows_have_finite_scores_that_depend_on_the_row_alone(kind, rows) -> None:
    train, test = DUPLICATES[rows](300, 0), DUPLICATES[rows](100, 1)
    detector = kind(train.shape[1:], budget_mb=1)
    detector.scaling.fit([torch.from_numpy(train)])
    fitted(detector, detector.scaling(torch.from_numpy(train)))
    found = scores(detector, test)
    assert np.isfinite(found).all()
    one_by_one = np.concatenate([scores(detector, row[None]) for row in test])
    backwards = scores(detector, test[::-1].copy())[::-1]
    assert np.allclose(found, one_by_one, rtol=1e-5) and np.allclose(found, backwards, rtol=1e-5)
    beyond = test[:1].copy()
    beyond[0, -1] += 30
    assert scores(detector, beyond)[0] > found[0]


@pytest.mark.parametrize("kind", [Residual, Views])
def test_memory_is_bounded_without_changing_a_score(kind) -> None:
    train, test = cloud(700, 6), cloud(300, 6, 1)
    small, large = (fitted(kind((6,), budget_mb=mb), train) for mb in (0.05, 64))
    assert np.allclose(scores(small, test), scores(large, test), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [Residual, Views])
def test_all_that_scoring_needs_is_in_the_state(kind) -> None:
    train, test = cloud(90, 4), cloud(30, 4, 1)
    detector = fitted(kind((4,)), train)
    again = loaded(detector, kind((4,)))
    assert np.array_equal(scores(again, test), scores(detector, test))


def test_own_rows_say_what_is_usual_and_all_are_neighbours() -> None:
    train, test = cloud(400, 4), cloud(100, 4, 1)
    some, all_of_them = fitted(Residual((4,), own_rows=200), train), fitted(Residual((4,)), train)
    assert len(some.near.neighbours.memory) == 400
    assert not some.notices, "that is what was asked for"
    few, many = scores(some, test), scores(all_of_them, test)
    assert not np.array_equal(few, many) and np.corrcoef(few, many)[0, 1] > 0.99


def test_more_rows_than_max_rows_are_drawn_from() -> None:
    detector = fitted(Views((3,), max_rows=100), cloud(150, 3))
    assert len(detector.plain.neighbours.memory) == 100 and "fitted to 100 of 150" in detector.notices[0]


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (Residual, {"own_rows": 1}, "own_rows"),
        (Views, {"max_rows": 1}, "max_rows"),
        (Views, {"strongest": 0}, "strongest"),
        (Views, {"strongest": 5}, "strongest"),
    ],
)
def test_a_wrong_option_is_named(kind, options, name) -> None:
    with pytest.raises(ValueError, match=f"detector.{name}"):
        kind((2,), **options)


@pytest.mark.parametrize("d", [5, 301])
@torch.no_grad()
def test_parts_sum_to_the_score_and_name_the_feature(d) -> None:
    train, test = cloud(150, d), cloud(20, d, 1)
    test[:, 2] += 5 * train[:, 2].std()
    detector, x = fitted(Residual((d,), scaling="none"), train), torch.from_numpy(test)
    parts = detector.parts(x, x[:, :0])
    assert np.allclose(parts.baseline + parts.of.sum(1).numpy(), scores(detector, test), atol=1e-4)
    assert (parts.of.argmax(1) == 2).float().mean() > 0.9
    same = torch.from_numpy(np.repeat(train[:1], 11, 0))  # equal to its neighbours: nothing is strange about it
    detector = fitted(Residual((d,), scaling="none"), torch.cat([same, torch.from_numpy(train)]))
    assert torch.allclose(detector.parts(same[:1], same[:1, :0]).of, torch.zeros(1, d, dtype=torch.float64))


def test_what_neighbours_predict_and_distance_does_not_see() -> None:
    """Two features that follow each other closely, and eight of noise: only the error tells a broken pair."""
    generator = np.random.default_rng(0)

    def rows(n: int) -> NDArray[np.float32]:
        x = generator.normal(size=(n, 10))
        x[:, 1] = x[:, 0] + 0.05 * generator.normal(size=n)
        return x.astype(np.float32)

    train, nominal, broken = rows(1500), rows(500), rows(500)
    broken[:, 1] = -broken[:, 0]
    found = {}
    for kind in (KNN, Residual, Views):
        detector = fitted(kind((10,), scaling="none"), train)
        found[kind] = auroc(scores(detector, nominal), scores(detector, broken))
    assert found[Residual] > found[KNN] + 0.05 and found[Views] > found[KNN]
