"""Configs of jobs, of which thousands may differ in a few values: each combination of groups is put together once."""

import pickle
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

MOST = 256  # combinations that are kept


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
        self._composed: dict[tuple[str, ...], bytes] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """The config of a job.

        Raises:
            HydraException: if it cannot be composed.
        """
        try:
            parsed = OverridesParser.create().parse_overrides(list(overrides))
            if not any(override.is_sweep_override() for override in parsed):
                return self._with_values(parsed)
        except (HydraException, OmegaConfBaseException):
            pass
        found: DictConfig = self.loader.load_sweep_config(self.cfg, list(overrides))
        return found

    def _with_values(self, parsed: Sequence[Override]) -> DictConfig:
        values = [override for override in parsed if self._is_value(override)]
        others = tuple(str(override.input_line) for override in parsed if override not in values)
        if (kept := self._composed.get(others)) is None:
            kept = pickle.dumps(self.loader.load_sweep_config(self.cfg, list(others)), pickle.HIGHEST_PROTOCOL)
            if len(self._composed) >= MOST:
                self._composed.pop(next(iter(self._composed)))
            self._composed[others] = kept
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
        return isinstance(override.value(), dict) or not self.loader.repository.group_exists(override.key_or_group)
