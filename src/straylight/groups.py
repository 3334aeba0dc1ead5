"""Where the configs are: `conf/` of a checkout, or the copy that the wheel brings; and what can be chosen."""

from __future__ import annotations

from pathlib import Path

_INSTALLED = Path(__file__).parent / "conf"
FOLDER = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "conf"
GROUPS = ("detector", "data", "optimizer", "trainer", "callbacks", "logger", "paths", "experiment", "hydra")


def choices(group: str, *folders: Path) -> list[str]:
    """The names of a group's configs, here and in more folders of a user's own.

    Example:
        >>> "vae" in choices("detector")
        True
    """
    found = {
        str(path.relative_to(folder / group).with_suffix(""))
        for folder in (FOLDER, *folders)
        for path in (folder / group).rglob("*.yaml")
    }
    return sorted(found - {"base"})
