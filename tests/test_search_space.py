"""The space of a search: what ranges mean, by Hydra's own reading of them and by the laws that samplers draw by."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from omegaconf import OmegaConf
from scipy import stats

from straylight.errors import ConfigError
from straylight.overrides import parsed
from straylight.search.ranges import of
from straylight.search.samplers import SAMPLERS, sampler_of
from straylight.search.space import Space

CONFIGS = {"a": {"one": 1, "both": 1}, "b": {"two": 1, "both": 1, "deep": {"er": 1}}}


class Loader:
    """Of configs of one group."""

    def get_group_options(self, group, results_filter=None) -> list[str]:
        return list(CONFIGS) if group == "net" else []


def space(*overrides: str, **own: dict) -> Space:
    def compose(given):
        chosen = next((o.partition("=")[2] for o in given if o.startswith("net=")), "a")
        return OmegaConf.create({"net": CONFIGS[chosen], "lr": 1, "x": 1})

    return Space(overrides, compose, own, Loader())


def drawn(found: Space, count: int, seed: int = 0) -> list[list[str]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [found.ask(study.ask()) for _ in range(count)]


@pytest.mark.parametrize(
    "override",
    ["x=range(2,9)", "x=range(1,10,3)", "x=range(9,1,-2)", "x=range(0.1,0.5,0.1)", "x=1,b,[c,d]", "x=choice(1,2.5)"],
)
def test_a_range_holds_what_hydra_makes_of_it_and_all_of_it(override) -> None:
    by_hydra = {f"x={value}" for value in parsed(override).sweep_string_iterator()}
    assert {o for (o,) in drawn(space(override), 200)} == by_hydra


def test_an_interval_is_drawn_from_by_its_law() -> None:
    values = [float(o.partition("=")[2]) for (o,) in drawn(space("lr=tag(log,interval(1e-4,1e-1))"), 500)]
    assert stats.kstest(values, stats.loguniform(1e-4, 1e-1).cdf).pvalue > 0.01
    assert stats.kstest(values, stats.uniform(1e-4, 1e-1).cdf).pvalue < 1e-6, "which tells the two apart"
    values = [float(o.partition("=")[2]) for (o,) in drawn(space("lr=interval(-1,3)"), 500)]
    assert stats.kstest(values, stats.uniform(-1, 4).cdf).pvalue > 0.01


def test_whole_numbers_are_asked_for_as_hydra_has_them() -> None:
    assert {o for (o,) in drawn(space("x=int(interval(1,4))"), 100)} == {f"x={i}" for i in range(1, 5)}
    values = [int(o.partition("=")[2]) for (o,) in drawn(space("x=tag(log,range(1,1001))"), 400)]
    assert min(values) >= 1 and max(values) <= 1000 and 15 < np.median(values) < 70, (
        "half of them below the root of 1000"
    )


def test_keys_follow_the_choice_that_has_them() -> None:
    found = space("net=a,b", "net.one=range(3)", "net.two=range(3)", "net.deep.er=7", "lr=interval(0,1)", "x=choice(4)")
    for point in drawn(found, 60):
        keys = {o.partition("=")[0] for o in point}
        other = {"net.one"} if "net=a" in point else {"net.two", "net.deep.er"}
        assert keys == {"net", "lr", "x", *other} and "x=4" in point


def test_what_is_added_is_added_to_all() -> None:
    assert all(
        any(o.startswith("+net.new=") for o in point) for point in drawn(space("net=a,b", "+net.new=range(3)"), 9)
    )


def test_what_is_typed_goes_before_what_is_meant_for_one_choice() -> None:
    found = space("net=a,b", "net.both=range(5,7)", a={"net.both": "range(100,102)", "net.one": "range(3)"})
    points = drawn(found, 60)
    assert {o for point in points for o in point if o.startswith("net.both")} == {"net.both=5", "net.both=6"}
    assert all(any(o.startswith("net.one=") for o in point) == ("net=a" in point) for point in points)


def test_samples_hold_every_choice_and_both_ends() -> None:
    found = space("net=a,b", "net.one=range(3,9)", "net.two=interval(0,1)", "lr=tag(log,interval(1e-4,1e-1))")
    every = {o for point in found.samples() for o in point}
    assert every == {"net=a", "net=b", "net.one=3", "net.one=8", "net.two=0.0", "net.two=1.0", "lr=0.0001", "lr=0.1"}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_is_made_by_the_seed_and_the_number_of_its_trial(name) -> None:
    def values(seed: int, before: bool) -> list[dict]:
        study = optuna.create_study()
        kept = None
        for number in range(12):
            study.sampler = kept = sampler_of(name, {}, seed, number, kept if before else None)
            trial = study.ask()
            x, y = trial.suggest_float("x", 0, 1), trial.suggest_int("y", 0, 9)
            study.tell(trial, (x - 0.3) ** 2 + y)
        return [trial.params for trial in study.trials]

    assert values(0, True) == values(0, False) != values(1, True)
    assert len({str(params) for params in values(0, True)}) == 12


def test_what_the_search_gives_a_sampler_cannot_be_typed() -> None:
    with pytest.raises(ConfigError, match=r"sampler_options\.seed is given by the search: see hydra\.sweeper\.seed"):
        sampler_of("tpe", {"seed": 3}, 0, 0)


def test_one_value_is_no_range() -> None:
    assert of(parsed("x=3")) is None and not hasattr(of(parsed("x=3")), "distribution")
    with pytest.raises(ConfigError, match="has no point to choose"):
        space("x=interval(2,2)", "lr=choice(1)")
