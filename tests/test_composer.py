"""Configs of a sweep's jobs, put together once for each combination of groups: what Hydra itself would compose."""

from __future__ import annotations

from typing import Any

import pytest
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from straylight.documents import yaml_text
from straylight.groups import FOLDER, choices
from straylight.sweep.alike import Alike
from straylight.sweep.composer import Composer
from straylight.sweep.point import Whole


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


# jobs that differ in plain values alone

VALUES = [
    ["seed=3"],
    ["detector=vae", "data=digits", "seed=1", "detector.latent=7"],
    ["detector=knn", "data=blobs", "data.nominal=100", "seed=2"],
    ["detector=vae", "optimizer.lr=1e-3", "detector.beta=0.25", "seed=5"],
    ["detector=vae", "detector.latent=null", "data=blobs"],
    ["detector=vae", "compile=true", "objective=val/loss", "threads=2"],
    ["detector=knn", "detector.metric='1e3'", "trainer.max_epochs=3", "seed=0"],
    ["experiment=vae_blobs", "seed=2", "trainer.max_epochs=7"],
    ["detector=ensemble", "detector@detector.member=vae", "detector.members=4", "detector.member.latent=3"],
]
#: And what makes a job one that must be composed by itself.
ALONE = [
    ["seed=${threads}"],
    ["detector=knn", "detector.k=[1,2]"],
    ["callbacks.figures.only=[]", "seed=1"],
    ["paths.output=elsewhere", "seed=1"],
    ["+detector.note=a", "detector=knn", "seed=2"],
    ["detector=knn", "trainer.devices=2", "seed=1"],
    ["detector=knn", "detector={k: 7}", "detector.k=3"],
    ["detector=knn", "+detector.note='${paths.run}/x'", "seed=1"],
]


def told(point: Any, number: int = 12) -> list[Any]:
    """All that a point says of itself."""
    HydraConfig.instance().cfg = None  # of an earlier job
    folder = f"/there/sweep/{number}"
    fields, asked, subdir = point.fields({"seed", "detector"}), point.asked(), point.subdir(number)
    return [fields, asked, subdir, *point.parts(number, folder, f"s/{number}")]


@pytest.mark.parametrize("job", [*VALUES, *ALONE], ids=" ".join)
@pytest.mark.parametrize("more", [[], ["hydra.sweep.subdir=${hydra.job.override_dirname}/${hydra:job.num}"]], ids=len)
def test_a_job_is_told_what_one_that_is_composed_by_itself_would_be(job, more, sweep) -> None:
    loader, cfg = sweep
    assert cfg.hydra.run.dir  # the one time of which all jobs know
    compose = Composer(cfg, loader)
    other = [f"{o.partition('=')[0]}=9" if o in ("seed=3", "seed=1", "seed=2", "seed=5", "seed=0") else o for o in job]
    compose.point([*more, *other]).parts(3, "/elsewhere/3", "3")
    found, expected = told(compose.point([*more, *job])), told(Whole(compose([*more, *job]), [*more, *job]))
    for one, another in zip(found, expected, strict=True):
        assert one == another
        assert repr(one) == repr(another)  # since 1 == True == 1.0
    assert told(compose.point([*more, *job])) == found, "no job changes another's"


@pytest.mark.parametrize("job", VALUES, ids=" ".join)
def test_of_jobs_that_differ_in_values_one_is_resolved(job, sweep) -> None:
    compose = Composer(*reversed(sweep))
    assert isinstance(compose.point(job), Alike)


class Referring:
    """Hydra's loader, in whose configs more stands that refers to other values."""

    def __init__(self, loader: Any, more: dict[str, str]) -> None:
        self.loader, self.more = loader, more
        self.repository = loader.repository

    def load_sweep_config(self, cfg: Any, job: list[str]) -> Any:
        found = self.loader.load_sweep_config(cfg, job)
        for key, value in self.more.items():
            OmegaConf.update(found, key, value, force_add=True)
        return found


REFERRING = {"detector.same": "${seed}", "detector.said": "a ${seed} b ${threads}", "more": "${detector}"}


@pytest.mark.parametrize("value", ["7", "true", "null", "0.1", "1e-05", "text", "'quo: ted'", "-3", "inf"])
def test_what_refers_to_a_value_follows_it(value, sweep) -> None:
    loader, cfg = sweep
    assert cfg.hydra.run.dir
    compose, job = Composer(cfg, Referring(loader, REFERRING)), ["detector=knn", f"seed={value}"]
    compose.point(["detector=knn", "seed=1"])
    point = compose.point(job)
    assert isinstance(point, Alike)
    assert repr(told(point)) == repr(told(Whole(compose(job), job)))
    told_of = point.parts(0, "/x", "x").config["more"]
    assert repr(told_of["same"]) == repr(compose(job).seed) and told_of["said"] == f"a {compose(job).seed} b 1"


@pytest.mark.parametrize("text", ["${oc.select:seed}", "${oc.create:{a:${seed}}}", "${detector.${oc.env:WHICH,k}}"])
def test_what_a_resolver_may_look_at_is_not_guessed(text, sweep) -> None:
    loader, cfg = sweep
    assert cfg.hydra.run.dir
    compose, job = Composer(cfg, Referring(loader, {"detector.note": text})), ["detector=knn", "seed=5"]
    compose.point(["detector=knn", "seed=1"])
    found = compose.point(job)
    assert isinstance(found, Whole) and repr(told(found)) == repr(told(Whole(compose(job), job)))


def test_what_refers_to_the_job_itself_is_its_own(sweep) -> None:
    loader, cfg = sweep
    more = {"detector.note": "${hydra:job.num} of ${hydra.job.override_dirname}", "detector.at": "${paths.run}/x"}
    compose = Composer(cfg, Referring(loader, more))
    for number in (3, 4):
        point = compose.point(["detector=knn", f"seed={number}"])
        config = point.parts(number, f"/there/{number}", str(number)).config
        assert isinstance(point, Alike) and config["detector"]["at"] == f"/there/{number}/x"
        assert config["detector"]["note"] == f"{number} of detector=knn,seed={number}"


@pytest.mark.parametrize("text", ["${hydra:overrides.task}", "${hydra.overrides.task}"])
def test_what_refers_to_what_was_typed_is_composed_by_itself(text, sweep) -> None:
    loader, cfg = sweep
    point = Composer(cfg, Referring(loader, {"detector.note": text})).point(["detector=knn", "seed=3"])
    assert point.parts(1, "/x", "x").config["detector"]["note"] == ["detector=knn", "seed=3"]
