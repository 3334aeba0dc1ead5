"""What is wrong, where, and what to do: one sentence on standard error, status 1, and no run that looks finished."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from straylight import config
from straylight.config import HYDRA
from straylight.errors import StraylightError
from straylight.groups import FOLDER


def sentence(ended) -> str:
    lines = [line for line in ended.err.splitlines() if line.strip()]
    assert ended.status == 1, ended.out + ended.err
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("Error: ") and "Traceback" not in ended.err
    return lines[0]


def refusal(*overrides: str) -> str:
    """What is said of a command line by all that looks at it before anything is trained or written."""
    try:
        with initialize_config_dir(version_base=HYDRA, config_dir=str(FOLDER)):
            cfg = compose("train", overrides=[*overrides, "paths.run=."])
        config.check(cfg)
        data = config.build(cfg, "data")
        data.setup()
        optimizer = config.build(cfg, "optimizer")
        config.build(cfg, "detector", shape=data.shape, context=data.context, optimizer=optimizer)
        config.build(cfg, "trainer")
    except StraylightError as error:
        return str(error)
    except Exception as error:
        said = config.explain(error)
        assert said is not None, error
        return said
    raise AssertionError(f"nothing is said of {' '.join(overrides)}")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("detector=vea", ("'vae'", "isolation_forest", "knn")),
        ("data=digit", ("'digits'", "adbench", "mnist")),
        ("trainer=gup", ("'gpu'", "ddp")),
        ("detectr=vae", ("'detector'",)),
        ("seeed=1", ("'seed'",)),
        ("detector.latnt=3", ("'latent'", "hidden")),
        ("+detector.latnt=3", ("'latent'", "hidden")),
        ("detector.latent=abc", ("detector.latent", "integer", "'abc'")),
        ("detector.activation=rel", ("'relu'", "'tanh'", "'rel'")),
        ("detector.scaling=minimax", ("'minmax'", "'minimax'")),
        ("optimizer.lr=-1", ("optimizer.lr", "positive", "-1")),
        ("optimizer.lr=fast", ("optimizer.lr", "number", "'fast'")),
        ("detector=vae detector.likelihood=bernoulli", ("detector.scaling=minmax", "standard")),
        ("detector=rbm detector.visible=bernoulli", ("detector.scaling=minmax", "standard")),
        ("optimizer.method.betas=3", ("optimizer.method.betas", "list", "3")),
        ("optimizer.method.betas=[0.5,x]", ("optimizer.method.betas", "number", "'x'")),
        ("trainer.max_epochs=abc", ("trainer.max_epochs", "'abc'")),
        ("trainer.accelerator=gpuu", ("gpuu", "cpu")),
        ("seed=abc", ("seed", "'abc'")),
        ("seed=-1", ("seed", "-1")),
        ("threads=0", ("threads", "0")),
        ("detector._target_=nowhere.Class", ("nowhere.Class",)),
        ("data.batch_size=0", ("data.batch_size", "0")),
        ("data.nominal=11", ("data.nominal", "0 to 9")),
        ("data.contamination=2", ("data.contamination", "2")),
        ("data.contamination=0.1", ("reserve_fraction",)),
        ("data.train_fraction=0", ("no nominal rows to train on",)),
        ("data.train_fraction=1", ("no nominal row",)),
    ],
)
def test_a_typo_or_a_bad_value_is_answered_with_the_choices(override, words) -> None:
    said = refusal(*override.split())
    assert "\n" not in said and all(word in said for word in words), said


@pytest.mark.parametrize(
    "override",
    [
        "detector=vea",
        "detectr=vae",
        "detector.latnt=3",
        "detector.activation=rel",
        "seed=-1",
        "optimizer.lr=-1",
        "data.contamination=2",
        "data.train_fraction=0",
        "trainer.accelerator=gpuu",
    ],
)  # one of each kind: a config, a group, a key, a type, a parameter's own check, the data, the Trainer
def test_the_command_says_the_same_and_nothing_else(override, straylight_train) -> None:
    assert sentence(straylight_train(override)) == f"Error: {refusal(override)}"


def test_a_prefixed_key_that_there_is_not_is_refused_by_the_command(straylight_train) -> None:
    said = sentence(straylight_train("+detector.latnt=3"))
    assert "'latent'" in said and "hidden" in said


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (["data=mnist"], ("MNIST", "paths.data", "download=true")),
        (["data=adbench"], ("data.name",)),
        (["data=adbench", "data.name=none"], ("'none'", "paths.data")),
        (["data=adbench", "data.path=none.npz"], ("none.npz",)),
        (["data.train_fraction=0"], ("no nominal rows to train on",)),
        (["detector=vae", "detector.latent=abc"], ("detector.latent",)),
        (["trainer.accelerator=gpuu"], ("gpuu",)),
    ],
)
def test_a_run_that_is_refused_before_it_trains_leaves_no_folder(override, words, straylight_train) -> None:
    ended = straylight_train(*override)
    said = sentence(ended)
    assert all(word in said for word in words), said
    assert not list(ended.folder.rglob("*/*"))


def test_a_run_that_is_refused_leaves_alone_what_another_left_in_its_folder(straylight_train, tmp_path) -> None:
    here = f"hydra.run.dir={tmp_path / 'here'}"
    first = straylight_train("detector=hbos", "data=blobs", here, output="here")
    kept = {path: path.read_bytes() for path in (tmp_path / "here").rglob("*") if path.is_file()}
    sentence(straylight_train("detector=hbos", "data=blobs", "detector.bins=-1", here))
    assert first.status == 0 and "scores.parquet" in {path.name for path in kept}
    assert all(path.read_bytes() == was for path, was in kept.items() if path.suffix != ".log")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (["detector=knn", "detector.k=1000"], ("detector.k=1000", "57")),
        (["detector=vae", "optimizer=sgd", "optimizer.lr=1e9"], ("diverged", "optimizer.lr")),
    ],
)
def test_a_run_that_fails_while_it_trains_is_recorded_as_failed(override, words, straylight_train) -> None:
    ended = straylight_train(*override)
    said = sentence(ended)
    assert all(word in said for word in words), said
    assert ended.result["status"] == "failed" and said == f"Error: {ended.result['reason']}"
    assert not (ended.run / "scores.parquet").exists()


def table(n: int = 200, d: int = 4) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).normal(size=(n, d)), (np.arange(n) % 10 == 0).astype(int)


def spoilt(what: str, path: Path) -> tuple[str, ...]:
    """Write a file in which something is wrong; words that must be said of it."""
    x, y = table()
    words: tuple[str, ...] = ("mine",)
    arrays = {"X": x, "y": y}
    match what:
        case "nan" | "inf":
            x[[3, 5, 8], 2] = x[3, 1] = float(what)
            words = ("mine", "column 2 (3 rows)", "column 1 (1 row)")
        case "no labels":
            del arrays["y"]
            words = ("mine.npz", "'y'", "X")
        case "all anomalous":
            y[:] = 1
            words = ("mine", "no nominal rows to train on")
        case "all nominal":
            y[:] = 0
            words = ("mine", "no anomalous row")
        case "text":
            arrays["X"] = x.astype(str)
            words = ("mine.npz", "numbers")
    np.savez(path, **arrays)
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    if what == "empty":
        path.write_bytes(b"")
    return words


@pytest.mark.parametrize(
    "what", ["nan", "inf", "no labels", "all anomalous", "all nominal", "text", "truncated", "empty"]
)
def test_a_bad_file_is_named_with_what_is_wrong_in_it(what, tmp_path) -> None:
    words = spoilt(what, tmp_path / "mine.npz")
    said = refusal("data=adbench", f"data.path={tmp_path}/mine.npz")
    assert "\n" not in said and all(word in said for word in words), said


@pytest.mark.parametrize("what", ["nan", "truncated"])  # of what is in it, and of the file itself
def test_a_run_on_a_bad_file_says_the_same_and_leaves_no_folder(what, straylight_train, tmp_path) -> None:
    spoilt(what, tmp_path / "mine.npz")
    asked = ("data=adbench", f"data.path={tmp_path}/mine.npz")
    ended = straylight_train(*asked)
    assert sentence(ended) == f"Error: {refusal(*asked)}"
    assert not ended.results


def test_fewer_rows_than_a_batch_is_no_error(straylight_train, tmp_path) -> None:
    x, y = table(30)
    np.savez(tmp_path / "small.npz", X=x, y=y)
    ended = straylight_train("data=adbench", f"data.path={tmp_path / 'small.npz'}", "data.batch_size=1024")
    assert ended.status == 0, ended.err


def test_a_typo_in_a_sweep_starts_no_job(straylight_train) -> None:
    said = sentence(straylight_train("-m", "detector=knn,vea", "data=blobs"))
    assert "'vea'" in said
