"""`straylight data`: which data sets there are, what one holds, and fetching one."""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from straylight.console import Plain, say
from straylight.errors import StraylightError
from straylight.groups import FOLDER, choices, config_folders

HELP = """\
Data sets: which there are, what one holds, and fetching one.

usage: straylight data [paths.data=DIR]              which there are, and where
       straylight data NAME [KEY=VALUE ...]          what one holds
       straylight data fetch NAME [KEY=VALUE ...]    fetch its files

examples:
  straylight data
  straylight data adbench data.name=6_cardio data.protocol=unsupervised
  straylight data fetch fashion_mnist
"""


def main(arguments: list[str]) -> None:
    """Entry point of the command."""
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return
    folders, words = config_folders(arguments)
    overrides = [w for w in words if "=" in w or w.startswith(("~", "+"))]
    names = [w for w in words if w not in overrides]
    fetch = names[:1] == ["fetch"]
    names = names[1:] if fetch else names
    try:
        if unknown := [w for w in words if w.startswith("-")]:
            raise StraylightError(f"there is no option {unknown[0].partition('=')[0]}; there is --config-dir DIR.")
        if absent := [folder for folder in folders if not folder.is_dir()]:
            raise StraylightError(f"--config-dir: there is no folder {absent[0]}.")
        if not names and any(w.startswith("data.") for w in overrides):
            raise StraylightError("say which data set first, such as `straylight data adbench data.name=6_cardio`.")
        if len(names) > 1 or (fetch and not names):
            raise StraylightError("give one data set, such as `straylight data fetch mnist`.")
        if not names and not folders and all(o.startswith("paths.data=") for o in overrides):
            listing(overrides)
            return
        from straylight.commands import rows  # which takes torch and Lightning

        rows.main(names, overrides, folders, fetch=fetch)
    except Exception as error:
        from straylight import config

        said = str(error) if isinstance(error, StraylightError) else config.explain(error)
        if said is None:
            raise
        say(f"Error: {said}", error=True)
        sys.exit(1)


def listing(overrides: list[str]) -> None:
    """Print every data set with whether its files are there, as the heads of the configs have it."""
    paths = yaml.safe_load((FOLDER / "paths" / "default.yaml").read_text(encoding="utf-8"))
    usual = re.fullmatch(r"\$\{oc\.env:(\w+),(.*)\}", str(paths["data"]))
    assert usual is not None
    root = os.environ.get(usual[1], usual[2])
    for override in overrides:
        root = override.partition("=")[2].strip("'\"")
    show((name, head(name), _where(name, root)) for name in choices("data"))


def show(lines: Iterable[tuple[str, str, str]]) -> None:
    """Print lines of a data set, what it is, and where its files are."""
    table = Table(box=None, pad_edge=False)
    for name in ("data set", "what", "where"):
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(*line)
    Plain().print(table)


def head(name: str, *folders: Path) -> str:
    """What a config says of itself first."""
    for folder in (FOLDER, *folders):
        path = folder / "data" / f"{name}.yaml"
        if path.is_file():
            first = path.read_text(encoding="utf-8").partition("\n")[0]
            return (
                re.split(r"[.;:] |, (?=[a-z])", first.removeprefix("# "))[0].rstrip(".,;:")
                if first.startswith("#")
                else ""
            )
    return ""


def needed(name: str) -> list[list[str]]:
    """The files of a data set below its root, as the head of its config says; any one of each list will do.

    Example:
        >>> needed("kddcup99"), needed("house_prices")
        ([['kddcup.data_10_percent.gz']], [['house_prices.csv', 'train.csv']])
    """
    text = (FOLDER / "data" / f"{name}.yaml").read_text(encoding="utf-8")
    lines = re.findall(r"^# Files: (.*)$", text, re.MULTILINE)
    return [one.split(" or ") for line in lines for one in line.split(", ")]


def _where(name: str, data: str) -> str:
    config: dict[str, Any] = yaml.safe_load((FOLDER / "data" / f"{name}.yaml").read_text(encoding="utf-8"))
    if "root" not in config:
        return "your own file" if "path" in config else "needs no files"
    root = Path(config["root"].replace("${paths.data}", data))
    files = needed(name)
    if not files:
        return f"{len(list(root.glob('*.*')))} files in {root}"
    absent = next((either[0] for either in files if not any((root / file).is_file() for file in either)), None)
    return f"present in {root}" if absent is None else f"no {Path(absent).name} in {(root / absent).parent}"
