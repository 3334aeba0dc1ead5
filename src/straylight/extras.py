"""Packages that not everybody needs, and the extra of ours that brings each."""

from __future__ import annotations

from importlib.util import find_spec

from straylight.errors import ConfigError


def lacking(what: str, extra: str, *packages: str) -> str | None:
    """What to say of something that needs packages which are not installed; `None` if all are.

    Args:
        what: needs them.
        extra: of ours, which brings them.
        packages: as they are imported.

    Example:
        >>> lacking("logger=abacus", "abacus", "no_such_package")
        "logger=abacus needs no_such_package, which is not installed: pip install 'straylight[abacus]'."
    """
    for package in packages:
        spec = find_spec(package)
        if spec is None or spec.origin is None:  # a folder of that name is no package
            return f"{what} needs {package}, which is not installed: pip install 'straylight[{extra}]'."
    return None


def needed(what: str, extra: str, *packages: str) -> None:
    """See that packages are installed.

    Raises:
        ConfigError: if one is not, with how to install it.
    """
    if said := lacking(what, extra, *packages):
        raise ConfigError(said)
