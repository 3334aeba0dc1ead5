"""Who is tested by which protocol, how the contamination is dialled, and what is done where nobody knows the labels."""

from __future__ import annotations

import logging
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from given import sentence
from straylight import config
from straylight.callbacks import Ranking
from straylight.data import AnomalyDataModule, Stored
from straylight.data.steps.splits import nominal_only, unsupervised
from straylight.detectors import PCA
from straylight.errors import DataError
from straylight.groups import FOLDER, choices
from straylight.rows.batch import Events, Splits
from straylight.rows.mapped import Mapped

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
NEEDED = {"adbench": ["data.name=6_cardio"]}
few = settings(deadline=None, max_examples=40)


class Rows(AnomalyDataModule):
    """Rows that are given, split by the protocol; in memory or not."""

    def __init__(self, y, mapped=False, group=None, **common):
        super().__init__(**common)
        n = len(y)
        x = torch.arange(2.0 * n).reshape(n, 2)
        meta = {"row": np.arange(n)} | ({} if group is None else {"group": np.asarray(group)})
        self.rows = Events.of(Mapped([x[: n // 2], x[n // 2 :]]) if mapped else x, y, meta=meta)

    def load(self) -> Splits:
        return self.split(self.rows)


def ids(part):
    """The rows' numbers, once it is certain that they and their features came along together."""
    number = part.meta["row"].tolist()
    assert part.x[:].tolist() == [[2.0 * i, 2.0 * i + 1] for i in number]
    return number


def labels(nominal, anomalous, seed=0):
    return np.random.default_rng(seed).permutation(np.r_[np.zeros(nominal, int), np.ones(anomalous, int)])


kinds_of_rows = pytest.mark.parametrize(
    "where", [{}, {"mapped": True}, {"mapped": True, "memory_mb": 0}], ids=["in memory", "read", "on disk"]
)


# unsupervised


@few
@given(st.integers(0, 50))
def test_without_supervision_all_rows_train_and_are_tested(n):
    train, val, test, reserve = map(np.ndarray.tolist, unsupervised(n))
    assert train == test == list(range(n)) and val == reserve == []


@kinds_of_rows
def test_without_supervision_a_data_set_trains_on_all_rows_and_is_tested_on_the_same(where):
    y = labels(50, 7)
    splits = Rows(y, protocol="unsupervised", **where).splits
    assert ids(splits.train) == ids(splits.test) == list(range(57))
    assert splits.train.y.tolist() == splits.test.y.tolist() == y.tolist()
    assert not len(splits.val) and not len(splits.reserve)
    assert isinstance(splits.train.x, Mapped) == (where.get("memory_mb") == 0)


@kinds_of_rows
@pytest.mark.parametrize(("fraction", "strange"), [(None, 7), (0.0, 0), (0.1, 6), (0.02, 1)])
def test_without_supervision_the_dial_takes_anomalies_out_of_training_alone(where, fraction, strange):
    y = labels(50, 7)
    splits = Rows(y, protocol="unsupervised", contamination=fraction, **where).splits
    assert ids(splits.test) == list(range(57)) and splits.test.y.tolist() == y.tolist()
    trained = ids(splits.train)
    assert set(np.flatnonzero(y == 0)) <= set(trained) and len(set(trained)) == len(trained) == 50 + strange
    assert int((splits.train.y > 0).sum()) == strange
    assert splits.train.y.tolist() == y[trained].tolist()


def test_without_supervision_more_anomalies_than_there_are_is_refused():
    with pytest.raises(DataError, match=r"takes 50 anomalies, but only 7") as error:
        Rows(labels(50, 7), protocol="unsupervised", contamination=0.5).setup()
    sentence(error)


def test_without_supervision_no_overlap_is_reported_and_none_dropped(caplog):
    for overlap in ("report", "drop"):
        data = Rows(labels(50, 7), protocol="unsupervised", overlap=overlap)
        data.setup()
        assert data.notices == [] and data.shared_rows is None and len(data.splits.test) == 57
    assert not caplog.records


def test_without_supervision_there_is_no_validation_and_training_goes_through(trainer):
    data = Rows(labels(50, 7), protocol="unsupervised")
    assert data.val_dataloader() == data.calibration_dataloader() == []
    ranking = Ranking()
    running = trainer(max_epochs=1, callbacks=[ranking])
    detector = PCA((2,))
    running.fit(detector, datamodule=data)
    running.test(detector, datamodule=data, verbose=False)
    assert 0 <= ranking.metrics["test/auroc"] <= 1


class Given(AnomalyDataModule):
    """Splits of its own, as MNIST's."""

    def load(self) -> Splits:
        test = Events.of(torch.rand(4, 2), [0, 1, 0, 1])
        return Splits(Events.of(torch.rand(10, 2)), Events.of(torch.rand(3, 2)), test, test.take([]))


def test_a_data_set_with_splits_of_its_own_knows_one_protocol_only():
    assert len(Given().splits.train) == 10
    with pytest.raises(DataError) as error:
        Given(protocol="unsupervised").setup()
    assert "given comes with splits of its own; data.protocol=unsupervised is not for it" in sentence(error)


def test_groups_do_not_matter_without_supervision():
    splits = Rows(labels(50, 7), protocol="unsupervised", group=np.arange(57) // 3).splits
    assert ids(splits.train) == ids(splits.test) == list(range(57))


@kinds_of_rows
def test_a_data_set_keeps_rows_of_a_group_on_one_side_and_so_do_its_halves_of_validation(where):
    data = Rows(labels(300, 20), group=np.arange(320) // 3, val_fraction=0.4, reserve_fraction=0.5, **where)
    train, val, test, reserve = ({i // 3 for i in ids(part)} for part in data.splits)
    assert not train & val and not train & test and not val & test and not reserve & (val | test)
    selects, calibrates = (
        {i // 3 for i in ids(half().events)} for half in (data.val_dataloader, data.calibration_dataloader)
    )
    assert selects | calibrates == val and not selects & calibrates and len(selects) - len(calibrates) in (0, 1)


# every data set by name: the dial

SMALL = {"adc2021": ["data.max_events=2000"], "gaussians": ["data.fraction=0.05"]}  # or with anomalies enough
NO_FILE_NAMED = {"file"}


def splits_of(name, contamination):
    """A data set of `conf/data`, half of its anomalies in reserve."""
    if "paths.data" in (FOLDER / "data" / f"{name}.yaml").read_text() and not SHARED.is_dir():
        pytest.skip(f"data={name} reads files, and there is no folder ../shared/data beside the checkout")
    more = [*NEEDED.get(name, []), *SMALL.get(name, [])]
    fixed = [f"data={name}", f"paths.data={SHARED}", "paths.run=.", "data.reserve_fraction=0.5"]
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        cfg = hydra.compose("train", overrides=[*fixed, *more, f"data.contamination={contamination}"])
    data = config.build(cfg, "data")
    if isinstance(data, Stored) and data.missing():
        pytest.skip(f"data={name} reads files that are not in ../shared/data")
    data.setup()
    return data.splits


def identical(a, b):
    columns = zip((a.x[:], a.y, a.context, a.weight), (b.x[:], b.y, b.context, b.weight), strict=True)
    return len(a) == len(b) and all(torch.equal(one, other) for one, other in columns)


@pytest.mark.parametrize("name", [name for name in choices("data") if name not in NO_FILE_NAMED])
def test_the_test_split_of_a_data_set_is_the_same_for_every_contamination(name):
    found = {fraction: splits_of(name, fraction) for fraction in ("null", 0, 0.01)}
    as_found = found["null"]
    assert len(as_found.reserve) and (as_found.reserve.y > 0).all()
    for splits in found.values():
        assert identical(splits.test, as_found.test) and identical(splits.val, as_found.val)
        assert identical(splits.reserve, as_found.reserve)
    nominal = int((as_found.train.y == 0).sum())
    for fraction in (0, 0.01):
        y = found[fraction].train.y
        assert int((y == 0).sum()) == nominal
        assert int((y > 0).sum()) == round(fraction / (1 - fraction) * nominal)
    if not (as_found.train.y > 0).any():
        assert identical(found[0].train, as_found.train)


# labels that nobody knows


@few
@given(st.integers(0, 60), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_rows_of_which_nobody_knows_are_dealt_out_like_nominal_ones(n, train, val, reserve):
    fractions = {"seed": 3, "train": train, "val": val, "reserve": reserve}
    unknown, nominal = nominal_only(np.full(n, -1), **fractions), nominal_only(np.zeros(n, int), **fractions)
    assert all((a == b).all() for a, b in zip(unknown, nominal, strict=True))
    assert not len(unknown.reserve)


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.float32])
@pytest.mark.parametrize("protocol", ["nominal_only", "unsupervised"])
def test_a_data_set_without_labels_is_set_up(dtype, protocol):
    data = Rows(np.full(60, -1, dtype), protocol=protocol)
    data.setup()
    assert all((part.y == -1).all() for part in data.splits)
    assert len(data.splits.train) and len(data.splits.test)
    assert {y for batch in data.test_dataloader() for y in batch.y.tolist()} == {-1}


@pytest.mark.parametrize("fraction", [0, 0.0, 0.1])
@pytest.mark.parametrize("protocol", ["nominal_only", "unsupervised"])
def test_without_labels_the_dial_is_refused(fraction, protocol):
    with pytest.raises(DataError) as error:
        Rows(np.full(60, -1), contamination=fraction, protocol=protocol).setup()
    assert f"data.contamination={fraction} needs labels, and there are none" in sentence(error)


@pytest.mark.parametrize("y", [[-1, 0, 0], [0, -1, 1], [-1, 1, 1], [-2, -2, -2], [-1, -1, -2]], ids=str)
@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.float64])
def test_labels_of_which_some_are_unknown_are_refused(y, dtype):
    with pytest.raises(DataError) as error:
        Events.of(torch.rand(3, 2), np.array(y, dtype))
    assert "all of them unknown" in sentence(error)


def test_rows_without_labels_are_scored_and_not_ranked(trainer, caplog):
    data, ranking = Rows(np.full(60, -1)), Ranking()
    running = trainer(max_epochs=1, callbacks=[ranking])
    detector = PCA((2,))
    running.fit(detector, datamodule=data)
    with caplog.at_level(logging.WARNING, "straylight"):
        running.test(detector, datamodule=data, verbose=False)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["The test rows have no labels: they are scored, and AUROC, AP and TPR are left out."]
    assert ranking.metrics == ranking.result()["metrics"] == ranking.result()["intervals"] == {}
    scored = running.predict(detector, datamodule=data)
    assert sum(len(part.score) for part in scored) == len(data.splits.test)
    assert all(part.score.isfinite().all() for part in scored)
