"""What loggers call a run, and what they wrote of one that is gone on with."""

import csv
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.loggers import CSVLogger, Logger

from straylight import config
from straylight.callbacks import EventLog
from straylight.folder import RunFolder
from straylight.keys import NAMED, Kind, entry, key_of
from straylight.overrides import value_of

LONGEST = 120  # characters of a name


def title(fields: Mapping[str, Any]) -> str:
    """What tells a run from others, in a few words that can be a folder's name.

    In a sweep that is what it ranges over; of a run by itself, all that was typed that changes what is computed.

    Args:
        fields: what `result.json` says of what was asked for; see `straylight.job.order.fields_of`.

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
    if fields.get("data") and (not ranged or "data" in ranged):
        words.append(str(fields["data"]))
    for override in overrides:
        if (key := key_of(override)) in named and key not in NAMED and key != "seed":
            value = value_of(override)
            words.append(f"{key.rpartition('.')[2]}={Path(value).stem if entry(key).path else value}")
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


def conclude(loggers: Iterable[Logger], cfg: DictConfig, result: Mapping[str, Any]) -> None:
    """What a run was asked for and what it reached, once, so that TensorBoard's table has a finished line per run."""
    overrides = {key_of(override): value_of(override) for override in result.get("overrides") or ()}
    leading = {"detector": result.get("detector", ""), "data": result.get("data", ""), "seed": str(cfg.seed)}
    rest = config.flat(cfg, "detector", "data", "optimizer", "trainer")
    leading |= {key: rest.get(key, overrides.get(key, "")) for key in result.get("ranged") or () if key not in leading}
    final = {name: value for name, value in result.get("metrics", {}).items() if isinstance(value, float)}
    for logger in loggers:
        if isinstance(logger, EventLog):
            logger.conclude(leading, rest, final)
        else:
            logger.log_hyperparams({**leading, **rest})
            logger.save()
