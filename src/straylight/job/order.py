"""What a job is to do, kept in its folder, so that any process that sees the folder can do it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from pydantic import TypeAdapter

from straylight import config, versions
from straylight.atomic import replacing
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
        with replacing(folder.job, durable=False) as aside:  # in one line, by the encoder in C
            aside.write_text(json.dumps(vars(self)) + "\n", encoding="utf-8")
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


class Parts(NamedTuple):
    """What a composed config comes to.

    Attributes:
        typed: its plain values as composed, not resolved, without Hydra's; `text`: the same as YAML.
        config: the same resolved.
        hydra: Hydra's own part, resolved; empty if there was none.
    """

    typed: Mapping[str, Any]
    text: str
    config: dict[str, Any]
    hydra: dict[str, Any]

    def beside(self, added: Mapping[str, Mapping[str, Any]]) -> Parts:
        """The same with what nobody typed, by group and name, in which `${paths.run}` may stand."""
        resolved: Any = OmegaConf.to_container(OmegaConf.create({**added, "paths": self.config["paths"]}), resolve=True)
        typed, config = (
            {**of, **{group: {**(of.get(group) or {}), **own[group]} for group in added}}
            for of, own in ((self.typed, added), (self.config, resolved))
        )
        return Parts(typed, yaml_text(typed), config, self.hydra)


def parts_of(cfg: DictConfig, folder: str) -> Parts:
    """Resolve a composed config.

    Args:
        cfg: the config, which is changed: its paths are made absolute. With `hydra` in it, that is taken apart.
        folder: of the run, absolute.

    Raises:
        OmegaConfBaseException: if a value cannot be resolved.
    """
    config.settle_paths(cfg)
    with read_write(cfg), open_dict(cfg):
        if (hydra := cfg.get("hydra")) is not None:
            with read_write(hydra), open_dict(hydra):
                for key in ("help", "hydra_help"):  # whose templates are longer than all else
                    hydra.pop(key, None)
        typed: Any = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)
        typed.pop("hydra", None)
        cfg.paths.run = folder
        plain: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
        own = plain.pop("hydra", {})
    return Parts(typed, yaml_text(typed), plain, own)


def placed(
    parts: Parts,
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
        parts: of its config.
        folder: of the job.
        fields: what `result.json` is to say of what was asked for.
        resume: whether it goes on with what an earlier attempt left there.
        ranks, gpus, nodes: what it asks for.
    """
    with replacing(folder.config) as aside:
        aside.write_text(parts.text, encoding="utf-8")
    run = (folder.run if resume else None) or new_run()
    by = versions.here()
    order = Order(run, parts.config, dict(fields), parts.hydra, resume, ranks, gpus, by=by, nodes=nodes)
    return order.write(folder)


def keep_hydra(folder: RunFolder, hydra: Mapping[str, Any]) -> None:
    """Keep what Hydra knew of the command, and what was typed, as Hydra itself does, but whole."""
    for path, plain in ((folder.hydra, {"hydra": dict(hydra)}), (folder.overrides, hydra["overrides"]["task"])):
        with replacing(path, durable=path == folder.hydra) as aside:
            aside.write_text(yaml_text(plain), encoding="utf-8")


def fields_of(
    cfg: Any,
    choices: Mapping[str, Any],
    overrides: Sequence[str],
    command: Sequence[str] | None = None,
    ranged: Collection[str] = (),
    typed: Any = None,
) -> dict[str, Any]:
    """What `result.json` says of what was asked for.

    Args:
        cfg: the composed config, by which values are found.
        choices: of each config group, as Hydra knows them.
        overrides: as typed.
        command: what was typed behind `straylight train`, where that is not the overrides.
        ranged: keys that the sweep ranges over.
        typed: its plain values, not resolved, if they are known; otherwise the paths of `cfg` are made absolute.
    """
    if typed is None:
        config.settle_paths(cfg)
        typed = OmegaConf.to_container(cfg, resolve=False)
    whole, without_seed = (config.identity(typed, seed=seed, ranged=ranged) for seed in (True, False))
    return {
        "detector": config.called(cfg, choices.get("detector")),
        "data": choices.get("data"),
        "objective": list(named(wanted)) if (wanted := cfg.get("objective")) else [],
        "seed": seed if isinstance(seed := cfg.get("seed"), int) else None,
        "overrides": list(overrides),
        "ranged": sorted(ranged),
        "config_hash": whole,
        "variant": without_seed,
        "command": shlex.join(["straylight", "train", *(overrides if command is None else command)]),
    }
