"""What a config that came with a folder may build and where it may write; one that was typed is free.

Whoever opens, times or resumes a run that somebody else made reads that person's config. It may build classes of
Straylight's, the few others that Straylight's own configs name, and those that the reader names; it writes into its
own folder. Every `_target_` at every depth is looked at before anything is imported or built.
"""

import inspect
import pydoc
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from straylight.errors import ConfigError

#: Packages of ours whose classes configs name.
OWN = ("straylight.callbacks.", "straylight.data.", "straylight.detectors.", "straylight.nn.")
#: What else Straylight's configs name.
SHIPPED = frozenset(
    {
        "pytorch_lightning.Trainer",
        "pytorch_lightning.loggers.CSVLogger",
        "pytorch_lightning.loggers.TensorBoardLogger",  # which runs of earlier versions name
        "torch.optim.Adam",
        "torch.optim.AdamW",
        "torch.optim.SGD",
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "hydra_plugins.straylight_local.grid.GridSweeper",
        "hydra_plugins.straylight_local.search.OptunaSweeper",
        "hydra_plugins.straylight_local.local.LocalLauncher",
        "hydra_plugins.straylight_local.ray.RayLauncher",
        "hydra_plugins.straylight_local.slurm.SlurmLauncher",
    }
)
#: Values that are looked up when the config is: another key's, one of Hydra's own, or of the environment.
KNOWN = re.compile(r"\$\{(\.*[\w.\[\]]+|hydra:[\w.]+|now:[\w%:.-]+|oc\.env:\w+(,[^${}]*)?)\}")
TARGET = re.compile(r"""_target_["']?\s*[:=]\s*["']?([\w.]+)""")
#: Keys whose values are written to, in groups that write.
PLACES = frozenset({"folder", "path", "save_dir", "default_root_dir", "dirpath", "root_dir", "log_dir", "filename"})
WRITERS = ("callbacks", "logger", "trainer")
#: What of Hydra's own a sweep may set; anything else can write or run what it likes (`job_logging`, `job.env_set`).
HYDRA = ("launcher", "sweeper", "sweep", "run", "runtime", "overrides", "mode", "verbose")
#: And of that, what runs or reaches out where a cluster is told to.
RUNS = tuple(f"launcher.{name}." for name in ("setup", "python", "extra", "environment", "address"))
HYDRA_JOB = ("name", "num", "id", "chdir", "override_dirname", "config_name", "config")


def check(config: Any, trust: Collection[str] = (), folder: Path | None = None) -> None:
    """See that a config builds nothing that nobody trusts, and writes nowhere else.

    Args:
        config: plain values, not resolved.
        trust: modules or packages, whose functions and classes may be called.
        folder: of the run, which it writes to.

    Raises:
        ConfigError: for the first thing that it may not do, with the key and how to allow it.

    Example:
        >>> check({"optimizer": {"_target_": "torch.optim.Adam", "extra": [{"_target_": "mine.Extra"}]}}, ["mine"])
        >>> check({"optimizer": {"_target_": "torch.load"}})
        Traceback (most recent call last):
        ...
        straylight.errors.ConfigError: optimizer._target_ is 'torch.load', which is not of Straylight's own: opening \
this would run it. If you trust it, say --trust torch.load, or trust=['torch.load'].
    """
    leaves = list(_leaves(config))
    importing: set[str] = set()  # keys whose values name what is imported
    for key, value in leaves:
        if key.rpartition(".")[2] == "_target_":
            built = _check_target(key, value, trust)
            importing |= {key.removesuffix("_target_") + name for name in getattr(built, "imports", ())}
    for key, value in leaves:
        if key in importing and not _trusted(value, trust):
            package = str(value).partition(".")[0]
            raise ConfigError(
                f"{key} is {value!r}: opening this would import that library and read what it fitted. If you trust it, "
                f"say --trust {package}, or trust=[{package!r}]."
            )
        if isinstance(value, str) and "${" in KNOWN.sub("", value):
            raise ConfigError(f"{key} is {value!r}, which is worked out in a way that a config from a folder may not.")
        elif isinstance(value, str) and key.startswith(WRITERS):
            _check_place(key, value, folder)


def check_hydra(hydra: Any, standard: Any, trust: Collection[str] = ()) -> None:
    """See that Hydra's own settings are the ones that are known, apart from the harmless ones.

    Args:
        hydra: Hydra's part of a config, as plain values, not resolved.
        standard: the same without what came with the folder.
        trust: see `check`.

    Raises:
        ConfigError: naming the first that is not.
    """
    ours = dict(_leaves(standard))
    for key, value in _leaves(hydra):
        if key.endswith("._target_"):
            _check_target(f"hydra.{key}", value, trust)
        group, _, rest = key.partition(".")
        place = str(value) if key == "sweep.subdir" and ours.get(key) != value else ""
        if place.startswith(("/", "~")) or ".." in Path(place).parts:
            raise ConfigError(f"hydra.{key} of this sweep is {value!r}, out of its own folder; type it if it is meant.")
        harmless = group in HYDRA or (group == "job" and rest.split(".")[0] in HYDRA_JOB)
        harmless = harmless and not f"{key}.".startswith(RUNS)
        if not harmless and (key not in ours or ours[key] != value):
            raise ConfigError(
                f"hydra.{key} of this sweep is {value!r}, by which it could run or write anything: to trust whoever "
                f"wrote it, type it yourself."
            )


def typed_in(folders: Collection[Path], overrides: Collection[str]) -> set[str]:
    """The targets that somebody typed, in overrides or in config folders of their own: these are free."""
    files = [path for folder in folders for path in folder.rglob("*.yaml")]
    texts = [*overrides, *(path.read_text(encoding="utf-8", errors="replace") for path in files)]
    return {name for text in texts for name in TARGET.findall(text)}


def _check_target(key: str, name: Any, trust: Collection[str]) -> Any:
    """See that a target may be built; the class, if it is one of ours."""
    if isinstance(name, str) and name.startswith(OWN):
        try:
            found = pydoc.locate(name)
        except pydoc.ErrorDuringImport:
            found = None
        if inspect.isclass(found) and f"{found.__module__}.".startswith(OWN):
            return found
    if isinstance(name, str) and (name in SHIPPED or _trusted(name, trust)):
        return None
    raise ConfigError(
        f"{key} is {name!r}, which is not of Straylight's own: opening this would run it. If you trust it, say "
        f"--trust {name}, or trust=[{name!r}]."
    )


def _trusted(name: Any, trust: Collection[str]) -> bool:
    return isinstance(name, str) and any(f"{name}.".startswith(f"{top}.") for top in trust)


def _check_place(key: str, value: str, folder: Path | None) -> None:
    named = key.rpartition(".")[2] in PLACES
    inside = re.sub(r"^\$\{paths\.run\}", "", value)
    if inside != value and "${" not in inside and ".." not in Path(inside).parts:
        return
    path = Path(value)
    outside = folder is None or not path.absolute().is_relative_to(folder.absolute())
    # what stands elsewhere may be any path
    if ".." in path.parts or value.startswith("~") or "${" in inside or ((path.is_absolute() or named) and outside):
        raise ConfigError(f"{key} is {value!r}, out of the run's own folder; if it is meant, type it again.")


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings and lists by their dotted key."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        inner = f"{key}.{name}" if key else str(name)
        if isinstance(value, dict | list) and str(name) != "_target_":
            yield from _leaves(value, inner)
        else:
            yield inner, value
