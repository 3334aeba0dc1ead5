"""Do criteria of validation rows, without labels, avoid a setting that is plainly broken?

Each try draws a table of two to five clouds of random shapes, with anomalies between and around them, trains four
settings of a detector on it, one of which is broken, and looks which of them each criterion would choose:

* `knn`: k of 3, 5 or 20, or of half the rows;
* `kde`: the bandwidth by Scott's rule, half or twice that, or a hundred times as wide;
* `kde_narrow`: the same, with a bandwidth a hundred times narrower in the place of the wide one, which ranks rows as
  the nearest neighbour does, and is broken as a density alone;
* `vae`: beta of 1, 0.3 or 0.1, or of 100,000, by which codes collapse.

A line for each detector and criterion: in how many tries it did not choose the broken setting, out of those in which
it was measured of two settings or more; in how many of those in which that setting is broken by test rows, too, its
AUROC 0.05 or more below the best; and the mean AUROC of test rows, which no choice has seen, of what it chose, of a
setting drawn at random, of the broken one and of the best.

    python tests/benchmarks/criteria.py

`--data FOLDER` takes the tables of ADBench of 10,000 rows or fewer in the place of made ones, with as many seeds as
`--rounds` allows.
`--cost` measures instead what criteria take of whole runs, as `straylight train` does them: the median over the rounds
of milliseconds, and of their share.

The last line is the share of tries in which `val/separation` avoided the broken setting, of all but `kde_narrow`; of
costs, the largest share.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from straylight.callbacks import Checkpoint, Criteria, Ranking
from straylight.data import AnomalyDataModule
from straylight.data.adbench import ADBench
from straylight.detectors import KDE, KNN, VAE, Detector
from straylight.groups import FOLDER
from straylight.job.train import fit_and_test, quiet, silent, train
from straylight.objective import CRITERIA
from straylight.rows.batch import Events, Splits

TESTED = "test/auroc"  # which nothing is chosen by
MOST = 10_000  # rows of a table
PLAIN = 0.05  # AUROC that what is plainly broken lacks
COUNTED = {("val/separation", family) for family in ("knn", "kde", "vae")}
Settings = list[Callable[[AnomalyDataModule], Detector]]  # the last is broken


class Clouds(AnomalyDataModule):
    """Nominal rows in two to five clouds; anomalies between two of them, of a wide cloud, and beyond all."""

    def load(self) -> Splits:
        rng = np.random.default_rng(self.seed)
        clouds, columns, n = int(rng.integers(2, 6)), int(rng.integers(2, 11)), int(rng.integers(400, 2001))
        means = rng.normal(0, 4, (clouds, columns))
        shapes = rng.normal(size=(clouds, columns, columns)) / np.sqrt(columns) + 0.3 * np.eye(columns)
        of = rng.integers(0, clouds, n)
        nominal = means[of] + np.einsum("nd,ndc->nc", rng.normal(size=(n, columns)), shapes[of])
        each = max(10, n // 60)
        pairs = np.array([rng.choice(clouds, 2, replace=False) for _ in range(each)])
        between = means[pairs].mean(1) + 0.5 * rng.normal(size=(each, columns))
        of = rng.integers(0, clouds, each)
        wide = means[of] + 2.2 * np.einsum("nd,ndc->nc", rng.normal(size=(each, columns)), shapes[of])
        beyond = rng.uniform(nominal.min(0), nominal.max(0), (each, columns))
        y = np.repeat([0, 1], [n, 3 * each])
        return self.split(Events.of(np.concatenate([nominal, between, wide, beyond]), y))


def scott(data: AnomalyDataModule) -> float:
    """Scott's bandwidth in scaled units, as `KDE` has it."""
    return float(len(data.splits.train) ** (-1 / (data.shape[0] + 4)))


def families() -> dict[str, Settings]:
    def kde(times: float) -> Callable[[AnomalyDataModule], Detector]:
        return lambda data: KDE(data.shape, bandwidth=times * scott(data))

    def knn(k: int | None) -> Callable[[AnomalyDataModule], Detector]:
        return lambda data: KNN(data.shape, k=k or len(data.splits.train) // 2)

    def vae(beta: float) -> Callable[[AnomalyDataModule], Detector]:
        return lambda data: VAE(data.shape, hidden=(64, 32), latent=max(1, data.shape[0] // 2), beta=beta)

    return {
        "knn": [knn(3), knn(5), knn(20), knn(None)],
        "kde": [kde(0.5), kde(1), kde(2), kde(100)],
        "kde_narrow": [kde(0.5), kde(1), kde(2), kde(0.01)],
        "vae": [vae(1), vae(0.3), vae(0.1), vae(1e5)],
    }


def measured(make: Callable[[AnomalyDataModule], Detector], data: AnomalyDataModule, epochs: int) -> dict[str, float]:
    """What a run reaches, of criteria and of test rows."""
    pl.seed_everything(data.seed, verbose=False)
    criteria, ranking = Criteria(), Ranking()
    with tempfile.TemporaryDirectory() as folder:
        trainer = silent(folder, [ranking, criteria, Checkpoint(folder)], epochs)
        fit_and_test(trainer, make(data), data)
    known = {name: value for name, value in criteria.found.items() if value is not None}
    return known | {TESTED: ranking.metrics[TESTED]}


def tables(folder: Path | None, rounds: int) -> Iterator[AnomalyDataModule]:
    if folder is None:
        yield from (Clouds(seed=seed, batch_size=32) for seed in range(rounds))
        return
    paths = [path for path in sorted(folder.glob("*.npz")) if len(np.load(path)["y"]) <= MOST]
    for number in range(rounds):
        yield ADBench(path=str(paths[number % len(paths)]), seed=number // len(paths), batch_size=32)


def chosen(runs: list[dict[str, float]], name: str) -> int | None:
    """Which of the settings a criterion takes; None if it knows of fewer than two."""
    sign = 1 if CRITERIA[name].lower else -1
    values = [(sign * run[name], number) for number, run in enumerate(runs) if name in run]
    return min(values)[1] if len(values) > 1 else None


def cost(detector: str, data: str, rounds: int) -> float:
    """The share of a run that criteria take, the first round, which imports, left out."""
    spent: list[float] = []

    class Timed(Criteria):
        def on_test_start(self, *given: Any) -> None:
            start = time.perf_counter()
            super().on_test_start(*given)
            spent.append(time.perf_counter() - start)

    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        cfg = compose("train", overrides=[f"detector={detector}", f"data={data}", "paths.run=."])
    whole = []
    with mock.patch("straylight.callbacks.Criteria", Timed):
        for _ in range(rounds + 1):
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                train(cfg.copy(), Path(folder))
            whole.append(time.perf_counter() - start)
    own, runs = np.array(spent[1:]), np.array(whole[1:])
    share = float(np.median(own / runs))
    print(f"{detector:12} {data:7} {1e3 * np.median(own):6.0f} of {1e3 * np.median(runs):6.0f} ms, {share:.1%}")
    return share


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=100, help="tries of each detector")
    parser.add_argument("--epochs", type=int, default=50, help="of the VAE")
    parser.add_argument("--detectors", default=",".join(families()))
    parser.add_argument("--data", type=Path, help="a folder of ADBench's tables")
    parser.add_argument("--cost", action="store_true", help="of criteria in a run, and nothing else")
    given = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    if given.cost:
        runs = [(detector, data) for data in ("blobs", "digits") for detector in ("hbos", "knn", "autoencoder")]
        print(f"ratio: {max(cost(*run, given.rounds) for run in runs):.3f}")
        return
    found: dict[tuple[str, str], list[tuple[bool, float, float, float, float]]] = defaultdict(list)
    for data in tables(given.data, given.rounds):
        data.setup()
        for family in given.detectors.split(","):
            runs = [measured(make, data, given.epochs) for make in families()[family]]
            auroc = [run[TESTED] for run in runs]
            others = float(np.mean(auroc)), auroc[-1], max(auroc)
            for name in CRITERIA:
                if (place := chosen(runs, name)) is not None:
                    found[family, name].append((place < len(runs) - 1, auroc[place], *others))
    print(f"{'detector':11} {'criterion':24} {'avoided':>11}  {'of plain':>11}  chosen  random  broken    best")
    for (family, name), tries in found.items():
        plainly = [right for right, _, _, broken, best in tries if broken <= best - PLAIN]
        counts = "  ".join(f"{sum(some):4} of {len(some):3}" for some in ([one[0] for one in tries], plainly))
        means = "  ".join(f"{value:6.3f}" for value in np.mean(tries, axis=0)[1:])
        print(f"{family:11} {name:24} {counts}  {means}")
    counted = [one[0] for (family, name), tries in found.items() for one in tries if (name, family) in COUNTED]
    print(f"ratio: {np.mean(counted) if counted else float('nan'):.3f}")


if __name__ == "__main__":
    main()
