"""Over-densities after the test: the optimum, sculpting and the hunt, and when there is nothing to measure."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from straylight.callbacks import Bump, Ranking, Record
from straylight.callbacks.scored import measured
from straylight.data import AnomalyDataModule
from straylight.detectors import KNN
from straylight.detectors.over_density import OverDensity
from straylight.folder import RunFolder
from straylight.result import odd
from straylight.rows.batch import Events, Splits
from straylight.rows.resonance import Resonance


class Resonant(AnomalyDataModule):
    """x ~ N(0, 1) beside a signal N(2, 0.5), m falling exponentially; m is the second of two columns of context."""

    kinds = ("nominal", "signal")

    def __init__(
        self,
        *,
        events=20_000,
        signal=200,
        resonance=True,
        knows=True,
        labels=True,
        bent=0.0,
        region="both",
        weights=None,
        **common,
    ):
        super().__init__(**{"contamination": None, **common})
        self.events, self.signal, self.labels, self.bent, self.region = events, signal, labels, bent, region
        self.weights = weights  # by which rows of two kinds are weighed in turns
        if resonance:
            self.resonance = Resonance("m", 1, 3.3, 3.7)
        if knows:
            self.log_ratio = lambda x, context: torch.from_numpy(
                norm.logpdf(x[:, 0].double(), 2, 0.5) - norm.logpdf(x[:, 0].double())
            )

    def rows(self, rng, background, signal, inside=False) -> Events:
        m = 3 - np.log1p(-rng.random(8 * background if inside else background) * (1 - np.exp(-1.5)))
        if inside:
            m = m[(m > 3.3) & (m < 3.7)][:background]
        m = np.append(m, np.clip(rng.normal(3.5, 0.08, signal), 3.301, 3.699))
        y = np.repeat([0, 1], [len(m) - signal, signal])
        x = np.where(y, rng.normal(2, 0.5, len(m)), rng.normal(0, 1, len(m)) + self.bent * (m - 3.75))
        shuffled = rng.permutation(len(m))
        context = np.stack([rng.random(len(m)), m], 1)[shuffled]
        weight = None if self.weights is None else np.resize(self.weights, len(m))
        return Events.of(x[shuffled, None], y[shuffled], context, weight)

    def load(self) -> Splits:
        rng = np.random.default_rng(self.seed)
        train = self.rows(rng, self.events, self.signal)
        if self.region == "signal":
            train = train.take(self.resonance.holds(train.context).nonzero().flatten())
        if not self.labels:
            train = Events.of(train.x, torch.full((len(train),), -1), train.context)
        val, test = self.rows(rng, 2000, 0), self.rows(rng, 20_000, 2000, inside=True)
        return Splits(train, val, test, train.take([]))


class Feature(OverDensity):
    """The score is the first feature, whatever was learned."""

    def learn(self, rows: Any, truth: Any) -> None:
        pass

    def each(self, x: Tensor, context: Tensor) -> Tensor:
        return x[..., 0]


class Rounded(Feature):
    """Scores of which most are equal."""

    def each(self, x: Tensor, context: Tensor) -> Tensor:
        return (x[..., 0] > 1.9).float()


def run(trainer, detector=None, data=None, bump=None, **callbacks) -> dict[str, Any]:
    """What a test's callbacks record."""
    data = data or Resonant()
    detector = detector or Feature((1,), context=2, scaling="none")
    made = trainer(callbacks=[Ranking(), bump or Bump(), *callbacks.values()], max_epochs=1)
    made.fit(detector, datamodule=data)
    made.test(detector, datamodule=data, verbose=False)
    return measured(made)


def cut(found: dict[str, Any], efficiency: float) -> dict[str, Any]:
    return next(one for one in found["bump"]["cuts"] if one["efficiency"] == efficiency)


def test_a_cut_raises_a_significance_and_bends_nothing(trainer) -> None:
    found = run(trainer)
    bump = found["bump"]
    assert bump["resonance"] == {"name": "m", "low": 3.3, "high": 3.7}
    assert (bump["rows"], bump["folds"], bump["direction"]) == (20_200, 5, "all")
    whole, tenth = cut(found, 1.0), cut(found, 0.1)
    assert whole["kept"] == 20_200 and tenth["kept"] == 2020 and cut(found, 0.001)["kept"] == 20
    assert 0.5 < whole["z"] < 4 and tenth["z"] > whole["z"] + 1
    assert found["metrics"]["test/z@efficiency=0.1"] == tenth["z"]
    assert [one["efficiency"] for one in bump["sculpting"]] == [0.1, 0.01, 0.001]
    assert all(one["p"] > 1e-3 for one in bump["sculpting"])
    assert sum(bump["sculpting"][0]["before"]) == 20_000  # of background alone
    assert "too wide" in bump["remarks"][0] and "detector.folds=forward" in bump["remarks"][0]


def test_the_numbers_are_those_of_the_rows(trainer) -> None:
    data = Resonant()
    found = run(trainer, data=data)
    train = data.splits.train
    m, x = train.context[:, 1].numpy(), train.x[:, 0].numpy()
    fold = Feature((1,), context=2, scaling="none").train()
    assert fold is not None
    inside = (m >= np.float32(3.3)) & (m <= np.float32(3.7))
    assert cut(found, 1.0)["observed"] == inside.sum()
    threshold = np.quantile(x, 0.9)  # folds differ by chance, and so do their thresholds
    assert cut(found, 0.1)["observed"] == pytest.approx((inside & (x > threshold)).sum(), abs=25)
    shown = cut(found, 0.1)
    centres = (np.array(shown["edges"][1:]) + np.array(shown["edges"][:-1])) / 2
    within = (centres > 3.3) & (centres < 3.7)
    assert np.array(shown["counts"])[within].sum() == shown["observed"]
    assert np.array(shown["fit"])[within].sum() == pytest.approx(shown["expected"])
    assert sum(shown["counts"]) == shown["kept"]


def test_the_optimum_is_that_of_the_likelihood_ratio(trainer) -> None:
    found = run(trainer)
    metrics = found["metrics"]
    # the ratio falls again beyond 8/3, so that the feature itself is less than the best score
    t = np.linspace(-4, 8, 240_001)
    ratio = norm.logpdf(t, 2, 0.5) - norm.logpdf(t)
    order = np.argsort(-ratio)
    fpr, tpr = (np.cumsum(norm.pdf(t[order], *law)) * (t[1] - t[0]) for law in ((0, 1), (2, 0.5)))
    true = (tpr / np.sqrt(fpr))[fpr * 20_000 > 25].max()
    assert metrics["test/optimum_max_sic"] == pytest.approx(true, rel=0.05)
    assert metrics["test/optimum_fraction"] == metrics["test/max_sic"] / metrics["test/optimum_max_sic"] < 1
    low, high = found["intervals"]["test/max_sic"]
    assert low <= metrics["test/max_sic"] <= high and "test/auroc" in found["intervals"]
    curve = found["bump"]["optimum_curve"]
    assert max(curve["sic"]) == metrics["test/optimum_max_sic"]
    assert (np.diff(curve["tpr"]) > 0).all() and 100 < len(curve["sic"]) <= 200


def test_forward_folds_leave_the_first_out_and_say_that_they_are_right(trainer) -> None:
    found = run(trainer, Feature((1,), context=2, scaling="none", folds="forward"))
    bump = found["bump"]
    assert bump["direction"] == "forward" and bump["rows"] == cut(found, 1.0)["kept"]
    assert bump["rows"] == pytest.approx(16_160, abs=5)  # equal events are in one fold
    assert "as wide as they should be" in bump["remarks"][0]
    assert f"{20_200 - bump['rows']:,} events of the first" in bump["remarks"][0]


def test_a_detector_without_folds_is_not_cut_on(trainer) -> None:
    found = run(trainer, Feature((1,), context=2, scaling="none", folds=None))
    assert "cuts" not in found["bump"] and "No cut is made" in found["bump"]["remarks"][0]
    assert "test/optimum_max_sic" in found["metrics"]


def test_a_detector_of_outliers_is_measured_without_a_hunt(trainer) -> None:
    found = run(trainer, KNN((1,), k=3), Resonant(events=2000))
    assert "cuts" not in found["bump"] and "No bump is hunted for" in found["bump"]["remarks"][0]
    assert "test/max_sic" in found["intervals"] and "test/optimum_fraction" in found["metrics"]
    assert sum(found["bump"]["sculpting"][0]["before"]) == 2000  # validation rows


@pytest.mark.parametrize("bent", [0.0, 1.5])
def test_a_feature_that_hangs_on_the_mass_sculpts(trainer, bent) -> None:
    found = run(trainer, data=Resonant(bent=bent, signal=0))
    tenth = found["bump"]["sculpting"][0]
    assert (tenth["p"] < 1e-6) == (bent > 0)
    assert (tenth["jsd"] > 3 * tenth["chance"]) == (bent > 0)


def test_equal_scores_are_cut_to_the_fraction_asked_for_by_chance(trainer) -> None:
    data = Resonant(signal=0)
    found = run(trainer, Rounded((1,), context=2, scaling="none"), data)
    assert cut(found, 0.1)["kept"] == 2000 and cut(found, 0.01)["kept"] == 200
    assert found["bump"]["sculpting"][0]["p"] > 1e-3
    again = run(trainer, Rounded((1,), context=2, scaling="none"), data)
    assert again["bump"] == found["bump"]
    other = run(trainer, Rounded((1,), context=2, scaling="none"), data, Bump(seed=1))
    assert other["bump"]["cuts"][1]["counts"] != found["bump"]["cuts"][1]["counts"]


def test_a_width_divides_what_is_behind_a_cut(trainer) -> None:
    plain, wide = run(trainer), run(trainer, bump=Bump(width=1.3))
    assert cut(wide, 1.0)["z"] == cut(plain, 1.0)["z"]
    assert cut(wide, 0.1)["z"] == pytest.approx(cut(plain, 0.1)["z"] / 1.3)
    assert wide["bump"]["width"] == 1.3 and "callbacks.bump.width=1.3" in wide["bump"]["remarks"][1]


def test_rows_without_labels_are_said_to_count_as_background(trainer) -> None:
    found = run(trainer, data=Resonant(labels=False, knows=False))
    assert any("Nobody knows the labels of the training rows" in said for said in found["bump"]["remarks"])
    assert sum(found["bump"]["sculpting"][0]["before"]) == 20_200
    assert "test/optimum_max_sic" not in found["metrics"] and "optimum_curve" not in found["bump"]


def test_weights_that_differ_are_said_to_be_left_aside(trainer) -> None:
    said = "count as one each, whatever their weights"
    plain, even, uneven = (run(trainer, data=Resonant(weights=w))["bump"] for w in (None, (2.0,), (0.5, 1.5)))
    assert not any(said in remark for remark in plain["remarks"] + even["remarks"])
    assert sum(said in remark for remark in uneven["remarks"]) == 1
    assert uneven["cuts"] == plain["cuts"] and uneven["sculpting"] == plain["sculpting"], "events, no sums of weights"
    nearest = run(trainer, KNN((1,), k=3), Resonant(events=2000, weights=(0.5, 1.5)))["bump"]
    assert any(said in remark for remark in nearest["remarks"]) and sum(nearest["sculpting"][0]["before"]) == 2000


def test_what_cannot_be_fitted_is_recorded_in_a_sentence(trainer) -> None:
    class Anywhere(Feature):
        needs_sidebands = False

    found = run(trainer, Anywhere((1,), context=2, scaling="none"), Resonant(region="signal"))
    said = [one["failed"] for one in found["bump"]["cuts"]]
    assert len(set(said)) == 1 and said[0].startswith("There is no sideband") and said[0].endswith(".")
    few = run(trainer, data=Resonant(events=400, signal=10))
    assert cut(few, 0.001)["failed"] in (
        "No event is left.",
        "No event is left in the sideband below the signal region.",
    )
    assert "test/z@efficiency=0.001" not in few["metrics"]


def test_without_a_signal_region_nothing_is_measured_or_collected(trainer) -> None:
    bump = Bump()

    class Blind(Feature):
        def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
            pass

    found = run(trainer, Blind((1,), context=2, scaling="none"), Resonant(events=500, resonance=False), bump)
    assert "bump" not in found and not bump._parts and "test/max_sic" not in found["intervals"]
    assert "test/auroc" in found["metrics"]


def test_a_run_records_it_and_marks_what_has_seen_the_truth(trainer, tmp_path) -> None:
    class Supervised(Feature):
        sees_truth = True

        def fit(self, x: Tensor, context: Tensor, weight: Tensor) -> None:
            pass

    run(trainer, bump=Bump(), record=Record(tmp_path / "one"))
    written = json.loads((tmp_path / "one" / "result.json").read_text())
    assert odd(written) is None and written["bump"]["cuts"][1]["z"] > 1 and written["truth"] is False
    assert "test/max_sic" in written["intervals"] and "test/auroc" in written["intervals"]
    run(trainer, Supervised((1,), context=2, scaling="none"), record=Record(tmp_path / "two"))
    result = RunFolder(tmp_path / "two").read()
    assert result is not None and result["truth"] is True


@pytest.mark.parametrize(
    ("bump", "sound"),
    [
        ({"cuts": [{"efficiency": 0.1, "kept": 3, "failed": "why"}]}, True),
        ({"cuts": [{"efficiency": 0.1, "kept": 3}]}, False),
        ({"resonance": {"name": "m", "low": 3, "high": 4}, "remarks": []}, True),
        ({"resonance": {"name": "m", "low": 3}}, False),
        ({"remarks": "none"}, False),
        (None, True),
        ([], False),
        ({"cuts": None}, False),
        ({"cuts": [{}]}, False),
        ({"sculpting": [1]}, False),
    ],
)
def test_a_record_that_is_damaged_is_noticed(bump, sound) -> None:
    assert (odd({"status": "ok", "bump": bump}) is None) == sound


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"efficiencies": [1.0]}, "efficiencies must lie between 0 and 1"),
        ({"function": "exp7"}, "function must be one of exp2"),
        ({"bins": 3}, "bins must be 10 or more"),
        ({"width": 0.0}, "width positive"),
        ({"resamples": 1}, "resamples 0 or 2 or more"),
        ({"seed": -1}, "seed not negative"),
    ],
)
def test_settings_are_checked(given, said) -> None:
    with pytest.raises(ValueError, match=said):
        Bump(**given)


def test_no_resamples_no_interval(trainer) -> None:
    assert "test/max_sic" not in run(trainer, data=Resonant(events=2000), bump=Bump(resamples=0))["intervals"]
