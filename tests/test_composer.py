"""Configs of a sweep's jobs, put together once for each combination of groups: what Hydra itself would compose."""

from __future__ import annotations

from typing import Any

import pytest
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from straylight.documents import yaml_text
from straylight.groups import FOLDER, choices
from straylight.sweep.composer import Composer


@pytest.fixture
def sweep():
    """Hydra's loader, and the config of a sweep."""
    hydra = Hydra.create_main_hydra2("train", create_config_search_path(str(FOLDER)))
    asked = ["hydra.sweep.dir=somewhere", "detector=vae,knn", "seed=0,1"]
    yield hydra.config_loader, hydra.compose_config("train", asked, RunMode.MULTIRUN)
    GlobalHydra.instance().clear()


JOBS = [
    [],
    ["seed=3"],
    ["detector=vae", "data=digits", "seed=1", "detector.latent=7"],
    ["detector.latent=7", "detector=vae", "data=digits"],
    ["detector=knn", "+detector.note='a=b, c'", "++trainer.max_time='00:01:00'", "data.nominal=100"],
    ["detector=knn", "~callbacks.latency", "logger=none"],
    ["detector=ensemble", "detector@detector.member=vae", "detector.members=4"],
    ["data=blobs", "data.centers=[[0,0],[1,2]]", "+data.more={a:1,b:[x,null]}"],
    ["optimizer.lr=1e-3", "+detector.name='1e3'", "detector=autoencoder", "callbacks.figures.only=[]"],
    ["experiment=vae_blobs", "seed=2"],
    ["detector=knn", "hydra.job.name=other", "data.nominal=10"],
    ["paths.output=${oc.env:HOME}/x", "detector=knn", "hydra.sweep.subdir=${hydra.job.override_dirname}"],
]


def everything(cfg: Any) -> list[Any]:
    """All that there is of a config: values, resolved ones where that is possible, flags and types."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    own = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    resolved = OmegaConf.to_container(own, resolve=True) if "hydra" not in str(plain["paths"]) else None
    flags = [(OmegaConf.is_struct(node), OmegaConf.is_readonly(node)) for node in (cfg, cfg.hydra, cfg.detector)]
    return [plain, resolved, flags, OmegaConf.get_type(cfg.hydra), OmegaConf.get_type(cfg.hydra.runtime)]


@pytest.mark.parametrize("job", JOBS, ids=[" ".join(job) for job in JOBS])
def test_a_job_is_composed_as_by_hydra(job, sweep) -> None:
    loader, cfg = sweep
    compose = Composer(cfg, loader)
    others = [*(o for o in job if not o.startswith("seed=")), "seed=17"]
    compose(others)  # so that what is compared was put together from what is kept
    try:
        expected = loader.load_sweep_config(cfg, job)
    except HydraException as error:
        with pytest.raises(HydraException) as refused:
            compose(job)
        assert str(refused.value) == str(error)
        return
    found = compose(job)
    assert everything(found) == everything(expected)
    found.paths.run = "changed"
    assert everything(compose(job)) == everything(expected), "no job changes another's"


@pytest.mark.parametrize(
    "job", [["detector=nothing"], ["seed=[1"], ["detector.nothing=1", "detector=knn"], ["+seed=1"], ["seed=1,2"]]
)
def test_what_cannot_be_composed_is_refused_in_hydras_words(job, sweep) -> None:
    loader, cfg = sweep
    with pytest.raises(HydraException) as expected:
        loader.load_sweep_config(cfg, job)
    with pytest.raises(HydraException) as refused:
        Composer(cfg, loader)(job)
    assert str(refused.value) == str(expected.value)


def test_files_are_read_once_for_each_combination_of_groups(sweep, monkeypatch) -> None:
    loader, cfg = sweep
    compose, asked = Composer(cfg, loader), []
    whole = loader.load_sweep_config
    monkeypatch.setattr(loader, "load_sweep_config", lambda cfg, job: asked.append(job) or whole(cfg, job))
    for detector in ("knn", "vae"):
        for seed in range(20):
            assert compose([f"detector={detector}", f"seed={seed}"]).seed == seed
    assert asked == [["detector=knn"], ["detector=vae"]]


@pytest.mark.parametrize("detector", choices("detector"))
def test_a_config_is_written_as_omegaconf_writes_it(detector, sweep) -> None:
    loader, cfg = sweep
    composed = loader.load_sweep_config(cfg, [f"detector={detector}"])
    composed = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
    assert yaml_text(OmegaConf.to_container(composed, resolve=False, enum_to_str=True)) == OmegaConf.to_yaml(composed)


@pytest.mark.parametrize(
    "text", ["1", "1e3", "1_000", "yes", "Null", "~", "nan", ".inf", "a: b", "", " x", "0x1f", "ä\n"]
)
def test_a_text_stays_a_text(text) -> None:
    assert yaml_text({"value": text}) == OmegaConf.to_yaml({"value": text})
    assert OmegaConf.create(yaml_text({"value": text})).value == text
