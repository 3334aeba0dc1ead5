"""AUROC and all working points of many float32 scores against scikit-learn's AUROC alone.

    python tests/benchmarks/ranking.py [--rows 10000000] [--anomalous 0.01 0.1 0.5] [--rounds 5]

Both start from a column of scores and one of labels, in the same process, in turns, and must agree on the AUROC. Then
the same for every metric of a split with its intervals, which a run records. The ratios are medians over rounds of
ours / scikit-learn's wall time on one thread; the last line is the largest of AUROC and working points.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from straylight.metrics.ranking import FPRS, Ranked
from straylight.metrics.ranks import Column, Ranks


def working_points(y: np.ndarray, scores: np.ndarray) -> float:
    ranks = Ranks(Column("nominal", scores[y == 0]), Column("anomalous", scores[y > 0]))
    for fpr in FPRS:
        ranks.at(fpr)
    return ranks.auroc()


def recorded(y: np.ndarray, scores: np.ndarray) -> float:
    ranked = Ranked(scores, y)
    ranked.intervals()
    return ranked.metrics()["auroc"]


def timed(measure: Callable[..., float], *rows: Any) -> tuple[float, float]:
    start = time.perf_counter()
    value = measure(*rows)
    return value, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--anomalous", type=float, nargs="+", default=[0.01, 0.1, 0.5])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    worst = 0.0
    for fraction in options.anomalous:
        y = (random.random(options.rows) < fraction).astype(np.int64)
        scores = random.normal(y).astype(np.float32)
        ratios: dict[str, list[float]] = {"AUROC and working points": [], "every metric with its interval": []}
        for _ in range(options.rounds):
            reference, theirs = timed(roc_auc_score, y, scores)
            for name, measure in zip(ratios, (working_points, recorded), strict=True):
                value, ours = timed(measure, y, scores)
                if abs(value - reference) > 1e-12:
                    raise SystemExit(f"the AUROCs differ: {value} and {reference}")
                ratios[name].append(ours / theirs)
        for name, found in ratios.items():
            print(f"{options.rows:,} scores, {fraction:g} anomalous: {name}: {median(found):.3f}", flush=True)
        worst = max(worst, median(ratios["AUROC and working points"]))
    print(f"ratio: {worst:.3f}")


if __name__ == "__main__":
    main()
