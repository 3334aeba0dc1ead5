"""Which validation rows choose an epoch: those that are not known to be anomalous, and no other."""

import logging

import numpy as np
import pytest
import torch

from straylight.callbacks import Checkpoint
from straylight.data import AnomalyDataModule
from straylight.data.digits import ContaminatedDigits
from straylight.detectors import KNN, AutoEncoder
from straylight.rows.batch import Events, Splits


class Mixed(AnomalyDataModule):
    """Nominal rows near zero; validation rows with these labels, anomalous ones far away."""

    def __init__(self, labels, far: float = 1e4, **options) -> None:
        super().__init__(batch_size=32, **options)
        self.labels, self.far = np.asarray(labels), far

    def load(self) -> Splits:
        rng = np.random.default_rng(0)

        def rows(y) -> Events:
            x = rng.normal(size=(len(y), 3)) + self.far * (y == 1)[:, None]
            return Events.of(x.astype(np.float32), y)

        test = np.repeat([0, 1], 20)
        return Splits(rows(np.zeros(64, int)), rows(self.labels), rows(test), rows(np.zeros(0, int)))


def served(data: AnomalyDataModule) -> torch.Tensor:
    return torch.cat([torch.empty(0, dtype=torch.int64), *(batch.y for batch in data.val_dataloader())])


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        ([0] * 40, [20, 0]),  # how many nominal ones and how many unlabelled ones
        ([0] * 20 + [1] * 20, [None, 0]),
        ([-1] * 40, [0, 20]),
        ([1] * 40, [0, 0]),
    ],
)
def test_rows_known_to_be_anomalous_choose_no_epoch(labels, chosen) -> None:
    data = Mixed(labels)
    data.setup()
    y = served(data)
    assert (y <= 0).all()
    for count, expected in zip([int((y == 0).sum()), int((y < 0).sum())], chosen, strict=True):
        assert expected in (None, count)
    rest = torch.cat([batch.y for batch in data.calibration_dataloader()])
    missing = int((data.splits.val.y > 0).sum()) - int((rest > 0).sum())
    assert len(y) + len(rest) + missing == len(labels)  # nothing else is left out, and the other half is whole


def test_the_loss_of_contaminated_validation_is_that_of_its_nominal_rows(trainer) -> None:
    losses = {}
    for far in (0.0, 1e4):
        torch.manual_seed(0)
        data = Mixed([0] * 20 + [1] * 20, far=far)
        fit = trainer(max_epochs=2)
        fit.fit(AutoEncoder((3,), hidden=(4,), latent=1), data)
        losses[far] = float(fit.callback_metrics["val/loss"])
    assert losses[0.0] == losses[1e4] < 10


def test_the_best_epoch_is_that_of_the_nominal_rows(trainer, tmp_path) -> None:
    """Wherever anomalies lie, they do not move the choice."""
    chosen = []
    for far in (0.0, 50.0):
        torch.manual_seed(0)
        checkpoint = Checkpoint(tmp_path / str(far))
        data = Mixed([0] * 20 + [1] * 20, far=far)
        trainer(max_epochs=5, callbacks=[checkpoint]).fit(AutoEncoder((3,), hidden=(4,), latent=1), data)
        chosen.append((checkpoint.best_epoch, checkpoint.best))
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize(("unlabelled", "told"), [(40, "The 20 validation rows"), (0, None)])
def test_that_anomalies_may_choose_is_said_once(unlabelled, told, trainer, caplog) -> None:
    data = Mixed([-1] * unlabelled + [0] * (40 - unlabelled))
    with caplog.at_level(logging.WARNING):
        trainer(max_epochs=2).fit(AutoEncoder((3,), hidden=(4,), latent=1), data)
    said = [notice for notice in data.notices if "choose the epoch" in notice]
    assert len(said) == bool(told) and all(told in notice for notice in said)


def test_a_detector_that_chooses_nothing_has_nothing_to_say(trainer) -> None:
    data = Mixed([-1] * 40)
    trainer(max_epochs=1).fit(KNN((3,)), data)
    assert not data.notices


def test_validation_of_anomalies_alone_chooses_no_epoch(trainer, tmp_path) -> None:
    data, checkpoint = Mixed([1] * 40), Checkpoint(tmp_path)
    trainer(max_epochs=2, callbacks=[checkpoint]).fit(AutoEncoder((3,), hidden=(4,), latent=1), data)
    assert checkpoint.best_epoch == -1 and checkpoint.chosen.name == "last.ckpt"
    assert any("the last epoch is tested" in notice for notice in data.notices)


def test_contaminated_digits_are_chosen_by_the_sound_ones(trainer) -> None:
    data = ContaminatedDigits(seed=0)
    fit = trainer(max_epochs=3)
    fit.fit(AutoEncoder(data.shape, hidden=(16,), latent=4), data)
    assert (data.splits.val.y > 0).sum() == 54 and (served(data) == 0).all()
    train, val = (float(fit.callback_metrics[f"{stage}/loss"]) for stage in ("train", "val"))
    assert val < 3 * train
