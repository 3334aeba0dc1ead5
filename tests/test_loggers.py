"""W&B and MLflow: what is logged of a run, where, under which names, and that nothing leaves the machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from straylight import extras
from straylight.callbacks import MLflowLog, WandbLog
from straylight.callbacks.tracker import Tracked
from straylight.commands.redraw import redraw
from straylight.folder import RunFolder

needs_mlflow = pytest.mark.skipif(find_spec("mlflow") is None, reason="no MLflow: pip install 'straylight[mlflow]'")
needs_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="no W&B: pip install 'straylight[wandb]'")
FILES = ("logger=mlflow", "logger.mlflow.store=files")  # which takes a second less for every new store
SQLITE = ("logger=mlflow",)
MLFLOW = pytest.param("mlflow", FILES, marks=needs_mlflow, id="mlflow")
WANDB = pytest.param("wandb", ("logger=wandb",), marks=needs_wandb, id="wandb")
BOTH = pytest.mark.parametrize(("logger", "options"), [MLFLOW, WANDB])
LEAN = ("data=blobs", "detector=vae")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch) -> None:
    """What a logger sets for its process is gone after the test; nothing of a developer's own account is seen."""
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


class Kept:
    """What a logger has kept of a run, whichever it is."""

    def __init__(self, name, group, asked, courses, final, pictures, parts, status) -> None:
        self.name, self.group, self.asked, self.courses = name, group, asked, courses
        self.final, self.pictures, self.parts, self.status = final, pictures, parts, status


def of_mlflow(output: Path) -> list[Kept]:
    from mlflow.tracking import MlflowClient

    from straylight.callbacks.mlflow_log import muted

    files = output / "mlruns"
    uri = files.as_uri() if files.exists() else f"sqlite:///{output}/mlflow.db"
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # until the test ends
    with muted():
        client = MlflowClient(uri)
        found = []
        for experiment in client.search_experiments():
            for run in client.search_runs([experiment.experiment_id]):
                names = list(run.data.metrics)
                history = {n: client.get_metric_history(run.info.run_id, n) for n in names}
                courses = {n: [(m.step, m.value) for m in sorted(h, key=lambda m: m.step)] for n, h in history.items()}
                pictures = [Path(a.path).stem for a in client.list_artifacts(run.info.run_id, "figures")]
                asked = dict(run.data.params) | {k: v for k, v in run.data.tags.items() if k.startswith("resumed.")}
                losses = {name: course for name, course in courses.items() if not name.startswith("test/")}
                kept = Kept(
                    run.info.run_name, experiment.name, asked, losses, run.data.metrics, pictures, 1, run.info.status
                )
                kept.artifacts = [a.path for a in client.list_artifacts(run.info.run_id)]
                found.append(kept)
    return found


def records(path: Path) -> Iterator:
    """What one file of W&B's says, as `wandb sync` would send it."""
    from wandb.proto import wandb_internal_pb2 as proto
    from wandb.sdk.internal.datastore import DataStore

    store = DataStore()
    store.open_for_scan(str(path))
    try:
        while (data := store.scan_data()) is not None:
            record = proto.Record()
            record.ParseFromString(data)
            yield record
    finally:
        store._fp.close()


def whole(path: Path) -> list:
    """The same of a run that was finished: its end is written by a process that nobody waits for, and may be late."""
    deadline = time.monotonic() + 60
    while True:
        try:
            found = list(records(path))
            if any(record.WhichOneof("record_type") == "exit" for record in found):
                return found
        except AssertionError:  # half a record
            pass
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.01)


def of_wandb(output: Path) -> list[Kept]:
    by_id: dict[str, Kept] = {}
    for path in sorted(output.rglob("offline-run-*/run-*.wandb")):
        kept = by_id.setdefault(path.stem.removeprefix("run-"), Kept("", "", {}, {}, {}, [], 0, ""))
        kept.parts += 1
        for record in whole(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                kept.name, kept.group = record.run.display_name, record.run.run_group or None
            elif kind == "config":
                kept.asked |= {item.key: json.loads(item.value_json) for item in record.config.update}
            elif kind == "history":
                row = {tuple(i.nested_key) or (i.key,): json.loads(i.value_json) for i in record.history.item}
                for (name, *inner), value in row.items():
                    if inner == ["path"]:
                        assert (path.parent / "files" / value).read_bytes()[1:4] == b"PNG"
                        kept.pictures.append(name.rpartition("/")[2])
                    elif not inner and not name.startswith("_") and name != "trainer/global_step":
                        kept.courses.setdefault(name, []).append((row["trainer/global_step",], value))
            elif kind == "summary":
                kept.final |= {i.key: json.loads(i.value_json) for i in record.summary.update if i.key}
            elif kind == "exit":
                kept.status = "FAILED" if record.exit.exit_code else "FINISHED"
    return list(by_id.values())


def kept_by(logger: str, output: Path) -> list[Kept]:
    return of_wandb(output) if logger == "wandb" else of_mlflow(output)


def no_run_of_wandbs_is_open() -> bool:
    import wandb

    return wandb.setup().most_recent_active_run is None


def allowed_there(name: str) -> str:
    from straylight.callbacks.mlflow_log import allowed

    return allowed(name)


@BOTH
def test_a_run_has_what_it_was_asked_its_losses_final_metrics_and_figures(logger, options, straylight_train) -> None:
    only = ["callbacks.figures.only=[roc,scores]", "callbacks.tensorboard=null"]
    ended = straylight_train(*LEAN, *only, *options, epochs=3, pictures=False)
    assert ended.status == 0, ended.err
    (run,) = kept_by(logger, ended.folder)
    assert (run.name, run.status) == ("vae blobs max_epochs=3 seed=0", "FINISHED")
    assert run.group == {"mlflow": "runs", "wandb": None}[logger]
    assert {"detector", "data", "seed", "detector.latent", "data.batch_size", "trainer.max_epochs"} <= set(run.asked)
    steps = ended.result["steps"]
    for loss in ("train/loss", "val/loss"):
        assert [step for step, _ in run.courses[loss]] == [steps // 3, 2 * steps // 3, steps]
    allowed = {"mlflow": lambda name: name.replace("@", " at ").replace("=", " "), "wandb": str}[logger]
    for name, value in ended.result["metrics"].items():
        assert run.final[allowed(name)] == pytest.approx(value, rel=1e-12), name
    criteria = {n: v for n, v in ended.result["criteria"].items() if v is not None and n != "val/loss"}
    assert "val/volume@0.95" in criteria and len(criteria) > 5
    for name, value in criteria.items():  # measured once, whatever signs their names have
        plain = name if logger == "wandb" else allowed_there(name)
        assert run.final[plain] == pytest.approx(value, rel=1e-12), name
        assert logger == "mlflow" or plain not in run.courses, name
    assert run.final["parameters"] == ended.result["parameters"]
    assert set(run.pictures) == {"roc", "scores"}
    assert RunFolder(ended.run).events(), "TensorBoard's files lie beside"
    assert "mlflow" not in ended.out.lower() and "wandb" not in ended.out.lower(), ended.out
    assert ended.err == ""


@needs_mlflow
@pytest.mark.parametrize("store", ["sqlite", "files"])
def test_kinds_of_anomalies_have_names_in_every_store(store, tmp_path) -> None:
    """As folders and files, `ap` and `ap/KIND` could not stand beside each other."""
    log = MLflowLog(store=store)
    log.begin(Tracked("1", "one", None, tmp_path, tmp_path, {"detector": "vae"}))
    log.log_metrics({"test/ap": 0.5, "test/ap/A->4l": 0.25, "test/ap/A<-4l": 0.75, "val/loss": 1.0, "val/kl": 2.0}, 7)
    log.conclude({}, {"test/tpr@fpr=1e-05": 0.125})
    (run,) = of_mlflow(tmp_path)
    assert {name: value for name, value in run.final.items() if name.startswith("test/")} == {
        "test/ap": 0.5,
        "test/ap.A-_4l": 0.25,
        "test/ap.A_-4l": 0.75,
        "test/tpr at fpr 1e-05": 0.125,
    }
    assert run.courses == {"val/loss": [(7, 1.0)], "val/kl": [(7, 2.0)]}
    assert run.status == "FINISHED"


@pytest.mark.parametrize(
    ("logger", "options"), [pytest.param("mlflow", SQLITE, marks=needs_mlflow, id="mlflow"), WANDB]
)
def test_the_runs_of_a_sweep_stand_together_under_names_that_differ(logger, options, straylight_train) -> None:
    ended = straylight_train("-m", *LEAN, "detector=knn,pca", "seed=0,1", *options, "hydra/launcher=basic")
    assert ended.status == 0, ended.err
    runs = kept_by(logger, ended.folder)
    expected = {f"{detector} blobs max_epochs=2 seed={seed}" for detector in ("knn", "pca") for seed in (0, 1)}
    assert {run.name for run in runs} == expected and len(runs) == 4
    (sweep,) = (ended.folder / "sweeps").iterdir()
    assert {run.group for run in runs} == {f"sweeps/{sweep.name}"}
    assert all(run.status == "FINISHED" for run in runs)
    assert not re.search(r"wandb:|W&B|mlflow\.|alembic", ended.out + ended.err)


@needs_mlflow
@needs_wandb
@pytest.mark.slow
def test_of_two_ranks_one_logs_to_both(straylight_train) -> None:
    ranks = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    ended = straylight_train(*LEAN, *ranks, "logger=[wandb,mlflow]", "logger.mlflow.store=files", epochs=2)
    assert ended.status == 0, ended.err
    for logger in ("wandb", "mlflow"):
        (run,) = kept_by(logger, ended.folder)
        assert (run.parts, run.status) == (1, "FINISHED")
        steps = ended.result["steps"]
        assert [step for step, _ in run.courses["train/loss"]] == [steps // 2, steps]


@BOTH
def test_a_run_that_is_resumed_goes_on_in_the_same_run(logger, options, straylight_train) -> None:
    first = straylight_train(*LEAN, *options, epochs=2)
    again = straylight_train(f"resume={first.run}", "trainer.max_epochs=4")
    assert again.status == 0, again.err
    (run,) = kept_by(logger, again.folder)
    assert run.parts == {"mlflow": 1, "wandb": 2}[logger]
    steps = again.result["steps"]
    assert [step for step, _ in run.courses["train/loss"]] == [steps * k // 4 for k in (1, 2, 3, 4)]
    assert run.final["epochs"] == 4
    longer = {"mlflow": "resumed.trainer.max_epochs", "wandb": "trainer.max_epochs"}[logger]
    assert str(run.asked[longer]) == "4"


@BOTH
def test_a_run_of_a_sweep_that_is_resumed_alone_stays_with_the_others(logger, options, straylight_train) -> None:
    first = straylight_train("-m", *LEAN, "seed=0,1", *options, "hydra/launcher=basic")
    resumed = Path(first.results[1]["folder"])
    again = straylight_train(f"resume={resumed}", "trainer.max_epochs=3")
    assert again.status == 0, again.err
    runs = kept_by(logger, first.folder)
    assert {(run.name, run.group) for run in runs} == {
        (f"vae blobs max_epochs=2 seed={seed}", f"sweeps/{resumed.parent.name}") for seed in (0, 1)
    }
    assert len(runs) == 2 and sorted(len(run.courses["train/loss"]) for run in runs) == [2, 3]


@needs_wandb
def test_a_run_of_wandbs_that_somebody_has_begun_is_left_alone(straylight_train, tmp_path) -> None:
    import wandb

    settings = wandb.Settings(silent=True, console="off", mode="offline")
    own = wandb.init(project="own", dir=str(tmp_path), settings=settings)
    try:
        assert straylight_train(*LEAN, "logger=wandb").status == 0
        assert wandb.run is own
        own.log({"mine": 1})
    finally:
        own.finish()
    assert [run.name for run in of_wandb(tmp_path / "out")] == ["vae blobs max_epochs=2 seed=0"]


@BOTH
def test_a_run_that_fails_is_logged_as_failed(logger, options, straylight_train) -> None:
    ended = straylight_train(*LEAN, *options, "optimizer.lr=1e30", "trainer.max_epochs=5", epochs=None)
    assert ended.status == 1
    (run,) = kept_by(logger, ended.folder)
    assert run.status == "FAILED"


@BOTH
def test_figures_that_are_drawn_later_join_the_run(logger, options, straylight_train) -> None:
    ended = straylight_train(*LEAN, *options)
    assert redraw(ended.run, ("roc",)) == 0
    (run,) = kept_by(logger, ended.folder)
    assert run.pictures == ["roc"] and run.status == "FINISHED"


@needs_mlflow
def test_figures_are_drawn_where_the_store_is_gone(straylight_train) -> None:
    ended = straylight_train(*LEAN, "logger=mlflow")
    (ended.folder / "mlflow.db").unlink()
    assert redraw(ended.run, ("roc",)) == 0
    assert not (ended.folder / "mlflow.db").exists() and (RunFolder(ended.run).figures / "roc.png").is_file()


@needs_mlflow
def test_a_run_of_somebody_elses_makes_no_store_out_of_its_folder(straylight_train, tmp_path) -> None:
    first = straylight_train(*LEAN, "logger=mlflow")
    sent = tmp_path / "elsewhere" / "sent"
    shutil.copytree(first.run, sent)
    for path in (first.folder / "mlflow.db", first.folder / "mlflow"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    config = RunFolder(sent).config
    config.write_text(config.read_text().replace(f"output: {first.folder}", f"output: {sent.parent}"))
    again = straylight_train(f"resume={sent}", "trainer.max_epochs=3", output="elsewhere")
    assert again.status == 0, again.err
    assert (sent / "mlflow.db").is_file() and not (sent.parent / "mlflow.db").exists()


@pytest.mark.parametrize("logger", ["mlflow", "wandb"])
def test_a_missing_package_is_named_with_its_extra_before_anything_is_read(logger, straylight_train, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    ended = straylight_train("data=file", "data.path=absent.csv", f"logger={logger}")
    assert ended.status == 1
    assert f"logger={logger} needs {logger}, which is not installed: pip install 'straylight[{logger}]'." in ended.err
    assert "absent.csv" not in ended.err and not list(ended.folder.rglob("result.json"))


def test_a_folder_of_the_same_name_is_no_package(tmp_path, monkeypatch) -> None:
    (tmp_path / "abacus").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "needs abacus" in str(extras.lacking("counting", "abacus", "abacus"))


@needs_wandb
def test_without_a_login_nothing_is_sent_and_nobody_is_asked(straylight_train, monkeypatch) -> None:
    import wandb

    monkeypatch.setattr(wandb.api, "_api", None, raising=False)
    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.setenv("NETRC", str(Path.cwd() / "none"))
    ended = straylight_train(*LEAN, "logger=wandb", "logger.wandb.offline=false")
    assert ended.status == 1 and "`wandb login`" in ended.err and "Traceback" not in ended.err


@BOTH
@pytest.mark.parametrize("what", ["_reached", "_picture"])
def test_what_fails_while_a_run_goes_on_is_said_once_and_the_run_ended(logger, options, what, straylight_train) -> None:
    def broken(*args, **options) -> None:
        raise OSError("no space left")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr({"mlflow": MLflowLog, "wandb": WandbLog}[logger], what, broken)
        ended = straylight_train(*LEAN, *options, "callbacks.figures.only=[roc]", pictures=False)
    assert ended.status == 0 and ended.out.count("no space left") == 1
    assert kept_by(logger, ended.folder)[0].status == "FINISHED"
    assert logger != "wandb" or no_run_of_wandbs_is_open()


@needs_wandb
def test_a_run_of_wandbs_that_begins_badly_is_ended(straylight_train, monkeypatch) -> None:
    import wandb

    def broken(*args, **options) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(wandb.Run, "define_metric", broken)
    ended = straylight_train(*LEAN, "logger=wandb")
    assert ended.status == 1 and "W&B could not begin a run: no space left" in ended.err
    assert no_run_of_wandbs_is_open()


@needs_mlflow
def test_a_store_that_there_is_not_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"logger\.mlflow.store must be sqlite or files, not 'oracle'"):
        MLflowLog(store="oracle")


@needs_mlflow
def test_a_store_that_cannot_be_opened_ends_the_run_before_training(straylight_train, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mlflow.db").write_text("no database at all, but a text that is long enough to be read" * 99)
    ended = straylight_train(*LEAN, "logger=mlflow")
    assert ended.status == 1 and "MLflow could not begin a run" in ended.err and "Traceback" not in ended.err
