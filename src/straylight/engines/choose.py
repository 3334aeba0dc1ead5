"""The engine that a name stands for, where a command and not Hydra asks for one, or a job says whose it was."""

import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from straylight.checks import meant
from straylight.errors import ConfigError
from straylight.extras import needed

if TYPE_CHECKING:
    from straylight.engines.base import Engine

ENGINES = ("local", "slurm", "ray")
#: Options that a command with so many workers gives itself.
GIVEN = {"n_jobs", "jobs_per_process"}


def check(name: str, options: Mapping[str, Any]) -> None:
    """Look at what is asked for before anything is started.

    Args:
        name: of the engine.
        options: as `hydra.launcher.*` has them.

    Raises:
        ConfigError: if there is no such engine, or it is not here, or an option is none of its, or does not fit.

    Example:
        >>> check("local", {"jobs_per_gpu": 2})
    """
    if name not in ENGINES:
        raise ConfigError(
            f"--engine is {', '.join(ENGINES[:-1])} or {ENGINES[-1]}, not {name!r}{meant(name, ENGINES)}."
        )
    takes = _options_of(name)
    known = {field.name for field in fields(takes)} - GIVEN
    for option in options:
        if option not in known:
            raise ConfigError(
                f"--engine-option {option}: --engine {name} has {', '.join(sorted(known))}, and no "
                f"{option!r}{meant(option, known)}."
            )
    given = takes(**options)
    if name == "slurm":
        from straylight.engines.slurm.engine import check as check_slurm

        check_slurm(given)
    elif name == "ray":
        needed("--engine ray", "ray", "ray")
        given.answered()


def engine(name: str, options: Mapping[str, Any], at_once: int, place: Path) -> "Engine":
    """The engine, for so many jobs at once, which may keep what it needs in a folder; see `check`."""
    if name == "slurm":
        from straylight.engines.slurm.engine import SlurmEngine

        return SlurmEngine(_options_of(name)(**options), place)
    if name == "ray":
        from straylight.engines.ray.engine import RayEngine

        return RayEngine(_options_of(name)(**options))
    from straylight.engines.local.engine import LocalEngine

    return LocalEngine(_options_of(name)(n_jobs=at_once, **options))


def attached(name: str | None, place: Path) -> "Engine | None":
    """An engine that looks after jobs of an earlier launcher and starts none; `None` if none of its jobs is left.

    Args:
        name: of the engine, as `job.json` has it.
        place: the folder of the sweep.
    """
    if name == "slurm" and shutil.which("squeue") is not None:
        return engine(name, {}, 1, place)
    return None


def _options_of(name: str) -> Any:
    if name == "slurm":
        from straylight.engines.slurm.options import Options as SlurmOptions

        return SlurmOptions
    if name == "ray":
        from straylight.engines.ray.options import Options as RayOptions

        return RayOptions
    from straylight.engines.local.engine import Machine

    return Machine
