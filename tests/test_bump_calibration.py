"""Significances without a signal, with a classifier in the loop: which folds make them what they should be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from straylight.detectors.over_density import OverDensity, Rows
from straylight.metrics.bump import Cuts, places
from straylight.rows.batch import Events
from straylight.rows.resonance import Resonance

EVENTS, TOYS, CELLS = 8000, 200, 64
RESONANCE = Resonance("m", 0, 3.3, 3.7)


class Cells(OverDensity):
    """The fastest classifier there is: the log-odds of the region in each cell of a lattice over two features."""

    def learn(self, rows: Rows, truth: Rows | None) -> None:
        cell = self.cell(rows.x)
        inside, outside = (
            torch.stack([torch.bincount(cell[rows.of(k, where)], minlength=CELLS) for k in range(self.models)])
            for where in (True, False)
        )
        self.log_odds = ((inside + 0.5) / (outside + 0.5)).log()

    def cell(self, x: Tensor) -> Tensor:
        side = int(CELLS**0.5)
        return (x * side).long().clamp(0, side - 1) @ torch.tensor([side, 1])

    def each(self, x: Tensor, context: Tensor) -> Tensor:
        return self.log_odds.gather(1, self.cell(x.flatten(0, 1)).view(x.shape[:2]))


def background(rng: np.random.Generator) -> Events:
    """Features uniform in the unit square, whatever m ~ exp(-m) is."""
    n = rng.poisson(EVENTS)
    m = 3 - np.log1p(-rng.random(n) * (1 - np.exp(-1.5)))
    return Events.of(rng.random((n, 2)), None, m[:, None])


def cuts(detector: OverDensity, events: Events) -> Cuts:
    """Trained on these events, and ready to be cut: by held-out scores, or by those of the model that has seen all."""
    data = SimpleNamespace(
        resonance=RESONANCE,
        name="toy",
        splits=SimpleNamespace(train=events),
        training_rows=lambda: [(events.x, events.weight)],
    )
    detector._trainer = SimpleNamespace(datamodule=data, callbacks=[])  # type: ignore[assignment]
    detector.fit(events.x, events.context, events.weight)
    if detector.direction == "none":
        score, fold = detector.score(events.x, events.context), torch.zeros(len(events.x))
    else:
        score, fold = detector.held_out(events.x, events.context)
    there = ~score.isnan()
    place = places(score[there], fold[there])
    return Cuts(RESONANCE.of(events.context)[there].numpy(), place, np.ones(len(place), bool))


def significances(folds: Any, toys: int = TOYS) -> NDArray[np.float64]:
    """Of each toy before a cut and after those of 10 and 1 %."""
    rng, found = np.random.default_rng(5), []
    for _ in range(toys):
        detector = Cells((2,), context=1, folds=folds, scaling="none")
        entries = cuts(detector, background(rng)).hunted((3.3, 3.7), [0.1, 0.01], function="exp2")
        found.append([entry["z"] for entry in entries])
    return np.array(found)


def test_without_folds_a_signal_is_found_where_there_is_none() -> None:
    z = significances(None, toys=50)
    assert abs(z[:, 0].mean()) < 0.5 and z[:, 1].mean() > 2.5
    assert (z[:, 1] > 1.645).mean() > 0.8


@pytest.mark.parametrize(("folds", "least"), [(5, 1.12), (20, 1.3)])
def test_k_folds_are_unbiased_and_too_wide(folds: int, least: float) -> None:
    z = significances(folds)
    assert abs(z[:, 1].mean()) < 0.3 and z[:, 1].std() > least
    assert (z[:, 1] > 1.645).sum() > binom(TOYS, 0.05).ppf(0.99)


def test_forward_folds_are_right() -> None:
    z = significances("forward")
    for efficiency in (1, 2):
        assert abs(z[:, efficiency].mean()) < 0.25 and 0.85 < z[:, efficiency].std() < 1.15
        low, high = binom(TOYS, 0.05).ppf([0.005, 0.995])
        assert low <= (z[:, efficiency] > 1.645).sum() <= high
    assert z.max() < 4.5
