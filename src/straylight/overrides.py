"""Overrides as Hydra's own parser reads them: their values, and how a text is written so that it is read back."""

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from straylight.keys import entry, key_of

#: Characters that make a list, a mapping, a function, several values or a quoted text of a value.
STRUCTURE = frozenset("[]{}(),'\"")


@cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


@lru_cache(maxsize=4096)
def parsed(override: str) -> Any:
    """Hydra's `Override`; `None` where what was typed cannot be read as one."""
    from hydra.errors import HydraException

    try:
        return _parser().parse_override(override)
    except HydraException:
        return None


def sweeps(override: str) -> bool:
    """Whether it has several values, each for jobs of its own.

    Example:
        >>> sweeps("seed=0,1"), sweeps("seed=range(3)"), sweeps("detector.hidden=[8,4]"), sweeps("a='x,y'")
        (True, True, False, False)
    """
    read = parsed(override)
    return read is not None and bool(read.is_sweep_override())


def ranged(overrides: Iterable[str]) -> set[str]:
    """The keys that a sweep ranges over."""
    return {key_of(override) for override in overrides if sweeps(override)}


def quoted(text: str) -> str:
    """A text as Hydra reads it back, whatever it looks like: bare where that is the same text.

    Example:
        >>> quoted("plain"), quoted("a,b"), quoted("it's"), quoted("1e5")
        ('plain', "'a,b'", "'it\\\\'s'", "'1e5'")
    """
    from hydra.core.override_parser.types import Quote, QuotedString

    read = parsed(f"k={text}")
    if read is not None and not read.is_sweep_override() and read.value() == text:
        return text
    return str(QuotedString(text, Quote.single).with_quotes())


def readable(override: str) -> str:
    """An override as typed, its value quoted where it is a text of characters that Hydra's grammar has no place for.

    A path may hold any, other texts none that give a value its structure.

    Example:
        >>> readable("data.path=Zürich (1).csv"), readable("data.csv.separator=;"), readable("detector.hidden=[8,")
        ("data.path='Zürich (1).csv'", "data.csv.separator=';'", 'detector.hidden=[8,')
    """
    key, equals, value = override.partition("=")
    if not equals or parsed(override) is not None:
        return override
    if not entry(key_of(override)).path and STRUCTURE.intersection(value):
        return override
    return f"{key}={quoted(value)}"


def value_of(override: str) -> Any:
    """The value, if it has one alone; `None` otherwise."""
    read = parsed(override)
    return None if read is None or read.is_sweep_override() or read.is_delete() else read.value()


def merged(*parts: Sequence[str]) -> list[str]:
    """Overrides of which later ones take the place of earlier ones of the same key.

    Example:
        >>> merged(["data=blobs", "seed=0"], ["seed=1,2", "+note=x"])
        ['data=blobs', 'seed=1,2', '+note=x']
    """
    return list({key_of(override): override for part in parts for override in part}.values())


def from_here(override: str) -> str:
    """An override whose paths, typed here, are meant from here wherever they are read.

    Example:
        >>> here = Path.cwd()
        >>> from_here("paths.output=out") == f"paths.output={here}/out", from_here("detector.path=out")
        (True, 'detector.path=out')
        >>> from_here("data.path=a.csv,b.csv") == f"data.path={here}/a.csv,{here}/b.csv"
        True
        >>> from_here("data.path=[a.csv,p-*.csv]") == f"data.path=[{here}/a.csv,{here}/p-*.csv]"
        True
    """
    key = key_of(override)
    read = parsed(override) if entry(key).path else None
    if read is None or read.is_delete():
        return override
    values = read.value().list if read.is_choice_sweep() else [read.value()]
    here = [_here(value) for value in values]
    return override if None in here else f"{read.get_key_element()}={','.join(map(str, here))}"


def _here(value: Any) -> str | None:
    """A path, or a list of them, as Hydra reads it back, meant from here; `None` of what is none."""
    if isinstance(value, list):
        inside = [_here(one) for one in value]
        return None if None in inside else f"[{','.join(map(str, inside))}]"
    text = getattr(value, "text", value)
    if not isinstance(text, str) or "${" in text:
        return None
    return quoted(str(Path(text).absolute()))


def composable(overrides: Sequence[str]) -> list[str]:
    """The overrides of a sweep as Hydra can compose them.

    Hydra composes what is not swept over on top of the default of a group that is, which need not have the key: the
    single value of a key below such a group is therefore made a choice of one.

    Example:
        >>> composable(["detector=vae,knn", "detector.scaling=minmax", "seed=0"])
        ['detector=vae,knn', 'detector.scaling=choice(minmax)', 'seed=0']
    """
    groups = tuple(f"{key}." for key in ranged(overrides) if "." not in key)
    return [
        f"{o.partition('=')[0]}=choice({o.partition('=')[2]})" if o.startswith(groups) and _single(o) else o
        for o in overrides
    ]


def _single(override: str) -> bool:
    read = parsed(override)
    return read is not None and not read.is_delete() and not read.is_sweep_override() and read.value() != ""
