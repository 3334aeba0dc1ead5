"""The engine that a name stands for, where a command and not Hydra is asked for one."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from straylight.checks import meant
from straylight.errors import ConfigError

if TYPE_CHECKING:
    from straylight.engines.base import Engine

ENGINES = ("local",)


def check(name: str, options: Mapping[str, Any]) -> None:
    """Look at what is asked for before anything is started.

    Args:
        name: of the engine.
        options: as `hydra.launcher.*` has them.

    Raises:
        ConfigError: if there is no such engine, or an option is none of its, or does not fit.

    Example:
        >>> check("local", {"jobs_per_gpu": 2})
    """
    if name not in ENGINES:
        raise ConfigError(f"--engine is {' or '.join(ENGINES)}, not {name!r}{meant(name, ENGINES)}.")
    from straylight.engines.local.engine import Machine

    _known(name, options, {field.name for field in fields(Machine)} - {"n_jobs", "jobs_per_process"})
    Machine(**options)


def engine(name: str, options: Mapping[str, Any], at_once: int) -> "Engine":
    """The engine, for so many jobs at once; see `check`."""
    check(name, options)
    from straylight.engines.local.engine import LocalEngine, Machine

    return LocalEngine(Machine(n_jobs=at_once, **options))


def _known(name: str, options: Mapping[str, Any], known: set[str]) -> None:
    for option in options:
        if option not in known:
            there = ", ".join(sorted(known))
            raise ConfigError(
                f"--engine-option {option}: --engine {name} has {there}, and no {option!r}{meant(option, known)}."
            )
