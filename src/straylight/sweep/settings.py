"""Settings below a group that a sweep ranges over, which not all of its choices have."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from straylight.catalogue import entry, settings
from straylight.errors import ConfigError
from straylight.keys import key_of
from straylight.overrides import quoted, value_of

GROUPS = ("detector", "data")


def fitting(
    batches: Sequence[Sequence[Sequence[str]]], folders: Sequence[Path] = ()
) -> tuple[list[list[list[str]]], list[str]]:
    """Jobs without the settings that their detector or data set does not have, though another one of the sweep has.

    `detector=external,knn detector.model=A,B` is three jobs: `knn` has no model. A setting that none of them has stays,
    and is refused as ever.

    Args:
        batches: of jobs, each a list of overrides.
        folders: of configs of the user's own.

    Returns:
        the jobs, each of them once, and a sentence for each setting that was left out somewhere.

    Example:
        >>> jobs = [[f"detector={d}", f"detector.k={k}"] for d in ("knn", "pca") for k in (1, 2)]
        >>> fitting([jobs])
        ([[['detector=knn', 'detector.k=1'], ['detector=knn', 'detector.k=2'], ['detector=pca']]], \
['detector.k is no setting of pca, and is left out there.'])
    """
    chosen = {group: {_choice(job, group) for batch in batches for job in batch} - {None} for group in GROUPS}
    known = {group: _keys(group, names, folders) for group, names in chosen.items() if len(names) > 1}
    left: dict[str, set[str]] = {}
    seen: set[tuple[str, ...]] = set()
    found: list[list[list[str]]] = []
    for batch in batches:
        kept: list[list[str]] = []
        for job in batch:
            own = [o for o in job if not _foreign(o, job, known, left)]
            if tuple(own) not in seen or len(own) == len(job):  # what was typed twice stays twice
                kept.append(own)
            seen.add(tuple(own))
        found.append(kept)
    said = [f"{key} is no setting of {', '.join(sorted(names))}, and is left out there." for key, names in left.items()]
    return found, said


def with_own(batches: Sequence[Sequence[Sequence[str]]], of: Mapping[str, Mapping[str, Any]]) -> list[list[list[str]]]:
    """Jobs with the settings that are meant for their detector or data set alone, unless they set these themselves.

    Args:
        batches: of jobs, each a list of overrides.
        of: by the name of a detector or a data set, values by their keys.

    Raises:
        ConfigError: if it is not that.

    Example:
        >>> jobs = [["detector=knn"], ["detector=pca"], ["detector=pca", "detector.components=3"]]
        >>> with_own([jobs], {"pca": {"detector.components": 9}})
        [[['detector=knn'], ['detector=pca', 'detector.components=9'], ['detector=pca', 'detector.components=3']]]
    """
    for name, values in of.items():
        if not isinstance(values, Mapping):
            raise ConfigError(f"hydra.sweeper.of.{name} must hold values by their keys, not {values!r}.")
    found = []
    for batch in batches:
        jobs = []
        for job in batch:
            chosen = [of.get(_choice(job, group) or "", {}) for group in GROUPS]
            typed = {key_of(override) for override in job}
            own = {key: value for values in chosen for key, value in values.items() if key not in typed}
            jobs.append([*job, *(f"{key}={written(value)}" for key, value in own.items())])
        found.append(jobs)
    return found


def written(value: Any) -> str:
    """A value as Hydra reads it behind a key."""
    match value:
        case None:
            return "null"
        case str():
            return quoted(value)
        case bool():
            return str(value).lower()
        case Mapping():
            return "{" + ",".join(f"{key}:{written(one)}" for key, one in value.items()) + "}"
        case Sequence():
            return "[" + ",".join(map(written, value)) + "]"
        case number:
            return str(number)


def _foreign(
    override: str, job: Sequence[str], known: Mapping[str, Mapping[str, Collection[str]]], left: dict[str, set[str]]
) -> bool:
    group, dot, rest = key_of(override).partition(".")
    if not dot or group not in known or override[0] in "+~":
        return False
    choice, name = _choice(job, group), rest.partition(".")[0]
    keys = known[group]
    if (
        choice is None
        or choice not in keys
        or name in keys[choice]
        or not any(name in others for others in keys.values())
    ):
        return False
    left.setdefault(f"{group}.{rest}", set()).add(choice)
    return True


def _choice(job: Sequence[str], group: str) -> str | None:
    found = [value_of(override) for override in job if override.startswith(f"{group}=")]
    return str(found[-1]) if found else None


def _keys(group: str, names: Collection[str | None], folders: Sequence[Path]) -> dict[str, set[str]]:
    """The settings of each choice; of one that is not to be found, nothing is known."""
    found = {}
    for name in names:
        try:
            found[str(name)] = {setting.key for setting in settings(entry(group, str(name), folders), folders)}
        except (StopIteration, ConfigError, OSError):
            continue
    return found
