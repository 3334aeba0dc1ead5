"""Whether a value that was given may be one, said in one sentence if it may not."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from straylight.errors import ConfigError, DataError


def number(key: str, value: Any, *, whole: bool = False, zero: bool = False, null: bool = False) -> None:
    """See that a value is a positive number.

    Args:
        key: what it is the value of.
        value: any.
        whole: whether it must be a whole one.
        zero, null: whether it may be 0 or `None`, too.

    Raises:
        ConfigError: if it is not.

    Example:
        >>> number("hydra.launcher.retry", 0, whole=True, zero=True)
    """
    if value is None and null:
        return
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or value < 0 or not (value or zero):
        called = "whole number" if whole else "number"
        limit = f"{called} of at least 0" if zero else f"positive {called}"
        raise ConfigError(f"{key} must be a {limit}, not {value!r}.")


def meant(name: str, options: Iterable[str]) -> str:
    """What is said behind a name that there is not, if another is near.

    Example:
        >>> "There is no 'vea'" + meant("vea", ["vae", "knn"]), meant("zzz", ["vae"])
        ("There is no 'vea' (did you mean 'vae'?)", '')
    """
    close = difflib.get_close_matches(name, list(options), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


# Of the values of keys in a group of the config, by key. `also` are the words that may stand for a number, or the
# `Literal` of them; `null` stands for None.


def positive(group: str, /, *, also: Any = (), **values: Any) -> None:
    """See that they are above 0.

    Raises:
        DataError: if one of the group `data` is not.
        ValueError: if one of another group is not.

    Example:
        >>> positive("detector", lr=0.1, steps=0)
        Traceback (most recent call last):
        ValueError: detector.steps must be positive, not 0
    """
    _refuse_unless(lambda value: value > 0, group, "be positive", values, also)


def counts(group: str, least: int = 1, /, *, also: Any = (), **values: Any) -> None:
    """See that they are not below a whole number."""
    must = "be positive" if least == 1 else f"be at least {least}"
    _refuse_unless(lambda value: value >= least, group, must, values, also)


def not_negative(group: str, /, **values: Any) -> None:
    """See that they are 0 or above."""
    _refuse_unless(lambda value: value >= 0, group, "not be negative", values)


def between(group: str, low: float, high: float, /, *, also: Any = (), **values: Any) -> None:
    """See that they lie between two numbers or are one of these."""
    _refuse_unless(lambda value: low <= value <= high, group, f"be between {low:g} and {high:g}", values, also)


def above(group: str, low: float, high: float, /, *, also: Any = (), **values: Any) -> None:
    """See that they lie above one number and not above another."""
    must = f"be above {low:g} and at most {high:g}"
    _refuse_unless(lambda value: low < value <= high, group, must, values, also)


def one_of(group: str, words: Any, /, **values: Any) -> None:
    """See that they are among some words, or those of a `Literal`."""
    must = f"be one of {', '.join(_words(words))}"
    _refuse_unless(lambda value: value in _words(words), group, must, values)


def _refuse_unless(
    fits: Callable[[Any], bool], group: str, must: str, values: Mapping[str, Any], also: Any = ()
) -> None:
    words = _words(also)
    if words:
        must = must.replace("be", f"be {', '.join(words)} or", 1)
    for key, value in values.items():
        worded = "null" if value is None else value
        if not (worded in words if isinstance(worded, str) and words else fits(value)):
            said = f"{group}.{key} must {must}, not {value!r}"
            raise DataError(f"{said}.") if group == "data" else ValueError(said)


def _words(given: Any) -> tuple[str, ...]:
    return get_args(given) or ((given,) if isinstance(given, str) else tuple(given))
