"""Ranges as Hydra writes them, and what a trial may be of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from straylight.errors import ConfigError
from straylight.keys import Kind, entry

Number = int | float


@dataclass(frozen=True)
class Range:
    """What one override leaves to the search.

    Attributes:
        name: of the parameter.
        key: what stands before the `=` of the override.
        values: what it may be; of an interval the two ends.
        distribution: Optuna's.
    """

    name: str
    key: str
    values: Sequence[Any]
    distribution: BaseDistribution

    def drawn(self, trial: optuna.Trial) -> str:
        """The override of a trial, which is asked for a value unless it has one."""
        value: Any
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                value = trial.suggest_categorical(self.name, choices)
            case IntDistribution(low=low, high=high, step=step, log=log):
                value = trial.suggest_int(self.name, low, high, step=step, log=log)
            case FloatDistribution(low=low, high=high, step=step, log=log):
                value = trial.suggest_float(self.name, low, high, step=step, log=log)
        return self.override(value)

    def override(self, value: Any) -> str:
        """The override that gives it this value.

        Example:
            >>> from straylight.overrides import parsed
            >>> found = of(parsed("a=range(0.1,0.5,0.1)"))
            >>> found.override(0.30000000001), found.override(found.values[-1])
            ('a=0.30000000000000004', 'a=0.4')
        """
        if isinstance(self.distribution, FloatDistribution) and self.distribution.step:
            value = self.values[round((value - self.distribution.low) / self.distribution.step)]
        return f"{self.key}={value}"


def of(override: Override, name: str | None = None) -> Range | None:
    """What an override leaves to the search; `None` if it has one value.

    Args:
        override: as Hydra reads it.
        name: of the parameter; by default the key.

    Raises:
        ConfigError: if it stands for no value, or for one that no search can choose.

    Example:
        >>> from straylight.overrides import parsed
        >>> of(parsed("detector.latent=range(2,16)")).distribution
        IntDistribution(high=15, log=False, low=2, step=1)
        >>> of(parsed("optimizer.lr=tag(log,interval(1e-4,1e-1))")).distribution
        FloatDistribution(high=0.1, log=True, low=0.0001, step=None)
        >>> of(parsed("seed=3")) is None
        True
    """
    if not override.is_sweep_override():
        return None
    key = override.get_key_element()
    bare = key.lstrip("+")
    _refuse(override, bare)
    sweep: Any = override._value
    tags = set(getattr(sweep, "tags", ()))
    if unknown := tags - {"log"}:
        raise ConfigError(f"{override.input_line}: of tags the search knows log, and not {', '.join(sorted(unknown))}.")
    read: Callable[[str, Any, bool], tuple[Sequence[Any], BaseDistribution]]
    match sweep:
        case IntervalSweep():
            read = _interval
        case RangeSweep():
            read = _range
        case _:
            values = list(dict.fromkeys(override.sweep_string_iterator()))
            if not values:
                known = override.config_loader.get_group_options(bare) if override.config_loader is not None else []
                there = f"; {bare} is one of {', '.join(known)}" if known else ""
                raise ConfigError(f"The search has no point, since {override.input_line} stands for no value{there}.")
            return Range(name or bare, key, values, CategoricalDistribution(values))
    try:
        return Range(name or bare, key, *read(str(override.input_line), sweep, "log" in tags))
    except ValueError as error:
        raise ConfigError(f"{override.input_line}: {' '.join(str(error).split())}") from error


def _interval(line: str, sweep: Any, log: bool) -> tuple[Sequence[Any], BaseDistribution]:
    low, high = sweep.start, sweep.end
    if low > high:
        raise ConfigError(f"{line} stands for no value, since {low:g} is above {high:g}: type the smaller one first.")
    _refuse_log(line, low, log)
    ends = (low, high) if low < high else (low,)
    if isinstance(low, int) and isinstance(high, int):
        return ends, IntDistribution(low, high, log=log)
    return ends, FloatDistribution(low, high, log=log)


def _range(line: str, sweep: Any, log: bool) -> tuple[Sequence[Any], BaseDistribution]:
    start, stop, step = sweep.start, sweep.stop, sweep.step
    values = range(0) if not step else sweep.range()
    if isinstance(values, range):
        found: Sequence[Number] = values if values.step > 0 else values[::-1]
    else:
        found = sorted(values)
    if not found:
        raise ConfigError(
            f"{line} stands for no value, since steps of {step:g} do not lead from {start:g} to {stop:g}; a range ends "
            "before its second number: range(2,16) is 2 to 15."
        )
    _refuse_log(line, found[0], log)
    if log and (abs(step) != 1 or not isinstance(found, range)):
        raise ConfigError(f"{line}: a logarithmic range has whole numbers and steps of 1; type tag(log,interval(a,b)).")
    if isinstance(found, range):
        return found, IntDistribution(found[0], found[-1], step=found.step, log=log)
    return found, FloatDistribution(found[0], found[-1], step=abs(float(step)) if len(found) > 1 else None)


def _refuse(override: Override, key: str) -> None:
    if key.startswith(("hydra.", "hydra/")) or key == "objective":
        raise ConfigError(f"{override.input_line}: a search has one {key}, by which all its trials go.")
    if entry(key).kind is Kind.SEED:
        raise ConfigError(
            f"{override.input_line}: which seed is the luckiest is nothing to search for; type one, and "
            "hydra.sweeper.confirm=3 to train the best trial with three fresh ones."
        )
    if key == "data" or key == "data.name":
        raise ConfigError(f"{override.input_line}: a search would choose the easiest data set; type one.")


def _refuse_log(line: str, low: Number, log: bool) -> None:
    if log and low <= 0:
        raise ConfigError(f"{line}: a logarithmic range begins above 0, not at {low:g}.")
