"""A detector and a data set by their names and settings, as `straylight train` would compose them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf, open_dict

from straylight import config
from straylight.checks import meant
from straylight.data import AnomalyDataModule, Frame
from straylight.detectors import Detector
from straylight.errors import ConfigError
from straylight.files.held import is_held
from straylight.groups import FOLDER, choices

#: Groups whose settings may be named, and what is asked for otherwise.
SETTINGS = ("detector", "data", "optimizer")
ELSEWHERE = {"path": "give the path in the place of the frame", "seed": "give it as seed=..."}


class Parts(NamedTuple):
    """What is trained, and on what.

    Attributes:
        data: built.
        detector: built when the data are loaded, whose shape it is for.
    """

    data: AnomalyDataModule
    detector: Callable[[], Detector]


def parts(detector: Any, data: Any, seed: int, settings: Mapping[str, Any]) -> Parts:
    """Take objects as they are, and build what is named.

    Args:
        detector: one, or the name of its config, such as `vae`.
        data: a data set; the name of its config, such as `digits`; the path of a file; or what is in memory, see
            `straylight.data.Frame`.
        seed: of splits, initial weights, shuffling and noise.
        settings: of the detector, the data set and the optimiser, by their names.

    Raises:
        ConfigError: if there is no such name, no such setting, or a value does not fit.
        DataError: if the data are of another kind.
    """
    named, served = isinstance(detector, str), not isinstance(data, AnomalyDataModule)
    if not (named or served):
        if settings:
            raise ConfigError(
                f"{min(settings)} is a setting of what is named, and both the detector and the data set are built."
            )
        return Parts(data, lambda: detector)
    if not (named or isinstance(detector, Detector)):
        raise ConfigError(f"the detector is a {type(detector).__name__}; give one of ours, or the name of one.")
    group = _group(data) if served else None
    cfg = _composed(detector if named else None, group)
    open_groups = [g for g in SETTINGS if (named or g == "data") and (served or g != "data")]
    frame = served and group == "file" and is_held(data)
    extra = _put(cfg, settings, open_groups, {"test": None, "label": None, "name": None} if frame else {})
    with open_dict(cfg):
        cfg.seed = seed
        if served and group == "file" and not frame:
            cfg.data.path = str(data)
    config.settle_paths(cfg)
    config.check(cfg)
    pl.seed_everything(seed, verbose=False)
    if frame:
        node: Any = OmegaConf.to_container(cfg.data, resolve=True)
        roles = {key: v for key, v in node.items() if key not in ("_target_", "path", "test_path", "csv", "label")}
        data = Frame(data, **roles, **extra)
    elif served:
        data = config.build(cfg, "data")

    def build() -> Detector:
        optimizer = config.build(cfg, "optimizer")
        return config.build(cfg, "detector", shape=data.shape, context=data.context, optimizer=optimizer)

    return Parts(data, build if named else lambda: detector)


def _group(data: Any) -> str:
    """The config that serves what was given as data."""
    if isinstance(data, str) and data in (known := choices("data")):
        return data
    if isinstance(data, str) and not Path(data).exists() and not Path(data).suffix:
        raise ConfigError(f"there is no data set and no file {data!r}{meant(data, known)}.")
    if not (isinstance(data, str | Path) or is_held(data)):
        raise ConfigError(
            f"the data are a {type(data).__name__}; give a table of pandas, polars or pyarrow, an array of numpy, the "
            "path of a file, the name of a data set, or a data set of ours."
        )
    return "file"


def _composed(detector: str | None, data: str | None) -> DictConfig:
    """The config of a run of these; where one is not named, of anything."""
    from hydra import compose, initialize_config_dir

    if detector is not None and detector not in (known := choices("detector")):
        raise ConfigError(f"there is no detector {detector!r}{meant(detector, known)}; there are {', '.join(known)}.")
    chosen = {"detector": detector, "data": data}
    overrides = [f"{group}={name}" for group, name in chosen.items() if name is not None]
    with initialize_config_dir(str(FOLDER), version_base=config.HYDRA):
        cfg = compose("train", [*overrides, "paths.run=.", "logger=none", "callbacks=numbers"])
    with open_dict(cfg):
        cfg.callbacks = {}
    return cfg


def _put(cfg: DictConfig, settings: Mapping[str, Any], groups: list[str], beside: Mapping[str, Any]) -> dict[str, Any]:
    """Put settings where they belong; those that no config holds come back."""
    extra = dict[str, Any]()
    takes = {group: config.takes(cfg[group]) for group in groups}
    for key, value in settings.items():
        if key in beside:
            extra[key] = value
            continue
        group, dot, rest = key.partition(".")
        place = [group] if dot and group in groups else [g for g in groups if key in takes[g]]
        if key in ELSEWHERE:
            raise ConfigError(f"{key} is no setting here: {ELSEWHERE[key]}.")
        if not place:
            known = [name for group in groups for name in takes[group] if name not in ELSEWHERE]
            raise ConfigError(
                f"There is no setting {key!r}{meant(key, [*known, *beside])}; there are "
                + "; ".join(f"of the {g} {', '.join(n for n in takes[g] if n not in ELSEWHERE)}" for g in groups)
                + "."
            )
        if len(place) > 1:
            first, second = (f"**{{'{g}.{key}': ...}}" for g in place[:2])
            raise ConfigError(f"{key} is a setting of the {place[0]} and of the {place[1]}: say {first} or {second}.")
        with open_dict(cfg):
            try:
                OmegaConf.update(cfg, f"{place[0]}.{rest if dot else key}", _plain(value), force_add=True)
            except (ValueError, TypeError) as error:  # OmegaConf's, too
                raise ConfigError(f"{key} cannot be {value!r}: {' '.join(str(error).split())[:200]}") from error
    return extra


def _plain(value: Any) -> Any:
    """A value as a config holds it."""
    import numpy as np

    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, tuple | set | frozenset):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
