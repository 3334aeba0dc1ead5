"""The page of a run: what `straylight report RUN --html` and `report.html=true` write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from straylight import config
from straylight.documents import read_yaml
from straylight.folder import RunFolder, SweepFolder
from straylight.groups import FOLDER
from straylight.keys import Kind, entry


def write_run(folder: Path, path: Path | None = None) -> Path:
    """Write the page of a run's folder, to `report.html` in it if no other file is named; returns which.

    Raises:
        OSError: if it cannot be written.
    """
    from straylight.report.html.run import RunPage

    path = path or RunFolder(folder).page
    RunPage(folder, path, defaults_of(RunFolder(folder))).write()
    return path


def asked_for(folder: SweepFolder) -> bool:
    """Whether the runs of a sweep were configured to end in a page."""
    for run in folder.runs():
        try:
            return bool(read_yaml(run.config)["report"]["html"])
        except (OSError, ValueError, TypeError, KeyError):  # of an earlier version, or cleaned away
            continue
    return False


def defaults_of(folder: RunFolder) -> Mapping[str, Any] | None:
    """The config of a run as its choice of groups alone makes it, without what says where things lie.

    None where it is not to be had: where groups are of a folder of the user's own, or nothing says which were chosen.
    """
    from hydra import compose, initialize_config_dir

    try:
        chosen = read_yaml(folder.hydra)["hydra"]["runtime"]["choices"]
        groups = {group: choice for group, choice in chosen.items() if not str(group).startswith("hydra")}
        overrides = [f"{group}={'null' if choice is None else choice}" for group, choice in groups.items()]
        overrides = [override for override in overrides if not override.startswith("experiment=")]
        with initialize_config_dir(str(FOLDER), version_base=config.HYDRA):
            cfg = compose("train", overrides)
        plain: Any = OmegaConf.to_container(cfg, resolve=False)
        saved = read_yaml(folder.config)
    except Exception:  # Hydra has as many sorts as there are ways to miss a file
        return None
    return {key: saved.get(key) if entry(str(key)).kind is Kind.PLACE else value for key, value in plain.items()}
