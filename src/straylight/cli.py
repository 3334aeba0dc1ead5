"""The command `straylight`. Nothing heavy is imported before it is known what is wanted."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

from straylight import __version__

USAGE = """\
Straylight: compose anomaly detectors and data sets, sweep over both, compare.

usage: straylight COMMAND ...

commands:
  train [-m] [GROUP=NAME ...] [KEY=VALUE ...]
                    train and test a detector on a data set; with -m one run for
                    every combination of comma-separated values
  train resume=RUN_FOLDER
                    go on with an interrupted run
  data              which data sets there are; `data NAME` says what one holds,
                    `data fetch NAME` fetches one
  report FOLDER     the leaderboard of a sweep, or the numbers of one run; with
                    --retime latency and cost are measured again before

  straylight COMMAND --help says more. --version prints the version.

first steps:
  straylight train detector=vae data=digits
  straylight train -m detector=autoencoder,knn data=digits seed=0,1,2
"""

TRAIN = """\
Train and test a detector on a data set.

usage: straylight train [-m] [GROUP=NAME ...] [KEY=VALUE ...] [--config-dir DIR]
       straylight train resume=RUN_FOLDER [KEY=VALUE ...]
       straylight train -m resume=SWEEP_FOLDER [KEY=VALUE,VALUE ...]
       straylight train experiment=sweep/NAME [KEY=VALUE,VALUE ...]

groups, and what can be chosen:
{groups}

values that are often set:
  seed=0                    of splits, weights, shuffling and noise
  data.name=6_cardio        which ADBench data set; with -m data.name=all all present
  data.path=FILE            with data=file: a table or an array of your own
  data.contamination=0.05   anomalies among training rows, of those kept for it by
                            data.reserve_fraction=0.5
  paths.data=data           where data sets are read from
  paths.output=outputs      where runs and sweeps are written to
  trainer.max_epochs=100    and trainer.accelerator, trainer.devices
  optimizer.lr=1e-3         and optimizer.schedule, warmup, clip
  hydra.launcher.n_jobs=4   jobs of a sweep at a time, and retry, timeout_s, fail_fast,
                            gpus, jobs_per_gpu, jobs_per_process
  detector.KEY=VALUE        see conf/detector/NAME.yaml, or --cfg job

options:
  -m, --multirun            a run for every combination of comma-separated values
  --config-dir DIR          more config groups of your own, in folders named as above
  --cfg job                 print the composed config and stop
  --hydra-help              all options of Hydra

examples:
  straylight train detector=vae data=mnist data.nominal=3 trainer.max_epochs=20
  straylight train -m detector=autoencoder,vae,knn data=digits seed=0,1,2
"""


def main() -> None:
    """Entry point of the console command."""
    arguments = sys.argv[1:]
    match arguments:
        case [] | ["-h" | "--help" | "help", *_]:
            print(USAGE, end="")
        case ["--version", *_]:
            print(f"straylight {__version__}")
        case ["train", *rest]:
            if {"-h", "--help"} & set(rest):
                print(TRAIN.format(groups=_groups(rest)), end="")
                return
            try:
                from straylight.app import main as train
            except KeyboardInterrupt:
                sys.exit(130)
            train(rest)
        case ["data", *rest]:
            try:
                from straylight.commands.data import main as data

                data(rest)
            except KeyboardInterrupt:
                sys.exit(130)
        case ["report", *rest]:
            failures = _retimed(rest)
            from straylight.report.page import main as report

            report([a for a in rest if a != "--retime"])
            if failures:
                sys.exit(1)
        case [unknown, *_]:
            print(f"Error: there is no command {unknown!r}; the commands are train, data and report.", file=sys.stderr)
            sys.exit(2)


def _retimed(arguments: list[str]) -> int:
    """Measure the runs again if `--retime` asks for it; how many could not be."""
    folders = [Path(a) for a in arguments if not a.startswith("-") and Path(a).is_dir()]
    if "--retime" not in arguments or {"-h", "--help"} & set(arguments):
        return 0
    try:
        from straylight.commands.retime import retime

        return sum(map(retime, folders))
    except KeyboardInterrupt:
        sys.exit(130)


def _groups(arguments: list[str]) -> str:
    from straylight.groups import GROUPS, choices

    own = [Path(b) for a, b in pairwise(arguments) if a in ("--config-dir", "-cd")]
    own += [Path(a.partition("=")[2]) for a in arguments if a.startswith("--config-dir=")]
    return "\n".join(f"  {group:<11} {', '.join(choices(group, *own))}" for group in GROUPS)
