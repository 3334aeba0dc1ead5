"""What TensorBoard makes of a run: its name, the order of charts, one unit of steps, the columns of its table."""

import csv
import warnings

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from straylight.callbacks import EventLog
from straylight.callbacks.event_log import tag
from straylight.folder import RunFolder
from straylight.job.logs import title

KNOWN = {"detector": "vae", "data": "blobs", "seed": 1}
TYPED = ["detector=vae", "data=blobs", "detector.latent=2", "optimizer=adamw", "seed=1"]


@pytest.mark.parametrize(
    ("ranged", "overrides", "name"),
    [
        (["detector", "seed"], TYPED, "vae seed=1"),
        (["seed"], TYPED, "vae seed=1"),
        (["data", "seed"], TYPED, "vae blobs seed=1"),
        (["detector.latent", "optimizer"], TYPED, "vae latent=2 optimizer=adamw seed=1"),
        ([], TYPED, "vae blobs latent=2 optimizer=adamw seed=1"),
        ([], ["detector=vae"], "vae blobs seed=1"),
        ([], ["callbacks.figures.dpi=50", "threads=2", "trainer.max_epochs=3"], "vae blobs max_epochs=3 seed=1"),
        (["callbacks.thresholds.quantile"], ["callbacks.thresholds.quantile=0.9"], "vae quantile=0.9 seed=1"),
        (["experiment"], ["experiment=sweep/moons"], "vae seed=1"),
        ([], ["data.path=/some/where/events.csv"], "vae blobs path=events seed=1"),
        (["detector.hidden"], ["detector.hidden=[8,4]"], "vae hidden=[8, 4] seed=1"),
        (["detector.note"], ["detector.note='a/b\\c:d'"], "vae note=a_b_c_d seed=1"),
        (["detector.note"], ["detector.note=" + 300 * "x"], f"vae note={104 * 'x'} seed=1"),
    ],
)
def test_a_run_is_called_by_what_tells_it_from_others(ranged, overrides, name) -> None:
    found = title({**KNOWN, "ranged": ranged, "overrides": overrides})
    assert found == name and len(found) <= 120


def test_a_run_of_which_nothing_is_known_has_a_name() -> None:
    assert title({}) == "run seed=None"


def test_losses_come_first_and_before_the_figures() -> None:
    logged = ["train/lr", "train/grad_norm", "train/kl", "train/loss", "val/loss", "val/kl", "by_epoch/auroc", "own"]
    tags = sorted([*map(tag, logged), "figures/roc"])
    assert tags[:4] == ["Loss/train", "Loss/train/kl", "Loss/val", "Loss/val/kl"]
    assert tags[4:] == ["figures/roc", "own", "test_by_epoch/auroc", "training/grad_norm", "training/lr"]


def events_of(run) -> EventAccumulator:
    (folder,) = RunFolder(run).events()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def columns_of(events: EventAccumulator) -> list[str]:
    """The names of HPARAMS' columns, in the order in which TensorBoard shows them."""
    content = events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    infos = metadata.parse_experiment_plugin_data(content).hparam_infos
    return [info.display_name for info in sorted(infos, key=lambda info: (not info.differs, info.name))]


def line_of(events: EventAccumulator) -> dict[str, object]:
    """The run's line of that table."""
    content = events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    shown = {info.name: info.display_name for info in metadata.parse_experiment_plugin_data(content).hparam_infos}
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    assert set(values) == set(shown)
    return {shown[name]: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}


@pytest.mark.parametrize(
    "options",
    [
        ["detector=vae"],
        ["detector=aae"],  # which takes several steps of its optimisers a mini-batch
        ["detector=vae", "data.group=1"],
        ["detector=vae", "data.batch_size=7"],
        ["detector=vae", "+trainer.val_check_interval=0.5"],
        ["detector=knn"],
    ],
)
def test_all_stands_at_steps_of_the_optimiser(options, straylight_train) -> None:
    ended = straylight_train("data=blobs", "callbacks.ranking.every_n_epochs=1", "logger=both", *options, epochs=3)
    assert ended.status == 0, ended.err
    events, steps = events_of(ended.run), ended.result["steps"]
    trained = options[0] != "detector=knn"
    assert bool(steps) == trained
    for name in events.Tags()["scalars"]:
        at = [point.step for point in events.Scalars(name)]
        assert at[-1] == steps and at == sorted(at), name
        if name.startswith(("Loss/train", "training/")):
            assert at == [steps // 3, 2 * steps // 3, steps]
    assert not {name for name in events.Tags()["scalars"] if name.startswith(("test/", "epoch"))}
    assert ("Loss/train" in events.Tags()["scalars"]) == trained
    with (ended.run / "csv" / "metrics.csv").open() as file:  # which has all of it, in the same unit
        rows = list(csv.DictReader(file))
    assert {int(row["step"]) for row in rows if row["test/auroc"]} == {steps}
    assert not trained or {int(row["step"]) for row in rows if row["train/loss"]} == {steps // 3, 2 * steps // 3, steps}


def test_pictures_stand_at_the_steps_that_losses_do(straylight_train) -> None:
    options = ["callbacks.figures.only=[roc]", "callbacks.figures.every_n_epochs=1"]
    ended = straylight_train("detector=vae", "data=blobs", *options, epochs=3)
    events = events_of(ended.run)
    losses = [point.step for point in events.Scalars("Loss/train")]
    assert [picture.step for picture in events.Images("figures/roc")] == losses


def test_what_was_measured_once_is_in_the_table_alone(straylight_train) -> None:
    ended = straylight_train("-m", "detector=vae", "data=digits", "detector.latent=2,3", "seed=0,1", "logger=both")
    assert ended.status == 0, ended.err
    names = set()
    for result in ended.results:
        run = RunFolder(result["folder"])
        (folder,) = run.events()
        names.add(folder.name)
        events = events_of(run)
        columns, line = columns_of(events), line_of(events)
        assert columns[:6] == ["detector", "data", "seed", "detector.latent", "test/auroc", "test/ap"]
        assert columns.index("test/ap") < columns.index("test/auroc/3") < columns.index("optimizer.lr")
        assert [line[name] for name in columns[:3]] == ["vae", "digits_0", str(result["seed"])]
        assert line["test/auroc"] == result["metrics"]["test/auroc"]
        measured = {k for k, v in result["metrics"].items() if isinstance(v, float) and "nominal" not in k}
        assert measured - {"test/anomalous"} <= set(columns)
        assert not any(name.startswith(("test/nominal", "test/anomalous")) for name in columns)
        content = events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
        charts = {metric.name.tag for metric in metadata.parse_experiment_plugin_data(content).metric_infos}
        assert charts == {"Loss/val", "Loss/train"} <= set(events.Tags()["scalars"])
        assert {len(events.Scalars(name)) for name in events.Tags()["scalars"]} == {2}
    assert names == {f"vae latent={latent} seed={seed}" for latent in (2, 3) for seed in (0, 1)}


def test_a_run_keeps_its_name_when_it_goes_on(straylight_train) -> None:
    ended = straylight_train("detector=vae", "data=blobs", epochs=2)
    (before,) = RunFolder(ended.run).events()
    again = straylight_train(f"resume={ended.run}", "trainer.max_epochs=4")
    assert again.status == 0, again.err
    assert RunFolder(ended.run).events() == [before] and "max_epochs=2" in before.name
    assert len(events_of(ended.run).Scalars("Loss/train")) == 4


def test_a_folder_that_is_used_again_keeps_nothing_of_the_run_before(straylight_train, tmp_path) -> None:
    place = f"hydra.run.dir={tmp_path}/out/again"
    ended = straylight_train("detector=vae", "data=blobs", "callbacks.tensorboard.max_points=50", place)
    (before,) = RunFolder(ended.run).events()
    kept = before / "notes.txt"
    kept.write_text("the user's own")
    other = ended.run / "mine"
    other.mkdir()
    (other / "hparams.yaml").write_text("the user's own")
    straylight_train("detector=knn", "data=blobs", place)
    (after,) = RunFolder(ended.run).events()
    assert after.name.startswith("knn blobs") and list(before.rglob("*")) == [kept]
    assert (other / "hparams.yaml").is_file()


def test_a_name_of_the_users_own_is_taken(straylight_train) -> None:
    ended = straylight_train("detector=knn", "data=blobs", "logger.tensorboard.name=mine")
    assert [folder.name for folder in RunFolder(ended.run).events()] == ["mine"]


def test_lightnings_own_logger_still_works(straylight_train) -> None:
    own = "logger.tensorboard._target_=pytorch_lightning.loggers.TensorBoardLogger"
    ended = straylight_train("detector=vae", "data=blobs", own, "logger.tensorboard.name=plain")
    assert ended.status == 0 and ended.result["status"] == "ok", ended.err


def test_a_logger_can_be_built_by_hand(tmp_path) -> None:
    log = EventLog(str(tmp_path))
    log.log_metrics({"train/loss": 1.0, "epoch": 0.0, "test/auroc": 0.5}, step=3)
    log.conclude({"detector": "mine"}, {"deep": True}, {"test/ap": float("nan")})
    events = events_of(tmp_path)
    assert events.Tags()["scalars"] == ["Loss/train"]
    assert line_of(events) == {"detector": "mine", "test/auroc": 0.5, "deep": True}
