"""Classical detectors on ADBench's data sets: AUROC beside a reference, wall time beside PyOD.

Protocol `nominal_only`: half of the nominal rows train, none of them held out; the others and all anomalies are
tested; standardised on training rows; at most 50,000 rows. Every detector of a seed sees the same split. PyOD's run in
a process of their own, in turns with ours, on the same rows and threads.

    python tests/benchmarks/adbench.py --data PATH/adbench --seeds 5 --out TABLE.csv

A detector's settings may follow its name, as in `--detectors "knn,knn distance=kth"`. `reference` is read from the
data's folder where it is there; `direct` is scikit-learn called on the very splits of ours, as it was on others for the
reference. Each detector is held against `--against`: on how many sets its mean over seeds is higher, equal to within
0.1, or lower, the largest gain and loss, and Wilcoxon's p over sets. The last line is the ratio of the wall times, ours
over PyOD's, over all that both ran; a job of PyOD's that was ended counts with the time that it was given.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import logging
import math
import multiprocessing
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from scipy.stats import wilcoxon
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM

from straylight import config
from straylight.callbacks.scored import Scores, TestScores
from straylight.data import ADBench
from straylight.groups import FOLDER
from straylight.job.train import quiet
from straylight.metrics import auroc, average_precision
from straylight.rows.batch import Events, Splits

DETECTORS = [
    *("pca", "mahalanobis", "knn", "knn distance=kth", "kde", "robust_kde", "mom_kde", "gmm", "ecod", "copod", "hbos"),
    *("isolation_forest", "one_class_svm", "local_outlier_factor", "bayesian_gmm", "dbscan", "elliptic_envelope"),
]
# what PyOD calls them, with our settings where its own differ
PYOD: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pca": ("pca", "PCA", {}),
    "knn": ("knn", "KNN", {"n_neighbors": 5, "method": "mean"}),
    "knn distance=kth": ("knn", "KNN", {"n_neighbors": 5}),
    "kde": ("kde", "KDE", {}),
    "gmm": ("gmm", "GMM", {"n_components": 4, "n_init": 4}),
    "ecod": ("ecod", "ECOD", {}),
    "copod": ("copod", "COPOD", {}),
    "hbos": ("hbos", "HBOS", {}),
    "isolation_forest": ("iforest", "IForest", {"n_estimators": 100}),
    "one_class_svm": ("ocsvm", "OCSVM", {"nu": 0.5}),
    "local_outlier_factor": ("lof", "LOF", {"n_neighbors": 20}),
    "elliptic_envelope": ("mcd", "MCD", {}),
}
REFERENCE = {
    "pca": "PCA",
    "knn distance=kth": "kNN",
    "isolation_forest": "IForest",
    "one_class_svm": "OCSVM",
    "local_outlier_factor": "LOF",
}
EQUAL = 0.1  # percent of AUROC, within which two detectors are as good


class Held(NamedTuple):
    """One detector against another over data sets: on how many it is better, as good, worse; and by how much at most.

    Attributes:
        p: of Wilcoxon's signed ranks, two-sided; 1 where they never differ.
    """

    wins: int
    ties: int
    losses: int
    gain: float
    loss: float
    p: float


def held(ours: list[float], theirs: list[float]) -> Held:
    """AUROC in percent by data set, one detector's and the other's."""
    by = np.subtract(ours, theirs)
    wins, losses = int((by > EQUAL).sum()), int((by < -EQUAL).sum())
    p = float(wilcoxon(by).pvalue) if by.any() else 1.0
    return Held(wins, len(by) - wins - losses, losses, max(0.0, by.max()), max(0.0, -by.min()), p)


class ReferenceSplits(ADBench):
    """The very rows that the reference trained and tested on, at its seeds 0, 1 and 2."""

    def load(self) -> Splits:
        with np.load(self.path, allow_pickle=False) as file:
            x, y = file["X"].astype(np.float32), file["y"].ravel().astype(np.int64)
        generator = np.random.default_rng(self.seed)
        if len(x) > 50_000:
            rows = generator.choice(len(x), 50_000, replace=False)
            x, y = x[rows], y[rows]
        events, nominal = Events.of(x, y), generator.permutation(np.flatnonzero(y == 0))
        half = len(nominal) // 2
        test = np.concatenate([nominal[half:], np.flatnonzero(y)])
        return Splits(events.take(nominal[:half]), events.take([]), events.take(test), events.take([]))


class Keep(TestScores):
    """Keeps the test's scores."""

    scores: Scores

    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        self.scores = scores


def ours(name: str, data: ADBench, seed: int) -> tuple[float, float, float, list[str]]:
    """AUROC, AP, seconds of building, training and testing, and the detector's notices."""
    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        chosen, *settings = name.split()
        own = [f"detector.{setting}" for setting in settings]
        cfg = compose("train", overrides=[f"detector={chosen}", *own, "detector.scaling=standard", "paths.run=."])
    keep = Keep()
    pl.seed_everything(seed, verbose=False)
    start = time.perf_counter()
    detector = config.build(cfg, "detector", shape=data.shape, context=data.context)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, callbacks=[keep], **options)
    trainer.fit(detector, datamodule=data)
    trainer.test(detector, datamodule=data, verbose=False)
    seconds = time.perf_counter() - start
    y = keep.scores.y
    nominal, anomalous = keep.scores.score[y == 0], keep.scores.score[y > 0]
    return auroc(nominal, anomalous), average_precision(nominal, anomalous), seconds, detector.notices


def serve_pyod(pipe: Any, threads: int) -> None:
    """Fit and score as asked, until nothing more comes."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    while (job := pipe.recv()) is not None:
        (module, name, settings), train, test, y = job
        try:
            detector = getattr(importlib.import_module(f"pyod.models.{module}"), name)(**settings)
            start = time.perf_counter()
            detector.fit(train)
            scores = detector.decision_function(test)
            seconds = time.perf_counter() - start
            pipe.send((100 * auroc(np.nan_to_num(scores[y == 0]), np.nan_to_num(scores[y > 0])), seconds))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")


def directly(name: str, train: np.ndarray, test: np.ndarray, y: np.ndarray, seed: int) -> float:
    """AUROC of scikit-learn called directly, as it was for the reference, on this split of standardised rows."""
    if name == "pca":
        scores = np.square(PCA(whiten=True).fit(train).transform(test)).sum(1)
    elif name.startswith("knn"):
        neighbours = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(train)
        distances = neighbours.kneighbors(test)[0]
        scores = distances[:, -1] if "kth" in name else distances.mean(1)
    elif name == "one_class_svm":
        few = np.random.default_rng(seed).permutation(len(train))[:5000]
        scores = -OneClassSVM().fit(train[few]).score_samples(test)
    elif name == "isolation_forest":
        scores = -IsolationForest(random_state=seed).fit(train).score_samples(test)
    else:
        scores = -LocalOutlierFactor(novelty=True).fit(train).score_samples(test)
    return auroc(scores[y == 0], scores[y > 0])


class PyOD:
    """PyOD in a process of its own, which can be ended when it takes too long."""

    def __init__(self, threads: int, limit_s: float) -> None:
        self.threads, self.limit_s = threads, limit_s
        self._process: Any = None

    def run(self, name: str, train: np.ndarray, test: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        """`pyod`, AUROC in percent, and `pyod_seconds`; `pyod_failed` where there is no AUROC, and why."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, end = context.Pipe()
            self._process = context.Process(target=serve_pyod, args=(end, self.threads), daemon=True)
            self._process.start()
            warm = np.random.default_rng(0).normal(size=(50, 3))
            for known in PYOD.values():  # the first fits import and compile
                self._pipe.send((known, warm, warm, (warm[:, 0] > 0).astype(int)))
                self._pipe.recv()
        self._pipe.send((PYOD[name], train, test, y))
        if not self._pipe.poll(self.limit_s):
            self.close()
            return {"pyod_seconds": self.limit_s, "pyod_failed": f"ended after {self.limit_s:g} s"}
        answer = self._pipe.recv()
        return {"pyod_failed": answer} if isinstance(answer, str) else {"pyod": answer[0], "pyod_seconds": answer[1]}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


class Table:
    """What was measured, a record for each data set, detector and seed, beside what others measured.

    Args:
        folder: of the data sets, with `reference_auroc.csv` where it is known.
    """

    def __init__(self, folder: Path) -> None:
        self.records: list[dict[str, Any]] = []
        self.others = {"reference": (REFERENCE, known_aurocs(folder / "reference_auroc.csv"))}

    def values(self, column: str, detector: str, dataset: str) -> list[float]:
        """Of all seeds; those that were not measured are left out."""
        return [
            record[column]
            for record in self.records
            if (record["detector"], record["dataset"]) == (detector, dataset) and record.get(column) is not None
        ]

    def mean(self, column: str, detector: str, dataset: str) -> float:
        """Over seeds; NaN where nothing was measured."""
        if column in self.others:
            models, aurocs = self.others[column]
            return aurocs.get((dataset.rpartition("_")[2].lower(), models.get(detector, "")), math.nan)
        values = self.values(column, detector, dataset)
        return float(np.mean(values)) if values else math.nan

    def seconds(self) -> tuple[float, float]:
        """Of ours and of PyOD's, over all that both ran."""
        both = [record for record in self.records if "pyod_seconds" in record]
        return sum(record["seconds"] for record in both), sum(record["pyod_seconds"] for record in both)

    def show(self, datasets: list[str], detectors: list[str], against: str) -> None:
        """Print the means over data sets, what differs from the reference, how they compare, and what PyOD left."""
        columns = ("auroc", "direct", "reference", "pyod", "ap")
        print(f"\n{'AUROC in percent':22}{''.join(f'{c:>11}' for c in columns)}{'s a seed':>10}{'PyOD':>9}")
        for detector in detectors:
            means = [np.mean([self.mean(column, detector, dataset) for dataset in datasets]) for column in columns]
            spent = [
                np.nansum([self.mean(column, detector, dataset) for dataset in datasets])
                for column in ("seconds", "pyod_seconds")
            ]
            print(f"{detector:22}{''.join(f'{mean:11.2f}' for mean in means)}{spent[0]:10.1f}{spent[1]:9.1f}")
        for dataset in datasets:
            for detector in detectors:
                auroc, direct, reference = (self.mean(c, detector, dataset) for c in columns[:3])
                if abs(auroc - reference) > 3:
                    print(f"{dataset} {detector}: {auroc:.1f}, reference {reference:.1f}, direct {direct:.1f}")
        if against in detectors:
            columns = f"{'better':>8}{'equal':>8}{'worse':>8}{'gain':>8}{'loss':>8}{'p':>10}"
            print(f"\n{f'against {against}':22}{columns}   {len(datasets)} data sets")
            means = {d: [self.mean("auroc", d, dataset) for dataset in datasets] for d in detectors}
            for detector in detectors:
                if detector != against:
                    *counts, gain, loss, p = held(means[detector], means[against])
                    print(f"{detector:22}{''.join(f'{n:8}' for n in counts)}{gain:8.2f}{loss:8.2f}{p:10.2g}")
        for record in self.records:
            if "pyod_failed" in record:
                print(f"PyOD's {record['detector']} on {record['dataset']}: {record['pyod_failed']}")

    def write(self, path: Path, datasets: list[str], detectors: list[str]) -> None:
        """Write a line for each data set and detector."""
        means = ("ap", "direct", "reference", "pyod", "seconds", "pyod_seconds")
        with path.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["dataset", "detector", "auroc_mean", "auroc_min", "auroc_max", "seeds", *means, "notices"])
            for dataset in datasets:
                for detector in detectors:
                    aurocs = self.values("auroc", detector, dataset)
                    numbers = [np.mean(aurocs), min(aurocs), max(aurocs)]
                    beside = [self.mean(column, detector, dataset) for column in means]
                    notices = dict.fromkeys(self.values("notices", detector, dataset))
                    written = ["" if math.isnan(number) else f"{number:.2f}" for number in (*numbers, *beside)]
                    table.writerow([dataset, detector, *written[:3], len(aurocs), *written[3:], " ".join(notices)])


def known_aurocs(path: Path) -> dict[tuple[str, str], float]:
    """AUROC in percent by data set (lower case, without its number) and model; nothing if there is no such table."""
    if not path.is_file():
        return {}
    with path.open() as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    return {(row["dataset"].rpartition("_")[2].lower(), row["model"]): float(row["auroc_mean_pct"]) for row in rows}


def standardised(data: ADBench) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training and test rows for those who do not scale themselves, and the test's labels."""
    train, test = data.splits.train.x.numpy(), data.splits.test.x.numpy()
    mean, width = train.mean(0, dtype=float), train.std(0, dtype=float)
    train, test = ((part - mean) / np.where(width > 0, width, 1) for part in (train, test))
    return train, test, data.splits.test.y.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of .npz files")
    parser.add_argument("--sets", help="names without .npz, separated by commas; all by default")
    parser.add_argument("--detectors", default=",".join(DETECTORS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pyod-seeds", type=int, default=1, help="how many of the seeds PyOD runs too")
    parser.add_argument("--reference-splits", action="store_true", help="the rows of the reference; three seeds")
    parser.add_argument("--direct", action="store_true", help="scikit-learn on the same splits too")
    parser.add_argument("--against", default="knn", help="the detector that the others are compared with")
    parser.add_argument("--limit", type=float, default=300, help="seconds after which a job of PyOD's is ended")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where to write the table by data set")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("straylight").setLevel(logging.ERROR)  # notices are in the table
    quiet()
    torch.set_num_threads(options.threads)
    files = sorted(options.data.glob("*.npz"), key=lambda path: path.stat().st_size)
    files = [path for path in files if not options.sets or path.stem in options.sets.split(",")]
    names, datasets = options.detectors.split(","), [path.stem for path in files]
    if importlib.util.find_spec("pyod") is None:
        options.pyod_seeds = 0

    table, pyod = Table(options.data), PyOD(options.threads, options.limit)
    for file in files:
        start = time.perf_counter()
        for seed in range(options.seeds):
            data = (ReferenceSplits if options.reference_splits else ADBench)(
                path=str(file), seed=seed, val_fraction=0.0
            )
            data.setup()
            rows = standardised(data)
            for name in names:
                score, ap, took, notices = ours(name, data, seed)
                record = {"dataset": file.stem, "detector": name, "auroc": 100 * score, "ap": 100 * ap, "seconds": took}
                record["notices"] = " ".join(notices)
                if options.direct and name in REFERENCE:
                    record["direct"] = 100 * directly(name, *rows, seed)
                if seed < options.pyod_seeds and name in PYOD:
                    record |= pyod.run(name, *rows)
                table.records.append(record)
        print(f"{file.stem}: {len(rows[0]):,} + {len(rows[1]):,} rows, {time.perf_counter() - start:.0f} s", flush=True)
        if options.out:  # as far as it has come
            table.write(options.out, datasets[: datasets.index(file.stem) + 1], names)
    pyod.close()
    table.show(datasets, names, options.against)
    ours_s, pyod_s = table.seconds()
    print(f"ratio: {ours_s / pyod_s:.3f}" if pyod_s else "ratio: not measured, PyOD is not installed")


if __name__ == "__main__":
    main()
