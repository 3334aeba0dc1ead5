"""Overrides and keys: as Hydra reads them, and what each key means for a run's identity, report and resuming."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from straylight import config
from straylight.groups import FOLDER
from straylight.keys import KEYS, Kind, entry, key_of, named_by
from straylight.overrides import composable, from_here, merged, quoted, ranged, readable, sweeps

PARSER = OverridesParser.create()
TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\x7f"), min_size=1, max_size=12)
ODD = [
    "a,b",
    "a'b",
    'a"b',
    "back\\",
    "two\\\\",
    "\\'",
    "a\\'b",
    "Zürich",
    "日本",
    "a b",
    " a",
    "1e5",
    "null",
    "true",
    "[x]",
    "{a:1}",
    "choice(1)",
    "range(3)",
    "a=b",
    "a:b",
    "~x",
    "+x",
    "$",
    "a#b",
    "(",
    "int(3)",
    "../x",
    "C:\\d\\",
]


@pytest.mark.parametrize("text", ODD)
def test_a_quoted_text_is_read_back_as_it_was(text) -> None:
    parsed = PARSER.parse_override(f"key={quoted(text)}")
    value = parsed.value()
    assert getattr(value, "text", value) == text and not parsed.is_sweep_override()


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_any_text_is_read_back_as_it_was(text) -> None:
    value = PARSER.parse_override(f"key={quoted(text)}").value()
    assert getattr(value, "text", value) == text


@pytest.mark.parametrize("text", ODD)
def test_a_quoted_text_reaches_the_config_as_it_was(text) -> None:
    with initialize_config_dir(version_base=config.HYDRA, config_dir=str(FOLDER)):
        assert compose(None, [f"+note={quoted(text)}"]).note == text


@pytest.mark.parametrize(
    "override",
    [
        "a=b",
        "+a.b=1",
        "++a.b=1",
        "~a",
        "~a=3",
        "a/b=c",
        "a.b='c=d'",
        "a={b:'c=d'}",
        "a=",
        "a@b=c",
        "a=x,y",
        "a=range(1,3)",
    ],
)
def test_a_key_is_what_hydra_takes_for_it(override) -> None:
    parsed = PARSER.parse_override(override)
    element = parsed.get_key_element().lstrip("+~")
    assert key_of(override) == element


@pytest.mark.parametrize(
    ("override", "several"),
    [
        ("a=1,2", True),
        ("a='1,2'", False),
        ("a=[1,2]", False),
        ("a={b:1,c:2}", False),
        ("a=range(3)", True),
        ("a=choice(1)", True),
        ("a=glob(*)", True),
        ("a=interval(0,1)", True),
        ("~a", False),
        ("a=f(1,2", False),
    ],
)
def test_a_sweep_is_told_from_a_value_with_commas(override, several) -> None:
    assert sweeps(override) is several and ranged([override]) == ({"a"} if several else set())


def test_merging_keeps_the_last_of_each_key_where_the_first_stood() -> None:
    assert merged(["a=1", "+b=2", "c='x=y'"], ["b=3", "++a=4"]) == ["++a=4", "b=3", "c='x=y'"]


def test_what_hangs_below_a_swept_group_is_made_a_choice_and_nothing_else_is() -> None:
    given = ["detector=vae,knn", "detector.scaling=minmax", "detector.hidden=[8,4]", "detector.k=1,2", "data.n='a,b'"]
    assert composable(given) == [
        "detector=vae,knn",
        "detector.scaling=choice(minmax)",
        "detector.hidden=choice([8,4])",
        "detector.k=1,2",
        "data.n='a,b'",
    ]
    assert composable(["seed=0,1", "detector.scaling=minmax"]) == ["seed=0,1", "detector.scaling=minmax"]


@pytest.mark.parametrize("name", ["my file.csv", "Zürich.csv", "a,b.csv", "it's.csv", "(1).csv", "plain.csv"])
def test_typed_paths_are_meant_from_here(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = from_here(f"data.path={quoted(name)}")
    monkeypatch.chdir("/")
    value = PARSER.parse_override(made).value()
    assert getattr(value, "text", value) == str(tmp_path / name)
    assert from_here(f"detector.path={quoted(name)}") == f"detector.path={quoted(name)}"


def test_a_path_that_the_grammar_has_no_place_for_needs_no_quotes() -> None:
    assert PARSER.parse_override(readable("data.path=/data/Zürich (1).csv")).value() == "/data/Zürich (1).csv"
    assert readable("detector.hidden=[8,") == "detector.hidden=[8,", "of which Hydra says what is wrong"


# what keys mean


@cache
def cfg(*overrides: str):
    """The config of a run, composed once for all tests that read it."""
    with initialize_config_dir(version_base=config.HYDRA, config_dir=str(FOLDER)):
        return compose("train", ["paths.run=.", *overrides])


def test_every_key_of_the_table_is_one_of_a_config() -> None:
    whole = [cfg(), cfg("data=file", "data.path=x.csv"), cfg("data=adbench")]
    for key in KEYS:
        if not key.startswith("hydra") and key != "callbacks.pruning":  # which a search adds
            missing = object()
            assert any(OmegaConf.select(one, key, default=missing) is not missing for one in whole), key


SAME = [
    "threads=2",
    "data.workers=3",
    "data.group=7",
    "data.device=cpu",
    "data.memory_mb=1",
    "trainer.accelerator=auto",
    "trainer.devices=2",
    "trainer.strategy=ddp",
    "paths.output=x",
    "paths.data=y",
    "logger=csv",
    "callbacks.figures.dpi=50",
    "callbacks.figures=null",
    "callbacks.tensorboard=null",
    "callbacks.progress.interval_s=9",
]
OTHER = [
    "detector.latent=3",
    "data.batch_size=7",
    "optimizer.lr=0.5",
    "trainer.max_epochs=7",
    "trainer.precision=bf16-mixed",
    "callbacks.latency.budget_s=9",
    "data.nominal=3",
    "data.contamination=0.1",
    "compile=true",
]


@pytest.mark.parametrize("override", SAME)
def test_what_changes_speed_or_place_alone_makes_no_other_run_unless_the_sweep_compares_it(override) -> None:
    key = key_of(override) if "." in override or override.startswith("threads") else "logger"
    assert config.identity(cfg(override)) == config.identity(cfg())
    if entry(key).kind is Kind.SPEED:
        assert config.identity(cfg(override), ranged={key}) != config.identity(cfg(), ranged={key})


@pytest.mark.parametrize("override", OTHER)
def test_what_changes_what_is_computed_makes_another_run(override) -> None:
    assert config.identity(cfg(override)) != config.identity(cfg())


def test_a_seed_tells_repeats_apart_and_no_variants() -> None:
    one, other = cfg("seed=1"), cfg("seed=2")
    assert config.identity(one) != config.identity(other)
    assert config.identity(one, seed=False) == config.identity(other, seed=False)


def test_names_in_a_report_follow_the_table() -> None:
    given = [
        "seed=1",
        "detector=vae",
        "data=blobs",
        "detector.latent=3",
        "paths.data=x",
        "hydra.verbose=true",
        "threads=2",
        "experiment=x",
        "callbacks.figures.dpi=3",
        "logger=csv",
        "data.root=x",
    ]
    assert named_by(given) == {"detector.latent=3", "threads=2"}


def test_paths_are_settled_once_and_say_the_same_from_everywhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STRAYLIGHT_DATA", raising=False)
    one = copy.deepcopy(cfg("data=adbench", "data.name=x", "paths.output=out"))
    config.settle_paths(one)
    monkeypatch.chdir("/")
    assert (one.paths.data, one.paths.output) == (str(tmp_path / "data"), str(tmp_path / "out"))
    assert one.data.root == str(tmp_path / "data" / "adbench")
    other = copy.deepcopy(cfg("data=file", "data.path=mine.csv", "data.test_path=/else/yours.csv"))
    config.settle_paths(other, tmp_path / "there")
    assert Path(other.data.path) == tmp_path / "there" / "mine.csv" and other.data.test_path == "/else/yours.csv"
