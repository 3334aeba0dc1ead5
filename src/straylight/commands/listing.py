"""Which data sets there are, as the heads of their configs have it."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from straylight.catalogue import FILES, entry
from straylight.console import Plain
from straylight.groups import FOLDER, choices


def listing(overrides: list[str], as_json: bool = False) -> None:
    """Print every data set with whether its files are there, as the heads of the configs have it."""
    paths = yaml.safe_load((FOLDER / "paths" / "default.yaml").read_text(encoding="utf-8"))
    usual = re.fullmatch(r"\$\{oc\.env:(\w+),(.*)\}", str(paths["data"]))
    assert usual is not None
    root = os.environ.get(usual[1], usual[2])
    for override in overrides:
        root = override.partition("=")[2].strip("'\"")
    show(((name, head(name), _where(name, root)) for name in choices("data")), as_json)


def show(lines: Iterable[tuple[str, str, str]], as_json: bool = False) -> None:
    """Print lines of a data set, what it is, and where its files are; or all of it as JSON."""
    if as_json:
        print(json.dumps([dict(zip(("name", "what", "where"), line, strict=True)) for line in lines]))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("data set", "what", "where"):
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(*line)
    Plain().print(table)


def head(name: str, *folders: Path) -> str:
    """What a config says of itself first."""
    return re.split(r"[.;:] |, (?=[a-z])", entry("data", name, folders).about)[0].rstrip(".,;:")


def needed(name: str) -> list[list[str]]:
    """The files of a data set below its root, as the head of its config says; any one of each list will do.

    Example:
        >>> needed("kddcup99"), needed("house_prices")
        ([['kddcup.data_10_percent.gz']], [['house_prices.csv', 'train.csv']])
    """
    said = entry("data", name).fields.get(FILES)
    return [one.split(" or ") for one in said.split(", ")] if said else []


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
