"""What commands of one kind share: how they refuse what is typed, and how they say what goes wrong later."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from straylight.console import say
from straylight.errors import ConfigError, StraylightError
from straylight.phases import Phases

#: The words of `straylight.files.fitting.Lacking` and `Unseen`, which take torch to be read there.
MISSING, UNSEEN = ("error", "median", "skip"), ("error", "other", "skip")
FAILED, WRONG = 1, 2  # exit statuses: something failed, or was asked wrongly


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        sentence = message.replace("unrecognized arguments:", "there is no option")
        say(f"Error: {sentence}; {self.prog} --help says what can be typed.", error=True)
        sys.exit(WRONG)


@contextmanager
def working(first: str) -> Iterator[Phases]:
    """Say what is done, from this on; what goes wrong is one sentence, and the exit status."""
    phases = Phases()
    phases(first)
    try:
        yield phases
    except StraylightError as error:
        phases.done()
        say(f"Error: {error}", error=True)
        sys.exit(WRONG if isinstance(error, ConfigError) else FAILED)
    finally:
        phases.done()
