"""What a run's record holds, and whether one that was read is sound."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from straylight.runtimes import MARK, shared, timing


class Result(TypedDict, total=False):
    """What `result.json` says, and the `folder` it lies in; see docs/runs.md for the fields.

    Callbacks of a user's own may add fields; these are the ones that Straylight reads again.
    """

    status: str
    reason: str | None
    odd: bool
    digests: dict[str, str]
    folder: str
    run: str | None
    detector: str | None
    data: str | None
    seed: int | None
    overrides: list[str]
    command: str
    config_hash: str
    variant: str
    metrics: dict[str, float | None]
    criteria: dict[str, float | None]
    criteria_intervals: dict[str, list[float]]
    criteria_none: dict[str, str]
    objective: list[str]
    intervals: dict[str, list[float] | None]
    interval_level: float
    nominal_needed: dict[str, int]
    latency: list[dict[str, Any]]
    cost: dict[str, Any]
    thresholds: list[dict[str, Any]]
    by_epoch: list[dict[str, Any]]
    losses: dict[str, list[list[float]]]
    density: dict[str, Any]
    bump: dict[str, Any]
    truth: bool
    figures: list[str]
    figures_none: list[str]
    notices: list[str]
    contamination: float | None
    checkpoint: str
    parameters: float | None
    duration_s: float | None
    stopped_early: bool
    pruned: bool
    device: str


Is = Callable[[Any], bool]


def _number(value: Any) -> bool:
    """One that a float can hold."""
    sound = isinstance(value, int | float) and not isinstance(value, bool)
    return sound and -sys.float_info.max <= value <= sys.float_info.max


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _or_null(is_it: Is) -> Is:
    return lambda value: value is None or is_it(value)


def _list(is_it: Is) -> Is:
    return lambda value: isinstance(value, list) and all(map(is_it, value))


def _by_name(is_it: Is) -> Is:
    return lambda value: isinstance(value, dict) and all(map(is_it, value.values()))


def _holding(**needed: Is) -> Is:
    """A mapping in which these stand, and hold what they must."""
    return lambda value: isinstance(value, dict) and all(key in value and ok(value[key]) for key, ok in needed.items())


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_number, value))


_anything: Is = lambda value: True  # noqa: E731
_mapping = _or_null(_by_name(_anything))
_timed = _holding(batch=_number, runtime=_text, p50_us=_number)
_fitted = _holding(**dict.fromkeys(("efficiency", "kept", "observed", "expected", "uncertainty", "p", "z"), _number))
_not_fitted = _holding(efficiency=_number, kept=_number, failed=_text)
_bent = _holding(**dict.fromkeys(("efficiency", "jsd", "chi2", "dof", "p"), _number))
_region = _holding(name=_text, low=_number, high=_number)


def _bump(value: Any) -> bool:
    """What is there of a signal region, its hunts and its sculpting."""
    if not _mapping(value):
        return False
    found = value or {}
    lists = {"cuts": lambda cut: _fitted(cut) or _not_fitted(cut), "sculpting": _bent, "remarks": _text}
    sound = all(_list(is_it)(found.get(key, [])) for key, is_it in lists.items())
    return sound and ("resonance" not in found or _region(found["resonance"]))


#: What must hold of a field that is there, and in which words it is said if it does not.
SOUND: Mapping[str, tuple[Is, str]] = {
    "reason": (_or_null(_text), "must be text"),
    "detector": (_or_null(_text), "must be text"),
    "data": (_or_null(_text), "must be text"),
    "seed": (_or_null(lambda value: _number(value) and isinstance(value, int)), "must be a whole number"),
    "overrides": (_list(_text), "must be a list of texts"),
    "command": (_text, "must be text"),
    "config_hash": (_or_null(_text), "must be text"),
    "variant": (_or_null(_text), "must be text"),
    "metrics": (_by_name(_or_null(_number)), "must hold numbers"),
    "criteria": (_by_name(_or_null(_number)), "must hold numbers"),
    "criteria_intervals": (_by_name(_pair), "must hold pairs of numbers"),
    "criteria_none": (_by_name(_text), "must hold texts"),
    "objective": (_list(_text), "must be a list of texts"),
    "intervals": (
        _by_name(_or_null(lambda pair: _list(_number)(pair) and len(pair) == 2)),
        "must hold pairs of numbers",
    ),
    "interval_level": (_number, "must be a number"),
    "nominal_needed": (_by_name(_number), "must hold numbers"),
    "latency": (_list(_timed), "must be a list whose entries have batch, runtime and p50_us"),
    "cost": (_mapping, "must be a mapping"),
    "thresholds": (
        _list(_holding(rule=_text, asked=_by_name(_anything), value=_or_null(_number))),
        "must be a list whose entries have rule, asked and value",
    ),
    "losses": (_or_null(_by_name(_list(_pair))), "must hold lists of an epoch and a value each, by name"),
    "by_epoch": (_list(_holding(epoch=_number)), "must be a list whose entries have an epoch"),
    "density": (_mapping, "must be a mapping"),
    "bump": (_bump, "must hold resonance, cuts and sculpting as docs/runs.md has them"),
    "truth": (lambda value: isinstance(value, bool), "must be true or false"),
    "figures": (_list(_text), "must be a list of texts"),
    "figures_none": (_list(_text), "must be a list of texts"),
    "notices": (_or_null(_list(_text)), "must be a list of texts"),
    "contamination": (_or_null(_number), "must be a number"),
    "checkpoint": (_text, "must be text"),
    "parameters": (_or_null(_number), "must be a number"),
    "duration_s": (_or_null(_number), "must be a number"),
    "device": (_text, "must be text"),
    "digests": (_by_name(_text), "must hold texts"),
    "ranged": (_or_null(_list(_text)), "must be a list of texts"),
    "run": (_or_null(_text), "must be text"),
}
STATUSES = ("ok", "failed", "interrupted")


def odd(result: Any) -> str | None:
    """What is wrong with a record as it was read; `None` if it is sound.

    Example:
        >>> odd({"status": "ok", "overrides": None})
        'overrides must be a list of texts'
    """
    if not isinstance(result, dict) or not _text(result.get("status")):
        return "it has no status"
    if result["status"] not in STATUSES:
        return f"status must be one of {', '.join(STATUSES)}, not {result['status']!r}"
    return next(
        (f"{key} {said}" for key, (sound, said) in SOUND.items() if key in result and not sound(result[key])), None
    )


def outcome(result: Mapping[str, Any]) -> str:
    """Its status; `pruned` of a run that ended well, but that a search has given up on the way.

    Example:
        >>> outcome({"status": "ok"}), outcome({"status": "ok", "pruned": True})
        ('ok', 'pruned')
    """
    return "pruned" if result["status"] == "ok" and result.get("pruned") else str(result["status"])


def finished(result: Mapping[str, Any]) -> bool:
    """Whether a run ended well, as it was asked for."""
    return outcome(result) == "ok"


def headline(result: Mapping[str, Any]) -> str:
    """One line on how a run went."""
    metrics = result.get("metrics", {})
    numbers = [
        f"{name} {metrics[key]:.4f}"
        for name, key in (("AUROC", "test/auroc"), ("AP", "test/ap"))
        if metrics.get(key) is not None
    ]
    if (one := timing([result], 1, "p50_us")).values:
        numbers.append(f"p50 {MARK if shared(result) else ''}{one.values[0]:.0f} us ({one.runtime})")
    numbers.append(f"{result.get('duration_s') or 0:.1f} s")
    if result.get("pruned"):
        numbers.append(f"pruned after {result.get('epochs')} epochs")
    what = f"{result.get('detector')} on {result.get('data')}, seed {result.get('seed')}"
    return f"{what}: {', '.join(numbers)}"
