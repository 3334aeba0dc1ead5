"""`hydra/launcher=slurm`: the jobs of a sweep as arrays of a cluster; see `straylight.engines.slurm.options`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from straylight.sweep.launcher import POLICY, EngineLauncher

if TYPE_CHECKING:
    from straylight.engines.base import Engine

#: What is asked of Slurm, see `straylight.engines.slurm.options.Options`.
OPTIONS: dict[str, Any] = {
    "partition": None,
    "account": None,
    "time": None,
    "cpus": None,
    "memory": None,
    "gpus": None,
    "nodes": None,
    "extra": None,
    "at_once": None,
    "setup": [],
    "python": None,
    "environment": ["PYTHONPATH", "VIRTUAL_ENV", "STRAYLIGHT_FULL_ERROR", "HYDRA_FULL_ERROR", "SLURM_CONF"],
    "requeue": 5,
}


class SlurmLauncher(EngineLauncher):
    """On a cluster that Slurm keeps."""

    nodes = True

    def check(self) -> None:
        from straylight.engines.slurm.engine import check

        check(self._options())

    def room(self) -> int | None:
        return self._options().at_once

    def engine(self) -> "Engine":
        from straylight.engines.slurm.engine import SlurmEngine

        return SlurmEngine(self._options(), Path(self.config.hydra.sweep.dir))

    def _options(self) -> Any:
        from straylight.engines.slurm.options import Options

        plain: Any = OmegaConf.to_container(OmegaConf.create(self.options))
        return Options(**plain)


# a plain mapping: Hydra runs this file outside of `sys.modules`
DEFAULTS = {"_target_": "hydra_plugins.straylight_local.slurm.SlurmLauncher", **OPTIONS, **POLICY}
ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=DEFAULTS, provider="straylight")
