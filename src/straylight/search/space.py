"""The space of a search: ranges, what is the same in all trials, and which keys the choice of a group has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, distribution_to_json

from straylight.checks import meant
from straylight.errors import ConfigError
from straylight.overrides import quoted, sweeps
from straylight.search.ranges import Range, of
from straylight.sweep.settings import written

Compose = Callable[[Sequence[str]], DictConfig]


class _Part(NamedTuple):
    """One override of trials.

    Attributes:
        key: what stands before its `=`, without what adds or deletes it.
        what: a range, or the override where it has one value.
        group: that is searched, and that the key is below; `None` if there is none.
        where: the choices of that group that it is for.
    """

    key: str
    what: Range | str
    group: str | None = None
    where: frozenset[str] = frozenset()


class Space:
    """What trials may be.

    A key below a group that is searched, as `detector.latent` below `detector=vae,maf`, is one of those trials whose
    choice has it in its config, and is left out of the others.

    Args:
        overrides: as typed: ranges, and what all trials have in common.
        compose: a config, of which is asked which keys it holds.
        own: by the name of a choice, overrides for it alone; what is typed goes before them.
        loader: of Hydra's configs.

    Raises:
        ConfigError: if it has no point, or a key that no choice has.
    """

    def __init__(
        self, overrides: Sequence[str], compose: Compose, own: Mapping[str, Mapping[str, Any]], loader: Any
    ) -> None:
        self._parser = OverridesParser.create(config_loader=loader)
        read = {o.get_key_element().lstrip("+~"): o for o in self._parser.parse_overrides(list(overrides))}
        whats = {key: _what(override) for key, override in read.items()}
        self.groups = {
            key: what
            for key, what in whats.items()
            if isinstance(what, Range)
            and isinstance(what.distribution, CategoricalDistribution)
            and loader.get_group_options(key.partition("@")[0])
        }
        #: Groups by the beginning of the keys below them.
        self._above = {f"{key.rpartition('@')[2].replace('/', '.')}.": key for key in self.groups}
        common = [what for key, what in whats.items() if isinstance(what, str) and self._group_of(key) is None]
        self._composed = cache(lambda group, choice: compose([*common, f"{group}={choice}"]))
        parts = [self._part(key, what, read[key]) for key, what in whats.items()]
        parts += self._owned(own, set(read))
        self._parts = sorted(parts, key=lambda part: part.key not in self.groups)  # what others depend on first
        if not self.ranges:
            raise ConfigError(
                "The search has no point to choose: type a range, such as detector.latent=range(2,16), "
                "optimizer.lr=tag(log,interval(1e-4,1e-1)) or detector=vae,maf."
            )
        self._searched = {searched.key for searched in self.ranges}

    @property
    def ranges(self) -> list[Range]:
        """What is searched."""
        return [part.what for part in self._parts if isinstance(part.what, Range)]

    def told(self) -> dict[str, Any]:
        """The ranges in plain values, by which a journal knows them again."""
        return {
            part.what.name: [distribution_to_json(part.what.distribution), *sorted(part.where)]
            for part in self._parts
            if isinstance(part.what, Range)
        }

    def ask(self, trial: optuna.Trial) -> list[str]:
        """The overrides of a trial."""
        return self._overrides(lambda searched: searched.drawn(trial))

    def what(self, overrides: Sequence[str]) -> str:
        """What tells a trial from others."""
        return " ".join(o for o in overrides if o.partition("=")[0] in self._searched)

    def samples(self) -> list[list[str]]:
        """Points among which every choice and both ends of every range stand."""
        found: dict[tuple[str, ...], list[str]] = {}
        for end in (0, -1):
            for searched in self.ranges:
                chosen = isinstance(searched.distribution, CategoricalDistribution)
                for value in searched.values if chosen else [searched.values[end]]:

                    def drawn(other: Range, this: Range = searched, value: Any = value, end: int = end) -> str:
                        return other.override(value if other is this else other.values[end])

                    point = self._overrides(drawn)
                    found.setdefault(tuple(point), point)
        return list(found.values())

    def _overrides(self, drawn: Callable[[Range], str]) -> list[str]:
        chosen: dict[str, str] = {}
        found = []
        for part in self._parts:
            if part.group is not None and chosen[part.group] not in part.where:
                continue
            override = part.what if isinstance(part.what, str) else drawn(part.what)
            found.append(override)
            if part.key in self.groups:
                chosen[part.key] = override.partition("=")[2]
        return found

    def _group_of(self, key: str) -> str | None:
        return next((group for above, group in self._above.items() if key.startswith(above)), None)

    def _part(self, key: str, what: Range | str, override: Override) -> _Part:
        group = self._group_of(key)
        if group is None:
            return _Part(key, what)
        choices = frozenset(self.groups[group].values)
        if override.is_add() or override.is_force_add():  # which need not be there
            return _Part(key, what, group, choices)
        known = {choice: _keys(self._composed(group, choice), key.rpartition(".")[0]) for choice in choices}
        name = key.rpartition(".")[2]
        where = frozenset(choice for choice, keys in known.items() if name in keys)
        if not where:
            said = meant(name, {key for keys in known.values() for key in keys})
            raise ConfigError(f"{key} is no setting of {', '.join(self.groups[group].values)}{said}.")
        return _Part(key, what, group, where)

    def _owned(self, own: Mapping[str, Mapping[str, Any]], typed: set[str]) -> Iterator[_Part]:
        for name, values in own.items():
            if not isinstance(values, Mapping):
                raise ConfigError(f"hydra.sweeper.of.{name} must hold values by their keys, not {values!r}.")
            group = next((key for key, searched in self.groups.items() if name in searched.values), None)
            for key, value in values.items() if group is not None else ():
                if key not in typed:
                    override = self._parser.parse_override(f"{key}={_typed(value)}")
                    yield _Part(key, _what(override, f"{key}@{name}"), group, frozenset([name]))


def _what(override: Override, name: str | None = None) -> Range | str:
    """A range, or the override where there is one value."""
    found = of(override, name)
    if found is None:
        return str(override.input_line)
    return found if len(found.values) > 1 else found.override(found.values[0])


def _keys(cfg: DictConfig, above: str) -> set[str]:
    node = OmegaConf.select(cfg, above)
    return set(map(str, node)) if OmegaConf.is_dict(node) else set()


def _typed(value: Any) -> str:
    """A value of a config as it would be typed: a text that reads as a range is one."""
    return (value if sweeps(f"key={value}") else quoted(value)) if isinstance(value, str) else written(value)
