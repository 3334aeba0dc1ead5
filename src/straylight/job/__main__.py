"""`python -m straylight.job FOLDER` does what the folder of a job says."""

import signal
import sys

from straylight.console import say
from straylight.errors import StraylightError
from straylight.job.devices import rank_here
from straylight.job.perform import perform
from straylight.streams import lenient


def main(arguments: list[str]) -> int:
    """Entry point; ranks that a job starter such as `torchrun` made find their number in the environment."""
    lenient()
    if len(arguments) != 1:
        say("usage: python -m straylight.job FOLDER", error=True)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: with a checkpoint
    try:
        return perform(arguments[0], rank=rank_here() or 0)
    except StraylightError as error:
        say(f"Error: {error}", error=True)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
