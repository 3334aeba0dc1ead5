"""Criteria of a run: on which rows they are measured, of every detector, and that no test label reaches a choice."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from scipy import stats

from given import OVER_DENSITIES, equal
from straylight import config
from straylight.callbacks import Checkpoint, Criteria, Thresholds
from straylight.callbacks.criteria import FEW, SLOW
from straylight.data import AnomalyDataModule, Blobs, Bump, Digits
from straylight.data.steps.splits import halves
from straylight.detectors import GMM, HBOS, KDE, KNN, PCA, VAE, AutoEncoder
from straylight.documents import read_yaml
from straylight.groups import FOLDER, choices
from straylight.job.train import fit_and_test, silent
from straylight.objective import CRITERIA
from straylight.rows.batch import Events, Splits
from straylight.rows.mapped import Mapped

QUICKER = {"anogan": ["detector.steps=20"], "external": ["+detector.arguments.n_estimators=20"]}
SMALL = {"events": 6000, "signal_fraction": 0.05, "test_background": 2000, "test_signal": 500}
TREES = ["detector.trees.members=1", "detector.trees.min_samples_leaf=20", "detector.trees.max_iter=40"]
FLOW = ["detector.flow.layers=2", "detector.flow.hidden=16", "detector.flow.epochs=2", "detector.flow.batch_size=128"]


def run(folder, detector, data, epochs=2, seed=0, callbacks=(), **options) -> Criteria:
    """Criteria of a detector that was trained and tested."""
    criteria = Criteria(**options)
    trainer = silent(str(folder), [criteria, Checkpoint(folder), *callbacks], epochs)
    fit_and_test(trainer, detector, data)
    return criteria


class Known(AnomalyDataModule):
    """Two features that go together, of which validation holds many rows; what becomes of each split may be told."""

    def __init__(self, train=400, val=600, change=lambda name, events: events, **common) -> None:
        super().__init__(**{"batch_size": 64, "contamination": None, **common})
        self.sizes, self.change = (train, val), change

    def load(self) -> Splits:
        rng = np.random.default_rng(5)

        def events(n, strange=0):
            first = rng.normal(size=n)
            x = np.c_[first, first + 0.2 * rng.normal(size=n)]
            x[n - strange :, 1] *= -1
            return Events.of(x, np.arange(n) >= n - strange)

        splits = {"train": events(self.sizes[0]), "val": events(self.sizes[1]), "test": events(300, 60)}
        splits = {name: self.change(name, part) for name, part in splits.items()}
        return Splits(*splits.values(), reserve=splits["test"].take([]))


# of every detector


def composed(name: str):
    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        quicker = QUICKER.get(name, [])
        if name in OVER_DENSITIES:
            settings = read_yaml(FOLDER / "detector" / f"{name}.yaml")
            shorter = {"trees": TREES, "flow": FLOW, "folds": ["detector.folds=3"]}
            quicker = [typed for key, some in shorter.items() if key in settings for typed in some]
        return compose("train", overrides=[f"detector={name}", "paths.run=.", *quicker])


@pytest.mark.parametrize("name", choices("detector"))
def test_every_detector_has_criteria_or_says_why_not(name, tmp_path) -> None:
    cfg = composed(name)
    if name in OVER_DENSITIES:
        data: AnomalyDataModule = Bump(seed=1, **SMALL)
    elif name in ("autoencoder_conv", "vae_conv"):
        data = Digits(seed=0)
    elif name in ("sum_pt", "multiplicity"):
        data = Known()
        data.splits = Splits(*(replace(part, x=part.x[:, :1].abs().repeat(1, 3)) for part in data.load()))
    else:
        data = Blobs(seed=0)
    data.setup()
    pl.seed_everything(0, verbose=False)
    optimizer = config.build(cfg, "optimizer")
    detector = config.build(cfg, "detector", shape=data.shape, context=data.context, optimizer=optimizer)
    found = run(tmp_path, detector, data, epochs=4)
    assert set(CRITERIA) <= set(found.found)
    for criterion, value in found.found.items():
        assert (value is None) == (criterion in found.why_none), criterion
        assert value is None or math.isfinite(value)
    assert 0 <= found.found["val/separation"] <= 1
    parts = [value for criterion, value in found.found.items() if criterion.startswith("val/separation/")]
    assert found.found["val/separation"] == pytest.approx(np.mean(parts))
    assert (found.found["val/loss"] is None) == (not detector.selects)
    assert (found.found["val/nll"] is None) == (not detector.density)


# of which rows


def test_criteria_are_of_the_rows_that_select(tmp_path) -> None:
    def poisoned(which):
        def change(name, events):
            if name != "val":
                return events
            half = halves(replace(events, meta={"row": np.arange(len(events))}), 0)[which].meta["row"]
            x = events.x.clone()
            x[half] = x[half] * torch.tensor([1.0, -1.0])
            return replace(events, x=x)

        return change

    def found(change=lambda name, events: events):
        return run(tmp_path, GMM((2,), components=1), Known(change=change)).found

    plain, calibrating, selecting = found(), found(poisoned(1)), found(poisoned(0))
    assert calibrating == plain
    assert selecting["val/separation"] < plain["val/separation"] and selecting["val/nll"] > plain["val/nll"] + 1


def test_the_density_of_held_out_rows_is_in_the_units_of_the_data(tmp_path) -> None:
    data = Known(train=4000, val=2000)
    found = run(tmp_path, GMM((2,), components=1, scaling="standard"), data)
    x = data.splits.train.x.double().numpy()
    law = stats.multivariate_normal(x.mean(0), np.cov(x.T))
    expected = -law.logpdf(data.selecting.x.double().numpy()) / 2
    assert found.found["val/nll"] == pytest.approx(expected.mean(), abs=2e-3)
    reach = 1.96 * expected.std() / math.sqrt(len(expected))
    assert np.diff(found.intervals["val/nll"])[0] == pytest.approx(2 * reach, rel=0.01)
    narrow = run(tmp_path, GMM((2,), components=1, scaling="minmax"), data)  # in other units while it computes
    assert narrow.found["val/nll"] == pytest.approx(found.found["val/nll"], abs=2e-3)


def test_all_detectors_of_a_seed_meet_the_same_rows(tmp_path, monkeypatch) -> None:
    def seen(detector, seed=0):
        met: list[torch.Tensor] = []
        before = type(detector).test_step
        monkeypatch.setattr(
            type(detector), "test_step", lambda self, batch, i: met.append(batch.x) or before(self, batch, i)
        )
        run(tmp_path, detector, Blobs(seed=seed))
        monkeypatch.undo()
        return met[0]

    rows = seen(KNN((2,)))
    assert torch.equal(rows, seen(VAE((2,)))) and not torch.equal(rows, seen(KNN((2,)), seed=1))
    assert len(rows) > 4 * FEW


def test_rows_on_disk_are_those_in_memory(tmp_path) -> None:
    def on_disk(name, events):
        return events if name == "test" else replace(events, x=Mapped([events.x]))

    read = run(tmp_path, PCA((2,), components=1), Known(memory_mb=4096, change=on_disk))
    mapped = run(tmp_path, PCA((2,), components=1), Known(memory_mb=0, change=on_disk))
    plain = run(tmp_path, PCA((2,), components=1), Known())
    assert read.found == plain.found == mapped.found


def test_few_rows_are_scored_where_each_is_a_search(tmp_path) -> None:
    met: list[int] = []

    class Searches(PCA):
        searches = True

        def test_step(self, batch, i):
            met.append(len(batch.x))
            return super().test_step(batch, i)

    found = run(tmp_path, Searches((2,), components=1), Known())
    assert met[0] == SLOW * 5  # as many anomalies of each of four kinds
    assert "searches for each score" in found.why_none["val/mass_volume"]


def test_context_goes_with_the_row_that_an_anomaly_is_made_of(tmp_path) -> None:
    met: list = []

    class Sees(PCA):
        def test_step(self, batch, i):
            met.append(batch)
            return super().test_step(batch, i)

    def change(name, events):
        return replace(events, context=events.x[:, :1] * 10)

    run(tmp_path, Sees((2,), components=1, context=1), Known(change=change))
    rows, n = met[0], len(Known().selecting)
    local = slice(n, 2 * n)  # each made of its own row, from which it moves outwards
    assert torch.equal(rows.context[:n], rows.x[:n, :1] * 10) and torch.equal(rows.context[local], rows.context[:n])


def test_where_no_rows_validate_training_rows_are_looked_at_and_a_notice_says_so(tmp_path) -> None:
    class Everything(Known):
        def load(self) -> Splits:
            return self.split(super().load().test)

    data = Everything(protocol="unsupervised")
    found = run(tmp_path, GMM((2,), components=1), data)
    assert found.found["val/separation"] > 0.6 and found.found["val/nll"] is None
    assert found.why_none["val/nll"] == "no rows are held out"
    assert any("criteria are of training rows" in notice for notice in data.notices)


def test_what_goes_wrong_is_said_and_the_run_goes_on(tmp_path, caplog) -> None:
    class Breaks(PCA):
        def test_step(self, batch, i):
            if len(batch.x) > 2000:
                raise RuntimeError("out of memory")
            return super().test_step(batch, i)

    found = run(tmp_path, Breaks((2,), components=1), Known())
    assert found.found["val/separation"] is None
    assert found.why_none["val/separation"] == "RuntimeError: out of memory" and "out of memory" in caplog.text


def test_the_loss_is_that_of_the_epoch_that_is_tested(tmp_path) -> None:
    detector, seen = AutoEncoder((2,), latent=1), []

    class Watch(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            seen.append(float(trainer.callback_metrics["val/loss"]))

    found = run(tmp_path, detector, Known(), epochs=6, callbacks=[Watch()])
    assert found.found["val/loss"] == min(seen) and len(seen) == 6


# collapse


def test_a_collapsed_autoencoder_is_told(tmp_path) -> None:
    collapsed, sound = VAE((2,), beta=1e6, latent=2), VAE((2,), beta=0.01, latent=2)
    data = Known(train=1000)
    pressed, free = (run(tmp_path, detector, data, epochs=15) for detector in (collapsed, sound))
    assert any("none of its 2 codes varies" in notice for notice in collapsed.notices)
    assert any("rebuilds all validation rows alike" in notice for notice in collapsed.notices)
    assert not any("collapsed" in notice for notice in sound.notices)
    assert pressed.found["val/active_codes"] == 0 == pressed.found["val/effective_dimension"]
    assert free.found["val/active_codes"] > 0 and 1 <= free.found["val/effective_dimension"] <= 2


# other training rows


@pytest.mark.parametrize("detector", [HBOS((2,)), PCA((2,), components=1), AutoEncoder((2,), latent=1)])
def test_stability_is_that_of_two_halves(detector, tmp_path) -> None:
    data = Known()
    state = torch.get_rng_state()
    found = run(tmp_path, detector, data, epochs=10, stability=True)
    scores = detector(data.selecting.x)
    assert 0.5 < found.found["val/stability"] <= 1 and found.intervals["val/stability"][0] > 0
    again = run(tmp_path, detector, data, epochs=10)
    assert again.found["val/stability"] is None and "stability=true" in again.why_none["val/stability"]
    assert len(state) and scores.shape == (300,)


def test_stability_leaves_the_detector_as_it_was(tmp_path) -> None:
    def state(**options):
        pl.seed_everything(0, verbose=False)
        detector = AutoEncoder((2,), latent=1)
        return run(tmp_path, detector, Known(), epochs=3, **options).found, detector.state_dict()

    (found, plain), (other, halved) = state(), state(stability=True)
    assert equal(plain, halved)
    assert {**found, "val/stability": None} == {**other, "val/stability": None} and other["val/stability"] is not None


# no label reaches a choice


def turned(name, events):
    """The test rows in another order, each label turned round; other splits as they are."""
    if name != "test":
        return events
    order = np.random.default_rng(9).permutation(len(events))
    return replace(events.take(order), y=(events.y[torch.from_numpy(order)] == 0).long())


@pytest.mark.parametrize("make", [lambda: KNN((2,)), lambda: VAE((2,), latent=1), lambda: KDE((2,))])
def test_no_choice_follows_from_a_test_label(make, tmp_path) -> None:
    def ended(change, folder):
        pl.seed_everything(0, verbose=False)
        thresholds = Thresholds()
        found = run(folder, make(), Known(change=change), epochs=5, callbacks=[thresholds])
        states = {
            path.name: torch.load(path, weights_only=True)["state_dict"] for path in sorted(folder.glob("*.ckpt"))
        }
        return found, {entry["rule"]: (entry["value"], entry.get("flagged")) for entry in thresholds.found}, states

    plain, values, states = ended(lambda name, events: events, tmp_path / "plain")
    other, other_values, other_states = ended(turned, tmp_path / "turned")
    assert plain.found == other.found and plain.intervals == other.intervals and plain.why_none == other.why_none
    assert values == other_values and {"quantile", "fpr", "fdr"} == set(values)
    assert states.keys() == other_states.keys() and all(equal(states[name], other_states[name]) for name in states)


# what is broken is avoided


def broken_and_sound():
    half = lambda data: KNN(data.shape, k=len(data.splits.train) // 2)  # noqa: E731
    wide = lambda data: KDE(data.shape, bandwidth=30.0)  # noqa: E731
    pressed = lambda data: VAE(data.shape, latent=1, beta=1e6)  # noqa: E731
    return {
        "knn": (lambda data: KNN(data.shape), half),
        "kde": (lambda data: KDE(data.shape), wide),
        "vae": (lambda data: VAE(data.shape, latent=1, beta=0.1), pressed),
    }


@pytest.mark.parametrize("name", ["knn", "kde", "vae"])
def test_separation_prefers_what_is_sound(name, tmp_path) -> None:
    clouds = Blobs(nominal=4000, centers=[[-8.0, 0.0], [8.0, 0.0], [0.0, 12.0]], seed=0)
    data: AnomalyDataModule = Known(train=1000) if name == "vae" else clouds
    data.setup()
    reached = []
    for make in broken_and_sound()[name]:
        pl.seed_everything(0, verbose=False)
        reached.append(run(tmp_path, make(data), data, epochs=10).found["val/separation"])
    assert reached[0] > reached[1]


@pytest.mark.parametrize(
    ("options", "words"), [({"max_rows": 1}, "max_rows must be two or more"), ({"level": 1.0}, "level lie between")]
)
def test_what_makes_no_sense_is_refused(options, words) -> None:
    with pytest.raises(ValueError, match=words):
        Criteria(**options)
