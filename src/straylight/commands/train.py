"""`straylight train`: what was typed, understood."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from straylight import config
from straylight.commands import typed
from straylight.commands.app import concluded, run_hydra
from straylight.commands.resume import resume, resume_sweep
from straylight.console import say
from straylight.errors import HungUp, Interrupted, StraylightError, no_room
from straylight.folder import RunFolder, SweepFolder
from straylight.overrides import readable
from straylight.phases import Phases
from straylight.sweep.command import Command


def main(arguments: list[str], phases: Phases | None = None) -> None:
    """Run the Hydra app on these arguments; exits with status 1 if a run failed, 130 if one was interrupted.

    Args:
        arguments: as typed.
        phases: told what is done now.
    """
    command = Command(phases=phases or Phases())
    _guarded(command, lambda: _understood(command, arguments))
    if command.failures:
        sys.exit(1)


def _understood(command: Command, arguments: list[str]) -> None:
    typed.refuse(arguments)
    signal.signal(signal.SIGTERM, _as_interrupt)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # a terminal that is closed; nohup says otherwise
        signal.signal(signal.SIGHUP, _as_hung_up)
    options, overrides, trust = _parted(arguments)
    resumed = [o.removeprefix("resume=") for o in overrides if o.startswith("resume=")]
    overrides = [readable(o) for o in overrides if not o.startswith("resume=")]
    if not resumed:
        with concluded(command):
            run_hydra(command, options, overrides)
    elif typed.MANY & set(options) or SweepFolder(resumed[-1]).multirun.is_file():
        resume_sweep(command, SweepFolder(resumed[-1]), options, overrides, trust)
    else:
        sys.argv = ["straylight train", *arguments]
        resume(command, RunFolder(resumed[-1]), [*options, *overrides], trust)


def _guarded(command: Command, app: Callable[[], None]) -> None:
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
        command.phases.done()
        say(f"Error: {sentence}", error=True)
        sys.exit(1)
    finally:
        command.phases.done()


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
        if argument in typed.VALUED:
            options += [value for value in [next(rest, None)] if value is not None]
    return options, overrides, trust


def _as_interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def _as_hung_up(*_: Any) -> NoReturn:
    raise HungUp
