"""What a run is judged by before anybody looks at test labels: names, which way is better, and where it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from straylight.errors import ConfigError
from straylight.runtimes import timing


class Measure(NamedTuple):
    """A number of a run that a choice may be made by.

    Attributes:
        lower: whether less of it is better.
        says: what it is.
        within: whether only runs of one detector can be compared by it.
    """

    lower: bool
    says: str
    within: bool = False


#: Of validation rows, without labels; `val/NAME/PART` is a part of `val/NAME`.
CRITERIA: dict[str, Measure] = {
    "val/loss": Measure(
        True, "loss of validation rows in the epoch that is tested, of one detector's runs", within=True
    ),
    "val/separation": Measure(False, "mean AUROC of validation rows against anomalies that were made of them"),
    "val/nll": Measure(True, "negative log-likelihood of validation rows, nats per dimension in the data's own units"),
    "val/mass_volume": Measure(True, "mean fraction of the box that holds 90 to 99.9 % of validation rows"),
    "val/excess_mass": Measure(False, "area under the excess-mass curve of validation rows"),
    "val/volume@0.95": Measure(True, "fraction of the box that holds 95 % of validation rows"),
    "val/stability": Measure(False, "rank correlation of validation rows between fits to two halves of training"),
    "val/effective_dimension": Measure(False, "dimensions that the codes of validation rows take", within=True),
    "val/active_codes": Measure(False, "fraction of codes that vary from one validation row to another", True),
}
#: Of the run itself.
COSTS: dict[str, Measure] = {
    "latency": Measure(True, "median microseconds that one event takes, in the fastest runtime"),
    "parameters": Measure(True, "numbers that were trained"),
    "duration_s": Measure(True, "seconds of training and testing"),
}


def refuse_test(key: str, name: str) -> None:
    """Raise if what selects is measured on the rows that the selected is tested on.

    Raises:
        ConfigError: naming the key.
    """
    if name.startswith("test"):
        raise ConfigError(f"{key}={name} would select by the test rows; choose a metric of validation, as val/loss.")


def criterion(name: str) -> str:
    """The criterion that a name stands for, or is a part of.

    Example:
        >>> criterion("val/separation/local"), criterion("val/loss")
        ('val/separation', 'val/loss')
    """
    return "/".join(name.split("/")[:2])


def measure(name: str, key: str = "objective") -> Measure:
    """What a name stands for.

    Args:
        name: of a criterion, `val/NAME` or `val/NAME/PART`, or of a cost.
        key: where it was asked for, for errors.

    Raises:
        ConfigError: if it is measured on test rows, or nothing of that name is known.

    Example:
        >>> measure("latency").lower, measure("val/separation/local").lower
        (True, False)
        >>> measure("test/auroc")
        Traceback (most recent call last):
        straylight.errors.ConfigError: objective=test/auroc would select by the test rows; choose a metric of \
validation, as val/loss.
    """
    refuse_test(key, name)
    found = COSTS.get(name) or CRITERIA.get(criterion(name))
    if found is None:
        raise ConfigError(
            f"{key}={name} is no measure of a run without labels; there is {', '.join(CRITERIA | COSTS)}."
        )
    return found


def named(objective: str | Sequence[str], key: str = "objective") -> tuple[str, ...]:
    """The names of an objective, one or several.

    Raises:
        ConfigError: if one is unknown, or measured on test rows, or there is none.
    """
    names = (objective,) if isinstance(objective, str) else tuple(objective)
    if not names:
        raise ConfigError(f"{key} names nothing to judge runs by; there is {', '.join(CRITERIA | COSTS)}.")
    for name in names:
        measure(str(name), key)
    return names


def reached(result: Mapping[str, Any], name: str) -> float | None:
    """What a run reached of a criterion or a cost; `None` if its record does not say."""
    if name == "latency":
        return next(iter(timing([result], 1, "p50_us").values), None)
    value = result.get(name) if name in COSTS else (result.get("criteria") or {}).get(name)
    return None if value is None else float(value)


def returned(result: Mapping[str, Any]) -> float | list[float | None] | None:
    """What Hydra's sweeper is given of a run: what it reached of the objective that its record names.

    Returns:
        a list if several are named; `None` of a run that failed or has not measured it.
    """
    names = result.get("objective") or []
    if result.get("status") != "ok" or not names:
        return None
    found = [reached(result, name) for name in names]
    return found[0] if len(found) == 1 else found
