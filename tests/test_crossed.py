"""Calibration on training rows: cross-conformal p-values, and what is flagged by them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch

from given import Keep
from straylight import config
from straylight.callbacks import Thresholds
from straylight.data import AnomalyDataModule
from straylight.detectors import KNN, PCA, AutoEncoder
from straylight.errors import StraylightError
from straylight.files.recipe import Recipe
from straylight.metrics.crossed import CrossCalibration, CrossCuts
from straylight.metrics.rules import rules
from straylight.rows.batch import Events, Splits
from straylight.rows.folds import folds_of
from straylight.run import Run


def test_p_values_are_those_of_a_count_of_all_pairs() -> None:
    random = np.random.default_rng(0)
    folds = [random.normal(size=n).round(1) for n in (5, 7, 6)]
    new = random.normal(size=(3, 40)).round(1)
    for j, p in enumerate(CrossCalibration(folds).p_values(new)):
        count = sum(score >= new[k, j] for k, fold in enumerate(folds) for score in fold)
        assert p == (1 + count) / 19


def deviations(fitted, rows):
    """The score of a small fit: how far from the mean, in spreads."""
    return np.abs(rows - fitted.mean(-1, keepdims=True)) / fitted.std(-1, keepdims=True)


@pytest.mark.parametrize(("n", "k"), [(40, 5), (40, 40), (200, 10)])
def test_as_many_nominal_rows_have_a_small_p_as_is_guaranteed_and_about_as_many_as_are_asked_for(n, k) -> None:
    random, trials = np.random.default_rng([n, k]), 3000
    x, new = random.standard_t(5, size=(trials, n)), random.standard_t(5, size=(trials, 1))
    above = np.zeros(trials)
    for fold in np.arange(n).reshape(k, -1):
        others = np.delete(x, fold, axis=1)
        above += (deviations(others, x[:, fold]) >= deviations(others, new)).sum(1)
    p = (1 + above) / (n + 1)
    calibration = CrossCalibration(list(np.arange(n).reshape(k, -1)))
    for a in (0.05, 0.1, 0.2):
        share, error = np.mean(p <= a), np.sqrt(a / trials)
        assert share <= calibration.guaranteed(a) + 3 * error
        assert a / 2 - 3 * error <= share <= 1.25 * a + 3 * error


def test_scores_of_a_fit_to_the_very_rows_would_flag_too_many() -> None:
    """What cross-conformal calibration is for: five rows near a detector that remembers them."""
    random = np.random.default_rng(0)
    x, new = random.normal(size=(500, 30, 4)), random.normal(size=(500, 1, 4))

    def nearest(a, b, itself=False):
        distance = np.linalg.norm(a[:, :, None] - b[:, None], axis=3)
        return (distance + np.where(np.eye(a.shape[1], b.shape[1]), 1e9 if itself else 0, 0)).min(2)

    resubstituted = nearest(x, x)  # zero: each is its own neighbour
    assert np.mean((1 + (resubstituted >= nearest(new, x)).sum(1)) / 31 <= 0.1) > 0.9
    out_of_fold = nearest(x, x, itself=True)
    left_out = np.stack([nearest(new, np.delete(x, i, 1))[:, 0] for i in range(30)], 1)
    assert np.mean((1 + (out_of_fold >= left_out).sum(1)) / 31 <= 0.1) < 0.15


def test_the_guarantee_is_that_of_barber_and_others() -> None:
    for n, k in ((100, 10), (100, 100), (20, 2)):
        calibration = CrossCalibration(np.split(np.arange(float(n)), k))
        extra = calibration.guaranteed(0.05) - 0.1
        assert extra <= np.sqrt(2 / n) + 1e-12 and (extra == pytest.approx(0, abs=1e-12)) == (n == k)


def test_rules_are_applied_by_p_values_and_say_what_they_rest_on() -> None:
    asked = rules(quantile=0.9, fprs=[0.2, 1e-4], input_hz=100.0, accept_hz=10.0, fdr=0.2, f1=True)
    random = np.random.default_rng(0)
    cuts = CrossCuts(asked, random.normal(size=(4, 25)))
    scores, y = random.normal(size=(4, 300)), np.repeat([0, 1], [250, 50])
    scores[:, y == 1] += 3
    p = cuts.calibration.p_values(scores)
    found = cuts.applied(scores, y, ["nominal", "strange"])
    assert [e["value"] for e in found] == [None] * 6 and "not set" in found[5]["remark"]
    for entry, a in zip(found, (0.1, 0.2, 1e-4, 0.1), strict=False):
        assert entry["flagged"] == (p <= a).sum() and entry["expected_fpr"] == int(a * 101 + 1e-9) / 101
    assert "it takes 9,999 of them" in found[2]["remark"] and found[3]["expected_hz"] == 10 / 101 * 100
    assert found[4]["observed_fpr_interval"] is None and "not guaranteed" in found[4]["remark"]


@pytest.mark.parametrize("scores", [[[1.0]], [[1.0], []], [[1.0], [np.nan]]])
def test_what_cannot_calibrate_is_refused(scores) -> None:
    with pytest.raises(ValueError, match=r"folds|out-of-fold"):
        CrossCalibration(scores)


def test_folds_are_alike_in_size_and_keep_groups_whole() -> None:
    of = folds_of(103, 10, seed=0)
    assert set(np.bincount(of)) == {10, 11} and (of == folds_of(103, 10, seed=0)).all()
    group = np.repeat(np.arange(12), 4)
    of = folds_of(48, 5, 0, group)
    assert all(len(set(of[group == one])) == 1 for one in range(12)) and len(set(of)) == 5


# a run


class Few(AnomalyDataModule):
    """Sixty training rows, and none that validate."""

    kinds = ("nominal", "far")

    def load(self) -> Splits:
        draw = torch.Generator().manual_seed(1)
        train = Events.of(torch.randn(60, 3, generator=draw), torch.zeros(60, dtype=torch.int64))
        y = torch.arange(2000) % 20 == 0
        test = Events.of(torch.randn(2000, 3, generator=draw) + 5.0 * y[:, None], y)
        return Splits(train, train.take([]), test, train.take([]))


@pytest.mark.parametrize("kind", [PCA, KNN])
def test_few_training_rows_set_a_threshold_and_change_nothing_else(kind, trainer) -> None:
    kept, scores = [], []
    for cross in (None, 6):
        thresholds, keep = Thresholds(quantile=0.95, fprs=[0.02], cross=cross), Keep()
        torch.manual_seed(0)
        detector, data = kind((3,)), Few(contamination=None)
        runner = trainer(max_epochs=1, callbacks=[thresholds, keep])
        runner.fit(detector, datamodule=data)
        runner.test(detector, datamodule=data, verbose=False)
        kept.append(thresholds.found)
        scores.append(keep.scores.score)
    assert kept[0] == [] and (scores[0] == scores[1]).all()
    quantile, fpr, _ = kept[1]
    assert (quantile["calibration"], quantile["folds"]) == (60, 6) and quantile["recall"] > 0.9
    assert quantile["observed_fpr"] < quantile["guaranteed_fpr"] and quantile["observed_fpr"] < 0.15
    assert fpr["expected_fpr"] == 1 / 61


def test_what_is_trained_by_epochs_is_refused_before_it_is(trainer) -> None:
    runner = trainer(max_epochs=1, callbacks=[Thresholds(cross=3)])
    with pytest.raises(StraylightError, match="AutoEncoder is not fitted in one pass"):
        runner.fit(AutoEncoder((3,), hidden=[4], latent=1), datamodule=Few(contamination=None))
    with pytest.raises(StraylightError, match="two training rows or more for each fold"):
        trainer(max_epochs=1, callbacks=[Thresholds(cross=40)]).fit(PCA((3,)), datamodule=Few(contamination=None))
    with pytest.raises(ValueError, match=r"callbacks\.thresholds\.cross must be two folds or more"):
        Thresholds(cross=1)


@pytest.mark.parametrize("detector", ["pca", "one_class_svm"])
def test_an_opened_run_flags_new_rows_as_it_flagged_its_own(detector, straylight_train) -> None:
    ended = straylight_train(f"detector={detector}", "data=blobs", "callbacks.thresholds.cross=4")
    assert ended.status == 0, ended.err
    found = {entry["rule"]: entry for entry in ended.result["thresholds"]}
    run = Run.open(ended.run)
    assert run.thresholds == {} and "folds.ckpt" in ended.result["digests"]
    data = config.build(run.cfg, "data")
    x = data.splits.test.x.numpy()
    for rule, name in (("quantile", "quantile"), ("fpr", "fpr=0.01"), ("fdr", "fdr")):
        assert run.flag(x, name).sum() == found[rule]["flagged"]
    assert (run.p_values(x) <= 0.05 + 1e-9).sum() == found["quantile"]["flagged"]


def test_a_table_is_judged_across_folds_by_its_names(straylight_train, tmp_path):
    draw = np.random.default_rng(0)
    table = pa.table({"a": draw.normal(size=120) + 1.7e9, "b": draw.normal(size=120), "y": np.arange(120) % 8 == 0})
    pa.csv.write_csv(table, tmp_path / "mine.csv")
    file = ("data=file", f"data.path={tmp_path / 'mine.csv'}", "data.label=y", "data.nominal=false", "detector=knn")
    run = Run.open(straylight_train(*file, "callbacks.thresholds.cross=4", pictures=False).run)
    (events,) = Recipe.from_json(run.known["recipe"]).read(tmp_path / "mine.csv")
    np.testing.assert_array_equal(run.p_values(table.select(["b", "a"])), run.p_values(events.x))
    np.testing.assert_array_equal(run.flag(table, "quantile"), run.flag(events.x, "quantile"))
