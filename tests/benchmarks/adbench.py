"""Classical detectors on ADBench's data sets: AUROC beside a reference and published values, wall time beside PyOD.

Protocol `nominal_only`: half of the nominal rows train, none of them held out; the others and all anomalies are
tested; standardised on training rows; at most 50,000 rows. Every detector of a seed sees the same split. PyOD's run in
a process of their own, in turns with ours, on the same rows and threads.

    python tests/benchmarks/adbench.py --data PATH/adbench --seeds 5 --out TABLE.csv

Columns of TABLE.csv: per data set and detector the mean, least and largest AUROC over seeds in percent, the mean
seconds of ours and of PyOD's, and the notices. The last line printed is the ratio of the sums of seconds over all that
both ran.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import logging
import multiprocessing
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM

from straylight import config
from straylight.callbacks.scored import Scores, TestScores
from straylight.data import ADBench
from straylight.groups import FOLDER
from straylight.metrics import auroc
from straylight.train import quiet

DETECTORS = [
    *("pca", "mahalanobis", "knn", "kde", "robust_kde", "mom_kde", "gmm", "ecod", "copod", "hbos"),
    *("isolation_forest", "one_class_svm", "local_outlier_factor", "bayesian_gmm", "dbscan", "elliptic_envelope"),
]
# what PyOD calls them, with our settings where its own differ
PYOD: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pca": ("pca", "PCA", {}),
    "knn": ("knn", "KNN", {"n_neighbors": 5}),
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
    "knn": "kNN",
    "isolation_forest": "IForest",
    "one_class_svm": "OCSVM",
    "local_outlier_factor": "LOF",
}
PUBLISHED = {
    "pca": "PCA",
    "knn": "KNN",
    "isolation_forest": "IForest",
    "one_class_svm": "OCSVM",
    "hbos": "HBOS",
    "local_outlier_factor": "LOF",
    "ecod": "ECOD",
    "copod": "COPOD",
    "elliptic_envelope": "MCD",
}


class Keep(TestScores):
    """Keeps the test's scores."""

    scores: Scores

    def on_scores(self, trainer: pl.Trainer, module: pl.LightningModule, scores: Scores) -> None:
        self.scores = scores


def ours(name: str, data: ADBench, seed: int) -> tuple[float, float, list[str]]:
    """AUROC, seconds of building, training and testing, and the detector's notices."""
    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        cfg = compose("train", overrides=[f"detector={name}", "detector.scaling=standard", "paths.run=."])
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
    return auroc(keep.scores.score[y == 0], keep.scores.score[y > 0]), seconds, detector.notices


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
            pipe.send((auroc(np.nan_to_num(scores[y == 0]), np.nan_to_num(scores[y > 0])), seconds))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")


def directly(name: str, train: np.ndarray, test: np.ndarray, y: np.ndarray, seed: int) -> float:
    """AUROC of scikit-learn called directly, as it was for the reference, on this split of standardised rows."""
    if name == "pca":
        scores = np.square(PCA(whiten=True).fit(train).transform(test)).sum(1)
    elif name == "knn":
        neighbours = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(train)
        scores = neighbours.kneighbors(test)[0][:, -1]
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

    def run(self, name: str, train: np.ndarray, test: np.ndarray, y: np.ndarray) -> tuple[float, float] | str:
        """AUROC and seconds, or why there are none."""
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
            return f"ended after {self.limit_s:g} s"
        return self._pipe.recv()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def beside(folder: Path, file: str, setting: str = "") -> dict[tuple[str, str], float]:
    """AUROC in percent by data set (lower case, without its number) and model, from a table in the folder."""
    if not (folder / file).is_file():
        return {}
    with (folder / file).open() as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    return {
        (row["dataset"].rpartition("_")[2].lower(), row["model"]): float(row["auroc_mean_pct"])
        for row in rows
        if row.get("setting", "").startswith(setting)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of .npz files")
    parser.add_argument("--sets", help="names without .npz, separated by commas; all by default")
    parser.add_argument("--detectors", default=",".join(DETECTORS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pyod-seeds", type=int, default=1, help="how many of the seeds PyOD runs too")
    parser.add_argument("--direct", action="store_true", help="scikit-learn on the same splits too")
    parser.add_argument("--limit", type=float, default=300, help="seconds after which a job of PyOD's is ended")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, help=argparse.SUPPRESS)  # of other benchmarks
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("straylight").setLevel(logging.ERROR)  # notices are in the table
    quiet()
    torch.set_num_threads(options.threads)
    names = options.detectors.split(",")
    files = sorted(options.data.glob("*.npz"), key=lambda path: path.stat().st_size)
    if options.sets:
        files = [path for path in files if path.stem in options.sets.split(",")]

    reached = defaultdict(list)  # (set, detector) -> AUROC of ours
    seconds, theirs = defaultdict(list), defaultdict(list)  # (set, detector) -> seconds
    direct = defaultdict(list)  # (set, detector) -> AUROC of scikit-learn on the same splits
    pyod_reached, both, notices, failed = defaultdict(list), [0.0, 0.0], {}, {}
    pyod = PyOD(options.threads, options.limit)
    if importlib.util.find_spec("pyod") is None:
        options.pyod_seeds = 0
    for file in files:
        for seed in range(options.seeds):
            data = ADBench(path=str(file), seed=seed, val_fraction=0.0)
            data.setup()
            train, test, y = data.splits.train.x.numpy(), data.splits.test.x.numpy(), data.splits.test.y.numpy()
            mean, width = train.mean(0, dtype=float), train.std(0, dtype=float)
            scaled = [(part - mean) / np.where(width > 0, width, 1) for part in (train, test)]
            for name in names:
                score, took, said = ours(name, data, seed)
                reached[file.stem, name].append(100 * score)
                seconds[file.stem, name].append(took)
                notices[file.stem, name] = " ".join(said)
                if options.direct and name in REFERENCE:
                    direct[file.stem, name].append(100 * directly(name, *scaled, y, seed))
                if seed < options.pyod_seeds and name in PYOD:
                    answer = pyod.run(name, *scaled, y)
                    if isinstance(answer, str):
                        failed[file.stem, name] = answer
                        if not answer.startswith("ended"):
                            continue
                        answer = (float("nan"), options.limit)
                    pyod_reached[file.stem, name].append(100 * answer[0])
                    theirs[file.stem, name].append(answer[1])
                    both[0] += took
                    both[1] += answer[1]
        spent = " ".join(f"{name} {np.sum(seconds[file.stem, name]):.1f}" for name in names)
        print(f"{file.stem}: {len(train):,} + {len(test):,} rows x {train.shape[1]}; seconds: {spent}", flush=True)
    pyod.close()

    tables = (
        (REFERENCE, beside(options.data, "reference_auroc.csv")),
        (PUBLISHED, beside(options.data, "published_auroc.csv", "semi")),
    )
    stems = [file.stem for file in files]

    def other(table: int, stem: str, name: str) -> float:
        model, known = tables[table][0].get(name, ""), tables[table][1]
        return known.get((stem.rpartition("_")[2].lower(), model), float("nan"))

    heads = {"mean": 8, "direct": 8, "reference": 11, "published": 11, "PyOD": 8, "s": 9, "PyOD s": 9}
    print(f"\n{'AUROC in percent':24}" + "".join(f"{head:>{width}}" for head, width in heads.items()))
    for name in names:
        columns = [np.mean([np.mean(reached[stem, name]) for stem in stems])]
        columns += [np.mean([other(table, stem, name) for stem in stems]) for table in (0, 1)]
        directs = [np.mean(direct[stem, name]) for stem in stems if direct[stem, name]]
        columns.insert(1, np.mean(directs) if directs else float("nan"))
        pyods = [np.mean(pyod_reached[stem, name]) for stem in stems if pyod_reached[stem, name]]
        columns.append(np.nanmean(pyods) if pyods else float("nan"))
        ran = [stem for stem in stems if theirs[stem, name]]
        first = np.sum([np.mean(seconds[stem, name]) for stem in ran or stems])
        print(
            f"{name:24}{columns[0]:8.2f}{columns[1]:8.2f}{columns[2]:11.2f}{columns[3]:11.2f}{columns[4]:8.2f}{first:9.1f}"
            f"{np.sum([np.mean(theirs[stem, name]) for stem in ran]) if ran else float('nan'):9.1f}"
        )
    for stem in stems:
        for name in names:
            difference = np.mean(reached[stem, name]) - other(0, stem, name)
            if abs(difference) > 3:
                on_these = (
                    f"; scikit-learn on these splits {np.mean(direct[stem, name]):.1f}" if direct[stem, name] else ""
                )
                print(
                    f"{stem} {name}: {difference:+.1f} from the reference, {np.mean(reached[stem, name]):.1f}{on_these}"
                )
    for (stem, name), why in failed.items():
        print(f"PyOD's {name} on {stem}: {why}")
    if options.out:
        with options.out.open("w", newline="") as file:
            table = csv.writer(file)
            head = ["dataset", "detector", "auroc_mean_pct", "auroc_min_pct", "auroc_max_pct", "seeds", "direct"]
            table.writerow([*head, "reference", "published", "pyod_auroc_pct", "seconds", "pyod_seconds", "notices"])
            for stem in stems:
                for name in names:
                    values, key = reached[stem, name], (stem, name)
                    row = [np.mean(values), min(values), max(values)]
                    after = [np.mean(direct[key]) if direct[key] else float("nan")]
                    after += [other(0, stem, name), other(1, stem, name)]
                    after += [np.mean(part[key]) if part[key] else float("nan") for part in (pyod_reached, seconds)]
                    after.append(np.mean(theirs[key]) if theirs[key] else float("nan"))
                    numbers = [f"{v:.2f}" for v in row], ["" if np.isnan(v) else f"{v:.2f}" for v in after]
                    table.writerow([stem, name, *numbers[0], len(values), *numbers[1], notices[key]])
    print(f"ratio: {both[0] / both[1]:.3f}" if both[1] else "ratio: not measured, PyOD is not installed")


if __name__ == "__main__":
    main()
