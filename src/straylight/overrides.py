"""Overrides as Hydra's own parser reads them: their values, and how a text is written so that it is read back."""

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from straylight.keys import entry, key_of


@cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


@lru_cache(maxsize=4096)
def _parsed(override: str) -> Any:
    """Hydra's `Override`; `None` where it is none, which Hydra itself will say when it is asked to compose it."""
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
    parsed = _parsed(override)
    return parsed is not None and bool(parsed.is_sweep_override())


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

    parsed = _parsed(f"k={text}")
    if parsed is not None and not parsed.is_sweep_override() and parsed.value() == text:
        return text
    return str(QuotedString(text, Quote.single).with_quotes())


def readable(override: str) -> str:
    """An override as typed, its value quoted where it is a path with characters that Hydra's grammar has no place for.

    Example:
        >>> readable("data.path=Zürich.csv"), readable("detector.hidden=[8,")
        ("data.path='Zürich.csv'", 'detector.hidden=[8,')
    """
    key, equals, value = override.partition("=")
    if not equals or not entry(key_of(override)).path or _parsed(override) is not None:
        return override
    return f"{key}={quoted(value)}"


def value_of(override: str) -> Any:
    """The value, if it has one alone; `None` otherwise."""
    parsed = _parsed(override)
    return None if parsed is None or parsed.is_sweep_override() or parsed.is_delete() else parsed.value()


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
    """
    key = key_of(override)
    parsed = _parsed(override) if entry(key).path else None
    if parsed is None or parsed.is_delete():
        return override
    values = parsed.value().list if parsed.is_choice_sweep() else [parsed.value()]
    texts = [str(getattr(value, "text", value)) for value in values]
    if not all(isinstance(value, str) or hasattr(value, "text") for value in values) or any("${" in t for t in texts):
        return override
    return f"{parsed.get_key_element()}={','.join(quoted(str(Path(text).absolute())) for text in texts)}"


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
    parsed = _parsed(override)
    return parsed is not None and not parsed.is_delete() and not parsed.is_sweep_override() and parsed.value() != ""
