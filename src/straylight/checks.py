"""Whether a value that was given may be one, said in one sentence if it may not."""

from __future__ import annotations

from typing import Any

from straylight.errors import ConfigError


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
