"""What `straylight data` says of the rows themselves, and fetching them."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from straylight import config
from straylight.commands.listing import head, show
from straylight.console import Plain, say
from straylight.data import AnomalyDataModule
from straylight.data.steps.overlap import found_in
from straylight.data.stored import Stored
from straylight.errors import DataError, StraylightError
from straylight.groups import FOLDER, choices
from straylight.job.train import quiet
from straylight.rows.batch import Events
from straylight.rows.mapped import CHUNK

COLUMNS = 20  # of which ranges are printed


def main(names: list[str], overrides: list[str], folders: list[Path], *, fetch: bool, as_json: bool) -> None:
    """List data sets, where configs of a user's own are among them; summarise one, or fetch its files.

    Raises:
        Exception: whatever is wrong with what was typed or with the files.
    """
    quiet()
    if not names:
        composed = ((name, _compose(name, overrides, folders)) for name in choices("data", *folders))
        show(((name, head(name, *folders), _presence(cfg)) for name, cfg in composed), as_json)
    elif fetch:
        _fetch(build(names[0], overrides, folders))
    else:
        found = described(build(names[0], overrides, folders))
        if as_json:
            print(json.dumps(found))
        else:
            summarise(found, Plain())


def described(data: AnomalyDataModule) -> dict[str, Any]:
    """What a data set holds: rows of each split and kind, contamination, overlap, what was filled in, and ranges."""
    start = time.perf_counter()
    splits = data.splits
    seconds = time.perf_counter() - start
    train, known = splits.train, int(splits.test.y.max()) >= 0
    counts = {
        split: torch.bincount(part.y.long().clamp(min=0), minlength=len(data.kinds)).tolist()
        for split, part in zip(splits._fields, splits, strict=True)
    }
    found: dict[str, Any] = {
        "name": data.name,
        "shape": list(data.shape),
        "context": data.context,
        "protocol": data.protocol,
        "seed": data.seed,
        "seconds": seconds,
        "labels": known,
        "rows": {split: len(part) for split, part in zip(splits._fields, splits, strict=True)},
        "kinds": {split: dict(zip(data.kinds, of, strict=True)) for split, of in counts.items()} if known else None,
        "contamination": float((train.y > 0).float().mean()) if known else None,
        "overlap": None,
        "filled": {str(name): float(value) for name, value in data.filled.items()},
        "weights": None,
        "meta": list(splits.test.meta),
        "density_known": data.log_prob is not None,
        "features": _ranges(data, train),
    }
    if data.protocol != "unsupervised":
        others = (chunk for part in (train, splits.val, splits.reserve) for chunk in part.x.split(CHUNK))
        found["overlap"] = int(found_in(splits.test.x.split(CHUNK), others).sum())
    if train.weight.stride(0) != 0:
        found["weights"] = [float(train.weight.min()), float(train.weight.max())]
    return found


def summarise(found: dict[str, Any], console: Console) -> None:
    """Print what a data set holds, as `described` has it."""
    console.print(
        f"{found['name']}: events of shape {tuple(found['shape'])}, {found['context']} columns of context"
        f"{'' if found['labels'] else ', no labels'}; protocol {found['protocol']}, seed {found['seed']}; loaded in "
        f"{found['seconds']:.2f} s"
    )
    kinds = found["kinds"] or {}
    table = Table("split", box=None, pad_edge=False)
    for name in ("rows", *next(iter(kinds.values()), {})):
        table.add_column(name, justify="right")
    for split, n in found["rows"].items():
        table.add_row(split, f"{n:,}", *(f"{count:,}" for count in kinds.get(split, {}).values()))
    console.print(table)
    if found["contamination"] is not None:
        console.print(f"contamination of the training rows: {found['contamination']:.4%}")
    if found["overlap"] is not None:
        console.print(f"test rows that stand in another split too: {found['overlap']:,} of {found['rows']['test']:,}")
    if found["filled"]:
        filled = ", ".join(f"{name} with {value:g}" for name, value in found["filled"].items())
        console.print(f"filled in where missing: {filled}")
    if found["weights"]:
        console.print("event weights: {:g} to {:g}".format(*found["weights"]))
    if found["meta"]:
        console.print(f"columns for figures and tables: {', '.join(found['meta'])}")
    if found["density_known"]:
        console.print("the true density of nominal rows is known")
    features = found["features"]
    console.print(
        f"training rows range from {features['least']:g} to {features['largest']:g}"
        + (f"; {features['constant']} of {features['n']} features are constant" if features["constant"] else "")
    )
    if not features["of"]:
        return
    table = Table("feature", box=None, pad_edge=False)
    for name in ("least", "mean", "largest"):
        table.add_column(name, justify="right")
    for name, of in list(features["of"].items())[:COLUMNS]:
        table.add_row(name, f"{of['least']:g}", f"{of['mean']:.6g}", f"{of['largest']:g}")
    console.print(table)
    if features["n"] > COLUMNS:
        console.print(f"and {features['n'] - COLUMNS} more features")


def _ranges(data: AnomalyDataModule, train: Events) -> dict[str, Any]:
    """Of all features of the training rows, and of each where they have names or are few."""
    n = torch.Size(data.shape).numel()
    low, high = torch.full((n,), torch.inf), torch.full((n,), -torch.inf)
    total = torch.zeros(n, dtype=torch.float64)
    for chunk in train.x.split(CHUNK):
        flat = chunk.flatten(1)
        low, high = torch.minimum(low, flat.amin(0)), torch.maximum(high, flat.amax(0))
        total += flat.double().sum(0)
    found: dict[str, Any] = {"n": n, "least": float(low.min()), "largest": float(high.max())}
    found["constant"], found["of"] = int((low == high).sum()), {}
    if len(data.shape) == 1 or data.columns:
        for i in range(n):
            own = {"least": float(low[i]), "mean": float(total[i] / len(train)), "largest": float(high[i])}
            found["of"][data.feature(i)] = own
    return found


def _fetch(data: AnomalyDataModule) -> None:
    if not isinstance(data, Stored):
        say(f"{data.name} needs no files.")
        return
    fetched = data.fetch()
    for path in fetched:
        say(f"fetched {path}")
    if not fetched:
        say(f"{data.name}: all files are there already, in {data.root}.")


def _presence(cfg: DictConfig) -> str:
    """Where a data set's files are, or what is missing."""
    try:
        data = config.build(cfg, "data")
    except DataError:  # it takes a name or a path
        root = Path(cfg.data.get("root") or ".")
        return f"{len(list(root.glob('*.*')))} files in {root}" if "root" in cfg.data else "your own file"
    except StraylightError as error:
        return str(error)
    if not isinstance(data, Stored):
        return "needs no files"
    missing = data.missing()
    if not missing:
        return f"present in {data.root}"
    return f"no {missing[0].name} in {missing[0].parent}"


def build(name: str, overrides: list[str], folders: list[Path]) -> AnomalyDataModule:
    cfg = _compose(name, overrides, folders)
    config.check(cfg)
    return config.build(cfg, "data")


def _compose(name: str, overrides: list[str], folders: list[Path]) -> DictConfig:
    search = [f"hydra.searchpath=[{','.join(f'file://{folder.resolve()}' for folder in folders)}]"]
    with initialize_config_dir(version_base=config.HYDRA, config_dir=str(FOLDER)):
        return compose("train", overrides=[f"data={name}", "paths.run=.", *overrides, *(search if folders else [])])
