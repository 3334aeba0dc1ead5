"""One absurd row, such as a sensor's overflow, is the strangest of all and fails nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from given import Keep
from straylight.callbacks import Density, Ranking, Thresholds
from straylight.data.steps.splits import halves
from straylight.detectors.finite import ABSURD, finite
from straylight.errors import StraylightError
from straylight.export import parity, run, session, to_onnx
from straylight.metrics import auroc
from straylight.rows.batch import Events, Splits
from test_doors import Rows, build, none, rows

VALUES = (1e30, 1e38, -1e30)
DEEP = ("autoencoder", "vae", "maf", "realnvp", "nsf", "deep_svdd", "aae", "rbm", "fanogan", "ensemble")
FITTED = ("knn", "gmm", "kde", "pca", "mahalanobis", "one_class_svm", "local_outlier_factor", "hbos")
SHAPE = (3,)


def poisoned(events: Events, row: int, value: float) -> Events:
    x = events.x.clone()
    x[row] = value
    return Events.of(x, events.y)


def served(where: str, value: float) -> Rows:
    train, val = rows(300, SHAPE, 0, [0] * 300), rows(120, SHAPE, 1, [0] * 120)
    test = rows(200, SHAPE, 2, [0] * 150 + [1] * 50)
    test = Events.of(test.x + 2.0 * test.y[:, None], test.y)
    if where == "test":
        test = poisoned(test, 170, value)
    else:
        seed = Rows(Splits(train, val, test, none(SHAPE))).seed
        half = halves(Events.of(val.x, val.y, meta={"row": np.arange(120)}), seed)[where == "calibration"]
        val = poisoned(val, int(half.meta["row"][5]), value)
    return Rows(Splits(train, val, test, none(SHAPE)), batch_size=32, eval_batch_size=64)


@pytest.mark.parametrize("where", ["test", "selection", "calibration"])
@pytest.mark.parametrize("name", DEEP + FITTED)
def test_a_run_ends_well(name, where, trainer) -> None:
    for value in VALUES if name in ("autoencoder", "maf", "knn") else VALUES[:1]:
        data, detector = served(where, value), build(name, SHAPE)
        ranking, thresholds, kept = Ranking(), Thresholds(), Keep()
        runner = trainer(max_epochs=2, callbacks=[ranking, thresholds, kept, Density(max_rows=100)])
        runner.fit(detector, datamodule=data)
        runner.test(detector, datamodule=data, verbose=False)
        scores, y = kept.scores.score, kept.scores.y
        assert np.isfinite(scores).all() and np.isfinite(thresholds.cuts._scores).all()
        if where == "test" and name != "hbos":  # which knows bins, and one for all that lies beyond them
            assert scores[170] == scores.max()
            strangest = np.where(np.arange(200) == 170, np.inf, scores)
            assert ranking.metrics["test/auroc"] == auroc(strangest[y == 0], strangest[y == 1])
        said = [notice for notice in detector.notices if "absurdly large" in notice]
        assert bool(said) == (where == "selection" and detector.selects)


def test_the_losses_of_validation_are_those_of_the_other_rows(trainer) -> None:
    data, detector = served("selection", 1e30), build("autoencoder", SHAPE)
    runner = trainer(max_epochs=2)
    runner.fit(detector, datamodule=data)
    half = torch.cat([batch.x for batch in data.val_dataloader()])
    others = half[half.abs().amax(1) < 1e6]
    assert len(half) == len(others) + 1
    with torch.no_grad():
        expected = detector.eval()(others).mean()  # the score is the loss
    assert float(runner.callback_metrics["val/loss"]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["maf", "realnvp", "nsf"])
@torch.no_grad()
def test_an_absurd_context_is_as_strange(name, value) -> None:
    detector = build(name, SHAPE, context=1).eval()
    detector.scaling.fit([rows(50, SHAPE).x])
    x, context = rows(20, SHAPE, 1).x, torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    before = detector(x, context)
    context[4] = value
    score = detector(x, context)
    assert score.isfinite().all() and score[4] == score.max()
    assert torch.allclose(score[5:], before[5:], rtol=1e-5)


def test_nan_of_any_other_row_stays_an_error(trainer) -> None:
    score = torch.tensor([1.0, torch.nan, -torch.inf])
    assert finite(score, torch.tensor([False] * 3))[1].isnan() and finite(score, torch.tensor([True] * 3))[2] > 1e38
    data, detector = served("test", ABSURD / 1e3), build("pca", SHAPE)
    runner = trainer(max_epochs=1, callbacks=[Ranking()])
    runner.fit(detector, datamodule=data)
    detector.score = lambda x, context: x[:, 0] * torch.nan
    with pytest.raises(StraylightError, match="are NaN"):
        runner.test(detector, datamodule=data, verbose=False)


@pytest.mark.parametrize("name", ["autoencoder", "vae", "realnvp", "pca", "gmm"])
def test_a_graph_scores_an_absurd_row_as_the_detector_does(name, tmp_path, trainer) -> None:
    data, detector = served("test", 1e38), build(name, SHAPE)
    trainer(max_epochs=1).fit(detector, datamodule=data)
    found = session(to_onnx(detector.eval(), tmp_path / "model.onnx").path)
    x = data.splits.test.x
    assert parity(detector, found, x, batches=(1,)) < 1e-3
    with torch.no_grad():
        both = detector(x).numpy(), run(found, x)
    assert both[0][170] == both[1][170] == both[0].max()
