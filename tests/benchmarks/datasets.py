"""Every real data set in one table: rows, shape, kinds, seconds to load, and the AUROC of two detectors.

    python tests/benchmarks/datasets.py --data PATH [--only mnist,lhco] [--rounds 3]

Each is composed as `straylight train data=NAME detector=autoencoder` and `detector=isolation_forest` do, at their
defaults but for those named below, and run once with seed 0. Seconds to load are the median over rounds of reading and
splitting, in this process, with whatever is converted once converted. Data sets that are not under PATH are left out,
and named. The table is Markdown, as it stands in docs/data.md; for particles there is another, by kind, with the
trivial baselines. The last line is the ratio of the time that loading takes to that of the autoencoder's whole run,
over all sets.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir

from straylight import config
from straylight.groups import FOLDER
from straylight.job.train import quiet, train

TWENTY, FIVE = "trainer.max_epochs=20", "trainer.max_epochs=5"
SETS = {
    "mnist": ["data=mnist", TWENTY],
    "mnist_contaminated": ["data=mnist_contaminated", TWENTY],
    "fashion_mnist": ["data=fashion_mnist", TWENTY],
    "adc2021": ["data=adc2021"],
    "lhco": ["data=lhco", TWENTY],
    **{f"kddcup99 {name}": ["data=kddcup99", f"data.subset={name}", TWENTY] for name in ("http", "smtp", "SA", "SF")},
    "kddcup99 all": ["data=kddcup99", "data.subset=all", FIVE],
    "house_prices": ["data=house_prices"],
}
IMAGES = ["detector.scaling=minmax_common"]
SCALING = dict.fromkeys(("mnist", "mnist_contaminated", "fashion_mnist"), IMAGES)
SCALING["adc2021"] = ["detector.scaling=particles_log"]  # none of this for a forest
BASELINES = ("sum_pt", "multiplicity")


def composed(overrides: list[str]):
    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        return compose("train", overrides=["logger=none", "paths.run=.", *overrides])


def measure(name: str, overrides: list[str], rounds: int) -> tuple[str, str, float, float] | None:
    """Lines of both tables, and the seconds of loading and of the autoencoder's run; `None` without the files."""
    cfg = composed(overrides)
    data = config.build(cfg, "data")
    if getattr(data, "missing", list)():
        return None
    seconds = []
    _ = data.splits  # converts what is converted once
    for _ in range(rounds):
        data = config.build(cfg, "data")
        start = time.perf_counter()
        splits = data.splits
        seconds.append(time.perf_counter() - start)
    detectors = ("autoencoder", "isolation_forest", *(BASELINES if name == "adc2021" else ()))
    metrics, took = {}, []
    for detector in detectors:
        own = [f"detector={detector}", *(SCALING.get(name, []) if detector == "autoencoder" else [])]
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            untimed = ["callbacks.latency.runtimes=[eager]", "callbacks.latency.budget_s=0.01"]
            result = train(composed([*overrides, *own, *untimed]), Path(folder))
            took.append(time.perf_counter() - start)
        metrics[detector] = result["metrics"]
    rows = " / ".join(f"{len(part):,}" for part in splits[:3])
    anomalous = int((splits.test.y > 0).sum())
    load = statistics.median(seconds)
    line = (
        f"| `{called(name, data.name)}` | {rows} | {anomalous:,} | {data.shape} | {len(data.kinds) - 1} | {load:.2f} | "
        + " | ".join(f"{metrics[detector]['test/auroc']:.3f}" for detector in detectors[:2])
        + " |"
    )
    return line, per_kind(data.kinds[1:], metrics) if len(detectors) > 2 else "", load, took[0]


def called(name: str, own: str) -> str:
    """What is named otherwise by what it holds, such as a stand-in, goes by that."""
    return own if own.startswith(name) else name


def per_kind(kinds: Sequence[str], metrics: dict[str, dict[str, float]]) -> str:
    """A second table: the AUROC of each kind by each detector."""
    lines = [f"| detector | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for detector, found in metrics.items():
        lines.append(f"| `{detector}` | " + " | ".join(f"{found[f'test/auroc/{kind}']:.3f}" for kind in kinds) + " |")
    return "\n".join(lines)


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of data sets, paths.data")
    parser.add_argument("--only", help="names or beginnings of names, by comma")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    quiet()
    logging.disable(logging.WARNING)  # what a data set says of itself, it would say at every round
    files = sorted((args.data / "adbench").glob("*.npz"), key=lambda path: int(path.stem.partition("_")[0]))
    sets = SETS | {path.stem: ["data=adbench", f"data.name={path.stem}"] for path in files}
    wanted = tuple(args.only.split(",")) if args.only else ("",)
    print(
        "| data set | train / val / test | anomalous | shape | kinds | load, s | `autoencoder` | `isolation_forest` |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    loads, runs, absent, besides = 0.0, 0.0, [], ""
    for name, overrides in sets.items():
        if not name.startswith(wanted):
            continue
        measured = measure(name, [*overrides, f"paths.data={args.data}"], args.rounds)
        if measured is None:
            absent.append(name)
            continue
        line, more, load, run = measured
        print(line, flush=True)
        besides = besides or more
        loads, runs = loads + load, runs + run
    if besides:
        print(f"\n{besides}")
    if absent:
        print(f"\nnot there: {', '.join(absent)}")
    ratio = loads / runs
    print(f"ratio: {ratio:.3g}")
    return ratio


if __name__ == "__main__":
    main()
