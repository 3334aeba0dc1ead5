"""What loggers call a run, and what they wrote of one that is gone on with."""

import csv
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.loggers import CSVLogger, Logger

from straylight import config
from straylight.callbacks import EventLog, Tracker
from straylight.callbacks.tracker import Tracked
from straylight.folder import RunFolder, SweepFolder
from straylight.keys import NAMED, Kind, entry, key_of
from straylight.overrides import value_of

STORES = ("mlflow.db", "mlruns")  # of what is kept of many runs
LONGEST = 120  # characters of a name


def title(fields: Mapping[str, Any], *, data: bool = False) -> str:
    """What tells a run from others, in a few words that can be a folder's name.

    In a sweep that is what it ranges over; of a run by itself, all that was typed that changes what is computed.

    Args:
        fields: what `result.json` says of what was asked for; see `straylight.job.order.fields_of`.
        data: whether the data set is named, though a sweep does not range over it.

    Example:
        >>> asked = ["detector=vae", "data=blobs", "detector.latent=2", "seed=1"]
        >>> known = {"detector": "vae", "data": "blobs", "seed": 1, "overrides": asked}
        >>> title({**known, "ranged": ["detector", "seed"]}), title(known)
        ('vae seed=1', 'vae blobs latent=2 seed=1')
    """
    overrides, ranged = list(fields.get("overrides") or ()), set(fields.get("ranged") or ())
    computed = {key for key in map(key_of, overrides) if entry(key).kind is Kind.MEANING}
    named = ranged or {key for key in computed if not key.startswith("callbacks")}
    words = [str(fields.get("detector") or "run")]
    if fields.get("data") and (data or not ranged or "data" in ranged):
        words.append(str(fields["data"]))
    for override in overrides:
        if (key := key_of(override)) in named and key not in NAMED and key != "seed":
            value = value_of(override)
            value = Path(value).stem if entry(key).path and isinstance(value, str) else value
            words.append(f"{key.rpartition('.')[2]}={value}")
    last = f" seed={fields.get('seed')}"
    return re.sub(r"[^\w .,=+()\[\]@-]", "_", " ".join(words))[: LONGEST - len(last)].strip(" .") + last


def call(loggers: Iterable[Logger], folder: RunFolder, fields: Mapping[str, Any]) -> None:
    """Have TensorBoard call the run by what tells it from others; as before, if it is gone on with."""
    for logger in loggers:
        if isinstance(logger, EventLog) and not logger.named:
            before = [path.name for path in folder.events()]
            logger.rename(before[0] if before else title(fields))


def go_on(loggers: Iterable[Logger]) -> None:
    """Have the loggers of the first rank write behind what they wrote before; Lightning's CSVLogger would delete it."""
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            before = Path(logger.log_dir, "metrics.csv")
            rows = []
            if before.is_file():
                with before.open(newline="", encoding="utf-8") as file:
                    rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Experiment logs directory")
                logger.experiment.metrics[:0] = rows  # texts, which are written as they are


def tracked(cfg: DictConfig, folder: RunFolder, fields: Mapping[str, Any], *, again: bool = False) -> Tracked:
    """What a tracker is told of a run.

    Args:
        cfg: its config.
        folder: of the run.
        fields: see `title`.
        again: whether it is gone on with. Its config may be somebody else's then, and no store is made by what it says.
    """
    here, output = folder.path.absolute(), Path(str(cfg.paths.output)).absolute()
    shared = here.is_relative_to(output) and (not again or any((output / name).exists() for name in STORES))
    group = next((path for path in here.parents if _of_sweep(path)), None)
    if group is not None and group != output and group.is_relative_to(output):
        called: str | None = str(group.relative_to(output))  # sweeps/2026-11-23_10-00-00-000000
    else:
        called = None if group is None else group.name
    leading, rest = _asked(cfg, fields)
    return Tracked(folder.run, title(fields, data=True), called, here, output if shared else here, {**leading, **rest})


def _of_sweep(path: Path) -> bool:
    """Whether a folder is a sweep's."""
    place = SweepFolder(path)
    return place.manifests.is_dir() or place.multirun.is_file()


def begin(loggers: Iterable[Logger], run: Tracked) -> None:
    """Tell those of the first rank that keep many runs beside each other that one begins, or goes on."""
    for logger in loggers:
        if isinstance(logger, Tracker):
            logger.begin(run)


@contextmanager
def closing(loggers: Iterable[Logger]) -> Iterator[None]:
    """Have these end their runs if what is done in the meantime fails."""
    try:
        yield
    except BaseException:
        for logger in loggers:
            if isinstance(logger, Tracker):
                logger.close(failed=True)
        raise


def _asked(cfg: DictConfig, fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run was asked for: what tells it from others, and all else."""
    overrides = {key_of(override): value_of(override) for override in fields.get("overrides") or ()}
    leading = {"detector": fields.get("detector", ""), "data": fields.get("data", ""), "seed": str(cfg.seed)}
    rest = config.flat(cfg, "detector", "data", "optimizer", "trainer")
    leading |= {key: rest.get(key, overrides.get(key, "")) for key in fields.get("ranged") or () if key not in leading}
    return leading, rest


def conclude(loggers: Iterable[Logger], cfg: DictConfig, result: Mapping[str, Any]) -> None:
    """What a run was asked for and what it reached, once, so that TensorBoard's table has a finished line per run."""
    leading, rest = _asked(cfg, result)
    final = {name: value for name, value in result.get("metrics", {}).items() if isinstance(value, float)}
    for logger in loggers:
        if isinstance(logger, EventLog):
            logger.conclude(leading, rest, final)
        elif isinstance(logger, Tracker):
            logger.conclude(result, final)
        else:
            logger.log_hyperparams({**leading, **rest})
            logger.save()
