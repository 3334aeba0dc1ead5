"""Nothing of the test rows is in anything before the test: replaced by rubbish, they leave training as it was."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from pytorch_lightning.loggers.logger import Logger

from straylight import config
from straylight.callbacks import Checkpoint, EarlyStopping
from straylight.data import Stored
from straylight.detectors import PCA, AutoEncoder
from straylight.groups import FOLDER, choices
from straylight.rows.batch import Splits

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
DETECTORS = {
    "autoencoder": ["detector.hidden=[8]", "detector.latent=2"],
    "maf": ["detector.layers=2", "detector.hidden=8"],
    "pca": [],
    "isolation_forest": ["detector.n_estimators=5"],
}
ALL = ("blobs", "file", "adbench", "lhco")  # data sets that all of them are trained on
FEW = {  # rows, so that all of it takes seconds
    "adbench": ["data.name=6_cardio"],
    "adc2021": ["data.max_events=1000"],
    "bump": ["data.events=2000", "data.test_background=1000", "data.test_signal=200"],
    "gaussians": ["data.events=2000", "data.fraction=0.05"],
    "gaussians_1d": ["data.events=2000", "data.fraction=0.05"],
    "mnist": ["data.batch_size=512"],
    "fashion_mnist": ["data.batch_size=512"],
    "mnist_contaminated": ["data.aside=0.98", "data.test_fraction=0.98"],
    "moons": ["data.events=1000"],
    "rings": ["data.events=1000"],
    "sinusoidal": ["data.events=1000"],
    "sphere": ["data.events=1000"],
    "lhco": ["data.batch_size=8192"],
    "kddcup99": ["data.batch_size=2048"],
}


def written(folder):
    """A table of one's own: numbers of which some are missing, and text."""
    rng = np.random.default_rng(0)
    lines = ["a,b,c,kind,row"]
    for i in range(400):
        b = "" if rng.random() < 0.1 else f"{rng.normal():.4f}"
        lines.append(f"{rng.normal() + 5 * (i > 380):.4f},{b},{rng.choice(['x', 'y', 'z'])},{int(i > 380)},{i}")
    path = folder / "own.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


class Setting:
    """A data set whose rows are read once and served as they are or poisoned, and how a detector is made for it."""

    def __init__(self, name, folder, *more):
        text = (FOLDER / "data" / f"{name}.yaml").read_text()
        if "paths.data" in text and not SHARED.is_dir():
            pytest.skip(f"data={name} reads files, and there is no folder ../shared/data beside the checkout")
        own = (
            [f"data.path={written(folder)}", "data.label=kind", "data.meta=[row]", "data.missing=indicator"]
            if name == "file"
            else []
        )
        self.common = [f"data={name}", *own, *FEW.get(name, []), f"paths.data={SHARED}", "paths.run=.", *more]
        data = self.data()
        if isinstance(data, Stored) and data.missing():
            pytest.skip(f"data={name} reads files that are not in ../shared/data")
        self.found = data.load()

    def _cfg(self, *more):
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
            return hydra.compose("train", overrides=[*self.common, *more])

    def data(self, splits=None):
        data = config.build(self._cfg(), "data")
        if splits is not None:
            data.load = lambda: splits
        return data

    def detector(self, name, data):
        cfg = self._cfg(f"detector={name}", *DETECTORS[name])
        torch.manual_seed(0)
        optimizer = config.build(cfg, "optimizer")
        return config.build(cfg, "detector", shape=data.shape, context=data.context, optimizer=optimizer)


def poisoned(splits: Splits, seed=0) -> Splits:
    """The same splits, of whose test only the number of rows and of each label is left."""
    rng, test = torch.Generator().manual_seed(seed), splits.test

    def rubbish(column):
        return torch.randn(column.shape, generator=rng) * 1e30

    return splits._replace(
        test=replace(
            test,
            x=rubbish(test.x),
            y=test.y[torch.randperm(len(test), generator=rng)],
            context=rubbish(test.context),
            weight=rubbish(test.weight).abs(),
        )
    )


class Logged(Logger):
    """Keeps what was logged: each loss after each epoch."""

    name = version = "memory"

    def __init__(self):
        super().__init__()
        self.seen = []

    def log_metrics(self, metrics, step=None):
        self.seen.append((step, dict(metrics)))

    def log_hyperparams(self, *arguments, **more):
        pass

    @property
    def losses(self):
        return {name: [m[name] for _, m in self.seen if name in m] for name in ("train/loss", "val/loss")}


def trained(detector, data, trainer, folder, epochs=2):
    """All that there is when training is over and nothing has been tested."""
    checkpoint, logged = Checkpoint(folder), Logged()
    callbacks = [checkpoint]
    if detector.selects:
        callbacks.append(EarlyStopping(monitor="val/loss", patience=1))
    running = trainer(max_epochs=epochs, callbacks=callbacks, logger=logged, log_every_n_steps=1)
    torch.manual_seed(1)
    running.fit(detector, datamodule=data)
    detector.eval()
    batch = next(iter(data.calibration_dataloader()))
    return {
        "weights": copy.deepcopy(detector.state_dict()),
        "scores": detector(batch.x, batch.context).detach(),
        "scaling": copy.deepcopy(detector.scaling.state_dict()),
        "logged": logged.seen,
        "losses": logged.losses,
        "chosen": (checkpoint.chosen.name, checkpoint.best, checkpoint.best_epoch),
        "ended": (running.current_epoch, running.global_step, detector.selects and float(callbacks[-1].best_score)),
        "to test with": torch.load(checkpoint.chosen, weights_only=True)["state_dict"],
        "training": list(data.training_rows()),
        "validation": [tuple(batch) for batch in data.val_dataloader()],
        "calibration": [tuple(batch) for batch in data.calibration_dataloader()],
    }


def differences(a, b, where=""):
    """Where two of such differ by a single bit."""
    if isinstance(a, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        return [] if same else [where]
    if isinstance(a, dict):
        assert set(a) == set(b)
        return [found for key in a for found in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list | tuple):
        assert len(a) == len(b)
        return [found for i in range(len(a)) for found in differences(a[i], b[i], f"{where}/{i}")]
    return [] if a == b or (a != a and b != b) else [where]


def both(setting, name, trainer, folder, poison=poisoned):
    sound, rubbish = setting.data(setting.found), setting.data(poison(setting.found))
    runs = [
        trained(setting.detector(name, data), data, trainer, folder / str(i)) for i, data in enumerate((sound, rubbish))
    ]
    return sound, rubbish, runs


@pytest.mark.parametrize("name", choices("data"))
def test_poisoned_test_rows_change_nothing_before_the_test(name, trainer, tmp_path):
    setting = Setting(name, tmp_path)
    few = ["autoencoder"] if setting.found.train.x[:1].numel() > 100 else ["autoencoder", "pca"]
    for chosen in DETECTORS if name in ALL else few:
        sound, rubbish, (one, other) = both(setting, chosen, trainer, tmp_path / chosen)
        assert float(rubbish.splits.test.x.abs().max()) > 1e29 > float(sound.splits.test.x.abs().max())
        assert not differences(one, other)
        assert one["weights"] and one["training"] and len(one["calibration"][0][0])
        if chosen in ("autoencoder", "maf"):
            assert len(one["losses"]["train/loss"]) == len(one["losses"]["val/loss"]) == 2 and one["chosen"][2] >= 0


@pytest.mark.parametrize("more", [["data.overlap=drop"], ["data.missing=median"], ["data.contamination=0.01"]], ids=str)
def test_poisoned_test_rows_change_nothing_however_rows_are_prepared(more, trainer, tmp_path):
    setting = Setting("blobs", tmp_path, "data.reserve_fraction=0.5", *more)
    *_, runs = both(setting, "autoencoder", trainer, tmp_path)
    assert not differences(*runs)


def test_poisoned_cells_of_a_file_change_no_training_row_and_no_column(tmp_path):
    setting = Setting("file", tmp_path)
    path = tmp_path / "own.csv"
    lines = path.read_text().splitlines()
    sound = setting.data()
    sound.setup()
    tested = set(sound.splits.test.meta["row"].astype(int).tolist())
    for row in tested:
        kind = lines[row + 1].split(",")[3]
        lines[row + 1] = f"{(-1) ** row * 1e30},{1e25 if row % 2 else ''},unseen {row % 7},{kind},{row}"
    path.write_text("\n".join(lines) + "\n")
    rubbish = setting.data()
    rubbish.setup()
    assert rubbish.shape == sound.shape and list(rubbish.columns) == list(sound.columns)
    assert rubbish.recipe() == sound.recipe()
    for part in ("train", "val", "reserve"):
        a, b = getattr(sound.splits, part), getattr(rubbish.splits, part)
        assert torch.equal(a.x[:], b.x[:]) and a.meta["row"].tolist() == b.meta["row"].tolist()
    assert float(rubbish.splits.test.x[:].abs().max()) > 1e29


# what would be seen


def test_the_poison_would_show_in_a_detector_that_looks_at_test_rows(trainer, tmp_path):
    class Leaky(AutoEncoder):
        def on_fit_start(self):
            self.scaling.fit([self.trainer.datamodule.splits.test.x])
            super().on_fit_start()

    setting = Setting("blobs", tmp_path)
    setting.detector = lambda name, data: torch.manual_seed(0) and Leaky(data.shape, hidden=[4], latent=1)
    *_, runs = both(setting, "leaky", trainer, tmp_path)
    found = differences(*runs)
    assert any(where.startswith("/scaling") for where in found) and any(w.startswith("/losses") for w in found)


def test_the_poison_would_show_in_training_and_in_validation_rows(trainer, tmp_path):
    setting = Setting("blobs", tmp_path)

    def spoiled(part):
        def poison(splits):
            events = getattr(splits, part)
            return splits._replace(**{part: replace(events, x=events.x * 1.001)})

        return poison

    *_, runs = both(setting, "autoencoder", trainer, tmp_path / "train", poison=spoiled("train"))
    assert any(where.startswith("/weights") for where in differences(*runs))
    *_, runs = both(setting, "autoencoder", trainer, tmp_path / "val", poison=spoiled("val"))
    found = differences(*runs)
    assert any(w.startswith("/calibration") for w in found) and any("val/loss" in w for w in found)
    assert not any(w.startswith(("/weights", "/scaling")) for w in found)


def test_the_test_itself_sees_the_poison(trainer, tmp_path):
    setting = Setting("blobs", tmp_path)
    scores = []
    for splits in (setting.found, poisoned(setting.found)):
        data = setting.data(splits)
        detector, running = PCA(data.shape), trainer(max_epochs=1)
        running.fit(detector, datamodule=data)
        scores.append(torch.cat([part.score for part in running.predict(detector, datamodule=data)]))
    assert (scores[0] != scores[1]).all()
