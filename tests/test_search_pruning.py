"""The callback by which a search gives trials up: what it tells, when it asks, and that it never fails a run."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from straylight.callbacks import Pruning
from straylight.errors import ConfigError
from straylight.journal import NAME, opened, study


class Falling(pl.LightningModule):
    """Its validation reads `losses`, one an epoch."""

    def __init__(self, losses, name: str = "val/loss") -> None:
        super().__init__()
        self.losses, self.name, self.weight = losses, name, torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch):
        return self.weight.square().sum()

    def validation_step(self, batch) -> None:
        self.log(self.name, torch.tensor(self.losses[self.current_epoch]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def trained(trainer):
    """Train by these losses, watched; how many epochs it took."""

    def train(watching: Pruning, losses, name: str = "val/loss") -> int:
        rows = DataLoader(torch.zeros(4, 1), 4)
        one = trainer(max_epochs=len(losses), callbacks=[watching], log_every_n_steps=1)
        one.fit(Falling(losses, name), rows, rows)
        return one.current_epoch

    return train


@pytest.fixture
def others(tmp_path):
    """A journal of two trials whose losses fell to 1, one trial that runs, and the direction of the search."""

    def make(direction: str = "minimize"):
        kept = study(opened(tmp_path / NAME), directions=[direction])
        sign = 1 if direction == "minimize" else -1
        for _ in range(2):
            trial = kept.ask()
            for step, value in enumerate((3.0, 2.0, 1.0), start=1):
                trial.report(sign * value, step)
            kept.tell(trial, 0.5)
        return kept, kept.ask()

    return make


MEDIAN = {"n_startup_trials": 2}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(("losses", "epochs"), [([2.0, 2.5, 0.5], 3), ([2.9, 2.5, 0.5], 2), ([4.0, 1.0, 0.5], 1)])
def test_a_trial_behind_the_median_ends_whichever_way_the_objective_goes(
    others, trained, tmp_path, direction, losses, epochs
) -> None:
    kept, trial = others(direction)
    watching = Pruning(
        str(tmp_path / "7"), trial.number, lower=direction == "minimize", pruner="median", options=MEDIAN
    )
    assert trained(watching, losses) == epochs and watching.result() == {"pruned": epochs < 3}
    sign = 1 if direction == "minimize" else -1
    known = kept.get_trials()[trial.number].intermediate_values
    assert known == {i + 1: pytest.approx(sign * loss) for i, loss in enumerate(losses[:epochs])}


def test_an_epoch_that_was_gone_back_to_is_told_once(others, trained, tmp_path) -> None:
    kept, trial = others()
    trial.report(0.25, 1)
    trained(Pruning(str(tmp_path / "7"), trial.number, pruner="median", options=MEDIAN), [2.0, 1.0])
    assert kept.get_trials()[trial.number].intermediate_values == {1: 0.25, 2: 1.0}


def test_a_trial_that_is_over_or_a_journal_that_is_gone_ends_no_training(others, trained, tmp_path) -> None:
    kept, trial = others()
    kept.tell(trial, 1.0)
    for folder in (tmp_path / "7", tmp_path.parent / "moved"):
        watching = Pruning(str(folder), trial.number, pruner="median", options=MEDIAN)
        assert trained(watching, [9.0, 9.0, 9.0]) == 3 and not watching.pruned
    assert kept.get_trials()[trial.number].intermediate_values == {}


def test_a_journal_that_breaks_is_said_and_ends_no_training(trained, tmp_path, caplog) -> None:
    (tmp_path / NAME).write_text("what is this\nor that\n")
    watching = Pruning(str(tmp_path / "7"), 0)
    assert trained(watching, [9.0, 9.0]) == 2 and not watching.pruned
    assert caplog.text.count("The search is told nothing more") == 1


def test_what_is_not_measured_or_of_the_test_is_refused(others, trained, tmp_path) -> None:
    _, trial = others()
    with pytest.raises(ConfigError, match="monitor=val/loss is not measured; there is val/other"):
        trained(Pruning(str(tmp_path / "7"), trial.number), [1.0], "val/other")
    with pytest.raises(ConfigError, match="would select by the test rows"):
        Pruning("j", 0, monitor="test/auroc")
