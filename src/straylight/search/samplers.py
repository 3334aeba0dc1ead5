"""What chooses the next trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna import samplers

from straylight.errors import ConfigError
from straylight.extras import needed
from straylight.journal import of

SAMPLERS: Mapping[str, Any] = {
    "tpe": samplers.TPESampler,
    "random": samplers.RandomSampler,
    "qmc": samplers.QMCSampler,
    "cmaes": samplers.CmaEsSampler,
    "nsga2": samplers.NSGAIISampler,
}
#: Where samplers keep what all trials have in common, which takes long to be found anew among hundreds.
SPACE = "_search_space"
#: Of one objective alone.
SINGLE = frozenset({"cmaes"})


def check(name: str, options: Mapping[str, Any], objectives: int) -> None:
    """See that a sampler is there, takes its options, and can have so many objectives.

    Raises:
        ConfigError: if not.
    """
    if name == "cmaes":
        needed("hydra.sweeper.sampler=cmaes", "optuna", "cmaes")
    sampler_of(name, options, 0, 0)
    if name in SINGLE and objectives > 1:
        raise ConfigError(f"hydra.sweeper.sampler={name} has one objective, and not {objectives}; choose nsga2 or tpe.")


def sampler_of(
    name: str, options: Mapping[str, Any], seed: int, number: int, before: samplers.BaseSampler | None = None
) -> samplers.BaseSampler:
    """The sampler of one trial.

    Each has one of its own, seeded by the number of the trial: what it chooses then follows from the seed and from
    what is in the journal, whether the search was interrupted before or not.

    Args:
        name: one of `SAMPLERS`.
        options: of Optuna's class.
        seed: of the search.
        number: of the trial.
        before: that of another trial of the search, which knows already what all trials have in common.

    Raises:
        ConfigError: if there is none of that name, or it does not take an option.

    Example:
        >>> type(sampler_of("tpe", {"n_startup_trials": 5}, seed=0, number=3)).__name__
        'TPESampler'
    """
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    given: dict[str, Any] = {"seed": own}
    if name == "qmc":  # one sequence, of which trials take the points in turn
        independent = samplers.RandomSampler(seed=own)
        given = {"seed": seed, "independent_sampler": independent, "warn_asynchronous_seeding": False}
    if name in ("cmaes", "qmc"):
        given["warn_independent_sampling"] = False
    if name == "cmaes":
        given["independent_sampler"] = samplers.RandomSampler(seed=own)
    if taken := sorted(given.keys() & options.keys()):
        raise ConfigError(f"hydra.sweeper.sampler_options.{taken[0]} is given by the search: see hydra.sweeper.seed.")
    found: samplers.BaseSampler = of("hydra.sweeper.sampler", SAMPLERS, name, options, **given)
    if type(found) is type(before) and SPACE in vars(before):
        setattr(found, SPACE, getattr(before, SPACE))
    return found
