"""Whether contributions name the features that make a row strange: a deletion test on planted anomalies.

Nominal rows of ten features are drawn from two clouds, each of three factors and noise. Anomalies are planted in two
features of each: `far`, by two to four standard deviations up or down, or `broken`, by the value of another nominal
row, which is ordinary by itself and does not go with the others. Then a row gets its own values back, feature by
feature, in the order of its contributions, and is scored after each. The area under that curve, of the score as a
share of what was planted (1 before the first feature, 0 after the last), is small where the right features come
first: some 0.1 at best on ten features of which two are planted, some 0.5 at random. Only rows whose score rose by
half a standard deviation of nominal scores count; it is their median area that is printed, since a score that falls
back to little less makes a share of it large. Beside contributions: features in random order; by how much the score
falls when one is replaced by the median of training rows (occlusion); by their distance from the mean in standard
deviations (z).

    python tests/benchmarks/explain.py

`name:gradients` and the like explain by another method than the detector's own. The last line is the mean area of
contributions over that of z.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from torch import Tensor

from straylight import config
from straylight.data import AnomalyDataModule
from straylight.detectors import Detector
from straylight.explain import Nominal, contributions
from straylight.groups import FOLDER
from straylight.job.train import quiet
from straylight.rows.batch import Events, Splits

FEATURES, FACTORS, PLANTED = 10, 3, 2
DETECTORS = [
    *("pca", "mahalanobis", "elliptic_envelope", "ecod", "copod", "hbos", "knn", "knn:exact", "dbscan"),
    *("local_outlier_factor", "isolation_forest", "one_class_svm", "kde", "robust_kde", "mom_kde", "gmm"),
    *("bayesian_gmm", "autoencoder", "autoencoder:gradients", "vae", "aae", "fanogan", "anogan", "deep_svdd", "rbm"),
    *("maf", "realnvp", "nsf", "ensemble"),
]
SETTINGS = {
    "pca": ["detector.components=3", "detector.variant=reconstruction"],
    "autoencoder": ["detector.hidden=[32]", "detector.latent=3"],
    "vae": ["detector.hidden=[32]", "detector.latent=3"],
    "aae": ["detector.hidden=[32]", "detector.latent=3"],
    "anogan": ["detector.steps=20"],
}
Order = NDArray[np.int64]


class Clouds:
    """Draws nominal rows, and plants anomalies in them."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.factors = self.random.normal(size=(2, FACTORS, FEATURES))
        self.means = 2 * self.random.normal(size=(2, FEATURES))

    def draw(self, n: int) -> NDArray[np.float32]:
        cloud = self.random.integers(0, 2, n)
        factors = self.random.normal(size=(n, FACTORS))
        rows = np.einsum("nl,nld->nd", factors, self.factors[cloud]) + self.means[cloud]
        return (rows + 0.3 * self.random.normal(size=(n, FEATURES))).astype(np.float32)

    def plant(self, rows: NDArray[np.float32], kind: str, spread: NDArray[np.float32]) -> NDArray[np.float32]:
        planted, others = rows.copy(), self.draw(len(rows))
        for i in range(len(rows)):
            where = self.random.choice(FEATURES, PLANTED, replace=False)
            if kind == "far":
                far = self.random.choice([-1, 1], PLANTED) * self.random.uniform(2, 4, PLANTED)
                planted[i, where] += far * spread[where]
            else:
                planted[i, where] = others[i, where]
        return planted


class Rows(AnomalyDataModule):
    """Rows that are there."""

    def __init__(self, train: NDArray[np.float32], test: NDArray[np.float32]) -> None:
        super().__init__(contamination=None, batch_size=64)
        self.given = train, test

    def load(self) -> Splits:
        train, test = self.given
        none = Events.of(train[:0])
        return Splits(Events.of(train), none, Events.of(np.r_[test, test + 9], [0] * len(test) + [1] * len(test)), none)


def trained(name: str, data: Rows, epochs: int) -> Detector:
    typed = [f"detector={name}", "paths.run=.", *SETTINGS.get(name, [])]
    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        cfg = compose("train", overrides=typed)
    pl.seed_everything(0, verbose=False)
    detector = config.build(cfg, "detector", shape=(FEATURES,), context=0, optimizer=config.build(cfg, "optimizer"))
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    pl.Trainer(accelerator="cpu", max_epochs=epochs, **off).fit(detector, datamodule=data)
    return detector.eval()


@torch.no_grad()
def area(detector: Detector, planted: Tensor, own: Tensor, order: Order, rose: Tensor) -> float:
    """The area under the curve, the median over those rows whose score rose."""
    rows, scores, line = planted.clone(), [detector(planted).double()], torch.arange(len(planted))
    for place in torch.from_numpy(order.T.copy()):
        rows[line, place] = own[line, place]
        scores.append(detector(rows).double())
    curve = torch.stack(scores, 1)[rose]
    curve = (curve - curve[:, -1:]) / (curve[:, :1] - curve[:, -1:])
    return float(((curve[:, 1:] + curve[:, :-1]) / 2).mean(1).median())


def descending(values: NDArray) -> Order:
    return np.argsort(-values, axis=1, kind="stable")


@torch.no_grad()
def occlusion(detector: Detector, rows: Tensor, usual: Tensor) -> NDArray[np.float64]:
    """By how much the score falls when a feature is as usual, `(N, D)`."""
    falls = []
    for j in range(FEATURES):
        replaced = rows.clone()
        replaced[:, j] = usual[j]
        falls.append(detector(rows).double() - detector(replaced).double())
    return torch.stack(falls, 1).numpy()


class Trial:
    """One data set, what is planted in it, and the detectors trained on it."""

    def __init__(self, seed: int, rows: int, events: int) -> None:
        self.clouds = Clouds(seed)
        self.train, self.test = self.clouds.draw(rows), self.clouds.draw(events)
        self.data, self.known = Rows(self.train, self.test), torch.from_numpy(self.train)
        self.planted = [self.clouds.plant(self.test, kind, self.train.std(0)) for kind in ("far", "broken")]
        self.detectors: dict[str, Detector] = {}

    def __call__(self, name: str, epochs: int) -> tuple[list[list[float]], str, float]:
        """Areas for each kind of anomaly and order, the method, and seconds for each explanation."""
        plain, _, asked = name.partition(":")
        if plain not in self.detectors:
            self.detectors[plain] = trained(plain, self.data, epochs)
        detector, own, seconds = self.detectors[plain], torch.from_numpy(self.test), 0.0
        nominal = Nominal(detector, self.known, self.known[:, :0])
        areas = []
        for rows in self.planted:
            x = torch.from_numpy(rows)
            with torch.no_grad():
                before, after = detector(own), detector(x)
            rose = after - before > before.std() / 2
            start = time.perf_counter()
            why = contributions(detector, x, reference=nominal.near(x), method=asked or "auto")  # type: ignore[arg-type]
            seconds += (time.perf_counter() - start) / (2 * len(x))
            falls = occlusion(detector, x, self.known.median(0).values)
            z = np.abs(rows - self.train.mean(0)) / self.train.std(0)
            orders = why.of, self.clouds.random.random(rows.shape), falls, z
            areas.append([area(detector, x, own, descending(of), rose) for of in orders])
        return areas, why.method, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000, help="training rows")
    parser.add_argument("--events", type=int, default=60, help="planted rows of each kind")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=1, help="data sets, by seed")
    parser.add_argument("--detectors", default=",".join(DETECTORS))
    given = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    names = given.detectors.split(",")
    heads = ["contributions", "random", "occlusion", "z"]
    columns = "".join(f"{head:>{14 if head[0] == 'c' else 10}}" for head in heads * 2)
    print(f"{'':34}{'far':>44}{'broken':>44}\n{'detector':24}{'method':10}{columns}  ms each")
    trials = [Trial(seed, given.rows, given.events) for seed in range(given.rounds)]
    means = []
    for name in names:
        found = [trial(name, given.epochs) for trial in trials]
        values = np.nanmean([areas for areas, _, _ in found], 0)
        means.append(values.mean(0))
        cells = "".join(f"{v:>{14 if i % 4 == 0 else 10}.3f}" for i, v in enumerate(values.ravel()))
        print(f"{name:24}{found[0][1]:10}{cells}{1e3 * np.mean([s for _, _, s in found]):9.2f}", flush=True)
    over = np.nanmean(means, 0)
    print("mean area: " + ", ".join(f"{head} {value:.3f}" for head, value in zip(heads, over, strict=True)))
    worse = [name for name, own in zip(names, means, strict=True) if not own[0] < own[1]]
    print(f"not better than random: {', '.join(worse) or 'none'}")
    print(f"ratio: {over[0] / over[3]:.2f}")


if __name__ == "__main__":
    main()
