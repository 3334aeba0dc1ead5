"""Configs of jobs, of which thousands may differ in a few values: each combination of groups is put together once."""

import pickle
from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from straylight.sweep.alike import Alike, Template, fits, plain
from straylight.sweep.point import Point, Whole

MOST = 256  # combinations that are kept
Kept = TypeVar("Kept")


class Composer:
    """Composes what Hydra would of the same overrides.

    Hydra reads and merges the files of all groups anew for every job. What is chosen of groups is composed by it once
    here; a job has a copy, on which the values of its other overrides are set, as Hydra does in the end itself. Where
    that is not to be done, or fails, Hydra does all of it and says what is wrong.

    Args:
        cfg: the sweep's config.
        loader: Hydra's.
    """

    def __init__(self, cfg: DictConfig, loader: Any) -> None:
        self.cfg, self.loader = cfg, loader
        self._composed: dict[Hashable, bytes] = {}
        self._templates: dict[Hashable, Template | None] = {}
        self._parsed: dict[str, Override] = {}
        self._groups: dict[str, bool] = {}
        self._parser = OverridesParser.create()

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a job.

        Raises:
            HydraException: if it cannot be composed.
        """
        try:
            parsed = [self._override(override) for override in overrides]
            if not any(override.is_sweep_override() for override in parsed):
                return self._with_values(parsed)
        except (HydraException, OmegaConfBaseException):
            pass
        found: DictConfig = self.loader.load_sweep_config(self.cfg, list(overrides))
        return found

    def point(self, overrides: Sequence[str]) -> Point:
        """What there is to know of a job before it has a folder.

        Raises:
            HydraException: if it cannot be composed.
        """
        try:
            parsed = [self._override(override) for override in overrides]
            if not any(override.is_sweep_override() for override in parsed) and (found := self._template(parsed)):
                return Alike(found, parsed)
        except (HydraException, OmegaConfBaseException):
            pass  # said by what composes all of it
        return Whole(self(overrides), overrides)

    def _template(self, parsed: Sequence[Override]) -> Template | None:
        """What a job has in common with those that differ in values alone; `None` if that is not safe to say."""
        if any("$" in str(override.input_line) for override in parsed):  # which Hydra resolves in its own part too
            return None
        own = [override for override in parsed if self._is_value(override) and plain(override)]
        common = [override for override in parsed if override not in own]
        keys = tuple(override.key_or_group for override in own)
        known = (tuple(str(override.input_line) for override in common), keys)
        if known not in self._templates:
            cfg = self._with_values(common)
            kept = Template(cfg, keys, known[0]) if fits(keys, cfg) else None
            _keep(self._templates, known, kept if kept is not None and kept.sound else None)
        return self._templates[known]

    def _override(self, text: str) -> Override:
        """An override as Hydra reads it, of which most are those of other jobs too."""
        if (found := self._parsed.get(text)) is None:
            found = _keep(self._parsed, text, self._parser.parse_override(text))
        return found

    def _with_values(self, parsed: Sequence[Override]) -> DictConfig:
        values = [override for override in parsed if self._is_value(override)]
        others = tuple(str(override.input_line) for override in parsed if override not in values)
        if (kept := self._composed.get(others)) is None:
            cfg = self.loader.load_sweep_config(self.cfg, list(others))
            kept = _keep(self._composed, others, pickle.dumps(cfg, pickle.HIGHEST_PROTOCOL))
        found: DictConfig = pickle.loads(kept)
        ConfigLoaderImpl._apply_overrides_to_config(values, found)
        ours = [override for override in parsed if not override.is_hydra_override()]
        found.hydra.overrides.task = [override.input_line for override in ours]
        named = found.hydra.job.config.override_dirname
        found.hydra.job.override_dirname = get_overrides_dirname(
            overrides=ours, kv_sep=named.kv_sep, item_sep=named.item_sep, exclude_keys=named.exclude_keys
        )
        OmegaConf.copy_cache(from_config=self.cfg, to_config=found)
        return found

    def _is_value(self, override: Override) -> bool:
        """Whether an override sets a value and chooses no group, nor is of Hydra's own."""
        if override.is_hydra_override() or override.package is not None:
            return False
        return isinstance(override.value(), dict) or not self._is_group(override.key_or_group)

    def _is_group(self, key: str) -> bool:
        if (found := self._groups.get(key)) is None:
            found = _keep(self._groups, key, bool(self.loader.repository.group_exists(key)))
        return found


def _keep(kept: dict[Any, Kept], key: Hashable, value: Kept) -> Kept:
    """Remember a value, for as long as there are not too many."""
    if len(kept) >= MOST:
        kept.pop(next(iter(kept)))
    kept[key] = value
    return value
