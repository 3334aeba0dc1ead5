"""What a run leaves to look at: which figures apply, that none fails a run, and what TensorBoard finds."""

from __future__ import annotations

import csv
import io
import json
import shutil
import socket
import sys
import time
import urllib.request
import warnings
from contextlib import closing
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import finished_run
from fresh import Programs
from straylight import config
from straylight.callbacks import Figures, TensorBoard, drawings
from straylight.callbacks.drawings import DRAWINGS
from straylight.callbacks.extremes import kind_name
from straylight.callbacks.material import Material
from straylight.callbacks.scored import Scores
from straylight.callbacks.tensorboard import spread, sprites
from straylight.commands.redraw import redraw
from straylight.commands.report import main as report
from straylight.detectors import KNN
from straylight.folder import RunFolder
from straylight.job.kept import COMPARED
from straylight.report.choice import NAMES, each, understood
from straylight.report.figures.style import look
from straylight.run import Run

SCORED = {"scores", "selected", "p_values", "roc", "precision_recall", "extremes"}
#: Runs that several tests read, by what they are; each is trained once, and draws all its figures itself.
RUNS = {
    "plane": ["detector=vae", "data=blobs", "detector.latent=3", "trainer.max_epochs=2"],
    "flow": ["detector=maf", "data=gaussians", "data.events=1000", "callbacks.ranking.every_n_epochs=1"],
    "images": ["detector=vae", "data=digits", "trainer.max_epochs=2"],
    "line": ["detector=knn", "data=gaussians_1d", "data.events=2000"],
    "unlabelled": ["detector=autoencoder", "data=file", "data.path=ROOT/rows.npz", "trainer.max_epochs=2"],
    "weighted": [
        "detector=pca",
        "data=file",
        "data.path=ROOT/weighted.npz",
        "data.label=y",
        "data.weight=weight",
        "callbacks.thresholds=null",
    ],
    "particles": ["detector=autoencoder", "data=toy_trigger", "data.background=1000", "data.signal=100"],
}
RUNS["flow"] += ["trainer.max_epochs=2", "callbacks.density=null"]
CODED = "auroc_by_epoch,latent_2d,latent_3d,latent_normal,reconstructions,manifold,samples"
RUNS["flow"] += [f"callbacks.figures.only=[{CODED}]"]
RUNS["particles"] += ["trainer.max_epochs=1", "callbacks.figures.only=[particles,reconstructions,latent_2d,data,plane]"]
RUNS["weighted"] += ["callbacks.figures.only=[scores,selected,roc,precision_recall,significance]"]
SIZE = ("callbacks.figures.only=all", "callbacks.figures.dpi=60")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder of one of these runs."""
    root = tmp_path_factory.mktemp("ran")
    generator = np.random.default_rng(0)
    rows, y = generator.normal(size=(400, 5)), np.repeat([0, 1], [360, 40])
    rows[y == 1] += 2
    np.savez(root / "rows.npz", X=rows)
    np.savez(root / "weighted.npz", X=rows, y=y, weight=generator.uniform(0.5, 2, 400))

    @cache
    def run(name: str) -> Path:
        chosen = [argument.replace("ROOT", str(root)) for argument in RUNS[name]]
        folder = root / name
        return finished_run(folder, *SIZE, *chosen, f"hydra.run.dir={folder}")

    return run


@pytest.fixture
def copied(ran, tmp_path):
    """A copy of one of these runs, to be changed."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(ran(name), tmp_path / name))

    return copy


def record(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def drawn(run: Path) -> set[str]:
    """The names of a run's pictures, which the record has, too."""
    pictures = list((run / "figures").glob("*.png"))
    found = {path.stem for path in pictures}
    assert set(record(run)["figures"]) == found and "figures_failed" not in record(run)
    for path in pictures:
        with Image.open(path) as picture:
            assert min(picture.size) > 120, path
            assert np.asarray(picture.convert("L")).std() > 3, f"{path} is blank"
    return found


# which apply


def test_a_plane_with_a_latent_space_has_its_figures(ran) -> None:
    plane = {"data", "plane", "detected", "confusion", "contributions"}
    codes = {"latent_2d", "latent_3d", "latent_normal", "manifold", "samples", "reconstructions", "losses"}
    found = drawn(ran("plane"))
    assert found - {"significance"} == SCORED | plane | codes
    assert set(record(ran("plane"))["figures_none"]) == set(NAMES) - found


def test_a_flow_has_latents_and_samples_and_no_reconstruction(ran) -> None:
    found = drawn(ran("flow"))
    assert found == {"latent_2d", "latent_normal", "samples", "auroc_by_epoch"}


def test_images_are_shown_as_images(ran, monkeypatch) -> None:
    assert drawn(ran("images")) >= SCORED | {"reconstructions", "manifold", "samples", "contributions"}
    assert not (ran("images") / "figures" / "extremes.csv").exists()
    shapes = {}
    run = Run.open(ran("images"))
    for name in ("extremes", "reconstructions", "samples", "contributions"):
        monkeypatch.setattr(drawings.figures, name, lambda x, *a, name=name, **k: shapes.setdefault(name, np.shape(x)))
        run.draw(name)
    assert shapes == {
        "extremes": (100, 1, 8, 8),
        "reconstructions": (10, 1, 8, 8),
        "samples": (64, 1, 8, 8),
        "contributions": (10, 1, 8, 8),
    }


def test_a_detector_without_codes_has_none_and_one_dimension_is_a_histogram(ran) -> None:
    assert drawn(ran("line")) - {"significance", "confusion"} == SCORED | {"data"}


def test_a_latent_search_of_many_points_is_not_asked_for_contours(straylight_train) -> None:
    some = ("callbacks.figures.only=[data,plane]", "data.nominal=100", "data.anomalies=20")
    assert drawn(straylight_train("detector=anogan", "data=blobs", *some, epochs=1).run) == {"data", "plane"}


def test_hidden_labels_leave_what_needs_none(ran) -> None:
    found = drawn(ran("unlabelled"))
    assert {"data", "scores", "selected", "extremes", "latent_2d", "losses"} <= found
    assert not found & {"roc", "precision_recall", "significance", "confusion"}


def test_particles_are_shown_by_their_momenta(ran) -> None:
    assert drawn(ran("particles")) == {"particles", "reconstructions", "latent_2d"}


def test_the_strangest_rows_are_listed_with_their_scores(ran) -> None:
    import pyarrow.parquet as pq

    run = ran("plane")
    with (run / "figures" / "extremes.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = pq.read_table(run / "scores.parquet").to_pydict()
    score = dict(zip(scores["index"], scores["score"], strict=True))
    kind = dict(zip(scores["index"], scores["kind"], strict=True))
    strangest = [row for row in rows if row["end"] == "strangest"]
    assert [int(r["rank"]) for r in strangest] == list(range(1, 101)) and len(rows) == 200
    assert [np.float32(r["score"]) for r in strangest] == sorted(score.values(), reverse=True)[:100]
    assert [np.float32(r["score"]) for r in rows[100:]] == sorted(score.values())[:100]
    assert all(score[int(r["index"])] == np.float32(r["score"]) and kind[int(r["index"])] == r["kind"] for r in rows)
    assert {"x1", "x2"} <= set(rows[0])


@pytest.mark.parametrize("kinds", [(), ("nominal",), ("normal", "far")])
def test_a_kind_is_called_alike_in_lists_and_in_figures(kinds) -> None:
    labels = (-1, 0, 1, 2)
    assert [kind_name(label, kinds) for label in labels] == [look(label, kinds).name for label in labels]


def test_every_drawing_has_a_name_and_is_documented_by_it() -> None:
    assert tuple(DRAWINGS) == NAMES
    root = Path(__file__).parents[1]
    text = "".join(path.read_text() for path in (root / "README.md", *(root / "docs").rglob("*.md")))
    assert [name for name in NAMES if f"`{name}`" not in text] == []


# which are drawn when


@pytest.mark.parametrize(
    ("what", "own"),
    [
        ("plane", {"plane", "detected"}),
        ("images", {"reconstructions", "latent_2d"}),
        ("line", {"extremes", "data"}),
        ("unlabelled", {"reconstructions", "latent_2d"}),
    ],
)
def test_the_essential_figures_are_five_at_most(ran, what, own) -> None:
    none = record(ran(what))["figures_none"]
    tried: list[str] = []
    each("essential", lambda name: name not in none and not tried.append(name))
    assert set(tried) == {"losses", "scores", "roc"} - set(none) | own


def test_a_run_draws_the_essential_ones_by_itself_and_lists_the_extremes(straylight_train) -> None:
    ended = straylight_train("detector=knn", "data=blobs", "callbacks.figures.only=essential")
    assert drawn(ended.run) == {"scores", "roc", "plane", "detected"}
    assert ended.result["figures_none"] == ["losses", "spectrum", "sculpting"]
    assert (ended.run / "figures" / "extremes.csv").is_file()


def test_essential_is_the_default() -> None:
    assert Figures("somewhere").only == "essential"
    root = Path(__file__).parents[1]
    assert yaml.safe_load((root / "conf/callbacks/default.yaml").read_text())["figures"]["only"] == "essential"


def test_jobs_of_a_sweep_draw_what_is_typed_and_else_nothing(straylight_train, capfd) -> None:
    lean = ["data=blobs", "hydra/launcher=basic", "callbacks.density=null", "logger=none"]
    typed = straylight_train("-m", "detector=knn", *lean, "callbacks.figures.only=roc", output="typed")
    assert drawn(typed.run) == {"roc"}
    default = straylight_train("-m", "detector=knn,pca", *lean, pictures=False, output="default")
    assert default.status == 0
    for result in default.results:
        run = Path(result["folder"])
        assert result["figures"] == [] and [p.name for p in (run / "figures").iterdir()] == ["extremes.csv"]
        assert yaml.safe_load((run / ".hydra/config.yaml").read_text())["callbacks"]["figures"]["only"] == []
    # and are drawn when they are asked for
    (sweep,) = {Path(result["folder"]).parent for result in default.results}
    assert redraw(sweep, "essential") == 0
    said = capfd.readouterr().out
    assert "[1/2] knn on blobs, seed 0: scores, roc, plane, detected, in" in said and "[2/2] pca" in said
    assert all(drawn(Path(result["folder"])) == {"scores", "roc", "plane", "detected"} for result in default.results)
    assert redraw(sweep, "essential") == 0
    assert capfd.readouterr().out.count("its figures are there") == 2


# drawn later


@pytest.mark.parametrize("what", RUNS)
def test_pictures_drawn_later_are_those_that_the_run_drew(copied, what, capsys) -> None:
    run = copied(what)
    before = {path.name: path.read_bytes() for path in (run / "figures").glob("*.png")}
    assert len(before) >= 3
    shutil.rmtree(run / "figures")
    scores = (run / "scores.parquet").read_bytes()
    kept = record(run)
    assert redraw(run, understood(config.opened(RunFolder(run)).callbacks.figures.only)) == 0, capsys.readouterr().err
    after = {path.name: path.read_bytes() for path in (run / "figures").glob("*.png")}
    assert set(after) == set(before)
    assert [name for name in before if after[name] != before[name]] == []
    assert record(run) == kept and (run / "scores.parquet").read_bytes() == scores


def test_only_what_is_missing_or_of_other_scores_is_drawn(copied, capsys, monkeypatch) -> None:
    run = copied("line")
    figures = run / "figures"
    (figures / "roc.png").unlink()
    with Image.open(figures / "scores.png") as picture:
        other = {**picture.info, "Scores": "0" * 64}
        told = PngInfo()
        for key in ("Run", "Scores"):
            told.add_text(key, other[key])
        picture.save(figures / "data.png", pnginfo=told)
    asked: list[str] = []
    for name, draw in list(DRAWINGS.items()):
        monkeypatch.setitem(DRAWINGS, name, lambda m, name=name, draw=draw: asked.append(name) or draw(m))
    assert redraw(run, "essential") == 0
    assert {"roc", "data"} <= set(asked) and not {"scores", "extremes"} & set(asked)
    asked.clear()
    monkeypatch.setattr("straylight.commands.redraw.data_of", lambda run: 1 / 0)
    assert redraw(run, "all") == 0 and not asked
    assert "its figures are there" in capsys.readouterr().out


def test_scores_are_not_computed_again_but_a_few_that_tell_whether_the_data_are_those(ran, monkeypatch) -> None:
    rows, folder = [], ran("line")
    score = KNN.score
    monkeypatch.setattr(KNN, "score", lambda self, x, *more: rows.append(len(x)) or score(self, x, *more))
    run = Run.open(folder)
    run.draw("scores"), run.draw("roc"), run.draw("extremes")
    assert sum(rows) == COMPARED
    np.testing.assert_array_equal(
        run.material.scores, RunFolder(run.folder).columns(run.folder / "scores.parquet")["score"]
    )


def test_a_run_draws_a_figure_by_name(ran) -> None:
    run = Run.open(ran("plane"))
    assert isinstance(run.draw("latent_2d"), Figure)
    assert [epoch for epoch, _ in run.material.losses["val/loss"]] == [1, 2]
    with pytest.raises(ValueError, match="there is no figure 'picture', but data, particles"):
        run.draw("picture")
    with pytest.raises(ValueError, match=r"the figure particles does not apply to a run of VAE on \(2,\)"):
        run.draw("particles")


def _gone(rows: Path) -> None:
    rows.unlink()


def _relabelled(rows: Path) -> None:
    kept = dict(np.load(rows))
    np.savez(rows, **{**kept, "y": np.where(np.arange(400) % 2, kept["y"], 1 - kept["y"])})


def _other_numbers(rows: Path) -> None:
    kept = dict(np.load(rows))
    np.savez(rows, **{**kept, "X": kept["X"][:, ::-1] * 3})


def _fewer(rows: Path) -> None:
    np.savez(rows, **{name: column[::2] for name, column in np.load(rows).items()})


def _other_columns(rows: Path) -> None:
    kept = dict(np.load(rows))
    np.savez(rows, **{**kept, "X": kept["X"][:, :4]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_gone, "keeps no copy of its data set, which cannot be loaded: "),
        (_relabelled, "was tested on other data than"),
        (_other_numbers, "rows that were tested have other scores"),
        (_fewer, "was tested on other data than"),
        (_other_columns, "events of shape (4,), and not (5,)"),
    ],
)
def test_data_that_are_gone_or_changed_are_refused_in_a_sentence(copied, tmp_path, change, said, capsys) -> None:
    run = copied("weighted")
    cfg = OmegaConf.load(run / ".hydra/config.yaml")
    rows = Path(shutil.copy(cfg.data.path, tmp_path / "mine.npz"))
    cfg.data.path = str(rows)
    OmegaConf.save(cfg, run / ".hydra/config.yaml")
    (run / "figures/roc.png").unlink()
    assert Run.open(run).draw("roc") is not None
    change(rows)
    capsys.readouterr()
    assert redraw(run, ("roc",)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("[1/1] pca on weighted, seed 0: left alone, its figures cannot be drawn: ") and said in line
    assert not (run / "figures/roc.png").exists()


@pytest.mark.parametrize("typed", [["--figures", "roc,scores", "RUN"], ["RUN", "--figures", "roc", "scores"]])
def test_the_command_draws_by_name(copied, typed, capsys) -> None:
    run = copied("line")
    shutil.rmtree(run / "figures")
    report([str(run) if word == "RUN" else word for word in typed])
    assert {path.stem for path in (run / "figures").iterdir()} == {"roc", "scores"}
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("[1/1] knn on gaussians_1d") and "knn on gaussians_1d, seed 0: ok" in said


def test_the_command_refuses_names_that_no_figure_has(ran, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        report([str(ran("line")), "--figures", "rock"])
    assert end.value.code == 1
    assert "Error: --figures knows data, particles" in (said := capsys.readouterr().err) and "and not rock." in said
    with pytest.raises(SystemExit) as end:
        report(["--figures"])
    assert end.value.code == 2 and "say which folder" in capsys.readouterr().err


# a figure changes nothing and fails nothing


def test_figures_change_no_score_and_no_later_random_number(straylight_train) -> None:
    import pyarrow.parquet as pq

    some = "callbacks.figures.only=[scores,samples,latent_2d,contributions]"
    with_them = straylight_train("detector=vae", "data=blobs", some, "callbacks.figures.every_n_epochs=1", output="a")
    without = straylight_train("detector=vae", "data=blobs", "callbacks.figures=null", output="b")
    assert with_them.status == without.status == 0
    assert pq.read_table(with_them.run / "scores.parquet").equals(pq.read_table(without.run / "scores.parquet"))
    assert with_them.result["metrics"] == without.result["metrics"]
    assert not (without.run / "figures").exists() and "figures" not in without.result
    assert (with_them.run / "figures" / "epoch_1" / "scores.png").is_file()


def test_a_figure_that_fails_is_reported_and_the_run_goes_on(straylight_train, monkeypatch) -> None:
    def fails(run: Material):
        raise RuntimeError("no ink\nleft")

    monkeypatch.setitem(DRAWINGS, "roc", fails)
    ended = straylight_train("detector=knn", "data=blobs", "callbacks.figures.only=[roc,precision_recall]")
    assert ended.status == 0 and ended.result["status"] == "ok"
    assert ended.result["figures_failed"] == {"roc": "RuntimeError: no ink left"}
    assert ended.result["figures"] == ["precision_recall"]
    assert "The figure roc was not drawn: RuntimeError: no ink left" in ended.out + ended.err


def test_a_folder_that_cannot_be_written_fails_no_run(straylight_train, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    some = ("callbacks.figures.only=[scores,roc]", f"callbacks.figures.folder={tmp_path}/file")
    ended = straylight_train("detector=knn", "data=blobs", *some)
    assert ended.status == 0 and ended.result["figures"] == []
    assert set(ended.result["figures_failed"]) == {"scores", "roc", "extremes.csv"}


def test_only_named_figures_are_drawn_and_unknown_names_refused(straylight_train) -> None:
    ended = straylight_train("detector=knn", "data=blobs", "callbacks.figures.only=[roc,latent_3d]")
    assert drawn(ended.run) == {"roc"}
    for wrong in ("[rock]", "rock", "[essential,rock]"):
        ended = straylight_train("detector=knn", "data=blobs", f"callbacks.figures.only={wrong}", output="wrong")
        assert ended.status == 1 and "callbacks.figures.only knows data, particles" in ended.err
        assert "and not " in ended.err and "rock" in ended.err


@pytest.mark.parametrize(
    ("only", "meant"),
    [
        ("roc", ("roc",)),
        (["roc", "data"], ("roc", "data")),
        ([], ()),
        (None, "all"),
        ("all", "all"),
        (["essential"], "essential"),
    ],
)
def test_what_is_asked_for(only, meant) -> None:
    assert understood(only) == Figures("somewhere", only).only == meant


@pytest.mark.parametrize("wrong", ["every_n_epochs=0", "dpi=0"])
def test_wrong_options_are_refused_in_a_sentence(straylight_train, wrong) -> None:
    ended = straylight_train("detector=knn", "data=blobs", f"callbacks.figures.{wrong}")
    assert ended.status == 1 and f"callbacks.figures.{wrong.partition('=')[0]} must be positive" in ended.err


def test_pictures_of_an_earlier_run_in_the_folder_do_not_stay(straylight_train, tmp_path) -> None:
    here = f"hydra.run.dir={tmp_path}/here"
    straylight_train("detector=vae", "data=blobs", "callbacks.figures.only=[latent_2d,roc]", here)
    assert (tmp_path / "here" / "figures" / "latent_2d.png").is_file()
    straylight_train("detector=knn", "data=blobs", "callbacks.figures.only=[latent_2d,roc]", here)
    assert sorted(p.name for p in (tmp_path / "here" / "figures").iterdir()) == ["extremes.csv", "roc.png"]


def test_losses_of_a_resumed_run_begin_where_they_began(straylight_train) -> None:
    first = straylight_train("detector=autoencoder", "data=blobs", "callbacks.figures.only=[losses]", epochs=2)
    kept: dict[str, list] = {}
    before = drawings.figures.loss_curves
    try:
        drawings.figures.loss_curves = lambda losses: kept.update(losses) or before(losses)
        again = straylight_train(f"resume={first.run}", "trainer.max_epochs=4")
    finally:
        drawings.figures.loss_curves = before
    assert again.status == 0
    assert [epoch for epoch, _ in kept["train/loss"]] == [1, 2, 3, 4]
    assert set(kept) >= {"train/loss", "val/loss"} and "train/lr" not in kept
    assert Run.open(first.run).material.losses == kept


# what is drawn from


def material(scores, y, meta=None, **data) -> Material:
    n = len(scores)
    test = SimpleNamespace(x=torch.zeros(n, 2), context=torch.zeros(n, 0), meta=meta or {})
    held = SimpleNamespace(splits=SimpleNamespace(test=test), shape=(2,), kinds=("nominal", "A", "B"), **data)
    return Material(Scores(np.arange(n), np.asarray(scores, np.float32), np.asarray(y)), None, held)


def test_extremes_are_disjoint_sorted_and_stable() -> None:
    run = material([3, np.inf, 1, 1, 5, 1, -np.inf], [0] * 7)
    strangest, ordinary = run.extremes(3)
    assert strangest.tolist() == [1, 4, 0] and ordinary.tolist() == [6, 2, 3]
    assert [part.tolist() for part in material([1.0], [0]).extremes(100)] == [[], []]


def test_classes_are_a_column_that_tells_more_than_the_kinds() -> None:
    y = np.array([0, 0, 1, 2])
    assert material(y, y, {"digit": np.array([5, 5, 7, 8])}).classes is None
    found = material(y, y, {"group": np.arange(4), "digit": np.array([5, 6, 7, 8])}).classes
    assert found.name == "digit" and found.values.tolist() == [5, 6, 7, 8]
    assert material(np.zeros(100), np.zeros(100, int), {"id": np.arange(100)}).classes is None


# TensorBoard


def test_points_of_the_projector_are_even_among_kinds() -> None:
    y = np.repeat([0, 1, 2], [10_000, 3000, 50])
    chosen = spread(y, 5000)
    assert np.bincount(y[chosen]).tolist() == [2475, 2475, 50]
    assert len(np.unique(chosen)) == 5000 and (np.diff(chosen) > 0).all()
    assert spread(y, 10**6).tolist() == list(range(13_050))


def test_sprites_are_square_and_small_enough_together() -> None:
    images = torch.rand(4000, 1, 200, 100)
    found = sprites(images)
    assert found.shape[0] == 4000 and found.shape[2] == found.shape[3] <= 8192 // 64
    assert found.min() >= 0 and found.max() <= 1
    assert sprites(torch.rand(4, 57)) is None


@pytest.fixture(scope="module")
def run_of_twenty_epochs(tmp_path_factory):
    """A VAE on images for 20 epochs with figures, the network's graph, a projector; a second run beside it."""
    root = tmp_path_factory.mktemp("tensorboard")
    command = [sys.executable, "-m", "straylight", "train", "-m", "detector=vae", "data=digits", "seed=0,1"]
    command += ["trainer.max_epochs=20", f"hydra.sweep.dir={root}/sweep", "callbacks.tensorboard.graph=true"]
    command += ["callbacks.figures.only=[scores,roc,latent_2d]"]
    command += ["callbacks.latency.runtimes=[eager]", "callbacks.latency.budget_s=0.01"]
    with closing(Programs()) as fresh:
        ended = fresh.run(command, cwd=root)
    assert ended.returncode == 0, ended.stderr
    yield root / "sweep"
    shutil.rmtree(root)


def events_of(run) -> EventAccumulator:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return EventAccumulator(str(*RunFolder(run).events()), size_guidance={"scalars": 0, "images": 0}).Reload()


def test_event_files_hold_every_tag_and_stay_small(run_of_twenty_epochs) -> None:
    run = run_of_twenty_epochs / "0"
    result = json.loads((run / "result.json").read_text())
    events = events_of(run)
    tags = events.Tags()
    assert {f"figures/{name}" for name in result["figures"]} == set(tags["images"]) and len(tags["images"]) == 3
    assert {"Loss/train", "Loss/val", "Loss/train/kl", "training/lr"} <= set(tags["scalars"])
    assert len(events.Scalars("Loss/train")) == 20
    assert tags["graph"]
    for name in result["figures"]:
        (image,) = events.Images(f"figures/{name}")
        assert image.encoded_image_string == (run / "figures" / f"{name}.png").read_bytes()
        with Image.open(io.BytesIO(image.encoded_image_string)) as picture:
            assert picture.size == (image.width, image.height)
    size = sum(path.stat().st_size for path in run.rglob("*tfevents*"))
    assert size < 20e6


def test_the_projector_has_a_line_of_labels_for_every_point(run_of_twenty_epochs) -> None:
    (folder,) = RunFolder(run_of_twenty_epochs / "0").events()
    config = (folder / "projector_config.pbtxt").read_text()
    (vectors,), (labels,) = (list(folder.rglob(name)) for name in ("tensors.tsv", "metadata.tsv"))
    assert vectors.relative_to(folder).as_posix() in config and labels.relative_to(folder).as_posix() in config
    points = np.loadtxt(vectors, delimiter="\t")
    lines = labels.read_text().splitlines()
    assert lines[0].split("\t") == ["kind", "score", "index", "file", "row", "digit"]
    assert all(len(line.split("\t")) == 6 for line in lines)
    assert points.shape == (len(lines) - 1, 8) and len(points) <= 5000
    (sprite,) = folder.rglob("sprite.png")
    with Image.open(sprite) as picture:
        side = int(np.ceil(np.sqrt(len(points))))
        assert picture.size == (8 * side, 8 * side) and max(picture.size) <= 8192


def test_a_running_tensorboard_serves_every_tag(run_of_twenty_epochs, fresh) -> None:
    result = json.loads((run_of_twenty_epochs / "0" / "result.json").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run_of_twenty_epochs)]
    command += ["--port", str(port), "--host", "127.0.0.1", "--load_fast", "false"]
    server = fresh.start(command, silent=True)

    def ask(path: str, body: dict | None = None):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/data/{path}")
        if body is not None:
            request.data, request.headers["Content-type"] = json.dumps(body).encode(), "application/json"
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def until(path: str, enough):
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                if enough(found := ask(path)):
                    return found
            except OSError:
                pass
            assert server.poll() is None, "TensorBoard ended"
            time.sleep(0.3)
        raise AssertionError(f"TensorBoard did not serve {path} in 90 s")

    try:
        runs = {"0/vae seed=0", "1/vae seed=1"}
        # it serves what it has read so far
        figures, numbers = {f"figures/{name}" for name in result["figures"]}, {"Loss/train", "Loss/val"}
        until("plugin/images/tags", lambda found: all(figures <= set(found.get(run, ())) for run in runs))
        until("plugin/scalars/tags", lambda found: all(numbers <= set(found.get(run, ())) for run in runs))
        name = "figures/roc"
        (picture,) = ask(f"plugin/images/images?tag={name}&run=0%2Fvae%20seed%3D0&sample=0")
        url = f"http://127.0.0.1:{port}/data/plugin/images/individualImage?{picture['query']}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert answer.read() == (run_of_twenty_epochs / "0" / "figures" / "roc.png").read_bytes()
        experiment = ask("plugin/hparams/experiment", {"experimentName": "", "hparamsLimit": 0})
        columns = [h["displayName"] for h in experiment["hparamInfos"]]
        assert columns[:5] == ["detector", "data", "seed", "test/auroc", "test/ap"] and "detector.latent" in columns
        assert [m["name"]["tag"] for m in experiment["metricInfos"]] == ["Loss/val", "Loss/train"]
        groups = ask(
            "plugin/hparams/session_groups",
            {"experimentName": "", "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS"], "colParams": []}
            | {"startIndex": 0, "sliceSize": 10},
        )
        assert len(groups["sessionGroups"]) == 2  # a line for each run of the sweep
        names = {h["displayName"]: h["name"] for h in experiment["hparamInfos"]}
        found = {g["hparams"][names["seed"]]: g["hparams"][names["test/auroc"]] for g in groups["sessionGroups"]}
        expected = {
            n: json.loads((run_of_twenty_epochs / n / "result.json").read_text())["metrics"]["test/auroc"] for n in "01"
        }
        assert found == expected
        points = ask("plugin/projector/info?run=0%2Fvae%20seed%3D0")
        assert points["embeddings"][0]["tensorName"].startswith("latents")
        assert points["embeddings"][0]["sprite"]["singleImageDim"] == [8, 8]
        url = f"http://127.0.0.1:{port}/data/plugin/graphs/graph?run=0%2Fvae%20seed%3D0"
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert b"encoder" in answer.read()
    finally:
        server.terminate()
        server.wait(timeout=20)


def test_a_projector_of_fewer_points_is_kept_to_it(straylight_train) -> None:
    ended = straylight_train("detector=vae", "data=blobs", "callbacks.tensorboard.max_points=50")
    (vectors,) = ended.run.rglob("tensors.tsv")
    assert len(vectors.read_text().splitlines()) == 50
    ended = straylight_train("detector=vae", "data=blobs", "callbacks.tensorboard.max_points=-1")
    assert ended.status == 1 and "max_points must not be negative" in ended.err


def test_an_embedding_that_fails_fails_no_run(straylight_train, monkeypatch) -> None:
    monkeypatch.setattr("straylight.callbacks.tensorboard.sprites", lambda events: 1 / 0)
    ended = straylight_train("detector=vae", "data=blobs", "callbacks.tensorboard.max_points=5000")
    assert ended.status == 0 and ended.result["status"] == "ok"
    assert "The embedding was not logged to TensorBoard: ZeroDivisionError" in ended.out + ended.err


def test_callbacks_can_be_built_by_hand() -> None:
    assert Figures("somewhere").result() == {"losses": {}, "figures": []}
    with pytest.raises(ValueError, match="max_points"):
        TensorBoard(max_points=-1)
