"""`hydra/sweeper=grid`: every combination of the values given, without composing all of them before the first runs."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

log = logging.getLogger(__name__)
SEED = re.compile(r"^seed=\d+$")

#: A plain mapping: Hydra runs this file outside of `sys.modules`.
DEFAULTS = {
    "_target_": "hydra_plugins.straylight_local.grid.GridSweeper",
    "max_batch_size": None,
    "params": None,
    "of": None,
}


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper, which composes every job twice: before any of them runs to see whether it can be, and
    again to run it. This one looks at each value once, and takes `data.name=all` for all data sets that are present.

    Args:
        max_batch_size, params: see Hydra's.
        of: settings of the jobs of one detector or data set alone, by its name; what is typed goes before them. See
            `straylight.sweep.settings.with_own`.
    """

    def __init__(
        self, max_batch_size: int | None = None, params: Any = None, of: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        super().__init__(max_batch_size, params)
        self.of = of

    def sweep(self, arguments: list[str]) -> None:
        swept = {key: str(value) for key, value in (self.params or {}).items()}
        given = [f"{key}={value}" for key, value in swept.items()] + arguments
        self.params = {}
        super().sweep([self._present(argument) for argument in given])

    def split_arguments(  # type: ignore[override]  # Hydra's is a static method, called as any other
        self, overrides: list[Any], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The jobs, in batches; each value is looked at once, before there is a folder of the sweep."""
        self._refuse_nothing(overrides)
        batches = self._fitting(BasicSweeper.split_arguments(overrides, max_batch_size))
        jobs = covering(job for batch in batches for job in batch)
        if callable(look_at := getattr(self.launcher, "look_at", None)):
            look_at(jobs)
        else:
            super().validate_batch_is_legal(list(jobs))
        return batches

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """All were looked at."""

    def _refuse_nothing(self, overrides: list[Any]) -> None:
        from straylight.errors import ConfigError

        for override in overrides:
            if override.is_discrete_sweep() and not any(True for _ in override.sweep_string_iterator()):
                key, known = override.get_key_element(), []
                if override.config_loader is not None:
                    known = override.config_loader.get_group_options(key)
                there = f"; {key} is one of {', '.join(known)}" if known else ""
                raise ConfigError(f"The sweep has no job, since {override.input_line} stands for no value{there}.")

    def _fitting(self, batches: list[list[list[str]]]) -> list[list[list[str]]]:
        from straylight.sweep.settings import fitting, with_own

        assert self.config is not None
        of: Any = OmegaConf.to_container(self.of) if OmegaConf.is_config(self.of) else self.of or {}
        batches = with_own(batches, of)
        sources = [source.path for source in self.config.hydra.runtime.config_sources if source.schema == "file"]
        found, said = fitting(batches, [Path(path) for path in sources])
        for sentence in said:
            log.warning(sentence)
        return found

    def _present(self, argument: str) -> str:
        from straylight.errors import ConfigError
        from straylight.overrides import quoted

        if not re.fullmatch(r"data\.name=(all|choice\(all\))", argument):
            return argument
        assert self.config is not None
        root = OmegaConf.select(self.config, "data.root") or Path(self.config.paths.data, "adbench")
        names = sorted((p.stem for p in Path(root).glob("*.npz")), key=lambda name: (len(name.partition("_")[0]), name))
        if not names:
            where = "set paths.data to the folder that holds adbench/"
            raise ConfigError(f"data.name=all: no .npz file is in {root}; {where}.")
        return f"data.name={','.join(map(quoted, names))}"


def covering(batch: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
    """Jobs among which every override stands at least once; of seeds, which only repeat, one is enough.

    Example:
        >>> list(covering([["a=1", "b=1"], ["a=1", "b=2"], ["a=2", "b=1"], ["a=2", "b=2"]]))
        [['a=1', 'b=1'], ['a=1', 'b=2'], ['a=2', 'b=1']]
        >>> list(covering([["a=1", "seed=0"], ["a=1", "seed=1"], ["a=1", "seed=x"]]))
        [['a=1', 'seed=0'], ['a=1', 'seed=x']]
    """
    seen: set[str] = set()
    for job in batch:
        told = {SEED.sub("seed=0", override) for override in job}
        if not seen.issuperset(told):
            seen |= told
            yield job


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=DEFAULTS, provider="straylight")
