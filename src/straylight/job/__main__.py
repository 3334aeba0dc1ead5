"""`python -m straylight.job FOLDER` does what the folder of a job says."""

import signal
import sys

from straylight.console import say
from straylight.errors import StraylightError
from straylight.job import follow
from straylight.job.lead import leading
from straylight.job.perform import perform
from straylight.job.world import follows, world_here
from straylight.streams import lenient


def main(arguments: list[str]) -> int:
    """Entry point; ranks that somebody else started, as by `srun`, do the job together."""
    lenient()
    if len(arguments) != 1:
        say("usage: python -m straylight.job FOLDER", error=True)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: with a checkpoint
    if follows():
        return follow.main()
    try:
        if (world := world_here()) is None:
            return perform(arguments[0])
        with leading(world) as leader:
            return perform(arguments[0], lead=leader.lead)
    except StraylightError as error:
        say(f"Error: {error}", error=True)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
