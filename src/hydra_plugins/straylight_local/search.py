"""`hydra/sweeper=optuna`: trials that are chosen by what earlier ones reached; see docs/search.md."""

from collections.abc import Mapping
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

#: What a search is told, see `straylight.search.settings.Settings`.
SETTINGS: dict[str, Any] = {
    "n_trials": 50,
    "timeout_s": None,
    "at_once": None,
    "sampler": "tpe",
    "sampler_options": None,
    "seed": 0,
    "pruner": None,
    "pruner_options": None,
    "monitor": "val/loss",
    "confirm": 0,
    "figures": True,
}


class OptunaSweeper(Sweeper):
    """Hands what was typed to `straylight.search`, which is imported when there is something to search.

    Args:
        params: ranges by their keys, as `grid` takes them; what is typed goes before them.
        of: ranges and values for one detector alone, by its name.
        settings: see `straylight.search.settings.Settings`.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        of: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        self.params, self.own, self.settings = params, of, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from straylight.sweep.command import Command

        self.asked, self.loader = config, hydra_context.config_loader
        self.resume = Command.of(task_function).resume
        self.by = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from straylight.extras import needed

        needed("hydra/sweeper=optuna", "optuna", "optuna")
        from straylight.overrides import merged
        from straylight.search.run import run
        from straylight.search.settings import Settings

        typed = merged([f"{key}={value}" for key, value in (_plain(self.params) or {}).items()], arguments)
        settings = Settings(**{key: _plain(value) for key, value in self.settings.items() if value is not None})
        run(self.asked, self.loader, self.by, typed, _plain(self.own) or {}, settings, self.resume)


def _plain(given: Any) -> Any:
    """As plain values."""
    return OmegaConf.to_container(given) if OmegaConf.is_config(given) else given


# a plain mapping: Hydra runs this file outside of `sys.modules`
DEFAULTS = {"_target_": "hydra_plugins.straylight_local.search.OptunaSweeper", **SETTINGS, "params": None, "of": None}
ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=DEFAULTS, provider="straylight")
