"""`straylight train`: what was typed, understood."""

import os
import signal
import sys
from typing import Any, NoReturn

from straylight import config
from straylight.commands.app import concluded, run_hydra
from straylight.commands.resume import resume, resume_sweep
from straylight.console import say
from straylight.errors import Interrupted, StraylightError, no_room
from straylight.folder import RunFolder, SweepFolder
from straylight.groups import CONFIG_DIR
from straylight.overrides import readable
from straylight.sweep.command import Command

#: Hydra's options that are followed by a value.
VALUED = {*CONFIG_DIR, "--config-path", "-cp", "--config-name", "-cn", "--cfg", "-c", "--package", "-p"}


def main(arguments: list[str]) -> None:
    """Run the Hydra app on these arguments; exits with status 1 if a run failed, 130 if one was interrupted."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # a terminal that is closed; nohup says otherwise
        signal.signal(signal.SIGHUP, _as_interrupt)
    options, overrides, trust = _parted(arguments)
    resumed = [o.removeprefix("resume=") for o in overrides if o.startswith("resume=")]
    overrides = [readable(o) for o in overrides if not o.startswith("resume=")]
    command = Command()
    if not resumed:
        _guarded(lambda: _train(command, options, overrides))
    elif {"-m", "--multirun"} & set(options) or SweepFolder(resumed[-1]).multirun.is_file():
        _guarded(lambda: resume_sweep(command, SweepFolder(resumed[-1]), options, overrides, trust))
    else:
        sys.argv = ["straylight train", *arguments]
        _guarded(lambda: resume(command, RunFolder(resumed[-1]), [*options, *overrides], trust))
    if command.failures:
        sys.exit(1)


def _train(command: Command, options: list[str], overrides: list[str]) -> None:
    with concluded(command):
        run_hydra(command, options, overrides)


def _guarded(app: Any) -> None:
    try:
        app()
    except KeyboardInterrupt:
        raise Interrupted from None
    except Exception as error:
        if os.environ.get("STRAYLIGHT_FULL_ERROR") == "1":
            raise
        if isinstance(error, StraylightError):
            sentence: str | None = str(error)
        elif (full := no_room(error)) is not None:
            sentence = f"{full}."
        elif isinstance(error, OSError) and error.filename:
            sentence = f"{error.filename} cannot be written or read: {error.strerror}."
        else:
            sentence = config.explain(error)
        if sentence is None:
            raise
        say(f"Error: {sentence}", error=True)
        sys.exit(1)


def _parted(arguments: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Options, overrides, and what is trusted: Hydra's parser wants options first; people type them as they come."""
    options, overrides, trust = [], [], []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name == "--trust":
            trust.append(value if equals else next(rest, ""))
            continue
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        options.append(argument)
        if argument in VALUED:
            options += [value for value in [next(rest, None)] if value is not None]
    return options, overrides, trust


def _as_interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt
