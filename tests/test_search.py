"""`hydra/sweeper=optuna`: what is asked for, told, gone on with, and found."""

from __future__ import annotations

import itertools
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from searching import Died, Numbers, loss, record, told, trials
from straylight import journal
from straylight.engines.local import engine, pool
from straylight.errors import ConfigError
from straylight.journal import NAME, opened, study
from straylight.sweep.sweep import Sweep

VAE = ("data=blobs", "detector=vae", "detector.latent=range(2,16)", "optimizer.lr=tag(log,interval(1e-4,1e-1))")
BOTH = ("data=blobs", "detector=hbos,knn", "detector.bins=range(2,40)", "detector.k=range(1,30)")


@pytest.fixture
def search(straylight_train, monkeypatch, tmp_path) -> Callable:
    """A search into `sweep`, or another folder, by jobs that compute nothing."""
    monkeypatch.setattr(pool, "warm", lambda: None)
    monkeypatch.setattr(pool, "ask", lambda function, *given: [])
    monkeypatch.setattr(Sweep, "_interrupt", lambda sweep: None)  # whoever is killed does nothing more

    def run(*arguments: str, by: Numbers | None = None, into: str = "sweep", resume: bool = False):
        monkeypatch.setattr(engine, "LocalEngine", lambda machine: by or Numbers())
        here = tmp_path / into
        if resume:
            return straylight_train("-m", f"resume={here}", *arguments)
        given = ["hydra/sweeper=optuna", "logger=none", "hydra.sweeper.figures=false", "hydra.sweeper.at_once=1"]
        if not any(a.startswith("objective=") for a in arguments):
            given.append("objective=val/loss")
        return straylight_train("-m", *given, f"hydra.sweep.dir={here}", *arguments)

    return run


# what is asked for


def test_trials_are_jobs_of_one_sweep_and_the_best_is_said_with_its_command(search, tmp_path) -> None:
    ended = search(*VAE, "hydra.sweeper.n_trials=12")
    assert ended.status == 0, ended.err
    found = trials(tmp_path / "sweep")
    assert len(found) == 12 and {t.state.name for t in found} == {"COMPLETE"}
    for trial in found:
        kept = record(tmp_path / "sweep", trial.number)
        assert kept["criteria"]["val/loss"] == trial.value
        assert f"detector.latent={trial.params['detector.latent']}" in kept["overrides"]
        assert f"optimizer.lr={trial.params['optimizer.lr']}" in kept["overrides"]
        assert "callbacks.pruning" not in str(kept["overrides"])
    best = min(found, key=lambda trial: trial.value)
    assert f"Best: #{best.number} reached val/loss {best.value:.6g} ({tmp_path}/sweep/{best.number})" in ended.out
    (command,) = re.findall(r"^  straylight train (.*)$", ended.out, re.MULTILINE)
    assert f"detector.latent={best.params['detector.latent']} " in command and "hydra" not in command
    assert len(list((tmp_path / "sweep" / ".sweeps").glob("*.json"))) == 1
    assert ended.out.count("Written to") == 1, "one leaderboard, in the end"


def test_an_objective_of_which_more_is_better_is_maximised(search, tmp_path) -> None:
    def reached(config: dict) -> dict:
        return {"criteria": {"val/separation": -loss(config)["criteria"]["val/loss"]}}

    ended = search(*VAE, "objective=val/separation", "hydra.sweeper.n_trials=8", by=Numbers(reached))
    best = max(trials(tmp_path / "sweep"), key=lambda trial: trial.value)
    assert f"Best: #{best.number} reached val/separation" in ended.out


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes", "nsga2"])
@pytest.mark.parametrize("ends", [False, True], ids=["as it ran", "after it ended"])
def test_a_killed_search_goes_on_as_it_would_have_gone(search, tmp_path, sampler, ends) -> None:
    given = (*VAE, f"hydra.sweeper.sampler={sampler}", "hydra.sweeper.n_trials=14")
    assert search(*given, into="whole").status == 0
    with pytest.raises(Died):
        search(*given, by=Numbers(dies=(6, ends)))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "sweep").glob("*/result.json")}
    assert len(before) == 5 + ends and Counter(t.state.name for t in trials(tmp_path / "sweep"))["RUNNING"] == 1
    rest = Numbers()
    assert search(by=rest, resume=True).status == 0
    assert told(tmp_path / "sweep") == told(tmp_path / "whole"), "every trial, once, in the same order"
    assert len(rest.jobs) == 14 - len(before) and all(p.stat().st_mtime_ns == t for p, t in before.items())


def test_the_seed_makes_the_sequence(search, tmp_path) -> None:
    for into, seed in (("a", 0), ("b", 0), ("c", 1)):
        search(*VAE, "hydra.sweeper.n_trials=12", f"hydra.sweeper.seed={seed}", into=into)
    a, b, c = (told(tmp_path / into) for into in "abc")
    assert a == b and a != c


def test_more_trials_may_be_typed_when_it_is_resumed_and_no_other_space(search, tmp_path) -> None:
    search(*VAE, "hydra.sweeper.n_trials=4")
    assert search("hydra.sweeper.n_trials=7", resume=True).status == 0
    search(*VAE, "hydra.sweeper.n_trials=7", into="whole")
    assert told(tmp_path / "sweep") == told(tmp_path / "whole")
    other = search("detector.latent=range(2,99)", resume=True)
    assert other.status == 1 and "has another space than was typed" in other.err
    other = search("objective=parameters", resume=True)
    assert other.status == 1 and "has another objective than was typed" in other.err
    assert len(trials(tmp_path / "sweep")) == 7


def test_as_many_trials_run_as_there_is_room_for_and_none_waits_for_a_whole_batch(search, tmp_path) -> None:
    by = Numbers(room=3)
    search(*VAE, "hydra.sweeper.n_trials=11", "hydra.sweeper.at_once=3", by=by)
    assert by.most == [1, 2, *[3] * 9], "a new one as soon as one has ended"
    found = told(tmp_path / "sweep")
    assert [number for number, *_ in found] == list(range(11)) and len({str(params) for _, params, *_ in found}) == 11


def test_by_default_as_many_run_as_the_launcher_has_room_for(search) -> None:
    by = Numbers(room=4)
    search(*VAE, "hydra.sweeper.n_trials=9", "hydra.sweeper.at_once=null", "hydra.launcher.n_jobs=4", by=by)
    assert max(by.most) == 4 and len(by.most) == 9


def test_no_trial_begins_after_the_time_is_up(search, tmp_path) -> None:
    ended = search(*VAE, "hydra.sweeper.timeout_s=1e-9")
    assert ended.status == 0 and "Search for val/loss: 0 trials" in ended.out and not trials(tmp_path / "sweep")


def test_a_point_that_comes_again_is_told_and_not_run_again(search, tmp_path) -> None:
    by = Numbers()
    given = ("data=blobs", "detector=hbos,knn", "detector.k=choice(3,4)", "hydra.sweeper.n_trials=20")
    ended = search(*given, "hydra.sweeper.sampler=random", by=by)
    assert ended.status == 0 and len(by.jobs) == 3, "hbos, and knn with k of 3 and 4"
    values: dict[str, set[float]] = {}
    for _, params, (value,), _ in told(tmp_path / "sweep"):
        values.setdefault(str(params), set()).add(value)
    assert len(values) == 3 and all(len(found) == 1 for found in values.values())


def test_a_space_that_is_exhausted_ends_the_search(search, tmp_path) -> None:
    ended = search("data=blobs", "detector=knn", "detector.k=choice(3,4)", "hydra.sweeper.n_trials=500")
    assert ended.status == 0 and "The last 30 trials repeated earlier ones" in ended.out
    assert len(trials(tmp_path / "sweep")) < 60


# conditions


def test_a_key_is_a_parameter_of_the_choices_that_have_it(search, tmp_path) -> None:
    ended = search(*BOTH, "detector.scaling=minmax", "hydra.sweeper.n_trials=15", "hydra.sweeper.sampler=random")
    assert ended.status == 0, ended.err
    kinds = Counter()
    for trial in trials(tmp_path / "sweep"):
        chosen = trial.params["detector"]
        kinds[chosen] += 1
        assert set(trial.params) == {"detector", {"hbos": "detector.bins", "knn": "detector.k"}[chosen]}
        assert "detector.scaling=minmax" in record(tmp_path / "sweep", trial.user_attrs["folder"])["overrides"]
    assert set(kinds) == {"hbos", "knn"}


def test_a_choice_has_ranges_of_its_own(search, tmp_path) -> None:
    own = 'hydra.sweeper.of={hbos:{detector.bins:"range(2,9)"},knn:{detector.k:3,detector.distance:"mean,kth"}}'
    ended = search("data=blobs", "detector=hbos,knn", own, "hydra.sweeper.n_trials=12", "hydra.sweeper.sampler=random")
    assert ended.status == 0, ended.err
    for trial in trials(tmp_path / "sweep"):
        typed = set(record(tmp_path / "sweep", trial.user_attrs["folder"])["overrides"])
        if trial.params["detector"] == "hbos":
            assert f"detector.bins={trial.params['detector.bins@hbos']}" in typed and "detector.k=3" not in typed
        else:
            assert {"detector.k=3", f"detector.distance={trial.params['detector.distance@knn']}"} <= typed


def test_ranges_may_stand_in_a_config(search, tmp_path) -> None:
    params = 'hydra.sweeper.params={detector:knn,detector.k:"range(1,9)"}'
    ended = search("data=blobs", params, "hydra.sweeper.n_trials=3")
    assert ended.status == 0, ended.err
    assert all(1 <= t.params["detector.k"] < 9 and len(t.params) == 1 for t in trials(tmp_path / "sweep"))


# several objectives


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_of_several_objectives_the_front_is_found(search, tmp_path, sampler) -> None:
    objectives = "objective=[val/loss,parameters]"
    options = ["hydra.sweeper.sampler_options={population_size:6}"] if sampler == "nsga2" else []
    ended = search(*VAE, objectives, "hydra.sweeper.n_trials=18", f"hydra.sweeper.sampler={sampler}", *options)
    assert ended.status == 0, ended.err
    found = [(t.number, np.array(t.values)) for t in trials(tmp_path / "sweep")]
    beaten = {i for (i, a), (_, b) in itertools.permutations(found, 2) if (b <= a).all() and (b < a).any()}
    named = {int(n) for n in re.findall(r"^\* #(\d+) reached", ended.out, re.MULTILINE)}
    assert named and named <= {i for i, _ in found} - beaten
    assert f"No trial beats {'these ' + str(len(named)) if len(named) > 1 else 'this one'}" in ended.out


# the best of many is flattered


def test_the_best_trial_is_trained_again_with_fresh_seeds(search, tmp_path) -> None:
    by = Numbers()
    ended = search(*VAE, "hydra.sweeper.n_trials=6", "hydra.sweeper.confirm=3", by=by)
    assert ended.status == 0 and len(by.jobs) == 9
    best = min(trials(tmp_path / "sweep"), key=lambda trial: trial.value)
    again = [record(tmp_path / "sweep", number) for number in (6, 7, 8)]
    assert [r["seed"] for r in again] == [1, 2, 3]
    assert {r["variant"] for r in again} == {record(tmp_path / "sweep", best.number)["variant"]}
    values = [r["criteria"]["val/loss"] for r in again]
    said = f"With 3 fresh seeds: val/loss {np.mean(values):.6g} ({min(values):.6g} to {max(values):.6g})"
    assert said in ended.out and len(trials(tmp_path / "sweep")) == 6, "they are no trials"
    kept = Numbers()
    again_said = search(by=kept, resume=True)
    assert said in again_said.out and not kept.jobs


# what goes wrong


def test_a_trial_that_fails_is_told_why_and_ends_nothing(search, tmp_path) -> None:
    def reached(config: dict) -> dict:
        failed = config["detector"]["latent"] > 8
        return {"status": "failed", "reason": "it broke"} if failed else loss(config)

    ended = search(*VAE, "hydra.sweeper.n_trials=14", by=Numbers(reached))
    assert ended.status == 1, "as of any sweep in which a run fails"
    states = Counter()
    for trial in trials(tmp_path / "sweep"):
        states[trial.state.name] += 1
        assert (trial.state.name == "FAIL") == (trial.params["detector.latent"] > 8)
        assert trial.user_attrs.get("reason", "it broke") == "it broke"
    assert sum(states.values()) == 14 and states["FAIL"] and states["COMPLETE"]


def test_a_trial_without_a_finite_objective_has_failed(search, tmp_path) -> None:
    def reached(config: dict) -> dict:
        return {"criteria": {"val/loss": None}} if config["detector"]["latent"] > 8 else loss(config)

    ended = search(*VAE, "hydra.sweeper.n_trials=14", by=Numbers(reached))
    assert ended.status == 0
    failed = [trial for trial in trials(tmp_path / "sweep") if trial.state.name == "FAIL"]
    assert failed and all(trial.user_attrs["reason"] == "It has no val/loss." for trial in failed)


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["detector.latent=interval(9,2)"], "detector.latent=interval(9,2) stands for no value, since 9 is above 2"),
        (["detector.latent=range(9,2)"], "detector.latent=range(9,2) stands for no value"),
        (["optimizer.lr=tag(log,interval(0,1))"], "a logarithmic range begins above 0, not at 0"),
        (["optimizer.lr=tag(lgo,interval(1,2))"], "of tags the search knows log, and not lgo"),
        (["detector.latent=4"], "The search has no point to choose: type a range"),
        (["detector=glob(x*)"], "since detector=glob(x*) stands for no value; detector is one of"),
        (["detector=hbos,knn", "detector.kk=range(3)"], "detector.kk is no setting of hbos, knn (did you mean 'k'?)"),
        (["detector=hbos,nosuch"], "There is no detector 'nosuch'"),
        (["detector.laten=range(3)"], "There is no key 'detector.laten' (did you mean 'latent'?)"),
        (["seed=0,1", "detector.latent=range(2,5)"], "which seed is the luckiest is nothing to search for"),
        (["data=blobs,moons"], "a search would choose the easiest data set"),
        (["detector.latent=range(2,5)", "objective=test/auroc"], "would select by the test rows"),
        (["detector.latent=range(2,5)", "objective=nothing"], "objective=nothing is no measure of a run"),
        (["detector.latent=range(2,5)", "hydra.sweeper.sampler=tpee"], "not 'tpee' (did you mean 'tpe'?)"),
        (["detector.latent=range(2,5)", "hydra.sweeper.sampler_options={n: 3}"], "unexpected keyword argument 'n'"),
        (["detector.latent=range(2,5)", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be a positive whole"),
        (["detector.latent=range(2,5)", "hydra.sweeper.pruner=halving"], "hydra.sweeper.pruner is one of asha, median"),
        (["detector=vae,maf", "hydra.sweeper.pruner=asha"], "would compare losses of different detectors"),
        (
            ["detector.latent=range(2,5)", "objective=[val/loss,latency]", "hydra.sweeper.pruner=asha"],
            "hydra.sweeper.pruner goes by one objective",
        ),
        (
            ["detector.latent=range(2,5)", "objective=[val/loss,latency]", "hydra.sweeper.confirm=1"],
            "of several objectives none is",
        ),
        (
            ["detector.latent=range(2,5)", "objective=[val/loss,latency]", "hydra.sweeper.sampler=cmaes"],
            "hydra.sweeper.sampler=cmaes has one objective, and not 2",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence_before_there_is_a_folder(search, tmp_path, typed, sentence) -> None:
    ended = search("data=blobs", "detector=vae", *typed)
    assert ended.status == 1 and sentence in ended.err and "Traceback" not in ended.err, ended.err
    assert len(ended.err.strip().splitlines()) == 1 and not (tmp_path / "sweep").exists()


def test_an_objective_that_no_run_has_ends_the_search(search, tmp_path) -> None:
    by = Numbers(lambda config: {"criteria": {"val/separation": 0.5}, "parameters": 3})
    ended = search(*VAE, by=by)
    assert ended.status == 1 and len(by.jobs) == 5
    assert (
        "No run has objective=val/loss: 5 trials ended well without; they have val/separation, parameters" in ended.err
    )


def test_a_search_that_was_killed_before_its_first_trial_begins_when_it_is_resumed(search, tmp_path) -> None:
    search(*VAE, "hydra.sweeper.n_trials=3")
    whole = told(tmp_path / "sweep")
    for place in (tmp_path / "sweep").glob("[0-9]"):
        shutil.rmtree(place)
    for lines in (0, 1, 2):  # of the journal: none, the search, and one of the two things that it says of itself
        kept = (tmp_path / "sweep" / NAME).read_bytes().splitlines(keepends=True)[:lines]
        (tmp_path / "sweep" / NAME).write_bytes(b"".join(kept))
        assert search(resume=True).status == 0 and told(tmp_path / "sweep") == whole


def test_a_folder_has_one_search(search, tmp_path) -> None:
    search(*VAE, "hydra.sweeper.n_trials=2")
    ended = search(*VAE, "hydra.sweeper.n_trials=2")
    assert ended.status == 1 and "holds a search: go on with it by straylight train -m resume=" in ended.err
    assert len(trials(tmp_path / "sweep")) == 2


def test_a_package_that_is_missing_is_named(search, monkeypatch) -> None:
    from straylight import extras

    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    ended = search(*VAE)
    assert ended.status == 1 and "pip install 'straylight[optuna]'" in ended.err


# the journal


def test_a_journal_that_is_locked_says_so_and_one_whose_holder_has_died_does_not(tmp_path, monkeypatch) -> None:
    path = tmp_path / NAME
    study(opened(path), directions=["minimize"])
    lock = tmp_path / f"{NAME}.lock"
    lock.symlink_to(NAME)
    monkeypatch.setattr(journal, "LONGEST_S", 0.02)
    with pytest.raises(ConfigError, match=r"search\.journal is locked by another process; end it, or remove .*\.lock"):
        study(opened(path)).ask()
    monkeypatch.setattr(journal, "BROKEN_S", 0.01)
    monkeypatch.setattr(journal, "LONGEST_S", 60.0)
    assert study(opened(path)).ask().number == 0 and not lock.exists()


def test_a_line_that_was_cut_off_is_taken_away(tmp_path) -> None:
    path = tmp_path / NAME
    kept = study(opened(path), directions=["minimize"])
    kept.tell(kept.ask(), 1.0)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"worker')
    again = study(opened(path))
    again.tell(again.ask(), 2.0)
    assert [t.value for t in study(opened(path)).get_trials()] == [1.0, 2.0] and path.read_bytes().startswith(whole)


def test_a_file_that_is_no_journal_is_named(tmp_path) -> None:
    (tmp_path / NAME).write_text("nothing of the sort\nnor this\n")
    with pytest.raises(ConfigError, match="is no journal of a search, or damaged"):
        opened(tmp_path / NAME)


# pictures


def test_the_search_is_drawn(search, tmp_path) -> None:
    search(*BOTH, "optimizer.lr=tag(log,interval(1e-4,1e-1))", "hydra.sweeper.n_trials=8", "hydra.sweeper.figures=true")
    drawn = {path.name for path in (tmp_path / "sweep" / "figures").iterdir()}
    assert drawn == {"search_history.png", "search_importance.png", "search_parallel.png"}
    search(
        *VAE, "objective=[val/loss,parameters]", "hydra.sweeper.n_trials=6", "hydra.sweeper.figures=true", into="two"
    )
    assert (tmp_path / "two" / "figures" / "search_front.png").is_file()


def test_folder_names_are_those_of_trials(search, tmp_path) -> None:
    search(*VAE, "hydra.sweeper.n_trials=3")
    for trial in trials(tmp_path / "sweep"):
        assert trial.user_attrs["folder"] == str(trial.number) and Path(tmp_path, "sweep", str(trial.number)).is_dir()
