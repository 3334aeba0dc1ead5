"""What searches for an over-density reach, and what they cost beside a bare loop of the same networks.

    python tests/benchmarks/over_density.py [--only background,signal,speed] [--kept PATH] [--events 200000] [--toys 50]
        [--signal-toys 10] [--rounds 1]

1. `background`: toys of `data=bump` without signal, searched by `cwola` with trees and forward folds: mean, width and
   extremes of the significance uncut and after a cut at 1 %, and how many lie above 2, beside the band that holds 99 %
   of such counts.
2. `signal`: toys with 1 % of signal, which is a significance of about 2 before any cut: the median after one.
3. `speed`: `cathode` on 200,000 events: seconds of the fit and of 220,000 scores, ours against the way of a notebook:
   for each fold a flow of the same layers that is trained by itself, its samples, and scikit-learn's trees on the
   features as they are. One thread, CPU seconds; both have run before, on a fiftieth of the events.

What was measured is printed as soon as it is there, toy by toy. PATH keeps the toys, a line of JSON each, and those
that it has are not searched again. The last line is the ratio of the third.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from scipy.stats import binom
from torch import Tensor

from interleaved import compare
from straylight.data import Bump
from straylight.detectors import CATHODE, CWoLa
from straylight.detectors.over_density import OverDensity
from straylight.job.train import quiet
from straylight.metrics.bump import Cuts, places
from straylight.nn import coupling_flow
from straylight.nn.classifiers import Trees
from straylight.nn.conditional import Flows
from straylight.nn.pools import one_pool

REGION = (3.3, 3.7)
PARTS = ("background", "signal", "speed")


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


class Kept:
    """Toys in a file, a line of JSON each: what was asked, and both significances; without a path none are kept."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path is not None and path.is_file() else []
        self.found: dict[tuple[float, ...], tuple[float, float]] = {
            tuple(asked): tuple(z) for asked, z in map(json.loads, lines)
        }

    def significances(self, *asked: float) -> tuple[float, float]:
        if asked not in self.found:
            self.found[asked] = significances(*asked)  # type: ignore[arg-type]
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps([asked, self.found[asked]]) + "\n")
        return self.found[asked]


def toys(count: int, what: str, draw: Callable[[int], tuple[float, float]]) -> None:
    found = np.empty((count, 2))
    for seed in range(count):
        found[seed] = uncut, cut = draw(seed)
        print(f"  toy {seed} {what}: {uncut:.2f} uncut, {cut:.2f} at 1 %", flush=True)
    if not count:
        return
    low, high = binom.interval(0.99, count, 0.0228)  # above 2 by chance
    print(f"{count} toys {what}")
    for name, z in zip(("uncut", "at 1 %"), found.T, strict=True):
        width = z.std(ddof=1) if count > 1 else 0
        said = (
            f"  {name:7} median {np.median(z):5.2f}  mean {z.mean():5.2f}  width {width:5.2f}  largest {z.max():5.2f}"
        )
        print(f"{said}  above 2: {int((z > 2).sum())} ({low:.0f} to {high:.0f} by chance)", flush=True)


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
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--kept", type=Path, help="a file for toys, which are not searched again")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--toys", type=int, default=50)
    parser.add_argument("--signal-toys", type=int, default=10)
    parser.add_argument("--members", type=int, default=2, help="of the trees of toys")
    parser.add_argument("--trees", type=int, default=Trees().members, help="members, of cathode")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=Flows().epochs)
    parser.add_argument("--tested", type=int, default=220_000)
    args = parser.parse_args(arguments)
    if unknown := set(parts := args.only.split(",")) - set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    quiet()
    kept = Kept(args.kept)
    if "background" in parts:
        toys(args.toys, "of background", lambda seed: kept.significances(seed, args.events, 0.0, args.members))
    if "signal" in parts:
        found = lambda seed: kept.significances(1000 + seed, args.events, 0.01, args.members)  # noqa: E731
        toys(args.signal_toys, "with 1 % of signal", found)
    if "speed" in parts:
        speed(args)


def speed(args: argparse.Namespace) -> None:
    ways = both_ways(args, max(2000, args.events // 50), min(2000, args.tested))
    for way in ways:
        way()  # nothing is imported for the first time under the clock
    what = f"cathode, {args.events:,} events and {args.tested:,} scores"
    compare(*both_ways(args, args.events, args.tested), args.rounds, what, warm=True)


def both_ways(args: argparse.Namespace, events: int, tested: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Ours and the bare loop, on events of their own."""
    data = Bump(seed=0, events=events, test_background=tested, test_signal=100)
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

    return ours, bare


if __name__ == "__main__":
    main()
