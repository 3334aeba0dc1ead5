"""Where the configs are: `conf/` of a checkout, or the copy that the wheel brings; and what can be chosen."""

from pathlib import Path

from straylight.errors import StraylightError

_INSTALLED = Path(__file__).parent / "conf"
FOLDER = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "conf"
GROUPS = ("detector", "data", "optimizer", "trainer", "callbacks", "logger", "paths", "experiment", "hydra")


#: How a folder with more groups is named on the command line.
CONFIG_DIR = frozenset({"--config-dir", "-cd"})


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


def told(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """The folders of `--config-dir`, which are there, and the words of a command that takes no other option.

    Raises:
        StraylightError: if there is another option, or no such folder.
    """
    folders, words = config_folders(arguments)
    if unknown := [word for word in words if word.startswith("-")]:
        raise StraylightError(f"there is no option {unknown[0].partition('=')[0]}; there is --config-dir DIR.")
    if absent := [folder for folder in folders if not folder.is_dir()]:
        raise StraylightError(f"--config-dir: there is no folder {absent[0]}.")
    return folders, words


def config_folders(options: list[str]) -> tuple[list[Path], list[str]]:
    """The folders of `--config-dir`, and the other options.

    Example:
        >>> config_folders(["-m", "--config-dir=mine", "-cd", "more"])
        ([PosixPath('mine'), PosixPath('more')], ['-m'])
    """
    folders, rest = [], []
    given = iter(options)
    for option in given:
        name, equals, value = option.partition("=")
        if name in CONFIG_DIR:
            folders.append(Path(value if equals else next(given, "")))
        else:
            rest.append(option)
    return folders, rest
