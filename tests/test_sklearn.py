"""Straylight's detectors as scikit-learn's estimators."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from given import OVER_DENSITIES
from straylight.detectors import KNN
from straylight.groups import FOLDER, choices
from straylight.sklearn import AUTO, Detector, composed, expected_failed_checks

#: Those that take nothing but images, particles, or what has a resonance.
NO_TABLES = {"autoencoder_conv", "vae_conv", "multiplicity", "sum_pt", *OVER_DENSITIES}
TABLES = [name for name in choices("detector") if name not in NO_TABLES]
#: What makes a slow one quick without making it another.
QUICKER: dict[str, dict[str, Any]] = {
    **{name: {"layers": 2, "hidden": 8} for name in ("maf", "nsf", "realnvp")},
    "anogan": {"steps": 3},
    "ensemble": {"members": 2},
    "isolation_forest": {"n_estimators": 10},
    "external": {"model": "sklearn.svm.OneClassSVM"},
    "fanogan": {"phases": {"gan": 1, "encoder": 1}},
}
ROWS = np.random.default_rng(0).normal(size=(200, 3))
FAR = np.full((1, 3), 9.0)


def quick(name: str, **more: Any) -> Detector:
    return Detector(name, **{"max_epochs": 1, "random_state": 0, **QUICKER.get(name, {}), **more})


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch) -> None:
    """Lightning reads what every installed package offers whenever a Trainer is made, of which here are thousands."""
    monkeypatch.setattr("lightning_fabric.utilities.registry.entry_points", lambda **_: ())


@parametrize_with_checks([quick(name) for name in TABLES], expected_failed_checks=expected_failed_checks)
def test_it_passes_the_checks_of_scikit_learn(estimator, check) -> None:
    check(estimator)


# parameters


@pytest.mark.parametrize("name", choices("detector"))
def test_its_defaults_are_those_of_the_config(name) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        cfg: Any = OmegaConf.to_container(compose("train", overrides=[f"detector={name}", "paths.run=."]))
    assert composed(name, {}) == cfg["detector"]
    assert set(composed(name, {})) - {"_target_"} <= set(Detector(name).get_params())


def test_parameters_are_set_copied_and_go_with_their_detector() -> None:
    found = Detector("knn", k=7, contamination=0.1)
    assert found.get_params()["k"] == 7 and found.get_params()["distance"] == "mean"
    assert clone(found).get_params() == found.get_params() and clone(found) is not found
    assert found.set_params(k=9, max_epochs=3) is found and found.get_params()["k"] == 9
    other = clone(found).set_params(detector="pca")  # whose defaults are its own
    assert "distance" not in other.get_params() and other.get_params()["contamination"] == 0.1
    with pytest.raises(ValueError, match="Invalid parameter 'kk' for detector 'knn' \\(did you mean 'k'\\?\\)"):
        found.set_params(kk=1)
    assert clone(found).set_params(detector="pca", k=3).get_params()["k"] == 3  # which the fit will refuse
    assert repr(Detector("knn", k=7)).startswith("Detector(") and "k=7" in repr(Detector("knn", k=7))


def test_a_setting_named_as_a_method_hides_none() -> None:
    assert not hasattr(Detector("vae", score="mu2"), "score")


def test_an_ensemble_is_of_any_other() -> None:
    found = Detector("ensemble", member={"detector": "vae", "latent": 1}, members=2, max_epochs=1).fit(ROWS)
    assert [type(m).__name__ for m in found.detector_.members] == ["VAE"] and found.detector_.size == 2
    assert type(Detector("ensemble", member="knn", members=2).fit(ROWS).detector_.members[0]).__name__ == "KNN"


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("knm", {}, "There is no detector 'knm' \\(did you mean 'knn'\\?\\)"),
        (3, {}, "There is no detector 3; choose one of"),
        ("knn", {"kk": 3}, "knn has no setting 'kk' \\(did you mean 'k'\\?\\)"),
        ("knn", {"k": 0}, "detector.k must be positive, not 0"),
        ("knn", {"k": "many"}, "detector.k should be an integer, not 'many'"),
        ("knn", {"metric": "euclid"}, "detector.metric should be 'euclidean', 'manhattan' or 'cosine'"),
        ("vae", {"hidden": [8, "x"]}, "detector.hidden"),
        ("vae", {"hidden": object()}, "hidden"),
        ("ensemble", {"member": "vea"}, "There is no detector 'vea' \\(did you mean 'vae'\\?\\)"),
        ("ensemble", {"member": {"detector": "vae", "latnt": 1}}, "vae has no setting 'latnt'"),
        ("vae_conv", {}, "images of shape"),
        ("knn", {"contamination": 0.6}, "contamination must be 'auto' or a number above 0 and at most 0.5, not 0.6"),
        ("knn", {"contamination": "some"}, "contamination must be 'auto'"),
        ("vae", {"max_epochs": 0}, "max_epochs must be a positive whole number, not 0"),
        ("vae", {"batch_size": 1.5}, "batch_size must be a positive whole number, not 1.5"),
        ("vae", {"learning_rate": -1}, "learning_rate must be a positive number, not -1"),
        ("vae", {"val_fraction": 1.0}, "val_fraction must be a number from 0 to below 1, not 1.0"),
        ("vae", {"accelerator": "tpuu"}, "accelerator must be 'cpu' or 'gpu', not 'tpuu'"),
    ],
)
def test_what_does_not_fit_is_refused_at_the_fit_in_a_sentence(name, given, words) -> None:
    found = Detector(name, **given)
    for kind in (ValueError, TypeError):
        with pytest.raises(kind, match=words) as error:
            found.fit(ROWS)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("weight", "words"),
    [([1.0], "expected"), ([-1.0] * 200, "not negative"), ([0.0] * 200, "all zero"), ([np.nan] * 200, "finite")],
)
def test_weights_that_cannot_be_are_refused(weight, words) -> None:
    with pytest.raises(ValueError, match=words):
        Detector("knn").fit(ROWS, sample_weight=weight)


# scores


def test_scores_are_the_negative_of_straylights() -> None:
    found = Detector("knn", k=5, distance="kth", scaling="none").fit(ROWS)
    new = np.random.default_rng(1).normal(size=(50, 3))
    distance = NearestNeighbors(n_neighbors=5).fit(ROWS).kneighbors(new)[0][:, -1]
    np.testing.assert_allclose(found.score_samples(new), -distance, rtol=1e-5)
    assert isinstance(found.detector_, KNN)
    np.testing.assert_array_equal(found.decision_function(new), found.score_samples(new) - found.offset_)
    np.testing.assert_array_equal(found.predict(new), np.where(found.decision_function(new) < 0, -1, 1))
    assert found.score_samples(FAR) < found.score_samples(new).min() and found.predict(FAR) == [-1]


@pytest.mark.parametrize("share", [0.001, 0.05, 0.1, 1 / 3, 0.5])
@pytest.mark.parametrize("name", ["mahalanobis", "knn"])
def test_contamination_is_the_fraction_of_training_rows_beyond_the_threshold(name, share) -> None:
    found = Detector(name, contamination=share)
    assert (found.fit_predict(ROWS) == -1).sum() == int(np.ceil(share * len(ROWS) - 1e-9))
    weight = np.random.default_rng(2).uniform(0, 2, len(ROWS))
    flagged = Detector(name, contamination=share).fit(ROWS, sample_weight=weight).predict(ROWS) == -1
    assert share <= weight[flagged].sum() / weight.sum() <= share + 2 / weight.sum()


def test_auto_is_the_threshold_of_a_run() -> None:
    assert AUTO == 0.05 and (Detector("mahalanobis").fit_predict(ROWS) == -1).sum() == 10
    equal = Detector("mahalanobis").fit(np.zeros((20, 2)))  # rows of one score: none is stranger than the others
    assert (equal.predict(np.zeros((20, 2))) == 1).all()


def test_the_same_random_state_gives_the_same_scores() -> None:
    def scores(state: Any) -> np.ndarray:
        return quick("vae", random_state=state).fit(ROWS).score_samples(ROWS)

    assert np.array_equal(scores(3), scores(3)) and not np.array_equal(scores(3), scores(4))
    assert np.array_equal(scores(np.random.RandomState(3)), scores(np.random.RandomState(3)))
    np.random.seed(5)  # noqa: NPY002
    first, second = scores(None), scores(None)
    np.random.seed(5)  # noqa: NPY002
    assert np.array_equal(scores(None), first) and not np.array_equal(first, second)


def test_the_best_epoch_is_kept(monkeypatch) -> None:
    """A rate at which training diverges: the last epoch is worse than an earlier one."""
    rows = np.random.default_rng(0).normal(size=(400, 4))
    given = {"hidden": [8], "latent": 2, "learning_rate": 0.3, "random_state": 1}
    best, last = (Detector("autoencoder", max_epochs=30, val_fraction=f, **given) for f in (0.5, 0.0))
    assert best.fit(rows).score_samples(rows).mean() > last.fit(rows[::2]).score_samples(rows).mean() - 0.5
    states = []
    from straylight.job import in_memory

    class Watched(in_memory.Best):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            super().on_train_epoch_end(trainer, pl_module)
            states.append((float(trainer.callback_metrics["val/loss"]), pl_module.state_dict()))
            states[-1] = states[-1][0], {k: v.clone() for k, v in states[-1][1].items()}

    monkeypatch.setattr(in_memory, "Best", Watched)
    kept = best.fit(rows).detector_.state_dict()
    least = min(range(30), key=lambda i: states[i][0])
    assert least < 29 and all(torch.equal(kept[k], v) for k, v in states[least][1].items())


# where people already are


def test_it_stands_in_pipelines_and_searches() -> None:
    labels = np.r_[np.ones(200), -np.ones(20)]
    rows = np.r_[ROWS, np.random.default_rng(3).uniform(-6, 6, (20, 3))]
    pipe = Pipeline([("scale", StandardScaler()), ("detector", Detector("knn"))])
    search = GridSearchCV(
        pipe, {"detector__k": [1, 5], "detector__contamination": [0.1]}, scoring="roc_auc", cv=StratifiedKFold(3)
    )
    search.fit(rows, labels)
    assert search.best_params_["detector__k"] in (1, 5) and search.best_score_ > 0.9
    assert search.predict(np.r_[FAR, FAR * 0]).tolist() == [-1, 1]
    grid = {"detector": ["knn", "pca", "vae"], "max_epochs": [1]}
    search = GridSearchCV(Detector(random_state=0), grid, scoring="roc_auc", cv=StratifiedKFold(2), error_score="raise")
    assert set(search.fit(rows, labels).cv_results_["param_detector"]) == {"knn", "pca", "vae"}
    held = cross_val_predict(Detector("pca"), rows, method="decision_function", cv=4)
    assert held.shape == (220,) and held[200:].mean() < held[:200].mean()
    assert set(cross_val_predict(Detector("pca"), rows, cv=4)) <= {-1, 1}


@pytest.mark.slow
def test_processes_of_joblib_give_the_same_numbers(monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "src"))
    labels = np.where(ROWS[:, 0] > -1, 1, -1)
    one, two = (
        GridSearchCV(quick("vae"), {"latent": [1, 2]}, scoring="roc_auc", cv=2, n_jobs=n, error_score="raise")
        for n in (1, 2)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of workers that are slow to start
        first, second = one.fit(ROWS, labels), two.fit(ROWS, labels)
    np.testing.assert_allclose(first.cv_results_["mean_test_score"], second.cv_results_["mean_test_score"], rtol=1e-6)
    np.testing.assert_allclose(first.score_samples(ROWS), second.score_samples(ROWS), rtol=1e-6)


@pytest.mark.parametrize("name", ["knn", "vae", "ensemble", "external"])
def test_it_goes_through_a_file_as_numbers(name) -> None:
    found = quick(name).fit(ROWS)
    file = io.BytesIO()
    joblib.dump(found, file)
    named = _Named(io.BytesIO(file.getvalue()))
    named.load()
    assert not [module for module in named.modules if module.startswith(("straylight.detectors", "pytorch_lightning"))]
    file.seek(0)
    again = joblib.load(file)
    np.testing.assert_array_equal(again.score_samples(ROWS), found.score_samples(ROWS))
    assert again.get_params() == found.get_params() and again.notices_ == found.notices_
    assert again.offset_ == found.offset_ and joblib.hash(clone(again)) == joblib.hash(clone(found))


class _Named(joblib.numpy_pickle.NumpyUnpickler):
    """Remembers which modules a file names."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__("", file, ensure_native_byte_order=False)
        self.modules: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.modules.add(module)
        return super().find_class(module, name)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_give_their_names(library) -> None:
    frames = pytest.importorskip(library)
    frame = frames.DataFrame({name: ROWS[:, i] for i, name in enumerate("abc")})
    found = Detector("knn").fit(frame)
    assert found.feature_names_in_.tolist() == ["a", "b", "c"] and found.n_features_in_ == 3
    np.testing.assert_array_equal(found.score_samples(frame), Detector("knn").fit(ROWS).score_samples(ROWS))
    with pytest.raises(ValueError, match="feature names"):
        found.predict(frame.rename(columns={"a": "z"}) if library == "pandas" else frame.rename({"a": "z"}))
    pipe = make_pipeline(StandardScaler(), Detector("knn")).set_output(transform=library)
    assert pipe.fit(frame)[-1].feature_names_in_.tolist() == ["a", "b", "c"]  # a frame comes out of the step before
    assert set(pipe.predict(frame)) <= {-1, 1}


def test_set_output_of_a_pipeline_passes_it_by() -> None:
    pipe = make_pipeline(StandardScaler(), Detector("pca")).set_output(transform="default")
    assert not hasattr(pipe, "transform") and set(pipe.fit(ROWS).predict(ROWS)) <= {-1, 1}


def test_what_could_not_be_done_as_asked_is_told_and_nothing_else_is(tmp_path, monkeypatch, capfd, caplog) -> None:
    monkeypatch.chdir(tmp_path)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    gradients, threads = torch.is_grad_enabled(), torch.get_num_threads()
    weighted = Detector("knn", random_state=0).fit(ROWS, sample_weight=np.arange(200) + 1.0)
    assert weighted.notices_ == ["KNN does not read event weights: all rows count as one."]
    assert quick("maf").fit(ROWS).notices_ == []
    assert capfd.readouterr() == ("", "") and not caplog.records and not list(tmp_path.iterdir())
    assert random.getstate() == before[0] and np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    assert (torch.is_grad_enabled(), torch.get_num_threads()) == (gradients, threads)


def test_the_checks_that_fail_are_named_with_their_reason() -> None:
    said = expected_failed_checks(Detector())
    assert isinstance(said, Mapping) and len(said) == 1
    text = " ".join((Path(__file__).parents[1] / "docs" / "elsewhere.md").read_text().split())
    assert all(f"`{name}`" in text for name in said)
