"""Configs: where they are, whether their values fit, what is built of them, and which run is which."""

import hashlib
import inspect
import json
import pydoc
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from hydra.errors import ConfigCompositionException, InstantiationException, MissingConfigException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    PydanticSchemaGenerationError,
    TypeAdapter,
)
from pydantic import ValidationError as PydanticError

from straylight import habits
from straylight import trust as trusted
from straylight.checks import meant
from straylight.documents import read_yaml
from straylight.errors import ConfigError, StraylightError
from straylight.folder import CONFIG, RunFolder
from straylight.groups import GROUPS, choices
from straylight.keys import KEYS, entry, meaning
from straylight.objective import named

HYDRA = "1.3"  # whose behaviour is asked for
NEEDED = ("detector", "data", "optimizer", "trainer", "paths")
#: Keys that we read ourselves beside those that a target takes.
OURS: Mapping[str, Mapping[str, Any]] = {"trainer": {"timeout_s": PositiveFloat | None}}

#: What is built for a target and never set.
GIVEN = ("shape", "context", "optimizer")


class Main(BaseModel, extra="allow"):
    """The values of `conf/train.yaml` itself."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    threads: PositiveInt | None
    compile: bool = False  # runs of earlier versions do not say
    objective: str | list[str] = "val/separation"  # nor do they of this


def lacking(cfg: DictConfig) -> str | None:
    """What to say of a config without something that every run needs; `None` of one that has it all."""
    absent = [name for name in NEEDED if OmegaConf.is_missing(cfg, name) or cfg.get(name) is None]
    if not absent:
        return None
    return f"A run needs {absent[0]}, which the config lacks: choose one, or leave out what takes it."


def faults(configs: Sequence[Any]) -> list[str]:
    """What is wrong with configs of runs to begin here, plain and resolved: a sentence for each that does not fit."""
    found = []
    for plain in configs:
        try:
            check(DictConfig(plain))
            habits.refuse_ranks(plain["trainer"])
        except ConfigError as error:
            found.append(str(error))
    return found


def check(cfg: DictConfig) -> None:
    """Compare every value with the annotation of the parameter that it is for.

    A value alone where a list is wanted is made a list of one.

    Raises:
        ConfigError: for the first that does not fit, with the key, the value and what is expected; and for what is
            typed out of habit, see `straylight.habits`.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    try:
        Main.model_validate(plain, strict=True)
    except PydanticError as error:
        _refuse("", error)
    if said := lacking(cfg):
        raise ConfigError(said)
    if (wanted := plain.get("objective")) is not None:
        named(wanted)
    check_targets(cfg, plain)
    habits.refuse(plain)


def check_targets(cfg: DictConfig, plain: Any) -> None:
    """The part of `check` that is of what is built, for a config of a few of the groups.

    Args:
        cfg: the config, which is changed.
        plain: its values, resolved.

    Raises:
        ConfigError: as `check`.
    """
    for key, node in _targets(plain):
        for name in _check_target(key, node):
            with read_write(cfg):
                OmegaConf.update(cfg, f"{key}.{name}", [node[name]])


def build(cfg: DictConfig, key: str, **more: Any) -> Any:
    """Instantiate the node at `key`, with more arguments.

    Raises:
        ConfigError: if its class cannot be imported or refuses its arguments, with what it said.
    """
    node = OmegaConf.select(cfg, key)
    if key in OURS:
        node = OmegaConf.masked_copy(node, [name for name in node if name not in OURS[key]])
        node._set_parent(cfg)
    try:
        return instantiate(node, **more, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, StraylightError):
            raise cause from error
        if isinstance(cause, ValueError | TypeError):
            said = _one_line(str(cause))
            raise ConfigError(said if said.startswith(f"{key}.") else f"{key}: {said}") from error
        raise ConfigError(f"{key}: {_one_line(str(cause or error))}") from error


def explain(error: Exception) -> str | None:
    """One sentence on what is wrong with a command line or a config file; `None` if the error is of another kind."""
    cause = error.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None and error.options is not None:
        missing = str(error.missing_cfg_file)
        below = missing.startswith("hydra/")  # whose groups are one level down
        group, _, name = missing.rpartition("/") if below else missing.partition("/")
        known = sorted({*error.options, *choices(group)} - {"base"})  # Hydra's own leave out sweep/digits
        return f"There is no {group} {name!r}{meant(name, known)}; choose one of {', '.join(known) or '(none)'}."
    for problem in (cause, error):
        parent = getattr(problem, "parent_node", None)
        if isinstance(problem, OmegaConfBaseException) and isinstance(parent, DictConfig) and problem.key not in parent:
            keys = sorted(str(k) for k in parent if not str(k).startswith("_"))
            where = str(problem.full_key).rpartition(".")[0]
            return (
                f"There is no key {problem.full_key!r}{meant(str(problem.key), keys)}; "
                f"{where or 'the config'} has {', '.join(keys) or 'none'}."
            )
    if "Config group override must be a string" in f"{error} {cause}":
        return "A config group cannot be null; choose one of its configs, such as logger=none."
    if isinstance(error, ConfigCompositionException) and "No match in the defaults list" in str(error):
        name = str(error).split("'")[1]
        keys = [*GROUPS, "seed", "threads", "compile"]
        return f"There is no config group {name!r}{meant(name, keys)}; the groups are {', '.join(GROUPS)}."
    if isinstance(error, yaml.YAMLError):
        return f"A config is no YAML: {_one_line(str(error))}."
    if isinstance(error, OmegaConfBaseException) or type(error).__module__.startswith("hydra"):
        return _one_line(str(error)) + (
            f" ({_one_line(str(cause))})" if isinstance(cause, OmegaConfBaseException) else ""
        )
    return None


def called(cfg: Mapping[str, Any] | DictConfig, detector: str | None) -> str | None:
    """What a detector is called in tables: by its config, or, where that stands for any, by the class that it names.

    Args:
        cfg: the composed config.
        detector: the name of the detector's config.

    Example:
        >>> called(OmegaConf.create({"detector": {"model": "pyod.models.lunar.LUNAR"}}), "external")
        'LUNAR'
    """
    model = (cfg.get("detector") or {}).get("model") if detector == "external" else None
    return model.rpartition(".")[2] if isinstance(model, str) else detector


def identity(cfg: DictConfig | Mapping[str, Any], *, seed: bool = True, ranged: Collection[str] = ()) -> str:
    """Twelve hex digits that tell what a run computes, however fast and wherever it does.

    Args:
        cfg: the composed config, whose paths are absolute, or its plain values, not resolved.
        seed: whether to tell repeats apart.
        ranged: keys that a sweep compares, see `straylight.keys.meaning`.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=False) if isinstance(cfg, DictConfig) else cfg
    kept = meaning(plain, seed=seed, ranged=ranged)
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def settle_paths(cfg: DictConfig, start: str | Path = ".") -> None:
    """Make every path of a composed config absolute, so that it says the same wherever it is read.

    Args:
        cfg: the config, which is changed.
        start: the folder that relative paths are meant from.
    """
    own = [f"paths.{name}" for name in cfg.get("paths") or {}]
    own += [key for key in KEYS if not key.startswith("hydra.")]
    with read_write(cfg), open_dict(cfg):
        for key in own:
            value = OmegaConf.select(cfg, key, throw_on_resolution_failure=False) if entry(key).path else None
            if isinstance(value, str) and value and not Path(value).is_absolute():
                OmegaConf.update(cfg, key, str((Path(start) / value).absolute()))
            elif isinstance(value, ListConfig) and all(isinstance(one, str) for one in value):
                OmegaConf.update(cfg, key, [str((Path(start) / one).absolute()) for one in value])


def saved(folder: RunFolder) -> DictConfig:
    """The composed config of a run, with its folder as `paths.run`, and data where the run found them.

    Nothing of it may be built before `opened` or the user has said so.

    Raises:
        ConfigError: if the folder is not a run's, or its config is damaged.
    """
    if not folder.config.is_file():
        raise ConfigError(f"{folder} is not a run folder: it has no {CONFIG}.")
    cfg = read(folder.config)
    started: Any = OmegaConf.select(read(folder.hydra), "hydra.runtime.cwd") if folder.hydra.is_file() else "."
    if not isinstance(cfg.get("paths"), DictConfig) or not isinstance(started, str):
        raise ConfigError(f"{folder.config.parent} is no config of a run: it does not say from where its paths are.")
    try:
        settle_paths(cfg, started)  # runs of earlier versions have those that were typed
        cfg.paths.run = str(folder)
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{folder.config} cannot be read: {explain(error) or _one_line(str(error))}") from error
    return cfg


def opened(folder: RunFolder, trust: Collection[str] = ()) -> DictConfig:
    """The composed config of a run that somebody else may have made, from which may be built what it names.

    Raises:
        ConfigError: as `saved`, and if it names what is neither Straylight's own nor of `trust`.
    """
    cfg = saved(folder)
    trusted.check(OmegaConf.to_container(cfg, resolve=False), trust, folder.path)
    return cfg


def read(path: Path) -> DictConfig:
    """Read a YAML file that Straylight or Hydra wrote, which is small, flat and without references.

    Raises:
        ConfigError: if it is anything else.
    """
    try:
        plain = read_yaml(path, get_yaml_loader())
        found = OmegaConf.create(plain) if isinstance(plain, dict) else None
    except (OSError, ValueError, TypeError, OmegaConfBaseException) as error:  # of other types than configs hold
        raise ConfigError(f"{path} cannot be read: {_one_line(str(error))}") from error
    if not isinstance(found, DictConfig):
        raise ConfigError(f"{path} is no config.")
    return found


def flat(cfg: DictConfig, *groups: str) -> dict[str, Any]:
    """The values of some groups by their dotted key, for TensorBoard's table of hyperparameters."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return {key: value for group in groups for key, value in _flat(group, plain.get(group))}


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(f"{key}.{name}", item)
    else:
        yield key, value if isinstance(value, bool | int | float | str) else str(value)


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for name, child in node.items():
            yield from _targets(child, f"{key}.{name}" if key else str(name))


def _check_target(key: str, node: dict[str, Any]) -> Iterator[str]:
    """Look at the values of one target; the names of those that are alone where a list is wanted."""
    try:
        target = pydoc.locate(node["_target_"])
    except pydoc.ErrorDuringImport as error:
        raise ConfigError(
            f"{key}._target_={node['_target_']!r} cannot be imported ({_one_line(str(error))})."
        ) from error
    if target is None:
        raise ConfigError(f"{key}._target_={node['_target_']!r} names nothing that can be imported from here.")
    if said := lacks(node):
        raise ConfigError(said)
    takes, open_ended = _parameters(target)
    takes |= OURS.get(key, {})
    for name, value in node.items():
        if str(name).startswith("_"):
            continue
        if name not in takes:
            if open_ended:
                continue
            raise ConfigError(
                f"There is no key '{key}.{name}'{meant(str(name), list(takes))}; "
                f"{node['_target_'].rpartition('.')[2]} takes {', '.join(takes)}."
            )
        if takes[name] is Any or isinstance(value, dict):
            continue
        try:
            adapter = TypeAdapter(takes[name], config=ConfigDict(arbitrary_types_allowed=True))
        except (PydanticSchemaGenerationError, TypeError, NameError):
            continue
        try:
            if isinstance(value, list) and tuple in (takes[name], typing.get_origin(takes[name])):
                value = tuple(value)  # which YAML does not have
            adapter.validate_python(value, strict=True)
        except PydanticError as error:
            if not isinstance(value, list) and value is not None and _fits(adapter, [value]):
                yield str(name)
                continue
            _refuse(f"{key}.{name}", error)


def takes(node: Mapping[str, Any]) -> list[str]:
    """The names that a node has or that what it names takes."""
    named, _ = _parameters(pydoc.locate(str(node.get("_target_"))))
    keys = [str(key) for key in node if not str(key).startswith("_")]
    return list(dict.fromkeys([*keys, *(name for name in named if name not in GIVEN)]))


def lacks(node: Mapping[str, Any]) -> str | None:
    """What to say if what a node names needs packages that are not installed; `None` if it has them."""
    found: Any = pydoc.locate(str(node.get("_target_")))
    return found.lacks() if hasattr(found, "lacks") else None


def _fits(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        adapter.validate_python(value, strict=True)
    except PydanticError:
        return False
    return True


def _parameters(target: Any) -> tuple[dict[str, Any], bool]:
    """What a callable takes by name, with annotations; a `**more` of a class stands for what its parent takes."""
    functions: list[Any] = (
        [vars(c)["__init__"] for c in target.__mro__ if "__init__" in vars(c)] if inspect.isclass(target) else [target]
    )
    takes: dict[str, Any] = {}
    for function in functions:
        try:
            signature = inspect.signature(function)
        except ValueError:
            return takes, True
        try:
            hints = typing.get_type_hints(function)
        except Exception:  # an annotation that only exists for a type checker
            hints = {}
        rest = False
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = True
            elif name != "self" and parameter.kind is not parameter.VAR_POSITIONAL:
                takes.setdefault(name, hints.get(name, Any))
        if not rest or function is object.__init__:
            return takes, False
    return takes, True


def _refuse(key: str, error: PydanticError) -> typing.NoReturn:
    problems = error.errors(include_url=False)
    where = key or ".".join(map(str, problems[0]["loc"]))
    # of a list that may be one, what is wrong with an element
    problems = [p for p in problems if p["input"] is not problems[0]["input"]] or problems
    said = dict.fromkeys(
        p["msg"]
        .removeprefix("Input should be ")
        .replace("a valid ", "a ")
        .replace("a tuple", "a list")
        .replace("a int", "an int")
        .replace("'str' instances are not allowed as a Sequence value", "a list")
        for p in problems
    )
    raise ConfigError(f"{where} should be {', or '.join(said)}, not {problems[0]['input']!r}.") from error


def _one_line(text: str) -> str:
    return " ".join(text.split())
