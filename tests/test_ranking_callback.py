"""The ranking of a test, with event weights, while training, and in the tutorial's results file."""

import h5py
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from given import Keep
from straylight.callbacks import EarlyStopping, Ranking, ResultsHDF5
from straylight.callbacks.ranking import tell_equal
from straylight.data import AnomalyDataModule
from straylight.detectors import KNN, AutoEncoder
from straylight.errors import ConfigError, StraylightError
from straylight.rows.batch import Events, Splits


class Planted(AnomalyDataModule):
    """Three kinds around the origin, at growing distances; event weights if asked for."""

    kinds = ("nominal", "near", "far/off")

    def __init__(self, weighted=False, labelled=True, **common):
        super().__init__(**{"batch_size": 64, "eval_batch_size": 50, "val_fraction": 0.2} | common)
        self.weighted, self.labelled = weighted, labelled

    def load(self):
        draw = torch.Generator().manual_seed(self.seed)
        y = torch.tensor([0] * 600 + [1] * 40 + [2] * 30)
        x = torch.randn(len(y), 4, generator=draw) + torch.tensor([0.0, 1.5, 4.0])[y][:, None]
        weight = torch.rand(len(y), generator=draw) + 0.1 if self.weighted else None
        splits = self.split(Events.of(x, y, weight=weight))
        if not self.labelled:
            test = splits.test
            return Splits(*splits[:2], Events.of(test.x, torch.full((len(test),), -1)), splits.reserve)
        return splits


def run(trainer, *callbacks, epochs=3, detector=None, **options):
    torch.manual_seed(0)
    data, keep = Planted(**options), Keep()
    detector = detector or AutoEncoder((4,), latent=2)
    fit = trainer(max_epochs=epochs, callbacks=[*callbacks, keep])
    fit.fit(detector, datamodule=data)
    fit.test(detector, datamodule=data, verbose=False)
    return data, detector, keep.scores, fit


@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_recorded_equals_scikit_learns_with_the_events_weights(trainer, weighted):
    ranking = Ranking(fprs=(0.1, 1e-3))
    data, _, scores, _ = run(trainer, ranking, weighted=weighted)
    weight = data.splits.test.weight.numpy()[scores.index]
    assert (np.ptp(weight) > 0.5) == weighted
    recorded = ranking.result()
    for name, chosen in (("", scores.y >= 0), ("/near", scores.y != 2), ("/far/off", scores.y != 1)):
        y, score, w = scores.y[chosen] > 0, scores.score[chosen], weight[chosen]
        assert recorded["metrics"][f"test/auroc{name}"] == pytest.approx(roc_auc_score(y, score, sample_weight=w))
        ap = average_precision_score(y, score, sample_weight=w)
        assert recorded["metrics"][f"test/ap{name}"] == pytest.approx(ap)
        low, high = recorded["intervals"][f"test/auroc{name}"]
        assert 0 <= low < recorded["metrics"][f"test/auroc{name}"] <= high <= 1
    assert recorded["nominal_needed"]["0.001"] == 10_000 and "0.1" not in recorded["nominal_needed"]


def test_where_labels_are_unknown_nothing_is_measured(trainer):
    ranking = Ranking(every_n_epochs=1)
    run(trainer, ranking, labelled=False)
    assert ranking.metrics == {} and ranking.intervals == {} and ranking.by_epoch == {}


def test_nan_scores_are_named_with_their_kind(trainer):
    class Broken(AutoEncoder):
        def score(self, x, context):
            score = super().score(x, context)
            return torch.where(score > 20, torch.nan, score) if not self.training else score

    with pytest.raises(StraylightError, match=r"Broken cannot be ranked: \d+ of 30 .*far/off"):
        run(trainer, Ranking(), detector=Broken((4,), latent=1, scaling="none"))


# while training


def test_ranking_while_training_changes_neither_weights_nor_scores(trainer):
    _, watched, scores, _ = run(trainer, ranking := Ranking(every_n_epochs=1))
    _, alone, same, _ = run(trainer)
    assert np.array_equal(scores.score, same.score)
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True))
    assert sorted(ranking.by_epoch) == [1, 2, 3]


def test_the_last_epochs_ranking_is_the_tests_and_an_earlier_one_is_a_shorter_trainings(trainer):
    run(trainer, ranking := Ranking(every_n_epochs=2), epochs=5)
    entries = ranking.result()["by_epoch"]
    assert [entry["epoch"] for entry in entries] == [2, 4, 5]
    assert entries[-1]["auroc"] == ranking.metrics["test/auroc"]
    run(trainer, shorter := Ranking(), epochs=2)
    for name in ("auroc", "ap", "auroc/near", "tpr@fpr=0.1"):
        assert entries[0][name] == shorter.metrics[f"test/{name}"]


def test_a_test_of_the_best_checkpoint_forgets_no_later_epoch(straylight_train):
    ended = straylight_train("data=blobs", "detector=autoencoder", "callbacks.ranking.every_n_epochs=2", epochs=5)
    assert [entry["epoch"] for entry in ended.result["by_epoch"]] == [2, 4, 5]


def test_no_monitor_sees_the_ranking_of_an_epoch(trainer):
    stop = EarlyStopping("by_epoch/auroc", strict=True)
    with pytest.raises(ConfigError, match="by_epoch/auroc is not measured; there is train/loss, val/loss"):
        run(trainer, Ranking(every_n_epochs=1), stop)


def test_ranking_while_training_goes_on_where_it_stopped(trainer):
    ranking, resumed = Ranking(every_n_epochs=1), Ranking(every_n_epochs=1)
    run(trainer, ranking, epochs=2)
    resumed.load_state_dict(ranking.state_dict())
    assert resumed.by_epoch == ranking.by_epoch and len(resumed.by_epoch) == 2


@pytest.mark.parametrize(
    "options, said",
    [
        ({"fprs": [0.1, 1.0]}, "fprs must lie between 0 and 1"),
        ({"level": 95}, "level must lie between 0 and 1"),
        ({"every_n_epochs": 0}, "every_n_epochs must be positive or null"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(ValueError, match=f"callbacks.ranking.{said}"):
        Ranking(**options)


# the results file


@pytest.mark.parametrize("scaled", [False, True])
def test_results_file_holds_events_reconstructions_and_scores_of_both_sides(tmp_path, trainer, scaled):
    path = tmp_path / "made" / "results.h5"
    data, detector, scores, _ = run(trainer, ResultsHDF5(path, scaled))
    x = data.splits.test.x
    with h5py.File(path) as file:
        assert {
            f"{side}_{what}" for side in ("BKG", "SIG") for what in ("input", "predicted", "scores", "index")
        } <= set(file)
        for side, of in (("BKG", scores.y == 0), ("SIG", scores.y > 0)):
            index = file[f"{side}_index"][:]
            assert sorted(index) == sorted(scores.index[of])
            assert np.array_equal(file[f"{side}_scores"][:], scores.score[index])
            network = detector.scaling(x[index])
            out = detector.reconstruct(network).detach()
            expected = (network, out) if scaled else (x[index], detector.scaling.inverse(out))
            for what, rows in zip(("input", "predicted"), expected, strict=True):
                assert np.allclose(file[f"{side}_{what}"][:], rows, atol=1e-5)
            if scaled:  # the squared difference is the score
                error = ((file[f"{side}_predicted"][:] - file[f"{side}_input"][:]) ** 2).mean(1)
                assert np.allclose(error, file[f"{side}_scores"][:], rtol=1e-4)
        kinds = file["SIG_kind"].asstr()[:]
        assert kinds.tolist() == ["near"] * (scores.y == 1).sum() + ["far/off"] * (scores.y == 2).sum()
        for kind, group in (("near", "near"), ("far/off", "far_off")):
            for what in ("input", "predicted", "scores"):
                assert np.array_equal(file[f"kinds/{group}/{what}"][:], file[f"SIG_{what}"][:][kinds == kind])
        assert (file.attrs["detector"], file.attrs["data"], bool(file.attrs["scaled"])) == (
            "AutoEncoder",
            "planted",
            scaled,
        )
    assert [p.name for p in path.parent.iterdir()] == ["results.h5"]


def test_results_file_of_a_detector_that_does_not_reconstruct_or_of_rows_without_labels(tmp_path, trainer):
    run(trainer, ResultsHDF5(tmp_path / "a.h5"), epochs=1, detector=KNN((4,)))
    with h5py.File(tmp_path / "a.h5") as file:
        assert "SIG_predicted" not in file and file["SIG_input"].shape == (70, 4)
        assert file["kinds/near/scores"].shape == (40,)
    _, _, scores, _ = run(trainer, ResultsHDF5(tmp_path / "b.h5"), labelled=False)
    with h5py.File(tmp_path / "b.h5") as file:
        assert np.array_equal(file["DATA_scores"][:], scores.score) and "BKG_input" not in file and "kinds" not in file


def test_a_results_file_that_fails_leaves_the_older_one_whole(tmp_path, trainer, monkeypatch):
    path = tmp_path / "results.h5"
    run(trainer, ResultsHDF5(path), epochs=1)
    before = path.read_bytes()

    def broken(self, x):
        raise RuntimeError("no reconstruction today")

    monkeypatch.setattr(AutoEncoder, "reconstruct", broken)
    detector = AutoEncoder((4,), latent=2)
    monkeypatch.setattr(detector, "loss", lambda batch: detector.decoder(detector.encoder(batch.x)).square().mean())
    monkeypatch.setattr(detector, "score", lambda x, context: x.square().sum(1))
    with pytest.raises(RuntimeError, match="no reconstruction today"):
        run(trainer, ResultsHDF5(path), epochs=1, detector=detector)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["results.h5"]


@pytest.mark.parametrize(
    "share, told", [(1.0, "all 1,000 test rows one score, 7"), (0.951, "95.1% of the 1,000 test rows"), (0.85, "")]
)
@pytest.mark.parametrize("where", ["low", "high", "middle"])
def test_scores_that_are_equal_are_told(share, told, where):
    knn, others = KNN((1,)), round(1000 * (1 - share))
    beside = {"low": np.arange(others) + 8, "high": -np.arange(others), "middle": (-1) ** np.arange(others) * 9}[where]
    tell_equal(knn, np.float32([*[7] * (1000 - others), *beside]))
    assert [told in notice for notice in knn.notices] == [True] * bool(told)
