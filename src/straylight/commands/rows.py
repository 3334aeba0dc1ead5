"""What `straylight data` says of the rows themselves, and fetching them."""

import time
from pathlib import Path

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


def main(names: list[str], overrides: list[str], folders: list[Path], *, fetch: bool) -> None:
    """List data sets, where configs of a user's own are among them; summarise one, or fetch its files.

    Raises:
        Exception: whatever is wrong with what was typed or with the files.
    """
    quiet()
    if not names:
        composed = ((name, _compose(name, overrides, folders)) for name in choices("data", *folders))
        show((name, head(name, *folders), _presence(cfg)) for name, cfg in composed)
    elif fetch:
        _fetch(build(names[0], overrides, folders))
    else:
        summarise(build(names[0], overrides, folders), Plain())


def summarise(data: AnomalyDataModule, console: Console) -> None:
    """Print the rows of each split, shape, kinds, contamination, overlap and ranges."""
    start = time.perf_counter()
    splits = data.splits
    seconds = time.perf_counter() - start
    train = splits.train
    labels = "" if int(splits.test.y.max()) >= 0 else ", no labels"
    console.print(
        f"{data.name}: events of shape {data.shape}, {data.context} columns of context{labels}; protocol "
        f"{data.protocol}, seed {data.seed}; loaded in {seconds:.2f} s"
    )
    table = Table("split", box=None, pad_edge=False)
    for name in ("rows", *data.kinds):
        table.add_column(name, justify="right")
    for name, part in zip(splits._fields, splits, strict=True):
        counts = torch.bincount(part.y.long().clamp(min=0), minlength=len(data.kinds)).tolist()
        table.add_row(name, f"{len(part):,}", *(f"{n:,}" if not labels else "" for n in counts))
    console.print(table)
    if not labels:
        console.print(f"contamination of the training rows: {float((train.y > 0).float().mean()):.4%}")
    if data.protocol != "unsupervised":
        others = (chunk for part in (train, splits.val, splits.reserve) for chunk in part.x.split(CHUNK))
        there = found_in(splits.test.x.split(CHUNK), others)
        console.print(f"test rows that stand in another split too: {there.sum():,} of {len(there):,}")
    if data.filled:
        filled = ", ".join(f"{name} with {value:g}" for name, value in data.filled.items())
        console.print(f"filled in where missing: {filled}")
    if train.weight.stride(0) != 0:
        console.print(f"event weights: {train.weight.min():g} to {train.weight.max():g}")
    if splits.test.meta:
        console.print(f"columns for figures and tables: {', '.join(splits.test.meta)}")
    if data.log_prob is not None:
        console.print("the true density of nominal rows is known")
    _ranges(data, train, console)


def _ranges(data: AnomalyDataModule, train: Events, console: Console) -> None:
    n = torch.Size(data.shape).numel()
    low, high = torch.full((n,), torch.inf), torch.full((n,), -torch.inf)
    total = torch.zeros(n, dtype=torch.float64)
    for chunk in train.x.split(CHUNK):
        flat = chunk.flatten(1)
        low, high = torch.minimum(low, flat.amin(0)), torch.maximum(high, flat.amax(0))
        total += flat.double().sum(0)
    constant = int((low == high).sum())
    console.print(
        f"training rows range from {low.min():g} to {high.max():g}"
        + (f"; {constant} of {n} features are constant" if constant else "")
    )
    if len(data.shape) > 1 and not data.columns:
        return
    table = Table("feature", box=None, pad_edge=False)
    for name in ("least", "mean", "largest"):
        table.add_column(name, justify="right")
    for i in range(min(n, COLUMNS)):
        mean = total[i] / len(train)
        table.add_row(data.feature(i), f"{low[i]:g}", f"{mean:.6g}", f"{high[i]:g}")
    console.print(table)
    if n > COLUMNS:
        console.print(f"and {n - COLUMNS} more features")


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
