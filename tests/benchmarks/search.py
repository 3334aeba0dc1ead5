"""What a search costs beside its runs: seconds of asking for trials and of telling what they reached.

`python tests/benchmarks/search.py` searches five parameters of a VAE, one of them on a logarithmic scale and one of
words, over 500 trials one at a time, by an engine that computes nothing and writes a `result.json` at once, whose
criterion follows from the parameters. The time is counted in which the sweep asks the search or tells it something,
by the clock on the wall, with the journal's way to the disk and whatever else the machine does meanwhile, and of the
CPU; for composing configs and all else that any sweep does, see `many_jobs.py`. Figures in the end are clocked apart.
The same is done by Optuna itself with the same sampler, without a journal: the last line is the ratio of CPU time, ours
to Optuna's own with the last of the samplers.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from straylight.engines.base import Ended, Running
from straylight.folder import RunFolder
from straylight.job.devices import Asked
from straylight.job.order import Order

RANGES = ["detector.latent=range(2,33)", "optimizer.lr=tag(log,interval(1e-5,1e-1))", "detector.beta=interval(0.1,4)"]
RANGES += ["data.batch_size=range(16,256,16)", "detector.score=elbo,mu2"]


def reached(latent: int, lr: float, beta: float, batch: int, score: str) -> float:
    """What a trial with these values reaches: the less, the better."""
    return (latent - 9) ** 2 / 100 + (math.log10(lr) + 3) ** 2 + (beta - 1) ** 2 + batch / 500 + (score == "mu2")


class AtOnce:
    """An engine whose jobs have ended when they are looked at."""

    name, outlives, queues = "nothing", False, True

    def __init__(self) -> None:
        self.jobs: list[RunFolder] = []

    def submit(self, folder: RunFolder, asked: Asked) -> str | None:
        self.jobs.append(folder)
        return str(len(self.jobs) - 1)

    def look(self, ids: Collection[str]) -> dict[str, Running | Ended]:
        return {id: self._end(self.jobs[int(id)]) for id in ids}

    def _end(self, folder: RunFolder) -> Ended:
        order = Order.read(folder)
        of, lr = order.config["detector"], order.config["optimizer"]["lr"]
        value = reached(of["latent"], lr, of["beta"], order.config["data"]["batch_size"], of["score"])
        known = {"metrics": {}, "latency": [], "criteria": {"val/loss": value}, "status": "ok"}
        folder.write_result({**order.fields, **known})
        return Ended(0)

    def wait(self, ids: Collection[str], seconds: float) -> None:
        pass

    def stop(self, id: str, grace_s: float) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Clocked:
    """Seconds spent in a function, by the wall and of the CPU."""

    def __init__(self, function: Any) -> None:
        self.function, self.wall, self.cpu = function, 0.0, 0.0

    def __get__(self, thing: Any, _: Any) -> Any:
        return lambda *given: self(thing, *given)

    def __call__(self, *given: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return self.function(*given)
        finally:
            self.wall += time.perf_counter() - wall
            self.cpu += time.process_time() - cpu


def searched(trials: int, sampler: str, folder: Path) -> None:
    """Search in this process, and print what it took."""
    from straylight.commands.app import run_hydra
    from straylight.engines.local import engine, pool
    from straylight.search import figures
    from straylight.search.search import Search
    from straylight.sweep.command import Command

    engine.LocalEngine = lambda machine: AtOnce()  # type: ignore[assignment,misc]
    pool.warm, pool.ask = lambda: None, lambda function, *given: []  # type: ignore[assignment]
    asking, telling, drawing = Clocked(Search.more), Clocked(Search.ended), Clocked(figures.draw)
    Search.more, Search.ended, figures.draw = asking, telling, drawing  # type: ignore[method-assign,assignment]
    overrides = ["hydra/sweeper=optuna", "detector=vae", "data=blobs", *RANGES, "objective=val/loss", "logger=none"]
    overrides += [f"hydra.sweeper.n_trials={trials}", f"hydra.sweeper.sampler={sampler}", "hydra.sweeper.at_once=1"]
    with redirect_stdout(sys.stderr):
        run_hydra(Command(), ["-m"], [*overrides, f"hydra.sweep.dir={folder}"])
    from straylight.journal import NAME, opened, study

    assert len(study(opened(folder / NAME)).get_trials(deepcopy=False)) == trials
    print(asking.wall + telling.wall, asking.cpu + telling.cpu, drawing.cpu)


def alone(trials: int, sampler: str) -> float:
    """CPU seconds that Optuna takes by itself for as many."""
    import optuna

    from straylight.search.samplers import sampler_of

    def objective(trial: optuna.Trial) -> float:
        return reached(
            trial.suggest_int("latent", 2, 32),
            trial.suggest_float("lr", 1e-5, 1e-1, log=True),
            trial.suggest_float("beta", 0.1, 4),
            trial.suggest_int("batch", 16, 240, step=16),
            trial.suggest_categorical("score", ["elbo", "mu2"]),
        )

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler_of(sampler, {}, 0, 0))
    start = time.process_time()
    study.optimize(objective, n_trials=trials)
    return time.process_time() - start


def _in_a_process(trials: int, sampler: str) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", __file__, "--trials", str(trials), "--samplers", sampler]
        command += ["--here", f"{folder}/sweep"]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return [float(word) for word in said.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--samplers", default="random,qmc,cmaes,nsga2,tpe")
    parser.add_argument("--rounds", type=int, default=1, help="of which the medians count")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here is not None:
        searched(given.trials, given.samplers, given.here)
        return
    ratio = 0.0
    for sampler in given.samplers.split(","):
        taken = [_in_a_process(given.trials, sampler) for _ in range(given.rounds)]
        wall, cpu, drawing = (statistics.median(values) for values in zip(*taken, strict=True))
        own = statistics.median(alone(given.trials, sampler) for _ in range(given.rounds))
        each, ours, optunas = (1e3 * seconds / given.trials for seconds in (wall, cpu, own))
        print(
            f"{sampler:6} {given.trials} trials: {each:.1f} ms a trial, of the CPU {ours:.1f}, Optuna alone "
            f"{optunas:.1f}; figures {drawing:.1f} s"
        )
        ratio = ours / optunas
    print(f"ratio: {ratio:.2f}")


if __name__ == "__main__":
    main()
