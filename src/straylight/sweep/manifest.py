"""What a sweep was asked for, so that it can be gone on with; a folder may hold several."""

import secrets
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter

from straylight import config
from straylight.atomic import write_json
from straylight.errors import ConfigError
from straylight.folder import SweepFolder


@dataclass
class Manifest:
    """What was typed, and where.

    Attributes:
        overrides: Hydra's own and the task's.
        config_dirs: folders of more configs, given by `--config-dir`.
        cwd: the folder that it was typed in.
        path: of the file that says so; `None` if there is none.
    """

    overrides: list[str]
    config_dirs: list[str] = field(default_factory=list)
    cwd: str = "."
    path: Path | None = field(default=None, compare=False)

    @classmethod
    def of(cls, hydra: DictConfig, path: Path | None = None) -> Self:
        """What Hydra knows of the command."""
        plain: Any = OmegaConf.to_container(hydra, resolve=False, enum_to_str=True)
        overrides, sources = plain["overrides"], plain["runtime"]["config_sources"]
        dirs = [s["path"] for s in sources if s["provider"] == "command-line" and s["path"]]
        return cls([*overrides["hydra"], *overrides["task"]], dirs, plain["runtime"]["cwd"], path)

    def write(self, folder: SweepFolder) -> Self:
        """Keep it in the sweeps' folder, in the place of the one that it was read from."""
        self.path = self.path or folder.manifests / f"{time.time_ns()}-{secrets.token_hex(4)}.json"
        write_json(self.path, {name: value for name, value in asdict(self).items() if name != "path"})
        return self

    @classmethod
    def all(cls, folder: SweepFolder) -> list[Self]:
        """Those of all sweeps of a folder, each once, the first first; of one of an earlier version what Hydra kept.

        Raises:
            ConfigError: if one cannot be read.
        """
        found: list[Self] = []
        for path in sorted(folder.manifests.glob("*.json")):
            try:
                one = TypeAdapter(cls).validate_json(path.read_bytes(), strict=True)
            except (OSError, ValueError) as error:
                raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
            if one not in found:
                found.append(one)
                one.path = path
        if not found and folder.multirun.is_file():
            try:
                found.append(cls.of(config.read(folder.multirun).hydra))
            except (AttributeError, KeyError, TypeError) as error:
                raise ConfigError(f"{folder.multirun} is not what Hydra writes of a sweep.") from error
        return found
