"""A config that is composed of what was kept is the one that Hydra composes."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import OmegaConf

import composing
from composing import kept
from straylight.groups import FOLDER

COMMANDS = [
    [],
    ["detector=vae", "detector.latent=3", "+detector.note=a"],
    ["detector=vae", "detector.latent=4", "seed=7", "data=digits"],
    ["detector=ensemble", "detector@detector.member=pca"],
    ["detector=ensemble", "detector@detector.member=gmm", "detector.members=2"],
    ["experiment=vae_blobs"],
    ["experiment=vae_blobs", "detector=pca", "~logger"],
    ["~callbacks.record", "logger=[csv,tensorboard]"],
    ["optimizer={lr: 0.5}", "hydra/launcher=basic", "hydra.run.dir=x"],
    ["callbacks=numbers", "callbacks.latency=null"],
]
WRONG = [
    ["detector=no"],
    ["detectr=vae"],
    ["detector.latnt=3"],
    ["~detector=pca"],
    ["+detector=vae"],
    ["data=moons,blobs"],
]


def composed(words: list[str]) -> Any:
    """All of the config as plain values, or what is wrong."""
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
            cfg = compose("train", overrides=words, return_hydra_config=True)
    except HydraException as error:
        return str(error)
    return OmegaConf.to_container(cfg, resolve=False, enum_to_str=True), cfg._metadata.flags


@pytest.fixture
def plain(monkeypatch) -> None:
    """Hydra without anything kept, as it was before the tests began."""
    assert config_loader_impl.create_defaults_list is not composing.list_them, "what the other tests have"
    monkeypatch.setattr(config_loader_impl, "create_defaults_list", composing.list_them)
    monkeypatch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", composing.merge)


def test_what_was_kept_gives_the_config_that_hydra_gives(plain) -> None:
    expected = [composed(words) for words in COMMANDS + WRONG]
    assert all(isinstance(found, tuple) for found in expected[: len(COMMANDS)])
    assert all(isinstance(found, str) for found in expected[len(COMMANDS) :])
    with kept():
        for _ in range(2):
            assert [composed(words) for words in COMMANDS + WRONG] == expected


def test_nothing_is_read_again(plain, monkeypatch) -> None:
    asked, ask = [], composing.merge
    monkeypatch.setattr(composing, "merge", lambda *args, **given: asked.append(1) or ask(*args, **given))
    with kept():
        for seed in range(3):
            composed(["detector=vae", f"seed={seed}"])
        assert len(asked) == 1
        composed(["detector=pca"])
        assert len(asked) == 2


def test_what_is_changed_in_a_config_is_not_in_the_next(plain) -> None:
    with kept(), initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        first = compose("train", overrides=["detector=vae"])
        first.detector.hidden.append(99)
        first.data = None
        assert compose("train", overrides=["detector=vae"]) != first
        assert 99 not in compose("train", overrides=["detector=vae"]).detector.hidden


def test_a_folder_of_ones_own_is_read_each_time(plain, tmp_path) -> None:
    own = tmp_path / "detector" / "mine.yaml"
    own.parent.mkdir()
    with kept():
        for depth in (1, 2):
            own.write_text(f"_target_: mine.Mine\ndepth: {depth}\n")
            found, _ = composed(["detector=mine", f"hydra.searchpath=[file://{tmp_path}]"])
            assert found["detector"]["depth"] == depth
