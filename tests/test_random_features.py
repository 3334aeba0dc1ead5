"""`random_features` against its formula in numpy, and against the Gaussian process that it nears."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

from fitting import fitted, loaded, scores
from straylight.detectors import KNN, RandomFeatures
from straylight.detectors.random_features import SAMPLE, drawn, median_distance
from straylight.errors import DataError
from straylight.export import parity, session
from straylight.export.tracing import traced
from straylight.metrics import auroc

Rows = NDArray[np.float32]


def cloud(n: int = 300, d: int = 4, seed: int = 0, offset: float = 0.0) -> Rows:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(d).normal(size=(d, d)) + np.eye(d)
    return (rng.normal(size=(n, d)) @ mixing + offset).astype(np.float32)


def drawn_by(seed: int, shape: tuple[int, ...] = (4,), **options) -> RandomFeatures:
    torch.manual_seed(seed)
    return RandomFeatures(shape, **{"scaling": "none", **options})


def features(detector: RandomFeatures, rows: Rows) -> NDArray[np.float64]:
    w, b = 2 * np.pi * detector.frequencies.numpy(), 2 * np.pi * detector.phases.numpy()
    return np.sqrt(2) * np.cos(rows.astype(float) @ w + b)


def leverage(found: NDArray, train: NDArray, weight: NDArray, ridge: float) -> NDArray[np.float64]:
    c = np.mean([w * np.outer(f, f) for f, w in zip(train, weight, strict=True)], 0) / weight.mean()
    c += ridge * np.trace(c) / len(c) * np.eye(len(c))
    return np.array([f @ np.linalg.solve(c, f) for f in found])


@pytest.mark.parametrize("ridge", [1e-3, 0.3])
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(("features_of", "bandwidths"), [(30, (0.25, 0.5, 1.0)), (101, (0.5, 2.0)), (7, (1.0,))])
def test_the_score_is_its_formula(features_of, bandwidths, offset, ridge) -> None:
    train, test = cloud(offset=offset), cloud(60, seed=1, offset=offset)
    detector = drawn_by(0, features=features_of, bandwidths=bandwidths, ridge=ridge)
    fitted(detector, train)
    truth = leverage(features(detector, test), features(detector, train), np.ones(len(train)), ridge)
    np.testing.assert_allclose(scores(detector, test), truth, rtol=1e-4)


@pytest.mark.parametrize("bandwidths", [(1.0,), (0.25, 0.5, 1.0)])
def test_frequencies_are_normal_and_as_wide_as_one_over_a_kernel_is(bandwidths) -> None:
    train = 7 * cloud()
    detector = drawn_by(3, features=3000, bandwidths=bandwidths)
    detector._draw(torch.from_numpy(train), torch.ones(len(train)))
    median = np.percentile(pdist(train.astype(float)), 50, method="inverted_cdf")
    for i, h in enumerate(bandwidths):
        own = 2 * np.pi * detector.frequencies.numpy()[:, i :: len(bandwidths)] * h * median
        np.testing.assert_allclose(own @ own.T / own.shape[1], np.eye(4), atol=0.12)
    turn = np.exp(2j * np.pi * detector.phases.numpy())
    assert abs(turn.mean()) < 0.06 and abs((turn**2).mean()) < 0.06  # uniform on a circle


def posterior(test: Rows, train: Rows, widths: list[float], noise: float) -> NDArray[np.float64]:
    """The variance that a Gaussian process with the mean of these kernels has left."""

    def kernel(a: Rows, b: Rows) -> NDArray[np.float64]:
        squared = cdist(a.astype(float), b.astype(float), "sqeuclidean")
        return np.mean([np.exp(-squared / (2 * h**2)) for h in widths], 0)

    across = kernel(test, train)
    known = np.linalg.solve(kernel(train, train) + noise * np.eye(len(train)), across.T)
    return 1 - (across * known.T).sum(1)


@pytest.mark.parametrize("bandwidths", [(0.5,), (0.25, 0.5, 1.0)])
def test_with_more_features_the_score_nears_a_gaussian_process(bandwidths) -> None:
    train, test = cloud(60, 2), np.concatenate([cloud(40, 2, seed=1), 3 * cloud(10, 2, seed=2)])
    median, noise, off = np.median(pdist(train.astype(float))), 0.5, []
    truth = posterior(test, train, [h * median for h in bandwidths], noise)
    for many in (30, 300, 1200):
        ridge = noise * many / len(train)  # which stays the same in units of the kernel
        found = [
            scores(fitted(drawn_by(seed, (2,), features=many, bandwidths=bandwidths, ridge=ridge), train), test)
            for seed in range(3)
        ]
        off.append(np.abs(np.mean(found, 0) * ridge / many - truth).max())
    assert off[0] > off[1] > off[2] and off[2] < 0.06, off
    assert truth.max() > 10 * truth.min()  # which is not the error


@pytest.mark.parametrize("kind", ["counts", "zeros"])
def test_an_event_weight_is_so_many_rows(kind) -> None:
    train, test = cloud(200), cloud(50, seed=1)
    weight = np.random.default_rng(0).integers(0, 4, 200).astype(np.float32)
    weight = weight if kind == "counts" else np.minimum(weight, 1)
    once = fitted(drawn_by(0), train, weight)
    again = fitted(drawn_by(0), np.repeat(train, weight.astype(int), axis=0))
    np.testing.assert_allclose(scores(once, test), scores(again, test), rtol=1e-5)


@pytest.mark.parametrize("n", [40, 1700])  # of which some and all are looked at for the median
@pytest.mark.parametrize("scaling", ["none", "standard"])
def test_a_pass_over_batches_is_a_fit_to_all_rows(n, scaling, trainer, serving) -> None:
    x = torch.from_numpy(cloud(n, offset=10.0))
    x = x[x[:, 0].argsort()]
    streamed, whole = drawn_by(5, scaling=scaling), drawn_by(5, scaling=scaling)
    torch.manual_seed(5)
    trainer(max_epochs=1).fit(streamed, datamodule=serving(x, batch_size=16, group=2))
    torch.manual_seed(5)
    whole.scaling.fit([x])
    fitted(whole, whole.scaling(x))
    assert torch.equal(streamed.frequencies, whole.frequencies) and not streamed.notices
    np.testing.assert_allclose(scores(streamed, x), scores(whole, x), rtol=1e-5)


def test_rows_are_taken_in_turns_within_the_budget(monkeypatch) -> None:
    train, seen = cloud(), []
    whole, narrow = drawn_by(0), drawn_by(0, budget_mb=0.5)
    turns = RandomFeatures._turns
    monkeypatch.setattr(RandomFeatures, "_turns", lambda self, rows: seen.append(len(rows)) or turns(self, rows))
    torch.manual_seed(0)
    fitted(whole, train)
    torch.manual_seed(0)
    fitted(narrow, train)
    assert max(seen[1:]) * (3 * 900 + 4) * 8 <= 0.5 * 2**20 and len(seen) > 5
    np.testing.assert_allclose(scores(narrow, train), scores(whole, train), rtol=1e-5)


def test_what_is_kept_does_not_grow_with_rows_and_comes_back_from_a_file() -> None:
    few, many = (fitted(drawn_by(0), cloud(n)) for n in (30, 3000))
    assert [b.shape for b in few.buffers()] == [b.shape for b in many.buffers()] and not vars(many).get("_second")
    assert np.array_equal(scores(loaded(many, drawn_by(1)), cloud(9)), scores(many, cloud(9)))


def test_a_seed_says_which_features_are_drawn() -> None:
    found = []
    for seed in (0, 0, 1):
        detector = drawn_by(seed)
        torch.manual_seed(seed)
        found.append(scores(fitted(detector, cloud()), cloud(20, seed=1)))
    assert np.array_equal(found[0], found[1]) and not np.allclose(found[0], found[2], rtol=1e-3)


@pytest.mark.parametrize("factor", [1e3, 1e6, 1e12, 1e30])
def test_far_rows_are_strange_and_finite_whatever_their_batch(factor) -> None:
    train = cloud()
    detector, far = fitted(drawn_by(0), train), cloud(20, seed=1) * np.float32(factor)
    found = scores(detector, far)
    assert np.isfinite(found).all() and found.min() > np.quantile(scores(detector, train), 0.99)
    alone = np.concatenate([scores(detector, row[None]) for row in far])
    np.testing.assert_allclose(alone, found, rtol=1e-6)


def test_the_graph_scores_ordinary_and_far_rows_as_torch_does(tmp_path) -> None:
    detector, x = fitted(drawn_by(0), cloud()), torch.from_numpy(cloud(200, seed=1))
    graph = traced(detector.eval(), tmp_path / "model.onnx")
    assert parity(detector, session(graph.path), x, batches=(1, 7)) < 1e-3


@pytest.mark.parametrize("rows", [np.full((20, 4), 0.1), np.full((1, 4), 3.0)], ids=["equal", "one"])
def test_rows_that_do_not_differ_are_said(rows) -> None:
    detector = fitted(drawn_by(0), rows.astype(np.float32))
    assert "no two different rows" in detector.notices[0]
    here, there = scores(detector, np.stack([rows[0], rows[0] + 5]).astype(np.float32))
    assert here < there < math.inf


def test_rare_rows_among_binary_columns_are_told_where_distances_are_few() -> None:
    """Two halves of equal bits, of which either value is common alone: a wrong bit is at distance one from some."""
    rng = np.random.default_rng(0)

    def sound(n: int) -> Rows:
        return np.repeat(rng.integers(0, 2, (n, 3)), 3, axis=1).astype(np.float32)

    train, test = sound(2000), sound(400)
    wrong = sound(100)
    wrong[np.arange(100), rng.integers(0, 9, 100)] = rng.integers(0, 2, 100)  # half of them stay as they are
    y = (wrong != np.repeat(wrong[:, [1, 4, 7]], 3, axis=1)).any(1)
    x = np.concatenate([test, wrong[y]])
    y = np.r_[np.zeros(len(test)), np.ones(y.sum())]
    found = scores(fitted(drawn_by(0, (9,)), train), x)
    assert auroc(found[y == 0], found[y == 1]) == 1.0


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"features": 0}, "features"),
        ({"features": 2}, "bandwidths"),
        ({"bandwidths": ()}, "bandwidths"),
        ({"bandwidths": (1.0, 0.0)}, "bandwidths"),
        ({"bandwidths": (1.0, math.nan)}, "bandwidths"),
        ({"bandwidths": (math.inf,)}, "bandwidths"),
        ({"ridge": 0.0}, "ridge"),
        ({"ridge": math.nan}, "ridge"),
        ({"budget_mb": 0}, "budget_mb"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused_by_name(options, name) -> None:
    with pytest.raises(ValueError, match=rf"detector\.{name}\b"):
        RandomFeatures((4,), **options)


def test_matrices_beyond_the_budget_and_rows_without_weight_are_refused(trainer, serving) -> None:
    with pytest.raises(DataError, match=r"900 x 900 numbers.*detector\.budget_mb=1;"):
        trainer(max_epochs=1).fit(RandomFeatures((4,), budget_mb=1), datamodule=serving(torch.randn(50, 4)))
    with pytest.raises(DataError, match="no training row"):
        fitted(drawn_by(0), cloud(5), np.zeros(5, np.float32))


# the median distance


@pytest.mark.parametrize("n", [3, 50, SAMPLE])
@pytest.mark.parametrize("levels", [2, 1000])  # two values make most rows equal
def test_the_median_is_that_of_all_pairs_of_different_rows(n, levels) -> None:
    rng = np.random.default_rng(n)
    rows, weight = rng.integers(0, levels, (n, 2)).astype(np.float32), rng.integers(1, 4, n)
    rows[0] += 1  # no less than two differ
    apart = pdist(np.repeat(rows, weight, axis=0).astype(float))
    truth = np.percentile(apart[apart > 0], 50, method="inverted_cdf")
    assert median_distance(torch.from_numpy(rows), torch.from_numpy(weight)) == pytest.approx(truth)


@pytest.mark.parametrize("chunk", [1, 7, 100, 5000])
def test_rows_are_drawn_alike_however_they_come(chunk) -> None:
    rows = torch.arange(3000.0)
    weight = (rows % 3 > 0).float()
    (whole, _), (parts, given) = (
        drawn(zip(rows.split(n), weight.split(n), strict=True), 100, seed=4) for n in (3000, chunk)
    )
    assert torch.equal(whole, parts) and len(set(parts.tolist())) == 100 and (given > 0).all()
    often = np.concatenate([drawn([(rows, weight)], 100, seed)[0].numpy() for seed in range(30)])
    assert abs(often.mean() - 1500) < 60 and (np.diff(parts.numpy()) > 0).all()


def test_it_is_no_nearest_neighbour_in_disguise() -> None:
    """What a lone contaminated row among the training rows hides from its neighbours, a mean over rows still shows."""
    train, stray = cloud(2000, 2), np.full((1, 2), 12.0, np.float32)
    rows = np.concatenate([train, stray])
    near = stray + np.float32([[0.1, 0.0]])
    detector, knn = fitted(drawn_by(0, (2,)), rows), fitted(KNN((2,), k=1, scaling="none"), rows)
    assert scores(detector, near) > np.quantile(scores(detector, train), 0.999)
    assert scores(knn, near) < np.quantile(scores(knn, cloud(2000, 2, seed=1)), 0.95)
