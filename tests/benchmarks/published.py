"""Published AUROC on ADBench made again, and what the same detectors reach where no test row was trained on.

The semi-supervised table of DTE (Livernoche et al., ICLR 2024, arXiv:2305.18593): kNN, LOF, isolation forest and
one-class SVM at PyOD's settings, exact on all training rows, by `data.protocol=dte` and its seeds; beside it the same
by `nominal_only`, of which no row is held out.

    python tests/benchmarks/published.py --data PATH/adbench --runs RUNS.csv --out tests/benchmarks/published.csv

A run is appended to `--runs` when it is over, and those that stand there are not run again. Where the seed changes no
row and the detector draws nothing, one seed is run; by `nominal_only` on more than 10,000 rows, where a seed changes
little, one too. Copies are the nominal test rows, in percent, that are equal to a training row.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import logging
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch

from straylight.callbacks.scored import Scores, TestScores
from straylight.data import ADBench
from straylight.data.steps.dte import LARGE, SMALL
from straylight.detectors import KNN, Detector, IsolationForest, LocalOutlierFactor, OneClassSVM
from straylight.job.train import quiet
from straylight.metrics import auroc


class Forest(IsolationForest):
    """Drawn as PyOD's without a seed after `numpy.random.seed`: scikit-learn then goes on with one generator."""

    def build(self, rows: Any) -> Any:
        return super().build(rows).set_params(random_state=np.random.RandomState(self.seed))


DETECTORS = {
    "knn": ("KNN", lambda shape: KNN(shape, scaling="standard", k=5, distance="kth")),
    "local_outlier_factor": ("LOF", lambda shape: LocalOutlierFactor(shape, scaling="standard", k=20, max_rows=None)),
    "isolation_forest": ("IForest", lambda shape: Forest(shape, scaling="standard", n_estimators=100, max_samples=256)),
    "one_class_svm": (
        "OCSVM",
        lambda shape: OneClassSVM(shape, scaling="standard", nu=0.5, gamma=1 / math.prod(shape), max_rows=None),
    ),
}
PROTOCOLS = ("dte", "nominal_only")
SEEDS = (0, 1, 2, 3, 6)
NEAR = 0.5  # percent of AUROC, within which a published value counts as made again
BIG = 10_000  # rows of a set of which one seed is run by nominal_only
COLUMNS = ("dataset", "detector", "protocol", "seed", "auroc", "copies")


class Keep(TestScores):
    """Keeps the test's scores."""

    scores: Scores

    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        self.scores = scores


class Line(NamedTuple):
    """One detector on one data set, AUROC in percent."""

    dataset: str
    detector: str
    published: float
    dte: float
    seeds: int
    clean: float
    clean_seeds: int
    copies: float
    clean_copies: float

    @property
    def off(self) -> float:
        return abs(self.dte - self.published)


def published(path: Path) -> dict[tuple[str, str], float]:
    """The semi-supervised table, by data set (lower case, without its number) and model."""
    with path.open() as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    return {
        (row["dataset"].lower(), row["model"]): float(row["auroc_mean_pct"])
        for row in rows
        if row["setting"].startswith("semi")
    }


def trained(name: str, data: ADBench, seed: int) -> float:
    """AUROC in percent."""
    pl.seed_everything(seed, verbose=False)
    keep = Keep()
    detector: Detector = DETECTORS[name][1](data.shape)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, callbacks=[keep], **options)
    trainer.fit(detector, datamodule=data)
    trainer.test(detector, datamodule=data, verbose=False)
    y, score = keep.scores.y, np.nan_to_num(keep.scores.score)
    return 100 * auroc(score[y == 0], score[y > 0])


def seeds_of(name: str, protocol: str, rows: int, seeds: list[int]) -> list[int]:
    """Those of the seeds that can change the result."""
    if protocol == "dte":
        return seeds if rows < SMALL or rows > LARGE or name == "isolation_forest" else seeds[:1]
    return seeds[:1] if rows > BIG else seeds


def runs(folder: Path, names: list[str], detectors: list[str], seeds: list[int], there: set[Any]) -> Iterator[Any]:
    """Every run that is not there, a row of `COLUMNS` each, and the small data sets first."""
    sizes = {}
    for name in names:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
            sizes[name] = len(file["y"])
    order = {detector: number for number, detector in enumerate(detectors)}
    pairs = itertools.product(names, detectors)  # on large sets one detector after the other

    def turn(pair: tuple[str, str]) -> tuple[int, int]:
        rows = sizes[pair[0]]
        return (order[pair[1]] + 1 if rows > BIG else 0, rows)

    for name, detector in sorted(pairs, key=turn):
        for protocol in PROTOCOLS:
            for seed in seeds_of(detector, protocol, sizes[name], seeds):
                if (name, detector, protocol, str(seed)) in there:
                    continue
                data = ADBench(path=str(folder / f"{name}.npz"), protocol=protocol, val_fraction=0, seed=seed)
                nominal = int((data.splits.test.y == 0).sum())
                copies = math.nan if data.shared_rows is None else 100 * data.shared_rows["nominal"] / nominal
                yield name, detector, protocol, seed, trained(detector, data, seed), copies


def lines(path: Path, table: dict[tuple[str, str], float], names: list[str], detectors: list[str]) -> list[Line]:
    """What was run, means over seeds, beside what was published."""
    found: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found[row["dataset"], row["detector"], row["protocol"]].append((float(row["auroc"]), float(row["copies"])))
    out = []
    for name in names:
        for detector in detectors:
            (ours, copies), (clean, clean_copies) = (
                np.mean(found.get((name, detector, protocol), [(math.nan, math.nan)]), axis=0) for protocol in PROTOCOLS
            )
            seeds, clean_seeds = (len(found.get((name, detector, protocol), [])) for protocol in PROTOCOLS)
            value = table.get((name.partition("_")[2].lower(), DETECTORS[detector][0]), math.nan)
            out.append(Line(name, detector, value, ours, seeds, clean, clean_seeds, copies, clean_copies))
    return out


def show(found: list[Line]) -> None:
    """Print each data set, the means, and which published values were not made again."""
    heads = ("published", "dte", "clean", "copies", "clean")
    print(f"{'':20}{'':22}{''.join(f'{head:>11}' for head in heads)}")
    for line in found:
        numbers = (line.published, line.dte, line.clean, line.copies, line.clean_copies)
        print(f"{line.dataset:20}{line.detector:22}{''.join(f'{number:11.2f}' for number in numbers)}")
    for detector in dict.fromkeys(line.detector for line in found):
        own = [line for line in found if line.detector == detector and line.seeds and not math.isnan(line.published)]
        if not own:
            continue
        means = (np.nanmean([getattr(line, column) for line in own]) for column in ("published", "dte", "clean"))
        print(f"{f'mean of {len(own)}':20}{detector:22}{''.join(f'{mean:11.2f}' for mean in means)}")
        beyond = [f"{line.dataset} {line.off:.2f}" for line in own if line.off > NEAR]
        print(
            f"{detector}: {np.mean([line.off for line in own]):.3f} off on average, "
            f"{max(line.off for line in own):.2f} at most; beyond {NEAR}: {', '.join(beyond) or 'none'}"
        )


def write(found: list[Line], path: Path) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(Line._fields)
        for line in found:
            written = [f"{value:.2f}" if isinstance(value, float) else value for value in line]
            table.writerow(["" if value == "nan" else value for value in written])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of .npz files and of published_auroc.csv")
    parser.add_argument("--runs", type=Path, required=True, help="where runs are kept, and found again")
    parser.add_argument("--out", type=Path, help="a table to write")
    parser.add_argument("--sets", help="names without .npz, separated by commas; all by default")
    parser.add_argument("--detectors", default=",".join(DETECTORS))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    quiet()
    torch.set_num_threads(options.threads)
    names = options.sets.split(",") if options.sets else sorted(path.stem for path in options.data.glob("*.npz"))
    detectors = options.detectors.split(",")
    table = published(options.data / "published_auroc.csv")
    there: set[tuple[str, ...]] = set()
    if options.runs.is_file():
        with options.runs.open(newline="") as file:
            there = {tuple(row[column] for column in COLUMNS[:4]) for row in csv.DictReader(file)}
    with options.runs.open("a", newline="", buffering=1) as file:
        if not there:
            csv.writer(file).writerow(COLUMNS)
        for run in runs(options.data, names, detectors, [int(s) for s in options.seeds.split(",")], there):
            csv.writer(file).writerow(run)
    found = lines(options.runs, table, names, detectors)
    show(found)
    if options.out:
        write(found, options.out)


if __name__ == "__main__":
    main()
