"""The two ways a run ends early, as exceptions that carry one sentence for the user."""

import errno
import os


class StraylightError(Exception):
    """Something the user can mend: what is wrong, where, and what to do, in one sentence."""


class DataError(StraylightError):
    """A data set that is missing, unreadable or unfit for training."""


class ConfigError(StraylightError):
    """A config that names something that does not exist or holds a value that does not fit."""


class Interrupted(SystemExit):
    """Ctrl-C or SIGTERM, after the checkpoint was written. Exit status 130.

    A `SystemExit`, so that neither Lightning nor Hydra takes it for a failure of the program.
    """

    def __init__(self) -> None:
        super().__init__(130)


class HungUp(KeyboardInterrupt):
    """The terminal was closed: an interruption, but of jobs that need neither it nor this machine."""


def no_room(error: BaseException | None) -> str | None:
    """What to say of an error that comes of a disk without room, or of one that came of such; `None` of another.

    Example:
        >>> no_room(OSError(28, "No space left on device", "out/numbers"))
        'There is no room to write out/numbers (No space left on device)'
    """
    seen: list[BaseException] = []  # chains may be circles
    while error is not None and error not in seen:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return f"There is no room to write {error.filename or 'a file'} ({os.strerror(error.errno)})"
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None
