"""Detectors that are fitted, not trained, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.ensemble import IsolationForest as SklearnForest
from sklearn.neighbors import NearestNeighbors

from straylight.detectors import KNN, IsolationForest


def fit_rows(detector, x) -> None:
    detector.fit(x, x.flatten(1)[:, :0], torch.ones(len(x)))


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("distance", ["kth", "mean"])
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("budget_mb", [64, 0.01])
def test_knn_is_scikit_learns(k, distance, offset, budget_mb) -> None:
    rng = np.random.default_rng(0)
    train = (rng.normal(size=(500, 6)) + offset).astype(np.float32)
    test = (rng.normal(size=(200, 6)) * 2 + offset).astype(np.float32)
    knn = KNN((6,), k=k, distance=distance, scaling="none", budget_mb=budget_mb)
    fit_rows(knn, torch.from_numpy(train))
    near, _ = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(train.astype(float)).kneighbors(test.astype(float))
    truth = near[:, -1] if distance == "kth" else near.mean(1)
    assert np.allclose(knn(torch.from_numpy(test)).numpy(), truth, rtol=1e-4 if offset else 1e-5, atol=1e-6)


def test_knn_finds_neighbours_beyond_one_tile_of_its_memory(monkeypatch) -> None:
    train, test = torch.randn(70_000, 2), torch.randn(20, 2)
    knn = KNN((2,), k=3, distance="kth", scaling="none")
    fit_rows(knn, train)
    truth = torch.cdist(test.double(), train.double()).topk(3, largest=False).values[:, -1]
    assert torch.allclose(knn(test).double(), truth, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigma", [1e-2, 1e-3, 1e-4])
def test_knn_is_exact_in_tight_crowds_far_from_the_centre(sigma) -> None:
    """There the product form of the distance is all rounding in float32."""
    rng = np.random.default_rng(0)
    train, test = (
        (rng.choice([-1, 1], (n, 1)) + sigma * rng.normal(size=(n, 4))).astype(np.float32) for n in (4000, 300)
    )
    knn = KNN((4,), distance="kth", scaling="none")
    fit_rows(knn, torch.from_numpy(train))
    near, _ = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(train.astype(float)).kneighbors(test.astype(float))
    assert np.allclose(knn(torch.from_numpy(test)).numpy(), near[:, -1], rtol=1e-2)


def test_knn_keeps_a_row_at_distance_zero_of_itself() -> None:
    x = torch.randn(100, 5) + 1000
    knn = KNN((5,), k=1, scaling="none")
    fit_rows(knn, x)
    assert knn(x).max() == 0


def test_isolation_forest_is_scikit_learns(trainer, serving) -> None:
    x = torch.randn(300, 4)
    torch.manual_seed(7)
    forest = IsolationForest((4,), n_estimators=20, scaling="none")
    trainer(max_epochs=1).fit(forest, datamodule=serving(x))
    truth = SklearnForest(n_estimators=20, max_samples=256, random_state=7).fit(x.numpy())
    assert np.allclose(forest(x).numpy(), -truth.score_samples(x.numpy()), rtol=1e-6)
