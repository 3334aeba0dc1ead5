"""Thresholds of a run: on which rows they are set, what becomes of the test rows, and what a run's folder can do."""

from __future__ import annotations

import logging
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from straylight.batch import Events, Splits
from straylight.callbacks import Thresholds
from straylight.callbacks.scored import TestScores
from straylight.data import AnomalyDataModule
from straylight.detectors import KNN, AutoEncoder, Mahalanobis
from straylight.errors import ConfigError, StraylightError
from straylight.metrics.conformal import Calibration, benjamini_hochberg
from straylight.run import Run


class Given(AnomalyDataModule):
    """Normal rows: 400 train, 400 validate, 600 are tested with 50 anomalies. `change` may alter them."""

    kinds = ("nominal", "near", "far")

    def __init__(self, change=None, strange_in_val=0, labelled=True, **common):
        super().__init__(contamination=None, **{"batch_size": 100, "eval_batch_size": 90, **common})
        self.change, self.strange_in_val, self.labelled = change or (lambda name, x: x), strange_in_val, labelled

    def load(self):
        draw = torch.Generator().manual_seed(self.seed)
        splits = {}
        for name, size, strange in (("train", 400, 0), ("val", 400, self.strange_in_val), ("test", 650, 50)):
            y = (torch.arange(size) >= size - strange).long()
            y[-(strange // 2) or size :] *= 2
            x = torch.randn(size, 3, generator=draw) + 4.0 * y[:, None]
            mixed = torch.randperm(size, generator=draw)  # both halves of validation hold anomalies
            y = y if self.labelled or name != "val" else torch.full_like(y, -1)
            splits[name] = Events.of(self.change(name, x[mixed]), y[mixed])
        return Splits(splits["train"], splits["val"], splits["test"], splits["train"].take([]))


class Keep(TestScores):
    def on_scores(self, trainer, module, scores):
        self.scores = scores


@pytest.fixture
def measured(trainer, tmp_path):
    """The thresholds of a test, by rule, the callback and the test's scores."""

    def run(data=None, detector=None, **options):
        thresholds, keep = Thresholds(tmp_path / "run", **options), Keep()
        made = trainer(callbacks=[thresholds, keep], max_epochs=1)
        detector, data = detector or Mahalanobis((3,)), data or Given()
        made.fit(detector, datamodule=data)
        made.test(detector, datamodule=data, verbose=False)
        return {entry["rule"]: entry for entry in thresholds.result()["thresholds"]}, thresholds, keep.scores

    return run


def test_thresholds_are_order_statistics_of_the_calibration_half_and_counts_those_of_the_test(
    measured, tmp_path, trainer
):
    data = Given(seed=1)
    found, callback, scores = measured(data, fprs=[0.02], input_hz=1000.0, accept_hz=100.0)
    kept = pq.read_table(tmp_path / "run" / "calibration.parquet").to_pydict()
    detector = Mahalanobis((3,))
    trainer(max_epochs=1).fit(detector, datamodule=data)
    half = torch.cat([batch.x for batch in data.calibration_dataloader()])
    assert kept["score"] == pytest.approx(detector(half).tolist(), rel=1e-4) and len(half) == 200
    ordered = sorted(kept["score"], reverse=True)
    for rule, k in (("quantile", 10), ("fpr", 4), ("rate", 20)):  # floor(rate * 201)
        entry = found[rule]
        assert entry["value"] == ordered[k - 1] and entry["expected_fpr"] == pytest.approx(k / 201)
        flagged, strange = scores.score > entry["value"], scores.y > 0
        assert entry["flagged"] == flagged.sum() and entry["calibration"] == 200
        assert entry["confusion"] == [
            [(~flagged & ~strange).sum(), (flagged & ~strange).sum()],
            [(~flagged & strange).sum(), (flagged & strange).sum()],
        ]
        assert entry["observed_fpr"] == pytest.approx(flagged[~strange].mean()) and entry["in_band"]
        assert entry["band"][0] <= entry["observed_fpr"] <= entry["band"][1]
        assert set(entry["recall_per_kind"]) == {"near", "far"}
    assert found["rate"]["expected_hz"] == pytest.approx(1000 * 20 / 201)
    assert found["rate"]["observed_hz"] == pytest.approx(1000 * found["rate"]["observed_fpr"])
    flagged = benjamini_hochberg(Calibration(kept["score"]).p_values(scores.score), 0.1)
    assert found["fdr"]["flagged"] == flagged.sum() > 0 and found["fdr"]["value"] is None
    assert callback.calibration.rows == 200


@pytest.mark.parametrize(("poisoned", "moves"), [("test", False), ("selection", False), ("calibration", True)])
def test_only_calibration_rows_move_a_threshold(measured, poisoned, moves):
    data = Given()
    data.setup("test")
    half = {x for batch in data.calibration_dataloader() for x in batch.x[:, 0].tolist()}
    assert len(half) == 200

    def poison(name, x):
        x = x.clone()
        if name == "test" and poisoned == "test":
            x += 100
        if name == "val" and poisoned != "test":
            chosen = [i for i, first in enumerate(x[:, 0].tolist()) if (first in half) == (poisoned == "calibration")]
            x[chosen[:50]] += 100
        return x

    clean, dirty = measured()[0], measured(Given(poison))[0]
    for rule in ("quantile", "fpr"):
        assert (clean[rule]["value"] != dirty[rule]["value"]) == moves


def test_the_best_f1_needs_labelled_anomalies_among_the_calibration_rows(measured):
    found, _, scores = measured(Given(strange_in_val=60), f1=True)
    assert found["f1"]["value"] > 0 and found["f1"]["f1"] > 0.8 and "of which are anomalous" in found["f1"]["remark"]
    assert found["f1"]["flagged"] == (scores.score > found["f1"]["value"]).sum()
    assert found["quantile"]["calibration"] < 200  # anomalies do not calibrate
    found = measured(f1=True)[0]["f1"]
    assert found["value"] is None and "no labelled anomaly" in found["remark"] and "flagged" not in found
    assert "f1" not in measured()[0]


def test_calibration_rows_without_labels_count_as_nominal_and_that_is_said(measured):
    found = measured(Given(labelled=False))[0]
    assert found["quantile"]["calibration"] == 200 and "have no labels" in found["quantile"]["remark"]


def test_without_calibration_rows_no_threshold_is_set_and_a_warning_says_why(measured, caplog, trainer, tmp_path):
    class Unvalidated(Given):
        def load(self):
            splits = super().load()
            return splits._replace(val=splits.val.take([]))

    with caplog.at_level(logging.WARNING, logger="straylight.callbacks.thresholds"):
        found = measured(Unvalidated())[0]
    assert found == {} and "No thresholds are set: there are no calibration rows" in caplog.text
    assert not (tmp_path / "run" / "calibration.parquet").exists()


def test_too_few_calibration_rows_flag_nothing_and_say_how_many_it_takes(measured):
    entry = measured(fprs=[1e-3])[0]["fpr"]
    assert (entry["value"], entry["flagged"], entry["expected_fpr"]) == (None, 0, 0)
    assert "it takes 999 nominal calibration rows" in entry["remark"]


@pytest.mark.parametrize("where", ["val", "test"])
def test_scores_that_are_nan_are_an_error_that_names_the_detector(measured, where):
    class Broken(AutoEncoder):
        def score(self, x, context):
            return torch.where(x[:, 0] > 50, torch.nan, x[:, 0])

    def change(name, x):
        x = x.clone()
        x[::3] += 100 * (name == where)
        return x

    with pytest.raises(StraylightError, match=r"Broken (sets no threshold|can flag none of its test rows): .* NaN"):
        measured(Given(change), Broken((3,), latent=1, scaling="none"))


def test_thresholds_change_no_score(measured, trainer):
    _, _, scores = measured(detector=KNN((3,)))
    data, keep, made = Given(), Keep(), KNN((3,))
    plain = trainer(callbacks=[keep], max_epochs=1)
    plain.fit(made, datamodule=data)
    plain.test(made, datamodule=data, verbose=False)
    assert np.array_equal(scores.score, keep.scores.score)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantile": 95}, "callbacks.thresholds.quantile must lie between 0 and 1, not 95"),
        ({"fprs": [0.1, 0.0]}, "callbacks.thresholds.fprs must lie between 0 and 1, not 0.0"),
        ({"fdr": 1}, "callbacks.thresholds.fdr must lie between 0 and 1, not 1"),
        ({"input_hz": 1e6}, "input_hz and accept_hz go together"),
        ({"input_hz": 10, "accept_hz": 20}, "callbacks.thresholds.accept_hz, input_hz: .* not 20 of 10 Hz"),
    ],
    ids=str,
)
def test_wrong_options_are_named(options, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        Thresholds(tmp_path, **options)


# a run's folder


@pytest.fixture
def finished(straylight_train):
    rates = ["callbacks.thresholds.input_hz=1000", "callbacks.thresholds.accept_hz=50"]
    ended = straylight_train("data=blobs", "detector=mahalanobis", *rates)
    assert ended.status == 0, ended.err
    return ended


def test_a_run_flags_as_its_record_counts(finished):
    run = Run.open(finished.run)
    assert set(run.thresholds) == {"quantile", "fpr=0.01", "rate"}
    scores = pq.read_table(finished.run / "scores.parquet")["score"].to_numpy()
    kept = pq.read_table(finished.run / "calibration.parquet")
    x = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32) * 5
    own = run.score(x)
    for entry in finished.result["thresholds"]:
        rule = {"fpr": "fpr=0.01"}.get(entry["rule"], entry["rule"])
        if rule != "fdr":
            assert (scores > run.thresholds[rule]).sum() == entry["flagged"]
            assert np.array_equal(run.flag(x, rule), own > run.thresholds[rule])
    p = run.p_values(x)
    counted = [(1 + np.sum(kept["score"].to_numpy() >= s)) / (len(kept) + 1) for s in own]
    assert p == pytest.approx(counted) and np.array_equal(run.flag(x, "fdr"), benjamini_hochberg(p, 0.1))


def test_a_rule_that_a_run_lacks_is_named_with_those_it_has(finished):
    run = Run.open(finished.run)
    with pytest.raises(ConfigError, match=r"has no threshold 'f1', but quantile, fpr=0.01, rate, fdr\."):
        run.flag(np.zeros((1, 2)), "f1")
    (finished.run / "calibration.parquet").unlink()
    with pytest.raises(ConfigError, match="holds no calibration scores"):
        run.p_values(np.zeros((1, 2)))


def test_a_run_without_thresholds_says_why_it_flags_nothing(straylight_train):
    ended = straylight_train("data=blobs", "detector=mahalanobis", "data.val_fraction=0")
    assert ended.status == 0, ended.err
    assert ended.result["thresholds"] == [] and Run.open(ended.run).thresholds == {}
    with pytest.raises(ConfigError, match="and no other: it was trained without"):
        Run.open(ended.run).flag(np.zeros((1, 2)))


def test_a_threshold_that_nothing_exceeds_is_infinite_for_a_run(straylight_train):
    ended = straylight_train("data=blobs", "detector=mahalanobis", "callbacks.thresholds.fprs=[1e-6]")
    run = Run.open(ended.run)
    assert run.thresholds["fpr=1e-06"] == math.inf and not run.flag(np.full((1, 2), 1e9), "fpr=1e-06").any()
