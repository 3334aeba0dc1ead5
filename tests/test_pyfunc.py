"""A run as a model of MLflow's: the scores of `Run.score`, from a folder that holds the run's own files."""

from __future__ import annotations

import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from conftest import finished_run
from straylight import extras
from straylight.errors import ConfigError
from straylight.folder import RunFolder
from straylight.run import Run

if any(find_spec(name) is None for name in ("mlflow", "pandas")):
    pytest.skip("no MLflow or pandas: pip install 'straylight[mlflow]'", allow_module_level=True)

import pandas as pd

from straylight.pyfunc import save


def rows(n: int = 300, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "bytes": random.normal(1e6, 1, n),
            "hops": random.integers(0, 9, n),
            "port": random.choice([80, 443], n),
            "service": random.choice(["http", "dns"], n),
            "bad": np.arange(n) >= n - 30,
        }
    )


def loaded(folder: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own
        import mlflow.pyfunc

        return mlflow.pyfunc.load_model(str(folder))


def predicted(model, given) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.predict(given)


@pytest.fixture(scope="module")
def of_table(tmp_path_factory) -> Path:
    """A run on a file with an offset, whole numbers, numbers that are categories, and text."""
    place = tmp_path_factory.mktemp("pyfunc")
    rows(900).to_csv(place / "mine.csv", index=False)
    typed = [f"data.path={place / 'mine.csv'}", "data.label=bad", "data.categorical=[port]", "data.val_fraction=0.4"]
    return finished_run(place / "run", "data=file", "detector=knn", *typed, f"hydra.run.dir={place / 'run'}")


@pytest.fixture(scope="module")
def model(of_table, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    assert save(Run.open(of_table), folder) == folder
    return folder


def test_its_scores_p_values_and_flags_are_those_of_the_run(model, of_table) -> None:
    run, new = Run.open(of_table), rows(50, seed=1)
    found = predicted(loaded(model), new[["service", "port", "hops", "bytes", "bad"]])
    np.testing.assert_array_equal(found["score"].to_numpy(), run.score(new))
    np.testing.assert_array_equal(found["p_value"].to_numpy(), run.p_values(new))
    usable = [rule for rule, limit in run.thresholds.items() if np.isfinite(limit)]  # and fdr judges all together
    assert usable and list(found.columns) == ["score", "p_value", *(f"flag_{rule}" for rule in usable)]
    for rule in usable:
        np.testing.assert_array_equal(found[f"flag_{rule}"].to_numpy(), run.flag(new, rule))


@pytest.mark.parametrize(
    "change",
    [
        {"hops": lambda column: column.astype(float)},  # as one that lacks a value
        {"bytes": lambda column: column.round().astype(int)},
        {"port": lambda column: column.astype(float)},
        {"service": lambda column: column.astype("category").astype(str)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_column_may_come_in_another_type(change, model, of_table) -> None:
    new = rows(20, seed=2).assign(**{name: do(rows(20, seed=2)[name]) for name, do in change.items()})
    np.testing.assert_array_equal(predicted(loaded(model), new)["score"], Run.open(of_table).score(new))


def test_it_has_a_signature_an_example_and_its_requirements_and_no_pickle(model) -> None:
    opened = loaded(model)
    inputs = opened.metadata.signature.inputs
    assert inputs.input_names() == ["bytes", "hops", "port", "service"]
    example = opened.input_example
    assert len(example) == 2 and abs(example["bytes"][0] - 1e6) < 1 and set(example["port"]) == {80, 443}
    assert np.isfinite(predicted(opened, example)["score"]).all()
    needed = (model / "requirements.txt").read_text().split()
    assert any(line.startswith("straylight==") for line in needed) and "torch" in " ".join(needed)
    assert not [path for path in model.rglob("*") if path.suffix in (".pkl", ".pickle", ".cloudpickle")]
    assert not (model / "data" / "run" / "scores.parquet").exists(), "no row of the data is in it"


def test_a_missing_column_is_named(model) -> None:
    with pytest.raises(Exception, match="hops"):
        predicted(loaded(model), rows(3).drop(columns="hops"))


def test_a_run_on_arrays_takes_arrays(finished, tmp_path) -> None:
    save(Run.open(finished), tmp_path / "model")
    x = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    np.testing.assert_array_equal(predicted(loaded(tmp_path / "model"), x)["score"], Run.open(finished).score(x))


def test_a_context_is_given_by_its_name(straylight_train, tmp_path) -> None:
    random = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", X=random.normal(size=(200, 3)), y=np.arange(200) > 179, m=random.normal(size=200))
    typed = ["data.path=mine.npz", "data.features=X", "data.label=y", "data.context=[m]"]
    ended = straylight_train("detector=maf", "data=file", *typed, epochs=1)
    assert ended.status == 0, ended.err
    save(run := Run.open(ended.run), tmp_path / "model")
    new = pd.DataFrame({f"X[{i}]": random.normal(size=9) for i in range(3)} | {"m": random.normal(size=9)})
    np.testing.assert_array_equal(predicted(loaded(tmp_path / "model"), new)["score"], run.score(new))


@pytest.mark.parametrize("fault", ["there", "package", "trust"])
def test_what_cannot_be_is_said_in_one_sentence(fault, finished, tmp_path, monkeypatch) -> None:
    run, sentence = Run.open(finished), "is there already; say another folder"
    if fault == "there":
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "mine").touch()
    if fault == "package":
        monkeypatch.setattr(extras, "find_spec", lambda name: None)
        sentence = r"an MLflow model needs mlflow, which is not installed: pip install 'straylight\[mlflow\]'"
    if fault == "trust":
        shutil.copytree(finished, tmp_path / "run")
        config = RunFolder(tmp_path / "run").config
        config.write_text(config.read_text().replace("straylight.detectors.VAE", "mine.VAE"))
        run.folder = tmp_path / "run"
        sentence = "cannot become a model that opens without being trusted: detector._target_ is 'mine.VAE'"
    with pytest.raises(ConfigError, match=sentence) as raised:
        save(run, tmp_path / "model")
    assert "\n" not in str(raised.value)
