"""Outlier detectors of other libraries: scikit-learn's protocol and PyOD's."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from straylight.detectors import External
from straylight.errors import ConfigError, DataError
from straylight.folder import RunFolder
from straylight.report.leaderboard import rows as leaderboard
from straylight.run import Run
from straylight.sweep.settings import fitting, with_own

ROWS = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
NEW = torch.randn(30, 3, generator=torch.Generator().manual_seed(1)) * 2

#: Of scikit-learn, with the arguments that they need.
SCIKIT = {
    "sklearn.ensemble.IsolationForest": {"n_estimators": 10},
    "sklearn.neighbors.LocalOutlierFactor": {"novelty": True},
    "sklearn.svm.OneClassSVM": {"nu": 0.2},
    "sklearn.covariance.EllipticEnvelope": {},
    "sklearn.linear_model.SGDOneClassSVM": {},
    "sklearn.neighbors.KernelDensity": {"bandwidth": 0.5},
    "sklearn.mixture.GaussianMixture": {"n_components": 2},
}
PYOD = {
    "pyod.models.knn.KNN": {"n_neighbors": 7},
    "pyod.models.iforest.IForest": {"n_estimators": 10},
    "pyod.models.gmm.GMM": {},
    "pyod.models.lunar.LUNAR": {"n_neighbours": 7, "n_epochs": 5},
}

#: A library of a user's own, as a file.
LIBRARY = '''
import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin

class Far:
    """PyOD's protocol, without PyOD."""
    def __init__(self, power=1.0, random_state=None):
        self.power, self.random_state = power, random_state
    def fit(self, X, y=None):
        print("much")
        self.centre_ = X.mean(0)
        self.decision_scores_ = self.decision_function(X)
        return self
    def decision_function(self, X):
        return np.linalg.norm(X - self.centre_, axis=1) ** self.power

class Near(OutlierMixin, BaseEstimator):
    """scikit-learn's, by its decision_function alone, and with weights."""
    def fit(self, X, y=None, sample_weight=None):
        self.centre_ = np.average(X, 0, weights=sample_weight)
        return self
    def decision_function(self, X):
        return 1 - np.linalg.norm(X - self.centre_, axis=1)

class Sideways(Far):
    def fit(self, X, y=None):
        self.centre_ = X.mean(0)
        return self

class Draws(Far):
    def decision_function(self, X):
        return super().decision_function(X) + np.random.normal(size=len(X)) + torch.randn(len(X)).numpy()

class Restless(Far):
    def fit(self, X, y=None):
        self.rng_ = np.random.default_rng(0)
        return super().fit(X)
    def decision_function(self, X):
        return super().decision_function(X) + self.rng_.normal(size=len(X))

class Beside(Far):
    def decision_function(self, X):
        return super().decision_function(X) - X.mean()

class Network(Far):
    def fit(self, X, y=None):
        self.net = torch.nn.Linear(X.shape[1], 1)
        self.net(torch.as_tensor(X, dtype=torch.float32)).mean().backward()
        return super().fit(X)

class Wide(Far):
    def fit(self, X, y=None):
        return super().fit(X)
    def decision_function(self, X):
        return np.ones((len(X), 2))

class Breaks(Far):
    def fit(self, X, y=None):
        raise RuntimeError("it broke\\nhere.")

class Warns(Far):
    def fit(self, X, y=None):
        import warnings
        warnings.warn("not well")
        return super().fit(X)

class Refuses(Far):
    def __init__(self, power=1.0):
        raise ValueError("power must be even")

class Mute:
    def decision_function(self, X):
        return X

class Foreign(Far):
    """Holds what is of another library."""
    def fit(self, X, y=None):
        import decimal
        import pathlib
        self.other_ = pathlib.PurePosixPath("a"), decimal.Context()
        return super().fit(X)

def function():
    pass
'''


@pytest.fixture
def library(tmp_path, monkeypatch) -> str:
    """The name of that library, which can be imported."""
    name = "library_of_a_user"
    (tmp_path / f"{name}.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    importlib.invalidate_caches()
    yield name
    sys.modules.pop(name, None)


def fitted(model: str, arguments: Any = None, weight: Any = None, **common: Any) -> External:
    found = External((3,), model=model, arguments=arguments, **{"scaling": "none", **common})
    found.fit(ROWS, torch.zeros(len(ROWS), 0), torch.ones(len(ROWS)) if weight is None else weight)
    return found.eval()


def again(found: External) -> External:
    """It, by way of what a checkpoint holds."""
    other = External(found.shape, model=found.model, arguments=found.arguments, scaling="none")
    other.load_state_dict(found.state_dict())
    return other.eval()


# scores


@pytest.mark.parametrize("model", [*SCIKIT, *PYOD])
def test_scores_are_those_of_the_library(model) -> None:
    arguments = {**SCIKIT, **PYOD}[model]
    if model in PYOD:
        pytest.importorskip("pyod")
    torch.manual_seed(11)
    found = fitted(model, arguments)
    module, _, name = model.rpartition(".")
    made = getattr(importlib.import_module(module), name)
    own = {"random_state": found.seed} if "random_state" in made.__init__.__code__.co_varnames else {}
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(found.seed)
    direct = made(**arguments, **own).fit(ROWS.double().numpy())
    x = NEW.double().numpy()
    wanted = direct.decision_function(x) if model in PYOD else -direct.score_samples(x)
    np.testing.assert_allclose(found(NEW).numpy(), wanted, rtol=1e-5, atol=1e-6)
    if not model.endswith("SGDOneClassSVM"):  # which knows a plane alone, and one side of it
        assert found(torch.full((1, 3), 50.0)) > found(NEW * 0.1).max()
    if found._lost is None:
        assert torch.equal(again(found)(NEW), found(NEW))
    else:
        assert model.endswith("LUNAR") and any("cannot be opened again" in notice for notice in found.notices)


def test_both_protocols_are_turned_the_same_way(library) -> None:
    distance = (NEW - ROWS.mean(0)).norm(dim=1)
    torch.testing.assert_close(fitted(f"{library}.Far")(NEW), distance)
    torch.testing.assert_close(fitted(f"{library}.Near")(NEW), distance - 1)
    torch.testing.assert_close(fitted(f"{library}.Far", {"power": 2.0})(NEW), distance**2)


def test_rows_are_scaled_or_not_and_flattened(library) -> None:
    found = External((3, 1), model=f"{library}.Far", scaling="standard")
    found.scaling.fit([ROWS[..., None]])
    found.fit(found.scaling(ROWS[..., None]), torch.zeros(120, 0), torch.ones(120))
    wanted = ((NEW - ROWS.mean(0)) / ROWS.std(0, correction=0)).norm(dim=1)
    torch.testing.assert_close(found(NEW[..., None]), wanted, rtol=1e-4, atol=1e-4)


def test_weights_are_read_where_the_library_reads_them(library) -> None:
    weight = torch.arange(120.0)
    near = fitted(f"{library}.Near", weight=weight)
    centre = (ROWS * weight[:, None]).sum(0) / weight.sum()
    torch.testing.assert_close(near(NEW), (NEW - centre).norm(dim=1) - 1)
    assert fitted(f"{library}.Far", weight=weight).notices == [
        "Far does not read event weights: all rows count as one."
    ]
    assert fitted(f"{library}.Far").notices == []


def test_random_state_is_the_runs_seed_unless_it_is_given(library) -> None:
    torch.manual_seed(5)
    assert fitted(f"{library}.Far")._estimator.random_state == 5
    assert fitted(f"{library}.Far", {"random_state": 7})._estimator.random_state == 7


def test_scoring_is_deterministic_and_leaves_random_numbers_alone(library, capfd) -> None:
    found = fitted(f"{library}.Draws")
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert torch.equal(found(NEW), found(NEW)) and torch.equal(again(found)(NEW), found(NEW))
    assert not torch.allclose(found(NEW), fitted(f"{library}.Far")(NEW))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Beside", "by what stands in the batch beside it"),
        ("Restless", "not the same twice"),
        ("Warns", "Warns: not well"),
        ("Network", "skops cannot keep a fitted Network"),
        ("Foreign", "which is no class of library_of_a_user"),
    ],
)
def test_what_is_otherwise_than_asked_is_told(name, words, library) -> None:
    assert any(words in notice for notice in fitted(f"{library}.{name}").notices)


def test_many_rows_are_drawn_from(library) -> None:
    found = fitted(f"{library}.Far", max_rows=50)
    assert len(found._estimator.decision_scores_) == 50 and "50 of 120 training rows" in found.notices[0]


# what is wrong


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        ("KNN", None, "must be the dotted name of a class, such as sklearn.svm.OneClassSVM, not 'KNN'"),
        ("os.system('x')", None, "must be the dotted name of a class"),
        ("no_such_package.models.KNN", None, "there is no package 'no_such_package' here; install it"),
        ("sklearn.ensmble.IsolationForest", None, "there is no module 'sklearn.ensmble' \\(did you mean 'ensemble'"),
        ("sklearn.svm.OneClasSVM", None, "does not exist \\(did you mean 'OneClassSVM'\\?\\)"),
        ("library_of_a_user.function", None, "library_of_a_user.function is no class"),
        ("library_of_a_user.Mute", None, "is no estimator: it has no method fit"),
        ("sklearn.linear_model.LogisticRegression", None, "follows neither protocol"),
        ("sklearn.cluster.KMeans", None, "follows neither protocol"),
        ("sklearn.neighbors.LocalOutlierFactor", None, "scores no new events with these detector.arguments: .*novelty"),
        ("sklearn.svm.OneClassSVM", {"nuu": 1}, "OneClassSVM takes no 'nuu' \\(did you mean 'nu'\\?\\); it takes "),
        ("sklearn.svm.OneClassSVM", {"nu": 7}, "OneClassSVM refuses them: .*'nu'"),
        ("library_of_a_user.Refuses", None, "Refuses refuses them: power must be even"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is_trained(model, arguments, words, library) -> None:
    with pytest.raises(ValueError, match=words) as error:
        External((3,), model=model, arguments=arguments)
    assert "detector." in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("missing", ["needed_by_a_user", "library_that_breaks"])
def test_a_library_that_cannot_be_imported_is_told(missing, tmp_path, monkeypatch) -> None:
    text = "import needed_by_a_user" if missing.startswith("needed") else "raise RuntimeError('no card')"
    (tmp_path / "library_broken.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = f"needs the package '{missing}'" if missing.startswith("needed") else "cannot be imported: no card"
    with pytest.raises(ValueError, match=words):
        External((3,), model="library_broken.Far")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Sideways", "Sideways left no decision_scores_"),
        ("Breaks", "Breaks cannot be fitted to 120 training rows: it broke here."),
        ("Wide", "returned scores of shape"),
    ],
)
def test_what_cannot_be_fitted_is_told_in_a_sentence(name, words, library) -> None:
    with pytest.raises(DataError, match=words) as error:
        fitted(f"{library}.{name}")
    assert len(str(error.value).splitlines()) == 1


# keeping


def test_a_checkpoint_holds_tensors_and_plain_values_alone(library, tmp_path) -> None:
    found = fitted(f"{library}.Far")
    torch.save(found.state_dict(), tmp_path / "state.ckpt")
    state = torch.load(tmp_path / "state.ckpt", weights_only=True)
    other = External((3,), model=f"{library}.Far", scaling="none")
    with pytest.raises(ValueError, match="Far was not fitted"):
        other(NEW)
    other.load_state_dict(state)
    assert torch.equal(other.eval()(NEW), found(NEW))


def test_a_file_that_holds_what_is_not_of_the_library_is_not_read(library) -> None:
    """Whoever trusts one library has not trusted the next one, whose types a changed checkpoint may name."""
    import decimal

    import skops.io

    found, other = fitted(f"{library}.Far"), External((3,), model="sklearn.svm.OneClassSVM", scaling="none")
    with pytest.raises(ConfigError, match=f"holds {library}.Far, which is no class of sklearn"):
        other.set_extra_state(found.get_extra_state())
    found._estimator.centre_ = decimal.Context()
    data = torch.frombuffer(bytearray(skops.io.dumps(found._estimator)), dtype=torch.uint8)
    with pytest.raises(ConfigError, match="which is no class of library_of_a_user"):
        found.set_extra_state({"skops": data})
    near = fitted(f"{library}.Near")
    with pytest.raises(ConfigError, match=r"The fit is of a Near, and detector.model is library_of_a_user.Far"):
        found.set_extra_state(near.get_extra_state())
    for state in ({}, {"skops": 3}, 7, {"skops": torch.arange(9, dtype=torch.uint8)}):
        with pytest.raises(ConfigError):
            found.set_extra_state(state)


def train_far(straylight_train, library: str, *more: str):
    ended = straylight_train("detector=external", f"detector.model={library}.Far", "data=blobs", "logger=none", *more)
    assert ended.status == 0, ended.err
    return ended


def test_a_run_opens_for_whoever_trusts_the_library_and_imports_nothing_before(library, straylight_train) -> None:
    ended = train_far(straylight_train, library, "detector.arguments={power: 2.0}")
    assert ended.result["detector"] == "Far" and ended.result["status"] == "ok"
    assert {entry["runtime"] for entry in ended.result["latency"]} == {"eager"}
    del sys.modules[library]
    with pytest.raises(ConfigError, match=rf"detector.model is '{library}.Far'.*trust=\['{library}'\]"):
        Run.open(ended.run)
    with pytest.raises(ConfigError, match=r"detector.model"):
        Run.open(ended.run, trust=["sklearn", f"{library}.Near"])
    assert library not in sys.modules
    run = Run.open(ended.run, trust=[library])
    table = pq.read_table(ended.run / "scores.parquet")
    from straylight.data import Blobs

    assert np.array_equal(run.score(Blobs(seed=0).splits.test.x), table["score"].to_numpy())
    assert library in sys.modules
    assert Run.open(ended.run, trust=[f"{library}.Far"]).detector.name == "Far"


def test_scikit_learn_is_trusted_by_name_as_any_other(straylight_train) -> None:
    ended = straylight_train("detector=external", "detector.model=sklearn.svm.OneClassSVM", "data=blobs", "logger=none")
    with pytest.raises(ConfigError, match="--trust sklearn"):
        Run.open(ended.run)
    assert Run.open(ended.run, trust=["sklearn"]).detector.name == "OneClassSVM"


def test_a_model_is_looked_at_at_every_depth(library, straylight_train) -> None:
    member = ["detector=ensemble", "detector@detector.member=external", "detector.members=2", "data=blobs"]
    ended = straylight_train(*member, f"detector.member.model={library}.Far", "logger=none")
    assert ended.status == 0, ended.err
    with pytest.raises(ConfigError, match=r"detector.member.model is"):
        Run.open(ended.run)
    assert Run.open(ended.run, trust=[library]).detector.size == 2


def test_a_run_that_cannot_be_opened_again_is_whole_and_says_so(library, straylight_train) -> None:
    ended = straylight_train("detector=external", f"detector.model={library}.Network", "data=blobs", "logger=none")
    assert ended.status == 0 and ended.result["status"] == "ok" and ended.result["metrics"]["test/auroc"] > 0.9
    (notice,) = (n for n in ended.result["notices"] if "opened again" in n)
    assert notice.startswith("skops cannot keep a fitted Network (") and notice in ended.err + ended.out
    with pytest.raises(ConfigError, match=r"A run of Network cannot be opened again. skops cannot keep"):
        Run.open(ended.run, trust=[library])


def test_one_goes_on_with_a_run_by_trust(library, straylight_train) -> None:
    ended = train_far(straylight_train, library)
    refused = straylight_train(f"resume={ended.run}", "trainer.max_epochs=3")
    assert refused.status == 1 and f"--trust {library}" in refused.err and "Traceback" not in refused.err
    assert straylight_train(f"resume={ended.run}", "trainer.max_epochs=3", "--trust", library).status == 0


# sweeps and leaderboards


def test_a_sweep_over_both_worlds_calls_each_by_its_class(library, straylight_train) -> None:
    models = f"detector.model={library}.Far,{library}.Near"
    ended = straylight_train("-m", "detector=external,hbos", models, "seed=0,1", "data=blobs", "logger=none")
    assert ended.status == 0, ended.err
    assert sorted((r["detector"], r["seed"]) for r in ended.results) == [
        (name, seed) for name in ("Far", "Near", "hbos") for seed in (0, 1)
    ]
    assert "detector.model is no setting of hbos, and is left out there." in ended.err + ended.out
    table = leaderboard(ended.results)
    assert sorted((row.detector, row.seeds) for row in table) == [("Far", 2), ("Near", 2), ("hbos", 2)]
    assert all(str(RunFolder(r["folder"]).read()["detector"]) == r["detector"] for r in ended.results)


def test_a_setting_that_no_choice_of_the_sweep_has_is_refused(straylight_train) -> None:
    ended = straylight_train("-m", "detector=external,hbos", "detector.modle=a,b", "data=blobs", "logger=none")
    assert ended.status == 1 and "detector.modle" in ended.err and not ended.results


def test_one_class_with_other_arguments_is_not_averaged_with_it(library, straylight_train) -> None:
    ended = straylight_train(
        "-m", "detector=external", f"detector.model={library}.Far", "+detector.arguments.power=1.0,2.0", "data=blobs",
        "logger=none",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    names = [row.detector for row in leaderboard(ended.results)]
    assert sorted(names) == ["Far +detector.arguments.power=1.0", "Far +detector.arguments.power=2.0"]


def test_classes_of_one_name_are_not_averaged(library, straylight_train, tmp_path) -> None:
    (tmp_path / "library_of_another.py").write_text((tmp_path / f"{library}.py").read_text())
    ended = straylight_train(
        "-m", "detector=external", f"detector.model={library}.Far,library_of_another.Far", "data=blobs", "logger=none"
    )
    assert ended.status == 0, ended.err
    assert len({row.detector for row in leaderboard(ended.results)}) == 2


def test_settings_are_left_out_where_they_do_not_apply(tmp_path) -> None:
    jobs = [[f"detector={d}", f"detector.latent={z}", "seed=0"] for d in ("vae", "knn", "pca") for z in (1, 2)]
    found, said = fitting([jobs[:3], jobs[3:]])
    assert found == [[*jobs[:2], ["detector=knn", "seed=0"]], [["detector=pca", "seed=0"]]]
    assert said == ["detector.latent is no setting of knn, pca, and is left out there."]
    assert fitting([jobs[2:4]]) == ([jobs[2:4]], [])  # a detector alone: it is refused as ever
    forced = [["detector=vae", "+detector.more=1"], ["detector=knn", "+detector.more=1"]]
    assert fitting([forced]) == ([forced], [])
    own = tmp_path / "detector"
    own.mkdir()
    (own / "mine.yaml").write_text("_target_: mine.Mine\ndepth: 3\n")
    jobs = [["detector=mine", "detector.depth=2"], ["detector=knn", "detector.depth=2"]]
    assert fitting([jobs], [Path(tmp_path)])[0] == [[jobs[0], ["detector=knn"]]]
    assert fitting([jobs])[0] == [jobs]  # of one that is not found nothing is known


def test_settings_of_one_detector_go_to_its_jobs_alone_and_before_nothing_that_is_typed() -> None:
    own = {"pca": {"detector.scaling": "unit", "detector.components": 9}, "digits": {"data.nominal": [1, 2]}}
    jobs = [["detector=knn", "data=digits"], ["detector=pca"], ["detector=pca", "detector.components=0.5"], ["seed=1"]]
    assert with_own([jobs], own) == [
        [
            ["detector=knn", "data=digits", "data.nominal=[1,2]"],
            ["detector=pca", "detector.scaling=unit", "detector.components=9"],
            ["detector=pca", "detector.components=0.5", "detector.scaling=unit"],
            ["seed=1"],
        ]
    ]
    values = {"a": None, "b": True, "c": "x, y", "d": {"e": [1.5]}}
    assert with_own([[["detector=pca"]]], {"pca": values})[0][0][1:] == ["a=null", "b=true", "c='x, y'", "d={e:[1.5]}"]
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.of\.pca must hold values by their keys, not 3"):
        with_own([jobs], {"pca": 3})


def test_a_sweep_gives_a_detector_settings_of_its_own(straylight_train) -> None:
    own = "hydra.sweeper.of={knn:{detector.k:2,detector.scaling:unit}}"
    ended = straylight_train("-m", "data=digits", "detector=knn,hbos", "seed=0,1", own, pictures=False)
    assert ended.status == 0, ended.err
    given = {result["detector"]: result["overrides"] for result in ended.results}
    assert {"detector.k=2", "detector.scaling=unit"} <= set(given["knn"]) and len(ended.results) == 4
    assert not any(override.startswith("detector.") for override in given["hbos"])
