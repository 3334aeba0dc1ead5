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
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fresh import Programs
from straylight.callbacks import Figures, TensorBoard, drawings
from straylight.callbacks.drawings import DRAWINGS
from straylight.callbacks.material import Material
from straylight.callbacks.scored import Scores
from straylight.callbacks.tensorboard import spread, sprites
from straylight.folder import RunFolder

SCORED = {"scores", "selected", "roc", "precision_recall", "extremes"}
ALL = ("callbacks.figures.only=null", "callbacks.tensorboard.max_points=5000")


def drawn(ended) -> set[str]:
    """The names of a run's pictures, which the record has, too."""
    found = {path.stem for path in (ended.run / "figures").glob("*.png")}
    assert set(ended.result["figures"]) == found and "figures_failed" not in ended.result
    for path in (ended.run / "figures").glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200, path
            assert np.asarray(picture.convert("L")).std() > 3, f"{path} is blank"
    return found


# which apply


def test_a_plane_with_a_latent_space_has_its_figures(straylight_train) -> None:
    ended = straylight_train("detector=vae", "data=blobs", "detector.latent=3", *ALL)
    plane = {"data", "plane", "detected", "confusion", "contributions"}
    codes = {"latent_2d", "latent_3d", "latent_normal", "manifold", "samples", "reconstructions", "losses"}
    assert drawn(ended) - {"significance"} == SCORED | plane | codes


def test_a_flow_has_latents_and_samples_and_no_reconstruction(straylight_train) -> None:
    ended = straylight_train(
        "detector=maf", "data=gaussians", "data.events=4000", "callbacks.ranking.every_n_epochs=1", *ALL
    )
    found = drawn(ended)
    assert {"latent_2d", "latent_normal", "samples", "plane", "auroc_by_epoch", "losses"} <= found
    assert not found & {"latent_3d", "reconstructions", "manifold", "particles"}


def test_images_are_shown_as_images(straylight_train, monkeypatch) -> None:
    shapes = {}
    for name in ("extremes", "reconstructions", "samples", "contributions"):
        draw = getattr(drawings.figures, name)
        monkeypatch.setattr(
            drawings.figures,
            name,
            lambda x, *a, name=name, draw=draw, **k: shapes.setdefault(name, np.shape(x)) and draw(x, *a, **k),
        )
    ended = straylight_train("detector=vae", "data=digits", *ALL)
    assert drawn(ended) >= SCORED | {"reconstructions", "manifold", "samples", "contributions"}
    assert shapes == {
        "extremes": (100, 1, 8, 8),
        "reconstructions": (10, 1, 8, 8),
        "samples": (64, 1, 8, 8),
        "contributions": (10, 1, 8, 8),
    }
    assert not (ended.run / "figures" / "extremes.csv").exists()


def test_a_detector_without_codes_has_none_and_one_dimension_is_a_histogram(straylight_train) -> None:
    found = drawn(straylight_train("detector=knn", "data=gaussians_1d", "data.events=2000", *ALL))
    assert found - {"significance", "confusion"} == SCORED | {"data"}


def test_a_latent_search_of_many_points_is_not_asked_for_contours(straylight_train) -> None:
    ended = straylight_train("detector=anogan", "data=blobs", "data.nominal=200", *ALL, epochs=2)
    assert ended.status == 0, ended.err
    assert {"data", "scores", "plane"} <= drawn(ended)


def test_hidden_labels_leave_what_needs_none(straylight_train, tmp_path) -> None:
    rows = np.random.default_rng(0).normal(size=(400, 5))
    np.savez(tmp_path / "rows.npz", X=rows)
    ended = straylight_train("detector=autoencoder", "data=file", f"data.path={tmp_path}/rows.npz", *ALL)
    if ended.status:
        pytest.skip(f"a file without labels is not for this protocol: {ended.err}")
    found = drawn(ended)
    assert {"data", "scores", "selected", "extremes", "latent_2d", "losses"} <= found
    assert not found & {"roc", "precision_recall", "significance", "confusion"}


def test_the_strangest_rows_are_listed_with_their_scores(straylight_train) -> None:
    import pyarrow.parquet as pq

    ended = straylight_train("detector=knn", "data=blobs", *ALL)
    with (ended.run / "figures" / "extremes.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = pq.read_table(ended.run / "scores.parquet").to_pydict()
    score = dict(zip(scores["index"], scores["score"], strict=True))
    kind = dict(zip(scores["index"], scores["kind"], strict=True))
    strangest = [row for row in rows if row["end"] == "strangest"]
    assert [int(r["rank"]) for r in strangest] == list(range(1, 101)) and len(rows) == 200
    assert [np.float32(r["score"]) for r in strangest] == sorted(score.values(), reverse=True)[:100]
    assert [np.float32(r["score"]) for r in rows[100:]] == sorted(score.values())[:100]
    assert all(score[int(r["row"])] == np.float32(r["score"]) and kind[int(r["row"])] == r["kind"] for r in rows)
    assert {"x1", "x2"} <= set(rows[0])


def test_every_drawing_is_documented_by_its_name() -> None:
    from pathlib import Path

    text = (Path(__file__).parents[1] / "docs" / "figures.md").read_text()
    assert [name for name in DRAWINGS if f"`{name}`" not in text] == []


# a figure changes nothing and fails nothing


def test_figures_change_no_score_and_no_later_random_number(straylight_train) -> None:
    import pyarrow.parquet as pq

    with_them = straylight_train("detector=vae", "data=blobs", *ALL, "callbacks.figures.every_n_epochs=1", output="a")
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
    ended = straylight_train("detector=knn", "data=blobs", *ALL)
    assert ended.status == 0 and ended.result["status"] == "ok"
    assert ended.result["figures_failed"] == {"roc": "RuntimeError: no ink left"}
    assert "roc" not in ended.result["figures"] and "precision_recall" in ended.result["figures"]
    assert "The figure roc was not drawn: RuntimeError: no ink left" in ended.out + ended.err


def test_a_folder_that_cannot_be_written_fails_no_run(straylight_train, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    ended = straylight_train("detector=knn", "data=blobs", *ALL, f"callbacks.figures.folder={tmp_path}/file")
    assert ended.status == 0 and ended.result["figures"] == []
    assert set(ended.result["figures_failed"]) >= SCORED


def test_only_named_figures_are_drawn_and_unknown_names_refused(straylight_train) -> None:
    ended = straylight_train("detector=knn", "data=blobs", "callbacks.figures.only=[roc,latent_3d]")
    assert drawn(ended) == {"roc"}
    ended = straylight_train("detector=knn", "data=blobs", "callbacks.figures.only=[rock]")
    assert ended.status == 1 and "callbacks.figures.only knows data, particles" in ended.err
    assert "and not rock" in ended.err


@pytest.mark.parametrize("wrong", ["every_n_epochs=0", "dpi=0"])
def test_wrong_options_are_refused_in_a_sentence(straylight_train, wrong) -> None:
    ended = straylight_train("detector=knn", "data=blobs", f"callbacks.figures.{wrong}")
    assert ended.status == 1 and f"callbacks.figures.{wrong.partition('=')[0]} must be positive" in ended.err


def test_pictures_of_an_earlier_run_in_the_folder_do_not_stay(straylight_train, tmp_path) -> None:
    here = f"hydra.run.dir={tmp_path}/here"
    straylight_train("detector=vae", "data=blobs", "callbacks.figures.only=[latent_2d,roc]", here)
    assert (tmp_path / "here" / "figures" / "latent_2d.png").is_file()
    straylight_train("detector=knn", "data=blobs", "callbacks.figures.only=[latent_2d,roc]", here)
    assert [p.name for p in (tmp_path / "here" / "figures").iterdir()] == ["roc.png"]


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
    """A VAE on images for 20 epochs with all figures, the network's graph, a projector; a second run beside it."""
    root = tmp_path_factory.mktemp("tensorboard")
    command = [sys.executable, "-m", "straylight", "train", "-m", "detector=vae", "data=digits", "seed=0,1"]
    command += ["trainer.max_epochs=20", f"hydra.sweep.dir={root}/sweep", "callbacks.tensorboard.graph=true"]
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
    assert {f"figures/{name}" for name in result["figures"]} == set(tags["images"]) and len(tags["images"]) >= 12
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
    assert lines[0].split("\t")[:3] == ["kind", "score", "row"]
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
    ended = straylight_train("detector=vae", "data=blobs", *ALL, "callbacks.figures.only=[]")
    assert ended.status == 0 and ended.result["status"] == "ok"
    assert "The embedding was not logged to TensorBoard: ZeroDivisionError" in ended.out + ended.err


def test_callbacks_can_be_built_by_hand() -> None:
    assert Figures("somewhere").result() == {"figures": []}
    with pytest.raises(ValueError, match="max_points"):
        TensorBoard(max_points=-1)
