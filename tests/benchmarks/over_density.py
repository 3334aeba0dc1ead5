"""What searches for an over-density reach, and what they cost beside a bare loop of the same networks.

    python tests/benchmarks/over_density.py [--events 200000] [--toys 50] [--signal-toys 10] [--rounds 1]

1. Toys of `data=bump` without signal, searched by `cwola` with trees and forward folds: mean, width and extremes of the
   significance uncut and after a cut at 1 %, and how many lie above 2, beside the band that holds 99 % of such counts.
2. Toys with 1 % of signal, which is a significance of about 2 before any cut: the median after one.
3. `cathode` on 200,000 events: seconds of the fit and of 220,000 scores, ours against the way of a notebook: for each
   fold a flow of the same layers that is trained by itself, its samples, and scikit-learn's trees on the features as
   they are. One thread, CPU seconds.

The last line is the ratio of the third.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import pytorch_lightning as pl
import torch
from scipy.stats import binom
from torch import Tensor

from interleaved import compare
from straylight.data import Bump
from straylight.detectors import CATHODE, CWoLa
from straylight.detectors.over_density import OverDensity
from straylight.metrics.bump import Cuts, places
from straylight.nn import coupling_flow
from straylight.nn.classifiers import Trees
from straylight.nn.conditional import Flows
from straylight.nn.pools import one_pool

REGION = (3.3, 3.7)


def fitted(detector: OverDensity, data: Bump) -> OverDensity:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, **quiet)  # type: ignore[arg-type]
    trainer.fit(detector, datamodule=data)
    return detector.eval()


def significances(seed: int, events: int, fraction: float, members: int) -> tuple[float, float]:
    """Of one toy, before any cut and after one at 1 %."""
    pl.seed_everything(seed, verbose=False)
    data = Bump(seed=seed, events=events, signal_fraction=fraction, test_background=1000, test_signal=100)
    detector = fitted(CWoLa((4,), context=1, folds="forward", trees={"members": members}), data)
    rows = data.splits.train
    held = detector.held_out(rows.x, rows.context)
    there = ~held.score.isnan().numpy()
    m, score, fold = rows.context[:, 0].numpy()[there], held.score.numpy()[there], held.fold.numpy()[there]
    cuts = Cuts(m, places(score, fold, seed), np.ones(len(m), bool)).hunted(REGION, [0.01])
    return cuts[0]["z"], cuts[1]["z"]


def toys(count: int, what: str, draw: Callable[[int], tuple[float, float]]) -> np.ndarray:
    if not count:
        return np.empty((0, 2))
    found = np.array([draw(seed) for seed in range(count)])
    low, high = binom.interval(0.99, count, 0.0228)  # above 2 by chance
    print(f"{count} toys {what}")
    for name, z in zip(("uncut", "at 1 %"), found.T, strict=True):
        width = z.std(ddof=1) if count > 1 else 0
        said = (
            f"  {name:7} median {np.median(z):5.2f}  mean {z.mean():5.2f}  width {width:5.2f}  largest {z.max():5.2f}"
        )
        print(f"{said}  above 2: {int((z > 2).sum())} ({low:.0f} to {high:.0f} by chance)", flush=True)
    return found


# a bare loop


def notebook(data: Bump, folds: int, how: Flows, trees: Trees) -> Callable[[Tensor], np.ndarray]:
    """CATHODE as one would write it down: folds one after the other, no two networks together."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows = data.splits.train
    x = (rows.x - rows.x.mean(0)) / rows.x.std(0)
    m = (rows.context - rows.context.mean()) / rows.context.std()
    inside = data.resonance.holds(rows.context)
    fold = torch.from_numpy(np.random.default_rng(0).permutation(len(x)) % folds)
    models = []
    for k in range(folds):
        own = (fold != k) & ~inside
        flow = coupling_flow(
            x.shape[1],
            layers=how.layers,
            hidden=how.hidden,
            blocks=how.blocks,
            context=1,
            spline=(how.bins, how.tail_bound),
        )
        train(flow, x[own], m[own], how)
        real = (fold != k) & inside
        asked = m[real][torch.randint(int(real.sum()), (4 * int(real.sum()),))]
        drawn = torch.cat([flow.sample(len(part), part) for part in asked.split(16384)])
        both = torch.cat([x[real], drawn]).double().numpy()
        y = np.arange(len(both)) < int(real.sum())
        weight = np.where(y, len(y) / 2 / y.sum(), len(y) / 2 / (~y).sum())
        for member in range(trees.members):
            estimator = HistGradientBoostingClassifier(
                learning_rate=trees.learning_rate,
                max_iter=trees.max_iter,
                min_samples_leaf=trees.min_samples_leaf,
                l2_regularization=trees.l2,
                early_stopping=True,
                validation_fraction=trees.held_out,
                random_state=k * trees.members + member,
            )
            models.append(estimator.fit(both, y, weight))
    centre, width = rows.x.mean(0), rows.x.std(0)

    def score(new: Tensor) -> np.ndarray:
        values = ((new - centre) / width).double().numpy()
        return np.mean([model.decision_function(values) for model in models], 0)

    return score


def train(flow: torch.nn.Module, x: Tensor, m: Tensor, how: Flows) -> None:
    order = torch.randperm(len(x))
    held, rest = order[: len(x) // 10], order[len(x) // 10 :]
    optimizer = torch.optim.Adam(flow.parameters(), lr=how.lr)
    steps = how.epochs * -(-len(rest) // how.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(how.epochs):
        for places_ in rest[torch.randperm(len(rest))].split(how.batch_size):
            optimizer.zero_grad()
            (-flow(x[places_], m[places_]).mean()).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            sum(float(flow(x[part], m[part]).sum()) for part in held.split(16384))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--toys", type=int, default=50)
    parser.add_argument("--signal-toys", type=int, default=10)
    parser.add_argument("--members", type=int, default=2, help="of the trees of toys")
    parser.add_argument("--trees", type=int, default=Trees().members, help="members, of cathode")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=Flows().epochs)
    parser.add_argument("--tested", type=int, default=220_000)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    toys(args.toys, "of background", lambda seed: significances(seed, args.events, 0.0, args.members))
    signal = lambda seed: significances(1000 + seed, args.events, 0.01, args.members)  # noqa: E731
    toys(args.signal_toys, "with 1 % of signal", signal)

    data = Bump(seed=0, events=args.events, test_background=args.tested, test_signal=100)
    data.setup()
    test, how = data.splits.test, Flows(epochs=args.epochs)

    def ours() -> None:
        pl.seed_everything(0, verbose=False)
        detector = fitted(CATHODE((4,), context=1, flow={"epochs": args.epochs}, trees={"members": args.trees}), data)
        with torch.no_grad():
            for x, context in zip(test.x.split(16384), test.context.split(16384), strict=True):
                detector(x, context)
        torch.set_grad_enabled(True)

    def bare() -> None:
        with one_pool():
            notebook(data, 5, how, Trees(members=args.trees))(test.x)

    compare(ours, bare, args.rounds, f"cathode, {args.events:,} events and {args.tested:,} scores")


if __name__ == "__main__":
    main()
