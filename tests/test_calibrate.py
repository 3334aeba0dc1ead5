"""`detector.calibrate`: scores of every fitted detector on the scale of -log p-values."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy import stats

from fitting import fitted, loaded, scores
from given import OVER_DENSITIES
from straylight import config
from straylight.data import AnomalyDataModule
from straylight.detectors import GMM, KNN, Ensemble, FittedDetector
from straylight.detectors.crossed import crossed
from straylight.errors import DataError
from straylight.explain import contributions
from straylight.groups import FOLDER, choices
from straylight.rows.batch import Events, Splits
from straylight.rows.folds import folds_of

OF_ALL = {"multiplicity", "sum_pt", "external", *OVER_DENSITIES}  # which learn nothing, or need another library's name


def build(name: str, *overrides: str) -> FittedDetector:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        cfg = compose("train", overrides=[f"detector={name}", "paths.run=.", *overrides])
    return config.build(cfg, "detector", shape=(3,), context=0)


FITTED = [n for n in choices("detector") if n not in OF_ALL and not n.endswith("_conv") and n != "ensemble"]
FITTED = [n for n in FITTED if isinstance(build(n), FittedDetector)]


class Rows(AnomalyDataModule):
    def __init__(self, train: np.ndarray, weight: np.ndarray | None, group: np.ndarray | None) -> None:
        super().__init__(seed=0, batch_size=64)
        meta = {} if group is None else {"group": group}
        self.train = Events.of(torch.from_numpy(train), [0] * len(train), meta=meta)
        if weight is not None:
            self.train = dataclasses.replace(self.train, weight=torch.from_numpy(weight))

    @property
    def splits(self) -> Splits:
        none = self.train.take([])
        return Splits(self.train, none, none, none)


def cloud(n: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(n, 3))
    rows[:, 1] += rows[:, 0]
    return rows.astype(np.float32)


def trained(detector, train: np.ndarray, weight: np.ndarray | None = None, group: np.ndarray | None = None):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.seed_everything(7, verbose=False)
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, **quiet)
    trainer.fit(detector, datamodule=Rows(train, weight, group))
    torch.set_grad_enabled(True)
    return detector.eval()


@pytest.mark.parametrize("name", FITTED)
@torch.no_grad()
def test_scores_of_new_rows_are_logarithms_of_uniform_p_values_and_rank_as_before(name) -> None:
    train, new = cloud(400, 0), torch.from_numpy(cloud(2000, 1))
    plain, ours = trained(build(name), train), trained(build(name, "detector.calibrate=5"), train)
    raw, told = plain(new).double().numpy(), ours(new).double().numpy()
    own, theirs = (one.score(one.scaling(new), new[:, :0]).numpy() for one in (ours, plain))
    assert np.allclose(own, theirs, rtol=1e-5, atol=1e-6), "it is fitted to the same rows"
    order = np.argsort(raw, kind="stable")
    assert (np.diff(told[order]) >= -1e-6 * (1 + np.abs(told[order][1:]))).all(), "no two rows change their places"
    for share in (0.5, 0.2, 0.1):
        found = (told > -np.log(share)).mean()  # 400 rows say it to within 0.025, 2,000 to within 0.011, at one half
        assert abs(found - share) < 4 * np.sqrt(share * (1 - share) * (1 / 400 + 1 / 2000)) + 0.02, (share, found)


@pytest.mark.parametrize("name", ["knn", "pca", "isolation_forest"])
@torch.no_grad()
def test_a_row_looks_stranger_to_a_fit_that_has_not_seen_it(name) -> None:
    train = cloud(200, 0)
    x, none, ones = torch.from_numpy(train), torch.zeros(200, 0), torch.ones(200)
    found = crossed(build(name, "detector.scaling=none"), x, none, ones, 4).numpy()
    whole = fitted(build(name, "detector.scaling=none"), train)
    assert found.shape == (200,) and (found > scores(whole, train)).mean() > 0.6


def second(train: torch.Tensor, fold: np.ndarray) -> torch.Tensor:
    """Of each row, the distance of its second nearest of the other folds."""
    found = torch.empty(len(train), dtype=torch.float64)
    for i in range(len(train)):
        others = train[fold != fold[i]]
        found[i] = (others - train[i]).double().norm(dim=1).sort().values[1]
    return found


@torch.no_grad()
def test_the_folds_are_the_seeds_and_their_fits_are_of_the_other_rows() -> None:
    train = torch.from_numpy(cloud(30, 0))
    detector = KNN((3,), k=2, distance="kth", scaling="none")
    detector._noise_seed = 11
    found = crossed(detector, train, train[:, :0], torch.ones(30), 3)
    assert torch.allclose(found, second(train, folds_of(30, 3, 11)), rtol=1e-6)
    assert torch.equal(detector.neighbours.memory, torch.empty(0, 4)), "the detector itself stays as it is"


@torch.no_grad()
def test_rows_of_a_group_are_left_out_together() -> None:
    """Of rows that come five times each, one would find itself in another fold."""
    rows, group = np.repeat(cloud(40, 0), 5, 0), np.repeat(np.arange(40), 5)
    apart, together = (trained(KNN((3,), k=1, calibrate=4), rows, None, g) for g in (None, group))
    assert (apart.tail.ordered == 0).any() and (together.tail.ordered > 0).all()
    x = apart.scaling(torch.from_numpy(rows))
    plain = KNN((3,), k=2, distance="kth")
    plain._noise_seed = 3
    found = crossed(plain, x, x[:, :0], torch.ones(200), 4, group)
    assert torch.allclose(found, second(x, folds_of(200, 4, 3, group)), rtol=1e-5)
    with pytest.raises(DataError, match="takes one group of rows or more for each fold, and there are 2"):
        crossed(plain, x, x[:, :0], torch.ones(200), 4, np.arange(200) % 2)


@torch.no_grad()
def test_no_more_rows_are_scored_than_say_what_is_usual(monkeypatch) -> None:
    monkeypatch.setattr("straylight.detectors.crossed.MOST", 50)
    x = torch.from_numpy(cloud(120, 0))
    detector = KNN((3,), k=2, distance="kth", scaling="none")
    detector._noise_seed = 5
    found = crossed(detector, x, x[:, :0], torch.ones(120), 3)
    assert torch.allclose(found, second(x, folds_of(120, 3, 5))[detector.rows_drawn(50, 120)], rtol=1e-6)


@torch.no_grad()
def test_rows_of_weight_zero_say_nothing_of_what_is_usual() -> None:
    train = np.concatenate([cloud(60, 0), 100 + cloud(20, 1)])
    weight = np.r_[np.ones(60), np.zeros(20)].astype(np.float32)
    ours = trained(build("mahalanobis", "detector.calibrate=3"), train, weight)
    assert len(ours.tail.ordered) == 60 and ours.tail.ordered.max() < 100


@torch.no_grad()
def test_a_checkpoint_holds_it() -> None:
    ours = trained(build("knn", "detector.calibrate=3"), cloud(60, 0))
    again = loaded(ours, build("knn", "detector.calibrate=3"))
    assert np.array_equal(scores(again, cloud(30, 1)), scores(ours, cloud(30, 1)))


def test_no_density_is_left() -> None:
    ours = GMM((2,), calibrate=5)
    assert not ours.density and GMM((2,)).density
    with pytest.raises(ValueError, match="no log-density"):
        ours.log_density(torch.zeros(1, 2))


@pytest.mark.parametrize("method", ["exact", "shapley"])
@torch.no_grad()
def test_contributions_sum_to_the_score_on_its_scale(method) -> None:
    ours = trained(build("knn", "detector.calibrate=3"), cloud(100, 0))
    rows = np.concatenate([cloud(10, 1), [[0.0, 0.0, 9.0]]]).astype(np.float32)
    found = contributions(ours, rows, reference=cloud(4, 2), method=method)
    assert np.allclose(found.score, scores(ours, rows)) and found.method == method
    assert np.allclose(found.baseline + found.of.sum(1), found.score, atol=1e-6)
    assert np.abs(found.remainder).max() < 1e-3 and found.of[-1].argmax() == 2


@torch.no_grad()
def test_an_ensemble_of_calibrated_members_takes_their_plain_mean() -> None:
    member = ["detector@detector.member=isolation_forest", "detector.members=3", "detector.member.calibrate=4"]
    ours = trained(build("ensemble", *member), cloud(200, 0))
    assert isinstance(ours, Ensemble)
    new = torch.from_numpy(cloud(50, 1))
    each = torch.stack([one.tail(one.score(ours.scaling(new), new[:, :0])) for one in ours.members])
    assert len({tuple(one.tail.ordered.tolist()) for one in ours.members}) == 3
    assert np.allclose(scores(ours, new), each.mean(0), rtol=1e-5)


def test_too_few_rows_for_the_folds_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"detector\.calibrate=5 takes two training rows or more for each fold, and there are 9"
    ):
        trained(build("hbos", "detector.calibrate=5"), cloud(9, 0))


@pytest.mark.parametrize("value", [0, 1, -3])
def test_fewer_than_two_folds_are_refused(value) -> None:
    with pytest.raises(ValueError, match=r"detector\.calibrate"):
        KNN((2,), calibrate=value)


def test_a_run_is_calibrated_from_the_command_line(straylight_train) -> None:
    ended = straylight_train("detector=knn", "data=moons", "detector.calibrate=5", pictures=False)
    assert ended.status == 0, ended.err
    plain = straylight_train("detector=knn", "data=moons", pictures=False)
    ours, theirs = (run.results[0]["metrics"]["test/auroc"] for run in (ended, plain))
    assert ours == pytest.approx(theirs, abs=2e-3), "counts up to the 95 % quantile have ties, and no other order"


@torch.no_grad()
def test_far_rows_are_told_apart_beyond_the_largest_seen() -> None:
    ours = trained(build("knn", "detector.calibrate=5"), cloud(100, 0))
    near, far, farther = scores(ours, np.array([[0, 0, 0], [30, 0, 0], [90, 0, 0]], np.float32))
    assert near < -np.log(0.3) < far < farther
    assert stats.expon.sf(far) < 1e-3
