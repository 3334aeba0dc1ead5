"""What numbers depend on besides a config: Python, packages, and the code of this one."""

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("straylight", "torch", "pytorch-lightning", "hydra-core", "numpy", "scikit-learn", "nflows")
CODE = "code"


@cache
def packages() -> Mapping[str, str]:
    """The versions of Python and of the packages that numbers depend on; none of them is imported."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # running from a source tree that was never installed
            continue
    return found


@cache
def here() -> Mapping[str, str]:
    """The versions, and a digest of this package's own code, which a checkout changes and a version does not."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return {**packages(), CODE: digest.hexdigest()[:12]}


def differences(theirs: Mapping[str, str], ours: Mapping[str, str], where: str) -> str | None:
    """What another machine has that is not as here, in one sentence; `None` if all is alike.

    Args:
        theirs, ours: see `here`.
        where: the other machine's name.

    Example:
        >>> differences({"torch": "2.12", "code": "a"}, {"torch": "2.13", "code": "a"}, "node n1")
        'node n1 computes by other code than who submitted: torch 2.12, not 2.13.'
    """
    unlike = [
        f"{name} {theirs.get(name, 'none')}, not {ours.get(name, 'none')}"
        for name in dict.fromkeys([*ours, *theirs])
        if theirs.get(name) != ours.get(name)
    ]
    return f"{where} computes by other code than who submitted: {'; '.join(unlike)}." if unlike and ours else None
