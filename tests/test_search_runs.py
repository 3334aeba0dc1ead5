"""Searches over real runs: no test label has a say, hopeless trials are pruned, and what is killed goes on."""

from __future__ import annotations

import signal
import sys
import time

import numpy as np
import pytest

from searching import make, record, told, trials
from straylight.folder import SweepFolder
from straylight.run import Run

SPACE = ("detector.latent=range(1,9)", "optimizer.lr=tag(log,interval(1e-4,1e-1))")


@pytest.fixture
def read(tmp_path, monkeypatch) -> tuple[str, ...]:
    """What a search for the loss of validation is typed with; brings `data=flipped`."""
    monkeypatch.syspath_prepend(tmp_path)
    known, reads = make(tmp_path)
    lean = ("logger=none", "hydra.sweeper.figures=false", "hydra.sweeper.sampler_options={n_startup_trials:2}")
    return ("-m", known, "hydra/sweeper=optuna", "detector=autoencoder", *SPACE, "objective=val/loss", reads, *lean)


def test_flipping_the_labels_of_the_test_leaves_every_trial_as_it_was(straylight_train, read, tmp_path) -> None:
    found, aurocs = [], []
    for data in ("blobs", "flipped"):
        here = tmp_path / data
        given = ("hydra.sweeper.n_trials=5", "hydra/launcher=basic", f"hydra.sweep.dir={here}")
        ended = straylight_train(*read, f"data={data}", *given, epochs=1)
        assert ended.status == 0, ended.err
        found.append(told(here))
        aurocs.append([record(here, number)["metrics"]["test/auroc"] for number in range(5)])
    assert found[0] == found[1] and len({values[0] for _, _, values, _ in found[0]}) == 5
    np.testing.assert_allclose(aurocs[0], 1 - np.array(aurocs[1]), atol=1e-12)
    assert min(abs(np.array(aurocs[0]) - 0.5)) > 0.1, "which is none the less another test"


@pytest.mark.slow
def test_hopeless_trials_are_pruned_by_the_median_rule_and_are_no_finished_runs(
    straylight_train, read, tmp_path
) -> None:
    here = tmp_path / "sweep"
    pruner = ("hydra.sweeper.pruner=median", "hydra.sweeper.pruner_options={n_startup_trials:2,n_warmup_steps:2}")
    given = ("data=blobs", "hydra.sweeper.n_trials=8", "hydra.launcher.n_jobs=1", f"hydra.sweep.dir={here}", *pruner)
    ended = straylight_train(*read, *given, epochs=6)
    assert ended.status == 0, ended.err
    found = trials(here)
    pruned = {trial.number for trial in found if trial.state.name == "PRUNED"}
    assert pruned and len(pruned) < 8 and f"{len(pruned)} pruned" in ended.out
    complete: list[dict[int, float]] = []
    for trial in found:
        kept, losses = record(here, trial.number), trial.intermediate_values
        assert kept["status"] == "ok" and kept["pruned"] == (trial.number in pruned)
        assert kept["epochs"] == len(losses) and sorted(losses) == list(range(1, len(losses) + 1))
        assert kept["config_hash"] and "pruning" not in kept["command"]
        behind = [  # the rule in its own words: the best so far is worse than the median of the others there
            len(complete) >= 2
            and step > 1
            and min(losses[s] for s in range(1, step + 1)) > np.median([o[step] for o in complete])
            for step in sorted(losses)
        ]
        assert behind == [False] * (len(losses) - 1) + [trial.number in pruned]
        if trial.number not in pruned:
            assert len(losses) == 6
            complete.append(losses)
    assert Run.open(here / str(min(pruned)), trust=["readings"]).score(np.zeros((1, 2))).shape == (1,), (
        "a model like any"
    )
    rows = (here / "leaderboard.csv").read_text().splitlines()[1:]
    assert len(rows) == 8 and sum(",pruned," in row for row in rows) == len(pruned)
    assert f"and {len(pruned)} of which a search has pruned" in straylight_answer(here)


def straylight_answer(folder) -> str:
    from straylight.report.answer import answer
    from straylight.report.leaderboard import rows

    results = SweepFolder(folder).results()
    return " ".join(answer(results, rows(results)))


@pytest.mark.slow
def test_a_search_that_is_killed_loses_nothing_and_repeats_nothing(fresh, terminal, tmp_path) -> None:
    given = [
        "data=blobs",
        "detector=autoencoder",
        *SPACE,
        "objective=parameters",
        "trainer.max_epochs=2",
        "logger=none",
    ]
    given += ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=7", "hydra.launcher.n_jobs=1", "callbacks=numbers"]
    given += ["hydra.sweeper.sampler_options={n_startup_trials:2}", "callbacks.latency.budget_s=0.01"]
    command = [sys.executable, "-m", "straylight", "train", "-m"]
    whole, here = tmp_path / "whole", tmp_path / "sweep"
    assert fresh.run([*command, *given, f"hydra.sweep.dir={whole}"], cwd=tmp_path).returncode == 0
    killed = fresh.start([*command, *given, f"hydra.sweep.dir={here}"], cwd=tmp_path)
    until = time.monotonic() + 120
    while not (here / "3" / "job.json").is_file() and time.monotonic() < until:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = {path: path.stat().st_mtime_ns for path in here.glob("[0-2]/result.json")}
    assert len(before) == 3 and len(trials(here)) == 4
    time.sleep(2.5)  # until its jobs have seen that nobody waits for them
    again = fresh.run([*command, f"resume={here}"], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert told(here) == told(whole) and [t[3] for t in told(here)] == ["COMPLETE"] * 7
    assert sorted(p.name for p in here.iterdir() if p.name.isdigit()) == [str(i) for i in range(7)]
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
