"""The material of a finished run's figures, from what it kept: its scores, its losses, its record and its data set."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from straylight import config
from straylight.callbacks.material import Material
from straylight.callbacks.scored import Scores, weights_of_split
from straylight.errors import ConfigError, StraylightError
from straylight.folder import RunFolder
from straylight.job.checkpoints import read_checkpoint
from straylight.report.kept import calibration_of

if TYPE_CHECKING:
    from straylight.run import Run

COMPARED, TOLERANCE = 8, 1e-2  # rows whose scores tell whether the data are still those, and how near they must be


def data_of(run: Run) -> Any:
    """The data set of a run, as its config says, loaded.

    Raises:
        ConfigError: if it is not to be had.
    """
    told = logging.getLogger("straylight.data")
    level = told.level
    try:
        told.setLevel(logging.ERROR)  # its notices stand in the record
        data = config.build(run.cfg, "data")
        if "seed" not in run.cfg.data:
            data.seed = run.cfg.seed
        data.setup()
    except (StraylightError, OSError) as error:
        raise ConfigError(
            f"{run.folder} keeps no copy of its data set, which cannot be loaded: {' '.join(str(error).split())}"
        ) from error
    finally:
        told.setLevel(level)
    return data


def material_of(run: Run, data: Any) -> Material:
    """What the figures of a finished run are drawn from; its scores as they were written, none is computed anew.

    Args:
        run: opened.
        data: its data set, see `data_of`.

    Raises:
        ConfigError: if the run kept no scores, or these are not the data that it was tested on.
    """
    place = RunFolder(run.folder)
    if not place.scores.is_file():
        raise ConfigError(f"{place} holds no scores ({place.scores.name}), of which figures are drawn.")
    columns = place.columns(place.scores, lambda name: name in Scores._fields or name.startswith("member_"))
    members = [columns[name] for name in columns if name.startswith("member_")]
    scores = Scores(columns["index"], columns["score"], columns["y"], np.stack(members, 1) if members else None)
    if (changed := _changed(run, data, scores)) is not None:
        raise ConfigError(f"{place} was tested on other data than {data.name} serves now: {changed}.")
    weight = weights_of_split(data.splits.test, scores.index)
    held = calibration_of(place)
    known: Any = {"weight": weight, "measured": run.result, "losses": _losses(place), "calibration": held}
    return Material(scores, run.detector, data, **known)


def _losses(place: RunFolder) -> dict[str, list[tuple[float, float]]]:
    """By epoch, of the last checkpoint, which knows all of them; none where the run kept none."""
    found = next((path for name in ("last", "best") if (path := place.checkpoint(name)).is_file()), None)
    kept = {} if found is None else read_checkpoint(found).get("losses_by_epoch", {})
    return {name: [(epoch, value) for epoch, value in pairs] for name, pairs in kept.items()}


def _changed(run: Run, data: Any, scores: Scores) -> str | None:
    """How the test rows differ from those that were tested, in words; None if they do not."""
    test, known = data.splits.test, run.known
    if tuple(data.shape) != tuple(known["shape"]) or data.context != known["context"]:
        return f"events of shape {tuple(data.shape)}, and not {tuple(known['shape'])}"
    if list(data.kinds) != list(known["kinds"]):
        return f"kinds {', '.join(data.kinds)}, and not {', '.join(known['kinds'])}"
    if (recipe := known.get("recipe")) and _encoding(json.loads(json.dumps(data.recipe()))) != _encoding(recipe):
        return "its columns, or how they are encoded, are others"
    if len(scores.index) and int(scores.index.max()) >= len(test):
        return f"{len(test):,} test rows, and row {int(scores.index.max()):,} was scored"
    if (test.y.numpy()[scores.index] != scores.y).any():
        return "its test rows have other labels"
    # numbers may have changed where labels have not: a few rows are scored and compared
    places = np.unique(np.linspace(0, len(scores.index) - 1, min(COMPARED, len(scores.index))).astype(np.intp))
    rows = torch.from_numpy(scores.index[places])
    with as_tested(run), torch.no_grad():
        x, context = (part.index_select(0, rows).to(run.detector.device) for part in (test.x, test.context))
        now = run.detector(x, context).float().cpu().numpy().astype(np.float64)
    then = scores.score[places].astype(np.float64)
    finite = np.isfinite(then)
    scale = np.maximum(np.abs(then[finite]), float(np.std(scores.score[np.isfinite(scores.score)], dtype=np.float64)))
    if (np.abs(now[finite] - then[finite]) > TOLERANCE * scale).any():
        return "rows that were tested have other scores"
    return None


def _encoding(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe says but for what the numbers of training rows are."""
    return {name: value for name, value in recipe.items() if name != "medians"}


@contextmanager
def as_tested(run: Run) -> Iterator[None]:
    """Scores as they were computed in the test: with as many threads, and in its precision."""
    threads = torch.get_num_threads()
    precision: Any = (run.cfg.get("trainer") or {}).get("precision") or "32-true"
    try:
        if run.cfg.get("threads") is not None:
            torch.set_num_threads(run.cfg.threads)
        here = run.detector.device.type
        if str(precision) in ("32-true", "32") or not str(run.result.get("device") or here).startswith(here):
            yield
            return
        import pytorch_lightning as pl
        from lightning_fabric.plugins.environments import LightningEnvironment

        off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        quiet: Any = dict.fromkeys(off, False)
        plugin = pl.Trainer(
            accelerator=here, devices=1, precision=precision, plugins=[LightningEnvironment()], **quiet
        ).precision_plugin
        plugin.convert_module(run.detector)
        with plugin.forward_context():
            yield
    finally:
        torch.set_num_threads(threads)
