"""What a search is told beside its space: how many trials, chosen how, and what is done with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from straylight import checks, journal
from straylight.errors import ConfigError
from straylight.objective import measure
from straylight.search import samplers


@dataclass(frozen=True)
class Settings:
    """The keys of `hydra.sweeper`.

    Args:
        n_trials: trials of the search in all, those of before it was resumed among them.
        timeout_s: seconds after which no other trial begins.
        at_once: trials that run or wait at a time; by default as many as the launcher has room for.
        sampler, sampler_options: one of `straylight.search.samplers.SAMPLERS`, and what Optuna's class takes.
        seed: of the sampler.
        pruner, pruner_options: one of `straylight.journal.PRUNERS`, and what Optuna's class takes.
        monitor: what a pruner goes by.
        confirm: fresh seeds with which the best trial is trained again in the end.
        figures: whether to draw the search in the end.

    Raises:
        ConfigError: if a value does not fit.
    """

    n_trials: int = 50
    timeout_s: float | None = None
    at_once: int | None = None
    sampler: str = "tpe"
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    pruner: str | None = None
    pruner_options: Mapping[str, Any] = field(default_factory=dict)
    monitor: str = "val/loss"
    confirm: int = 0
    figures: bool = True

    def __post_init__(self) -> None:
        checks.number("hydra.sweeper.n_trials", self.n_trials, whole=True)
        checks.number("hydra.sweeper.timeout_s", self.timeout_s, null=True)
        checks.number("hydra.sweeper.at_once", self.at_once, whole=True, null=True)
        checks.number("hydra.sweeper.seed", self.seed, whole=True, zero=True)
        checks.number("hydra.sweeper.confirm", self.confirm, whole=True, zero=True)
        for name in ("sampler_options", "pruner_options"):
            if not isinstance(given := getattr(self, name), Mapping):
                raise ConfigError(f"hydra.sweeper.{name} must hold values by their keys, not {given!r}.")

    def fit(self, objectives: tuple[str, ...], searched: Mapping[str, Any]) -> None:
        """See that they go together with what is asked for and what is searched.

        Raises:
            ConfigError: if not.
        """
        samplers.check(self.sampler, self.sampler_options, len(objectives))
        several = len(objectives) > 1
        if several and self.confirm:
            raise ConfigError("hydra.sweeper.confirm trains the best trial again, and of several objectives none is.")
        if self.pruner is None:
            return
        journal.pruner_of(self.pruner, self.pruner_options)
        measure(self.monitor, "hydra.sweeper.monitor")
        if several:
            raise ConfigError("hydra.sweeper.pruner goes by one objective; type pruner=null to search by several.")
        if self.monitor == "val/loss" and "detector" in searched:
            raise ConfigError(
                "hydra.sweeper.pruner would compare losses of different detectors, which mean different things; type "
                "one detector, or hydra.sweeper.pruner=null."
            )
