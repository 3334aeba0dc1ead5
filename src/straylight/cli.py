"""The command `straylight`. Nothing heavy is imported before it is known what is wanted."""

import atexit
import signal
import sys
from difflib import get_close_matches
from importlib import import_module
from textwrap import wrap

from straylight import __version__
from straylight.job.world import follows
from straylight.loading import loading
from straylight.phases import Phases
from straylight.streams import lenient, with_names

USAGE = """\
Straylight: compose anomaly detectors and data sets, sweep over both, compare.

usage: straylight COMMAND ...

commands:
  train [-m] [GROUP=NAME ...] [KEY=VALUE ...]
                    train and test a detector on a data set; with -m one run for
                    every combination of comma-separated values
  train resume=RUN_FOLDER
                    go on with an interrupted run
  detectors [NAME]  which detectors there are, and which first; with NAME its
                    settings and papers
  data              which data sets there are; `data NAME` says what one holds,
                    `data fetch NAME` fetches one
  report FOLDER     the leaderboard of a sweep, or the numbers of one run; with
                    --retime latency and cost are measured again before
  choose FOLDER     which run validation would choose, without labels, and that
                    run as an experiment to go on with
  score RUN FILE... scores of new rows, by a finished run
  explain RUN FILE  why rows are strange, feature by feature; without FILE the
                    run's own test rows
  export RUN        a folder that another program uses without Straylight: the
                    detector as ONNX, and a program that scores a file by it

  straylight COMMAND --help says more. --version prints the version.

first steps:
  straylight train detector=vae data=digits
  straylight train -m detector=autoencoder,knn data=digits seed=0,1,2
"""

COMMANDS = ("train", "detectors", "data", "report", "choose", "score", "explain", "export")

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
  data.name=6_cardio        which set of ADBench; with -m data.name=all each
  data.path=FILE            with data=file: a table or an array of your own
  data.contamination=0.05   anomalies among training rows, of those kept for it
                            by data.reserve_fraction=0.5
  paths.data=data           where data sets are read from
  paths.output=outputs      where runs and sweeps are written to
  trainer.max_epochs=100    and trainer.accelerator, trainer.devices
  optimizer.lr=1e-3         and optimizer.schedule, warmup, clip
  hydra.launcher.n_jobs=4   jobs of a sweep at a time, and retry, timeout_s,
                            fail_fast, gpus, jobs_per_gpu, jobs_per_process
  detector.KEY=VALUE        `straylight detectors NAME` lists its settings
  callbacks.figures=null    no pictures; --cfg job shows every setting there is

options:
  -m, --multirun            a run for every combination of the values given
  --config-dir DIR          config groups of your own, in folders named as above
  --trust NAME              with resume=: a module whose classes may be built
  --cfg job                 print the composed config and stop
  --hydra-help              all options of Hydra

examples:
  straylight train detector=vae data=mnist data.nominal=3 trainer.max_epochs=20
  straylight train -m detector=autoencoder,vae,knn data=digits seed=0,1,2
"""

WIDTH = 80  # of a narrow terminal
GROUP = 12  # of these, for the name of a group
#: Options of `train` by which it says something and does nothing.
SHOWING = {"--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc"}


def main() -> None:
    """Entry point of the console command."""
    with_names()
    lenient()
    arguments = sys.argv[1:]
    match arguments:
        case [] | ["-h" | "--help" | "help", *_]:
            print(USAGE, end="")
        case ["--version", *_]:
            print(f"straylight {__version__}")
        case ["train", *rest] if {"-h", "--help"} & set(rest):
            print(TRAIN.format(groups=_groups(rest)), end="")
        case [command, *rest] if command in COMMANDS:
            told = {}
            if command == "train":
                if follows():
                    sys.exit(import_module("straylight.job.follow").main())
                told["phases"] = phases = Phases()
                if not SHOWING & set(rest):
                    phases("starting " + " ".join(rest))  # before anything is imported that takes its time
            try:
                with loading():
                    module = import_module(f"straylight.commands.{command}")
                module.main(rest, **told)
            except KeyboardInterrupt:
                sys.exit(130)
            finally:
                atexit.register(_deaf)  # the first thing then: all is said and done
        case [unknown, *_]:
            close = get_close_matches(unknown, COMMANDS, n=1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            listed = f"{', '.join(COMMANDS[:-1])} and {COMMANDS[-1]}"
            print(f"Error: there is no command {unknown!r}{meant}; the commands are {listed}.", file=sys.stderr)
            sys.exit(2)


def _deaf() -> None:
    """Let no signal speak while the interpreter ends."""
    from straylight.stopping import SIGNALS

    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _groups(arguments: list[str]) -> str:
    from straylight.groups import GROUPS, choices, config_folders

    own, _ = config_folders(arguments)
    lines = []
    for group in GROUPS:
        indent = " " * (GROUP + 2)
        names = ", ".join(choices(group, *own))
        first = f"  {group:<{GROUP}}"
        lines += wrap(names, WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(lines)
