"""How long each figure takes for a million events, and the ROC figure beside scikit-learn's.

`python tests/benchmarks/figures.py` prints, for each figure of `straylight.report.figures` that is drawn from events,
the seconds from arrays to a PNG, median over the rounds, and as the last line the ratio of the ROC figure (all
anomalies and four kinds, twice, with a linear and a logarithmic FPR) to scikit-learn's `RocCurveDisplay` of one curve.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import RocCurveDisplay

from interleaved import compare
from straylight.callbacks.drawings import BINNED
from straylight.report import figures
from straylight.report.figures.style import shown

KINDS = ("nominal", "A->4l", "h0->tautau", "h+->taunu", "leptoquark")


def drawings(n: int) -> dict[str, Callable[[], Figure | None]]:
    """By name, what draws each figure of n events of four kinds of anomaly."""
    random = np.random.default_rng(0)
    y = random.choice(5, n, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    scores = (random.normal(50, 3, n) + 2 * y + 10.0 ** (random.random(n) * y)).astype(np.float32)
    cuts = {"quantile 0.95": float(np.quantile(scores[y == 0], 0.95))}
    plane = random.normal(size=(n, 2)).astype(np.float32) + y[:, None]
    codes = random.normal(size=(n, 8)).astype(np.float32) + y[:, None]
    particles = random.exponential(30, size=(n, 19, 3)).astype(np.float32) * (random.random((n, 19, 1)) < 0.4)
    some, step = shown(y), -(-n // BINNED)
    return {
        "data (scatter)": lambda: figures.scatter(plane, y, KINDS),
        "particles": lambda: figures.leading_particles(particles, y, KINDS),
        "scores": lambda: figures.score_histogram(scores, y, KINDS, cuts),
        "selected": lambda: figures.selected_fraction(scores, y, KINDS, cuts),
        "roc": lambda: figures.roc(scores, y, KINDS),
        "precision_recall": lambda: figures.precision_recall(scores, y, KINDS),
        "significance": lambda: figures.significance(scores, y, KINDS),
        "plane": lambda: figures.by_score(plane, y, scores, None, None, KINDS),
        "score_plane": lambda: figures.score_plane(codes[::step], scores[::step], y[::step], kinds=KINDS),
        "detected": lambda: figures.found(plane, y, scores, ("cut", cuts["quantile 0.95"]), KINDS),
        "latent_2d": lambda: figures.latent_2d(codes[some], y[some], KINDS),
        "latent_3d": lambda: figures.latent_3d(codes[some], y[some], KINDS),
        "latent_normal": lambda: figures.latent_normal(codes[y == 0][:10_000]),
    }


def png(figure: Figure | None) -> None:
    assert figure is not None
    figure.savefig(io.BytesIO(), format="png", dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="events")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    mpl.use("agg")
    draws = drawings(given.rows)
    taken: dict[str, list[float]] = {name: [] for name in draws}
    png(draws["scores"]())  # fonts are looked for once
    for _ in range(given.rounds):
        for name, draw in draws.items():
            start = time.perf_counter()
            png(draw())
            taken[name].append(time.perf_counter() - start)
    print(f"{given.rows:,} events, seconds to a PNG, median of {given.rounds} rounds")
    for name, seconds in taken.items():
        print(f"{name:18} {statistics.median(seconds):.2f}")
    random = np.random.default_rng(0)
    y = random.integers(0, 5, given.rows)
    scores = random.normal(size=given.rows).astype(np.float32) + y

    def theirs() -> None:
        axis = Figure().subplots()
        RocCurveDisplay.from_predictions(y > 0, scores, ax=axis)
        png(axis.figure)

    compare(lambda: png(figures.roc(scores, y, KINDS)), theirs, given.rounds, "ROC figure, scikit-learn's display")


if __name__ == "__main__":
    main()
