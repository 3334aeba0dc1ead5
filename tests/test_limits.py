"""The Trainer's options count mini-batches, as they do anywhere else; what is drawn of a split is a fair sample."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from given import Keep, Rows, drawn, equal
from straylight.data import Blobs
from straylight.detectors import AutoEncoder
from straylight.errors import ConfigError
from straylight.rows.batch import Events, Group
from straylight.rows.loaders import BatchLoader, GroupLoader

SIZE = 32


class Plain(pl.LightningModule):
    """Lightning's users' own, of which nothing is ours."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.layer(batch[0]).square().mean())

    def test_step(self, batch, batch_idx):
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Counts(pl.Callback):
    """What is trained on, validated and tested."""

    def __init__(self) -> None:
        self.groups = self.trained = self.validations = self.validated = self.tested = 0

    def seen(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("trained", "validations", "validated", "tested")}

    @staticmethod
    def rows(batch) -> int:
        return sum(batch.sizes) if isinstance(batch, Group) else len(batch[0])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.trained += self.rows(batch)
        self.groups += 1

    def on_validation_epoch_start(self, trainer, module) -> None:
        self.validations += 1

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.validated += self.rows(batch)

    def on_test_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.tested += self.rows(batch)


def counted(fit: pl.Trainer, counts: Counts, module: pl.LightningModule, data: pl.LightningDataModule) -> dict:
    torch.manual_seed(0)
    fit.fit(module, datamodule=data)
    fit.test(module, datamodule=data, verbose=False)
    return {"steps": fit.global_step, "epochs": fit.current_epoch, **counts.seen()}


class Loaders(pl.LightningDataModule):
    """Rows as many as those of a data set of ours."""

    def __init__(self, train: int, val: int, test: int) -> None:
        super().__init__()
        self.train_dataloader, self.val_dataloader, self.test_dataloader = (
            lambda n=n: DataLoader(TensorDataset(torch.zeros(n, 2)), batch_size=SIZE) for n in (train, val, test)
        )


OPTIONS = [
    {},
    {"limit_train_batches": 1},
    {"limit_train_batches": 1.0},
    {"limit_train_batches": 4},
    {"limit_train_batches": 0.5},
    {"limit_train_batches": 100},
    {"overfit_batches": 1},
    {"overfit_batches": 3},
    {"overfit_batches": 0.4},
    {"fast_dev_run": True},
    {"fast_dev_run": 3},
    {"max_steps": 1},
    {"max_steps": 20},
    {"max_steps": 20, "limit_train_batches": 4},
    {"min_steps": 40},
    {"val_check_interval": 1},
    {"val_check_interval": 4},
    {"val_check_interval": 0.25},
    {"val_check_interval": 1.0},
    {"val_check_interval": 20, "check_val_every_n_epoch": None},
    {"val_check_interval": 2, "limit_train_batches": 5},
    {"val_check_interval": "00:01:00:00"},
    {"check_val_every_n_epoch": 2},
    {"limit_val_batches": 0},
    {"limit_val_batches": 1},
    {"limit_val_batches": 1.0},
    {"limit_val_batches": 0.5},
    {"limit_val_batches": 100},
    {"limit_test_batches": 1},
    {"limit_test_batches": 1.0},
    {"limit_test_batches": 7},
    {"limit_test_batches": 0.3},
    {"limit_test_batches": 100},
    {"limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 3},
    {"num_sanity_val_steps": 1, "limit_val_batches": 1},
    {"log_every_n_steps": 5},
    {"reload_dataloaders_every_n_epochs": 1, "limit_train_batches": 4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(f"{k}={v!r}" for k, v in options.items()))
@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval", "ignore:.*disabling.*")
def test_an_option_counts_what_it_counts_in_plain_lightning(options, trainer) -> None:
    data = Blobs(batch_size=SIZE, val_fraction=0.3)
    sizes = len(data.splits.train), len(data._val_halves[0]), len(data.splits.test)
    assert all(n > 2 * SIZE for n in sizes)
    found = []
    for module, served in ((Plain(), Loaders(*sizes)), (AutoEncoder((2,), hidden=[4], latent=1), data)):
        counts = Counts()
        fit = trainer(**{"max_epochs": 3, "log_every_n_steps": 1, **options}, callbacks=[counts])
        found.append(counted(fit, counts, module, served))
    if "max_steps" in options:  # where it ends in mid-group, the group's rows are counted, and validation follows
        for one in found:
            del one["trained"], one["validations"], one["validated"]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"limit_val_batches": 1},
        {"limit_test_batches": 0.5},
        {"max_steps": 20},
        {"val_check_interval": "00:01:00:00"},
    ],
)
def test_what_counts_no_mini_batch_of_training_leaves_them_in_groups(options, trainer) -> None:
    counts = Counts()
    data = Blobs(batch_size=SIZE)
    trainer(max_epochs=2, callbacks=[counts], **options).fit(AutoEncoder((2,)), datamodule=data)
    assert counts.groups == 2


@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
def test_a_callback_that_counts_steps_has_them_one_by_one(trainer, tmp_path) -> None:
    saved = pl.callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
    trainer(max_epochs=2, callbacks=[saved]).fit(AutoEncoder((2,)), datamodule=Rows(drawn(160, 2), batch_size=16))
    assert sorted(path.stem for path in tmp_path.iterdir()) == [f"step={n}" for n in (12, 16, 20, 4, 8)]


@pytest.mark.parametrize("options", [{"limit_train_batches": 7}, {"limit_train_batches": 0.5}])
def test_a_limit_takes_other_mini_batches_in_every_epoch_and_the_weights_of_as_many(options, trainer) -> None:
    seen: list[torch.Tensor] = []
    listen = pl.callbacks.LambdaCallback(on_train_batch_end=lambda t, m, o, batch, i: seen.append(batch.index))
    trainer(max_epochs=2, callbacks=[listen], **options).fit(AutoEncoder((2,)), datamodule=Blobs(batch_size=SIZE))
    first, second = torch.cat(seen[:7]), torch.cat(seen[7:])
    assert len(seen) == 14 and set(first.tolist()) != set(second.tolist())
    assert len(set(first.tolist())) == len(first)


def test_overfitting_sees_the_same_mini_batches_in_every_epoch(trainer) -> None:
    seen: list[list[int]] = []
    listen = pl.callbacks.LambdaCallback(on_train_batch_end=lambda t, m, o, batch, i: seen.append(batch.index.tolist()))
    fit = trainer(max_epochs=3, callbacks=[listen], overfit_batches=2)
    fit.fit(AutoEncoder((2,)), datamodule=Blobs(batch_size=SIZE))
    assert seen == seen[:2] * 3 and seen[0] != seen[1]


@pytest.mark.parametrize("limit", [4, 0.5])
@pytest.mark.parametrize("overfit", [False, True])
def test_a_limited_training_is_resumed_exactly(limit, overfit, trainer, tmp_path) -> None:
    option = {"overfit_batches" if overfit else "limit_train_batches": limit}

    def trained(epochs: int, start=None) -> dict:
        torch.manual_seed(0)
        detector = AutoEncoder((2,), hidden=[4], latent=1)
        fit = trainer(max_epochs=epochs, **option)
        fit.fit(detector, datamodule=Blobs(batch_size=SIZE, val_fraction=0.3), ckpt_path=start, weights_only=True)
        fit.save_checkpoint(tmp_path / "end.ckpt")
        return detector.state_dict()

    whole = trained(4)
    trained(2)
    assert equal(trained(4, tmp_path / "end.ckpt"), whole)


def test_an_epoch_begun_one_by_one_is_not_ended_in_groups() -> None:
    loader = GroupLoader(Events.of(torch.zeros(100, 2)), batch_size=10, group=1)
    part = iter(loader)
    next(part)
    state = loader.state_dict()
    other = GroupLoader(Events.of(torch.zeros(100, 2)), batch_size=10, group=4)
    with pytest.raises(ConfigError, match=r"by single mini-batches cannot be ended by groups of 4 mini-batches"):
        other.load_state_dict(state)
    other.load_state_dict({"done": 0, "group": 1})  # between two epochs it may change
    other.load_state_dict({"done": 1})  # as earlier versions wrote it


def test_the_axis_of_what_is_logged_counts_mini_batches(trainer, tmp_path) -> None:
    logger = pl.loggers.CSVLogger(tmp_path, name="", version="")
    trainer(max_epochs=2, logger=logger, log_every_n_steps=1).fit(AutoEncoder((2,)), datamodule=Blobs(batch_size=SIZE))
    head, *lines = (tmp_path / "metrics.csv").read_text().splitlines()
    steps = {int(line.split(",")[head.split(",").index("step")]) for line in lines}
    assert steps == {15, 30}  # those that are done, as in training, validation and test


# the test


def scores(run) -> dict[str, np.ndarray]:
    table = pq.read_table(run / "scores.parquet")
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


@pytest.mark.parametrize(
    ("limit", "rows"), [("limit_test_batches=0.5", 288), ("limit_test_batches=4", 128), ("fast_dev_run=3", 96)]
)
def test_a_part_of_the_test_rows_is_drawn_of_both_classes_and_named(limit, rows, straylight_train) -> None:
    ended = straylight_train("data=blobs", "detector=autoencoder", "data.batch_size=32", f"+trainer.{limit}", epochs=1)
    assert ended.status == 0, ended.err
    table, option = scores(ended.run), limit.partition("=")[0]
    assert (
        len(table["index"]) == rows and len(set(table["index"])) == rows and list(table["index"]) != list(range(rows))
    )
    assert (table["y"] > 0).any() and (table["y"] == 0).any()
    (said,) = (notice for notice in ended.result["notices"] if "drawn by seed" in notice)
    assert f"{rows} of 550 test rows" in said and option in said and said in ended.out
    whole = Blobs(seed=0).splits.test.y.numpy()[table["index"]]
    assert table["y"].tolist() == whole.tolist()  # rows keep their numbers


@pytest.mark.parametrize("detector", ["knn", "vae", "ensemble"])
def test_a_whole_test_says_nothing_of_a_part(detector, straylight_train) -> None:
    ended = straylight_train(f"detector={detector}", "data=blobs", "+trainer.limit_test_batches=1.0", epochs=1)
    assert ended.status == 0 and not any("drawn" in notice for notice in ended.result["notices"])


def test_a_part_of_one_class_says_so_in_a_sentence(straylight_train) -> None:
    rare = ["data=blobs", "detector=knn", "data.batch_size=1", "+trainer.limit_test_batches=1"]
    ended = straylight_train(*rare, epochs=1)
    assert ended.status == 0, ended.err
    said = [notice for notice in ended.result["notices"] if "nothing is ranked" in notice]
    assert len(said) == 1 and "None of the 1 rows" in said[0] and said[0] in ended.out
    assert "test/auroc" not in ended.result["metrics"]


@pytest.mark.parametrize("limit", [3, 0.4])
def test_what_is_drawn_follows_the_seed_and_is_a_fair_sample(limit, trainer) -> None:
    def tested(seed: int) -> np.ndarray:
        keep, data = Keep(), Blobs(batch_size=SIZE, seed=0)
        data.splits  # noqa: B018  the same rows
        data.seed = seed
        trainer(callbacks=[keep], limit_test_batches=limit).test(
            AutoEncoder((2,), scaling="none"), datamodule=data, verbose=False
        )
        return keep.scores.index

    first, again, *others = (tested(seed) for seed in (0, 0, *range(1, 12)))
    assert np.array_equal(first, again) and not np.array_equal(first, others[0])
    drawn_rows = np.concatenate([first, *others])
    middle, error = 549 / 2, 550 / np.sqrt(12 * len(drawn_rows))
    assert abs(drawn_rows.mean() - middle) < 4 * error  # the head of the split would lie far below


@pytest.mark.parametrize(("n", "batch_size", "world"), [(10, 4, 1), (10, 3, 2), (7, 7, 3), (2, 4, 3)])
def test_rows_in_a_random_order_are_all_there_once_with_what_belongs_to_them(n, batch_size, world) -> None:
    events = Events.of(drawn(n, 2), torch.arange(n) % 3, drawn(n, 1), torch.rand(n) + 0.1)
    seen = [
        batch
        for rank in range(world)
        for batch in BatchLoader(events, batch_size=batch_size, seed=5, rank=rank, world=world)
    ]
    index = torch.cat([batch.index for batch in seen])
    assert set(index.tolist()) == set(range(n))
    for batch in seen:
        for name in ("x", "y", "context", "weight"):
            assert torch.equal(getattr(batch, name), getattr(events, name)[batch.index])
    plain = BatchLoader(Events.of(events.x), batch_size=batch_size, seed=5)
    assert all(batch.even for batch in plain)


@pytest.mark.parametrize("interval", [16, 1000])
def test_a_validation_after_more_mini_batches_than_an_epoch_has_is_one_sentence(interval, straylight_train) -> None:
    ended = straylight_train("data=blobs", "data.batch_size=32", f"+trainer.val_check_interval={interval}")
    (said,) = (line for line in ended.err.splitlines() if line)
    assert ended.status == 1 and f"val_check_interval={interval}" in said and "15 of an epoch" in said
    assert "check_val_every_n_epoch=null" in said
