"""Alternatives to a detector's settings over many data sets: which default to choose, and what each reached.

    python tests/benchmarks/defaults.py realnvp deep_svdd --rows 2000 --data PATH/adbench --out TABLE.csv
    python tests/benchmarks/defaults.py robust_kde mom_kde --contamination 0.05 --data PATH/adbench --out TABLE.csv

Each alternative is trained on the sets of ADBench, of which `--rows` are drawn from a larger one, nominal rows only,
and on `digits_contaminated`, by the epochs that a run takes by default and with the epoch of least validation loss, as
a run does. A set of which fewer than five anomalies are drawn is left out. With `--contamination` half of the
anomalies are set aside, and of these so many come among the training rows as make up that fraction, or all of them
where there are too few; compare it with `--contamination 0`, which sets them aside too. What is in TABLE.csv already is
not measured again, so that it can be ended and begun anew. Seconds are CPU time.

The rule, stated before anything was measured: sets are put in the order of their names, and every other one, from the
first on, chooses. An alternative is chosen over the first one named, which was the default, if over those its mean
AUROC is higher by more than 0.1 percent and it is better on more sets than it is worse; and it becomes the default if
both hold over the other sets too, by which nothing is chosen. Of several the best by the sets that choose is taken.
"""

from __future__ import annotations

import argparse
import csv
import logging
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from adbench import Keep, held
from straylight import config
from straylight.data import ADBench, AnomalyDataModule
from straylight.groups import FOLDER
from straylight.job.in_memory import Best
from straylight.job.train import quiet, silent
from straylight.metrics import auroc, average_precision
from straylight.rows.batch import Events, Splits

DIGITS = "digits_contaminated"
#: By detector, alternatives and their settings; the first was the default.
TRIED: dict[str, dict[str, list[str]]] = {
    "realnvp": {
        "bound 5": ["detector.largest_log_scale=5"],
        "bound 2": ["detector.largest_log_scale=2"],
        "bound 1": ["detector.largest_log_scale=1"],
    },
    "deep_svdd": {
        "both phases": ["detector.normalization=none", "detector.phases={autoencoder:1,svdd:1}"],
        "one phase": ["detector.normalization=none", "detector.phases={autoencoder:0,svdd:1}"],
        "one phase, batch": ["detector.normalization=batch", "detector.phases={autoencoder:0,svdd:1}"],
        "both phases, batch": ["detector.normalization=batch", "detector.phases={autoencoder:1,svdd:1}"],
    },
    "robust_kde": {
        "hampel": ["detector.rho=hampel"],
        "huber": ["detector.rho=huber"],
        "plain": ["detector=kde", "detector.max_rows=5000"],
    },
    "mom_kde": {"blocks 11": [], "blocks 3": ["detector.blocks=3"], "plain": ["detector=kde"]},
    "elliptic_envelope": {
        "least": [],
        "three quarters": ["detector.support_fraction=0.75"],
        "plain": ["detector=mahalanobis"],
    },
    "copod": {"total": ["detector.aggregate=total"], "feature": ["detector.aggregate=feature"]},
    "ecod": {"total": ["detector.aggregate=total"], "feature": ["detector.aggregate=feature"]},
    "hbos": {
        "static, sqrt": [],
        "static, 10": ["detector.bins=10"],
        "dynamic, sqrt": ["detector.widths=dynamic"],
        "dynamic, 10": ["detector.widths=dynamic", "detector.bins=10"],
    },
}


@lru_cache(maxsize=1)
def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """All rows and their labels: of large sets reading takes longer than a fit."""
    with np.load(path, allow_pickle=False) as file:
        return file["X"].astype(np.float32), file["y"].ravel().astype(np.int64)


class Cut(ADBench):
    """As contaminated as it can be, if there are fewer anomalies in reserve than are asked for."""

    def load(self) -> Splits:
        x, y = read(self.path)
        if self.max_rows is not None and len(x) > self.max_rows:
            rows = np.sort(np.random.default_rng([self.seed, 3]).permutation(len(x))[: self.max_rows])
            x, y = x[rows], y[rows]
        splits = self.split(Events.of(x, y))
        if self.contamination:
            pool, nominal = len(splits.reserve), len(splits.train)
            self.contamination = min(self.contamination, pool / (pool + nominal))
        return splits


def rankable(path: Path, rows: int, seed: int) -> bool:
    """Whether five anomalies are left of a set that is cut."""
    chosen = np.random.default_rng([seed, 3]).permutation(len(read(path)[1]))[:rows]
    return int((read(path)[1][chosen] > 0).sum()) >= 5


@lru_cache
def composed(*overrides: str) -> Any:
    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        return compose("train", overrides=[*overrides, "paths.run=."])


def measured(
    overrides: Sequence[str], path: Path | None, seed: int, contamination: float | None, rows: int
) -> tuple[float, ...]:
    """AUROC and AP in percent, and seconds of training and testing.

    Args:
        overrides: what is composed beside the defaults.
        path: of an .npz file; without one, the digits.
        seed: of the split, the weights and what else is drawn.
        contamination: of training rows; `None` sets no anomalies aside.
        rows: that are drawn from a larger set.
    """
    given = [f"data={DIGITS}"] if path is None else []
    cfg = composed(*overrides, *given, f"seed={seed}")
    reserve = {} if contamination is None else {"reserve_fraction": 0.5, "contamination": contamination}
    pl.seed_everything(seed, verbose=False)
    if path is None:
        data: AnomalyDataModule = config.build(cfg, "data")
        detector = config.build(cfg, "detector", shape=(1, 8, 8), optimizer=config.build(cfg, "optimizer"))
    else:
        data = Cut(path=str(path), max_rows=rows, seed=seed, **reserve)
        data.setup()
        detector = config.build(cfg, "detector", shape=data.shape, optimizer=config.build(cfg, "optimizer"))
        if not detector.selects:  # no row is held out
            data = Cut(path=str(path), max_rows=rows, seed=seed, val_fraction=0.0, **reserve)
    keep, best = Keep(), Best()
    start = time.process_time()
    trainer = silent(gettempdir(), [keep, *([best] if detector.selects else [])], cfg.trainer.max_epochs, "cpu")
    trainer.fit(detector, datamodule=data)
    if best.state is not None:
        detector.load_state_dict(best.state)
    trainer.test(detector, datamodule=data, verbose=False)
    seconds, y = time.process_time() - start, keep.scores.y
    nominal, anomalous = keep.scores.score[y == 0], keep.scores.score[y > 0]
    return 100 * auroc(nominal, anomalous), 100 * average_precision(nominal, anomalous), seconds


class Measured:
    """The table on disk, of which a line is an alternative on a data set with a seed."""

    COLUMNS = ("detector", "alternative", "contamination", "rows", "dataset", "seed", "auroc", "ap", "seconds")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, ...], tuple[float, ...]] = {}
        if path.is_file():
            with path.open(newline="") as file:
                for line in csv.reader(file):
                    if line[0] != "detector":
                        self.rows[tuple(line[:6])] = tuple(map(float, line[6:]))
        else:
            path.write_text(",".join(self.COLUMNS) + "\n")

    def add(self, key: tuple[str, ...], numbers: tuple[float, ...]) -> None:
        self.rows[key] = numbers
        with self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([*key, *(f"{number:.3f}" for number in numbers)])

    def means(self, part: tuple[str, ...], column: int = 0) -> dict[str, float]:
        """Over seeds, by data set, of AUROC (0) or AP (1) of a detector's alternative by contamination and rows."""
        found: dict[str, list[float]] = {}
        for key, numbers in self.rows.items():
            if key[:4] == part:
                found.setdefault(key[4], []).append(numbers[column])
        return {dataset: float(np.mean(values)) for dataset, values in found.items()}


def choosing(datasets: Iterable[str]) -> set[str]:
    """Those sets that choose.

    Example:
        >>> sorted(choosing(["10_b", "1_a", "2_c", "digits_contaminated"]))
        ['10_b', '2_c']
    """
    return set(sorted(set(datasets) - {DIGITS})[::2])


def wins(ours: Mapping[str, float], theirs: Mapping[str, float], over: Iterable[str]) -> bool:
    """Whether one is better than another over some sets, by the rule.

    Example:
        >>> wins({"a": 90, "b": 80, "c": 70}, {"a": 89, "b": 79, "c": 71}, "abc")
        True
        >>> wins({"a": 99, "b": 80, "c": 70}, {"a": 89, "b": 81, "c": 71}, "abc")
        False
    """
    pairs = [(ours[dataset], theirs[dataset]) for dataset in over]
    better, _, worse, *_ = held(*map(list, zip(*pairs, strict=True)))
    return bool(np.mean([a - b for a, b in pairs]) > 0.1 and better > worse)


def show(table: Measured, detector: str, alternatives: Sequence[str], *given: str) -> None:
    """Print what each alternative reached and how it compares with the first, over the sets that all have."""
    known = {name: table.means((detector, name, *given)) for name in alternatives}
    known = {name: means for name, means in known.items() if means}
    if not known:
        return
    sets = set.intersection(*map(set, known.values())) - {DIGITS}
    first, chosen = next(iter(known)), choosing(sets)
    columns = ("AUROC", "choosing", "others", "AP", "better", "equal", "worse", "gain", "loss", "p", "digits", "rule")
    print(f"\n{f'{detector}, {given[0]}':26}" + "".join(f"{column:>9}" for column in columns) + f"  {len(sets)} sets")
    for name, means in known.items():
        ap = table.means((detector, name, *given), 1)
        parts = [[means[dataset] for dataset in sorted(part)] for part in (sets, chosen, sets - chosen)]
        line = "".join(f"{np.mean(part):9.2f}" for part in parts) + f"{np.mean([ap[dataset] for dataset in sets]):9.2f}"
        if name == first:
            line += " " * 54
        else:
            *counts, gain, loss, p = held(parts[0], [known[first][dataset] for dataset in sorted(sets)])
            line += "".join(f"{n:9}" for n in counts) + f"{gain:9.2f}{loss:9.2f}{p:9.2g}"
        line += f"{means[DIGITS]:9.2f}" if DIGITS in means else " " * 9
        both = name != first and [wins(means, known[first], part) for part in (chosen, sets - chosen) if part]
        print(f"{name:26}{line}" + ("" if not both else f"{'both' if all(both) else 'half' if any(both) else 'no':>9}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detectors", nargs="*", default=list(TRIED), metavar="DETECTOR")
    parser.add_argument("--data", type=Path, required=True, help="folder of .npz files")
    parser.add_argument("--sets", help="names without .npz, separated by commas; all, and the digits, by default")
    parser.add_argument("--alternatives", help="separated by semicolons; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--contamination", type=float, help="of training rows; nothing is set aside without it")
    parser.add_argument("--rows", type=int, default=5000, help="that are drawn from a larger set")
    parser.add_argument("--out", type=Path, required=True, help="table that lines are added to")
    parser.add_argument("--show", action="store_true", help="measure nothing; show what there is")
    options = parser.parse_args()
    if unknown := set(options.detectors) - set(TRIED):
        parser.error(f"no alternatives are stated for {', '.join(sorted(unknown))}; there are {', '.join(TRIED)}")
    warnings.filterwarnings("ignore")
    logging.getLogger("straylight").setLevel(logging.ERROR)
    quiet()
    torch.set_num_threads(1)
    files: list[Path | None] = sorted(options.data.glob("*.npz"), key=lambda path: path.stat().st_size)
    wanted = options.sets.split(",") if options.sets else None
    files = [path for path in files if wanted is None or path.stem in wanted]
    if options.contamination is None and (wanted is None or DIGITS in wanted):
        files.append(None)
    table = Measured(options.out)
    given = "none" if options.contamination is None else f"{options.contamination:g}", str(options.rows)
    for detector in options.detectors:
        names = [
            name for name in TRIED[detector] if not options.alternatives or name in options.alternatives.split(";")
        ]
        for seed in range(0 if options.show else options.seeds):
            for path in files:
                for name in names:
                    key = (detector, name, *given, DIGITS if path is None else path.stem, str(seed))
                    if key not in table.rows and (path is None or rankable(path, options.rows, seed)):
                        overrides = [f"detector={detector}", *TRIED[detector][name]]
                        if overrides[1:] and overrides[1].startswith("detector="):
                            del overrides[0]
                        table.add(key, measured(overrides, path, seed, options.contamination, options.rows))
            print(f"{detector}, seed {seed}", flush=True)
        show(table, detector, names, *given)


if __name__ == "__main__":
    main()
