"""Whether workers can do what `straylight score` is asked for, and how they are to."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from straylight.engines import choose
from straylight.errors import ConfigError
from straylight.job.devices import Asked, visible_gpus
from straylight.phases import Phases
from straylight.scoring.crew import Crew
from straylight.scoring.inputs import STDIN
from straylight.scoring.target import Target

LOCAL = "local"
DEVICES = ("cpu", "cuda", "auto")


def crew_of(given: argparse.Namespace, target: Target, phases: Phases) -> Crew:
    """The workers that are asked for.

    Raises:
        ConfigError: if they cannot do what is asked for.
    """
    if target.folder is None:
        raise ConfigError("--workers writes a file of scores for each file: say -o FOLDER/ or -o 'FOLDER/*.csv'.")
    if STDIN in given.files:
        raise ConfigError("--workers cannot share standard input: save it to a file, and score that.")
    if given.runtime == "auto":
        raise ConfigError("--runtime auto may choose differently on each worker: say torch or onnx with --workers.")
    if given.device not in DEVICES:
        raise ConfigError(f"--device {given.device} names one card: with --workers it is {', '.join(DEVICES)}.")
    name, options = given.engine or LOCAL, options_of(given.engine_option)
    choose.check(name, options)
    threads = given.threads
    if threads is None and name == LOCAL:
        threads = max(1, len(os.sched_getaffinity(0)) // given.workers)
    on_gpu = given.device == "cuda" or (given.device == "auto" and name == LOCAL and bool(visible_gpus()))
    config = {
        "run": str(given.run),
        "runtime": given.runtime,
        "device": given.device,
        "threads": threads,
        "trust": list(given.trust),
        "cwd": str(Path.cwd()),
    }
    return Crew(
        engine=lambda place: choose.engine(name, options, given.workers, place),
        count=given.workers,
        config=config,
        places=Asked(gpus=int(on_gpu), threads=threads, alone=True),
        phases=phases,
    )


def options_of(given: Sequence[str]) -> dict[str, Any]:
    """Options of an engine as they are typed.

    Raises:
        ConfigError: if one is no pair.

    Example:
        >>> options_of(["partition=gpu", "time=60"])
        {'partition': 'gpu', 'time': 60}
    """
    options = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ConfigError(f"--engine-option is KEY=VALUE, as partition=gpu, not {text!r}.")
        try:
            options[key.removeprefix("hydra.launcher.")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--engine-option {text!r} cannot be read.") from error
    return options
