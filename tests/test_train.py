"""`straylight train`, from the command line to the folder that it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from given import OVER_DENSITIES
from straylight.data import Blobs, Digits, Shells
from straylight.groups import choices
from straylight.run import Run


def scores(run: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(run / "scores.parquet")
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def chosen(detector: str) -> list[str]:
    """A detector, its search shortened where it has one."""
    shorter = {"anogan": ["detector.steps=10"], "external": ["+detector.arguments.n_estimators=10"]}
    return [f"detector={detector}", *shorter.get(detector, [])]


NAMES = [name for name in choices("detector") if name not in OVER_DENSITIES]
PARTICLES = ("multiplicity", "sum_pt")  # which take no other events; points in space do for them


@pytest.mark.parametrize("detector", NAMES)
def test_a_run_records_what_it_reached(detector, straylight_train) -> None:
    images = detector.endswith("_conv")
    own = "data=digits" if images else "data=sphere" if detector in PARTICLES else "data=blobs"
    ended = straylight_train(*chosen(detector), own, "seed=3")
    assert ended.status == 0, ended.err
    points = Shells(radii=[1.0], dimensions=3, seed=3)
    data = Digits(seed=3, train_fraction=0.4) if images else points if detector in PARTICLES else Blobs(seed=3)
    result, table = ended.result, scores(ended.run)
    assert result["status"] == "ok" and result["reason"] is None
    called = "IsolationForest" if detector == "external" else detector
    assert (result["detector"], result["data"], result["seed"]) == (called, data.name, 3)
    assert {"config_hash", "command", "versions", "duration_s", "parameters", "device"} <= set(result)
    assert {"torch", "instructions"} <= set(result["versions"])
    # the metrics are those of the scores that were written
    assert list(table["index"]) == list(range(len(data.splits.test))) and set(table["kind"]) == set(data.kinds)
    strange = table["y"] > 0
    assert result["metrics"]["test/auroc"] == pytest.approx(roc_auc_score(strange, table["score"]), abs=1e-12)
    assert result["metrics"]["test/ap"] == pytest.approx(average_precision_score(strange, table["score"]), abs=1e-12)
    assert 0 <= result["metrics"]["test/tpr@fpr=0.01"] <= 1
    for entry in result["latency"]:
        assert {"runtime", "batch", "p50_us", "p95_us", "p99_us", "events_per_s"} <= set(entry)
        given = [entry[name] for name in ("p50_us", "p95_us", "p99_us") if entry[name] is not None]
        assert given[0] > 0 and given == sorted(given)
    scaled = [entry["batch"] for entry in result["latency"] if entry["scaling"]]
    assert scaled == [1, 32, 1024, 16384][: len(scaled)] and len(scaled) >= 2  # the largest may take too long
    # and opened again, the run gives the same scores, bit for bit
    run = Run.open(ended.run, trust=["sklearn"] if detector == "external" else [])
    assert np.array_equal(run.score(data.splits.test.x), table["score"])
    assert run.kinds == data.kinds


@pytest.mark.parametrize("detector", NAMES)
def test_the_same_seed_gives_the_same_scores_bit_for_bit(detector, straylight_train) -> None:
    own = "data=sphere" if detector in PARTICLES else "data=digits"
    first, again, other = (
        straylight_train(*chosen(detector), own, f"seed={seed}", output=output)
        for seed, output in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert np.array_equal(scores(first.run)["score"], scores(again.run)["score"])
    differ = not np.array_equal(scores(first.run)["score"], scores(other.run)["score"])
    assert differ or detector == "multiplicity"  # of one particle in every event
    assert first.result["config_hash"] == again.result["config_hash"] != other.result["config_hash"]
    assert first.result["variant"] == again.result["variant"] == other.result["variant"]


def test_kinds_are_told_apart_by_name(straylight_train) -> None:
    ended = straylight_train("data=digits", "data.nominal=3")
    kinds = set(map(str, range(10))) - {"3"}
    assert {k.rpartition("/")[2] for k in ended.result["metrics"] if k.startswith("test/auroc/")} == kinds
    assert set(scores(ended.run)["kind"]) == kinds | {"nominal"}


def test_mini_batches_in_groups_train_the_same_weights(straylight_train) -> None:
    states = []
    for group in (1, 3, 100):
        ended = straylight_train("detector=vae", "data=blobs", f"data.group={group}", output=f"g{group}")
        states.append(torch.load(ended.run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(states[0][k], other[k]) for other in states[1:] for k in other)


def test_a_schedule_and_clipping_reach_the_optimiser(straylight_train) -> None:
    plain = straylight_train("data=blobs", output="plain")
    assert plain.status == 0
    for number, change in enumerate(
        ("optimizer.schedule=cosine", "optimizer.clip=0.01", "optimizer=sgd", "optimizer=adamw")
    ):
        ended = straylight_train("data=blobs", change, output=f"o{number}")
        assert ended.status == 0, ended.err
        assert not np.array_equal(scores(ended.run)["score"], scores(plain.run)["score"])


def test_without_validation_the_last_epoch_is_tested(straylight_train) -> None:
    ended = straylight_train("data=blobs", "data.val_fraction=0")
    assert ended.status == 0 and ended.result["checkpoint"] == "checkpoints/last.ckpt"
    assert straylight_train("data=blobs", output="with").result["checkpoint"] == "checkpoints/best.ckpt"


def test_a_best_epoch_is_tested_even_if_it_was_not_the_last(straylight_train) -> None:
    ended = straylight_train("data=digits", "optimizer.lr=0.05", epochs=10)
    best = torch.load(ended.run / "checkpoints" / "best.ckpt", weights_only=True)
    last = torch.load(ended.run / "checkpoints" / "last.ckpt", weights_only=True)
    assert best["epoch"] == ended.result["best_epoch"] < last["epoch"] == 9
    saved = last["callbacks"]
    (losses,) = [state for state in saved.values() if "best" in state]
    assert losses["best_epoch"] == ended.result["best_epoch"]


def test_contamination_leaves_the_test_split_as_it_is(straylight_train) -> None:
    reserve = ("data=blobs", "data.reserve_fraction=0.5", "detector=knn")
    clean = straylight_train(*reserve, output="clean")
    mixed = straylight_train(*reserve, "data.contamination=0.05", output="mixed")
    assert np.array_equal(scores(clean.run)["y"], scores(mixed.run)["y"])
    assert mixed.result["metrics"]["test/auroc"] < clean.result["metrics"]["test/auroc"]


def test_a_sweep_ends_in_a_leaderboard(straylight_train, monkeypatch) -> None:
    ended = straylight_train("-m", "detector=isolation_forest,knn", "data=digits", "seed=0,1")
    assert ended.status == 0, ended.err
    (sweep,) = (ended.folder / "sweeps").iterdir()
    assert len(ended.results) == 4 and all(r["status"] == "ok" for r in ended.results)
    lines = (sweep / "leaderboard.csv").read_text().splitlines()
    assert len(lines) == 3 and {line.split(",")[1] for line in lines[1:]} == {"isolation_forest", "knn"}
    assert (sweep / "pareto.png").stat().st_size > 10_000
    assert "n.r." in ended.out and "AUROC" in ended.out and "straylight report" in ended.out
    assert "tensorboard --logdir" in ended.out


def test_one_failed_job_does_not_stop_a_sweep(straylight_train) -> None:
    ended = straylight_train("-m", "data=digits", "detector=knn", "detector.k=1000,5")
    assert ended.status == 1
    assert sorted(r["status"] for r in ended.results) == ["failed", "ok"]
    assert "failed" in ended.out and "knn" in ended.out  # the leaderboard names it


def test_folders_are_where_hydra_is_told(straylight_train, tmp_path) -> None:
    ended = straylight_train("data=blobs", "detector=knn", f"hydra.run.dir={tmp_path}/here")
    assert ended.status == 0 and (tmp_path / "here" / "result.json").is_file()
    straylight_train("-m", "data=blobs", "detector=knn", f"hydra.sweep.dir={tmp_path}/there", "seed=0,1")
    assert (tmp_path / "there" / "1" / "result.json").is_file()


def test_a_command_typed_twice_into_one_folder_leaves_one_result(straylight_train, tmp_path) -> None:
    here = f"hydra.run.dir={tmp_path}/here"
    for _ in range(2):
        assert straylight_train("data=blobs", "detector=knn", here).status == 0
    # and a failure there does not leave the earlier success standing
    assert straylight_train("data=blobs", "detector=knn", "detector.k=9999", here).status == 1
    assert json.loads((tmp_path / "here" / "result.json").read_text())["status"] == "failed"


def test_a_detector_of_the_users_own_needs_a_class_and_a_yaml(straylight_train, tmp_path, monkeypatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from straylight.detectors import AutoEncoder\n\n\n"
        "class Deeper(AutoEncoder):\n"
        "    def __init__(self, shape, *, depth=2, **common):\n"
        "        super().__init__(shape, hidden=[16] * depth, latent=2, **common)\n"
    )
    (tmp_path / "conf" / "detector").mkdir(parents=True)
    (tmp_path / "conf" / "detector" / "deeper.yaml").write_text("_target_: mine.Deeper\ndepth: 3\nscaling: standard\n")
    monkeypatch.syspath_prepend(tmp_path)
    ended = straylight_train("--config-dir", str(tmp_path / "conf"), "detector=deeper", "data=blobs")
    assert ended.status == 0, ended.err
    assert ended.result["detector"] == "deeper"
    also = straylight_train(
        "detector._target_=mine.Deeper", "~detector.hidden", "~detector.latent", "data=blobs", output="b"
    )
    assert also.status == 0, also.err
    wrong = straylight_train("--config-dir", str(tmp_path / "conf"), "detector=deeper", "+detector.dept=3", output="c")
    assert wrong.status == 1 and "did you mean 'depth'" in wrong.err


def test_real_tabular_data_by_name_and_by_path(straylight_train, shared) -> None:
    by_name = straylight_train("detector=knn", "data=adbench", "data.name=6_cardio", f"paths.data={shared}", output="a")
    path = shared / "adbench" / "6_cardio.npz"
    by_path = straylight_train("detector=knn", "data=adbench", f"data.path={path}", output="b")
    assert by_name.result["metrics"] == by_path.result["metrics"]
    assert by_name.result["data"] == "6_cardio" and by_name.result["metrics"]["test/auroc"] > 0.9


def test_real_images(straylight_train, shared) -> None:
    ended = straylight_train("data=mnist", f"paths.data={shared}", "data.nominal=1", epochs=1)
    assert ended.status == 0, ended.err
    assert ended.result["metrics"]["test/nominal"] == 1135 and ended.result["metrics"]["test/auroc"] > 0.9


def test_limits_of_the_trainer_are_kept_in_mid_group(straylight_train) -> None:
    ended = straylight_train("data=blobs", "data.batch_size=16", "+trainer.max_steps=10", epochs=50)
    assert ended.status == 0 and ended.result["steps"] == 10


@pytest.mark.parametrize("limit", ["trainer.max_epochs=0", "+trainer.limit_train_batches=0"])
@pytest.mark.parametrize("detector", ["autoencoder", "knn"])
def test_a_detector_that_was_not_trained_is_not_compared(detector, limit, straylight_train) -> None:
    ended = straylight_train(f"detector={detector}", "data=blobs", limit)
    assert ended.status == 1 and ended.result["status"] == "failed" and "Nothing was trained" in ended.err


@pytest.mark.parametrize("schedule", ["optimizer.schedule=cosine", "optimizer.warmup=0.5"])
def test_a_schedule_without_an_end_is_refused(schedule, straylight_train) -> None:
    ended = straylight_train("data=blobs", schedule, "+trainer.max_time=00:00:00:05", epochs=-1)
    assert ended.status == 1 and "max_epochs" in ended.err and "Traceback" not in ended.err


@pytest.mark.parametrize(
    "overrides",
    [
        ["detector=knn"],
        ["detector=knn", "data.val_fraction=0"],
        ["detector=vae"],
        ["detector=deep_svdd"],
        ["data.val_fraction=0", "callbacks.early_stopping.monitor=train/loss"],
    ],
)
def test_early_stopping_waits_only_where_there_is_something_to_wait_for(overrides, straylight_train) -> None:
    ended = straylight_train("callbacks=early_stopping", "data=blobs", *overrides)
    assert ended.status == 0, ended.err


def test_a_callback_that_listens_to_every_step_is_called_at_every_step(trainer) -> None:
    import pytorch_lightning as pl

    from straylight.data import Blobs
    from straylight.detectors import AutoEncoder

    heard = []
    listener = pl.callbacks.LambdaCallback(on_before_optimizer_step=lambda *_: heard.append(1))
    states = []
    for callbacks in ([], [listener]):
        torch.manual_seed(0)
        detector = AutoEncoder((2,), hidden=[8], latent=1)
        fit = trainer(max_epochs=2, callbacks=callbacks)
        fit.fit(detector, datamodule=Blobs(batch_size=32))
        assert fit.global_step == 30
        states.append(detector.state_dict())
    assert len(heard) == 30
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])  # the quick way and Lightning's


def test_a_folder_used_again_keeps_nothing_of_the_run_before(straylight_train, tmp_path) -> None:
    here = f"hydra.run.dir={tmp_path}/here"
    assert straylight_train("data=blobs", here).status == 0
    refused = straylight_train("data=blobs", here, "data.contamination=0.5")
    assert refused.status == 1 and (tmp_path / "here" / "scores.parquet").exists()  # nothing was done
    assert straylight_train("data=blobs", here, "detector=knn", "detector.k=100000").status == 1
    assert not list((tmp_path / "here").rglob("*.ckpt")) and not (tmp_path / "here" / "scores.parquet").exists()


def test_a_data_set_of_the_users_own_follows_the_seed(straylight_train, tmp_path, monkeypatch) -> None:
    (tmp_path / "own_data.py").write_text(
        "import numpy as np\nfrom straylight.batch import Events\nfrom straylight.data import AnomalyDataModule\n\n\n"
        "class Mine(AnomalyDataModule):\n"
        "    def load(self):\n"
        "        x = np.random.default_rng(0).normal(size=(200, 3))\n"
        "        return self.split(Events.of(x, np.arange(200) % 10 == 0))\n"
    )
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text("_target_: own_data.Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = ("--config-dir", str(tmp_path / "conf"), "data=mine", "detector=knn")
    first, second = (straylight_train(*own, f"seed={seed}", output=f"s{seed}") for seed in (1, 2))
    assert first.status == second.status == 0, first.err
    assert not np.array_equal(scores(first.run)["score"], scores(second.run)["score"])


def test_several_sets_of_one_class_have_names_of_their_own(straylight_train) -> None:
    small = ["data.events=2000", "detector=knn"]
    ended = straylight_train("-m", "data=gaussians,gaussians_1d", *small, "data.fraction=0.01")
    assert {result["data"] for result in ended.results} == {"gaussians", "gaussians_1d"}


@pytest.mark.parametrize("without", [["~callbacks.record"], ["callbacks.latency=null"], ["logger=none"]])
def test_callbacks_and_loggers_can_be_left_out(without, straylight_train) -> None:
    cheap = straylight_train("data=blobs", "detector=knn", *without)
    assert cheap.status == 0 and cheap.result["status"] == "ok", cheap.err


def test_early_stopping_looks_at_the_last_phase_alone(straylight_train) -> None:
    """Whose first epoch may be worse than all of another phase."""
    stop = [
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=2",
        "+callbacks.early_stopping.min_delta=1e9",
    ]
    ended = straylight_train("detector=deep_svdd", "data=blobs", *stop, epochs=20)
    assert ended.status == 0, ended.err
    assert ended.result["epochs"] == 13  # ten of the autoencoder, the best of the other phase, two in vain


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["autoencoder", "fanogan", "maf"])
def test_compiled_networks_train_and_score_as_plain_ones_do(detector, straylight_train) -> None:
    plain, compiled = (
        straylight_train(f"detector={detector}", "data=blobs", f"compile={how}", output=how)
        for how in ("false", "true")
    )
    assert compiled.status == 0, compiled.err
    assert np.allclose(scores(plain.run)["score"], scores(compiled.run)["score"], rtol=1e-3, atol=1e-4)
    states = [
        torch.load(e.run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for e in (plain, compiled)
    ]
    assert states[0].keys() == states[1].keys()
