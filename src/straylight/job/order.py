"""What a job is to do, kept in its folder, so that any process that sees the folder can do it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from pydantic import TypeAdapter

from straylight import config, versions
from straylight.atomic import replacing, write_json
from straylight.documents import yaml_text
from straylight.errors import ConfigError
from straylight.folder import RunFolder, new_run
from straylight.objective import named


@dataclass(frozen=True)
class Order:
    """What `job.json` says.

    Attributes:
        run: the id that every file of the run bears.
        config: the composed config, resolved, without Hydra's own.
        fields: what `result.json` says of what was asked for.
        hydra: Hydra's own config, for a job of a sweep; empty where Hydra itself is around it.
        resume: whether to go on from the newest checkpoint in the folder.
        ranks: processes that the job is made of, on `nodes` machines together; gpus: the cards it asks for.
        engine, id: by which engine it was started, and what that calls it.
        by: the versions of who ordered it, see `straylight.versions.here`.
        task: what is to be done, see `straylight.job.perform`.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    run: str
    config: Mapping[str, Any]
    fields: Mapping[str, Any]
    hydra: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    ranks: int = 1
    gpus: int = 0
    engine: str | None = None
    id: str | None = None
    by: Mapping[str, str] = field(default_factory=dict)
    task: str = "train"
    nodes: int = 1

    @property
    def cfg(self) -> DictConfig:
        """The config, for a process that need know nothing of Hydra."""
        return DictConfig(dict(self.config))

    def write(self, folder: RunFolder) -> Order:
        """Keep it in the job's folder."""
        write_json(folder.job, asdict(self), durable=False)
        return self

    @classmethod
    def read(cls, folder: RunFolder) -> Order:
        """Read what a folder says.

        Raises:
            ConfigError: if it holds no order, or a damaged one.
        """
        try:
            return _adapter().validate_json(folder.job.read_bytes(), strict=True)
        except FileNotFoundError as error:
            raise ConfigError(f"{folder} is not the folder of a job: it holds no {folder.job.name}.") from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"{folder.job} cannot be read ({' '.join(str(error).split())}).") from error

    def started(self, folder: RunFolder, engine: str, id: str) -> Order:
        """Note who has it now."""
        return replace(self, engine=engine, id=id).write(folder)

    def again(self, folder: RunFolder, *, resume: bool) -> Order:
        """The same for another attempt: as another run, unless it goes on with what is there."""
        run = (folder.run if resume else None) or new_run()
        return replace(self, run=run, resume=resume, engine=None, id=None, by=versions.here()).write(folder)


@cache
def _adapter() -> TypeAdapter[Order]:
    return TypeAdapter(Order)


def placed(
    cfg: DictConfig,
    folder: RunFolder,
    fields: Mapping[str, Any],
    *,
    resume: bool = False,
    ranks: int = 1,
    gpus: int = 0,
    nodes: int = 1,
) -> Order:
    """Put into its folder what a job is to do: `job.json`, and the config as it was composed, its paths absolute.

    Args:
        cfg: the composed config, whose paths are made absolute; with `hydra` in it, that is kept beside it.
        folder: of the job.
        fields: what `result.json` is to say of what was asked for.
        resume: whether it goes on with what an earlier attempt left there.
        ranks, gpus, nodes: what it asks for.

    Raises:
        OmegaConfBaseException: if a value of the config cannot be resolved.
    """
    config.settle_paths(cfg)
    with read_write(cfg), open_dict(cfg):
        if (hydra := cfg.get("hydra")) is not None:
            with read_write(hydra), open_dict(hydra):
                for key in ("help", "hydra_help"):  # whose templates are longer than all else
                    hydra.pop(key, None)
        typed: Any = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)
        typed.pop("hydra", None)
        save(folder.config, typed)
        cfg.paths.run = str(folder.path.absolute())
        plain: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
        own = plain.pop("hydra", {})
    run = (folder.run if resume else None) or new_run()
    order = Order(run, plain, dict(fields), own, resume, ranks, gpus, by=versions.here(), nodes=nodes)
    return order.write(folder)


def save(path: Path, values: Any) -> None:
    """Write a config, or a part of one, as YAML."""
    with replacing(path) as aside:
        aside.write_text(yaml_text(values), encoding="utf-8")


def keep_hydra(folder: RunFolder, hydra: Mapping[str, Any]) -> None:
    """Keep what Hydra knew of the command, and what was typed, as Hydra itself does, but whole."""
    for path, plain in ((folder.hydra, {"hydra": dict(hydra)}), (folder.overrides, hydra["overrides"]["task"])):
        with replacing(path, durable=path == folder.hydra) as aside:
            aside.write_text(yaml_text(plain), encoding="utf-8")


def fields_of(
    cfg: DictConfig,
    choices: Mapping[str, Any],
    overrides: Sequence[str],
    command: Sequence[str] | None = None,
    ranged: Collection[str] = (),
) -> dict[str, Any]:
    """What `result.json` says of what was asked for.

    Args:
        cfg: the composed config, whose paths are made absolute.
        choices: of each config group, as Hydra knows them.
        overrides: as typed.
        command: what was typed behind `straylight train`, where that is not the overrides.
        ranged: keys that the sweep ranges over.
    """
    config.settle_paths(cfg)
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    whole, without_seed = (config.identity(plain, seed=seed, ranged=ranged) for seed in (True, False))
    return {
        "detector": config.called(cfg, choices.get("detector")),
        "data": choices.get("data"),
        "objective": list(named(wanted)) if (wanted := plain.get("objective")) else [],
        "seed": cfg.seed if isinstance(cfg.get("seed"), int) else None,
        "overrides": list(overrides),
        "ranged": sorted(ranged),
        "config_hash": whole,
        "variant": without_seed,
        "command": shlex.join(["straylight", "train", *(overrides if command is None else command)]),
    }
