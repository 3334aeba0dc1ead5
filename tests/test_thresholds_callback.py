"""Thresholds of a run: on which rows they are set, what the record says of them, and how a run judges new events."""

from __future__ import annotations

import logging
from dataclasses import replace

import hydra
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from given import Keep
from straylight import config
from straylight.callbacks import Thresholds
from straylight.data import AnomalyDataModule, Blobs
from straylight.data.steps.splits import halves
from straylight.detectors import PCA
from straylight.errors import ConfigError, DataError, StraylightError
from straylight.metrics.conformal import Calibration, benjamini_hochberg
from straylight.metrics.thresholds import best_f1
from straylight.rows.batch import Events, Splits
from straylight.run import Run


class Planted(AnomalyDataModule):
    """Two kinds at some distance from the nominal rows; validation holds anomalies, too.

    Args:
        weighted: whether events have weights.
        labels: of validation rows: `all`, `none`, or `some` nominal and anomalous ones.
        val: nominal validation rows.
        poison: what becomes of the rows of each split.
    """

    kinds = ("nominal", "near", "far")

    def __init__(self, weighted=False, labels="all", val=400, poison=None, **common):
        super().__init__(**{"batch_size": 128, "eval_batch_size": 70, "contamination": None} | common)
        self.weighted, self.labels, self.val, self.poison = weighted, labels, val, poison or (lambda *split: split[1])

    def load(self) -> Splits:
        draw = torch.Generator().manual_seed(5)

        def events(*sizes):
            y = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
            y = y[torch.randperm(len(y), generator=draw)]
            x = torch.randn(len(y), 3, generator=draw) + torch.tensor([0.0, 2.0, 6.0])[y][:, None]
            weight = torch.rand(len(y), generator=draw) + 0.1 if self.weighted else None
            return Events.of(x, y, weight=weight)

        train, val, test = events(500, 0, 0), events(self.val, self.val // 10, self.val // 10), events(900, 60, 60)
        hidden = {"all": 0, "none": len(val), "some": len(val) // 2}[self.labels]
        val = replace(val, y=torch.where(torch.arange(len(val)) < hidden, -1, val.y))
        train, val, test = (
            self.poison(*pair) for pair in zip(("train", "val", "test"), (train, val, test), strict=True)
        )
        return Splits(train, val, test, test.take([]))


@pytest.fixture
def run(trainer, tmp_path):
    """A short training and its test: the thresholds recorded, the rows that set them, test scores, data, detector."""

    def train_and_test(data=None, detector=None, **options):
        data, keep = data or Planted(), Keep()
        thresholds = Thresholds(tmp_path / "run", **options)
        fit = trainer(max_epochs=1, callbacks=[thresholds, keep])
        detector = detector or PCA((3,), components=1)
        fit.fit(detector, datamodule=data)
        fit.test(detector, datamodule=data, verbose=False)
        path = tmp_path / "run" / "calibration.parquet"
        table = pq.read_table(path) if path.exists() else None
        written = {} if table is None else {name: table[name].to_numpy() for name in table.column_names}
        return thresholds.result()["thresholds"], written, keep.scores, data, detector

    return train_and_test


def values(found) -> list:
    return [entry["value"] for entry in found]


def by_rule(found) -> dict:
    return {entry["rule"]: entry for entry in found}


# on which rows


@pytest.mark.parametrize("weighted", [False, True])
def test_thresholds_are_set_on_the_calibration_half_of_validation(run, weighted) -> None:
    found, written, scores, data, detector = run(
        Planted(weighted), fprs=[0.02, 0.1], input_hz=1e5, accept_hz=2e3, f1=True
    )
    half = halves(data.splits.val, data.seed)[1]
    with torch.no_grad():
        expected = detector(half.x, half.context).numpy()
    assert written["index"].tolist() == list(range(len(half))) and len(half) == len(data.splits.val) // 2
    assert np.allclose(written["score"], expected, rtol=1e-5) and np.array_equal(written["y"], half.y.numpy())
    assert ("weight" in written) == weighted
    weight = half.weight.numpy() if weighted else None
    if weighted:
        assert np.array_equal(written["weight"], weight)
    nominal = written["y"] == 0
    assert 0 < nominal.sum() < len(half)
    calibration = Calibration(written["score"][nominal], weight[nominal] if weighted else None)
    expected = [calibration.at_fpr(fpr) for fpr in (0.05, 0.02, 0.1, 0.02)]
    assert [entry["rule"] for entry in found] == ["quantile", "fpr", "fpr", "rate", "fdr", "f1"]
    assert values(found[:4]) == [threshold.value for threshold in expected]
    assert [entry["expected_fpr"] for entry in found[:4]] == [threshold.expected_fpr for threshold in expected]
    assert found[5]["value"] == best_f1(written["score"], written["y"], weight).value

    # and on test rows do what they say
    tested = data.splits.test
    w = tested.weight.numpy() if weighted else np.ones(len(tested))
    above = scores.score > found[0]["value"]
    assert found[0]["observed_fpr"] == pytest.approx(np.average(above[scores.y == 0], weights=w[scores.y == 0]))
    assert found[0]["recall_per_kind"]["far"][0] == pytest.approx(
        np.average(above[scores.y == 2], weights=w[scores.y == 2])
    )
    for entry, threshold in zip(found[:4], expected, strict=True):
        low, high = threshold.band(900, level=0.9999)
        assert low < entry["observed_fpr"] < high and entry["band"][0] < entry["expected_fpr"] < entry["band"][1]
    rate = by_rule(found)["rate"]
    assert rate["asked"] == {"accept_hz": 2e3, "input_hz": 1e5}
    assert rate["expected_hz"] == 1e5 * rate["expected_fpr"] <= 2e3
    assert rate["observed_hz"] == pytest.approx(1e5 * rate["observed_fpr"])
    flagged = benjamini_hochberg(calibration.p_values(scores.score), 0.1)
    assert by_rule(found)["fdr"]["flagged"] == flagged.sum() > 0


def poison(split, chosen):
    """Makes rubbish of the chosen rows of a split."""

    def spoil(name, events):
        if name != split:
            return events
        rows = torch.from_numpy(chosen(events))
        return replace(events, x=torch.where(rows[:, None], events.x * 1e6, events.x))

    return spoil


def in_half(number):
    """Which validation rows are in the half that selects, 0, or in the one that calibrates, 1."""

    def chosen(events):
        numbered = replace(events, meta={"row": np.arange(len(events))})
        rows = halves(numbered, seed=0)[number].meta["row"]
        return np.isin(np.arange(len(events)), rows)

    return chosen


def test_neither_test_rows_nor_the_selecting_half_move_a_threshold_and_calibration_rows_do(run) -> None:
    clean = values(run(f1=True)[0])
    everything = poison("test", lambda events: np.ones(len(events), bool))
    found, _, scores, *_ = run(Planted(poison=everything), f1=True)
    assert values(found) == clean and scores.score.min() > max(filter(None, clean))
    assert values(run(Planted(poison=poison("val", in_half(0))), f1=True)[0]) == clean
    changed = values(run(Planted(poison=poison("val", in_half(1))), f1=True)[0])
    assert all(new > old for new, old in zip(changed, clean, strict=True) if old is not None)


def test_they_are_set_before_the_first_test_row_is_scored(run, monkeypatch) -> None:
    seen = []

    class Watched(PCA):
        def score(self, x, context):
            seen.append(len(x))
            return super().score(x, context)

    data = Planted()
    run(data, Watched((3,), components=1))
    calibration = [len(batch.x) for batch in data.calibration_dataloader()]
    assert seen[-len(data.test_dataloader()) - len(calibration) :][: len(calibration)] == calibration


def test_setting_them_uses_no_random_number_of_the_run_and_leaves_the_module_as_it_was(trainer, tmp_path) -> None:
    data, detector = Planted(), PCA((3,), components=1)
    fit = trainer(max_epochs=1)
    fit.fit(detector, datamodule=data)
    thresholds = Thresholds(tmp_path)
    detector.train()
    before = torch.get_rng_state()
    thresholds.on_test_start(fit, detector)
    assert thresholds.found and torch.equal(torch.get_rng_state(), before) and detector.training


# labels


def test_rows_of_unknown_label_count_as_nominal_only_where_no_label_is_known(run) -> None:
    found, written, *_ = run(Planted(labels="none"), f1=True)
    quantile = by_rule(found)["quantile"]
    assert quantile["value"] == Calibration(written["score"]).at_fpr(0.05).value
    assert quantile["calibration"] == len(written["y"]) and "count as nominal" in quantile["remark"]
    assert by_rule(found)["f1"]["value"] is None and "not labelled" in by_rule(found)["f1"]["remark"]
    assert "confusion" not in by_rule(found)["f1"] and quantile["confusion"]

    found, written, *_ = run(Planted(labels="some"), f1=True)
    known = written["y"] >= 0
    assert 0 < known.sum() < len(known)
    quantile = by_rule(found)["quantile"]
    assert quantile["value"] == Calibration(written["score"][written["y"] == 0]).at_fpr(0.05).value
    assert quantile["calibration"] == (written["y"] == 0).sum() and "count as nominal" not in str(quantile["remark"])
    assert by_rule(found)["f1"]["value"] == best_f1(written["score"][known], written["y"][known]).value


def test_of_test_rows_without_labels_it_is_said_how_many_are_flagged(run) -> None:
    def hidden(name, events):
        return replace(events, y=torch.full_like(events.y, -1)) if name == "test" else events

    found, _, scores, *_ = run(Planted(poison=hidden))
    for entry in found[:2]:
        assert entry["flagged"] == (scores.score > entry["value"]).sum()
    assert not {"observed_fpr", "in_band", "band", "precision"} & set().union(*found)


@pytest.mark.parametrize("data", [lambda: Planted(val=0), lambda: Blobs(protocol="unsupervised")])
def test_without_validation_rows_no_threshold_is_set_and_it_is_said(run, caplog, data) -> None:
    data = data()
    with caplog.at_level(logging.WARNING, logger="straylight.callbacks.thresholds"):
        found, written, *_ = run(data, PCA(data.shape, components=1))
    assert found == [] and written == {}
    (said,) = [r.message for r in caplog.records if r.name == "straylight.callbacks.thresholds"]
    assert said.startswith("No thresholds are set: there are no nominal calibration rows.")


def test_a_test_without_a_data_module_sets_none(trainer, tmp_path, run) -> None:
    *_, data, detector = run()
    thresholds = Thresholds(tmp_path / "other")
    trainer(callbacks=[thresholds]).test(detector, dataloaders=data.test_dataloader(), verbose=False)
    assert thresholds.result() == {"thresholds": []} and not (tmp_path / "other").exists()


# what goes wrong


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("val", r"Broken sets no threshold: \d+ of \d+ calibration scores are NaN"),
        ("test", r"Broken applies no threshold: \d+ of 1020 test scores are NaN"),
    ],
)
def test_nan_scores_are_an_error_that_counts_them(run, split, said) -> None:
    class Broken(PCA):
        def score(self, x, context):
            score = super().score(x, context)
            return torch.where(score > 1e6, torch.nan, score)

    with pytest.raises(StraylightError, match=said):
        run(Planted(poison=poison(split, in_half(1))), Broken((3,), components=1, scaling="none"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantile": 95}, "quantile must lie between 0 and 1, not 95"),
        ({"fprs": [0.1, 0]}, "fprs must lie between 0 and 1, not 0"),
        ({"accept_hz": 10}, "input_hz and accept_hz go together"),
    ],
)
def test_options_that_cannot_be_used_are_named(tmp_path, options, said) -> None:
    with pytest.raises(ValueError, match=rf"^callbacks\.thresholds\.{said}"):
        Thresholds(tmp_path, **options)


# a run


@pytest.fixture
def ended(straylight_train):
    return straylight_train(
        "detector=pca",
        "data=blobs",
        "data.nominal=4000",
        "data.val_fraction=0.3",
        "detector.components=1",
        "callbacks.thresholds.fprs=[0.02,1e-6]",
        "callbacks.thresholds.input_hz=1e5",
        "callbacks.thresholds.accept_hz=1e4",
        "callbacks.thresholds.f1=true",
    )


def test_a_run_flags_new_events_as_its_record_says(ended) -> None:
    assert ended.status == 0, ended.err
    found = ended.result["thresholds"]
    opened = Run.open(ended.run)
    data = config.build(opened.cfg, "data")
    data.setup()
    test = data.splits.test
    y = test.y.numpy()

    named = {"quantile": 0, "fpr=0.02": 1, "fpr=1e-06": 2, "rate": 3}
    assert opened.thresholds == {name: found[i]["value"] or np.inf for name, i in named.items()}
    assert opened.thresholds["fpr=1e-06"] == np.inf and found[2]["flagged"] == 0
    with pytest.raises(ConfigError, match="it takes 999,999 nominal calibration rows or more"):
        opened.flag(test.x, "fpr=1e-06")
    del named["fpr=1e-06"]
    for rule, i in (named | {"fdr": 4}).items():
        flagged = opened.flag(test.x, rule)
        (tn, fp), (fn, tp) = found[i]["confusion"]
        counts = [np.sum(a & b) for a in (y == 0, y > 0) for b in (~flagged, flagged)]
        assert counts == [tn, fp, fn, tp] and flagged.sum() == found[i]["flagged"]
    assert np.array_equal(opened.flag(test.x), opened.flag(test.x, "quantile")) and opened.flag(test.x).any()

    p = opened.p_values(test.x)
    table = pq.read_table(ended.run / "calibration.parquet")
    assert len(table) == found[0]["calibration"] == len(halves(data.splits.val, data.seed)[1])
    scores = opened.score(test.x)
    assert np.array_equal(p, Calibration(table["score"].to_numpy()).p_values(scores))
    assert np.array_equal(p <= 0.02, opened.flag(test.x, "fpr=0.02"))
    assert found[5]["value"] is None and "not labelled" in found[5]["remark"]  # validation is nominal here

    with pytest.raises(ConfigError, match=r"has no threshold 'f1', but quantile, fpr=0\.02, fpr=1e-06, rate, fdr"):
        opened.flag(test.x, "f1")
    with pytest.raises(DataError, match="1 of 2 events have a NaN score"):
        opened.flag([[np.nan, 0], [0, 0]])
    with pytest.raises(DataError, match="1 of 2 events have a NaN score"):
        opened.p_values([[np.nan, 0], [0, 0]])


def test_a_run_of_weighted_and_partly_labelled_rows_is_opened_with_the_calibration_it_had(run, tmp_path) -> None:
    found, _, scores, *_ = run(Planted(weighted=True, labels="some"))
    opened = Run.__new__(Run)
    opened.folder, opened.result = tmp_path / "run", {"thresholds": found}
    calibration = opened.judge.calibration
    assert calibration.rows == found[0]["calibration"] and calibration.n == found[0]["calibration_effective"]
    assert calibration.at_fpr(0.05).value == opened.thresholds["quantile"]
    assert benjamini_hochberg(calibration.p_values(scores.score), 0.1).sum() == by_rule(found)["fdr"]["flagged"]


def test_a_run_without_thresholds_says_why_it_flags_nothing(straylight_train) -> None:
    ended = straylight_train("detector=pca", "data=blobs", "data.val_fraction=0")
    assert ended.status == 0, ended.err
    assert ended.result["thresholds"] == [] and "No thresholds are set" in ended.out
    opened = Run.open(ended.run)
    assert opened.thresholds == {}
    with pytest.raises(ConfigError, match=r"has no threshold 'quantile', and no other: .*data\.val_fraction"):
        opened.flag([[0, 0]])
    with pytest.raises(ConfigError, match=r"no calibration scores .*data\.val_fraction"):
        opened.p_values([[0, 0]])


def test_the_configs_defaults_are_the_callbacks(tmp_path) -> None:
    from straylight.groups import FOLDER

    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        cfg = hydra.compose("train", overrides=["detector=pca", "data=blobs", f"paths.run={tmp_path}"])
    assert config.build(cfg.callbacks, "thresholds").rules == Thresholds(tmp_path).rules
