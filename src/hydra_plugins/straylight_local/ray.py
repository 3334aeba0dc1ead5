"""`hydra/launcher=ray`: every job of a sweep as a task of Ray's; see `straylight.engines.ray.engine`."""

from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from straylight.sweep.launcher import POLICY, EngineLauncher

if TYPE_CHECKING:
    from straylight.engines.base import Engine

#: What is asked of Ray for each job, see `straylight.engines.ray.options.Options`.
OPTIONS: dict[str, Any] = {
    "address": None,
    "cpus": None,
    "gpus": None,
    "autoscaling": False,
    "environment": ["STRAYLIGHT_FULL_ERROR", "HYDRA_FULL_ERROR"],
}


class RayLauncher(EngineLauncher):
    """On a cluster of Ray's."""

    nodes = True

    def check(self) -> None:
        from straylight.extras import needed

        needed("hydra/launcher=ray", "ray", "ray")
        self._options().answered()

    def engine(self) -> "Engine":
        from straylight.engines.ray.engine import RayEngine

        return RayEngine(self._options())

    def _options(self) -> Any:
        from straylight.engines.ray.options import Options

        plain: Any = OmegaConf.to_container(OmegaConf.create(self.options))
        return Options(**plain)


# a plain mapping: Hydra runs this file outside of `sys.modules`
DEFAULTS = {"_target_": "hydra_plugins.straylight_local.ray.RayLauncher", **OPTIONS, **POLICY}
ConfigStore.instance().store(group="hydra/launcher", name="ray", node=DEFAULTS, provider="straylight")
