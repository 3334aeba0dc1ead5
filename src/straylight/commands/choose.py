"""`straylight choose SWEEP`: which run validation would choose, and that run as an experiment to go on with."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from straylight import config
from straylight.atomic import replacing
from straylight.commands.asked import Parser, working
from straylight.commands.pages import defaults_of
from straylight.console import say
from straylight.documents import read_yaml, yaml_text
from straylight.errors import ConfigError
from straylight.folder import RunFolder, SweepFolder
from straylight.keys import meaning
from straylight.objective import measure
from straylight.report.leading import limits
from straylight.report.selection import Choice, Selection

FIRST = "val/separation"  # where nobody says by what


def main(arguments: list[str]) -> None:
    """Entry point of the command."""
    parser = Parser(
        prog="straylight choose",
        description="Which detector and settings validation would choose among the runs of a sweep, or of all runs "
        "below a folder, without a label: of each data set the one that is best by a criterion, mean over its seeds. "
        "Each is written as an experiment that trains it again. See docs/choose.md.",
    )
    parser.add_argument("folder", type=Path, help="of a sweep, or above several of them")
    parser.add_argument("--by", metavar="CRITERION", help="as val/separation; by default the objective of the runs")
    parser.add_argument("--data", metavar="NAME", help="choose on this data set alone")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="a folder for --config-dir, by default `chosen` in the sweep's"
    )
    parser.add_argument("--json", action="store_true", help="print what was chosen as JSON, and write nothing")
    given = parser.parse_args(arguments)
    with working(f"reading {given.folder}") as phases:
        selection = Selection(_results(given.folder))
        criterion = _criterion(selection, given.by)
        found = [choice for choice in selection.choices(criterion) if given.data in (None, choice.chosen.data)]
        if not found:
            where = f" on {given.data}" if given.data else ""
            raise ConfigError(
                f"There is nothing to choose among{where} below {given.folder}: fewer than two detectors or settings "
                f"have {criterion} measured."
            )
        phases.done()
        if given.json:
            print(json.dumps([_plain(choice) for choice in found]))
            return
        place = given.output or given.folder / "chosen"
        for choice in found:
            command = _written(choice, place, given.folder)
            say(_sentence(choice))
            say(f"  {command}")


def _results(folder: Path) -> list[Any]:
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}.")
    results = SweepFolder(folder).results()
    if not any(result["status"] == "ok" for result in results):
        raise ConfigError(f"No run below {folder} has ended well, so that there is nothing to choose among.")
    return results


def _criterion(selection: Selection, typed: str | None) -> str:
    """By what is chosen: what was asked for, or what the runs were to be judged by, if they have it measured.

    Raises:
        ConfigError: if there is no such criterion, or no run has it.
    """
    there = selection.measured
    wanted = typed or selection.asked or FIRST
    measure(wanted, "--by")
    if wanted.startswith("val/") and wanted not in there:
        have = f"they have {', '.join(there)}" if there else "they are of a version that measured none, or had no rows"
        raise ConfigError(f"No run has {wanted} measured; {have}.")
    return wanted


def _sentence(choice: Choice) -> str:
    auroc = choice.chosen.auroc
    said = f"{choice.data}: {choice.chosen.name}, of {choice.candidates}, by {choice.criterion} = {choice.value:.4g}."
    if choice.without:
        said += f" {choice.without} more have it not measured."
    if auroc is None:
        return said
    within = limits(choice.chosen.runs, auroc)
    known = "" if within is None else f" [{within[0]:.3f}, {within[1]:.3f}]"
    said += f" On the labels of the test it reached an AUROC of {auroc:.4f}{known}"
    return f"{said}; the best reached {choice.best:.4f}, the median {choice.median:.4f}."


def _plain(choice: Choice) -> dict[str, Any]:
    auroc = choice.chosen.auroc
    return {
        "data": choice.data,
        "criterion": choice.criterion,
        "value": choice.value,
        "chosen": choice.chosen.name,
        "folders": [run["folder"] for run in choice.chosen.runs],
        "candidates": choice.candidates,
        "without": choice.without,
        "auroc": auroc,
        "interval": None if auroc is None else limits(choice.chosen.runs, auroc),
        "best": choice.best,
        "median": choice.median,
        "regret": choice.regret,
    }


def _written(choice: Choice, place: Path, source: Path) -> str:
    """Write what was chosen as an experiment: its groups, and what of its config differs from what they say.

    Returns:
        the command that trains it again.

    Raises:
        ConfigError: if its folder does not say what it was.
    """
    folder = RunFolder(choice.chosen.runs[0]["folder"])
    try:
        runtime = read_yaml(folder.hydra)["hydra"]["runtime"]
        chosen = runtime["choices"]
        folders = [s["path"] for s in runtime["config_sources"] if s["provider"] == "command-line" and s["path"]]
        own = meaning(_settled(folder), seed=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{folder} does not say what was trained there, so that it cannot be written.") from error
    groups = {group: name for group, name in chosen.items() if group.partition("@")[0] in ("detector", "data")}
    groups |= {group: chosen[group] for group in ("optimizer", "trainer", "callbacks") if chosen.get(group)}
    base = meaning(plain, seed=False) if (plain := defaults_of(folder)) is not None else {}
    differs = _difference(own, base)
    name = re.sub(r"[^\w.-]+", "_", f"{choice.data}_{choice.criterion.removeprefix('val/')}")
    command = _command(place, folders, name)
    head = [
        "# @package _global_",
        f"# Chosen by {choice.criterion} among {choice.candidates} candidates of {source.name}, without labels.",
        f"#   {command}",
        "defaults:",
        *(f"  - override /{group}: {name or 'null'}" for group, name in groups.items()),
    ]
    with replacing(place / "experiment" / f"{name}.yaml") as aside:
        aside.write_text("\n".join(head) + "\n" + (yaml_text(differs) if differs else ""), encoding="utf-8")
    return command


def _command(place: Path, folders: Sequence[str], name: str) -> str:
    """What trains an experiment of a place; groups of a folder of the user's own are found beside it."""
    words = [f"--config-dir={place}"]
    if folders and Path(folders[-1]).resolve() != place.resolve():  # Hydra takes one
        words = [f"--config-dir={folders[-1]}", f"hydra.searchpath=[file://{place.resolve()}]"]
    return shlex.join(["straylight", "train", "-m", *words, f"experiment={name}", "seed=0,1,2"])


def _settled(folder: RunFolder) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(config.saved(folder), resolve=False)
    return dict(plain)


def _difference(own: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config is not as in another; what is only there is set to nothing."""
    found: dict[str, Any] = {}
    for key in [*own, *(key for key in base if key not in own)]:
        value, other = own.get(key), base.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            if below := _difference(value, other):
                found[key] = below
        elif value != other or type(value) is not type(other):
            found[key] = value
    return found
